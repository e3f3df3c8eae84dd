"""Log-prob, log-sum-exp, entropy and exact KL of rows of logits in plain PyTorch: the oracle, and the CPU's fast path.

For a row z = x / T with maximum m, d = z − m, e = exp d and s = Σ e (with a soft cap c, x stands for c·tanh(x / c)):

    log p_y = d_y − log s        logsumexp = m + log s        H = log s − Σ e·d / s
    KL(p‖q) = Σ e·(d − d') / s − log(s / s')                  (primes: the reference row)

    dz_j = (1/T) [ g_lp (1{j=y} − p_j) + g_lse p_j − g_H p_j (log p_j + H) + g_KL p_j (log p_j − log q_j − KL) ]

Three choices keep the accuracy of fp32. The maximum is subtracted *before* dividing by T, so huge logits lose
nothing to that division. The sum is carried as r = s − 1, the largest element left out, and log s = log1p(r): log p_y
is then a sum of two terms ≤ 0 and H one of two terms ≥ 0, so nothing cancels even where p_y = 1 − 1e-7, as for
most sampled tokens. And the target's gradient uses 1 − p_y = −expm1(log p_y). A soft cap multiplies dz_j by cosh⁻²(x_j / c).

Rows are taken a cache-full at a time, so beside the inputs only one chunk and a few numbers a row exist. Rows without
a target, and in the backward pass rows without an incoming gradient, are never read. Shape letters: N rows, V vocabulary, n
rows of one chunk.

Left out: double backward, and gradients for the reference logits, the temperature or the cap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)

# Elements of one chunk, a thread: two to four fp32 buffers stay in cache while a dozen passes run over them. Half of all rows'
# where that is less, down to the least: the buffers should be small beside the rows.
CHUNK_ELEMENTS, LEAST_CHUNK = 1 << 19, 1 << 18
# exp of anything below −104 is 0 in fp32 (−746 in fp64): log-probs may be raised to this without changing a result.
NO_PROBABILITY = -1000.0
# The rounding of a sum whose largest is 1 costs the sum of the others a digit where that is below this.
SWALLOWED = 0.125
NO_REFERENCE = -1e25  # log q is taken no lower, so that a probability > 0 may multiply it


class Scaling(NamedTuple):
    """How a logit x becomes an exponent: z = c·tanh(x / c) / T."""

    temperature: float = 1.0
    softcap: float = 0.0  # c; 0 for none
    row_inverse: Tensor | None = None  # (N,) 1/T of each row in the compute dtype, in the place of 1/temperature

    def of(self, chosen: slice | Tensor) -> Scaling:
        """The same of some rows."""
        return self if self.row_inverse is None else self._replace(row_inverse=self.row_inverse[chosen])

    @property
    def inverse(self) -> float | Tensor:
        """1/T, one or of each row."""
        return 1.0 / self.temperature if self.row_inverse is None else self.row_inverse

    @property
    def column(self) -> float | Tensor:
        """The same as it goes beside (n,V): a number, or (n,1)."""
        return self.inverse if self.row_inverse is None else self.row_inverse[:, None]


class RowStats(NamedTuple):
    """What one forward pass leaves behind, in the compute dtype; `backward` needs nothing else of a row."""

    logprob: Tensor  # (N,)
    logsumexp: Tensor  # (N,)
    entropy: Tensor  # (N,)
    kl: Tensor  # (N,), or (0,) without a reference
    # (2, N), or (4, N) with a reference: the largest (capped) logit before temperature, or 0 for a row of −inf; and
    # log Σ exp((x − max)/T), or +inf for a row of −inf, so that every probability there is exp(−inf). Then the
    # reference's two.
    norm: Tensor


def compute_dtype(logits: Tensor) -> torch.dtype:
    """fp32 for every input but float64, which is kept so that gradcheck can be run on the same code."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def flat_blocks(x: Tensor, ref: Tensor | None, grad: Tensor) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Cut tensors (..., V) of one shape into the fewest (n, V) views that need no copy, in row order."""
    flat = lambda t: t.view(-1, t.shape[-1])  # noqa: E731
    try:
        yield flat(x), None if ref is None else flat(ref), flat(grad)
    except RuntimeError:  # strides that no single row stride describes, such as logits[:, :-1]
        for i in range(x.shape[0]):
            yield from flat_blocks(x[i], None if ref is None else ref[i], grad[i])


