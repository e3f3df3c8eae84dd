"""The forward row kernel in Triton: each logit is read once, 2V bytes a token in bf16. kernels/triton_rows.py launches it; the
formulas, the notation and the reason for r = s − 1 are in kernels/reference.py, which columns a lane takes in
kernels/triton_pieces.py.

One program owns one row, so the grid is one-dimensional, no two programs write one address, no atomics are needed, and a
row's result depends on nothing but the row. Each lane keeps a maximum and sums of its own columns; no lane waits for another
until the row is done. Let m be the largest logit that a lane has met, and let a block bring a larger one, m'. With
α = (m − m')/T

    Σe ← e^α·Σe        Σe·d ← e^α·(Σe·d + α·Σe)        Σe·(d − d') likewise; a new reference maximum: −α'·Σe

so a block costs a lane one exponential an element and one for e^α; where the maximum stays, α = 0 and nothing moves. At the
end the lanes' sums are moved to the maximum of the row by the same rule, and added. Inside, exponents count in bits:
exp(d) = exp2(d·log₂e) with log₂e folded into 1/T.

The digits of log1p(Σe − 1) are in danger in one lane alone, the one that holds the maximum, whose e = 1 swallows what is
small beside it. That lane's columns, one in LANES, are read a second time with the maximum left out.

Left out: float64 (kernels/reference.py has it), and splitting a row over programs: the sampler's few rows are bound by
launch time, not by one row's length.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_pieces import (
    INF,
    LN2,
    LOG2E,
    NO_BITS,
    NO_REF_BITS,
    block_columns,
    end_of,
    lane_columns,
    lane_max,
    lane_sum,
    load,
    logit,
    row_of,
)

LEAST = tl.constexpr(-126.0)  # a probability of fewer bits than the least normal fp32 number counts as 0
LOWEST = tl.constexpr(-3.4028234663852886e38)  # a lane's maximum before it met a logit: finite, so it may be subtracted


@triton.jit
def log1p(r):
    """log(1 + r) for r ≥ 0 to a few ulp, also where 1 + r rounds to 1: 2·artanh(r / (2 + r)) as a series below 1/2."""
    w = r / (2.0 + r)
    q = w * w
    series = 2.0 * w * (1.0 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11))))))
    return tl.where(r < 0.5, series, tl.log(1.0 + r))


@triton.jit
def move(old, new, scale):
    """Bits by which sums move from one maximum to a larger one, ≤ 0 and finite, and the factor that this is."""
    shift = tl.maximum((old - new) * scale, NO_REF_BITS)  # of a reference masked with −1e9 a p > 0 asks for all of them
    return shift, tl.exp2(shift)


@triton.jit
def row_sum(
    row, end, m, sum_e, scale, cap,
    LANES: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    """(maximum, Σe − 1) of the row from its lanes' m and Σe; −1 for a row of −inf, NaN for one with +inf."""
    lane = tl.arange(0, LANES)
    top = tl.max(m, 0)
    owner = tl.min(tl.where(m == top, lane, LANES), 0)  # its sum holds the maximum and is made anew without
    _, factor = move(m, top, scale)
    beside = tl.where(lane == owner, 0.0, factor * sum_e)
    maxima = tl.zeros((LANES,), tl.float32)
    own = lane_columns(owner, LANES, WIDTH, WHOLE)
    block = LANES * tl.arange(0, DEPTH)[:, None] + lane[None, :]
    for begin in range(0, end, DEPTH * LANES * LANES * WIDTH):
        x = logit(load(row, begin + block[:, :, None] * (LANES * WIDTH) + own, end), cap, CAPPED)
        maxima += lane_sum((x == top).to(tl.float32))
        beside += lane_sum(tl.where(x == top, 0.0, tl.exp2((x - top) * scale)))
    rest = (tl.sum(maxima, 0) - 1.0) + tl.sum(beside, 0)
    return top, tl.where(top == INF, float("nan"), rest)  # +inf − inf


@triton.jit
def most_excluded(
    x_row, r_row, end, LANES: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr
):  # fmt: skip
    """The largest logit among the columns to which the reference gives probability 0."""
    lost = tl.full((LANES,), -INF, tl.float32)
    column = block_columns(LANES, DEPTH, WIDTH, WHOLE)
    for _ in range(0, end, DEPTH * LANES * WIDTH):
        x = load(x_row, column, end).to(tl.float32)
        r = load(r_row, column, end).to(tl.float32)
        lost = tl.maximum(lost, lane_max(tl.where(r == -INF, x, -INF)))
        column += DEPTH * LANES * WIDTH
    return tl.max(lost, 0)


