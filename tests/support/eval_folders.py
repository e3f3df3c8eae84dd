"""Folders as eval.py leaves them, in miniature."""

import json

from benchmarks import compare_figures as figures

PROBLEMS = 40


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def evaluation(folder, right, arms=("planner",)):
    """An evaluation in which `right` of the problems are solved, in both modes."""
    strings = ["1" if i < right else "0" for i in range(PROBLEMS)]
    arm = {mode: {"accuracy": {"value": right / PROBLEMS}} for mode in figures.MODES}
    traces = {
        mode: {"trace validity": {"value": right / PROBLEMS / 2}, "trace tokens": {"value": 30.0}}
        for mode in figures.MODES
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(
        json.dumps({"benchmarks": {"demo:math": {"arms": dict.fromkeys(arms, arm), "traces": {"p": traces}}}})
    )
    letters = {"problems": list(range(PROBLEMS)), "arms": {a: dict.fromkeys(figures.MODES, strings) for a in arms}}
    (folder / "outcomes.json").write_text(json.dumps({"demo:math": letters}))
