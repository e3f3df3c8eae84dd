"""The Reason RM's figures as one picture: pairs by kind of flaw, alternatives, totals against gold, expected against given labels.

Draws what `evaluate_rm` found; alternatives only where the groups have any. Left out: intervals of single flaws.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tracelift.evaluation.table import cell
from tracelift.runs.plots import COLOURS, pyplot

SOUND = (
    ("pair accuracy", "above the flawed"),
    ("reference above", "reference above it"),
    ("spread", "apart from the reference"),
)


def draw_rm(figures: dict[str, Any], path: Path) -> Path:
    told = figures["alternatives"]
    plt = pyplot()
    widths = (1.2, 1.2, 1, 1) if told else (1.2, 1, 1)
    figure, axes = plt.subplots(1, len(widths), figsize=(4.7 * len(widths), 4.2), width_ratios=widths)
    pairs, totals, labels = axes[0], axes[-2], axes[-1]
    _flaws(pairs, figures)
    if told:
        _alternatives(axes[1], told)
    _calibration(totals, figures["calibration"])
    _labels(labels, figures["dimensions"])
    for axis in axes:
        axis.title.set_fontsize(10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _flaws(axis: Any, figures: dict[str, Any]) -> None:
    kinds = sorted(figures["per kind"].items(), key=lambda item: item[1]["pair accuracy"])
    names = [k.replace("_", " ") for k, _ in kinds]
    axis.barh(names, [v["pair accuracy"] for _, v in kinds], color=COLOURS[0], label="reference")
    if figures["alternatives"]:
        shares = [v["alternatives"]["value"] if "alternatives" in v else 0 for _, v in kinds]
        axis.barh(names, shares, height=0.4, color=COLOURS[4], label="alternatives")
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)
    axis.axvline(0.5, color=COLOURS[2], linewidth=1)
    whole = cell({**figures["pair accuracy"], "low": None})
    axis.set(xlim=(0, 1), title=f"sound above flawed, by flaw (reference: {whole})")


def _alternatives(axis: Any, told: dict[str, Any]) -> None:
    rows = [*told["per kind"].items(), ("all", told)]
    for n, (key, label) in enumerate(SOUND):
        there = [(y + 0.2 * (n - 1), v[key]) for y, (_, v) in enumerate(rows) if v[key]["value"] is not None]
        axis.errorbar(
            [f["value"] for _, f in there],
            [y for y, _ in there],
            xerr=[[f["value"] - f["low"] for _, f in there], [f["high"] - f["value"] for _, f in there]],
            fmt="o",
            color=(COLOURS[4], COLOURS[1], COLOURS[3])[n],
            label=label,
            markersize=4,
        )
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(rows)), title=f"sound traces told otherwise ({told['traces']})")
    axis.set_yticks(range(len(rows)), [f"{k.replace('_', ' ')} ({v['traces']})" for k, v in rows])
    axis.grid(axis="x", alpha=0.25)
    axis.legend(fontsize=7, loc="upper center", ncols=3, frameon=False, columnspacing=0.8, handletextpad=0.2)


def _calibration(axis: Any, calibration: dict[str, Any]) -> None:
    bins = calibration["bins"]
    axis.plot([0, 1], [0, 1], color=COLOURS[2], linewidth=1)
    axis.plot([b["predicted"] for b in bins], [b["gold"] for b in bins], "o-", color=COLOURS[0])
    title = f"calibration (error {calibration['expected_calibration_error']:.3f})"
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted total", ylabel="mean gold total", title=title)


def _labels(axis: Any, dimensions: dict[str, Any]) -> None:
    axis.plot([0, 4], [0, 4], color=COLOURS[2], linewidth=1)
    for (name, d), colour in zip(dimensions.items(), COLOURS[:2] + COLOURS[3:] + ("#5c4d7d",), strict=False):
        rows = d["expected by given label"]
        points = [r["given"] for r in rows], [r["expected"] for r in rows]
        axis.plot(*points, "o-", color=colour, label=name.replace("_", " "), markersize=4)
    axis.set(xlim=(-0.2, 4.2), ylim=(-0.2, 4.2), xlabel="given label", ylabel="mean expected label", title="labels")
    axis.legend(fontsize=7, frameon=False)
