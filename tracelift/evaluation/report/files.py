"""What an evaluation leaves: results.json, outcomes.json, samples.jsonl and report.html.

A comparison with a second system has its own four, named after it. Left out: records (tracelift/evaluation/records.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracelift.evaluation.bench import Bench, Found, Planner
from tracelift.evaluation.figures.analysis import analyse, letters
from tracelift.evaluation.figures.runs import compare_runs
from tracelift.evaluation.report.page import render_page
from tracelift.evaluation.report.provenance import how_made
from tracelift.evaluation.samples import sample_rows
from tracelift.evaluation.verdicts import RULES
from tracelift.files import json_line, json_text, replaced_file, without_nan, write_text
from tracelift.stats.figures import adjust
from tracelift.tasks.benchmarks import Benchmark


def leave_files(
    bench: Bench,
    out: Path,
    planners: Sequence[Planner],
    benchmarks: Sequence[Benchmark],
    found: dict[str, Found],
    sides: tuple[Sequence[str], Sequence[str]],
    trained_on: dict[str, int | None],
    suffix: str,
) -> dict[str, Any]:
    """Write the four, `suffix` before the names' endings; returns what results.json holds: how the figures were made, and the
    figures.

    sides: planners' labels, those of --run and those of --against; several on either are compared with the run as the unit.
    trained_on: of each benchmark, how many problems the planner was trained on.
    """
    config, kinds = bench.config, {b.name: b.problems[0].kind for b in benchmarks}
    outcomes = {
        b.name: letters([p.problem_id for p in b.problems], found[b.name], RULES[kinds[b.name]][0]) for b in benchmarks
    }
    results = how_made(bench, planners, benchmarks, found)
    results |= analyse(found, kinds, config.eval.k, config.eval.resamples, bench.dimensions)
    results |= {"run_comparisons": _of_runs(outcomes, sides), "problems_trained_on": trained_on}

    write_text(out / f"results{suffix}.json", json_text(without_nan(results), indent=2))
    write_text(out / f"outcomes{suffix}.json", json_text(outcomes))
    with replaced_file(out / f"samples{suffix}.jsonl") as file:
        for row in sample_rows(bench, benchmarks, found):
            file.write(json_line(without_nan(row)))
    title, shown = "TraceLift evaluation: " + " and ".join(results["systems"]), config.eval.traces_shown
    write_text(out / f"report{suffix}.html", render_page(title, results, benchmarks, found, bench.dimensions, shown))
    return results


def _of_runs(outcomes: dict[str, Any], sides: tuple[Sequence[str], Sequence[str]]) -> list[dict[str, Any]]:
    """Comparisons with the run as the unit; none of one planner a side, or without a second side."""
    if not all(sides) or max(map(len, sides)) == 1:
        return []
    rows = [
        {"benchmark": name, **row} for name, one in outcomes.items() for row in compare_runs(one, sides[1], sides[0])
    ]
    adjust(rows, "figure", "mode")
    return rows
