"""The figures every report shares, on one table of samples: training metrics, held-out summary and eval.py agree."""

import random

import pytest

from tracelift.errors import TrainingError
from tracelift.evaluation.bench import Answer, WrittenTrace
from tracelift.evaluation.figures.analysis import arm_figures, trace_figures
from tracelift.executor.outcome import Outcome
from tracelift.programs import CodeProblem, StdinTest
from tracelift.reward_model.scorer import RMScore, no_score
from tracelift.rl.held_out import paired, summarise, with_every_fault
from tracelift.rl.metrics import Share, accuracy, group_metrics, trace_validity, wrong_reason_rate
from tracelift.rl.progress import explain_labels, no_trace_at_all, progress_line
from tracelift.rl.rollout import TraceFacts, trace_facts
from tracelift.rl.sample import Sample, refuse_errors, refuse_too_many_errors
from tracelift.sampler import Completion
from tracelift.stats import wilson
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
    error = "down" if right is None else None
    outcome = Outcome(Verdict.PASS if right else Verdict.ERROR if error else Verdict.FAIL, 0, 1, 0, 1, error=error)
    return Sample(Task("p", "p?", "1"), [1], Completion([2], [0.0], [0.0]), "z", "z", outcome, valid=valid)


@pytest.mark.parametrize(("pairs", "right", "valid", "wrong"), TABLE)
def test_training_held_out_and_evaluation_give_the_same_figures(pairs, right, valid, wrong):
    samples = [sample(*pair) for pair in pairs]
    metrics, summary = group_metrics([samples] if samples else [], ()), summarise(samples)
    traces = [[WrittenTrace("z", "z", 1, "stop", TraceFacts(v, False, False))] for _, v in pairs]
    answers = [
        [Answer("z", "1", 1, {} if r is None else {"numeric": Verdict.PASS if r else Verdict.FAIL})] for r, _ in pairs
    ]
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


def any_sample(rng):
    """One reply of any kind: no trace; an executor or a Reason RM that failed; a truth that is known or not."""
    s = sample(rng.random() < 0.5, rng.choice([True, False, None]))
    s.fault = rng.choice("ab") if s.valid is False else None
    s.completion = Completion([2] * rng.randrange(1, 9), [0.0], [0.0])
    s.leaked, s.rm = rng.random() < 0.5, RMScore(rng.random(), 0.5, 0.5, (2.0,))
    match rng.randrange(6):
        case 0:
            s.trace, s.outcome, s.rm, s.leaked = None, None, None, False
            s.valid = None if s.valid is None else False
            s.fault = None if s.valid is None else "a"
        case 1:
            s.outcome = Outcome(Verdict.ERROR, 0, 1, 0, 1, error="down")
        case 2:
            s.rm = no_score("too long")
    s.error = s.outcome.error if s.outcome and s.outcome.error else s.rm.error if s.rm else None
    return s


def as_evaluated(s):
    """The same reply as eval.py holds it."""
    facts = TraceFacts(s.valid, None if s.trace is None else s.leaked, None, s.fault)
    w = WrittenTrace(s.text, s.trace, len(s.completion.tokens), "stop", facts, s.rm)
    if s.outcome is None:
        return w, Answer.without_trace("number")
    return w, Answer("z", "1", 1, {} if s.outcome.error else {"numeric": s.outcome.e2e})


def three_reports(samples):
    """The figures of the same replies by training's metrics, its summary and eval.py, under one set of names."""
    metrics, summary = group_metrics([samples], ("d",)), summarise(samples)
    pairs = [as_evaluated(s) for s in samples]
    answers = [[a] for _, a in pairs]
    figures = trace_figures([[w] for w, _ in pairs], answers, "numeric", ())
    figures |= {"answer leaked": figures.pop("answer stated", None)}
    figures |= arm_figures(answers, "number", "greedy", ())
    return metrics, summary, figures


SAME = {
    "accuracy": "accuracy",
    "trace validity": "trace_validity",
    "wrong-reason rate": "wrong_reason_rate",
    "RM score": "rm_score",
    "answer leaked": "leak_rate",
    "format failures": "format_failures",
    "trace tokens": "trace_tokens",
}


