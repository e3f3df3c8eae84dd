"""Log-prob, log-sum-exp, entropy and exact KL of rows of logits in plain PyTorch: the oracle, and the CPU's fast path.

For a row z = x / T with maximum m, d = z − m, e = exp d and s = Σ e (with a soft cap c, x stands for c·tanh(x / c)):

    log p_y = d_y − log s        logsumexp = m + log s        H = log s − Σ e·d / s
    KL(p‖q) = Σ e·(d − d') / s − log(s / s')                  (primes: the reference row)

    dz_j = (1/T) [ g_lp (1{j=y} − p_j) + g_lse p_j − g_H p_j (log p_j + H) + g_KL p_j (log p_j − log q_j − KL) ]

Three choices keep the accuracy of fp32. The maximum is subtracted *before* dividing by T, so huge logits lose
nothing to that division. The sum is carried as r = s − 1, the largest element left out, and log s = log1p(r): log p_y
is then a sum of two terms ≤ 0 and H one of two terms ≥ 0, so nothing cancels even where p_y = 1 − 1e-7, as for
most sampled tokens. And the target's gradient uses 1 − p_y = −expm1(log p_y).

Rows are taken a cache-full at a time, so beside the inputs only one chunk and a few numbers a row exist. Rows without
a target, and in the backward pass rows without an incoming gradient, are never read.

A soft cap multiplies dz_j by the slope of tanh, cosh⁻²(x_j / c).

Left out: double backward, and gradients for the reference logits, the temperature or the cap.

Shape letters: N rows, V vocabulary, n rows of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)

# Elements of one chunk. The two to four fp32 buffers of this size stay in cache while ten passes run over them.
CHUNK_ELEMENTS = 1 << 19
# exp of anything below −104 is 0 in fp32 (−746 in fp64): log-probs may be raised to this without changing a result.
NO_PROBABILITY = -1000.0
NO_REFERENCE = -1e25  # log q is taken no lower, so that a probability > 0 may multiply it
# A log-sum-exp below SMALL is rounded by 2e-6 at most. In a row whose log s is above SPREAD no log p is nearer to 0 than
# that, so the rounding is below 1e-5 of each: as much as a gradient may be off. Scores are made with all digits.
SMALL, SPREAD = 32.0, 0.5


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


def flat_blocks(
    x: Tensor, ref: Tensor | None, *others: Tensor
) -> Iterator[tuple[Tensor, Tensor | None, *tuple[Tensor, ...]]]:
    """Cut tensors (..., V) of one shape into the fewest (n, V) views that need no copy, in row order."""
    flat = lambda t: t.view(-1, t.shape[-1])  # noqa: E731
    try:
        yield flat(x), None if ref is None else flat(ref), *map(flat, others)
    except RuntimeError:  # strides that no single row stride describes, such as logits[:, :-1]
        for i in range(x.shape[0]):
            yield from flat_blocks(x[i], None if ref is None else ref[i], *(t[i] for t in others))


def chunks(active: Tensor, step: int) -> Iterator[slice | Tensor]:  # (n,) bool
    """Selections of at most `step` rows: slices where every row counts, indices where some do not."""
    if bool(active.all()):
        yield from (slice(i, min(i + step, len(active))) for i in range(0, len(active), step))
    elif bool(active.any()):
        yield from active.nonzero().squeeze(1).split(step)


class Scratch:
    """Reused chunk buffers: fresh ones would cost page faults, which on a CPU outweigh the arithmetic."""

    def __init__(self, like: Tensor, vocab: int, dtype: torch.dtype) -> None:
        self.vocab, self.rows = vocab, max(1, CHUNK_ELEMENTS // vocab)
        self.dtype, self.device = dtype, like.device
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, rows: int) -> Tensor:  # -> (rows, V)
        if name not in self.buffers:
            shape = (min(rows, self.rows), self.vocab)
            self.buffers[name] = torch.empty(shape, dtype=self.dtype, device=self.device)
        return self.buffers[name][:rows]


def column(v: float | Tensor) -> float | Tensor:  # (n,) -> (n,1)
    """A number of each row, or one of all, as it goes beside (n,V)."""
    return v[:, None] if isinstance(v, Tensor) else v


def raised(x: Tensor, softcap: float, out: Tensor) -> Tensor:  # (n,V) in the logits' dtype -> (n,V) in that of out
    """x in the compute dtype and capped: itself where neither is asked for, else in `out`. A cast by itself is faster than
    one inside another operation."""
    if not softcap:
        return x if x.dtype == out.dtype else out.copy_(x)
    out.copy_(x).div_(softcap).tanh_().mul_(softcap)
    endless = x.isinf()
    if bool(endless.any()):  # −inf is no small logit but a token that is not there
        out[endless] = x[endless].to(out.dtype)
    return out


def cap_slope(x: Tensor, softcap: float, out: Tensor) -> Tensor:  # (n,V) -> (n,V)
    """The derivative of c·tanh(x / c), with its digits also where it is small."""
    return out.copy_(x).div_(softcap).cosh_().square_().reciprocal_()


def shifted(x: Tensor, top: Tensor, inv_t: float | Tensor, out: Tensor) -> Tensor:  # (n,V), (n,) -> (n,V)
    """(x − max) / T."""
    torch.sub(x, top[:, None], out=out)
    return out if isinstance(inv_t, float) and inv_t == 1.0 else out.mul_(column(inv_t))


def log_probs(x: Tensor, top: Tensor, log_s: Tensor, inv_t: float | Tensor, out: Tensor) -> Tensor:  # (n,V), (n,), (n,)
    """(x − max) / T − log s in two passes, or in one where no digit of the result would show it."""
    offset = top * inv_t + log_s
    if isinstance(inv_t, float) and bool((offset.abs() < SMALL).all() & (log_s > SPREAD).all()):
        return torch.add(offset.neg_()[:, None], x, alpha=inv_t, out=out)
    return shifted(x, top, inv_t, out).sub_(log_s[:, None])


def log_prob_at(x: Tensor, y: Tensor, top: Tensor, log_s: Tensor, inv_t: float | Tensor) -> Tensor:  # (n,V), (n,1)
    """The log-prob of one column of each row, with the digits that p near 1 needs; (n,)."""
    return (x.gather(-1, y).squeeze(1) - top) * inv_t - log_s


def log_sum(e: Tensor, y: Tensor, dead: Tensor) -> Tensor:  # (n,V) exponentials whose largest is 1, (n,1), (n,) bool
    """log Σ e as log1p of the sum without the largest; +inf for rows that have no largest."""
    e_y = e.gather(1, y)
    beside = e.scatter_(1, y, 0).sum(-1)
    e.scatter_(1, y, e_y)
    e_y = e_y.squeeze(1)
    largest = e_y == 1  # as sampled tokens mostly are
    rest = torch.where(largest, beside, (beside - 1) + e_y)
    peaked = ((rest < 1) & ~largest).nonzero().squeeze(1)
    if peaked.numel():  # another is, alone at e = 1 (two would make rest >= 1), and is left out
        rows = e[peaked]
        rest[peaked] = rows.masked_fill_(rows == 1, 0).sum(-1)
    return rest.log1p_().masked_fill_(dead, torch.inf)


def weighted(e: Tensor, value: Tensor, out: Tensor) -> Tensor:  # (n,V), (n,V) -> (n,)
    """Σ e·value with 0·(±inf) = 0: a token of no probability adds nothing. Overwrites value where `out` is it."""
    total = torch.mul(e, value, out=out).sum(-1)
    if bool(total.isfinite().all()):
        return total
    # Where out is value it holds the products by now: those of no probability are NaN or ±inf, and are left out all the same.
    lost = e < torch.finfo(e.dtype).tiny
    return (out if out is value else torch.mul(e, value, out=out)).masked_fill_(lost, 0).sum(-1)


def row_max(x: Tensor) -> tuple[Tensor, Tensor]:  # (n,V) -> (n,), (n,) bool
    top = x.amax(-1)
    dead = top == -torch.inf
    return top.masked_fill_(dead, 0), dead


def forward(
    logits: Tensor, targets: Tensor, ref_logits: Tensor | None, scaling: Scaling, ignore_index: int, vocab: int
) -> RowStats:  # (..., V), (N,) int64, (..., V) or None
    """One pass over the rows. Ignored rows get zeros; `vocab` columns count, the rest is padding."""
    dtype, n = compute_dtype(logits), targets.numel()
    zeros = lambda *shape: torch.zeros(shape, dtype=dtype, device=logits.device)  # noqa: E731
    pairs = 1 if ref_logits is None else 2
    stats = RowStats(zeros(n), zeros(n), zeros(n), zeros(n * (pairs - 1)), zeros(2 * pairs, n))
    slots = (*stats[: 2 + pairs], *stats.norm)
    scratch, first = Scratch(logits, vocab, dtype), 0
    for x_block, ref_block in flat_blocks(logits, ref_logits):
        here = slice(first, first + len(x_block))
        first = here.stop
        y_block, scaling_here = targets[here], scaling.of(here)
        for rows in chunks(y_block != ignore_index, scratch.rows):
            values = forward_chunk(
                x_block[rows, :vocab],
                y_block[rows],
                scaling_here.of(rows),
                scratch,
                None if ref_block is None else ref_block[rows, :vocab],
            )
            for slot, value in zip(slots, values, strict=True):
                slot[here][rows] = value
    return stats


def forward_chunk(
    x: Tensor, y: Tensor, scaling: Scaling, scratch: Scratch, ref: Tensor | None
) -> tuple[Tensor, ...]:  # (n,V), (n,), -, -, (n,V) -> logprob, logsumexp, entropy, [kl], *norm, each (n,)
    n, y, inv_t, cap = len(x), y[:, None], scaling.inverse, scaling.softcap
    x = raised(x, cap, scratch("d", n))
    top, dead = row_max(x)
    d = shifted(x, top, inv_t, scratch("d", n))
    logprob = d.gather(1, y).squeeze(1)
    e = torch.exp(d, out=scratch("e", n))
    log_s = log_sum(e, y, dead)
    s, product = log_s.exp(), d if ref is None else scratch("w", n)
    logprob -= log_s
    entropy = (log_s - weighted(e, d, product) / s).masked_fill_(dead, 0)
    logsumexp = (top * inv_t + log_s).masked_fill_(dead, -torch.inf)
    if ref is None:
        return logprob, logsumexp, entropy, top, log_s
    ref = raised(ref, cap, product)
    ref_top, ref_dead = row_max(ref)
    ref_d = shifted(ref, ref_top, inv_t, product)
    ref_log_s = log_sum(torch.exp(ref_d, out=scratch("v", n)), y, ref_dead)
    # d − d' first: where policy and reference nearly agree, the difference is exact and the KL keeps its digits.
    cross = weighted(e, torch.sub(d, ref_d, out=d), product)
    kl = (cross / s - (log_s - ref_log_s)).clamp_min_(0).masked_fill_(ref_dead, torch.inf).masked_fill_(dead, 0)
    return logprob, logsumexp, entropy, kl, top, log_s, ref_top, ref_log_s


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
    g_lp, g_lse, g_h, g_kl = incoming
    top, log_s, *ref_norm = stats.norm
    zero = torch.zeros_like(top)
    g_lp, g_lse = (zero if g is None else g for g in (g_lp, g_lse))
    touched = (g_lp != 0) | (g_lse != 0)
    level = g_lse - g_lp  # p_j · (level − g_H·log p_j + g_KL·log(p_j / q_j)) is the gradient off the target
    if g_h is not None:
        touched |= g_h != 0
        level = level - g_h * stats.entropy
    if g_kl is not None:  # an infinite KL says so in the loss; as a gradient it would be inf − inf
        g_kl = g_kl.masked_fill(stats.kl == torch.inf, 0)
        touched |= g_kl != 0
        level = level - g_kl * stats.kl.masked_fill(stats.kl == torch.inf, 0)
    active = touched & (targets != ignore_index) & (log_s != torch.inf)
    if grad.shape[-1] > vocab:
        grad[..., vocab:].zero_()
    scratch, first = Scratch(logits, vocab, zero.dtype), 0
    for x_block, ref_block, out_block in flat_blocks(logits, None if g_kl is None else ref_logits, grad):
        here = slice(first, first + len(x_block))
        first = here.stop
        live, scaling_here = active[here], scaling.of(here)
        per_row = [v[here] for v in (targets, top, log_s, g_lp, level)]
        optional = [None if v is None else v[here] for v in (g_h, g_kl, *ref_norm)]
        if not bool(live.all()):
            out_block[~live] = 0
        for rows in chunks(live, scratch.rows):
            # Where the rows are a slice and dtypes agree, the gradient is built in place of a scratch buffer.
            direct = isinstance(rows, slice) and grad.dtype == scratch.dtype
            x = x_block[rows, :vocab]
            out = out_block[rows, :vocab] if direct else scratch("p", len(x))
            backward_chunk(
                x,
                None if ref_block is None else ref_block[rows, :vocab],
                out,
                scaling_here.of(rows),
                scratch,
                *(v[rows] for v in per_row),
                *(None if v is None else v[rows] for v in optional),
            )
            if not direct:
                out_block[rows, :vocab] = out.to(grad.dtype)


def backward_chunk(
    x: Tensor,
    ref: Tensor | None,
    out: Tensor,
    scaling: Scaling,
    scratch: Scratch,
    y: Tensor,
    top: Tensor,
    log_s: Tensor,
    g_lp: Tensor,
    level: Tensor,
    g_h: Tensor | None,
    g_kl: Tensor | None,
    ref_top: Tensor | None = None,
    ref_log_s: Tensor | None = None,
) -> None:  # x, ref, out (n,V); from y on (n,) each
    n, y, inv_t, cap = len(x), y[:, None], scaling.inverse, scaling.softcap
    slope = cap_slope(x, cap, scratch("s", n)) if cap else None  # first: the gradient may be built over x
    x = raised(x, cap, scratch("d", n))
    logp_y = log_prob_at(x, y, top, log_s, inv_t)
    logp = log_probs(x, top, log_s, inv_t, scratch("d", n))
    p = torch.exp(logp, out=out)
    at_target = level + g_lp  # so that 1 − p_y can be taken whole: g_lp·(1 − p_y) + p_y·(level + g_lp + ...)
    factor = (level * inv_t)[:, None]
    if not (g_h is None and g_kl is None) and bool(logp.amin() < NO_PROBABILITY):
        logp.clamp_min_(NO_PROBABILITY)  # p = 0 there, and 0·(−inf) would be no number
    if g_h is not None:
        own = logp if g_kl is None else scratch("w", n)
        factor = torch.mul(logp, (g_h * inv_t).neg_()[:, None], out=own).add_(factor)  # faster than addcmul
        at_target = at_target - g_h * logp_y.clamp_min(NO_PROBABILITY)
    if g_kl is not None:
        assert ref is not None and ref_top is not None and ref_log_s is not None, "a KL without its reference"
        ref = raised(ref, cap, scratch("v", n))
        logq_y = log_prob_at(ref, y, ref_top, ref_log_s, inv_t)
        at_target = at_target + g_kl * (logp_y.clamp_min(NO_PROBABILITY) - logq_y.clamp_min(NO_REFERENCE))
        ratio = log_probs(ref, ref_top, ref_log_s, inv_t, scratch("v", n))
        ratio = torch.sub(logp, ratio.clamp_min_(NO_REFERENCE), out=ratio)
        factor = torch.addcmul(factor, ratio, (g_kl * inv_t)[:, None], out=scratch("w", n))
        factor.masked_fill_(p == 0, 0)  # 0·inf under a gradient large enough
    p.mul_(factor)
    p_y = logp_y.exp()
    exact = torch.where(p_y == 0, 0, p_y * at_target) - g_lp * torch.expm1(logp_y)
    p.scatter_(1, y, exact.mul_(inv_t)[:, None])
    if slope is not None:
        p.mul_(slope)
