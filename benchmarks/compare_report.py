"""A comparison of rewards for people: one table a mode, each comparison in a sentence, learning curves with bands.

Left out: where the figures come from (benchmarks/compare_figures.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare_figures import CURVES, FAULT, MODES
from tracelift.runs.summary import COSTS

TITLES = {"exec_only": "execution only", "tracelift": "TraceLift", "rm_only": "RM only", "uplift_only": "uplift only",
          "product_only": "R x uplift only",
          "drop": "TraceLift, flat groups dropped", "resample": "TraceLift, flat groups resampled",
          "mask_truncated": "TraceLift, cut traces masked", "gated": "gated (R x outcome)",
          "additive": "additive (outcome + R)", "graded": "graded (R x success rate)"}  # fmt: skip
COLOURS = {
    "exec_only": "#e07a1f",
    "tracelift": "#1f6f8b",
    "rm_only": "#b08bbb",
    "uplift_only": "#2e933c",
    "product_only": "#d1495b",
    "drop": "#2e933c",
    "resample": "#d1495b",
    "mask_truncated": "#b08bbb",
    "gated": "#8a4f9e",
    "additive": "#2e933c",
    "graded": "#d1495b",
}

EQUAL = {"positions": "executor positions", "seconds": "CPU seconds"}
DRAWN = ("gated", "exec_only", "tracelift")  # above the others, thick and with bands, the last on top
GENERATED = COSTS["executor_tokens"]
MORE = {
    k: COSTS[k] for k in ("executor_computed_positions", "executor_scored_tokens", "cpu_s")
}  # where the runs logged them
NONE = {"mean": 0.0, "sd_seeds": 0.0}  # of a fault that no run of an arm showed
COLUMNS = (
    ("accuracy", "accuracy"),
    ("uplift", "uplift"),
    ("trace_validity", "trace validity"),
    ("wrong_reason_rate", "wrong-reason rate"),
    ("rm_score", "RM score"),
    ("trace_tokens", "trace tokens"),
    ("answer_stated", "answer stated"),
)


def render_markdown(record: dict[str, Any]) -> str:
    """One table of rewards and one of comparisons a mode."""
    parts = []
    for mode in MODES:
        parts.append(arms_table(record, mode))
        told = ", ".join(f"{arm} {f[mode]['value']:.3f}" for arm, f in record["controls"].items())
        parts.append(f"Controls, with the starting planner: {told}.")
        asked = [c for c in record["comparisons"] if c["mode"] == mode]
        if asked:
            parts.append(comparison_table(asked))
            parts.append(
                f"{holds([{'accuracy': c, **c['figures']} for c in asked], list(asked[0]['figures']))} p is exact over "
                f"all ways to deal the runs out, and so many runs cannot show less than {asked[0]['least_p']:.2g}. "
                "Points are of accuracy; Holm over the rewards of this table; figures right of it are not adjusted."
            )
    if record.get("equal_cost"):
        parts.append(equal_cost_table(record["equal_cost"]))
    if faults := sorted({k for f in record["arms"].values() for k in f["sampled"] if k.startswith(FAULT)}):
        parts.append(fault_table(record, faults))
    return "\n\n".join(parts)


def title(arm: str) -> str:
    """An arm in words; ARM@BUDGET is the arm as it stood at execution only's cost."""
    name, _, budget = arm.partition("@")
    return TITLES[name] + (f", at equal {EQUAL[budget]}" if budget else "")


