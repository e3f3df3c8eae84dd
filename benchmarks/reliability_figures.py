"""From the runs of benchmarks/reliability.py to its record, and from the record to tables and a picture.

Each temperature of the executor has the variances of tracelift/stats/reliability.py, the reliability of one run with its
interval over problems, the share of traces that waver (right in more than a twentieth of their runs and wrong in as many),
the spread of success over traces and of the baseline over problems, and the mean success of traces that have a property in
common (`PROPERTIES`, which a world may add to). Left out: what a trace's success should be.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study_figures import table
from tracelift.stats.figures import Figure, average, ratio
from tracelift.stats.reliability import Components, components, resampled, spearman_brown, table_sums
from tracelift.tasks.task import Task

WAVERS = 0.05  # less than this share of a trace's runs right, or wrong, is called sure
HELPABLE = 0.8  # a baseline above it leaves a trace little to do
REPEATS = (2, 3, 8)
RELIABILITY: dict[str, Callable[[Components], float | None]] = {
    "alone": lambda c: c.alone,
    "grouped": lambda c: c.grouped,
    "overall": lambda c: c.overall,
}
Property = Callable[[Task, str], str | None]  # of a trace; None: it is not asked about


def sentences(trace: str) -> int:
    return len(re.findall(r"\.(?=\s|$)", trace))


def validity(task: Task, trace: str) -> str | None:
    found = task.check(trace)
    return None if found is None else "valid" if found.valid else "not valid"


def beside_reference(task: Task, trace: str) -> str | None:
    """By how many sentences a valid trace is longer than the reference."""
    if task.truth is None or validity(task, trace) != "valid":
        return None
    return f"{sentences(trace) - sentences(task.truth.trace):+d}"


PROPERTIES: dict[str, Property] = {
    "validity": validity,
    "sentences": lambda task, trace: str(sentences(trace)),
    "sentences of a valid trace, less the reference's": beside_reference,
}


def aggregate(records: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task]) -> list[dict[str, Any]]:
    """One dictionary a temperature, in the order they come in. tasks: by problem id."""
    temperatures = list(dict.fromkeys(r["temperature"] for r in records))
    return [at_temperature(t, [r for r in records if r["temperature"] == t], tasks) for t in temperatures]


def at_temperature(
    temperature: float, records: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task]
) -> dict[str, Any]:
    judged = [[(text, runs) for text, runs in r["traces"] if "-" not in runs] for r in records]
    tables = [[[int(x) for x in runs] for _, runs in rows] for rows in judged]
    sums = [table_sums(t) for t in tables if len(t) > 1]
    rates = [[sum(row) / len(row) for row in t] for t in tables]
    shares = [p for some in rates for p in some]
    wavering = [[WAVERS < p < 1 - WAVERS for p in some] for some in rates if some]
    found = components(sums)
    one = {name: resampled(sums, of) for name, of in RELIABILITY.items()}
    return {
        "temperature": temperature,
        "traces": len(shares),
        "problems": len(sums),
        "formless": sum(r["formless"] for r in records),
        "unjudged": sum(len(r["traces"]) for r in records) - len(shares),
        "success": by_problem(rates),
        "variance": {"problem": found.problem, "trace": found.trace, "run": found.run, "rest": found.rest},
        "one_run": one,
        "of_runs": {
            str(K): None if (rho := one["alone"]["value"]) is None else spearman_brown(rho, K) for K in REPEATS
        },
        "wavering": by_problem(wavering),
        "histogram": tenths(shares),
        "baseline": baseline([r["baseline"].replace("-", "") for r in records]),
        "properties": {name: by_property(records, judged, tasks, of) for name, of in PROPERTIES.items()},
    }


def by_problem(values: Sequence[Sequence[float]]) -> Figure:
    """The mean over all traces, with an interval over problems."""
    some = [v for v in values if v]
    return ratio([sum(v) for v in some], [len(v) for v in some])


def tenths(shares: Sequence[float]) -> list[int]:
    """How many lie nearest to 0, 0.1, …, 1; half way counts upwards."""
    counts = Counter(int(10 * p + 0.5) for p in shares)
    return [counts[i] for i in range(11)]


def baseline(runs: Sequence[str]) -> dict[str, Any]:
    """What the executor does alone, problem by problem."""
    rates = [r.count("1") / len(r) for r in runs if r]
    return {
        "success": average(rates, (0.0, 1.0)),
        "least": min(rates),
        "greatest": max(rates),
        "helpable": ratio([float(0 < b <= HELPABLE) for b in rates], [1] * len(rates)),
        "histogram": tenths(rates),
    }


def by_property(
    records: Sequence[Mapping[str, Any]],
    judged: Sequence[Sequence[tuple[str, str]]],
    tasks: Mapping[str, Task],
    of: Property,
) -> list[dict[str, Any]]:
    """{value, traces, success} of every value that the property takes, in order."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for r, rows in zip(records, judged, strict=True):
        for text, runs in rows:
            if (value := of(tasks[r["problem"]], text)) is not None:
                found[value][r["problem"]].append(runs.count("1") / len(runs))
    return [
        {"value": v, "traces": sum(map(len, problems.values())), "success": by_problem(list(problems.values()))}
        for v, problems in sorted(found.items(), key=lambda item: in_order(item[0]))
    ]


