"""`sharded_linear_logprob`: a tensor-parallel head for data-parallel ranks; each holds some rows of it and its own tokens.

Every rank hands in the hidden states of its tokens. They are gathered, so each rank scores *all* tokens on *its* columns
(kernels/sharded.py merges the statistics), and each gets its own tokens' scores back:

    forward    gather hidden (n_r → N), Σ over chunks: logits of V/R columns, row statistics, gather and merge them
    backward   gather the scores' gradients, form the logits again, dW of the own rows, dh of all N, reduced to the owners

Arithmetic a rank is that of `linear_logprob` (N·V/R instead of n·V columns). What crosses ranks is N·H for hidden and
N·H in fp32 for its gradient instead of V·H for the head's gradient, which is already whole where its rows are. No V-sized
buffer beyond a chunk is made, and none of a gradient or optimizer state beyond V/R rows.

Left out: overlap of gather and product; the operator form that torch.compile sees (kernels/linear.py has it).

Shape letters: R ranks, n this rank's tokens, N all ranks', H hidden, V_r this rank's rows of the head.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels import ops
from kernels.linear import Head, check_linear, chunk_rows, spread
from kernels.logits import TokenScores, check_temperature, choose_backend
from kernels.reference import RowStats
from kernels.sharded import gather, merge


def gather_rows(x: Tensor, counts: list[int], group: dist.ProcessGroup | None) -> Tensor:  # (n,...) -> (N,...)
    """All ranks' rows, by rank; `counts` says how many each has."""
    most = max(counts)
    padded = x.new_zeros((most, *x.shape[1:]))
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])


def sum_rows(x: Tensor, counts: list[int], group: dist.ProcessGroup | None) -> Tensor:  # (N,...) -> (n,...)
    """The transpose of `gather_rows`: each rank's rows, summed over ranks in fp32."""
    most, rank = max(counts), dist.get_rank(group)
    padded = x.new_zeros((len(counts), most, *x.shape[1:]), dtype=ops.compute_dtype(x))
    for part, rows in zip(padded, x.split(counts), strict=True):
        part[: len(rows)] = rows
    out = torch.empty_like(padded[0])
    dist.reduce_scatter_tensor(out, padded.flatten(0, 1), group=group)
    return out[: counts[rank]].to(x.dtype)


class ShardedLinearScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, ref, start, scalars, group):
        temperature, ignore_index, backend, logits_dtype, rows = scalars
        counts = [int(c) for c in gather(torch.tensor([len(targets)], device=hidden.device), group)]
        h, y = gather_rows(hidden, counts, group), gather_rows(targets, counts, group)
        ref_h = None if ref[0] is None else gather_rows(ref[0], counts, group)
        mine = (y >= start) & (y < start + len(weight))
        local = torch.where(mine, y - start, 0).masked_fill(y == ignore_index, ignore_index)
        head = Head(h, weight, rows, logits_dtype)
        ref_head = None if ref_h is None else Head(ref_h, ref[1], rows, logits_dtype)
        parts = []
        for i in range(0, len(y), rows):
            chunk = slice(i, i + rows)
            part = ops.implementation(backend).forward(
                head.logits(chunk), local[chunk], None if ref_head is None else ref_head.logits(chunk), temperature,
                ignore_index, len(weight))
            own = part.logprob.masked_fill(~mine[chunk] & (y[chunk] != ignore_index), -torch.inf)
            parts.append(torch.stack([own, part.entropy, *([] if ref_h is None else [part.kl]), *part.norm]))
        stats = merge(gather(torch.cat(parts, -1), group), 1.0 / temperature, ref_h is not None)
        stats = RowStats(*(s.masked_fill(y == ignore_index, 0) if s.numel() else s for s in stats))
        ctx.save_for_backward(h, weight, local, mine, ref_h, ref[1], *stats)
        ctx.scalars, ctx.counts, ctx.group = scalars, counts, group
        ctx.set_materialize_grads(False)
        first = sum(counts[: dist.get_rank(group)])
        return tuple(s[first : first + len(targets)] for s in stats[: 3 if ref_h is None else 4])

    @staticmethod
    @once_differentiable
    def backward(ctx, *incoming):
        h, weight, local, mine, ref_h, ref_weight, *stats = ctx.saved_tensors
        temperature, ignore_index, backend, logits_dtype, rows = ctx.scalars
        counts, group = ctx.counts, ctx.group
        n = counts[dist.get_rank(group)]
        # A score that one rank's loss uses counts on all: a rank without rows sends zeros for it.
        asked = torch.tensor([g is not None for g in incoming], dtype=torch.int32, device=h.device)
        used = gather(asked, group).amax(0).tolist()
        zeros = torch.zeros(n, dtype=stats[0].dtype, device=h.device)
        grads = [gather_rows(zeros if g is None else g.contiguous(), counts, group) if u else None
                 for g, u in zip(incoming, used, strict=True)]
        g_lp, g_lse, g_h, g_kl = (*grads, None)[:4]
        if g_lp is not None:  # off the owner there is no one-hot, only −g·p_j (kernels/sharded.py)
            elsewhere = g_lp.masked_fill(mine, 0)
            g_lp, g_lse = g_lp - elsewhere, -elsewhere if g_lse is None else g_lse - elsewhere
        head = Head(h, weight, rows, logits_dtype)
        ref_head = None if ref_h is None or g_kl is None else Head(ref_h, ref_weight, rows, logits_dtype)
        need_h, need_w = ctx.needs_input_grad[:2]
        dh = torch.empty_like(h) if need_h else None
        dw = weight.new_zeros(weight.shape, dtype=ops.compute_dtype(weight)) if need_w else None
        for i in range(0, len(local), rows):
            chunk = slice(i, i + rows)
            logits = None  # lets go of the last chunk before the next is made
            logits = head.logits(chunk)
            ops.implementation(backend).backward(
                logits, logits, local[chunk], None if ref_head is None else ref_head.logits(chunk),
                RowStats(*(s[..., chunk] for s in stats)),
                tuple(None if g is None else g[chunk] for g in (g_lp, g_lse, g_h, g_kl)), temperature, ignore_index,
                len(weight))
            spread(logits, h[chunk], weight, None if dh is None else dh[chunk], dw)
        summed = None if dh is None else sum_rows(dh, counts, group)
        return summed, None if dw is None else dw.to(weight.dtype), *(None,) * 5


def sharded_linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    *,
    vocab_start: int,
    group: dist.ProcessGroup | None = None,
    ref_hidden: Tensor | None = None,
    ref_weight: Tensor | None = None,
    ignore_index: int = -100,
    logits_dtype: torch.dtype | None = None,
    chunk: int | None = None,
    backend: str = "auto",
) -> TokenScores:
    """As `linear_logprob` under the concatenation of every rank's rows of the head. A collective, backward pass included.

    Args:
        hidden: (..., H) of this rank's tokens; gets their whole gradient.
        weight: (V_r, H) this rank's rows [vocab_start, vocab_start + V_r) of the head; gets its gradient from the tokens
            of all ranks, to be summed with nobody's.
        targets: (...) int64 *global* token ids of this rank's tokens. Any number of tokens, at least one a rank.
        ref_hidden, ref_weight: (..., H'), (V_r, H') of the reference, the same rows, constants. Give `.kl`.
        The rest: as for `linear_logprob`.

    Returns:
        TokenScores in the shape of `targets`. The loss may be this rank's own: gradients of all ranks' losses are summed.
    """
    if weight.dim() != 2 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} must be (..., H) and (V_r, H)")
    if targets.shape != hidden.shape[:-1] or targets.numel() == 0:
        raise ValueError(f"targets {tuple(targets.shape)} must fit hidden {tuple(hidden.shape)}, with at least one token")
    inside = torch.zeros_like(targets)  # the shared checks know targets of one shard; global ids are looked at by the merge
    flat, head, _, ref = check_linear(hidden, weight, inside, ref_hidden, ref_weight, None, ignore_index)
    scalars = (check_temperature(temperature), ignore_index, choose_backend(backend, hidden), logits_dtype or hidden.dtype,
               chunk_rows(hidden, len(head), chunk))
    out = ShardedLinearScores.apply(flat, head, targets.reshape(-1).long(), ref, vocab_start, scalars, group)
    shaped = [o.view(targets.shape) for o in out]
    return TokenScores(*shaped) if ref_hidden is not None else TokenScores(*shaped, None)
