"""Benchmark files → problems, artifact → verdicts by the rules of each benchmark, MATH answers in a bounded child."""

import gzip
import importlib.util
import json
import os
import time
from pathlib import Path

import pytest

from tracelift.config import Config
from tracelift.twostage import latex
from tracelift.twostage.latex import LatexJudge, MathVerifyMissing
from tracelift.twostage.problems import BenchmarkError, boxed, load_benchmark
from tracelift.twostage.verdicts import RULES, Judge
from tracelift.verify import Verdict

P, F, E = Verdict.PASS, Verdict.FAIL, Verdict.ERROR
GSM = {"question": "Two and two?", "answer": "Two <<2+2=4>>and two is 4.\nSo 4*250 = <<4*250=1000>>1000.\n#### 1,000"}


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def load(spec: str, limit: int = 0):
    config = Config()
    config.eval.limit = limit
    return load_benchmark(spec, config, say=lambda line: None)


def test_gsm8k_reference_traces_lose_marks_and_the_answer_line(tmp_path):
    (p,) = load(f"gsm8k:{write(tmp_path / 'g.jsonl', GSM)}").problems
    assert p.kind == "gsm8k" and p.reference_trace == "Two and two is 4.\nSo 4*250 = 1000."


@pytest.mark.parametrize(
    ("text", "numeric", "strict", "flexible"),
    [
        ("#### 1,000", P, P, P),
        ("1000", P, F, P),
        ("The answer is 1000.0", P, F, F),  # the harness compares strings: 1000.0 is not 1000
        ("It is 1000 because 3 + 4 = 7", F, F, F),
        ("#### 1000\nThen 5 more", P, P, F),  # strict takes the first, flexible the last
        ("no number", F, F, F),
    ],
)
def test_gsm8k_rules_disagree_as_the_harness_does(tmp_path, text, numeric, strict, flexible):
    (p,) = load(f"gsm8k:{write(tmp_path / 'g.jsonl', GSM)}").problems
    (judged,) = Judge()([(p, text)])
    assert list(judged.verdicts) == list(RULES["gsm8k"])
    assert (judged.verdicts["strict"], judged.verdicts["flexible"]) == (strict, flexible)
    if text != "It is 1000 because 3 + 4 = 7":  # where an answer stands in free prose is tested in test_verify.py
        assert judged.verdicts["numeric"] is numeric


def test_other_formats(tmp_path):
    svamp = write(
        tmp_path / "s.jsonl", {"ID": "chal-1", "Body": "Tom has 3 apples", "Question": "How many?", "Answer": 3.0}
    )
    (p,) = load(f"svamp:{svamp}").problems
    assert (p.problem_id, p.task.problem, p.task.reference, p.kind) == (
        "chal-1",
        "Tom has 3 apples. How many?",
        "3",
        "number",
    )
    listed = tmp_path / "s.json"
    listed.write_text(
        json.dumps([{"Body": "A.", "Question": "B?", "Answer": 1}, {"Body": "A.", "Question": "C?", "Answer": 2}])
    )
    assert [q.task.reference for q in load(f"svamp:{listed}").problems] == ["1", "2"]
    maths = write(
        tmp_path / "m.jsonl",
        {"problem": "Half?", "solution": "First this. Then $\\boxed{\\frac{1}{2}}$.", "unique_id": "u"},
    )
    (p,) = load(f"math:{maths}").problems
    assert (p.task.reference, p.reference_trace, p.kind, p.problem_id) == ("\\frac{1}{2}", "First this.", "latex", "u")
    zipped = tmp_path / "g.jsonl.gz"
    zipped.write_bytes(gzip.compress(json.dumps(GSM).encode()))
    assert len(load(f"gsm8k:{zipped}").problems) == 1


def test_the_demo_knows_its_reference_traces():
    problems = load("demo:math", limit=5).problems
    assert len(problems) == 5 and all(p.task.trace_valid(p.reference_trace) for p in problems)


def test_code_files_judge_in_the_sandbox(tmp_path):
    row = {"task_id": "T/0", "prompt": 'def add(a, b):\n    """Add."""\n', "entry_point": "add", "canonical_solution": "    return a + b\n",
           "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(0, 0) == 0\n"}  # fmt: skip
    (p,) = load(f"humaneval:{write(tmp_path / 'h.jsonl', row)}").problems
    right, wrong, cheat = Judge()(
        [(p, "    return a + b\n"), (p, "```python\ndef add(a, b):\n    return 3\n```"), (p, "import sys; sys.exit(0)")]
    )
    assert right.verdicts == {"tests": P} and wrong.verdicts == {"tests": F} and cheat.verdicts == {"tests": F}
    assert "1 passed" in wrong.detail


