"""Benchmark files → problems, artifact → verdicts by the rules of each benchmark, MATH answers in a bounded child."""

import gzip
import importlib.util
import json
import os
import time
from pathlib import Path

import pytest

from tracelift.build import load_benchmark
from tracelift.config import Config
from tracelift.evaluation.verdicts import RULES, RuleJudge
from tracelift.tasks.benchmarks import BenchmarkError
from tracelift.tasks.rows import boxed
from tracelift.verify import latex
from tracelift.verify.latex import LatexJudge, MathVerifyMissing
from tracelift.verify.verdict import Verdict

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
    (judged,) = RuleJudge(p.kind)([(p.task, text)])
    assert list(judged.rules) == list(RULES["gsm8k"]) and judged.verdict is judged.rules["numeric"]
    assert (judged.rules["strict"], judged.rules["flexible"]) == (strict, flexible)
    if (
        text != "It is 1000 because 3 + 4 = 7"
    ):  # where an answer stands in free prose is tested in tests/tracelift/verify/test_math.py
        assert judged.rules["numeric"] is numeric


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
    assert len(problems) == 5 and all(p.task.check(p.reference_trace).valid for p in problems)


def test_code_files_judge_in_the_sandbox(tmp_path):
    row = {
        "task_id": "T/0",
        "prompt": 'def add(a, b):\n    """Add."""\n',
        "entry_point": "add",
        "canonical_solution": "    return a + b\n",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(0, 0) == 0\n",
    }
    (p,) = load(f"humaneval:{write(tmp_path / 'h.jsonl', row)}").problems
    texts = ("    return a + b\n", "```python\ndef add(a, b):\n    return 3\n```", "import sys; sys.exit(0)")
    right, wrong, cheat = RuleJudge(p.kind)([(p.task, text) for text in texts])
    assert right.rules == {"tests": P} and wrong.rules == {"tests": F} and cheat.rules == {"tests": F}
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
        ("gsm8k", [GSM, GSM | {"question": "\ud800?"}], ":2: text holds half of a surrogate pair"),
        ("tasks", [{"problem": "x", "answer": 10**400}, {"problem": "y"}], ":2: no 'answer'"),
    ],
)
def test_broken_benchmarks_say_where(tmp_path, spec, rows, says):
    with pytest.raises(BenchmarkError) as e:
        load(f"{spec}:{write(tmp_path / 'b.jsonl', *rows)}")
    assert says in str(e.value)


HUMANEVAL = {"task_id": "T/0", "prompt": 'def add(a, b):\n    """Add."""\n', "entry_point": "add",
             "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"}  # fmt: skip


@pytest.mark.parametrize(("form", "row"), [("gsm8k", GSM), ("humaneval", HUMANEVAL)])
def test_files_that_are_none_end_in_a_sentence_that_names_them(tmp_path, form, row):
    good = json.dumps(row).encode()
    zipped = gzip.compress(good)
    for name, data, says in [
        ("a.jsonl.gz", zipped[:12] + b"\xff" * 8 + zipped[20:], "a.jsonl.gz: cannot be read as text"),
        ("b.jsonl.gz", zipped[:-9], "b.jsonl.gz: cannot be read as text"),
        ("c.jsonl.gz", good, "c.jsonl.gz: cannot be read as text"),
        ("d.jsonl", good + b"\n\xff", "d.jsonl: cannot be read as text"),
        ("e.jsonl", b"[" * 100_000, "e.jsonl: not JSON: nested too deeply"),
        ("f.jsonl", good + b'\n{"a": ' + b"[" * 100_000, "f.jsonl:2: not a JSON line: nested too deeply"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError) as e:
            load(f"{form}:{tmp_path / name}")
        assert says in str(e.value)


@pytest.mark.parametrize(("form", "row"), [("gsm8k", GSM), ("humaneval", HUMANEVAL)])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path, form, row):
    for name, text in (("l.jsonl", json.dumps(row)), ("l.json", json.dumps([row]))):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert len(load(f"{form}:{tmp_path / name}").problems) == 1


def test_names_lose_the_formats_suffixes_and_no_other_dot(tmp_path):
    names = {"ok.jsonl": "ok", "ok.v2.jsonl": "ok.v2", "ok.json": "ok", "ok.jsonl.gz": "ok", "v1.5": "v1.5"}
    for file, name in names.items():
        data = (json.dumps(GSM) + "\n").encode()
        (tmp_path / file).write_bytes(gzip.compress(data) if file.endswith(".gz") else data)
        assert load(f"gsm8k:{tmp_path / file}").name == f"gsm8k:{name}"


def test_a_missing_file_is_named():
    with pytest.raises(BenchmarkError, match="no such file as nowhere.jsonl"):
        load("gsm8k:nowhere.jsonl")


def test_boxed_matches_braces():
    assert boxed("a \\boxed{1} b \\boxed{\\frac{1}{2}} c") == "\\frac{1}{2}"
    assert boxed("\\boxed{1") is None and boxed("1") is None


