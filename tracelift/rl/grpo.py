"""Group-relative policy optimisation: advantages and the clipped objective, as orthogonal switches.

    A_i = (r_i − mean r) / (std r + ε)                       within a group            (`advantage_scale`)
    ρ_t = exp(logπ(y_t) − logπ_old(y_t))   per token, or its geometric mean per trace  (`importance`)
    J   = Σ_t w_t · min(ρ_t A, clip(ρ_t, 1−ε_low, 1+ε_high) A) − β·KL_t + η·H_t        (`aggregate` gives w)

Sources: the paper's GRPO baseline (arXiv 2605.03862), DAPO (token aggregation, a ceiling apart from the floor), Dr. GRPO
(constant length, no std), GSPO (sequence ratio). Everything works on the flat lists of trained tokens of tracelift/training/packing.py.

The weights w come from counts over the whole global batch, computed before the first backward: summing the losses of
any split into micro-batches or ranks gives the same gradient. The log-probs are the kernels'; this file is the only one
that knows the objective and the KL reference model. Left out: value functions, off-policy corrections beyond the ratio.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from models import Transformer
from models.lora import adapted, disabled
from tracelift.config.schema import GrpoConfig
from tracelift.rl.sample import Sample
from tracelift.tasks.epochs import epoch_order

_EPSILON = 1e-4  # keeps a group of equal rewards at zero advantage instead of 0/0


def advantages(rewards: Tensor, valid: Tensor, scale: Literal["std", "none"] = "std") -> Tensor:
    """Group-relative advantages.

    rewards (P, G) fp32; valid (P, G) bool: False for samples that left the group (ERROR verdicts). Returns (P, G) fp32,
    0 where invalid. A group with fewer than two valid samples, or with no spread, gets zeros.
    """
    count = valid.sum(-1, keepdim=True)
    safe = count.clamp(min=1)
    r = torch.where(valid, rewards.float(), 0.0)
    centred = torch.where(valid, r - r.sum(-1, keepdim=True) / safe, 0.0)
    if scale == "std":
        std = (centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
        centred = centred / (std + _EPSILON)
    return torch.where(count >= 2, centred, 0.0)


def group_advantages(groups: Sequence[Sequence[Sample]], scale: Literal["std", "none"]) -> tuple[Tensor, Tensor]:
    """(advantages, valid) of graded groups, both (P, G); an ERROR sample is not valid."""
    rewards = torch.tensor([[s.reward if s.reward is not None else 0.0 for s in g] for g in groups])
    valid = torch.tensor([[s.error is None for s in g] for g in groups], dtype=torch.bool)
    if not groups:
        rewards, valid = rewards.view(0, 1), valid.view(0, 1)
    return advantages(rewards, valid, scale), valid


@dataclass(frozen=True)
class BatchCounts:
    """Totals over the global (mini-)batch, all ranks: what one token's weight depends on."""

    tokens: int
    sequences: int
    max_new_tokens: int


def token_weights(sequence: Tensor, lengths: Tensor, counts: BatchCounts, aggregate: str) -> Tensor:
    """w_t of every trained token: sequence (N,) int64 ids, lengths (S,) int64 by id → (N,) fp32; they sum to ≤ 1 globally."""
    if aggregate == "token":
        return torch.full(sequence.shape, 1.0 / max(counts.tokens, 1), device=sequence.device)
    if aggregate == "sequence":
        return 1.0 / (lengths[sequence].float() * max(counts.sequences, 1))
    return torch.full(sequence.shape, 1.0 / (max(counts.sequences, 1) * counts.max_new_tokens), device=sequence.device)


def minibatches(config: GrpoConfig, seed: int, step: int, epoch: int) -> list[Sequence[int]]:
    """Which of the round's problems, by their number in it, each update of a pass is made of; the same on every rank."""
    numbers: Sequence[int] = range(config.problems)
    if config.minibatches > 1:
        numbers = epoch_order(f"minibatch:{seed}:{step}", config.problems, epoch)
    return [numbers[part :: config.minibatches] for part in range(config.minibatches)]


class TrainedTokens(NamedTuple):
    """What the objective asks about each trained token beside its scores; all (N,), fp32 but for `sequence`."""

    old: Tensor  # log-prob when it was sampled
    advantage: Tensor  # of its trace
    weight: Tensor  # w_t
    sequence: Tensor  # int64: which trace of the micro-batch it belongs to
    reference: Tensor | None = None  # log-prob under the reference, where there is one

    def columns(self) -> list[Tensor]:
        """Those there are, in order: `TrainedTokens(*columns)` is this again."""
        return [x for x in self if x is not None]


