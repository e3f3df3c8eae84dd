"""Groups of equal rewards, which have no gradient: how one is told, whether it counts, and what takes its place.

`grpo.flat_groups` decides about them:

    count      its traces stay in the denominators of the loss; no forward pass is spent on them
    drop       they are left out of the batch: out of the denominators, and out of a KL or entropy term
    resample   fresh problems take their place, at most `grpo.resample_rounds` times; what is flat then is dropped

The last is DAPO's dynamic sampling (arXiv 2503.14476, section 3.2). `grpo.mask_truncated` is its overlong filtering
(section 3.4): a trace cut by the token limit is not trained and not counted, while its reward stays in its group's mean,
so that the others are compared with it. Left out: the advantages themselves (tracelift/rl/grpo.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tracelift.config.schema import GrpoConfig
from tracelift.rl.sample import Sample
from tracelift.tasks.task import Task, TaskSource

SAME = 1e-5
"""Rewards no further apart than this, relative to the largest of their group or to 1, are equal. A reward is made of an
fp32 score and, with executor.uplift = "likelihood", of fp32 log-probs: what is the same comes out within a few 1e-6 of
itself. What differs in success, in format or in penalty is at least 1e-3 apart."""


class GroupRewards(NamedTuple):
    """What the update asks about P groups of up to G traces; all (P, G), shorter groups filled up as not valid."""

    reward: Tensor  # fp64; 0 where not valid
    valid: Tensor  # bool: it has a reward; an ERROR has none
    cut: Tensor  # bool: ended by the token limit


def group_rewards(groups: Sequence[Sequence[tuple[float | None, str]]]) -> GroupRewards:
    """From (reward, None where there is none; reason why the trace ended) of every trace."""
    G = max([1, *map(len, groups)])
    rows = [[*g, *[(None, "")] * (G - len(g))] for g in groups]
    reward = torch.tensor([[r or 0.0 for r, _ in row] for row in rows], dtype=torch.float64)
    valid = torch.tensor([[r is not None for r, _ in row] for row in rows], dtype=torch.bool)
    cut = torch.tensor([[why == "length" for _, why in row] for row in rows], dtype=torch.bool)
    return GroupRewards(*(x.view(len(rows), G) for x in (reward, valid, cut)))


def rewards_of(groups: Sequence[Sequence[Sample]]) -> GroupRewards:
    """The same of graded samples."""
    return group_rewards(
        [[(None if s.error is not None else s.reward, s.completion.finish_reason) for s in g] for g in groups]
    )


def has_spread(reward: Tensor, valid: Tensor) -> Tensor:
    """Which groups can move the policy: two valid rewards differ by more than `SAME`. (P, G), (P, G) bool -> (P,) bool."""
    high = torch.where(valid, reward, -math.inf).amax(-1)
    low = torch.where(valid, reward, math.inf).amin(-1)
    scale = torch.where(valid, reward.abs(), 0.0).amax(-1).clamp(min=1.0)
    return high - low > SAME * scale


def trained_traces(groups: GroupRewards, config: GrpoConfig) -> Tensor:
    """Which traces the loss is a mean over, (P, G) bool: with a reward, and left out neither as flat nor as cut."""
    kept = groups.valid & ~groups.cut if config.mask_truncated else groups.valid
    return kept if config.flat_groups == "count" else kept & has_spread(groups.reward, groups.valid)[:, None]


def replace_flat(
    groups: list[list[Sample]],
    step: int,
    tasks: TaskSource,
    draw: Callable[[list[tuple[int, Task]]], list[list[Sample]]],
    config: GrpoConfig,
) -> tuple[list[list[Sample]], list[list[Sample]]]:
    """(the groups of 0-based round `step` to train on, those that were replaced), of all ranks, in the order of the round.

    draw: (number in the round, problem) → graded groups, the same on every rank; so all ranks see the same groups flat.
    The fresh problem at place i of attempt a depends on (seed, step, a, i) alone, and so do its draws: its number in the
    round, a·P + i, is nobody else's. With other settings than "resample" nothing is replaced.
    """
    groups, replaced = list(groups), []
    for attempt in range(1, config.resample_rounds + 1) if config.flat_groups == "resample" else ():
        rewards = rewards_of(groups)
        flat = (~has_spread(rewards.reward, rewards.valid)).nonzero()[:, 0].tolist()
        if not flat:
            break
        fresh = tasks.spare(step * config.resample_rounds + attempt - 1, len(groups))
        again = draw([(attempt * len(groups) + i, fresh[i]) for i in flat])
        replaced += [groups[i] for i in flat]
        for i, group in zip(flat, again, strict=True):
            groups[i] = group
    return groups, replaced
