"""How the Triton kernels walk a row: which columns a lane takes, how they are loaded and stored, and how a logit is capped.

A lane is one thread of the program that owns the row. A block of the row is a tile (DEPTH, LANES, WIDTH), with WIDTH the
numbers in 16 bytes, so that a reduction over DEPTH and WIDTH stays within the thread. Which columns a lane takes hangs on
the vocabulary alone, so that a row has the same sums, bit for bit, wherever it lies in memory:

- WHOLE, a vocabulary that is a multiple of WIDTH: a lane takes WIDTH columns side by side. Where rows begin at multiples of
  16 bytes (ALIGNED), as those of any contiguous tensor then do, it loads and stores them at once.
- else neighbouring lanes take neighbouring columns, one element a load, 32 of them side by side.

Left out: rows whose columns are not side by side; the host copies those.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

INF = tl.constexpr(math.inf)
LOG2E = tl.constexpr(math.log2(math.e))
LN2 = tl.constexpr(math.log(2.0))
NO_BITS = tl.constexpr(-2000.0)  # log₂p is taken no lower: exp2 of it is 0, and 0·(−inf) would be no number
NO_REF_BITS = tl.constexpr(-1e25 * math.log2(math.e))  # nor log₂q lower than this, which a p > 0 may multiply


@triton.jit
def row_of(x, row, inner, outer_stride, inner_stride, ALIGNED: tl.constexpr):
    """Pointer to a row of a tensor whose rows lie as (outer, inner); int64, for tensors beyond 2³¹ elements."""
    start = x + (row // inner * outer_stride + row % inner * inner_stride)
    if ALIGNED:
        start = tl.multiple_of(start, 16)
    return start


@triton.jit
def lane_columns(lane, LANES: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """Columns of a lane, or of lanes (k, LANES, 1), in the first LANES·WIDTH columns of a block; WIDTH is the last axis."""
    j = tl.arange(0, WIDTH)[None, None, :]
    if WHOLE:
        return lane * WIDTH + j
    return j * LANES + lane


@triton.jit
def block_columns(LANES: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """(DEPTH, LANES, WIDTH) columns of the first block of a row."""
    deep = tl.arange(0, DEPTH)[:, None, None] * (LANES * WIDTH)
    return deep + lane_columns(tl.arange(0, LANES)[None, :, None], LANES, WIDTH, WHOLE)


@triton.jit
def end_of(vocab, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """The vocabulary, and what the compiler may know of it."""
    return vocab // WIDTH * WIDTH if WHOLE else vocab


@triton.jit
def load(row, column, end):
    return tl.load(row + column, mask=column < end, other=-INF)


@triton.jit
def lane_sum(x):  # (k,LANES,WIDTH) -> (LANES,)
    return tl.sum(tl.sum(x, 2), 0)


@triton.jit
def lane_max(x):  # (k,LANES,WIDTH) -> (LANES,)
    return tl.max(tl.max(x, 2), 0)


@triton.jit
def vanishing(x, cap):
    """e^(−2|x| / c), of which tanh and its slope are made."""
    return tl.exp2(tl.abs(x) * (-2.0 * LOG2E / cap))


@triton.jit
def capped(x, cap):
    """c·tanh(x / c) to a few ulp, also near 0; ±inf and NaN as they are, for −inf is no logit but a token that is not there.

    tanh u = (1 − w) / (1 + w) with w = e^(−2u), and where that cancels, Lambert's continued fraction u / (1 + u² / (3 + ...)).
    """
    u = tl.abs(x) * (1.0 / cap)
    w = vanishing(x, cap)
    q = u * u
    near = u < 0.5
    over = tl.where(near, u * (945.0 + q * (105.0 + q)), 1.0 - w)
    size = cap * (over / tl.where(near, 945.0 + q * (420.0 + 15.0 * q), 1.0 + w))
    return tl.where(tl.abs(x) == INF, x, tl.where(x < 0, -size, size))


@triton.jit
def logit(x, cap, CAPPED: tl.constexpr):
    """A loaded element as a logit: fp32, and capped if the head caps."""
    x = x.to(tl.float32)
    if CAPPED:
        x = capped(x, cap)
    return x


@triton.jit
def cap_slope(x, cap):
    """The derivative of c·tanh(x / c) with its digits also where it is small: 4w / (1 + w)²."""
    w = vanishing(x, cap)
    return 4.0 * w / ((1.0 + w) * (1.0 + w))
