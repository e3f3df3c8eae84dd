"""The figures every report shares, on one table of samples: training metrics, held-out summary and eval.py agree."""

import pytest

from tracelift.errors import TrainingError
from tracelift.evaluation.analysis import arm_figures, trace_figures
from tracelift.evaluation.bench import Answer, WrittenTrace
from tracelift.executor.executor import Outcome
from tracelift.programs import CodeProblem, StdinTest
from tracelift.rl.held_out import summarise
from tracelift.rl.metrics import Share, accuracy, group_metrics, trace_validity, wrong_reason_rate
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
    assert wrong_reason_rate(pairs).value == (wrong[0] / wrong[1] if wrong[1] else 0.0)


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
    figures["accuracy"] = arm_figures(answers, ("numeric",), "greedy", ())["accuracy"]
    for name, key, (hits, n) in (
        ("accuracy", "accuracy", right),
        ("trace validity", "trace_validity", valid),
        ("wrong-reason rate", "wrong_reason_rate", wrong),
    ):
        assert metrics.get(key, 0.0) == (hits / n if n else 0.0)
        assert (name in summary) == bool(n)
        if n:
            assert summary[name] == figures[name] == pytest.approx(figures[name] | {"value": hits / n, "n": n})


def test_what_a_problem_says_of_a_trace():
    code = CodeProblem("c", "print", (StdinTest("", "3"),), solution="print(3)\nprint(4)")
    program = Task("c", "print", code.solution, "code", code=code)
    number = Task("n", "What is 1 + 2?", "3")
    assert trace_facts(number, None) == trace_facts(program, None) == TraceFacts(None, None, None)
    assert trace_facts(number, "1 + 2 = 3") == TraceFacts(None, True, False)
    assert trace_facts(number, "It is 3.") == TraceFacts(None, True, True)
    assert trace_facts(program, code.solution) == TraceFacts(None, True, None), "support is not asked of programs"


def test_too_many_errors_are_refused_with_the_first():
    good, bad = sample(True, True), sample(False, False)
    bad.error = "down"
    refuse_too_many_errors([[good, bad]], 0.5, step=0)
    with pytest.raises(
        TrainingError, match="^round 3: 1 of 2 samples ended in an ERROR verdict, more than executor.max"
    ):
        refuse_too_many_errors([[good, bad]], 0.4, step=2)
    with pytest.raises(TrainingError, match="^here: 2 of 3 runs, more than some.key = 0.1. The first: one$"):
        refuse_errors(["one", "two"], 3, "here", "runs", "some.key", 0.1)
