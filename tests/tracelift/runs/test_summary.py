"""summary.txt of a run without held-out problems: which rounds it shows, and what it leaves out."""

import pytest

from tracelift.files import append_lines, json_line
from tracelift.runs.summary import cost_line, run_cost, write_summary, write_summary_of_parts


def logged(folder, *records):
    append_lines(folder / "metrics.jsonl", [json_line({"step": i, **r}) for i, r in enumerate(records, start=1)])


def cells(text):
    heading, *rows = text.splitlines()
    return heading, {row[:30].strip(): row[30:].split() for row in rows}


def test_the_first_the_best_and_the_last_round_that_has_figures(tmp_path):
    logged(tmp_path, {"loss": 9}, {"dev/mae": 0.5}, {"loss": 8}, {"dev/mae": 0.25}, {"dev/mae": 0.75}, {"loss": 7})
    text = write_summary(tmp_path, "stage", ("dev/mae", "dev/rmse"), best=4)
    heading, rows = cells(text)
    assert heading.split() == "stage first, round 2 best, round 4 last, round 5".split()
    assert rows == {"mae": ["0.5", "0.25", "0.75"]}, "and no row for what was never logged"
    assert (tmp_path / "summary.txt").read_text() == text + "\n"
    assert "best" not in write_summary(tmp_path, "stage", ("dev/mae",)) and cells(text)[1]


@pytest.mark.parametrize(("rounds", "parts"), [(1, ["round 1"] * 2), (20, ["rounds 1 to 2", "rounds 19 to 20"])])
def test_means_over_the_first_and_the_last_tenth(tmp_path, rounds, parts):
    logged(tmp_path, *({"acc": i, "entropy": None if i == 1 else 2.0, "kl": None} for i in range(1, rounds + 1)))
    heading, rows = cells(write_summary_of_parts(tmp_path, "run", ("acc", "entropy", "kl")))
    assert " ".join(heading.split()) == " ".join(["run", *dict.fromkeys(parts)])
    assert rows["acc"] == (["1"] if rounds == 1 else ["1.5", "19.5"]) and "kl" not in rows
    assert rows.get("entropy") == (None if rounds == 1 else ["2", "2"]), "null is not a figure"


def test_the_cost_of_a_run_adds_up_and_says_what_is_not_known(tmp_path):
    rounds = [
        {"executor_runs": i, "executor_tokens": 10, "executor_prompt_tokens": i or None, "cpu_s": 0.5} for i in range(3)
    ]
    append_lines(tmp_path / "timings.jsonl", map(json_line, rounds))
    cost = run_cost(tmp_path)
    assert (cost["executor_runs"], cost["executor_tokens"], cost["cpu_s"]) == (3, 30, 1.5)
    assert cost["executor_prompt_tokens"] is None, "one round does not say"
    assert cost["executor_scored_tokens"] is None, "an older log"
    assert cost_line(tmp_path) == (
        "cost of the training rounds: 3 executor calls, 30 executor tokens generated, 2 CPU seconds"
    )
