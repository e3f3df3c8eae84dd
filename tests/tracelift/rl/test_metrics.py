"""The figures every report shares, on one table of samples: training metrics, held-out summary and eval.py agree."""

import random

import pytest

from tracelift.errors import TrainingError
from tracelift.evaluation.bench import Answer, WrittenTrace
from tracelift.evaluation.figures.analysis import arm_figures, trace_figures
from tracelift.executor.outcome import Outcome
from tracelift.programs import CodeProblem, StdinTest
from tracelift.reward_model.scorer import RMScore
from tracelift.rl.held_out import summarise
from tracelift.rl.metrics import Share, accuracy, group_metrics, trace_validity, wrong_reason_rate
from tracelift.rl.progress import explain_labels, no_trace_at_all, progress_line
from tracelift.rl.rollout import TraceFacts, trace_facts
from tracelift.rl.sample import Sample, refuse_errors, refuse_too_many_errors
from tracelift.sampler import Completion
from tracelift.tasks.task import Task
from tracelift.verify.verdict import Verdict

TABLE = [  # (correct, valid) pairs; accuracy, trace validity, wrong-reason rate as (hits, n)
    ([], (0, 0), (0, 0), (0, 0)),
    ([(True, None)], (1, 1), (0, 0), (0, 0)),
    ([(False, False)], (0, 1), (0, 1), (0, 0)),
    ([(True, True), (True, False), (False, True), (False, False)], (2, 4), (2, 4), (1, 2)),
    ([(True, False), (True, False), (True, None), (False, None)], (3, 4), (0, 2), (2, 2)),
    ([(True, True), (None, False), (None, None)], (1, 1), (1, 2), (0, 1)),
]


@pytest.mark.parametrize(("pairs", "right", "valid", "wrong"), TABLE)
def test_which_samples_count_and_which_hit(pairs, right, valid, wrong):
    assert accuracy(pairs) == Share(*right)
    assert trace_validity(pairs) == Share(*valid)
    assert wrong_reason_rate(pairs) == Share(*wrong)
    assert wrong_reason_rate(pairs).value == (wrong[0] / wrong[1] if wrong[1] else None)


def sample(right, valid):
    outcome = Outcome(Verdict.PASS if right else Verdict.FAIL, 0, 1, 0, 1)
    return Sample(Task("p", "p?", "1"), [1], Completion([2], [0.0], [0.0]), "z", "z", outcome, valid=valid)


@pytest.mark.parametrize(("pairs", "right", "valid", "wrong"), [row for row in TABLE if (None, None) not in row[0]])
def test_training_held_out_and_evaluation_give_the_same_figures(pairs, right, valid, wrong):
    samples = [sample(*pair) for pair in pairs]
    metrics, summary = group_metrics([samples] if samples else [], ()), summarise(samples)
    traces = [[WrittenTrace("z", "z", 1, "stop", TraceFacts(v, False, False))] for _, v in pairs]
    answers = [[Answer("z", "1", 1, {"numeric": Verdict.PASS if r else Verdict.FAIL})] for r, _ in pairs]
    figures = trace_figures(traces, answers, "numeric", ())
    figures["accuracy"] = arm_figures(answers, "number", "greedy", ())["accuracy"]
    for name, key, (hits, n) in (
        ("accuracy", "accuracy", right),
        ("trace validity", "trace_validity", valid),
        ("wrong-reason rate", "wrong_reason_rate", wrong),
    ):
        assert metrics.get(key) == (hits / n if n else None)
        assert (name in summary) == bool(n)
        if n:
            assert summary[name] == figures[name] == pytest.approx(figures[name] | {"value": hits / n, "n": n})


def test_the_faults_of_wrong_reasons_add_up_to_their_rate_everywhere():
    rng = random.Random(4)
    rows = [(rng.random() < 0.7, rng.choice([True, False, False, None])) for _ in range(60)]
    faults = [None if valid is not False else rng.choice("abc") for _, valid in rows]
    samples = [sample(*row) for row in rows]
    for s, fault in zip(samples, faults, strict=True):
        s.fault = fault
    facts = [TraceFacts(valid, False, False, fault) for (_, valid), fault in zip(rows, faults, strict=True)]
    traces = [[WrittenTrace("z", "z", 1, "stop", f)] for f in facts]
    answers = [[Answer("z", "1", 1, {"numeric": Verdict.PASS if r else Verdict.FAIL})] for r, _ in rows]
    summary, figures = summarise(samples), trace_figures(traces, answers, "numeric", ())
    parts = {name: f for name, f in figures.items() if name.startswith("wrong reasons: ")}
    assert len(parts) == 3 and parts == {name: f for name, f in summary.items() if name in parts}
    assert sum(f["value"] for f in parts.values()) == pytest.approx(figures["wrong-reason rate"]["value"])
    counted = {n: sum(r and f == n for (r, _), f in zip(rows, faults, strict=True)) for n in "abc"}
    known = sum(r and v is not None for r, v in rows)
    assert {n[-1]: f["value"] for n, f in parts.items()} == pytest.approx({n: c / known for n, c in counted.items()})
    assert [f["value"] for f in parts.values()] == sorted((f["value"] for f in parts.values()), reverse=True)