def chunks(
    active: Tensor, step: int, x: Tensor, ref: Tensor | None, grad: Tensor
) -> Iterator[tuple[slice | Tensor, slice | Tensor, tuple[Tensor, Tensor | None, Tensor]]]:  # (N,) bool, (..., V)
    """(rows of the blocks, the same among all, the blocks (m, V)) for at most `step` active rows at a time: slices where
    every row of a block counts, indices where some do not."""
    first = 0
    for blocks in flat_blocks(x, ref, grad):
        live = active[first : first + len(blocks[0])]
        if bool(live.all()):
            for i, end in ((i, min(i + step, len(live))) for i in range(0, len(live), step)):
                yield slice(i, end), slice(first + i, first + end), blocks
        else:
            yield from ((rows, rows + first, blocks) for rows in live.nonzero().squeeze(1).split(step) if len(rows))
        first += len(live)


class Scratch:
    """Reused chunk buffers: fresh ones would cost page faults, which on a CPU outweigh the arithmetic."""

    def __init__(self, like: Tensor, vocab: int, dtype: torch.dtype) -> None:
        threads = torch.get_num_threads() if like.device.type == "cpu" else 1
        elements = min(CHUNK_ELEMENTS * threads, max(LEAST_CHUNK * threads, like.numel() // 2))
        self.vocab, self.rows = vocab, max(1, elements // vocab)
        self.dtype, self.device = dtype, like.device
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, rows: int) -> Tensor:  # -> (rows, V)
        if name not in self.buffers:
            shape = (min(rows, self.rows), self.vocab)
            self.buffers[name] = torch.empty(shape, dtype=self.dtype, device=self.device)
        return self.buffers[name][:rows]


def taken(block: Tensor, rows: slice | Tensor, vocab: int) -> Tensor:  # (m,≥V) -> (n,V)
    """The columns that count of some rows: a view for a slice, the block itself where that is all."""
    block = block if block.shape[-1] == vocab else block[:, :vocab]
    return block if isinstance(rows, slice) and rows.stop - rows.start == len(block) else block[rows]


def raised(x: Tensor, softcap: float, out: Tensor) -> Tensor:  # (n,V) in the logits' dtype -> (n,V) in that of out
    """x in the compute dtype and capped: itself where neither is asked for, else in `out`."""
    if not softcap:
        return x if x.dtype == out.dtype else out.copy_(x)
    out.copy_(x).div_(softcap).tanh_().mul_(softcap)
    endless = x.isinf()
    return out.copy_(torch.where(endless, x, out)) if bool(endless.any()) else out  # −inf is no small logit: no token


def cap_slope(x: Tensor, softcap: float, out: Tensor) -> Tensor:  # (n,V) -> (n,V)
    """The derivative of c·tanh(x / c), with its digits also where it is small."""
    return out.copy_(x).div_(softcap).cosh_().square_().reciprocal_()


def shifted(x: Tensor, top: Tensor, inv_t: float | Tensor, out: Tensor) -> Tensor:  # (n,k), (n,1) -> (n,k)
    """(x − max) / T."""
    torch.sub(x, top, out=out)
    return out if isinstance(inv_t, float) and inv_t == 1.0 else out.mul_(inv_t)


def row_max(x: Tensor) -> Tensor:  # (n,V) -> (n,1)
    """Finite for a row of −inf, so that it may be subtracted."""
    return x.amax(-1, keepdim=True).clamp_min_(torch.finfo(x.dtype).min)


def sum_beside_largest(e: Tensor, y: Tensor, d_y: Tensor) -> Tensor:  # (n,V), (n,1), (n,1) -> (n,1)
    """Σ e − 1 with the digits of what stands beside the largest, e = 1; +inf for a row of −inf.

    The target is mostly the largest. So its e is made 0 in place, the others are summed, and e_y − 1 is added, which is then 0.
    """
    rest = torch.expm1(d_y).add_(e.scatter_(1, y, 0).sum(-1, keepdim=True))
    if not float(rest.amin()) >= SWALLOWED:  # or NaN, which hides the others
        peaked = (rest < SWALLOWED) & (d_y != 0)  # beside some other token than the target, which is left out, too
        at = peaked.squeeze(1).nonzero().squeeze(1)
        if len(at):
            rows = e[at]
            largest = rows == 1  # alone (two would make rest >= 1), or none
            beside = d_y[at].exp_().add_(rows.masked_fill_(largest, 0).sum(-1, keepdim=True))
            rest[at] = beside.masked_fill_(~largest.any(-1, keepdim=True), torch.inf)
    return rest


def weighted(e: Tensor, value: Tensor, out: Tensor) -> Tensor:  # (n,V), (n,V) -> (n,1)
    """Σ e·value with 0·(±inf) = 0: a token of no probability adds nothing."""
    total = torch.mul(e, value, out=out).sum(-1, keepdim=True)
    if not math.isfinite(float(total.sum())):
        at = (~total.isfinite()).squeeze(1).nonzero().squeeze(1)
        total[at] = out[at].masked_fill_(e[at] < torch.finfo(e.dtype).tiny, 0).sum(-1, keepdim=True)
    return total


def forward(
    logits: Tensor, targets: Tensor, ref_logits: Tensor | None, scaling: Scaling, ignore_index: int, vocab: int
) -> RowStats:  # (..., V), (N,) int64, (..., V) or None
    """One pass over the rows. Ignored rows get zeros; `vocab` columns count, the rest is padding."""
    scratch = Scratch(logits, vocab, compute_dtype(logits))
    parts, places = list[tuple[Tensor, ...]](), list[slice | Tensor]()
    for rows, at, (x, ref, _) in chunks(targets != ignore_index, scratch.rows, logits, ref_logits, logits):
        ref = None if ref is None else taken(ref, rows, vocab)
        parts.append(forward_chunk(taken(x, rows, vocab), targets[at, None], scaling.of(at), scratch, ref))
        places.append(at)
    n, fields = len(targets), 5 if ref_logits is None else 8
    logprob, logsumexp, entropy, *norm = placed(parts, places, logits, fields, n)
    kl = logits.new_empty(0, dtype=scratch.dtype) if ref_logits is None else norm.pop(0)
    stats = RowStats(logprob, logsumexp, entropy, kl, torch.stack(norm))
    if n and not float(stats.norm[1::2].amax()) < torch.inf:  # or NaN, which hides the others
        empty = stats.norm[1::2] == torch.inf
        stats.norm[::2].masked_fill_(empty, 0)
        for values, known in zip(stats[: 4 if kl.numel() else 3], (-torch.inf, -torch.inf, 0, 0), strict=False):
            values.masked_fill_(empty[0], known)
    return stats


def placed(
    parts: list[tuple[Tensor, ...]], places: list[slice | Tensor], like: Tensor, fields: int, n: int
) -> list[Tensor]:
    """The chunks' columns (n,1) as `fields` tensors (N,), with 0 in rows that are in no chunk."""
    columns = [c.view(-1) for c in (parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True)))]
    if columns and len(columns[0]) == n:
        return columns
    whole = [like.new_zeros(n, dtype=compute_dtype(like)) for _ in range(fields)]
    rows = [torch.arange(at.start, at.stop, device=like.device) if isinstance(at, slice) else at for at in places]
    return [w.index_copy_(0, torch.cat(rows), c) for w, c in zip(whole, columns, strict=True)] if rows else whole