def trained_tokens(
    traces: Sequence[Sample], advantage: Tensor, counts: BatchCounts, aggregate: str, device: torch.device
) -> TrainedTokens:
    """The trained tokens of some whole traces end to end; advantage: (S,), one a trace."""
    lengths = torch.tensor([len(s.completion.tokens) for s in traces], device=device)
    old = torch.tensor([x for s in traces for x in s.completion.logprobs], device=device)
    sequence = torch.repeat_interleave(torch.arange(len(traces), device=device), lengths)
    weight = token_weights(sequence, lengths, counts, aggregate)
    return TrainedTokens(old, advantage.to(device)[sequence], weight, sequence)


def kl_estimate(kind: str, logprob: Tensor, ref_logprob: Tensor, exact: Tensor | None) -> Tensor:
    """KL(π‖ref) per trained token (N,), nats: Schulman's k1, k2, k3 on the sampled token, or the kernels' exact sum."""
    if kind == "exact":
        if exact is None:
            raise ValueError("kl_estimator = 'exact' needs the kernels' KL")
        return exact
    delta = logprob - ref_logprob
    if kind == "k1":
        return delta
    if kind == "k2":
        return 0.5 * delta.square()
    return torch.exp(-delta) - 1 + delta


@dataclass(frozen=True)
class PolicyLoss:
    """`loss` is this piece's share of the global loss; `sums` are weighted or plain sums for the metrics, detached."""

    loss: Tensor
    sums: dict[str, Tensor]


def policy_loss(
    logprob: Tensor,
    old_logprob: Tensor,
    advantage: Tensor,
    weight: Tensor,
    sequence: Tensor,
    config: GrpoConfig,
    entropy: Tensor | None = None,
    ref_logprob: Tensor | None = None,
    exact_kl: Tensor | None = None,
) -> PolicyLoss:
    """The clipped objective, negated, over N trained tokens (all arguments (N,), fp32; `sequence` int64).

    A sequence must lie wholly inside one call when `importance = "sequence"`, since its ratio is a mean over it.
    """
    log_ratio = logprob - old_logprob
    if config.importance == "sequence":
        log_ratio = _sequence_mean(log_ratio, sequence)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    objective = torch.minimum(ratio * advantage, clipped * advantage)
    loss = -(weight * objective).sum()
    with torch.no_grad():
        sums = {
            "clip_low": ((ratio < 1 - config.clip_low) & (advantage < 0)).float().sum(),
            "clip_high": ((ratio > 1 + config.clip_high) & (advantage > 0)).float().sum(),
            "ratio_deviation": (ratio - 1).abs().sum(),
            "kl_old": kl_estimate("k3", old_logprob, logprob, None).sum(),
            "tokens": torch.tensor(float(logprob.numel()), device=logprob.device),
        }
        if entropy is not None:
            sums["entropy"] = entropy.sum()
    if config.kl_coef > 0 and ref_logprob is not None:
        kl = kl_estimate(config.kl_estimator, logprob, ref_logprob, exact_kl)
        loss = loss + config.kl_coef * (weight * kl).sum()
        sums["kl"] = kl.detach().sum()
    if config.entropy_coef != 0 and entropy is not None:
        loss = loss - config.entropy_coef * (weight * entropy).sum()
    return PolicyLoss(loss, sums)


def _sequence_mean(values: Tensor, sequence: Tensor) -> Tensor:
    """Mean over each sequence, given back to each of its tokens: (N,), (N,) -> (N,)."""
    _, inverse, counts = sequence.unique(return_inverse=True, return_counts=True)
    total = torch.zeros(len(counts), dtype=values.dtype, device=values.device).index_add(0, inverse, values)
    return (total / counts)[inverse]


class Reference:
    """The policy the KL penalty pulls towards: the starting planner. With fresh adapters it is the base, adapters off, no
    copy; an adapter that was trained before (`planner.adapter`) is copied, the frozen base beneath it shared."""

    def __init__(self, planner: Transformer, trained_before: bool = False) -> None:
        self.planner = planner
        shared = {id(p): p for p in planner.parameters() if not p.requires_grad}
        fresh = bool(adapted(planner)) and not trained_before
        self.copy = None if fresh else copy.deepcopy(planner, shared).requires_grad_(False).eval()

    def active(self) -> AbstractContextManager[Transformer]:
        """The reference's model, for as long as the context lasts."""
        return nullcontext(self.copy) if self.copy is not None else disabled(self.planner)