def test_what_a_problem_says_of_a_trace():
    code = CodeProblem("c", "print", (StdinTest("", "3"),), solution="print(3)\nprint(4)")
    program = Task("c", "print", code.solution, "code", code=code)
    number = Task("n", "What is 1 + 2?", "3")
    assert trace_facts(number, None) == trace_facts(program, None) == TraceFacts(None, None, None)
    assert trace_facts(number, "1 + 2 = 3") == TraceFacts(None, True, False)
    assert trace_facts(number, "It is 3.") == TraceFacts(None, True, True)
    assert trace_facts(program, code.solution) == TraceFacts(None, True, None), "support is not asked of programs"


def without_trace():
    s = sample(False, False)
    s.trace, s.outcome = None, None
    return s


def failed(why):
    s = sample(False, False)
    s.error = why
    return s


@pytest.mark.parametrize(
    ("good", "unformed", "errors", "share"),
    [(1, 0, 1, 1 / 2), (0, 3, 1, 1), (0, 60, 4, 1), (3, 1, 1, 1 / 4), (9, 6, 0, 0), (0, 5, 0, None)],
)
def test_errors_are_a_share_of_the_samples_that_reached_the_executor(good, unformed, errors, share):
    """A reply that is no trace is never asked about: it must not hide that all that were asked about failed."""
    group = [sample(True, True)] * good + [without_trace() for _ in range(unformed)] + [failed("down")] * errors
    assert group_metrics([group], ())["verdict_errors"] == share
    refuse_too_many_errors([group], share or 0.0, step=2)  # None: nothing reached it
    if errors:
        said = f"^round 3: {errors} of {good + errors} samples that reached the executor ended in .* The first: down$"
        with pytest.raises(TrainingError, match=said):
            refuse_too_many_errors([group], share - 0.01, step=2)
    with pytest.raises(TrainingError, match="^here: 2 of 3 runs, more than some.key = 0.1. The first: one$"):
        refuse_errors(["one", "two"], 3, "here", "runs", "some.key", 0.1)


def test_every_figure_of_the_summary_has_an_interval_within_its_range():
    """Also over one problem, or over problems that are all alike."""
    rng = random.Random(0)
    for n in (1, 2, 8, 8, 8, 40, 40):
        p, K = rng.choice((0.0, 0.1, 0.5, 1.0)), rng.choice((1, 3))
        samples = []
        for _ in range(n):
            s = sample(rng.random() < p, rng.random() < p)
            runs = sum(rng.random() < p for _ in range(K)), K, sum(rng.random() < 0.3 for _ in range(K)), K
            s.outcome = Outcome(s.outcome.e2e, *runs)
            s.rm = RMScore(rng.choice((0.9, p)), 0.5, 0.5, (2.0,))
            samples.append(s)
        summary = summarise(samples)
        assert {"accuracy", "baseline accuracy", "uplift", "RM score"} <= summary.keys()
        for name, f in summary.items():
            if name == "trace tokens":
                assert f["low"] is None, "one length says nothing of its spread"
                continue
            assert (-1 if name == "uplift" else 0) <= f["low"] <= f["value"] <= f["high"] <= 1, name
            assert f["low"] < f["high"] and f["n"] <= n, name
        gain = summary["uplift"]["value"]
        with_trace = sum(s.outcome.success_with for s in samples) / n
        assert gain == pytest.approx(with_trace - summary["baseline accuracy"]["value"])


def test_the_line_of_a_round_says_what_went_wrong_only_where_it_did():
    fine = {"reward": 0.5, "accuracy": 0.25, "entropy": None, "grad_norm": 1.0, "format_failures": 0.0}
    assert progress_line(fine) == "reward 0.50  acc 0.25  |g| 1.00"
    line = progress_line(fine | {"format_failures": 0.4, "verdict_errors": 0.1, "rm_score": 0.0})
    assert line == "reward 0.50  acc 0.25  rm 0.00  |g| 1.00  format 0.40  errors 0.10"
    labels = {word for word in line.split() if not word[0].isdigit()} - {"reward"}
    assert all(f"{label}: the" in explain_labels() for label in labels), explain_labels()
    assert "|g|" in explain_labels().splitlines()[-1] and "grad_norm" not in explain_labels()


def test_what_to_do_where_no_reply_is_a_trace():
    assert no_trace_at_all(0, {"format_failures": 0.99}) is None and no_trace_at_all(0, {}) is None
    said = no_trace_at_all(4, {"format_failures": 1.0, "truncated": 0.0})
    assert said.startswith("round 5: ") and "were cut" not in said
    for remedy in ("planner.prefill", "planner.stop", "planner.prompt", "run.stage = 'sft'"):
        assert remedy in said
    assert "50% of the replies were cut" in no_trace_at_all(4, {"format_failures": 1.0, "truncated": 0.5})
