"""A run at equal cost is its newest checkpoint within the budget, with its logs up to then and no more."""

import json

import pytest

from benchmarks.budgets import BUDGETS, as_it_stood, spent, standing
from support.eval_folders import jsonl
from tracelift.files import read_log


@pytest.fixture
def run(tmp_path):
    """Ten rounds at a cost of 10, 20, … positions and 1 s each; checkpoints every three rounds."""
    folder = tmp_path / "run"
    jsonl(folder / "metrics.jsonl", [{"step": i, "accuracy": i / 10} for i in range(1, 11)])
    jsonl(
        folder / "timings.jsonl",
        [{"step": i, "seconds": 2.0, "executor_computed_positions": 10 * i, "cpu_s": 1.0} for i in range(1, 11)],
    )
    (folder / "config.json").write_text(json.dumps({"config": {"optim": {"schedule": "constant"}}}))
    for i in (3, 6, 9):
        (folder / "checkpoints" / f"step-{i:06d}" / "model").mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("budget", "limit", "rounds", "cost"),
    [
        ("positions", 60, 3, 60),
        ("positions", 209, 3, 60),
        ("positions", 210, 6, 210),
        ("positions", 549, 9, 450),
        ("positions", 550, 10, 550),
        ("positions", 1e9, 10, 550),
        ("seconds", 6.5, 6, 6),
        ("seconds", 10, 10, 10),
    ],
)
def test_the_newest_checkpoint_within_the_budget(run, budget, limit, rounds, cost):
    found = standing(run, budget, limit)
    assert (found.rounds, found.spent) == (rounds, cost)
    assert found.model == (run / "final" if rounds == 10 else run / "checkpoints" / f"step-{rounds:06d}" / "model")


def test_logs_end_where_the_run_stood(run, tmp_path):
    found = as_it_stood(run, tmp_path / "there", "positions", 300)
    assert found.rounds == 6 and spent(tmp_path / "there", "positions")[-1] == 210
    assert [r["step"] for r in read_log(tmp_path / "there" / "metrics.jsonl")] == list(range(1, 7))


def test_what_cannot_be_said_is_refused(run):
    with pytest.raises(ValueError, match="no checkpoint within 59"):
        standing(run, "positions", 59)
    (run / "config.json").write_text(json.dumps({"config": {"optim": {"schedule": "cosine"}}}))
    with pytest.raises(ValueError, match="no shorter runs"):
        standing(run, "positions", 1000)
    jsonl(run / "timings.jsonl", [{"step": 1, "seconds": 1.0}])
    for budget in BUDGETS:
        with pytest.raises(ValueError, match="of every round"):
            spent(run, budget)
