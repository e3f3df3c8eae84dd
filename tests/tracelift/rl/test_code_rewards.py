"""Code tasks in the loop: hidden tests decide, visible ones are logged, and a program's reward is the paper's formula."""

import dataclasses

import pytest

import tracelift.executor.judge
from tracelift.build import load_tasks
from tracelift.config import Config
from tracelift.executor.backend import Reply
from tracelift.executor.executor import Executor, ExecutorSettings
from tracelift.executor.judge import Judgement, TaskJudge
from tracelift.programs import CodeProblem, ProgramResult, StdinTest
from tracelift.programs.judge import CaseOutcome as Ending
from tracelift.programs.judge import TestOutcome
from tracelift.reward_model.scorer import RMScore
from tracelift.rl.metrics import group_metrics
from tracelift.rl.rollout import grade
from tracelift.rl.sample import Sample
from tracelift.sampler import Completion
from tracelift.tasks.task import Task
from tracelift.verify.verdict import Verdict
from tracelift.worlds.code import make_problem
from tracelift.worlds.tasks import code_task

SETTINGS = ExecutorSettings(
    template="{problem}|{trace}|", baseline_template="{problem}|", repeats=3, baseline_repeats=3, stop=()
)
DOUBLE = CodeProblem(
    "double",
    "Print twice the number.",
    (StdinTest("3\n", "6\n"), StdinTest("10\n", "20\n")),
    (StdinTest("1\n", "2\n"),),
)
TASK = Task("double", "Print twice the number.", "print(2 * int(input()))", "code", code=DOUBLE)
SUM = Task("sum", "1 + 1?", "2")
RIGHT = "n = int(input())\nprint(n + n)"


def judge_one(text, task=TASK):
    return TaskJudge()([(task, text)])[0]


def test_numbers_and_programs_come_back_in_their_own_order():
    found = TaskJudge()([(SUM, "2"), (TASK, RIGHT), (SUM, "3"), (TASK, "print(2)"), (TASK, RIGHT)])
    assert [j.verdict for j in found] == [Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.FAIL, Verdict.PASS]
    assert [j.status for j in found] == ["", "passed", "", "failed_test", "passed"]


def test_hidden_tests_decide_and_visible_examples_are_only_logged():
    learned_by_heart = judge_one("print({'1': 2}[input().strip()])")
    assert (learned_by_heart.visible_rate, learned_by_heart.pass_rate) == (1.0, 0.0)
    assert learned_by_heart.verdict is Verdict.FAIL and learned_by_heart.status == "runtime_error"
    half = judge_one("n = int(input())\nprint(n + 3)")
    assert (half.pass_rate, half.visible_rate, half.status) == (0.5, 0.0, "failed_test")


@pytest.mark.parametrize(
    ("program", "status", "produced"),
    [
        ("import sys\nsys.exit(0)", "failed_test", False),
        ("", "compile_error", False),
        ("n = int(input()", "compile_error", False),
        ("print(1)\nraise SystemExit(3)", "runtime_error", True),
        ("n = int(input())\nprint(n)\nn = undefined", "runtime_error", True),
    ],
)
def test_statuses_are_what_exec_reward_takes(program, status, produced):
    found = judge_one(program)
    assert (found.status, found.produced_output, found.verdict) == (status, produced, Verdict.FAIL)


def test_equal_programs_of_one_task_run_once_and_those_of_two_tasks_do_not(monkeypatch):
    asked = []

    def count(jobs, **_):
        asked.extend(jobs)
        return [ProgramResult((TestOutcome(Ending.PASSED),) * len(tests)) for _, tests in jobs]

    monkeypatch.setattr(tracelift.executor.judge, "judge_many", count)
    other = dataclasses.replace(TASK, problem_id="other", code=dataclasses.replace(DOUBLE, problem_id="other"))
    found = TaskJudge()([(TASK, RIGHT), (TASK, RIGHT), (other, RIGHT), (TASK, "print(1)")])
    assert len(asked) == 3 and all(j.verdict is Verdict.PASS for j in found)
    assert all(len(tests) == 3 for _, tests in asked), "hidden and visible"


def test_only_the_verdict_wanted_means_no_run_past_a_first_failure(monkeypatch):
    asked, judge_many = [], tracelift.executor.judge.judge_many

    def count(jobs, **how):
        asked.extend((program, len(tests)) for program, tests in jobs)
        return judge_many(jobs, **how)

    monkeypatch.setattr(tracelift.executor.judge, "judge_many", count)
    items = [(TASK, RIGHT), (TASK, "print(1)"), (TASK, "print(2)"), (TASK, "print(2)")]
    found = TaskJudge()(items, [False, False, False, True])
    assert [j.verdict for j in found] == [Verdict.PASS, Verdict.FAIL, Verdict.FAIL, Verdict.FAIL]
    runs = {program.strip(): [n for p, n in asked if p == program] for program, _ in asked}
    assert runs == {RIGHT: [1, 3], "print(1)": [1], "print(2)": [3]}, "a program wanted in full by anybody runs in full"
    assert found[2].visible_rate == found[3].visible_rate == 1.0


