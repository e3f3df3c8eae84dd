"""Log-prob, log-sum-exp, entropy and exact KL of rows of logits in plain PyTorch: the oracle, and the CPU's fast path.

For a row z = x / T with maximum m, d = z − m, e = exp d and s = Σ e:

    log p_y = d_y − log s        logsumexp = m + log s        H = log s − Σ e·d / s
    KL(p‖q) = Σ e·(d − d') / s − log(s / s')                  (primes: the reference row)

    dz_j = (1/T) [ g_lp (1{j=y} − p_j) + g_lse p_j − g_H p_j (log p_j + H) + g_KL p_j (log p_j − log q_j − KL) ]

Three choices keep the accuracy of fp32. The maximum is subtracted *before* dividing by T, so huge logits lose
nothing to that division. The sum is carried as r = s − 1, the largest element left out, and log s = log1p(r): log p_y
is then a sum of two terms ≤ 0 and H one of two terms ≥ 0, so nothing cancels even where p_y = 1 − 1e-7, as for
most sampled tokens. And the target's gradient uses 1 − p_y = −expm1(log p_y).

Rows are taken a cache-full at a time, so beside the inputs only one chunk and a few numbers a row exist. Rows without
a target, and in the backward pass rows without an incoming gradient, are never read.

Left out: double backward, and gradients for the reference logits or the temperature.

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
# exp of anything below −104 is 0 in fp32 (−746 in fp64), so log-probs may be raised to this without changing a result.
NO_PROBABILITY = -1000.0


class RowStats(NamedTuple):
    """What one forward pass leaves behind, in the compute dtype; `backward` needs nothing else of a row."""

    logprob: Tensor  # (N,)
    logsumexp: Tensor  # (N,)
    entropy: Tensor  # (N,)
    kl: Tensor  # (N,), or (0,) without a reference
    # (2, N), or (4, N) with a reference: the largest logit before temperature, or 0 for a row of −inf; and
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


def chunks(active: Tensor, vocab: int) -> Iterator[slice | Tensor]:  # (n,) bool
    """Row selections of at most CHUNK_ELEMENTS logits: slices where every row counts, indices where some do not."""
    step = max(1, CHUNK_ELEMENTS // vocab)
    if bool(active.all()):
        yield from (slice(i, min(i + step, len(active))) for i in range(0, len(active), step))
    else:
        yield from active.nonzero().squeeze(1).split(step)


class Scratch:
    """Reused chunk buffers: fresh ones would cost page faults, which on a CPU outweigh the arithmetic."""

    def __init__(self, like: Tensor, vocab: int, dtype: torch.dtype) -> None:
        self.shape, self.dtype, self.device = (max(1, CHUNK_ELEMENTS // vocab), vocab), dtype, like.device
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, rows: int) -> Tensor:  # -> (rows, V)
        if name not in self.buffers:
            shape = (min(rows, self.shape[0]), self.shape[1])
            self.buffers[name] = torch.empty(shape, dtype=self.dtype, device=self.device)
        return self.buffers[name][:rows]


def shifted(x: Tensor, top: Tensor, inv_temperature: float, out: Tensor) -> Tensor:  # (n,V), (n,) -> (n,V)
    """(x − max) / T, in the compute dtype."""
    torch.sub(x, top[:, None], out=out)
    return out if inv_temperature == 1.0 else out.mul_(inv_temperature)


def log_sum(e: Tensor, dead: Tensor) -> Tensor:  # (n,V) exponentials whose largest is 1, (n,) bool -> (n,)
    """log Σ e as log1p of the sum without the largest; +inf for rows that have no largest."""
    rest = e.sum(-1) - 1
    peaked = (rest < 1).nonzero().squeeze(1)
    if peaked.numel():  # the maximum is alone at e = 1 here (two would make rest >= 1): leave it out, exactly
        rows = e[peaked]
        rest[peaked] = rows.masked_fill_(rows == 1, 0).sum(-1)
    return rest.log1p_().masked_fill_(dead, torch.inf)


def weighted(e: Tensor, value: Tensor, out: Tensor) -> Tensor:  # (n,V), (n,V) -> (n,)
    """Σ e·value with 0·(±inf) = 0: a token of no probability adds nothing. May overwrite value."""
    total = torch.mul(e, value, out=out).sum(-1)
    if bool(total.isnan().any()):
        total = torch.mul(e, value.masked_fill_(e == 0, 0), out=out).sum(-1)
    return total


def row_max(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:  # (n,V) -> (n,), (n,) bool
    top = x.amax(-1).to(dtype)
    dead = top == -torch.inf
    return top.masked_fill_(dead, 0), dead


def forward(
    logits: Tensor, targets: Tensor, ref_logits: Tensor | None, temperature: float, ignore_index: int, vocab: int
) -> RowStats:  # (..., V), (N,) int64, (..., V) or None
    """One pass over the rows. Ignored rows get zeros; `vocab` columns count, the rest is padding."""
    dtype, inv_t, n = compute_dtype(logits), 1.0 / temperature, targets.numel()
    zeros = lambda *shape: torch.zeros(shape, dtype=dtype, device=logits.device)  # noqa: E731
    pairs = 1 if ref_logits is None else 2
    stats = RowStats(zeros(n), zeros(n), zeros(n), zeros(n * (pairs - 1)), zeros(2 * pairs, n))
    slots = (*stats[: 2 + pairs], *stats.norm)
    scratch, first = Scratch(logits, vocab, dtype), 0
    for x_block, ref_block in flat_blocks(logits, ref_logits):
        here = slice(first, first + len(x_block))
        first = here.stop
        y_block = targets[here]
        for rows in chunks(y_block != ignore_index, vocab):
            values = forward_chunk(
                x_block[rows, :vocab],
                y_block[rows],
                inv_t,
                scratch,
                None if ref_block is None else ref_block[rows, :vocab],
            )
            for slot, value in zip(slots, values, strict=True):
                slot[here][rows] = value
    return stats


def forward_chunk(
    x: Tensor, y: Tensor, inv_t: float, scratch: Scratch, ref: Tensor | None
) -> tuple[Tensor, ...]:  # (n,V), (n,), -, -, (n,V) -> logprob, logsumexp, entropy, [kl], *norm, each (n,)
    n, dtype = len(x), scratch.dtype
    top, dead = row_max(x, dtype)
    d = shifted(x, top, inv_t, scratch("d", n))
    logprob = d.gather(-1, y[:, None]).squeeze(1)
    e = torch.exp(d, out=scratch("e", n))
    log_s = log_sum(e, dead)
    s = log_s.exp()
    logprob -= log_s
    product = scratch("w", n)
    entropy = (log_s - weighted(e, d, product) / s).masked_fill_(dead, 0)
    logsumexp = (top * inv_t + log_s).masked_fill_(dead, -torch.inf)
    if ref is None:
        return logprob, logsumexp, entropy, top, log_s
    ref_top, ref_dead = row_max(ref, dtype)
    ref_d = shifted(ref, ref_top, inv_t, product)
    ref_log_s = log_sum(torch.exp(ref_d, out=scratch("v", n)), ref_dead)
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
    temperature: float,
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
    scratch, inv_t, first = Scratch(logits, vocab, zero.dtype), 1.0 / temperature, 0
    for x_block, ref_block, out_block in flat_blocks(logits, None if g_kl is None else ref_logits, grad):
        here = slice(first, first + len(x_block))
        first = here.stop
        live = active[here]
        per_row = [v[here] for v in (targets, top, log_s, g_lp, level)]
        optional = [None if v is None else v[here] for v in (g_h, g_kl, *ref_norm)]
        if not bool(live.all()):
            out_block[~live] = 0
        for rows in chunks(live, vocab):
            # Where the rows are a slice and dtypes agree, the gradient is built in place of a scratch buffer.
            direct = isinstance(rows, slice) and grad.dtype == scratch.dtype
            x = x_block[rows, :vocab]
            out = out_block[rows, :vocab] if direct else scratch("p", len(x))
            backward_chunk(
                x,
                None if ref_block is None else ref_block[rows, :vocab],
                out,
                inv_t,
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
    inv_t: float,
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
    n, y = len(x), y[:, None]
    logp = shifted(x, top, inv_t, scratch("d", n)).sub_(log_s[:, None])
    p = torch.exp(logp, out=out)
    logp_y = logp.gather(-1, y).squeeze(1)
    at_target = level + g_lp  # so that 1 − p_y can be taken whole: g_lp·(1 − p_y) + p_y·(level + g_lp + ...)
    if g_h is None and g_kl is None:
        p.mul_((level * inv_t)[:, None])
    else:
        logp.clamp_min_(NO_PROBABILITY)  # p = 0 there, and 0·(−inf) would be no number
        if g_h is None:
            factor = level[:, None]
        else:
            factor = torch.addcmul(level[:, None], logp, g_h[:, None], value=-1, out=scratch("w", n))
            at_target = at_target - g_h * logp.gather(-1, y).squeeze(1)
        if g_kl is not None:
            assert ref is not None and ref_top is not None and ref_log_s is not None, "a KL without its reference"
            ratio = shifted(ref, ref_top, inv_t, scratch("v", n)).sub_(ref_log_s[:, None])
            ratio = torch.sub(logp, ratio.clamp_min_(-1e30), out=ratio)
            at_target = at_target + g_kl * ratio.gather(-1, y).squeeze(1)
            factor = torch.addcmul(factor, ratio, g_kl[:, None], out=scratch("w", n))
        p.mul_(factor.mul_(inv_t))
    exact = logp_y.exp() * at_target - g_lp * torch.expm1(logp_y)
    p.scatter_(1, y, exact.mul_(inv_t)[:, None])
