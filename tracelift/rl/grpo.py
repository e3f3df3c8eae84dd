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
from tracelift.rl.flat_groups import has_spread, rewards_of, trained_traces
from tracelift.rl.sample import Sample
from tracelift.tasks.epochs import epoch_order

EPSILON = 1e-4  # beside a group's deviation: a group that hardly differs moves the policy little


def advantages(rewards: Tensor, valid: Tensor, scale: Literal["std", "none"] = "std", least_std: float = 0.0) -> Tensor:
    """Group-relative advantages: (r − mean) / (max(std, least_std) + ε), or r − mean.

    least_std: a floor for the deviation. Without one, rewards of .9990 and .9995 (two likelihoods of one success) are as far
    apart as 0 and 1.

    rewards (P, G) float; valid (P, G) bool: False for samples that left the group (ERROR verdicts). Returns (P, G) fp32,
    exactly 0 where invalid and in a group without spread (tracelift/rl/flat_groups.py decides), one of fewer than two
    valid samples among them.
    """
    count = valid.sum(-1, keepdim=True)
    r = torch.where(valid, rewards.double(), 0.0)
    centred = torch.where(valid, r - r.sum(-1, keepdim=True) / count.clamp(min=1), 0.0)
    if scale == "std":
        std = (centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
        centred = centred / (std.clamp(min=least_std) + EPSILON)
    return torch.where(has_spread(rewards, valid)[:, None], centred, 0.0).float()


def group_advantages(groups: Sequence[Sequence[Sample]], config: GrpoConfig) -> tuple[Tensor, Tensor]:
    """(advantages, which traces the loss is a mean over) of graded groups, both (P, G)."""
    known = rewards_of(groups)
    return advantages(known.reward, known.valid, config.advantage_scale, config.least_std), trained_traces(
        known, config
    )


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
        """Those there are, in order: what a chunked loss cuts and hands on as `*data`; `TrainedTokens(*columns)` is this again."""
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
    """KL(π‖ref) per trained token (N,), nats: k1, k2, k3 on the sampled token (Schulman, "Approximating KL divergence",
    2020), or the kernels' exact sum over the vocabulary.

    As a value, k1, k3 and the sum have the KL's expectation; k3 is never negative and varies least, so it is what is
    logged. As a loss another thing counts, the expectation of the gradient over y ~ π: of k2 and of the sum it is that of
    KL(π‖ref), of k3 that of KL(ref‖π), of k1 zero. All of them are of the policy that sampled: after a round's first
    update they are not corrected for its having moved. Raises ValueError for "exact" without the sum.
    """
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
    """`loss` is this piece's share of the global loss; `sums` are sums over its tokens for the metrics, (), fp64, detached:
    clipped on either side, KL(old‖new) of the tokens that have an advantage, their number, and that of all tokens; KL to
    the reference where it is penalised."""

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
        moving = advantage != 0
        found = {
            "clip_low": (ratio < 1 - config.clip_low) & (advantage < 0),
            "clip_high": (ratio > 1 + config.clip_high) & (advantage > 0),
            "kl_old": torch.where(moving, kl_estimate("k3", old_logprob, logprob, None), 0.0),
            "moving": moving,
            "computed": torch.ones_like(moving),
        }
    if config.kl_coef > 0 and ref_logprob is not None:
        kl = kl_estimate(config.kl_estimator, logprob, ref_logprob, exact_kl)
        loss = loss + config.kl_coef * (weight * kl).sum()
        found["kl"] = kl if config.kl_estimator == "exact" else kl_estimate("k3", logprob, ref_logprob, None)
    if config.entropy_coef != 0 and entropy is not None:
        loss = loss - config.entropy_coef * (weight * entropy).sum()
    return PolicyLoss(loss, {name: x.detach().sum(dtype=torch.float64) for name, x in found.items()})


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
