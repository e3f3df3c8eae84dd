"""The backward row kernel in Triton: logits read once, their gradient written once. kernels/triton_rows.py launches it; the
formulas are in kernels/reference.py, where a row's pieces are in kernels/triton_pieces.py.

One program owns one row. The gradient off the target is one expression of p, the same for every column; the target's has
1 − p in it and is made apart, before anything is stored, for the gradient may lie where the logits lie.

Left out: double backward.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_pieces import INF, LN2, LOG2E, NO_BITS, NO_REF_BITS, block_columns, cap_slope, end_of, load, logit, row_of


@triton.jit
def one_minus_exp(x):
    """1 − exp(x) for x ≤ 0 to a few ulp, also where exp(x) rounds to 1."""
    near = -x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7 * (1 + x / 8)))))))
    return tl.where(x > -0.5, near, 1.0 - tl.exp(x))


@triton.jit
def zero_columns(row, begin, end, LANES: tl.constexpr):
    for first in range(begin, end, LANES):
        column = first + tl.arange(0, LANES)
        tl.store(row + column, tl.zeros((LANES,), row.dtype.element_ty), mask=column < end)


@triton.jit
def off_target(x, r, m, bits_s, m_ref, bits_s_ref, level, slope, tilt, scale, HAS_REF: tl.constexpr):
    """d loss / d logit of any column but the target: p·(level + slope·log₂p + tilt·log₂(p/q))."""
    bits = (x - m) * scale - bits_s
    p = tl.exp2(bits)
    bits = tl.maximum(bits, NO_BITS)
    factor = level + slope * bits
    if HAS_REF:
        factor += tilt * (bits - tl.maximum((r - m_ref) * scale - bits_s_ref, NO_REF_BITS))
        return tl.where(p > 0, p * factor, p)  # 0·inf under a gradient large enough; NaN passes
    return p * factor


@triton.jit(
    do_not_specialize=[
        "n", "vocab", "columns", "ignore_index", "x_inner", "x_outer_stride", "x_inner_stride",
        "r_inner", "r_outer_stride", "r_inner_stride", "g_inner", "g_outer_stride", "g_inner_stride",
    ],
    do_not_specialize_on_alignment=["grad", "logits", "ref_logits", "targets", "row_stats", "weights", "inv_t"],
)  # fmt: skip
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
    inv_t,  # 1/T, or where ROW_T a pointer to (N,) of them
    cap,
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
    LANES: tl.constexpr,
    DEPTH: tl.constexpr,
    HAS_REF: tl.constexpr,
    WHOLE: tl.constexpr,
    ALIGNED: tl.constexpr,
    CAPPED: tl.constexpr,
    ROW_T: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    g_row = row_of(grad, row, g_inner, g_outer_stride, g_inner_stride, ALIGNED)
    y = tl.load(targets + row)
    # dz_j·T = p_j·(level + slope·log p_j + tilt·log(p_j / q_j)) + 1{j=y}·g
    g = tl.load(weights + row)
    level = tl.load(weights + n + row)
    slope = tl.load(weights + 2 * n + row)
    tilt = 0.0
    if HAS_REF:
        tilt = tl.load(weights + 3 * n + row)
    log_s = tl.load(row_stats + n + row)
    still = (g == 0) & (level == 0) & (slope == 0) & (tilt == 0)
    if (y == ignore_index) | (log_s == INF) | still:  # neither read nor computed
        zero_columns(g_row, 0, columns, LANES)
        return

    WIDTH: tl.constexpr = 128 // grad.dtype.element_ty.primitive_bitwidth
    x_row = row_of(logits, row, x_inner, x_outer_stride, x_inner_stride, ALIGNED)
    r_row = row_of(ref_logits, row, r_inner, r_outer_stride, r_inner_stride, ALIGNED)
    if ROW_T:
        inv_t = tl.load(inv_t + row)
    scale = inv_t * LOG2E
    m = tl.load(row_stats + row)
    bits_s = log_s * LOG2E
    m_ref, bits_s_ref = 0.0, 0.0
    if HAS_REF:
        m_ref = tl.load(row_stats + 2 * n + row)
        bits_s_ref = tl.load(row_stats + 3 * n + row) * LOG2E
    # The target first, and no warp stores before all have loaded it: with inplace_grad its logit is overwritten below.
    y_safe = tl.where((y >= 0) & (y < vocab), y, 0)
    x_y = tl.load(x_row + y_safe).to(tl.float32)
    log_p = (logit(x_y, cap, CAPPED) - m) * inv_t - log_s
    beside = level + g + slope * tl.maximum(log_p, NO_BITS * LN2)
    if HAS_REF:
        log_q = ((logit(tl.load(r_row + y_safe), cap, CAPPED) - m_ref) * scale - bits_s_ref) * LN2
        beside += tilt * (tl.maximum(log_p, NO_BITS * LN2) - tl.maximum(log_q, NO_REF_BITS * LN2))
    p_y = tl.exp(log_p)
    at_target = (g * one_minus_exp(log_p) + tl.where(p_y > 0, p_y * beside, p_y)) * inv_t
    if CAPPED:
        at_target *= cap_slope(x_y, cap)
    tl.debug_barrier()

    level *= inv_t
    slope *= inv_t * LN2
    tilt *= inv_t * LN2
    y_column = tl.where((y >= 0) & (y < vocab), y, -1).to(tl.int32)  # no column but the target's, compared in 32 bits
    end = end_of(vocab, WIDTH, WHOLE)
    column = block_columns(LANES, DEPTH, WIDTH, WHOLE)
    for _ in range(0, end, DEPTH * LANES * WIDTH):
        x = load(x_row, column, end).to(tl.float32)
        r = x
        if HAS_REF:
            r = logit(load(r_row, column, end), cap, CAPPED)
        dz = off_target(logit(x, cap, CAPPED), r, m, bits_s, m_ref, bits_s_ref, level, slope, tilt, scale, HAS_REF)
        if CAPPED:
            dz *= cap_slope(x, cap)
        dz = tl.where(column == y_column, at_target, dz).to(grad.dtype.element_ty)
        tl.store(g_row + column, dz, mask=column < end)
        column += DEPTH * LANES * WIDTH
    zero_columns(g_row, vocab, columns, LANES)
