"""What is read before anything runs: programs in models' texts, examples in statements, problems in published files."""

from __future__ import annotations

import gzip
import json
import sys

import pytest

from tracelift.programs import (
    ProblemError,
    StdinTest,
    examples_in,
    extract_program,
    judge,
    load_problems,
    parse_tests,
    read_problem,
)
from tracelift.programs.leaks import leaks_program

ADD = "a, b = map(int, input().split())\nprint(a + b)\n"


# -- programs in models' texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        ADD,
        f"```python\n{ADD}```",
        f"```py\n{ADD}```\nThis reads two numbers and prints their sum.",
        f"```\n{ADD}```",
        f"~~~python\n{ADD}~~~",
        f"Sure! Here is the program:\n\n```python\n{ADD}```\n\nExample:\n```\n3 4\n```\nIt prints 7.",
        f"The input is\n```\n3 4\n```\nand so\n```python\n{ADD}```",
        f"First install it:\n```bash\npip install numpy\n```\n```python\n{ADD}```",
        f"```python\n{ADD}",  # the fence is never closed
        f"```python\n{ADD}\nThis program reads two numbers.\n",  # nor is it, and prose follows
        f"1. Like this:\n   ```python\n   {ADD.replace(chr(10), chr(10) + '   ').rstrip()}\n   ```\n",
        f"Here is the solution:\n\n{ADD}\nI hope this helps, good luck!",
        f"{ADD}\n\nInput: 3 4\nOutput: 7",
        f"```Python\r\n{ADD.replace(chr(10), chr(13) + chr(10))}```",
        f"````python\n{ADD}````",
        f"```python\nfor i in range(3\n```\nOops, a bracket is missing. Again:\n```python\n{ADD}```",
        f"```python\n{ADD}```\nor shorter:\n```python\nprint(sum(map(int, input().split())))\n```",
    ],
)
def test_the_program_is_found(text):
    assert extract_program(text) == ADD


def test_comments_are_kept_those_with_three_marks_too():
    program = "### Solution\nx = int(input())\n### Step 2: double it\n\nprint(2 * x)  # done\n#### end\n"
    assert extract_program(program) == program
    assert extract_program(f"```python\n{program}```") == program


def test_a_base_model_that_goes_on_is_cut_where_python_ends():
    text = (
        ADD
        + "\n### Problem 2\nWrite a program that multiplies two numbers.\n\n### Solution\na, b = 1, 2\nprint(a * b)\n"
    )
    assert extract_program(text).rstrip().startswith(ADD.rstrip()) and "multiplies" not in extract_program(text)


def test_the_function_asked_for_is_preferred():
    text = "```python\ndef helper(x):\n    return x\n```\nand\n```python\ndef wanted(x):\n    return 2 * x\n```"
    assert extract_program(text, "wanted").startswith("def wanted")
    assert extract_program(text).startswith("def helper")


@pytest.mark.parametrize(
    "text", ["", "   \n", "I cannot solve this problem.", "The answer is 42.", "```\n3 4\n```", "```text\nno code\n```"]
)
def test_where_there_is_no_program_none_is_made_up(text):
    assert extract_program(text) is None


def test_a_broken_program_stays_broken():
    assert extract_program("```python\ndef f(:\n    return\n```") == "def f(:\n    return\n"
    assert extract_program("def f(x:\n    return x\n") is not None


def test_long_and_hostile_texts_take_no_time():
    for text in (
        "x = (" * 20_000,
        "```python\n" * 5000,
        "def f():\n" * 3000,
        "import os\n" + "A sentence here.\n" * 3000,
        "`" * 100_000,
    ):
        extract_program(text)


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
            {"question": "", "input_output": {"fn_name": "twice", "inputs": [[2], ["a"]], "outputs": [[4], ["aa"]]}},
            2,
            "class Solution:\n  def twice(self, x): return x + x",
            "def twice(x): return 4",
        ),
        (
            {"question": "", "tests": {"fn_name": "pair", "inputs": ["1\n2"], "outputs": ["[1, 2]"]}},
            1,
            "def pair(a, b): return (a, b)",
            "def pair(a, b): return (b, a)",
        ),
        ({"tests": ["assert twice(2) == 4"]}, 1, "def twice(x): return 4", "def twice(x): return 5"),
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
        ({"tests": {"fn_name": "f", "inputs": [], "outputs": []}}, "fn_name 'f'"),
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")
def test_a_file_is_judged_by_command(tmp_path, capsys):
    from tracelift.programs.__main__ import main

    (tmp_path / "problems.jsonl").write_text(json.dumps(HUMANEVAL) + "\n" + json.dumps(MBPP) + "\n")
    texts = [
        {"task_id": "HumanEval/0", "completion": "    return 2 * x\n"},
        {"task_id": "HumanEval/0", "completion": "    return 3 * x\n"},
        {"task_id": 11, "text": "```python\ndef twice(x):\n    return x + x\n```"},
        {"task_id": 11, "text": "I do not know."},
    ]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts))

    def run(*arguments: str) -> tuple[int, str]:
        sys.argv = ["programs", *map(str, arguments)]
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    old = sys.argv
    try:
        code, out = run(tmp_path / "problems.jsonl")
        assert code == 0 and "2 of 2 pass" in out
        code, out = run(
            tmp_path / "problems.jsonl", "--texts", tmp_path / "texts.jsonl", "--out", tmp_path / "out.jsonl"
        )
        assert code == 0 and "2 of 4 pass, on 2 problems" in out and "pass@1 0.5000" in out and "pass@2 1.0000" in out
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [r["status"] for r in rows] == ["passed", "failed_test", "passed", "compile_error"]
        (tmp_path / "texts.jsonl").write_text('{"task_id": "unknown", "text": ""}\n')
        code, out = run(tmp_path / "problems.jsonl", "--texts", tmp_path / "texts.jsonl")
        assert code == 2 and "line 1: no such key or problem: 'unknown'" in out
    finally:
        sys.argv = old


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