@pytest.mark.parametrize("seed", range(40))
def test_what_failed_and_what_is_missing_is_counted_alike_in_all_reports(seed):
    """Replies of every kind: values and numbers agree, and no order matters."""
    rng = random.Random(seed)
    samples = [any_sample(rng) for _ in range(rng.randrange(1, 30))]
    metrics, summary, figures = three_reports(samples)
    faults = {name for name in summary if name.startswith("wrong reasons: ")}
    assert faults == {name for name in figures if name.startswith("wrong reasons: ")}
    for name in (*SAME, *faults):
        there = summary.get(name)
        if there is None:
            assert not (figures.get(name) or {"n": 0})["n"] and metrics.get(SAME.get(name)) is None
            continue
        assert (there["value"], there["n"]) == (pytest.approx(figures[name]["value"]), figures[name]["n"])
        assert name not in SAME or metrics[SAME[name]] == pytest.approx(there["value"])
    assert figures["unjudged"] == sum(s.correct is None for s in samples)
    assert figures["unscored"] == sum(s.rm is not None and s.score is None for s in samples)
    rng.shuffle(samples)
    again = three_reports(samples)
    assert [r.keys() for r in again] == [r.keys() for r in (metrics, summary, figures)]
    assert all(f["value"] == pytest.approx(summary[name]["value"]) for name, f in again[1].items())


def test_a_run_without_a_verdict_moves_no_figure_of_answers_and_a_score_that_failed_none_of_the_rm():
    rng = random.Random(7)
    samples = [any_sample(rng) for _ in range(30)]
    lost, unscored = sample(True, True), sample(True, True)
    lost.outcome, unscored.rm = Outcome(Verdict.ERROR, 0, 1, 0, 1, error="down"), no_score("too long")
    for more, still in ((lost, ("accuracy", "wrong-reason rate", "RM score")), (unscored, ("RM score",))):
        for before, after in zip(three_reports(samples)[1:], three_reports([*samples, more])[1:], strict=True):
            assert all(before[name] == after[name] for name in still)
            assert after["trace validity"]["n"] == before["trace validity"]["n"] + 1
    assert "not judged" in summarise([lost]) and "not scored" in summarise([unscored])
    assert summarise([unscored])["accuracy"]["n"] == 1, "its answer counts"


def test_before_and_after_are_compared_on_what_both_judged():
    both = paired([True, False, None, False, None], [True, True, True, None, None])
    assert both == {"gained": 1, "lost": 0, "n": 2, "problems": 5, "points": 50.0, "p": 1.0}
    assert paired([None], [True])["points"] == 0 and paired([], [])["n"] == 0
    rng = random.Random(1)
    before, after = ([rng.choice([True, False, None]) for _ in range(200)] for _ in "ab")
    known = [(a, b) for a, b in zip(before, after, strict=True) if None not in (a, b)]
    gap = sum(b for _, b in known) / len(known) - sum(a for a, _ in known) / len(known)
    assert paired(before, after)["points"] == pytest.approx(100 * gap)


def test_a_fault_that_one_side_alone_has_is_0_of_the_other_and_not_unknown():
    def side(*faults):
        listed = [sample(True, fault is None) for fault in faults]
        for s, fault in zip(listed, faults, strict=True):
            s.fault = fault
        return summarise(listed)

    nobody = summarise([sample(False, False)])
    sides = [side("a", "a", None), side("b", None, None, None), nobody]
    first, second, third = with_every_fault(sides)
    for figures, old in ((first, sides[0]), (second, sides[1])):
        names = list(figures)
        at = names.index("wrong-reason rate")
        assert names[at + 1 : at + 3] == ["wrong reasons: a", "wrong reasons: b"], "the more frequent first"
        assert figures.items() >= old.items() and len(figures) == len(old) + 1
    assert second["wrong reasons: a"] == {"value": 0, "low": 0, "high": pytest.approx(wilson(0, 4)[1]), "n": 4, "se": 0}
    assert third == nobody, "of no right answer nothing is known"


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
