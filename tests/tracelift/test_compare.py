"""benchmarks/compare: seed and problem variance apart, exact tests over seeds, jobs that are not repeated, a page that follows."""

import json
import sys

import pytest

from benchmarks import compare_figures as figures
from benchmarks.compare import Job, run_all
from benchmarks.compare_figures import aggregate, render_markdown, sign_flip, two_way_bootstrap
from benchmarks.results import compare_section

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


@pytest.fixture
def runs(tmp_path):
    evaluation(tmp_path / "start" / "eval", 10, ("direct", "planner"))
    for arm, shares in (("exec_only", (20, 22, 24)), ("tracelift", (25, 26, 30))):
        for seed, right in enumerate(shares):
            run = tmp_path / f"{arm}-{seed}"
            jsonl(
                run / "metrics.jsonl", [{"step": i + 1, "accuracy": 0.1 * (seed + 1), "uplift": 0.2} for i in range(3)]
            )
            jsonl(run / "timings.jsonl", [{"step": i + 1, "seconds": 1.0, "executor_tokens": 100} for i in range(3)])
            evaluation(run / "eval", right)
    return tmp_path


def test_aggregate_by_hand(runs):
    record = aggregate(runs, ["exec_only", "tracelift"], [0, 1, 2])
    ours = record["arms"]["tracelift"]
    assert ours["updates"] == [3, 3, 3] and ours["executor_tokens"] == [300, 300, 300]
    accuracy = ours["greedy"]["accuracy"]
    assert accuracy["seeds"] == [25 / 40, 26 / 40, 30 / 40] and accuracy["mean"] == pytest.approx(27 / 40)
    assert accuracy["sd_seeds"] == pytest.approx((7 / 1600) ** 0.5)  # squares 4 + 1 + 9 over n - 1 = 2, in 40ths
    assert accuracy["se_problems"] == pytest.approx(sum((p * (1 - p) / 39) ** 0.5 for p in accuracy["seeds"]) / 3)
    assert ours["greedy"]["uplift"]["mean"] == pytest.approx(27 / 40 - 10 / 40)
    assert ours["curves"]["accuracy"] == {"mean": [0.2] * 3, "sd": [0.1] * 3} and ours["curves"]["executor_tokens"] == [
        100,
        200,
        300,
    ]
    greedy, sampled = record["comparisons"]
    assert greedy["by_seed"] == pytest.approx([5 / 40, 4 / 40, 6 / 40]) and greedy["difference"] == pytest.approx(
        5 / 40
    )
    assert greedy["p_sign_flip"] == 0.25 == greedy["least_p_sign_flip"], "three seeds that agree can show no less"
    assert greedy["low"] <= 5 / 40 <= greedy["high"] and greedy["p_problems"] <= 0.05
    text = render_markdown({**record, "problems": PROBLEMS, "seeds": [0, 1, 2], "samples": 1})
    assert (
        "| TraceLift | 0.675 ± 0.066 | 0.425 ± 0.066 |" in text
        and "+12.5 points" in text
        and "by seed +12.5, +10.0, +15.0" in text
    )


def test_evaluations_of_other_problems_are_refused(runs):
    path = runs / "tracelift-1" / "eval" / "outcomes.json"
    path.write_text(path.read_text().replace('"problems": [0, 1', '"problems": [99, 1'))
    with pytest.raises(ValueError, match="different problems"):
        aggregate(runs, ["exec_only", "tracelift"], [0, 1, 2])


def test_sign_flip_is_exact():
    assert sign_flip([1, 2, 3, 4, 5]) == 2 / 32
    assert sign_flip([1, -1]) == 1.0 and sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([3, 1, -1]) == sum(abs(a * 3 + b - c) >= 3 for a in (1, -1) for b in (1, -1) for c in (1, -1)) / 8


def test_two_way_bootstrap_counts_both_sources_of_chance():
    """Seeds that differ with identical problems, and problems that differ with identical seeds, both widen the interval."""
    n = 30
    zero = [[0.0] * n] * 4
    by_seed = [[0.0] * n, [0.0] * n, [1.0] * n, [1.0] * n]
    low, high = two_way_bootstrap(zero, by_seed, 400)
    assert low <= 0.05 and high >= 0.95
    by_problem = [[0.0, 1.0] * (n // 2)] * 4
    low, high = two_way_bootstrap(zero, by_problem, 400)
    assert 0.2 < low < 0.45 and 0.55 < high < 0.8
    assert two_way_bootstrap(zero, [[0.25] * n] * 4, 400) == (0.25, 0.25)


def test_jobs_are_done_once_and_failures_are_named(tmp_path):
    def job(name, code):
        return Job(name, [sys.executable, "-c", code], tmp_path / f"{name}.log", tmp_path / f"{name}.done")

    def mark(name):
        return job(name, f"import sys; open({str(tmp_path / (name + '.done'))!r}, 'a').write('x'); print('told')")

    jobs = [mark("a"), mark("b")]
    run_all(jobs, 2)
    run_all(jobs, 2)
    assert (tmp_path / "a.done").read_text() == "x" and "told" in (tmp_path / "a.log").read_text()
    with pytest.raises(SystemExit, match="c ended with 3; its log: .*c.log"):
        run_all([job("c", "raise SystemExit(3)"), mark("d")], 1)
    assert (tmp_path / "d.done").exists(), "one failure does not stop the others"


def test_the_section_of_the_page_names_command_seeds_and_machine(runs, tmp_path):
    record = {**aggregate(runs, ["exec_only", "tracelift"], [0, 1, 2]), "command": "python -m benchmarks.compare", "versions": {"torch": "9"},
              "world": "math", "config": "c.toml", "overrides": [], "seeds": [0, 1, 2], "eval_seed": 5, "problems": PROBLEMS, "samples": 1}  # fmt: skip
    text = compare_section(tmp_path / "compare-math.json", record)
    for told in (
        "`python -m benchmarks.compare`",
        "training seeds 0, 1, 2",
        "torch 9",
        "evaluation seed 5",
        "python eval.py --run",
    ):
        assert told in text
