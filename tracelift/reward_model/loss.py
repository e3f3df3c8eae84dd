"""The Reason RM's loss on a batch of groups, and how well it ranks.

    loss = Σ_d CE_d + 0.5 · Huber(sigmoid(total_head), gold_total; δ = 1)
         + 0.7 · mean over groups of −log sigmoid(s_pos − s_neg)        (+ optional ranking among negatives)

s is the model's total, in [0, 1]: a pairwise loss on such scores cannot fall below log(1 + e⁻¹) = 0.313.

Left out: the model (models/reward.py), the training loop (tracelift/reward_model/train.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from models.reward import RewardScores
from tracelift.reward_model.scorer import RMTargets


def rm_loss(
    logits: Tensor,
    scores: RewardScores,
    targets: RMTargets,
    counts: tuple[int, int],
    *,
    total_weight: float = 0.5,
    rank_weight: float = 0.7,
    negative_weight: float = 0.0,
    negative_margin: float = 0.15,
) -> dict[str, Tensor]:
    """The parts of the loss and their weighted sum under "loss".

    logits (B, dims, C), scores from RewardModel.combine; counts = (traces, positive-negative pairs) of the global batch,
    so that pieces of a batch add up to the whole. Groups must not be split between pieces.
    """
    traces, pairs = counts
    ce = F.cross_entropy(logits.flatten(0, 1).float(), targets.labels.flatten(), reduction="sum") / traces
    parts = {"ce": ce}
    loss = ce
    if scores.head is not None:
        parts["huber"] = F.huber_loss(scores.head, targets.total, reduction="sum", delta=1.0) / traces
        loss = loss + total_weight * parts["huber"]
    same = targets.group[:, None] == targets.group[None, :]
    better = same & targets.positive[:, None] & ~targets.positive[None, :]
    gap = scores.total[:, None] - scores.total[None, :]
    parts["rank"] = -(F.logsigmoid(gap) * better).sum() / max(1, pairs)
    loss = loss + rank_weight * parts["rank"]
    if negative_weight > 0:
        gold_gap = targets.total[:, None] - targets.total[None, :]
        ranked = same & ~targets.positive[:, None] & ~targets.positive[None, :] & (gold_gap >= negative_margin)
        parts["negative_rank"] = -(F.logsigmoid(gap) * ranked).sum() / max(1, pairs)
        loss = loss + negative_weight * parts["negative_rank"]
    parts["loss"] = loss
    return parts


@dataclass(frozen=True)
class Sides:
    """Indices of one group's traces: the reference (with and without quotations), those that tell it otherwise, the flawed."""

    references: list[int]
    alternatives: list[int]
    flawed: list[int]


def sides_of(group: Sequence[int], positive: Sequence[bool], told: Sequence[str | None] | None = None) -> list[Sides]:
    """The sides of each group, in order of first appearance. told: each trace's `positive_kind`; None: no alternatives."""
    sides: dict[int, Sides] = {}
    for i, g in enumerate(group):
        mine = sides.setdefault(g, Sides([], [], []))
        side = (
            mine.flawed if not positive[i] else mine.alternatives if told and told[i] is not None else mine.references
        )
        side.append(i)
    return list(sides.values())


def won(total: Sequence[float], good: Sequence[int], bad: Sequence[int]) -> list[float]:
    """Of each pair of a sound and a flawed trace: 1 where the sound one is above, 0.5 where they are level."""
    return [1.0 if total[i] > total[j] else 0.5 if total[i] == total[j] else 0.0 for i in good for j in bad]


def ranking_metrics(
    total: Sequence[float],
    gold: Sequence[float],
    group: Sequence[int],
    positive: Sequence[bool],
    kinds: Sequence[str | None] | None = None,
    told: Sequence[str | None] | None = None,
) -> dict[str, float]:
    """Pair accuracy (ties count half), group accuracy (a positive above every negative), MAE and RMSE of the total.

    With `kinds` also `pair/KIND`: accuracy over the pairs whose negative has that flaw. All of these are of references.
    With alternatives among the positives (`told`, see `sides_of`) also `alternative_pair_accuracy` of theirs against the
    flawed, `alternative/KIND` of one way of telling, and `sound_group_accuracy`: the share of groups with an alternative in
    which every sound trace, told either way, is above every flawed one. MAE and RMSE are over all traces.
    """
    sides = sides_of(group, positive, told)
    ranked = [s for s in sides if s.references and s.flawed]
    pairs = [x for s in ranked for x in won(total, s.references, s.flawed)]
    n = max(1, len(total))
    errors = [a - b for a, b in zip(total, gold, strict=True)]
    metrics = {
        "pair_accuracy": sum(pairs) / max(1, len(pairs)),
        "group_accuracy": sum(_clean(total, s.references, s.flawed) for s in ranked) / max(1, len(ranked)),
        "mae": sum(map(abs, errors)) / n,
        "rmse": (sum(e * e for e in errors) / n) ** 0.5,
    }
    retold = [s for s in sides if s.alternatives and s.flawed]
    if retold:
        metrics["alternative_pair_accuracy"] = _mean([x for s in retold for x in won(total, s.alternatives, s.flawed)])
        metrics["sound_group_accuracy"] = _mean(
            [_clean(total, s.references + s.alternatives, s.flawed) for s in retold]
        )
    if kinds is not None:
        metrics |= _by_kind("pair", kinds, [(j, won(total, s.references, [j])) for s in ranked for j in s.flawed])
    if told is not None:
        metrics |= _by_kind(
            "alternative", told, [(i, won(total, [i], s.flawed)) for s in retold for i in s.alternatives]
        )
    return metrics


def _clean(total: Sequence[float], good: Sequence[int], bad: Sequence[int]) -> bool:
    return all(total[i] > total[j] for i in good for j in bad)


def _by_kind(name: str, kinds: Sequence[str | None], pairs: Sequence[tuple[int, Sequence[float]]]) -> dict[str, float]:
    """NAME/KIND: the mean over all pairs of the traces of that kind; pairs: (trace, its pairs)."""
    found: dict[str, list[float]] = {}
    for i, mine in pairs:
        found.setdefault(str(kinds[i]), []).extend(mine)
    return {f"{name}/{kind}": _mean(values) for kind, values in sorted(found.items())}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
