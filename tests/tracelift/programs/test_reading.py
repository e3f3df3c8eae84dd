"""What is read before anything runs: examples in statements, problems in files, and the command that judges a file."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

from tracelift.programs import (
    CaseOutcome,
    ProblemError,
    ProgramResult,
    StdinTest,
    TestOutcome,
    examples_in,
    judge,
    load_problems,
    parse_tests,
    read_problem,
)
from tracelift.programs.__main__ import main, report
from tracelift.programs.leaks import leaks_program

ADD = "a, b = map(int, input().split())\nprint(a + b)\n"


# -- examples in statements ------------------------------------------------------------------------------------------

ONE = [StdinTest("3 4\n", "7\n")]
TWO = ONE + [StdinTest("10\n20\n", "30\n")]
SPEC = "The first line of input contains two integers.\n"


@pytest.mark.parametrize(
    "statement, expected",
    [
        ("Add.\n\nInput:\n3 4\n\nOutput:\n7\n", ONE),
        ("Add.\nInput: 3 4\nOutput: 7\n", ONE),
        ("Add.\n\nSample Input 1\n3 4\n\nSample Output 1\n7\n\nSample Input 2\n10\n20\n\nSample Output 2\n30\n", TWO),
        ("Add.\n\nSample Input 1:\n```\n3 4\n```\nSample Output 1:\n```\n7\n```\n", ONE),
        ("Add.\n\n**Input**\n```\n3 4\n```\n**Output**\n```\n7\n```\nThe sum of 3 and 4 is printed here.\n", ONE),
        ("Add.\n\n### Input\n3 4\n### Output\n7\n", ONE),
        (
            f"Add.\n\n-----Input-----\n{SPEC}\n-----Output-----\nPrint the sum.\n\n"
            "-----Examples-----\nInput\n3 4\n\nOutput\n7\n\nInput\n10\n20\n\nOutput\n30\n\n"
            "-----Note-----\nIn the first example the sum is 7.",
            TWO,
        ),
        (
            f"Input\n\n{SPEC}\nOutput\n\nPrint one integer, the sum of both.\n\n"
            "Examples\n\nInput\n\n3 4\n\nOutput\n\n7\n\nInput\n\n10\n20\n\nOutput\n\n30\n",
            TWO,
        ),
        (
            f"Input:\n{SPEC}\nOutput:\nPrint the sum of the two numbers.\n\n"
            "Example 1:\nInput: 3 4\nOutput: 7\nExplanation: 3 + 4 = 7\n\nExample 2:\nInput:\n10\n20\nOutput:\n30\n",
            TWO,
        ),
        ("Add.\n\n-----Sample Input-----\n3 4\n-----Sample Output-----\n7\n", ONE),
        ("Add.\n\nInput Example\n3 4\nOutput Example\n7\n", ONE),
        ("Add.\n\nExample Input:\n3 4\n\nExample Output:\n7\n\nConstraints\n1 <= a\n", ONE),
        ("Add.\r\n\r\nInput:\r\n3 4\r\n\r\nOutput:\r\n7\r\n", ONE),
        ("## Example #1\n\n*Input:*\n\n    3 4\n\n*Output:*\n\n    7\n", [StdinTest("    3 4\n", "    7\n")]),
        # the description of the input, and what is no standard input, are no examples
        (f"Add.\n\n-----Input-----\n{SPEC}\n-----Output-----\nPrint the sum of the two numbers.\n", []),
        ("Input consists of two integers.\nOutput the sum.\n", []),
        ("Example 1:\n\nInput: nums = [2,7], target = 9\nOutput: [0,1]\n", []),
        ("No examples at all.", []),
        ("", []),
    ],
)
def test_examples_are_found_as_they_are_written(statement, expected):
    assert examples_in(statement) == expected


# -- published formats -----------------------------------------------------------------------------------------------

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'import math\n\ndef helper(x):\n    return x\n\n\ndef twice(x):\n    """ Double. """\n',
    "entry_point": "twice",
    "canonical_solution": "    return x + x\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n"
    "    assert True, 'good for debugging'\n    assert candidate(2) == 4\n"
    "    assert math.isclose(candidate(0.5), helper(1.0))\n",
}
MBPP = {
    "task_id": 11, "text": "Write a function to double.",
    "code": "def twice(x):\r\n    return x + x", "test_setup_code": "",
    "test_list": ["assert twice(2) == 4", "assert set(twice([1])) == {1}"],
    "challenge_test_list": ["assert twice('') == ''"],
}  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")
@pytest.mark.parametrize(
    "row, tests, right, wrong",
    [
        (HUMANEVAL, 2, "    return 2 * x\n", "    return x * x\n"),
        (
            {**HUMANEVAL, "test": "def check(f):\n    if False:\n        return\n    assert f(3) == 6\ncheck(twice)\n"},
            1,
            "    return 2 * x\n",
            "    return 4\n",
        ),
        (MBPP, 3, "def twice(x):\n    return x * 2", "def twice(x):\n    return x"),
        (
            {"problem": "Add.\nInput:\n1 1\nOutput:\n2\n", "tests": [{"input": "3 4", "output": "7"}]},
            1,
            ADD,
            "print(7.0)",
        ),
        (
            {"question": "Add.", "input_output": json.dumps({"inputs": ["3 4\n", ["1 2"]], "outputs": ["7\n", ["3"]]})},
            2,
            ADD,
            "print(7)",
        ),
        (
            {
                "question": "Twice.",
                "input_output": {"fn_name": "twice", "inputs": [[2], ["a"]], "outputs": [[4], ["aa"]]},
            },
            2,
            "class Solution:\n  def twice(self, x): return x + x",
            "def twice(x): return 4",
        ),
        (
            {"question": "A pair.", "tests": {"fn_name": "pair", "inputs": ["1\n2"], "outputs": ["[1, 2]"]}},
            1,
            "def pair(a, b): return (a, b)",
            "def pair(a, b): return (b, a)",
        ),
        (
            {"problem": "Twice.", "tests": ["assert twice(2) == 4"]},
            1,
            "def twice(x): return 4",
            "def twice(x): return 5",
        ),
    ],
)
def test_each_format_is_read_and_judged(row, tests, right, wrong):
    problem = read_problem(row)
    assert len(problem.hidden) == tests
    assert judge(problem.program(right), problem.hidden).passed
    assert judge(problem.program(wrong), problem.hidden).status == "failed_test"
    if problem.solution:
        assert judge(problem.solution, problem.hidden).passed


def test_visible_and_hidden_tests_are_kept_apart():
    statement = "Add.\n\nSample Input\n3 4\n\nSample Output\n7\n"
    shown, other = {"input": "3 4", "output": "7"}, {"input": "1 1", "output": "2"}
    problem = read_problem({"problem": statement, "tests": [shown, other]})
    assert (
        problem.visible == (StdinTest("3 4\n", "7\n"),)
        and problem.hidden == (StdinTest("1 1", "2"),)
        and not problem.only_visible
    )
    bare = read_problem({"problem": statement, "tests": [shown]})
    assert bare.only_visible and len(bare.hidden) == 1
    assert read_problem({"problem": statement}).only_visible


def test_tests_that_expect_nothing_are_no_tests():
    with pytest.raises(ProblemError, match="expects no output"):
        StdinTest("1", " \n")
    problem = read_problem({"problem": "x", "tests": [{"input": "1", "output": ""}, {"input": "2", "output": "3"}]})
    assert len(problem.hidden) == 1


@pytest.mark.parametrize(
    "row, message",
    [
        ([], "expected an object"),
        ({}, "no tests: expected one of the keys"),
        ({"tests": []}, "no tests"),
        ({"tests": [{"input": "1"}]}, "test 0 needs the keys 'input' and 'output'"),
        ({"tests": {"inputs": ["1"], "outputs": []}}, "two lists of equal length"),
        ({"tests": {"fn_name": "f", "inputs": [], "outputs": []}}, "no tests"),
        ({"tests": [{"input": "1", "output": "2"}]}, "no statement"),
        ({"tests": {"fn_name": "os.system", "inputs": [[1]], "outputs": [1]}}, "is no name"),
        ({"input_output": "{"}, "not JSON"),
        ({"test_list": ["assert f(1) =="]}, "test 0: not Python"),
        ({"test_list": ["f(1)", "assert True"]}, "nothing is asserted"),
        ({**HUMANEVAL, "prompt": "def f(:"}, "key 'prompt' is not Python"),
        ({**HUMANEVAL, "test": "def check(candidate):\n    pass\n"}, "nothing is asserted"),
    ],
)
def test_what_cannot_be_read_says_so(row, message):
    with pytest.raises(ProblemError, match=message):
        read_problem(row)


def test_files_are_read_in_every_packing(tmp_path):
    line = json.dumps(HUMANEVAL)
    (tmp_path / "a.jsonl").write_text(line + "\n\n" + json.dumps(MBPP) + "\n")
    (tmp_path / "b.json").write_text(f"[{line}]")
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as f:
        f.write(line)
    assert [len(load_problems(tmp_path / name)) for name in ("a.jsonl", "b.json", "c.jsonl.gz")] == [2, 1, 1]
    (tmp_path / "bad.jsonl").write_text(line + "\n" + json.dumps({"tests": []}))
    with pytest.raises(ProblemError, match="bad.jsonl, row 1: no tests"):
        load_problems(tmp_path / "bad.jsonl")
    with pytest.raises(ProblemError, match="no such file"):
        load_problems(tmp_path / "none.jsonl")


def test_half_a_character_is_refused_where_a_model_would_read_it(tmp_path):
    row = {"id": "h", "question": "Echo \ud800.", "tests": [{"input": "a", "output": "a"}]}
    (tmp_path / "half.jsonl").write_text(json.dumps(row))
    with pytest.raises(ProblemError, match="half.jsonl, row 0: text holds half of a surrogate pair"):
        load_problems(tmp_path / "half.jsonl")
    row = {"id": "h", "question": "Echo.", "tests": [{"input": "\ud800", "output": "\ud800"}]}  # only programs see it
    (tmp_path / "half.jsonl").write_text(json.dumps(row))
    assert len(load_problems(tmp_path / "half.jsonl")) == 1


@pytest.mark.parametrize(
    "source, as_data",
    [
        ("assert f(1, [2], k=(3,)) == {'a': -1}", True),
        ("assert 3 == f(1)", True),
        ("assert f(1) is None", True),
        ("assert f(1) is 5", False),
        ("assert not f('x')", True),
        ("assert f(1) == f(2)", False),
        ("assert f(x) == 1", False),
        ("assert f(*[1]) == 1", False),
        ("assert f(1) == float('inf')", False),
        ("assert 1 < f(2) < 3", False),
        ("assert f.g(1) == 2", False),
        ("assert len([1]) == 1", False),
        ("assert f(1) == 1 and f(2) == 2", False),
        ("assert f({[]: 1}) == 1", False),
    ],
)
def test_only_what_is_literally_a_call_becomes_data(source, as_data):
    tests = parse_tests([source])
    assert (tests.calls is not None) == as_data and len(tests) == 1


@pytest.fixture
def run(capsys, monkeypatch):
    """The command, as (exit status, what it printed)."""

    def command(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["programs", *map(str, arguments)])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return command


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")
def test_a_file_is_judged_by_command(tmp_path, run):
    file = write(tmp_path / "problems.jsonl", HUMANEVAL, MBPP)
    texts = write(
        tmp_path / "texts.jsonl",
        {"task_id": "HumanEval/0", "completion": "    return 2 * x\n"},
        {"task_id": "HumanEval/0", "completion": None, "solution": "def twice(x):\n    return 3 * x\n"},
        {"task_id": 11, "text": "```python\ndef twice(x):\n    return x + x\n```"},
        {"task_id": 11, "text": "I do not know."},
    )
    code, out = run(file)
    assert code == 0 and "2 of 2 pass" in out and "without" not in out
    code, out = run(file, "--texts", texts, "--out", tmp_path / "out.jsonl")
    assert code == 0 and "2 of 4 pass, on 2 problems" in out and "pass@1 0.5000" in out and "pass@2 1.0000" in out
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [r["status"] for r in rows] == ["passed", "failed_test", "passed", "compile_error"]
    code, out = run(file, "--texts", write(tmp_path / "one.jsonl", {"task_id": 11, "text": MBPP["code"]}))
    assert code == 0 and "1 of 2 pass, on 2 problems" in out and "pass@1 0.5000" in out
    assert "1 problems without a text, which count as failed (HumanEval/0)" in out
    code, out = run(write(tmp_path / "bare.jsonl", HUMANEVAL, {**MBPP, "code": None}))
    assert code == 1 and "1 of 2 pass" in out  # nothing shows that the second has a solution


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([{"task_id": "unknown", "text": ""}], "line 1: no problem has the id 'unknown'"),
        ([{"task_id": 11, "text": "x"}, [1]], "line 2: expected an object, found list"),
        ([{"task_id": 11, "text": None}], "line 1: needs task_id or problem_id, and a text"),
        ([{"text": "x"}], "line 1: needs task_id or problem_id, and a text"),
        ([{"task_id": 11, "completion": 5}], "line 1: needs task_id or problem_id, and a text"),
    ],
)
def test_texts_that_are_none_are_named_by_line(tmp_path, run, texts, said):
    file = write(tmp_path / "problems.jsonl", HUMANEVAL, MBPP)
    code, out = run(file, "--texts", write(tmp_path / "texts.jsonl", *texts))
    assert code == 2 and said in out and out.count("\n") == 1


def test_two_rows_of_one_id_are_refused(tmp_path, run):
    code, out = run(write(tmp_path / "twice.jsonl", MBPP, HUMANEVAL, {**MBPP, "text": "Another."}))
    assert code == 2 and "twice.jsonl, row 2: the id '11' is that of row 0" in out


def test_figures_leave_out_what_has_no_verdict_and_count_what_has_no_text():
    def result(outcome: CaseOutcome) -> ProgramResult:
        return ProgramResult((TestOutcome(outcome),))

    passed, failed, error = map(result, (CaseOutcome.PASSED, CaseOutcome.FAILED_TEST, CaseOutcome.ERROR))
    problems = ["a", "b", "c", "d"]
    out = report(problems, ["a", "a", "b", "b", "b"], [passed, failed, passed, error, failed])
    assert "2 of 6 pass, on 4 problems" in out and "1 without a verdict" in out
    assert "2 problems without a text, which count as failed (c, d)" in out
    assert "pass@1 0.2500" in out and "pass@2 0.5000" in out and "pass@5" not in out
    only = report(["a", "b"], ["a", "b"], [error, passed])
    assert "1 of 1 pass, on 2 problems" in only and "pass@1 1.0000" in only and "without a text" not in only


@pytest.mark.parametrize(
    ("trace", "code"),
    [
        ("O(n)", False),
        ("It costs `O(n log(n))`.", False),
        ("Return the sum of all.", False),
        ("Use a lambda for this", False),
        ("Then:\nreturn 2*n+1", True),
        ("`lambda n: 2 * n`", True),
        ("1. print(x)", True),
        ("- f = lambda n: n", True),
        ("The result is `n*2+1`.", True),
        ("Then return 2*n+1.", True),
        ("Then return the sum of both.", False),
        ("Go from 0 to `n-1`.", False),
    ],
)
def test_what_is_code_in_a_plan(trace, code):
    assert leaks_program(trace) is code
