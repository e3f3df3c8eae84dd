"""An evaluation's results as text for the terminal.  Left out: everything one wants to click on (page.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Figure = dict[str, Any]
UNSEEN = "detectable -: no difference that can be named would have been found four times in five"
LEAST_P = "least p: so many runs cannot show less, whatever they say"
COSTS = {
    "calls": "calls",
    "prompt": "prompt tokens",
    "generated": "generated",
    "computed": "positions computed",
    "cpu_s": "CPU s",
    "gpu_s": "GPU s",
}  # as tracelift/evaluation/spending.py counts them
COUNTS = ("cost", "unscored")  # of a planner's traces, not figures with intervals


def cell(figure: Figure | None, digits: int = 3) -> str:
    if figure is None or figure.get("value") is None:
        return "-"
    if figure.get("low") is None:
        return f"{figure['value']:.{digits}f}"
    return f"{figure['value']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Left-aligned first column, right-aligned others; the first row is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = [
            text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(indent + "   ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def p_text(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"


def render(results: Figure) -> str:
    """One block per benchmark and mode: arms, traces, comparisons, cost; then sets of runs."""
    blocks = []
    for name, bench in results["benchmarks"].items():
        modes = list(dict.fromkeys(mode for arm in bench["arms"].values() for mode in arm))
        for mode in modes:
            blocks.append(f"{name}, {mode}, 95% intervals\n" + columns(arm_rows(bench, mode)))
            if any(mode in t for t in bench["traces"].values()):
                blocks.append(columns(trace_rows(bench, mode)))
            if asked := asked_of(results, name, mode):
                unseen = any(c["least_detectable"] is None for c in asked)
                blocks.append(columns(comparison_rows(asked)) + (f"\n  {UNSEEN}" if unseen else ""))
            if rows := cost_rows(bench, mode):
                blocks.append(columns(rows))
    if results.get("run_comparisons"):
        blocks.append(columns(run_rows(results["run_comparisons"])) + f"\n  {LEAST_P}")
    return "\n\n".join(blocks)


def asked_of(results: Figure, name: str, mode: str) -> list[Figure]:
    """The comparisons of a benchmark and mode."""
    return [c for c in results["comparisons"] if c["benchmark"] == name and c["mode"] == mode]


def arm_rows(bench: Figure, mode: str) -> list[list[str]]:
    """What the executor answers in each arm, with a heading."""
    arms = {label: modes[mode] for label, modes in bench["arms"].items() if mode in modes}
    keys = [k for k in next(iter(arms.values())) if k.startswith(("accuracy", "pass@", "maj@"))]
    heading = [f"accuracy ({bench['rules'][0]})" if k == "accuracy" else k for k in keys]
    extra = any(f["unjudged"] for f in arms.values())
    rows = [["given to the executor", *heading, "problems", *(["unjudged"] if extra else [])]]
    for label, f in arms.items():
        rows.append([label, *(cell(f[k]) for k in keys), str(f["problems"]), *([str(f["unjudged"])] if extra else [])])
    return rows


def trace_rows(bench: Figure, mode: str) -> list[list[str]]:
    """What is said of each planner's traces, with a heading."""
    sides = {label: modes[mode] for label, modes in bench["traces"].items() if mode in modes}
    names = list(dict.fromkeys(k for f in sides.values() for k in f if k not in COUNTS))
    rows = [["the planner's traces", *sides]]
    for name in names:
        rows.append([name, *(cell(f.get(name), 1 if name == "trace tokens" else 3) for f in sides.values())])
    if any(f["unscored"] for f in sides.values()):
        rows.append(["traces the RM could not score", *(str(f["unscored"]) for f in sides.values())])
    return rows


def cost_rows(bench: Figure, mode: str) -> list[list[str]]:
    """What each arm's executor and each planner's traces took, with a heading; no rows where nothing is known."""
    made = [(f"executor, {label}", modes[mode].get("cost")) for label, modes in bench["arms"].items() if mode in modes]
    made += [
        (f"traces of {label}", modes[mode].get("cost")) for label, modes in bench["traces"].items() if mode in modes
    ]
    if not any(cost and cost["calls"] is not None for _, cost in made):
        return []
    gpu = any(cost and cost["gpu_s"] for _, cost in made)
    names = [name for name in COSTS if gpu or name != "gpu_s"]
    rows = [["cost", *(COSTS[name] for name in names)]]
    for label, cost in made:
        found = [cost[n] if cost else None for n in names]
        rows.append([label, *("-" if v is None else f"{v:,.1f}" if isinstance(v, float) else f"{v:,}" for v in found)])
    return rows


def run_rows(asked: Sequence[Figure]) -> list[list[str]]:
    """Sets of training runs compared, with a heading."""
    rows = [
        ["runs as the unit", "runs", "against", "difference in points", "95% interval", "exact p", "p, Holm", "least p"]
    ]
    for c in asked:
        sides = [f"{100 * sum(c[k]) / len(c[k]):.1f} ({len(c[k])})" for k in ("runs_b", "runs_a")]
        span = f"[{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]" if "low" in c else "-"
        rows.append(
            [
                f"{c['benchmark']}, {c['mode']}: {c['figure'].replace('_', ' ')}",
                *sides,
                f"{100 * c['difference']:+.1f}",
                span,
                p_text(c["p"]),
                p_text(c["p_holm"]),
                p_text(c["least_p"]),
            ]
        )
    return rows


def comparison_rows(asked: Sequence[Figure]) -> list[list[str]]:
    """Two arms on the same problems, with a heading."""
    rows = [["difference in points", "95% interval", "p", "p, Holm", "detectable at 80%", "test"]]
    for c in asked:
        counts = f" ({c['gained']} gained, {c['lost']} lost)" if "gained" in c else ""
        rows.append(
            [
                f"{c['b']} - {c['a']}: {100 * c['difference']:+.1f}",
                f"[{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]",
                p_text(c["p"]),
                p_text(c["p_holm"]),
                "-" if c["least_detectable"] is None else f"{100 * c['least_detectable']:.1f}",
                c["test"] + counts,
            ]
        )
    return rows
