"""From the finished cells of a study to its record, and from the record to tables.

A cell's figures are means over training seeds with their standard deviation; cells are compared run against run, as in
benchmarks/compare_figures.py. Left out: adjusting the many comparisons. A study says where to look, and its few seeds
cannot show a small difference; what they could have shown stands beside each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare_figures import MODES, Scores, by_figure, contrasts, one_seed, read_eval, summary, tokens_of
from benchmarks.compare_report import detectable, holds, interval, plus_minus
from tracelift.files import read_log

FIGURES = (("accuracy", "accuracy"), ("trace_validity", "trace validity"), ("wrong_reason_rate", "wrong-reason rate"),
           ("rm_score", "RM score"), ("answer_stated", "answer stated"))  # fmt: skip
AXES = {
    "executor": "Executors of differing competence: execution only against TraceLift",
    "rm": "Reason RMs of differing quality",
    "blind": "A Reason RM that takes one kind of fault for sound",
    "noise": "Executors at other temperatures: K, pooled runs, likelihood uplift, gated, execution only",
    "long": "Four times the updates",
    "k": "Runs behind a success rate, and behind the cached baseline",
    "uplift": "Sampled against likelihood uplift",
}
COMPARED = ("trace_validity", "wrong_reason_rate")


def collect(
    out: Path,
    cells: Sequence[tuple[str, str, str, str, Mapping[str, str]]],
    seeds: Sequence[int],
    moved: Sequence[tuple[str, str]],
    folders: Mapping[str, str],
    asked: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """executors: what each can do, with the starting planner; cells; contrasts; transfer. cells: (axis, name, executor,
    folder, options); moved: (cell, executor it never saw); asked: (a, b) of every difference b − a, where both are there."""
    executors = {}
    for folder in sorted((out / "start").iterdir()):
        if (folder / "outcomes.json").exists():
            arms = read_eval(folder)[0]["arms"]
            executors[folder.name] = {arm: arms[arm]["greedy"]["accuracy"]["value"] for arm in arms}
    record: dict[str, Any] = {"executors": executors, "cells": [], "contrasts": [], "transfer": []}
    scores: dict[str, Any] = {}
    for axis, name, executor, folder, options in cells:
        runs = [out / folder / str(seed) for seed in seeds]
        figures, scores[f"{axis}.{name}"] = measured(runs, "eval", executors[executor]["direct"])
        seconds = [sum(r["seconds"] for r in read_log(run / "timings.jsonl")) for run in runs]
        record["cells"].append(
            {
                "axis": axis,
                "name": name,
                "executor": executor,
                "options": dict(options),
                **figures,
                "executor_tokens": sum(map(tokens_of, runs)) / len(runs),
                "train_seconds": round(sum(seconds) / len(runs), 1),
            }
        )
    by_id = {f"{c['axis']}.{c['name']}": c for c in record["cells"]}
    for a, b in (pair for pair in asked if set(pair) <= by_id.keys()):
        record["contrasts"].append({"a": a, "b": b, **{mode: compared(by_id, scores, a, b, mode) for mode in MODES}})
    for cell, executor in moved:
        figures, _ = measured(
            [out / folders[cell] / str(s) for s in seeds], f"with-{executor}", executors[executor]["direct"]
        )
        record["transfer"].append({"trained": cell, "executor": executor, **figures})
    return record


def measured(runs: Sequence[Path], name: str, direct: float) -> tuple[dict[str, Any], dict[str, Scores]]:
    """({mode: summary}, {mode: figure → seed → problem}) of the evaluations `name` of one cell's runs."""
    evals = [read_eval(run / name) for run in runs]
    scores = {mode: by_figure([letters for _, letters in evals], mode) for mode in MODES}
    return {
        mode: summary([one_seed(results, mode, direct) for results, _ in evals], scores[mode]["accuracy"])
        for mode in MODES
    }, scores


def compared(cells: Mapping[str, Any], scores: Mapping[str, Any], a: str, b: str, mode: str) -> dict[str, Any]:
    return contrasts(cells[a][mode], cells[b][mode], scores[a][mode], scores[b][mode], COMPARED)


# -- for people ------------------------------------------------------------------------------------------------------


def render_study(record: dict[str, Any]) -> str:
    """What the executors can do, and the tables of either mode: cells by axis with their differences, transfer."""
    parts = [
        "What each executor can do, greedy, before any training\n\n"
        + table(
            ["executor", "no trace", "starting planner", "reference trace", "foreign trace"],
            [
                [name, *(share(f.get(arm)) for arm in ("direct", "planner", "reference", "foreign"))]
                for name, f in record["executors"].items()
            ],
        )
    ]
    return "\n\n".join([*parts, *(text for mode in MODES[::-1] for text in tables_of(record, mode))])


def tables_of(record: dict[str, Any], mode: str) -> list[str]:
    """The cells and differences of every axis in one mode; transfer by what it can tell, accuracy."""
    parts = []
    cells = {f"{c['axis']}.{c['name']}": c for c in record["cells"]}
    for axis, title in AXES.items():
        own = [i for i in cells if i.startswith(f"{axis}.")]
        asked = [c for c in record["contrasts"] if c["b"] in own]
        if not own or not asked:
            continue
        shown = list(dict.fromkeys([*(c["a"] for c in asked if c["a"] not in own), *own]))
        rows = [
            [
                cells[i]["name"],
                *(plus_minus(cells[i][mode].get(k), k) for k, _ in FIGURES),
                f"{cells[i]['executor_tokens']:,.0f}",
            ]
            for i in shown
        ]
        parts.append(
            f"**{title}** ({mode})\n\n" + table(["cell", *(t for _, t in FIGURES), "executor tokens generated"], rows)
        )
        rows = [
            [
                f"{cells[c['b']]['name']} minus {cells[c['a']]['name']}",
                interval(c[mode]["accuracy"], 100, 1),
                f"{c[mode]['accuracy']['p']:.2g}",
                detectable(c[mode]["accuracy"]),
                *(interval(c[mode].get(n), 1, 3) for n in COMPARED),
            ]
            for c in asked
        ]
        parts.append(
            table(
                [
                    "difference",
                    "points [95%]",
                    "exact p",
                    "detectable at 80%",
                    *(n.replace("_", " ") for n in COMPARED),
                ],
                rows,
            )
        )
    if record["contrasts"]:
        parts.append(holds([c[mode] for c in record["contrasts"]], COMPARED))
    if record["transfer"]:
        rows = [
            [
                c["trained"].removeprefix("executor."),
                c["executor"],
                plus_minus(c[mode].get("accuracy"), "accuracy"),
                plus_minus(c[mode].get("uplift"), "uplift"),
            ]
            for c in record["transfer"]
        ]
        parts.append(
            f"**Planners with executors they never saw** ({mode})\n\n"
            + table(["trained with", "evaluated with", "accuracy", "uplift"], rows)
        )
    return parts


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