def forward_chunk(
    x: Tensor, y: Tensor, scaling: Scaling, scratch: Scratch, ref: Tensor | None
) -> tuple[Tensor, ...]:  # (n,V), (n,1), -, -, (n,V) -> logprob, logsumexp, entropy, [kl], *norm, each (n,1)
    n, inv_t = len(x), scaling.column
    d, e, product = scratch("d", n), scratch("e", n), scratch("d" if ref is None else "w", n)
    x = raised(x, scaling.softcap, d)
    top, d_y = row_max(x), x.gather(1, y)
    shifted(d_y, top, inv_t, d_y)
    torch.exp(shifted(x, top, inv_t, d).clamp_min_(NO_PROBABILITY), out=e)  # no −inf in d: 0·(−inf) would be no number
    total = torch.mul(e, d, out=product).sum(-1, keepdim=True)
    beside = None if ref is None else compared(d, e, ref, y, scaling, product, scratch("v", n))
    rest = sum_beside_largest(e, y, d_y)
    log_s, s = rest.log1p(), rest.add_(1)
    scores = d_y - log_s, top * inv_t + log_s, torch.addcdiv(log_s, total, s, value=-1)
    if beside is None:
        return (*scores, top, log_s)
    cross, ref_top, ref_log_s = beside
    return (*scores, (cross / s - (log_s - ref_log_s)).clamp_min_(0), top, log_s, ref_top, ref_log_s)