def test_boxes_without_braces_and_framed_ones(tmp_path):
    """As MATH has them: `$\\boxed 2$`, `\\fbox{2}`."""
    for solution, answer in [
        ("One. So $\\boxed 2$ it is.", "2"),
        ("One. So $x = \\boxed 9.$", "9"),
        ("One. \\fbox{2}", "2"),
        ("One. $\\boxed{1}$ or $\\boxed {\\frac{1}{2}}$", "\\frac{1}{2}"),
        ("One. $\\boxed \\frac12$.", "\\frac12"),
        ("One. \\boxed2", "2"),
    ]:
        (p,) = load(f"math:{write(tmp_path / 'm.jsonl', {'problem': 'x', 'solution': solution})}").problems
        assert (p.task.reference, p.reference_trace) == (answer, "One.")
    assert boxed("\\fbox{1") is None and boxed("\\boxed $") is None and boxed("\\boxed") is None


def test_all_of_gsm8k_train_loads():
    root = os.environ.get("TRACELIFT_DATA")
    if not root:
        pytest.skip("TRACELIFT_DATA is not set")
    problems = load(f"gsm8k:{Path(root) / 'gsm8k' / 'train.jsonl'}").problems
    assert len(problems) == 7473 and all(p.reference_trace and "<<" not in p.reference_trace for p in problems)
    judged = RuleJudge("gsm8k")([(p.task, p.task.reference) for p in problems[:500]])
    assert all(set(j.rules.values()) == {P} for j in judged), "a reference passes its own rules"


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


ANSWERS = [
    "2", "3", "18", "1,000", "-9", "x=7", "3x+2", "5x+2", "x^2+1", "p - q", "xy + yz", "f(x)=2x", "x \\le 6", "|x-3|", "8!", "2^{11}",
    "3+4i", "1,2,4", "[-2,7]", "[-2,7)", "2\\sqrt{3}", "\\sqrt[3]{2}", "\\frac12", "\\dfrac{7}{9}", "11\\frac{3}{4}", "\\frac{x+1}{y}",
    "\\left( 3, \\frac{\\pi}{2} \\right)", "(-\\infty,3]\\cup[5,\\infty)", "-\\infty", "\\$18.90", "51\\%", "90^\\circ", "144\\pi",
    "10\\text{ cm}", "6 \\text{ and } 7", "\\text{Evelyn}", "\\text{(C)}", "\\text{no solution}", "\\{11,12\\}", "\\emptyset", "\\tan 3x",
    "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\\n 3 & 5 \\end{pmatrix}", "10,\\!001",
]  # fmt: skip


@needs_math_verify
def test_a_reply_that_is_the_reference_to_the_letter_passes_and_no_other(latex_judge):
    for gold in ANSWERS:
        assert latex_judge(gold, gold)[0] is P, gold
        assert latex_judge(gold, f" {gold}\n")[0] is P, gold
    for i, gold in enumerate(ANSWERS):
        for shift in (1, 2, 3, 5, 8, 13):
            other = ANSWERS[(i + shift) % len(ANSWERS)]
            assert latex_judge(gold, other)[0] is F, (gold, other)


@needs_math_verify
@pytest.mark.parametrize(
    ("gold", "text", "verdict"),
    [
        # a bare answer after words, and none of its numbers alone
        ("2\\sqrt{3}", "The answer is 2\\sqrt{3}.", P),
        ("2", "The answer is 2\\sqrt{3}.", F),
        ("2", "So 2\\sqrt{3}", F),
        ("3", "3x+2", F),
        ("2", "2*sqrt(3)", F),
        ("2\\sqrt{3}", "2√3", P),
        ("2\\sqrt{3}", "#### 2\\sqrt{3}", P),
        ("3x+2", "First 2.\n\n**Answer:** 3x+2", P),
        ("x+xy", "xy + x", P),
        ("(-\\infty,3]", "x is in (-∞, 3]", P),
        ("3,4", "x is 3 or 4", P),
        ("4", "3 or 4", F),
        ("-18", "The answer is - 18", P),
        ("\\frac{\\pi}{2}", "pi/2", P),
        ("10\\text{ cm}", "10 cm", P),
        ("2", "\\fbox{2}", P),
        # words
        ("\\text{Evelyn}", "The answer is Evelyn.", P),
        ("\\text{Evelyn}", "Navin", F),
        ("\\text{no solution}", "No solution", P),
        ("\\text{(C)}", "C", P),
        ("\\text{no}", "on", F),
        # prose keeps math-verify's reading
        ("3", "There are 3 apples.", P),
        ("5", "The answer is 5.\nHope this helps!", P),
        ("5", "It is 5 (see above)", P),
        ("2\\sqrt{3}", "We get $2\\sqrt{3}$ and no other", P),
    ],
)
def test_bare_answers_are_boxed_and_prose_is_not(latex_judge, gold, text, verdict):
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
