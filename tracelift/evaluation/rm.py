"""The Reason RM by itself, on TraceLift-Groups: does it rank, and do its numbers mean what they say?

    pair, group     the reference above a flawed trace (ties half), above every flawed one of its group; with intervals
    alternatives    sound traces that tell the reference otherwise: above the flawed ones, alone and with the reference
    spread          sound against sound: how far apart reference and alternative are, and how often the reference is above
    per kind        pair accuracy against the flawed traces of one flaw, and of the alternatives of one kind
    calibration     mean gold total in each tenth of the predicted total, and the expected calibration error
    dimensions      mean absolute error of the expected label (0 to 4), how often the nearest label is right, and the mean
                    expected label of the traces that were given each label

A model that knows the reference's wording and nothing else has a pair accuracy of 1 and ranks its alternatives with the
flaws. Pairs of one group are not independent, so intervals are over groups, not pairs: what is won in each group over its
pairs, as one ratio. MAE, RMSE, calibration and dimensions are over all traces.
Left out: recalibration.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracelift.evaluation.table import cell, columns
from tracelift.files import read_json
from tracelift.reward_model.group_format import Candidate, Group
from tracelift.reward_model.loss import Sides, ranking_metrics, sides_of, won
from tracelift.reward_model.scorer import RMScore, ScoreItem, Scorer
from tracelift.rubrics import dimensions_of
from tracelift.stats.figures import SHARE, Figure, average, ratio

BINS = 10
RECORD = "reward_model.json"


def folder_for(folder: Path, fingerprint: str) -> Path:
    """`folder`, or where it holds the figures of another model, its neighbour named by the fingerprint too."""
    there = folder / RECORD
    taken = there.exists() and read_json(there).get("fingerprint") != fingerprint
    return folder.with_name(f"{folder.name}-{fingerprint[:8]}") if taken else folder


def evaluate_rm(scorer: Scorer, groups: Sequence[Group]) -> dict[str, Any]:
    """Figures of an RM on whole groups; those of alternatives are under "alternatives", which is None without any. Traces it
    cannot score (too long) are counted and left out.

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
    total, traces = [s.total for *_, s in kept], [c for _, _, c, _ in kept]
    gold, positive = [c.rubric.total for c in traces], [c.negative_kind is None for c in traces]
    owner, told = [i for i, *_ in kept], [c.positive_kind for c in traces]
    sides = sides_of(owner, positive, told)
    errors = ranking_metrics(total, gold, owner, positive)
    return {
        "groups": len(groups),
        "traces": len(flat),
        "unscored": len(flat) - len(kept),
        "pair accuracy": _pairs(total, [(s.references, s.flawed) for s in sides]),
        "group accuracy": _groups(total, [(s.references, s.flawed) for s in sides]),
        "MAE": errors["mae"],
        "RMSE": errors["rmse"],
        "per kind": _per_flaw(total, traces, sides),
        "alternatives": _alternatives(total, traces, sides) if any(s.alternatives for s in sides) else None,
        "calibration": calibration(total, gold),
        "dimensions": _dimensions([(g, c.rubric.dimensions, s) for _, g, c, s in kept]),
    }


Two = tuple[list[int], list[int]]  # two sides of a group, one of which may be empty


def _over_groups(values: Sequence[list[float]]) -> Figure:
    """The mean of all pairs' values, 0 to 1, with its interval over the groups that have any."""
    there = [v for v in values if v]
    return ratio([sum(v) for v in there], [len(v) for v in there])


def _pairs(total: Sequence[float], sides: Sequence[Two]) -> Figure:
    return _over_groups([won(total, good, bad) for good, bad in sides])


def _groups(total: Sequence[float], sides: Sequence[Two]) -> Figure:
    """The share of groups whose good traces are all above their bad ones."""
    both = [(good, bad) for good, bad in sides if good and bad]
    return average([float(min(total[i] for i in good) > max(total[j] for j in bad)) for good, bad in both], SHARE)


def _per_flaw(total: Sequence[float], traces: Sequence[Candidate], sides: Sequence[Sides]) -> dict[str, dict[str, Any]]:
    """Of each flaw: how often the reference is above it, over how many pairs, and how often an alternative is."""
    found = {}
    for kind in sorted({str(traces[j].negative_kind) for s in sides for j in s.flawed}):
        struck = [(s, [j for j in s.flawed if traces[j].negative_kind == kind]) for s in sides]
        pairs = [x for s, bad in struck for x in won(total, s.references, bad)]
        if not pairs:
            continue
        found[kind] = {"pair accuracy": sum(pairs) / len(pairs), "pairs": len(pairs)}
        if any(s.alternatives and bad for s, bad in struck):
            found[kind]["alternatives"] = _pairs(total, [(s.alternatives, bad) for s, bad in struck])
    return found