@triton.jit(
    do_not_specialize=[
        "n", "vocab", "ignore_index",
        "x_inner", "x_outer_stride", "x_inner_stride", "r_inner", "r_outer_stride", "r_inner_stride",
    ],
    do_not_specialize_on_alignment=["logits", "ref_logits", "targets", "out", "inv_t"],
)  # fmt: skip
def forward_kernel(
    logits,
    ref_logits,
    targets,
    out,  # (N rows of V), the same or a dummy, (N,), (5 or 8, N) fp32
    n: tl.int64,
    vocab,
    inv_t,  # 1/T, or where ROW_T a pointer to (N,) of them
    cap,
    ignore_index: tl.int64,
    x_inner: tl.int64,
    x_outer_stride: tl.int64,
    x_inner_stride: tl.int64,
    r_inner: tl.int64,
    r_outer_stride: tl.int64,
    r_inner_stride: tl.int64,
    LANES: tl.constexpr,
    DEPTH: tl.constexpr,
    HAS_REF: tl.constexpr,
    WHOLE: tl.constexpr,
    ALIGNED: tl.constexpr,
    CAPPED: tl.constexpr,
    ROW_T: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    out += row
    y = tl.load(targets + row)
    if y == ignore_index:  # the row is not read; `out` was zeroed by the host
        return
    WIDTH: tl.constexpr = 128 // logits.dtype.element_ty.primitive_bitwidth
    x_row = row_of(logits, row, x_inner, x_outer_stride, x_inner_stride, ALIGNED)
    r_row = row_of(ref_logits, row, r_inner, r_outer_stride, r_inner_stride, ALIGNED)
    end = end_of(vocab, WIDTH, WHOLE)
    if ROW_T:
        inv_t = tl.load(inv_t + row)
    scale = inv_t * LOG2E  # logits to bits

    m = tl.full((LANES,), LOWEST, tl.float32)
    sum_e = tl.zeros((LANES,), tl.float32)
    sum_ed = tl.zeros((LANES,), tl.float32)
    if HAS_REF:
        m_ref = tl.full((LANES,), LOWEST, tl.float32)
        sum_ref = tl.zeros((LANES,), tl.float32)
        sum_ec = tl.zeros((LANES,), tl.float32)
        least_ref = tl.full((LANES,), INF, tl.float32)

    column = block_columns(LANES, DEPTH, WIDTH, WHOLE)
    x_next = load(x_row, column, end)
    if HAS_REF:
        r_next = load(r_row, column, end)
    for _ in range(0, end, DEPTH * LANES * WIDTH):
        x = logit(x_next, cap, CAPPED)
        column += DEPTH * LANES * WIDTH  # the next block is under way while this one is summed
        x_next = load(x_row, column, end)
        m_old, m = m, tl.maximum(m, lane_max(x))
        shift, factor = move(m_old, m, scale)
        bits = (x - m[None, :, None]) * scale
        e = tl.exp2(bits)
        bits = tl.maximum(bits, NO_BITS)
        if HAS_REF:
            r = logit(r_next, cap, CAPPED)
            r_next = load(r_row, column, end)
            least_ref = tl.minimum(least_ref, tl.min(tl.min(r, 2), 0))
            m_old, m_ref = m_ref, tl.maximum(m_ref, lane_max(r))
            shift_ref, factor_ref = move(m_old, m_ref, scale)
            bits_ref = (r - m_ref[None, :, None]) * scale
            sum_ref = factor_ref * sum_ref + lane_sum(tl.exp2(bits_ref))
            bits_ref = tl.maximum(bits_ref, NO_REF_BITS)
            sum_ec = factor * (sum_ec + (shift - shift_ref) * sum_e) + lane_sum(e * (bits - bits_ref))
        sum_ed = factor * (sum_ed + shift * sum_e) + lane_sum(e * bits)
        sum_e = factor * sum_e + lane_sum(e)

    top, rest = row_sum(x_row, end, m, sum_e, scale, cap, LANES, DEPTH, WIDTH, WHOLE, CAPPED)
    dead = rest == -1.0
    m_safe = tl.where(dead, 0.0, top)
    log_s = tl.where(dead, INF, log1p(rest))
    s = 1.0 + rest
    shift, factor = move(m, top, scale)
    mean_bits = tl.sum(factor * (sum_ed + shift * sum_e), 0) / s
    inside = (y >= 0) & (y < vocab)
    x_y = logit(tl.load(x_row + tl.where(inside, y, 0)), cap, CAPPED)
    logprob = (x_y - m_safe) * inv_t - log_s
    tl.store(out, tl.where(inside, logprob, float("nan")))
    tl.store(out + n, tl.where(dead, -INF, m_safe * inv_t + log_s))
    tl.store(out + 2 * n, tl.where(dead, 0.0, log_s - mean_bits * LN2))
    tl.store(out + 3 * n, m_safe)
    tl.store(out + 4 * n, log_s)
    if HAS_REF:
        top_ref, rest_ref = row_sum(r_row, end, m_ref, sum_ref, scale, cap, LANES, DEPTH, WIDTH, WHOLE, CAPPED)
        ref_dead = rest_ref == -1.0
        log_s_ref = tl.where(ref_dead, INF, log1p(rest_ref))
        shift_ref, _ = move(m_ref, top_ref, scale)
        cross = tl.sum(factor * (sum_ec + (shift - shift_ref) * sum_e), 0) / s
        kl = cross * LN2 - (log_s - log_s_ref)
        kl = tl.where(kl < 0, 0.0, kl)  # rounding only; NaN passes
        if tl.min(least_ref, 0) == -INF:  # rare, so only such rows pay for a third look at them
            lost = logit(most_excluded(x_row, r_row, end, LANES, DEPTH, WIDTH, WHOLE), cap, CAPPED)
            kl = tl.where(((lost - top) * scale >= LEAST) & (kl == kl), INF, kl)
        tl.store(out + 5 * n, tl.where(ref_dead, 0.0, top_ref))
        tl.store(out + 6 * n, log_s_ref)
        tl.store(out + 7 * n, tl.where(dead, 0.0, kl))
