"""benchmarks/reliability: what is measured is what training's executor does, is measured once, and becomes the page's figures."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.jobs import WORLDS
from benchmarks.reliability import measured, write_traces
from benchmarks.reliability_figures import aggregate, beside_reference, draw, render_reliability, tenths
from benchmarks.results import section
from tracelift.build import build_executor
from tracelift.config import load_config
from tracelift.files import json_text
from tracelift.tasks.task import Task, Validity
from tracelift.worlds.tasks import demo_tasks


class Truth:
    trace = "One: 1. Two: 2."

    def check(self, trace):
        return Validity(not trace.startswith("No"))


TASKS = {name: Task(name, name, "1", truth=Truth()) for name in "abc"}


def record(problem, baseline, *rows, formless=0, temperature=0.5):
    traces = [["One: 1.", runs] if i % 2 == 0 else ["No: 1. Two: 2.", runs] for i, runs in enumerate(rows)]
    return {
        "problem": problem, "temperature": temperature, "baseline": baseline, "traces": traces, "formless": formless,
    }  # fmt: skip


RECORDS = [
    record("a", "0000", "1111", "0000"),
    record("b", "0011", "1100", "0-00", "1110", formless=2),
    record("c", "11-1", "0000"),
]


def test_figures_by_hand():
    (f,) = aggregate(RECORDS, TASKS)
    assert (f["traces"], f["problems"], f["formless"], f["unjudged"]) == (5, 2, 2, 1), "c has one trace to compare"
    assert f["success"]["value"] == pytest.approx((1 + 0 + 0.5 + 0.75 + 0) / 5)
    assert f["wavering"]["value"] == 2 / 5 and f["wavering"]["n"] == 3
    assert f["histogram"] == [2, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1], "half way counts upwards"
    # a has no chance in it; the rows of b: ½ and ¾, columns 1, 1, ½, 0, table 5/8
    run, rest = (1 + 3 / 4) / 12, (7 / 4 - 2 * (2 * 9 / 64 + 1 / 64 + 25 / 64)) / 6
    assert f["variance"]["run"] == pytest.approx(run) and f["variance"]["rest"] == pytest.approx(rest)
    trace = ((4 * 0.5 + 4 * 2 / 64) / 2 - rest) / 4
    assert f["variance"]["trace"] == pytest.approx(trace)
    assert f["one_run"]["alone"]["value"] == pytest.approx(trace / (trace + run))
    assert f["of_runs"]["3"] == pytest.approx(trace / (trace + run / 3))
    alone = f["baseline"]
    assert (alone["least"], alone["greatest"]) == (0, 1) and alone["success"]["value"] == pytest.approx(0.5)
    assert alone["helpable"]["value"] == pytest.approx(1 / 3), "0 and 1 are not"


def test_success_is_told_by_property():
    (f,) = aggregate(RECORDS, TASKS)
    rows = {
        name: [(r["value"], r["traces"], r["success"]["value"]) for r in found]
        for name, found in f["properties"].items()
    }
    assert rows["validity"] == [("not valid", 1, 0.0), ("valid", 4, pytest.approx(2.25 / 4))]
    assert rows["sentences"] == [("1", 4, pytest.approx(2.25 / 4)), ("2", 1, 0.0)]
    (beside,) = (found for name, found in rows.items() if "less the reference" in name)
    assert beside == [("-1", 4, pytest.approx(2.25 / 4))]
    assert beside_reference(Task("x", "x", "1"), "One: 1.") is None


def test_a_share_goes_to_the_nearest_tenth():
    assert tenths([0, 0.04, 0.05, 0.949, 0.95, 1]) == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]


def test_the_page_shows_every_temperature(tmp_path):
    found = aggregate([*RECORDS, *({**r, "temperature": 1.0} for r in RECORDS)], TASKS)
    whole = {
        "command": "python -m benchmarks.reliability", "versions": {"torch": "2"}, "config": "c.toml", "world": "math",
        "problems": 3, "traces": 3, "runs": 4, "planner_temperature": 1.0, "reliability": found,
    }  # fmt: skip
    (tmp_path / "reliability-math.json").write_text(json_text(whole))
    text = section(tmp_path / "reliability-math.json")
    assert render_reliability(whole) in text and "How reliable an executor run is, math demo" in text
    rows = [line for line in text.splitlines() if line.startswith(("| 0.5 |", "| 1 |"))]
    assert sum(row.startswith("| 0.5 |") for row in rows) == 3 and "| valid | 4 | 0.562 [" in text
    assert draw(whole, tmp_path / "a.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def config():
    return load_config(WORLDS["math"], ["--executor.temperature", "1.5"])


def test_nothing_is_measured_twice_and_runs_are_those_of_training(config, tmp_path):
    tasks = demo_tasks("demo:math", 77).first(3)
    args = Namespace(work=tmp_path / "one", traces=2, runs=6)
    first = measured(config, tasks[:1], [1.5], args)
    log = Path(args.work / "runs.jsonl").read_bytes()
    both = measured(config, tasks, [1.5], args)
    assert both[0] == first[0] and (args.work / "runs.jsonl").read_bytes().startswith(log)
    assert measured(config, tasks, [1.5], Namespace(work=tmp_path / "two", traces=2, runs=6)) == both
    assert (
        measured(config, tasks, [1.5], args) == both and len((args.work / "runs.jsonl").read_text().splitlines()) == 3
    )

    executor = build_executor(config, torch.device("cpu"), None)
    executor = executor.variant(replace(executor.settings, repeats=6, baseline_repeats=6))
    for task, r in zip(tasks, both, strict=True):
        assert (
            write_traces(config, tasks, 2)[task.problem_id]
            == [text for text, _ in r["traces"]] + [None] * r["formless"]
        )
        for outcome, (_, letters) in zip(
            executor.evaluate([(task, t) for t, _ in r["traces"]]), r["traces"], strict=True
        ):
            assert ["1" if v == "PASS" else "0" for v in outcome.verdicts] == list(letters)
            assert ["1" if v == "PASS" else "0" for _, v in outcome.base_runs] == list(r["baseline"])