def compared(
    d: Tensor, e: Tensor, ref: Tensor, y: Tensor, scaling: Scaling, product: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:  # (n,V), (n,V), (n,V), (n,1), -, two to write over -> (n,1) each; overwrites d
    """Σ e·(d − d'), and the reference's maximum and log Σ e'."""
    raw, ref = ref, raised(ref, scaling.softcap, product)
    top, d_y = row_max(ref), ref.gather(1, y)
    shifted(d_y, top, scaling.column, d_y)
    torch.exp(shifted(ref, top, scaling.column, product), out=v)
    if not float(product.amin()) >= NO_REFERENCE:  # or NaN, which hides the others
        product.clamp_min_(NO_REFERENCE).masked_fill_(raw == -torch.inf, -torch.inf)
    # The difference first: where policy and reference nearly agree it is exact, and the KL keeps its digits.
    cross = weighted(e, torch.sub(d, product, out=d), product)
    return cross, top, sum_beside_largest(v, y, d_y).log1p_()


def backward(
    grad: Tensor,
    logits: Tensor,
    targets: Tensor,
    ref_logits: Tensor | None,
    stats: RowStats,
    incoming: Sequence[Tensor | None],
    scaling: Scaling,
    ignore_index: int,
    vocab: int,
) -> None:  # (..., V) to fill, (..., V), (N,), (..., V), -, four (N,): d loss / d (logprob, logsumexp, entropy, kl)
    """Write d loss / d logits into `grad`, which may be `logits` itself."""
    table = row_terms(stats, incoming, scaling)
    active = reduce(torch.logical_or, [g != 0 for g in incoming if g is not None])
    active = active & (targets != ignore_index) & (table["log_s"] != torch.inf)
    if not bool(active.all()):
        grad[~active.view(grad.shape[:-1])] = 0
    if grad.shape[-1] > vocab:
        grad[..., vocab:].zero_()
    names, columns = list(table), torch.stack(list(table.values()), 1)
    scratch = Scratch(logits, vocab, columns.dtype)
    read = ref_logits if "g_kl" in table else None
    for rows, at, (x, ref, block) in chunks(active, scratch.rows, logits, read, grad):
        x, ref = taken(x, rows, vocab), None if ref is None else taken(ref, rows, vocab)
        # Where the rows are a slice and dtypes agree, the gradient is built in its place instead of a scratch buffer.
        there = taken(block, rows, vocab) if isinstance(rows, slice) else None
        out = there if there is not None and grad.dtype == scratch.dtype else scratch("p", len(x))
        terms = dict(zip(names, columns[at].split(1, 1), strict=True))
        backward_chunk(x, ref, out, targets[at, None], terms, scaling.of(at), scratch)
        if there is None:
            block[rows, :vocab] = out.to(grad.dtype)
        elif out is not there:
            there.copy_(out)


def row_terms(stats: RowStats, incoming: Sequence[Tensor | None], scaling: Scaling) -> dict[str, Tensor]:
    """What a row's gradient is made of, each (N,): off the target it is e_j·(constant + slope·d_j + tilt·(d_j − d'_j)).

    With p_j = e_j / s and log p_j = d_j − log s, that is 1/T·p_j·(level − g_H·log p_j + g_KL·log(p_j / q_j)) from the head of this
    file, in which no rounded log p_j stands. slope is there with g_H, tilt with g_KL.
    """
    g_lp, g_lse, g_h, g_kl = incoming
    top, log_s, *ref_norm = stats.norm
    scale = log_s.neg().exp_().mul_(scaling.inverse)  # 1 / (s·T)
    g_lp = torch.zeros_like(top) if g_lp is None else g_lp
    level = -g_lp if g_lse is None else g_lse - g_lp
    constant, more = level, {}
    if g_h is not None:
        level = torch.addcmul(level, g_h, stats.entropy, value=-1)
        constant = torch.addcmul(level, g_h, log_s)
        more = {"g_h": g_h, "slope": (g_h * scale).neg_()}
    if g_kl is not None:  # an infinite KL says so in the loss; as a gradient it would be inf − inf
        endless = stats.kl == torch.inf
        g_kl = g_kl.masked_fill(endless, 0)
        own = g_kl * stats.kl.masked_fill(endless, 0)
        gap = (log_s - ref_norm[1]).masked_fill(endless, 0)  # −inf where the reference is −inf alone
        level, constant = level - own, constant - own - g_kl * gap
        more |= {"g_kl": g_kl, "tilt": g_kl * scale, "ref_top": ref_norm[0], "ref_log_s": ref_norm[1]}
    return {"top": top, "log_s": log_s, "g_lp": g_lp, "level": level, "constant": constant * scale, **more}


def backward_chunk(
    x: Tensor, ref: Tensor | None, out: Tensor, y: Tensor, terms: dict[str, Tensor], scaling: Scaling, scratch: Scratch
) -> None:  # x, ref, out (n,V); y and the terms (n,1)
    n, inv_t, cap, g_lp = len(x), scaling.column, scaling.softcap, terms["g_lp"]
    slope = cap_slope(x, cap, scratch("s", n)) if cap else None  # first: the gradient may be built over x
    d = scratch("d", n)
    x = raised(x, cap, d)
    logp_y = log_prob_at(x, y, terms["top"], terms["log_s"], inv_t, NO_PROBABILITY)
    at_target = terms["level"] + g_lp  # so that 1 − p_y can be taken whole: g_lp·(1 − p_y) + p_y·(level + g_lp + ...)
    shifted(x, terms["top"], inv_t, d).clamp_min_(NO_PROBABILITY)  # p = 0 there, and 0·(−inf) would be no number
    e = torch.exp(d, out=out)
    factor = terms["constant"]
    if "g_h" in terms:
        own = scratch("w", n) if "g_kl" in terms else d
        factor = torch.mul(d, terms["slope"], out=own).add_(factor)  # faster than addcmul
        at_target.addcmul_(terms["g_h"], logp_y, value=-1)
    if ref is not None:
        v = scratch("v", n)
        ref = raised(ref, cap, v)
        logq_y = log_prob_at(ref, y, terms["ref_top"], terms["ref_log_s"], inv_t, NO_REFERENCE)
        at_target.addcmul_(terms["g_kl"], logp_y - logq_y)
        ratio = torch.sub(d, shifted(ref, terms["ref_top"], inv_t, v).clamp_min_(NO_REFERENCE), out=v)
        factor = ratio.mul_(terms["tilt"]).add_(factor)
        factor.masked_fill_(e == 0, 0)  # 0·inf under a gradient large enough
    e.mul_(factor)
    exact = logp_y.exp().mul_(at_target).sub_(g_lp * logp_y.expm1_())
    e.scatter_(1, y, exact.mul_(inv_t))
    if slope is not None:
        e.mul_(slope)


def log_prob_at(
    x: Tensor, y: Tensor, top: Tensor, log_s: Tensor, inv_t: float | Tensor, least: float
) -> Tensor:  # (n,V), (n,1), (n,1), (n,1) -> (n,1)
    """The log-prob of one column of each row, with the digits that p near 1 needs, no lower than `least`."""
    x_y = x.gather(1, y)
    return shifted(x_y, top, inv_t, x_y).sub_(log_s).clamp_min_(least)
