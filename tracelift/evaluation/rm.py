"""The Reason RM by itself, on TraceLift-Groups: does it rank, and do its numbers mean what they say?

    pair, group     a positive above a negative (ties half), above every negative of its group; with Wilson intervals
    per kind        pair accuracy against the negatives of one flaw
    calibration     mean gold total in each tenth of the predicted total, and the expected calibration error
    dimensions      mean absolute error of the expected label (0 to 4), how often the nearest label is right, and the mean
                    expected label of the traces that were given each label

Pairs of one group are not independent, so the interval of pair accuracy is over groups, not pairs: the pairs won of each
group over its pairs, as one ratio.
Left out: recalibration.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tracelift.evaluation.table import cell, columns
from tracelift.reward_model.group_format import Group
from tracelift.reward_model.loss import ranking_metrics
from tracelift.reward_model.scorer import RMScore, ScoreItem, Scorer
from tracelift.rubrics import dimensions_of
from tracelift.stats.figures import SHARE, average, ratio

BINS = 10


def evaluate_rm(scorer: Scorer, groups: Sequence[Group]) -> dict[str, Any]:
    """Figures of an RM on whole groups. Traces it cannot score (too long) are counted and left out.

    Raises ValueError where nothing could be scored.
    """
    flat = [(i, g, c) for i, g in enumerate(groups) for c in g.candidates]
    scores = scorer.score([ScoreItem(g.task_type, g.problem, c.reasoning, g.type_text) for _, g, c in flat])
    kept = [(i, g, c, s) for (i, g, c), s in zip(flat, scores, strict=True) if s.error is None]
    if not kept:
        raise ValueError(
            f"no trace of {len(groups)} groups could be scored; "
            f"the first error: {scores[0].error if scores else 'no trace'}"
        )
    total, gold = [s.total for *_, s in kept], [c.rubric.total for _, _, c, _ in kept]
    owner, positive = [i for i, *_ in kept], [c.negative_kind is None for _, _, c, _ in kept]
    kinds = [c.negative_kind for _, _, c, _ in kept]
    figures = ranking_metrics(total, gold, owner, positive, kinds)
    members = _members(owner, positive)
    by_group = [
        ranking_metrics([total[j] for j in m], [gold[j] for j in m], [0] * len(m), [positive[j] for j in m])
        for m in members
    ]
    pairs = [sum(positive[j] for j in m) * sum(not positive[j] for j in m) for m in members]
    return {
        "groups": len(groups),
        "traces": len(flat),
        "unscored": len(flat) - len(kept),
        "pair accuracy": ratio([f["pair_accuracy"] * n for f, n in zip(by_group, pairs, strict=True)], pairs),
        "group accuracy": average([f["group_accuracy"] for f in by_group], SHARE),
        "MAE": figures["mae"],
        "RMSE": figures["rmse"],
        "per kind": {
            name.partition("/")[2]: {"pair accuracy": value, "pairs": _pairs_of(kept, name.partition("/")[2])}
            for name, value in figures.items()
            if name.startswith("pair/")
        },
        "calibration": calibration(total, gold),
        "dimensions": _dimensions([(g, c.rubric.dimensions, s) for _, g, c, s in kept]),
    }


def _members(owner: Sequence[int], positive: Sequence[bool]) -> list[list[int]]:
    """Indices by group, of groups that have both sides."""
    groups: dict[int, list[int]] = defaultdict(list)
    for j, i in enumerate(owner):
        groups[i].append(j)
    return [m for m in groups.values() if any(positive[j] for j in m) and not all(positive[j] for j in m)]


def _pairs_of(kept: Sequence[tuple[int, Group, Any, RMScore]], kind: str) -> int:
    positives: dict[int, int] = defaultdict(int)
    for i, _, c, _ in kept:
        positives[i] += c.negative_kind is None
    return sum(positives[i] for i, _, c, _ in kept if c.negative_kind == kind)


def calibration(predicted: Sequence[float], gold: Sequence[float]) -> dict[str, Any]:
    """Tenths of [0, 1] by predicted total: {low, n, predicted, gold}, and the n-weighted mean gap between the two."""
    bins: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for p, g in zip(predicted, gold, strict=True):
        bins[min(BINS - 1, int(p * BINS))].append((p, g))
    rows = [
        {
            "low": i / BINS,
            "n": len(b),
            "predicted": sum(p for p, _ in b) / len(b),
            "gold": sum(g for _, g in b) / len(b),
        }
        for i, b in enumerate(bins)
        if b
    ]
    error = sum(r["n"] * abs(r["predicted"] - r["gold"]) for r in rows) / len(predicted)
    return {"bins": rows, "expected_calibration_error": error}


def _dimensions(rows: Sequence[tuple[Group, dict[str, int], RMScore]]) -> dict[str, dict[str, Any]]:
    pairs: dict[str, list[tuple[int, float]]] = defaultdict(list)  # (given label, expected label)
    for group, labels, score in rows:
        for name, value in zip(dimensions_of(group.task_type), score.dimensions, strict=True):
            pairs[name].append((labels[name], value))
    out = {}
    for name, found in pairs.items():
        gaps = [abs(given - expected) for given, expected in found]
        by_label: dict[int, list[float]] = defaultdict(list)
        for given, expected in found:
            by_label[given].append(expected)
        out[name] = {
            "MAE": sum(gaps) / len(gaps),
            "nearest label right": sum(x < 0.5 for x in gaps) / len(gaps),
            "expected by given label": [
                {"given": g, "n": len(x), "expected": sum(x) / len(x)} for g, x in sorted(by_label.items())
            ],
        }
    return out


def render_rm(f: dict[str, Any]) -> str:
    """The figures as text."""
    head = f"{f['traces']} traces of {f['groups']} groups" + (
        f", {f['unscored']} too long to score" if f["unscored"] else ""
    )
    blocks = [
        head
        + "\n"
        + columns(
            [
                ["", "value"],
                ["pair accuracy", cell(f["pair accuracy"])],
                ["group accuracy", cell(f["group accuracy"])],
                ["MAE of the total", f"{f['MAE']:.4f}"],
                ["RMSE of the total", f"{f['RMSE']:.4f}"],
            ]
        )
    ]
    kinds = sorted(f["per kind"].items(), key=lambda item: item[1]["pair accuracy"])
    blocks.append(
        columns(
            [
                ["flaw of the negative", "pair accuracy", "pairs"],
                *([k, f"{v['pair accuracy']:.3f}", str(v["pairs"])] for k, v in kinds),
            ]
        )
    )
    blocks.append(
        columns(
            [
                ["dimension (0 to 4)", "MAE", "nearest label right", "mean expected label where 0, 1, … is given"],
                *(
                    [
                        k,
                        f"{v['MAE']:.3f}",
                        f"{v['nearest label right']:.3f}",
                        "  ".join(f"{r['given']}: {r['expected']:.2f}" for r in v["expected by given label"]),
                    ]
                    for k, v in f["dimensions"].items()
                ),
            ]
        )
    )
    blocks.append(
        columns(
            [
                ["predicted total", "n", "mean predicted", "mean gold"],
                *(
                    [
                        f"{r['low']:.1f} to {r['low'] + 1 / BINS:.1f}",
                        str(r["n"]),
                        f"{r['predicted']:.3f}",
                        f"{r['gold']:.3f}",
                    ]
                    for r in f["calibration"]["bins"]
                ),
            ]
        )
        + f"\n  expected calibration error {f['calibration']['expected_calibration_error']:.4f}"
    )
    return "\n\n".join(blocks)