def equal_cost_table(found: Sequence[dict[str, Any]]) -> str:
    """The arms at execution only's cost, less execution only, sampled traces."""
    lines = [
        "**At execution only's cost**, sampled traces, difference in points",
        "",
        "| reward | equal | figure | difference | p | p, Holm over this table |",
        "|---|---|---|---|---|---|",
    ]
    for c in found:
        cells = [
            TITLES[c["arm"]],
            EQUAL[c["budget"]],
            dict(COLUMNS)[c["figure"]],
            interval(c, 100, 1),
            f"{c['p']:.2g}",
            f"{c['p_holm']:.2g}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fault_table(record: dict[str, Any], faults: Sequence[str]) -> str:
    """What is wrong in the traces of right answers: the shares add up to the wrong-reason rate."""
    lines = [
        "**Wrong reasons by the first fault of the trace**, sampled, share of right answers, mean ± sd",
        "",
        "| reward | " + " | ".join(k.removeprefix(FAULT) for k in faults) + " |",
        "|" + "---|" * (len(faults) + 1),
        "| start (no training) | "
        + " | ".join(number(record["start"]["sampled"].get(k, 0.0), k) for k in faults)
        + " |",
    ]
    for arm, f in record["arms"].items():
        lines.append(f"| {title(arm)} | " + " | ".join(plus_minus(f["sampled"].get(k, NONE), k) for k in faults) + " |")
    return "\n".join(lines)


def arms_table(record: dict[str, Any], mode: str) -> str:
    present = [(k, t) for k, t in COLUMNS if k in record["start"][mode]]
    arms = record["arms"].values()
    more = {k: t for k, t in MORE.items() if all(c.get(k) is not None for f in arms for c in f.get("costs", [{}]))}
    lines = [
        f"**{mode}**, {record['problems']} fresh problems, mean ± sd over {len(record['seeds'])} training seeds",
        "",
        "| reward | " + " | ".join([*(t for _, t in present), "updates", GENERATED, *more.values()]) + " |",
        "|" + "---|" * (len(present) + 3 + len(more)),
        "| start (no training) | "
        + " | ".join([*(number(record["start"][mode].get(k), k) for k, _ in present), "0", "0", *("0" for _ in more)])
        + " |",
    ]
    for arm, f in record["arms"].items():
        cells = [plus_minus(f[mode].get(k), k) for k, _ in present]
        updates, tokens = (sum(f[key]) / len(f[key]) for key in ("updates", "executor_tokens"))
        cells += [f"{updates:.0f}", f"{tokens:,.0f}"]
        cells += [f"{sum(c[k] for c in f['costs']) / len(f['costs']):,.0f}" for k in more]
        lines.append(f"| {title(arm)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def comparison_table(asked: Sequence[dict[str, Any]]) -> str:
    names = list(asked[0]["figures"])
    lines = [
        "| TraceLift minus | points [95%] | exact p | Holm | detectable at 80% | "
        + " | ".join(n.replace("_", " ") for n in names)
        + " |",
        "|" + "---|" * (5 + len(names)),
    ]
    for c in asked:
        cells = [interval(c["figures"].get(n), 1, 1 if n == "trace_tokens" else 3) for n in names]
        lines.append(
            f"| {TITLES[c['a']]} | {interval(c, 100, 1)} | {c['p']:.2g} | {c['p_holm']:.2g} | {detectable(c)} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines)


def interval(c: dict[str, Any] | None, scale: float, digits: int) -> str:
    """A difference with its interval; [-] where the runs had no spread to make one of, which is not certainty."""
    if c is None:
        return "-"
    value = f"{scale * c['difference']:+.{digits}f}"
    if "low" not in c:
        return value
    return f"{value} [-]" if still(c) else f"{value} [{scale * c['low']:+.{digits}f}, {scale * c['high']:+.{digits}f}]"


def detectable(c: dict[str, Any]) -> str:
    return f"{100 * c['least_detectable']:.1f}" if "least_detectable" in c and not still(c) else "-"


def still(c: dict[str, Any]) -> bool:
    return c["high"] - c["low"] < 1e-12


def holds(compared: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """What the intervals of these comparisons (figure → contrast) may be read for: where the problems' part of a figure's
    error is not known, other problems are not among it."""
    seen = {name: [c[name] for c in compared if name in c] for name in ("accuracy", *names)}
    only = [name.replace("_", " ") for name in names if seen[name] and not any(c["se_problems"] for c in seen[name])]
    told = "Intervals of accuracy hold for other seeds and other problems"
    told += (
        f", those of {' and '.join([', '.join(only[:-1]), only[-1]] if only[1:] else only)} for other seeds on the same problems."
        if only
        else ", and so do the others."
    )
    if any("low" in c and still(c) for found in seen.values() for c in found):
        told += " [-] stands where no run differed from its fellows: there is no spread to make an interval of."
    return told


def plus_minus(f: dict[str, Any] | None, key: str) -> str:
    return "-" if f is None else f"{number(f['mean'], key)} ± {number(f['sd_seeds'], key)}"


def number(value: float | None, key: str) -> str:
    return "-" if value is None else f"{value:.1f}" if key == "trace_tokens" else f"{value:.3f}"


def draw(record: dict[str, Any], path: Path) -> Path:
    """Learning curves by round, mean and a band of one sd over seeds, then accuracy and wrong reasons by what they had cost.

    TraceLift, gated and execution only lie on top, thick; the others are thin and without bands.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    curves = {arm: f["curves"] for arm, f in record["arms"].items() if "@" not in arm}
    names = [n for n in CURVES if any(n in c for c in curves.values())]
    costs = [k for k in EQUAL if all(k in c for c in curves.values())] or ["executor_tokens"]
    panels = [(n, "round") for n in names] + [
        (n, k) for k in costs for n in ("accuracy", "wrong_reason_rate") if n in names
    ]
    rows = -(-len(panels) // 4)
    figure, axes = plt.subplots(rows, 4, figsize=(16, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    arms = sorted(curves, key=lambda arm: DRAWN.index(arm) if arm in DRAWN else -1)
    for axis, (name, by) in zip(axes.flat, panels, strict=False):
        for arm in (a for a in arms if name in curves[a]):
            mean, sd = (
                [math.nan if v is None else v for v in curves[arm][name][k]] for k in ("mean", "sd")
            )  # None: a gap
            x = range(1, len(mean) + 1) if by == "round" else curves[arm][by]
            axis.plot(x, mean, color=COLOURS[arm], label=TITLES[arm], linewidth=2.0 if arm in DRAWN else 1.0)
            if arm in DRAWN:
                low, high = ([m + sign * s for m, s in zip(mean, sd, strict=True)] for sign in (-1, 1))
                axis.fill_between(x, low, high, color=COLOURS[arm], alpha=0.15, linewidth=0)
        told = name.replace("_", " ")
        axis.set_title(told if by == "round" else f"{told} by {EQUAL.get(by, GENERATED)}", fontsize=11, loc="left")
        axis.set_xlabel("round" if by == "round" else EQUAL.get(by, GENERATED), fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="upper right", ncols=len(handles), fontsize=9, frameon=False)
    about = record.get("about", f"{record['world']} demo")
    figure.suptitle(
        f"{about}: training rollouts (temperature 1), {len(record['seeds'])} seeds, bands of one sd",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