@pytest.mark.parametrize(
    ("spec", "rows", "says"),
    [
        ("gsm9k", [GSM], "FORMAT one of demo, gsm8k, svamp, math, tasks, humaneval, mbpp, code"),
        ("gsm8k", [{"question": "x", "answer": "4"}], ":1: the answer has no line '#### x'"),
        ("gsm8k", [GSM, {"answer": "#### 1"}], ":2: no 'question'; keys are ['answer']"),
        ("math", [{"problem": "x", "solution": "no box"}], "neither an 'answer' nor"),
        (
            "tasks",
            [{"problem": "x", "answer": 1, "id": "a"}, {"problem": "y", "answer": 2, "id": "a"}],
            "the id 'a' occurs twice",
        ),
        ("tasks", [], "holds no problem"),
    ],
)
def test_broken_benchmarks_say_where(tmp_path, spec, rows, says):
    with pytest.raises(BenchmarkError) as e:
        load(f"{spec}:{write(tmp_path / 'b.jsonl', *rows)}")
    assert says in str(e.value)


def test_a_missing_file_is_named():
    with pytest.raises(BenchmarkError, match="no such file as nowhere.jsonl"):
        load("gsm8k:nowhere.jsonl")


def test_boxed_matches_braces():
    assert boxed("a \\boxed{1} b \\boxed{\\frac{1}{2}} c") == "\\frac{1}{2}"
    assert boxed("\\boxed{1") is None and boxed("1") is None


def test_all_of_gsm8k_train_loads():
    root = os.environ.get("TRACELIFT_DATA")
    if not root:
        pytest.skip("TRACELIFT_DATA is not set")
    problems = load(f"gsm8k:{Path(root) / 'gsm8k' / 'train.jsonl'}").problems
    assert len(problems) == 7473 and all(p.reference_trace and "<<" not in p.reference_trace for p in problems)
    judged = Judge()([(p, p.task.reference) for p in problems[:500]])
    assert all(set(j.verdicts.values()) == {P} for j in judged), "a reference passes its own rules"


# -- MATH ------------------------------------------------------------------------------------------------------------

needs_math_verify = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed"
)


@pytest.fixture(scope="module")
def latex_judge():
    with LatexJudge(seconds=8.0) as judge:
        yield judge


@needs_math_verify
@pytest.mark.parametrize(
    ("gold", "text", "verdict"),
    [
        ("\\frac{1}{2}", "The answer is $0.5$.", P),
        ("x^2+1", "so $1 + x^2$", P),
        ("3", "$\\boxed{4}$", F),
        ("3", "I do not know", F),
        ("\\text{even}", "\\boxed{\\text{even}}", P),
        ("\\{1,2\\}", "\\boxed{\\{2,1\\}}", P),
        ("", "3", E),
    ],
)
def test_latex_equivalence(latex_judge, gold, text, verdict):
    assert latex_judge(gold, text)[0] is verdict


@needs_math_verify
def test_a_text_that_hangs_the_verifier_costs_its_child_not_the_evaluation(monkeypatch):
    with LatexJudge(seconds=1.0) as judge:
        assert judge("2", "$2$")[0] is P
        first = judge._child.pid
        verdict, why = judge("10", "$9^{9^{9^{9^{9}}}}$")
        assert verdict is F and "took more than" in why
        assert judge("2", "$2$")[0] is P and judge._child.pid != first, "a new child answers"


@needs_math_verify
def test_a_killed_child_is_not_a_wrong_answer():
    with LatexJudge(seconds=8.0) as judge:
        assert judge("2", "$2$")[0] is P
        judge._child.kill()
        judge._child.wait()
        assert judge("2", "$2$")[0] is P


def test_without_math_verify_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(latex.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MathVerifyMissing, match="pip install"):
        LatexJudge()


@needs_math_verify
def test_a_child_that_does_not_answer_is_left(monkeypatch):
    """The bound is the parent's: a child that ignores its own alarm is killed all the same."""
    with LatexJudge(seconds=8.0) as judge:
        judge("2", "$2$")
        os.kill(judge._child.pid, 19)  # SIGSTOP
        judge.seconds = 0.2
        started = time.monotonic()
        assert judge._ask("2", "$2$", 0.2) is None and judge._child is None
        assert time.monotonic() - started < 60
