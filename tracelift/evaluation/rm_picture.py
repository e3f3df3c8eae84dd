"""The Reason RM's figures as one picture: pairs by kind of flaw, totals against gold, expected against given labels.

Draws what `evaluate_rm` found. Left out: intervals, which the text has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tracelift.evaluation.table import cell
from tracelift.runs.plots import COLOURS, pyplot


def draw_rm(figures: dict[str, Any], path: Path) -> Path:
    kinds = sorted(figures["per kind"].items(), key=lambda item: item[1]["pair accuracy"])
    plt = pyplot()
    figure, (pairs, totals, labels) = plt.subplots(1, 3, figsize=(14, 4.2), width_ratios=(1.2, 1, 1))
    pairs.barh([k.replace("_", " ") for k, _ in kinds], [v["pair accuracy"] for _, v in kinds], color=COLOURS[0])
    pairs.axvline(0.5, color=COLOURS[2], linewidth=1)
    pairs.set(
        xlim=(0, 1), title=f"pairs ranked right, by flaw (all: {cell({**figures['pair accuracy'], 'low': None})})"
    )
    bins = figures["calibration"]["bins"]
    totals.plot([0, 1], [0, 1], color=COLOURS[2], linewidth=1)
    totals.plot([b["predicted"] for b in bins], [b["gold"] for b in bins], "o-", color=COLOURS[0])
    totals.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="predicted total",
        ylabel="mean gold total",
        title=f"calibration (error {figures['calibration']['expected_calibration_error']:.3f})",
    )
    labels.plot([0, 4], [0, 4], color=COLOURS[2], linewidth=1)
    for (name, d), colour in zip(figures["dimensions"].items(), COLOURS[:2] + COLOURS[3:] + ("#5c4d7d",), strict=False):
        rows = d["expected by given label"]
        labels.plot(
            [r["given"] for r in rows],
            [r["expected"] for r in rows],
            "o-",
            color=colour,
            label=name.replace("_", " "),
            markersize=4,
        )
    labels.set(xlim=(-0.2, 4.2), ylim=(-0.2, 4.2), xlabel="given label", ylabel="mean expected label", title="labels")
    labels.legend(fontsize=7, frameon=False)
    for axis in (pairs, totals, labels):
        axis.title.set_fontsize(10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