def _alternatives(total: Sequence[float], traces: Sequence[Candidate], sides: Sequence[Sides]) -> dict[str, Any]:
    told = {
        kind: _told(total, traces, sides, kind) for kind in sorted({str(c.positive_kind) for c in traces} - {"None"})
    }
    retold = [s for s in sides if s.alternatives]
    return {
        "groups": len(retold),
        **_told(total, traces, sides, None),
        "group accuracy": _groups(total, [(s.references + s.alternatives, s.flawed) for s in retold]),
        "per kind": told,
    }


def _told(
    total: Sequence[float], traces: Sequence[Candidate], sides: Sequence[Sides], kind: str | None
) -> dict[str, Any]:
    """Figures of the alternatives of one kind, None: of all. Against the reference that opens as the alternative does."""
    mine = [([i for i in s.alternatives if kind in (None, traces[i].positive_kind)], s) for s in sides]
    gaps = [
        [total[r] - total[i] for i in chosen for r in s.references if _opening(traces[r]) == _opening(traces[i])]
        for chosen, s in mine
    ]
    return {
        "traces": sum(len(chosen) for chosen, _ in mine),
        "pairs": sum(len(chosen) * len(s.flawed) for chosen, s in mine),
        "pair accuracy": _pairs(total, [(chosen, s.flawed) for chosen, s in mine]),
        "spread": _over_groups([[abs(gap) for gap in group] for group in gaps]),
        "reference above": _over_groups([[0.5 * (gap >= 0) + 0.5 * (gap > 0) for gap in group] for group in gaps]),
    }


def _opening(c: Candidate) -> object:
    """How many sentences of the problem open the trace, where its builder says."""
    metadata = c.extra.get("metadata")
    return metadata.get("quotations", 0) if isinstance(metadata, dict) else 0


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
    unscored = f", {f['unscored']} too long to score" if f["unscored"] else ""
    whole = [
        ["", "value"],
        ["pair accuracy", cell(f["pair accuracy"])],
        ["group accuracy", cell(f["group accuracy"])],
        ["MAE of the total", f"{f['MAE']:.4f}"],
        ["RMSE of the total", f"{f['RMSE']:.4f}"],
    ]
    told = f["alternatives"]
    if told:
        whole[3:3] = [
            ["pair accuracy, alternatives", cell(told["pair accuracy"])],
            ["group accuracy, all sound traces", cell(told["group accuracy"])],
        ]
    blocks = [f"{f['traces']} traces of {f['groups']} groups{unscored}\n{columns(whole)}"]
    if told:
        blocks.append(f"{told['traces']} sound traces told otherwise, of {told['groups']} groups\n{_told_table(told)}")
    blocks += [_flaw_table(f["per kind"], bool(told)), _dimension_table(f["dimensions"])]
    error = f["calibration"]["expected_calibration_error"]
    bins = [
        [f"{r['low']:.1f} to {r['low'] + 1 / BINS:.1f}", str(r["n"]), f"{r['predicted']:.3f}", f"{r['gold']:.3f}"]
        for r in f["calibration"]["bins"]
    ]
    calibrated = columns([["predicted total", "n", "mean predicted", "mean gold"], *bins])
    return "\n\n".join([*blocks, f"{calibrated}\n  expected calibration error {error:.4f}"])


def _told_table(told: dict[str, Any]) -> str:
    figures = ("pair accuracy", "spread", "reference above")
    rows = [
        [name, str(v["traces"]), *(cell(v[figure]) for figure in figures)]
        for name, v in (*told["per kind"].items(), ("all", told))
    ]
    return columns([["told otherwise", "n", "above the flawed", "apart from the reference", "reference above"], *rows])


def _flaw_table(kinds: dict[str, dict[str, Any]], told: bool) -> str:
    rows = [
        [name, f"{v['pair accuracy']:.3f}", str(v["pairs"]), *([cell(v.get("alternatives"))] if told else [])]
        for name, v in sorted(kinds.items(), key=lambda item: item[1]["pair accuracy"])
    ]
    return columns([["flaw of the negative", "pair accuracy", "pairs", *(["alternatives"] if told else [])], *rows])


def _dimension_table(dimensions: dict[str, dict[str, Any]]) -> str:
    rows = [
        [
            name,
            f"{v['MAE']:.3f}",
            f"{v['nearest label right']:.3f}",
            "  ".join(f"{r['given']}: {r['expected']:.2f}" for r in v["expected by given label"]),
        ]
        for name, v in dimensions.items()
    ]
    head = ["dimension (0 to 4)", "MAE", "nearest label right", "mean expected label where 0, 1, … is given"]
    return columns([head, *rows])
