"""The Reason RM's loss on a batch of groups, and how well it ranks.

    loss = Σ_d CE_d + 0.5 · Huber(sigmoid(total_head), gold_total; δ = 1)
         + 0.7 · mean over groups of −log sigmoid(s_pos − s_neg)        (+ optional ranking among negatives)

s is the model's total, in [0, 1]: a pairwise loss on such scores cannot fall below log(1 + e⁻¹) = 0.313.

Left out: the model (models/reward.py), the training loop (tracelift/reward_model/train.py).
"""

from __future__ import annotations

from collections.abc import Sequence

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


def ranking_metrics(
    total: Sequence[float],
    gold: Sequence[float],
    group: Sequence[int],
    positive: Sequence[bool],
    kinds: Sequence[str | None] | None = None,
) -> dict[str, float]:
    """Pair accuracy (ties count half), group accuracy (a positive above every negative), MAE and RMSE of the total.

    With `kinds` also `pair/KIND`: accuracy over the pairs whose negative has that flaw.
    """
    by_group: dict[int, list[int]] = {}
    for i, g in enumerate(group):
        by_group.setdefault(g, []).append(i)
    wins = pairs = 0.0
    clean = ranked = 0
    per_kind: dict[str, list[float]] = {}
    for members in by_group.values():
        good, bad = [i for i in members if positive[i]], [i for i in members if not positive[i]]
        if not good or not bad:
            continue
        ranked += 1
        clean += all(total[i] > total[j] for i in good for j in bad)
        for i in good:
            for j in bad:
                won = 1.0 if total[i] > total[j] else 0.5 if total[i] == total[j] else 0.0
                wins, pairs = wins + won, pairs + 1
                if kinds is not None:
                    per_kind.setdefault(str(kinds[j]), []).append(won)
    n = max(1, len(total))
    errors = [a - b for a, b in zip(total, gold, strict=True)]
    metrics = {
        "pair_accuracy": wins / max(1.0, pairs),
        "group_accuracy": clean / max(1, ranked),
        "mae": sum(map(abs, errors)) / n,
        "rmse": (sum(e * e for e in errors) / n) ** 0.5,
    }
    return metrics | {f"pair/{k}": sum(v) / len(v) for k, v in sorted(per_kind.items())}
