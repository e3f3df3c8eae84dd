"""The four scores where each rank holds a slice of the vocabulary (a tensor-parallel head).

Every rank scores its own columns with the ordinary row kernels; a few numbers a token are gathered and merged. With
w_i = exp(lse_i − lse) the probability of shard i, and v_i the same under the reference,

    log s = log Σ_i exp((m_i − m)/T + log s_i)        log p_y = log p_y|i + log w_i on the shard that holds y
    H  = Σ_i w_i (H_i − log w_i)                      the chain rule of entropy: a sum of terms ≥ 0, nothing cancels
    KL = Σ_i w_i (KL_i + log w_i − log v_i)           and of relative entropy

The gather, not a sum, crosses ranks: each then adds the same numbers in the same order, so all ranks hold bitwise equal
scores. The backward pass needs no communication: a column's gradient asks for the merged statistics, which every rank
has, and for the incoming gradients, which must be equal on all ranks (the same loss is computed everywhere, as tensor
parallel code does).

Left out: sharding the tokens as well, and overlap of the gather with the next chunk.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import ops
from .logits import TokenScores, check_scaling, check_targets, choose_backend, unit_stride
from .reference import RowStats, Scaling


def gather(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:  # (k,N) -> (ranks,k,N)
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x.contiguous(), group=group)
    return torch.stack(parts)


def times_weight(weight: Tensor, value: Tensor) -> Tensor:
    """weight·value with 0·(±inf) = 0: a shard of no probability adds nothing."""
    return torch.where(weight == 0, 0, weight * value)


def merge_norm(top: Tensor, log_s: Tensor, inv_t: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(ranks,N) maxima and log-sums -> merged maximum (N,), merged log-sum (N,), log w (ranks,N)."""
    dead = log_s == torch.inf  # a shard of −inf: its maximum is a placeholder, its sum 0
    empty = dead.all(0)
    m = top.masked_fill(dead, -torch.inf).amax(0).masked_fill(empty, 0)
    local = ((top - m) * inv_t + log_s).masked_fill(dead, -torch.inf)
    # As within a row: the heaviest shard is left out of the sum, so that log1p keeps what the light ones weigh.
    most, heaviest = local.max(0, keepdim=True)
    beside = torch.log1p((local - most).exp().scatter(0, heaviest, 0).sum(0))
    log_w = ((local - most) - beside).masked_fill(empty, -torch.inf)
    return m, (most[0] + beside).masked_fill(empty, torch.inf), log_w


def merge(shards: Tensor, inv_t: float | Tensor, with_ref: bool) -> RowStats:  # (ranks, 5 or 8, N)
    """One RowStats of the whole vocabulary from the shards' logprob (−inf off the owner), H, [KL], *norm."""
    logprob, entropy = shards[:, 0], shards[:, 1]
    m, log_s, log_w = merge_norm(shards[:, -4 if with_ref else -2], shards[:, -3 if with_ref else -1], inv_t)
    w, empty = log_w.exp(), log_s == torch.inf
    # The target's shard is the one that did not say −inf; where all do, so does the whole. NaN must survive.
    whole_lp = torch.where(logprob == -torch.inf, -torch.inf, logprob + log_w).amax(0)
    whole_h = times_weight(w, entropy - log_w).sum(0)
    lse = (m * inv_t + log_s).masked_fill(empty, -torch.inf)
    if not with_ref:
        return RowStats(whole_lp, lse, whole_h, m.new_empty(0), torch.stack([m, log_s]))
    ref_m, ref_log_s, log_v = merge_norm(shards[:, -2], shards[:, -1], inv_t)
    kl = times_weight(w, shards[:, 2] + log_w - log_v).sum(0).clamp_min(0)
    return RowStats(whole_lp, lse, whole_h, kl, torch.stack([m, log_s, ref_m, ref_log_s]))


_layouts: dict[
    tuple[object, int, int], int
] = {}  # (group, start, columns) that all ranks agreed on -> their vocabulary


def agreed_vocabulary(start: int, columns: int, group: dist.ProcessGroup | None, complaint: str, like: Tensor) -> int:
    """Columns of all shards together. A collective the first time a layout is met, which every rank reaches, so that
    a mistake on one rank is an error on all and none waits for the others.

    Raises:
        ValueError: on every rank, where one has a complaint, or the shards do not lie end to end from 0.
    """
    key = (group, start, columns)
    if key in _layouts and not complaint:
        return _layouts[key]
    mine = torch.tensor([start, columns, bool(complaint)], dtype=torch.long, device=like.device)
    shards = [(first, n, bool(wrong), rank) for rank, (first, n, wrong) in enumerate(gather(mine, group).tolist())]
    end = 0
    for first, n, wrong, rank in sorted(shards, key=lambda s: (s[0], s[3])):
        if wrong or n < 1 or first != end:
            where = f"rank {rank} holds columns [{first}, {first + n})"
            raise ValueError(complaint or f"{where}, expected from {end} on: shards must lie end to end, none empty")
        end += n
    _layouts[key] = end
    return end


class ShardedScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, ref_logits, start, scaling: Scaling, ignore_index, vocab, backend, group, whole):
        rowwise, with_ref = ops.implementation(backend), ref_logits is not None
        mine = (targets >= start) & (targets < start + vocab)
        local = torch.where(mine, targets - start, 0).masked_fill(targets == ignore_index, ignore_index)
        part = rowwise.forward(logits, local, ref_logits, scaling, ignore_index, vocab)
        own = part.logprob.masked_fill(~mine & (targets != ignore_index), -torch.inf)
        fields = [own, part.entropy, *([part.kl] if with_ref else []), *part.norm]
        stats = merge(gather(torch.stack(fields), group), scaling.inverse, with_ref)
        ignored = targets == ignore_index
        nobody = ((targets < 0) | (targets >= whole)) & ~ignored  # looked for on a CPU before, answered NaN on a GPU
        stats = stats._replace(logprob=stats.logprob.masked_fill(nobody, torch.nan))
        stats = RowStats(*(s.masked_fill(ignored, 0) if s.numel() else s for s in stats))
        ctx.save_for_backward(logits, local, mine, ref_logits, *stats)
        ctx.options = (scaling, ignore_index, vocab, backend)
        ctx.set_materialize_grads(False)
        return tuple(stats[: 4 if with_ref else 3])

    @staticmethod
    @once_differentiable
    def backward(ctx, *incoming):  # pyright: ignore[reportIncompatibleMethodOverride]  ctx comes by position
        logits, local, mine, ref_logits, *stats = ctx.saved_tensors
        scaling, ignore_index, vocab, backend = ctx.options
        g_lp, g_lse, g_h, g_kl = (*incoming, None)[:4]
        if g_lp is not None:
            # Off the owner there is no one-hot, only −g·p_j: the same as that much less gradient to logsumexp.
            elsewhere = g_lp.masked_fill(mine, 0)
            g_lp, g_lse = g_lp - elsewhere, -elsewhere if g_lse is None else g_lse - elsewhere
        grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
        used = tuple(None if g is None else g.contiguous() for g in (g_lp, g_lse, g_h, g_kl))
        ops.implementation(backend).backward(
            grad, logits, local, ref_logits, RowStats(*stats), used, scaling, ignore_index, vocab
        )
        return grad, *(None,) * 9


def sharded_logprob_kl(
    logits: Tensor,
    targets: Tensor,
    ref_logits: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    *,
    softcap: float | None = None,
    vocab_start: int,
    group: dist.ProcessGroup | None = None,
    ignore_index: int = -100,
    shard_vocab_size: int | None = None,
    backend: str = "auto",
) -> TokenScores:
    """As `logprob_kl` over the concatenation of every rank's columns. A collective: all ranks of `group` call it.

    Args:
        logits: (..., V_rank) this rank's columns [vocab_start, vocab_start + V_rank); gets this rank's gradient.
        targets: (...) int64 *global* token ids, equal on all ranks; `ignore_index` as for `logprob_kl`.
        ref_logits: (..., V_rank) the reference's same columns, a constant.
        temperature, softcap: as for `logprob_kl`, equal on all ranks.
        vocab_start: global id of this rank's first column.
        shard_vocab_size: this rank's columns from here on are padding.

    Returns:
        TokenScores, bitwise equal on all ranks.

    Raises:
        ValueError: on every rank, where one rank's arguments do not fit, its shard is empty, or the shards overlap or leave
            a gap. Asked of the ranks once a layout, the first time it is met: all change theirs together.
        IndexError: a target outside the whole vocabulary (checked on the CPU; its log-prob is NaN on a GPU).
    """
    vocab = logits.shape[-1] if shard_vocab_size is None else shard_vocab_size
    complaint = ""
    if targets.shape != logits.shape[:-1] or (ref_logits is not None and ref_logits.shape != logits.shape):
        complaint = f"targets {tuple(targets.shape)} and ref_logits must fit logits {tuple(logits.shape)}"
    elif ref_logits is not None and ref_logits.requires_grad and torch.is_grad_enabled():
        complaint = "ref_logits require grad, but the reference is a constant here: pass ref_logits.detach()"
    elif not 0 < vocab <= logits.shape[-1]:
        complaint = (
            f"{vocab} columns of this rank's {logits.shape[-1]} count: at least one must, and no more than there are"
        )
    whole = agreed_vocabulary(vocab_start, vocab, group, complaint, logits)
    flat = check_targets(targets, logits.shape[:-1], whole, ignore_index, f"logits of shape {tuple(logits.shape)}")
    logits, ref_logits = unit_stride(logits), unit_stride(ref_logits)
    out = ShardedScores.apply(
        logits,
        flat,
        ref_logits,
        vocab_start,
        check_scaling(temperature, softcap, targets, ignore_index, logits.dtype),
        ignore_index,
        vocab,
        choose_backend(backend, logits),
        group,
        whole,
    )
    return TokenScores.of([o.view(targets.shape) for o in out])