class Scripted:
    fingerprint = "weights"

    def __init__(self, answer):
        self.answer, self.requests = answer, []

    def complete(self, requests, progress=None):
        self.requests += requests
        return [Reply(self.answer(r.prompt), 5) for r in requests]


def sample(trace, task=TASK):
    return Sample(task, [1], Completion([2], [0.0], "stop"), f"<reasoning>{trace}</reasoning>", trace)


class FixedScorer:
    dimension_names = ()

    def __init__(self, total):
        self.total = total

    def score(self, items):
        assert all(i.task_type == "code" for i in items)
        return [RMScore(self.total, self.total, None, ()) for _ in items]


def code_config(**reward):
    config = Config()
    for key, value in reward.items():
        setattr(config.reward, key, value)
    return config


def graded(trace, config, rm=0.5, answer=None):
    says = answer or (lambda prompt: RIGHT if "double it" in prompt else "n = int(input())\nprint(n + 3)")
    s = sample(trace)
    grade([[s]], Executor(Scripted(says), SETTINGS), FixedScorer(rm), config)
    return s


def test_the_reward_of_a_helpful_plan_in_both_variants():
    """exec 1, u = 1 (three of three against none of three), R = 0.5."""
    paper = graded("double it", code_config(variant="paper"))
    assert (paper.outcome.with_successes, paper.outcome.base_successes, paper.reward) == (
        3,
        0,
        1.0,
    )  # clipped: R is lost
    corrected = graded("double it", code_config(variant="corrected"))
    assert corrected.reward == pytest.approx(1.0 + 0.2 * 0.5 * 1.0) and corrected.correct
    heavier = graded("double it", code_config(variant="corrected", code_weight=0.4))
    assert heavier.reward == pytest.approx(1.2)
    assert graded("double it", code_config(mode="exec_only")).reward == 1.0
    assert graded("double it", code_config(mode="rm_only")).reward == 0.5


@pytest.mark.parametrize(
    ("style", "expected"), [("hybrid", 0.8 * 0.5 + 0.2), ("pass_rate", 0.5), ("binary", 0.0), ("coderl", -0.3)]
)
def test_the_execution_reward_takes_its_style_from_the_config(style, expected):
    """One of two hidden tests passes, and no run of either arm passes all: c = 0."""
    s = graded("add three", code_config(exec_style=style))
    assert s.reward == pytest.approx(expected) and s.parts.uplift == 0 and not s.correct


def test_a_leak_is_seen_and_costs_what_the_config_says():
    config = code_config(leak_penalty=0.25)
    clean, leaking = graded("double it", config), graded("double it\nprint(2 * int(input()))", config)
    assert (clean.leaked, leaking.leaked) == (False, True)
    assert clean.reward - leaking.reward == pytest.approx(0.25)


def test_a_broken_sandbox_is_nobodys_fault():
    class Broken:
        def __call__(self, items, in_full=None):
            return [Judgement(Verdict.ERROR, "error", detail="the guard vanished") for _ in items]

    s = sample("double it")
    grade([[s]], Executor(Scripted(lambda p: RIGHT), SETTINGS, judge=Broken()), FixedScorer(0.5), code_config())
    assert s.error == "the guard vanished" and s.reward is None
    assert group_metrics([[s]], ())["verdict_errors"] == 1.0


def test_metrics_name_how_programs_ended():
    config = code_config()
    groups = [
        [graded("double it", config), graded("add three", config)],
        [graded("x", config, answer=lambda p: "print(")],
    ]
    metrics = group_metrics(groups, ())
    assert metrics["accuracy"] == pytest.approx(1 / 3) and metrics["pass_rate"] == pytest.approx(0.5)
    assert metrics["status/compile_error"] == pytest.approx(1 / 3) and metrics["status/failed_test"] == pytest.approx(
        1 / 3
    )


def test_baselines_are_keyed_by_the_tests():
    executor = Executor(Scripted(lambda p: RIGHT), SETTINGS)
    stricter = dataclasses.replace(
        TASK, code=dataclasses.replace(DOUBLE, hidden=(*DOUBLE.hidden, StdinTest("0\n", "0\n")))
    )
    assert executor.baseline_key(TASK) != executor.baseline_key(stricter)
    assert executor.baseline_key(TASK) == executor.baseline_key(dataclasses.replace(TASK))


def test_the_demo_is_a_source_of_code_tasks():
    first = load_tasks("demo:code", 3).first(4)
    assert first == load_tasks("demo:code", 3).round(0, 4) and first[0] == code_task(make_problem(3, 0))
    assert all(t.task_type == "code" and len(t.code.hidden) == 4 and len(t.code.visible) == 2 for t in first)
    assert all(t.check(t.truth.trace).valid and not t.check("Do it.").valid for t in first)


def test_a_file_of_programs_is_a_source_too(tmp_path):
    path = tmp_path / "programs.jsonl"
    path.write_text('{"problem_id": "a", "problem": "Echo it.", "tests": [{"input": "1\\n", "output": "1\\n"}]}\n')
    (task,) = load_tasks(f"code:{path}", 0).first(3)
    assert task.task_type == "code" and judge_one("print(input())", task).verdict is Verdict.PASS
    with pytest.raises(FileNotFoundError, match="missing.jsonl"):
        load_tasks("code:missing.jsonl", 0)