def in_order(value: str) -> tuple[float, str]:
    return (float(value), "") if re.fullmatch(r"[+-]?\d+", value) else (0.0, value)


# -- for people ------------------------------------------------------------------------------------------------------


def render_reliability(record: Mapping[str, Any]) -> str:
    """Tables: the executor's runs, their variances, what it does alone, success by property."""
    found = record["reliability"]
    told = (
        f"Fresh problems: {record['problems']}, with {record['traces']} traces each by the demo's planner at temperature "
        f"{record['planner_temperature']:g}, {record['runs']} executor runs a trace and as many without one. A trace wavers "
        f"where more than {WAVERS:.0%} of its runs are right and as many wrong. Reliability is the variance of success "
        "between a problem's traces over that and the variance between runs of one trace; in a group runs share their seed, "
        "which takes a part of the chance away. Brackets are 95%, over problems."
    )
    runs = table(
        ["executor temperature", "traces", "success", "wavering", "reliability of one run", *(f"of {K}" for K in REPEATS),
         "of one, seed shared", "of one, among all problems' traces"],
        [[f"{f['temperature']:g}", f"{f['traces']:,}", with_interval(f["success"]), with_interval(f["wavering"]),
          with_interval(f["one_run"]["alone"]), *(number(f["of_runs"][str(K)]) for K in REPEATS),
          with_interval(f["one_run"]["grouped"]), with_interval(f["one_run"]["overall"])] for f in found],
    )  # fmt: skip
    variances = table(
        ["variance at", "between problems", "traces of a problem", "runs of a trace", "the same, seed shared"],
        [[f"{f['temperature']:g}", *(number(f["variance"][k]) for k in ("problem", "trace", "run", "rest"))] for f in found],
    )  # fmt: skip
    alone = table(
        ["without a trace, at", "success", "least and greatest of a problem", f"problems above 0, at most {HELPABLE:g}"],
        [[f"{f['temperature']:g}", with_interval(b["success"]), f"{b['least']:.2f} to {b['greatest']:.2f}",
          with_interval(b["helpable"])] for f in found for b in [f["baseline"]]],
    )  # fmt: skip
    columns = [f"success at {f['temperature']:g}" for f in found]
    properties = [
        table(
            [name, "traces", *columns],
            [[r["value"], f"{r['traces']:,}", *(success_of(f, name, r["value"]) for f in found)] for r in rows],
        )
        for name, rows in found[0]["properties"].items()
        if rows
    ]
    return "\n\n".join([told, runs, variances, alone, *properties])


def success_of(found: Mapping[str, Any], name: str, value: str) -> str:
    return next((with_interval(r["success"]) for r in found["properties"][name] if r["value"] == value), "-")


def number(value: float | None) -> str:
    return "-" if value is None else f"{0.0 if abs(value) < 5e-4 else value:.3f}"  # an estimate may lie just below 0


def with_interval(figure: Figure) -> str:
    if figure["value"] is None or figure["low"] is None:
        return number(figure["value"])
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def draw(record: Mapping[str, Any], path: Path) -> Path:
    """Bars: the share of traces, and of problems without a trace, by success to the nearest tenth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = record["reliability"]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), squeeze=False)
    colours = ("#1f6f8b", "#e07a1f", "#2e933c", "#8a4f9e", "#d1495b")
    for axis, title, of in (
        (axes[0][0], f"{record['world']} demo: executor's success with a trace", lambda f: f["histogram"]),
        (axes[0][1], "without a trace", lambda f: f["baseline"]["histogram"]),
    ):
        wide = 0.8 / len(found)
        for i, f in enumerate(found):
            counts = of(f)
            x = [place - 0.4 + wide * (i + 0.5) for place in range(11)]
            heights = [c / max(1, sum(counts)) for c in counts]
            axis.bar(x, heights, wide, color=colours[i % len(colours)], label=f"temperature {f['temperature']:g}")
        axis.set_xticks(range(11), [f"{i / 10:g}" for i in range(11)])
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_ylabel("share", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, axis="y")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
