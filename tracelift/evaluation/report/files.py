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
from tracelift.stats import holm
from tracelift.tasks.benchmarks import Benchmark


def results_of(
    bench: Bench,
    planners: Sequence[Planner],
    benchmarks: Sequence[Benchmark],
    found: dict[str, Found],
    sides: tuple[Sequence[str], Sequence[str]],
) -> dict[str, Any]:
    """What results.json holds: how the figures were made, and the figures. sides: planners' labels, those of --run and
    those of --against; several on either are compared with the run as the unit."""
    config = bench.config
    kinds = {b.name: b.problems[0].kind for b in benchmarks}
    out = how_made(bench, planners, benchmarks, found)
    out |= analyse(found, kinds, config.eval.k, config.eval.resamples, bench.dimensions)
    out["run_comparisons"] = []
    if all(sides) and max(map(len, sides)) > 1:
        for b in benchmarks:
            rows = compare_runs(_letters(b, found[b.name]), sides[1], sides[0])
            out["run_comparisons"] += [{"benchmark": b.name, **row} for row in rows]
        for family in {(c["figure"], c["mode"]) for c in out["run_comparisons"]}:
            members = [c for c in out["run_comparisons"] if (c["figure"], c["mode"]) == family]
            for c, p in zip(members, holm([c["p"] for c in members]), strict=True):
                c["p_holm"] = p
    return out


def write_files(
    bench: Bench,
    out: Path,
    suffix: str,
    results: dict[str, Any],
    benchmarks: Sequence[Benchmark],
    found: dict[str, Found],
) -> None:
    """suffix: before the names' endings."""
    write_text(out / f"results{suffix}.json", json_text(without_nan(results), indent=2))
    outcomes = {b.name: _letters(b, found[b.name]) for b in benchmarks}
    write_text(out / f"outcomes{suffix}.json", json_text(outcomes))
    with replaced_file(out / f"samples{suffix}.jsonl") as file:
        for row in sample_rows(bench, benchmarks, found):
            file.write(json_line(without_nan(row)))
    title = "TraceLift evaluation: " + " and ".join(results["systems"])
    shown = bench.config.eval.traces_shown
    write_text(out / f"report{suffix}.html", render_page(title, results, benchmarks, found, bench.dimensions, shown))


def _letters(b: Benchmark, found: Found) -> dict[str, Any]:
    return letters([p.problem_id for p in b.problems], found, RULES[b.problems[0].kind][0])
