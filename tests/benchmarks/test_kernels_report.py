"""Goals of the kernel benchmark: judged on the device they were set for, met only where the figure says so."""

import copy
import json

import pytest

from benchmarks.kernels_report import DOCS, RESULTS, goal_lines, render, shape_lines


def record(device, seconds, peak=10, name="logits", dtype="bfloat16", V=151_936, contender="ours"):
    row = {"seconds": seconds, "forward_seconds": seconds / 3, "peak_bytes": peak, "contender": contender}
    eager = {"seconds": 1.0, "forward_seconds": 1.0, "peak_bytes": 100, "contender": "eager PyTorch"}
    return {"device": device, "tasks": [{"name": name, "dtype": dtype, "V": V, "rows": [row, eager]}]}


@pytest.mark.parametrize(("seconds", "verdict"), [(1.7e-3, "| 1.70 ms | met |"), (1.8e-3, "| 1.80 ms | **not met** |")])
def test_a_goal_is_met_or_not(seconds, verdict):
    lines = goal_lines(record("NVIDIA H200", seconds))
    assert len(lines) == 5 and lines[3].endswith(verdict)  # heading, rule, forward, forward + backward, blank


def test_a_figure_of_another_device_decides_nothing():
    assert all("set for an H200" in line for line in goal_lines(record("NVIDIA A100", 1e-3))[2:-1])
    assert goal_lines(record("x86_64 CPU", 1e-3)) == []  # no CPU goal for bf16


def test_the_cpu_goals_are_of_time_and_of_memory():
    slow, heavy = (
        goal_lines(record("x86_64 CPU (some name)", t, p, dtype="float32")) for t, p in ((0.7, 40), (0.5, 60))
    )
    assert [line.split("|")[-2].strip() for line in slow[2:4]] == ["**not met**", "met"]
    assert [line.split("|")[-2].strip() for line in heavy[2:4]] == ["met", "**not met**"]


def test_the_worst_shape_decides_and_every_shape_is_shown():
    shape = {"N": 8, "V": 128, "threads": 1, "low": 0.5, "high": 0.9}
    good = [
        shape | {"dtype": d, "rows": r, "time": 0.7, "memory": 0.2}
        for d in ("float32", "bfloat16")
        for r in ("flat", "peaked")
    ]
    bad = [*good[:3], good[3] | {"time": 1.01, "memory": 0.51}]
    for shapes, verdict in ((good, "met"), (bad, "**not met**")):
        told = record("x86_64 CPU (some name)", 0.5) | {"shapes": shapes, "shape_rounds": 9}
        lines = [line for line in goal_lines(told) if "largest of all shapes" in line]
        assert [line.split("|")[-2].strip() for line in lines] == [verdict, verdict]
        (row,) = (line for line in shape_lines(told) if line.startswith("| 8 × 128"))
        assert row.count("0.70 (0.50–0.90)") == sum(s["time"] == 0.7 for s in shapes)
    assert shape_lines(record("NVIDIA H200", 1e-3)) == []


def test_the_page_shows_what_was_recorded():
    """docs/kernels.md holds the table of the committed record, with its device, versions, date and command."""
    recorded = json.loads((RESULTS / "kernels_cpu.json").read_text())
    assert render(recorded) in DOCS.read_text()
    for word in (recorded["device"], recorded["date"], recorded["command"], recorded["versions"]["torch"]):
        assert word in render(recorded)
    other = copy.deepcopy(recorded)
    other["tasks"][0]["rows"][0]["seconds"] *= 2
    assert render(other) != render(recorded)
