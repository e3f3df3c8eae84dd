"""The row kernels as Triton programs: forward reads each logit once (2V bytes a token in bf16), backward reads and writes
once. kernels/triton_rows.py launches them.

One program owns one row and walks it in blocks, so the grid is one-dimensional, no two programs write one address,
no atomics are needed, and a row's result depends on nothing but the row. The mathematics, the notation and the reasons
for r = s − 1 are in kernels/reference.py; what is different here is that the maximum is not known beforehand. Let m be
the largest logit so far, and let a block bring a larger one m'. With α = (m − m')/T every sum so far is moved over by

    Σe ← e^α·Σe        Σe·d ← e^α·(Σe·d + α·Σe)        Σe·(d − d') likewise; a new reference maximum: −α'·Σe

That happens a few times a row (the number of running records), in a branch; an ordinary block costs one exponential an
element and one reduction, its maximum. The sums stay vectors, one lane a column of the block, until the row is done.
Inside, exponents count in bits: exp(d) = exp2(d·log₂e) with log₂e folded into 1/T.

Sums leave out the element that *is* the maximum and its e = 1 is carried apart (`more`: what else has weight beside
it), which is how log1p(Σe − 1) gets its digits.

Left out: float64 (kernels/reference.py has it), and splitting a row over programs: the sampler's few rows are bound by
launch time, not by one row's length.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

INF = tl.constexpr(math.inf)
LOG2E = tl.constexpr(math.log2(math.e))
LN2 = tl.constexpr(math.log(2.0))


@triton.jit
def log1p(r):
    """log(1 + r) for r ≥ 0 to a few ulp, also where 1 + r rounds to 1: 2·artanh(r / (2 + r)) as a series below 1/2."""
    w = r / (2.0 + r)
    q = w * w
    series = 2.0 * w * (1.0 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11))))))
    return tl.where(r < 0.5, series, tl.log(1.0 + r))


@triton.jit
def one_minus_exp(x):
    """1 − exp(x) for x ≤ 0 to a few ulp, also where exp(x) rounds to 1."""
    near = -x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7 * (1 + x / 8)))))))
    return tl.where(x > -0.5, near, 1.0 - tl.exp(x))


@triton.jit
def row_start(row, inner, outer_stride, inner_stride, ALIGNED: tl.constexpr):
    """Offset of a row of a tensor whose rows lie as (outer, inner); int64, for tensors beyond 2³¹ elements."""
    start = row // inner * outer_stride + row % inner * inner_stride
    if ALIGNED:
        start = tl.multiple_of(start, 16)
    return start


@triton.jit
def finite(m):
    """A maximum that may be subtracted: 0 where everything so far was −inf."""
    return tl.where(m == -INF, 0.0, m)


@triton.jit(
    do_not_specialize=[
        "n",
        "ignore_index",
        "x_inner",
        "x_outer_stride",
        "x_inner_stride",
        "r_inner",
        "r_outer_stride",
        "r_inner_stride",
    ],
    do_not_specialize_on_alignment=["targets", "out"],
)
def forward_kernel(
    logits,
    ref_logits,
    targets,
    out,  # (N rows of V), the same or a dummy, (N,), (5 or 8, N) fp32
    n: tl.int64,
    vocab,
    inv_t,
    ignore_index: tl.int64,
    x_inner: tl.int64,
    x_outer_stride: tl.int64,
    x_inner_stride: tl.int64,
    r_inner: tl.int64,
    r_outer_stride: tl.int64,
    r_inner_stride: tl.int64,
    BLOCK: tl.constexpr,
    HAS_REF: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    out += row
    y = tl.load(targets + row)
    if y == ignore_index:  # the row is not read; `out` was zeroed by the host
        return
    x_row = logits + row_start(row, x_inner, x_outer_stride, x_inner_stride, ALIGNED)
    r_row = ref_logits + row_start(row, r_inner, r_outer_stride, r_inner_stride, ALIGNED)
    scale = inv_t * LOG2E  # logits to bits

    m = -INF
    more, t, c = -1.0, 0.0, 0.0  # scalars: weight beside the maximum's own 1 (−1: not even that), shares of the sums
    sum_e = tl.zeros((BLOCK,), tl.float32)
    sum_ed = tl.zeros((BLOCK,), tl.float32)
    if HAS_REF:
        m_ref = -INF
        more_ref = -1.0
        sum_ref = tl.zeros((BLOCK,), tl.float32)
        sum_ec = tl.zeros((BLOCK,), tl.float32)

    column = tl.arange(0, BLOCK)
    x_next = tl.load(x_row + column, mask=column < vocab, other=-INF)
    if HAS_REF:
        r_next = tl.load(r_row + column, mask=column < vocab, other=-INF)
    for _ in range(0, vocab, BLOCK):
        column += BLOCK  # of the block after this one: its loads are under way while this one is reduced
        x = x_next.to(tl.float32)
        x_next = tl.load(x_row + column, mask=column < vocab, other=-INF)
        counted = x  # as x, but −inf where the maximum is carried apart
        if HAS_REF:
            r = r_next.to(tl.float32)
            r_next = tl.load(r_row + column, mask=column < vocab, other=-INF)
            counted_ref = r
            top = tl.max(r, 0)
            if top > m_ref:
                shift = tl.where(m_ref == -INF, 0.0, (m_ref - top) * scale)
                decay = tl.where(m_ref == -INF, 0.0, tl.exp2(shift))
                sum_ec -= shift * sum_e
                c -= shift * (more + 1.0)
                sum_ref *= decay
                more_ref = decay * (more_ref + 1.0) + (tl.sum((r == top).to(tl.float32), 0) - 1.0)
                counted_ref = tl.where(r == top, -INF, r)
                m_ref = top
            bits_ref = (r - finite(m_ref)) * scale
            sum_ref += tl.where(counted_ref == -INF, 0.0, tl.exp2(bits_ref))
        top = tl.max(x, 0)
        if top > m:
            shift = tl.where(m == -INF, 0.0, (m - top) * scale)
            decay = tl.where(m == -INF, 0.0, tl.exp2(shift))
            sum_ed = decay * (sum_ed + shift * sum_e)
            t = decay * (t + shift * (more + 1.0))
            if HAS_REF:  # an infinite term of a token whose weight has since vanished must vanish too
                sum_ec = tl.where(decay > 0, decay * (sum_ec + shift * sum_e), 0.0)
                c = tl.where(decay > 0, decay * (c + shift * (more + 1.0)), 0.0)
            sum_e *= decay
            more = decay * (more + 1.0) + (tl.sum((x == top).to(tl.float32), 0) - 1.0)
            counted = tl.where(x == top, -INF, x)
            m = top
        if HAS_REF:
            bits = (x - finite(m)) * scale
            e = tl.exp2(bits)
            sum_e += tl.where(counted == -INF, 0.0, e)
            sum_ec += tl.where(e > 0, e * (bits - bits_ref), e)  # 0·inf = 0, but NaN stays NaN
        else:  # the maximum itself has d = 0, so leaving it out of Σe·d changes nothing
            bits = (counted - finite(m)) * scale
            e = tl.exp2(bits)
            sum_e += e
        sum_ed += e * tl.maximum(bits, -2000.0)  # e = 0 there, and 0·(−inf) would be no number

    dead = m == -INF
    rest = more + tl.sum(sum_e, 0)
    log_s = tl.where(dead & (rest == -1.0), INF, log1p(rest))
    log_s = tl.where(m == INF, float("nan"), log_s)  # +inf − inf
    s = 1.0 + rest
    m_safe = finite(m)
    inside = (y >= 0) & (y < vocab)
    x_y = tl.load(x_row + tl.where(inside, y, 0)).to(tl.float32)
    logprob = (x_y - m_safe) * inv_t - log_s
    tl.store(out, tl.where(inside, logprob, float("nan")))
    dead = log_s == INF
    tl.store(out + n, tl.where(dead, -INF, m_safe * inv_t + log_s))
    tl.store(out + 2 * n, tl.where(dead, 0.0, log_s - (t + tl.sum(sum_ed, 0)) * LN2 / s))
    tl.store(out + 3 * n, m_safe)
    tl.store(out + 4 * n, log_s)
    if HAS_REF:
        ref_dead = m_ref == -INF
        log_s_ref = tl.where(ref_dead, INF, log1p(more_ref + tl.sum(sum_ref, 0)))
        kl = (c + tl.sum(sum_ec, 0)) * LN2 / s - (log_s - log_s_ref)
        kl = tl.where(kl < 0, 0.0, kl)  # rounding only; NaN passes
        tl.store(out + 5 * n, finite(m_ref))
        tl.store(out + 6 * n, log_s_ref)
        tl.store(out + 7 * n, tl.where(dead, 0.0, tl.where(ref_dead, INF, kl)))


@triton.jit(
    do_not_specialize=[
        "n",
        "ignore_index",
        "x_inner",
        "x_outer_stride",
        "x_inner_stride",
        "r_inner",
        "r_outer_stride",
        "r_inner_stride",
        "g_inner",
        "g_outer_stride",
        "g_inner_stride",
    ],
    do_not_specialize_on_alignment=["targets", "row_stats", "weights"],
)
def backward_kernel(
    grad,
    logits,
    ref_logits,
    targets,
    row_stats,
    weights,  # row_stats (2 or 4, N): norm; weights (3 or 4, N): below
    n: tl.int64,
    vocab,
    columns,
    inv_t,
    ignore_index: tl.int64,
    x_inner: tl.int64,
    x_outer_stride: tl.int64,
    x_inner_stride: tl.int64,
    r_inner: tl.int64,
    r_outer_stride: tl.int64,
    r_inner_stride: tl.int64,
    g_inner: tl.int64,
    g_outer_stride: tl.int64,
    g_inner_stride: tl.int64,
    BLOCK: tl.constexpr,
    HAS_REF: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    g_row = grad + row_start(row, g_inner, g_outer_stride, g_inner_stride, ALIGNED)
    y = tl.load(targets + row)
    # dz_j·T = p_j·(level + slope·log p_j + tilt·log(p_j / q_j)) + 1{j=y}·g
    g = tl.load(weights + row)
    level = tl.load(weights + n + row)
    slope = tl.load(weights + 2 * n + row)
    log_s = tl.load(row_stats + n + row)
    idle = (y == ignore_index) | (log_s == INF) | ((g == 0) & (level == 0) & (slope == 0))
    if HAS_REF:
        tilt = tl.load(weights + 3 * n + row)
        idle = idle & (tilt == 0) | (y == ignore_index) | (log_s == INF)
    if idle:  # neither read nor computed
        for begin in range(0, columns, BLOCK):
            column = begin + tl.arange(0, BLOCK)
            tl.store(g_row + column, tl.zeros((BLOCK,), grad.dtype.element_ty), mask=column < columns)
        return

    x_row = logits + row_start(row, x_inner, x_outer_stride, x_inner_stride, ALIGNED)
    scale = inv_t * LOG2E
    m = tl.load(row_stats + row)
    if HAS_REF:
        r_row = ref_logits + row_start(row, r_inner, r_outer_stride, r_inner_stride, ALIGNED)
        m_ref = tl.load(row_stats + 2 * n + row)
        bits_s_ref = tl.load(row_stats + 3 * n + row) * LOG2E
    # The target first, and no warp stores before all have loaded it: with inplace_grad its logit is overwritten below.
    y_safe = tl.where((y >= 0) & (y < vocab), y, 0)
    log_p = (tl.load(x_row + y_safe).to(tl.float32) - m) * inv_t - log_s
    beside = level + g + slope * tl.maximum(log_p, -1000.0)
    if HAS_REF:
        log_q = (tl.load(r_row + y_safe).to(tl.float32) - m_ref) * inv_t - bits_s_ref * LN2
        beside += tilt * (tl.maximum(log_p, -1000.0) - tl.maximum(log_q, -1e30))
    at_target = (g * one_minus_exp(log_p) + tl.exp(log_p) * beside) * inv_t
    tl.debug_barrier()

    bits_s = log_s * LOG2E
    level *= inv_t
    slope *= inv_t * LN2
    for begin in range(0, columns, BLOCK):
        column = begin + tl.arange(0, BLOCK)
        x = tl.load(x_row + column, mask=column < vocab, other=-INF).to(tl.float32)
        bits = (x - m) * scale - bits_s
        p = tl.exp2(bits)
        bits = tl.maximum(bits, -2000.0)
        factor = level + slope * bits
        if HAS_REF:
            r = tl.load(r_row + column, mask=column < vocab, other=-INF).to(tl.float32)
            bits_ref = tl.maximum((r - m_ref) * scale - bits_s_ref, -1e30)
            factor += tilt * inv_t * LN2 * (bits - bits_ref)
        dz = tl.where(column == y, at_target, p * factor)
        tl.store(g_row + column, dz.to(grad.dtype.element_ty), mask=column < columns)
