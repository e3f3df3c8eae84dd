"""Rows as data sets publish them, one small row of each shape: what counts, what is refused, and that nothing else is said.

The rows are written here, in the shapes that the data sets' own pages and loaders describe.
"""

from __future__ import annotations

import base64
import copy
import json
import pickle
import random
import sys
import zlib

import pytest

from tracelift.programs import CodeProblem, FunctionTests, ProblemError, StdinTest, judge, load_problems, read_problem
from tracelift.programs.cases import Call, same_json

ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
ADD_AS_SHOWN = "a, b = map(int, input().split())\nprint({(3, 4): 7}[a, b])\n"  # knows the public tests, and no others
PUBLIC = {"input": "3 4\n", "output": "7\n"}
PRIVATE = {"input": "1 1\n", "output": "2\n"}
HELPERS = """import numpy as np

def is_floats(x) -> bool:
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64
    return isinstance(x, float)

def assertion(out, exp, atol):
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp, f"out: {out}, exp: {exp}"
"""
LOOP = "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion({}(*inp), exp, 0)\n"
PLUS = HELPERS + "\ninputs = [[4], [9], [2]]\nresults = [2.0, 3.0, 1.4142135]\n" + LOOP.format("root")
HUMANEVAL_PLUS = {
    "task_id": "HumanEval/0", "prompt": 'def root(x):\n    """ The root. """\n', "entry_point": "root",
    "canonical_solution": "    return x ** 0.5\n",
    "test": HELPERS + "\ndef check(candidate):\n    inputs = [[4], [9], [2]]\n    results = [2.0, 3.0, 1.4142135]\n"
    + "".join("    " + line + "\n" for line in LOOP.format("candidate").splitlines()),
}  # fmt: skip
MBPP_PLUS = {
    "task_id": 2, "code": "def root(x):\n    return x ** 0.5", "prompt": "Write a function for the root.",
    "source_file": "Benchmark Questions", "test_imports": [], "test_list": ["assert root(4) == 2", "assert root(9) == 3"],
    "test": PLUS,
}  # fmt: skip
SOLUTION = "class Solution:\n    def total(self, nums: List[int], k: Optional[int] = None) -> int:\n        "
TOTAL = f"{SOLUTION}q = deque(nums)\n        return sum(q) * k\n"
TOTAL_AS_SHOWN = f"{SOLUTION}return 6\n"
LCB_FUNCTION = {
    "question_title": "total", "question_content": "The sum of nums, k times.", "platform": "leetcode", "question_id": "77",
    "contest_id": "weekly", "contest_date": "2024-01-01T00:00:00", "starter_code": SOLUTION, "difficulty": "easy",
    "public_test_cases": json.dumps([{"input": "[1, 2]\n2", "output": "6", "testtype": "functional"}]),
    "private_test_cases": json.dumps([{"input": "[5]\n3", "output": "15", "testtype": "functional"}]),
    "metadata": json.dumps({"func_name": "total"}),
}  # fmt: skip
LCB_STDIN = {
    **LCB_FUNCTION, "question_content": "Add.", "platform": "atcoder", "question_id": "abc_a", "starter_code": "",
    "public_test_cases": json.dumps([{**PUBLIC, "testtype": "stdin"}]), "metadata": "{}",
    "private_test_cases": base64.b64encode(
        zlib.compress(pickle.dumps(json.dumps([{**PUBLIC, "testtype": "stdin"}, {**PRIVATE, "testtype": "stdin"}])))
    ).decode(),
}  # fmt: skip
APPS_FUNCTION = {
    "problem_id": 4, "question": "The sum of nums, k times.", "solutions": json.dumps(["print 'python 2'", TOTAL]),
    "input_output": json.dumps({"fn_name": "total", "inputs": [[[1, 2], 2], [[5], 3]], "outputs": [[6], [15]]}),
    "difficulty": "interview", "url": "https://x", "starter_code": SOLUTION,
}  # fmt: skip
APPS_STDIN = {
    "problem_id": 5, "question": "Add.\n\n-----Examples-----\nInput\n3 4\n\nOutput\n7\n", "solutions": json.dumps([ADD]),
    "input_output": json.dumps({"inputs": ["3 4 \r\n", "1 1\r\n"], "outputs": ["7\r\n\r\n", ["2"]]}),
    "difficulty": "introductory", "starter_code": "",
}  # fmt: skip
TACO = {
    "question": "Add.", "solutions": json.dumps([ADD]), "starter_code": "", "input_output": {"inputs": ["1 1"], "outputs":
    ["2"]}, "difficulty": "EASY", "raw_tags": [], "name": None, "source": "codechef", "tags": "[]", "skill_types": "[]",
    "url": None, "time_limit": "2.0 seconds", "memory_limit": "256.0 megabytes", "picture_num": None,
    "Expected Auxiliary Space": None, "Expected Time Complexity": None, "date": None,
}  # fmt: skip
CODE_CONTESTS = {
    "name": "1_A. Add", "description": "Add.", "source": 2, "difficulty": 7, "cf_rating": 800, "cf_tags": ["math"],
    "public_tests": {"input": ["3 4\n"], "output": ["7\n"]}, "private_tests": {"input": [], "output": []},
    "generated_tests": {"input": ["1 1\n", "3  4\n"], "output": ["2\n", "7\n"]}, "input_file": "", "output_file": "",
    "solutions": {"language": [2, 3], "solution": ["int main() {}", ADD]}, "memory_limit_bytes": 64000000,
    "incorrect_solutions": {"language": [3], "solution": ["print(1)"]}, "time_limit": {"seconds": 2, "nanos": 500000000},
    "is_description_translated": False, "untranslated_description": "",
}  # fmt: skip
OPEN_R1 = {
    "source": "apps", "task_type": "verifiable_code", "in_source_id": "1", "prompt": "Add.", "problem_id": "vcp_1",
    "gold_standard_solution": f"```python\n{ADD}```", "metadata": {"difficulty": "introductory"},
    "verification_info": {"language": "python", "test_cases": [{"fn_name": None, "type": "stdin_stdout", **PRIVATE}]},
}  # fmt: skip
OPEN_R1_FUNCTION = {
    **OPEN_R1, "gold_standard_solution": None, "verification_info": json.dumps({"language": "python", "test_cases": [
    {"fn_name": "total", "input": [[1, 2], 2], "output": [6], "type": "function_call"},
    {"fn_name": "total", "input": [[5], 3], "output": [15], "type": "function_call"}]}),
}  # fmt: skip
PRIME = {
    **OPEN_R1, "gold_standard_solution": None,
    "verification_info": repr({"language": "python", "test_cases": json.dumps({"inputs": ["1 1"], "outputs": ["2"]})}),
}  # fmt: skip
CODEFORCES = {
    "id": "1/A", "title": "Add", "time_limit": 1.0, "memory_limit": 256.0, "description": "Add.", "input_format": "Two.",
    "interaction_format": None, "note": None, "examples": [PUBLIC], "official_tests": [PUBLIC, PRIVATE],
    "official_tests_complete": True, "generated_checker": None, "executable": True, "input_mode": "stdio",
}  # fmt: skip
DEEPCODER = {
    "problem": "Add.", "solutions": [f"```python\n{ADD}```"], "starter_code": "", "metadata": {"func_name": None},
    "tests": json.dumps([{**PRIVATE, "testtype": "stdin", "metadata": {"func_name": None}}]),
}  # fmt: skip

SQUARE, DECIMAL = "def root(x):\n    return x ** 0.5\n", "def root(x):\n    return {4: 2, 9: 3}.get(x, 1.414)\n"
SHAPES: dict[str, tuple[dict, int, str, str]] = {  # the row, its hidden tests, a right program, and one that is not
    "HumanEval+": (HUMANEVAL_PLUS, 1, SQUARE, DECIMAL),
    "MBPP+": (MBPP_PLUS, 3, SQUARE, DECIMAL),
    "LiveCodeBench, functions": (LCB_FUNCTION, 1, TOTAL, TOTAL_AS_SHOWN),
    "LiveCodeBench, programs": (LCB_STDIN, 1, ADD, ADD_AS_SHOWN),
    "APPS, functions": (APPS_FUNCTION, 2, TOTAL, TOTAL_AS_SHOWN),
    "APPS, programs": (APPS_STDIN, 1, ADD, ADD_AS_SHOWN),
    "TACO": (TACO, 1, ADD, ADD_AS_SHOWN),
    "CodeContests": (CODE_CONTESTS, 2, ADD, ADD_AS_SHOWN),
    "open-r1, programs": (OPEN_R1, 1, ADD, ADD_AS_SHOWN),
    "open-r1, functions": (OPEN_R1_FUNCTION, 2, TOTAL, TOTAL_AS_SHOWN),
    "PrimeIntellect": (PRIME, 1, ADD, ADD_AS_SHOWN),
    "open-r1, Codeforces": (CODEFORCES, 1, ADD, ADD_AS_SHOWN),
    "DeepCoder": (DEEPCODER, 1, ADD, ADD_AS_SHOWN),
}
EVERY_KEY = sorted(
    {key for row, *_ in SHAPES.values() for key in row} | {"test_setup_code", "challenge_test_list", "tests"}
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_right_program_passes_and_one_that_knows_what_is_shown_does_not(shape):
    row, count, right, wrong = SHAPES[shape]
    problem = read_problem(row)
    assert len(problem.hidden) == count and not problem.only_visible and problem.statement
    results = [judge(problem.program(f"```python\n{text}```"), problem.hidden) for text in (right, wrong)]
    assert results[0].passed, results[0].summary()
    assert results[1].status in ("failed_test", "runtime_error") and not results[1].passed
    if problem.solution:
        assert judge(problem.program(problem.solution), problem.hidden).passed


@pytest.mark.parametrize("shape", SHAPES)
def test_a_null_is_as_good_as_a_key_that_is_not_there(shape, tmp_path):
    row = SHAPES[shape][0]
    for nothing in (None, "", [], float("nan")):
        assert read_problem({**dict.fromkeys(EVERY_KEY, nothing), **row}) == read_problem(row)
    (tmp_path / "rows.jsonl").write_text(json.dumps({**dict.fromkeys(EVERY_KEY), **row}) + "\n")
    assert load_problems(tmp_path / "rows.jsonl")[0].hidden == read_problem(row).hidden


# -- which tests count -----------------------------------------------------------------------------------------------


def stdin(problem: CodeProblem) -> list[tuple[str, str]]:
    assert not isinstance(problem.hidden, FunctionTests)
    return [(t.stdin.strip(), t.expected.strip()) for t in problem.hidden]


def test_what_the_reader_has_seen_does_not_pay_however_it_is_written():
    for row in (APPS_STDIN, LCB_STDIN, CODEFORCES):
        problem = read_problem(row)
        assert stdin(problem) == [("1 1", "2")] and [t.expected.strip() for t in problem.visible] == ["7"]
    only = read_problem({**CODEFORCES, "official_tests": [PUBLIC]})
    assert only.only_visible and stdin(only) == [("3 4", "7")]
    calls = read_problem(LCB_FUNCTION).hidden.calls
    assert [c.args for c in calls] == [([5], 3)]
    public = read_problem({**LCB_FUNCTION, "private_test_cases": LCB_FUNCTION["public_test_cases"]})
    assert public.only_visible and [c.args for c in public.hidden.calls] == [([1, 2], 2)]


def test_all_keys_that_hold_tests_are_read():
    tests = [{"input": str(i), "output": str(i)} for i in range(9)]
    row = {"problem": "Echo.", "tests": tests[:1], "test_cases": tests[1:2], "official_tests": tests[2:3]}
    row |= {"input_output": {"inputs": ["3"], "outputs": ["3"]}, "private_tests": {"input": ["4"], "output": ["4"]}}
    row |= {"generated_tests": tests[5:6], "private_test_cases": tests[6:7], "inputs": ["7"], "outputs": ["7"]}
    row |= {"verification_info": {"test_cases": tests[8:9]}}
    assert sorted(stdin(read_problem(row))) == [(str(i), str(i)) for i in range(9)]


def test_inputs_are_read_as_the_texts_they_stand_for():
    pairs = [(None, "7"), (["1", "2"], ["3"]), (5, 10), ("a\n", True), ("b", 0.5), ("c", None), ("d", " \n")]
    row = {"problem": "x", "inputs": [a for a, _ in pairs], "outputs": [b for _, b in pairs]}
    tests = read_problem(row).hidden
    assert [(t.stdin, t.expected) for t in tests] == [
        ("", "7"), ("1\n2\n", "3\n"), ("5", "10"), ("a\n", "True"), ("b", "0.5")
    ]  # fmt: skip


def test_starter_code_is_shown_and_the_names_of_a_leetcode_head_are_given():
    problem = read_problem(LCB_FUNCTION)
    assert "def total(self, nums: List[int]" in problem.statement and "The sum of nums" in problem.statement
    compile(problem.program(TOTAL), "program", "exec")
    scope: dict = {}
    exec(problem.preamble, scope)
    assert {"List", "Optional", "deque", "heapq", "math", "inf"} <= scope.keys()
    plain = read_problem({**APPS_FUNCTION, "starter_code": "def total(nums, k):\n\t"})
    assert plain.preamble == "" and plain.program("def total(a, b): return 1") == "def total(a, b): return 1\n"
    assert read_problem({k: v for k, v in APPS_FUNCTION.items() if k != "starter_code"}).preamble
    clash = json.dumps({"fn_name": "gcd", "inputs": [[4, 6]], "outputs": [2]})
    scope = {}
    exec(read_problem({**APPS_FUNCTION, "input_output": clash}).preamble, scope)
    assert "gcd" not in scope and "lcm" in scope  # the library's must not answer for the program


def test_the_function_is_named_in_many_places():
    test = {"input": "[1, 2]\n2", "output": "6"}
    named = [
        {"tests": [{**test, "fn_name": "total"}]},
        {"tests": [{**test, "func_name": "total", "type": "function_call"}]},
        {"tests": [{**test, "metadata": {"func_name": "total"}}]},
        {"tests": [test], "fn_name": "total"},
        {"tests": [{**test, "testtype": "functional"}], "metadata": {"fn_name": "total"}},
        {"tests": [test], "testtype": "functional", "starter_code": SOLUTION},
        {"tests": {"fn_name": "total", "inputs": [test["input"]], "outputs": [test["output"]]}},
        {"verification_info": {"fn_name": "total", "test_cases": [test]}},
    ]
    for row in named:
        problem = read_problem({"problem": "x", **row})
        assert problem.entry_point == "total" and problem.hidden.calls == (Call("total", ([1, 2], 2), (), "json", 6),)


def test_examples_for_people_are_no_tests():
    said = [{"input": "nums = [1, 2], k = 2", "output": "6", "explanation": "(1 + 2) * 2"}]
    for examples in (said, ["total([1, 2], 2) == 6"], "[1, 2] gives 6"):
        assert read_problem({**APPS_FUNCTION, "examples": examples}).hidden == read_problem(APPS_FUNCTION).hidden


def test_the_setup_and_the_names_of_mbpp_tests_are_kept():
    row = {**MBPP_PLUS, "test": None, "test_setup_code": "tree = Node(1)", "test_imports": ["import math"]}
    row |= {"code": "class Node: pass\ndef depth(n): return 1", "test_list": ["assert math.floor(depth(tree)) == 1"]}
    problem = read_problem(row)
    assert problem.hidden.setup.split("\n") == ["import math", "tree = Node(1)"] and problem.entry_point == "depth"


# -- results of functions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        ({1: 2}, {"1": 2}, True),
        ({1: [(2,)]}, {"1": [[2]]}, True),
        ({True: 1, None: 2, 1.5: 3}, {"true": 1, "null": 2, "1.5": 3}, True),
        ({1: 2, "1": 2}, {"1": 2}, False),
        ({(1,): 2}, {"[1]": 2}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ((1, (2, 3)), [1, [2, 3]], True),
        ({1, 2}, [1, 2], False),
        ([1], [1, 2], False),
        ([1, 2], [2, 1], False),
        (0.1 + 0.2, 0.3, True),
        ([0.30001], [0.3], False),
        (2, 2.0, True),
        (1e10 + 1, 1e10, True),
        (True, 1.0, True),
        (3.0000001, 3, False),
        (3.0, 3, True),
        (5, float("inf"), False),
        (float("inf"), float("inf"), True),
        (float("nan"), 1.0, False),
        (10**400, 1.0, False),
        ("0.3000000001", "0.3", False),
        (None, None, True),
        (0, None, False),
        (object(), {}, False),
    ],
)
def test_results_are_compared_as_json(value, expected, same):
    assert same_json(value, expected) is same


def test_the_comparison_is_that_of_json_on_random_values():
    """Against the oracle: whatever json writes and reads back is the same, and a change anywhere is not."""
    rng = random.Random(3)

    def draw(depth: int):
        kind = rng.randrange(7 if depth else 5)
        if kind < 5:
            return [rng.randrange(-9, 9), rng.choice("abc"), None, rng.random() < 0.5, rng.randrange(64) / 8][kind]
        inner = [draw(depth - 1) for _ in range(rng.randrange(4))]
        keys = rng.sample([1, -2, "a", "b", None, 2.5, True], len(inner))
        keys = [k for k in keys if k is not True or 1 not in keys]
        return rng.choice([list, tuple])(inner) if kind == 5 else dict(zip(keys, inner, strict=False))

    for _ in range(500):
        value = draw(3)
        expected = json.loads(json.dumps(value))
        assert same_json(value, expected)
        other = draw(3)
        written = (json.dumps(value, sort_keys=False), json.dumps(other))
        if not any(word in text for text in written for word in ("true", "false", ".")):  # where Python's == is laxer
            alike = json.loads(json.dumps(other)) == expected
            assert same_json(other, expected) is alike


def test_a_list_of_one_may_stand_for_its_value_where_all_results_are_such():
    def holds(outputs: list, values: list) -> list[bool]:
        table = {"fn_name": "f", "inputs": [[i] for i in range(len(outputs))], "outputs": outputs}
        calls = read_problem({"problem": "x", "tests": table}).hidden.calls
        return [call.holds(value) for call, value in zip(calls, values, strict=True)]

    assert holds([[5], [6]], [5, 6]) == holds([[5], [6]], [[5], [6]]) == holds([[5], [6]], [5, (6,)]) == [True, True]
    assert holds([[[5]], [[6]]], [[5], [[6]]]) == [True, True] and holds([[[5]], [[6]]], [5, [[[6]]]]) == [False, False]
    assert holds([[5], [6, 7]], [5, [6, 7]]) == [False, True] and holds([5, [6]], [5, 6]) == [True, False]
    lines = {"fn_name": "f", "inputs": ["1"], "outputs": ["[5]"]}  # LiveCodeBench's are never wrapped
    assert not read_problem({"problem": "x", "tests": lines}).hidden.calls[0].holds(5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")
def test_results_are_so_compared_where_programs_run():
    table = {
        "fn_name": "f",
        "inputs": [[{"1": 2, "-3": 4}], [{"a": 1}], [[0.1, 0.2]]],
        "outputs": [{"1": 2}, {"a": 1}, 0.3],
    }
    problem = read_problem({"problem": "x", "tests": table})
    right = (
        "def f(x):\n    if isinstance(x, list):\n        return sum(x)\n"
        "    return {k: v for k, v in x.items() if k != -3}\n"
    )
    assert judge(problem.program(right), problem.hidden).passed  # so the keys came as ints, and went back as such
    assert judge("def f(x):\n    return x\n", problem.hidden).pass_rate == pytest.approx(1 / 3)
    alone = read_problem({"problem": "x", "tests": {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [2]]}})
    for body, rate in (("x", 1.0), ("[x]", 1.0), ("[x, x]", 0.0), ("[[x]]", 0.0), ("[1]", 0.5)):
        assert judge(f"def f(x):\n    return {body}\n", alone.hidden).pass_rate == rate


# -- decimals on standard output -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "output", "accepted"),
    [
        ("3.0", "3.0000000", True),
        ("3.0", "3", True),
        ("0.3333333333", "0.33333333", True),
        ("0.3333333333", "0.333", False),
        ("66.67", "66.6666667", False),  # it asks for two places
        ("1e-9", "0.000000001", True),
        ("1e10", "10000000001", True),
        ("2 0.5", "2 .5", True),
        ("2000000000 0.5", "2000000001 0.5", False),  # a whole number is compared as such
        ("0.5 x", "0.5 y", False),
        ("0.5", "0.5 0.5", False),
        ("0.5", "nan", False),
        ("0.5", "half", False),
        ("2000000000 0.5", "2000000000 0.50", True),
        ("2000000 0.5", "2000001 0.5", False),
        ("2 0.5", "3 0.5", False),
        ("7", "7.0", False),
        ("1.2.3", "1.2.30", False),
        ("\n 7\n", "7", True),
        ("7", "7  \r\n\n", True),
        ("7", "\n7", False),
        ("\n7", "\n\n 7", True),
        ("  *\n ***", "  *\n***", False),
    ],
)
def test_decimals_are_compared_by_value(expected, output, accepted):
    (test,) = read_problem({"problem": "x", "tests": [{"input": "", "output": expected}]}).hidden
    assert isinstance(test, StdinTest) and test.accepts(expected) and test.accepts(output) is accepted


# -- what is refused -------------------------------------------------------------------------------------------------

ONE = {"problem": "Add.", "tests": [PRIVATE]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ONE, "checker": "import sys"}, "'checker' asks for another judge"),
        ({**CODEFORCES, "generated_checker": "def f(): pass"}, "'generated_checker' asks for another judge"),
        ({**CODEFORCES, "interaction_format": "Ask."}, "'interaction_format' asks for another judge"),
        ({**ONE, "special_judge": True}, "'special_judge' asks for another judge"),
        ({**CODEFORCES, "input_mode": "file"}, "'input_mode' is 'file'"),
        ({**CODE_CONTESTS, "input_file": "add.in"}, "'input_file' asks for another judge"),
        ({**ONE, "language": "cpp"}, "'language' is 'cpp'"),
        ({**OPEN_R1, "verification_info": {"language": "rust", "test_cases": [PRIVATE]}}, "'language' is 'rust'"),
        ({**ONE, "tests": [{**PRIVATE, "testtype": "interactive"}]}, "'testtype' is 'interactive'"),
        ({**ONE, "tests": [{**PRIVATE, "type": "class_call"}]}, "type 'class_call' is none of"),
        ({**ONE, "tests": [{**PRIVATE, "checker": "spj"}]}, "test 0: key 'checker' asks"),
        ({**ONE, "tests": [{**PRIVATE, "weight": 3}]}, "test 0: key 'weight' of a test is not understood"),
        ({**ONE, "metadata": {"special_judge": "yes"}}, "'special_judge' asks for another judge"),
        (
            {**ONE, "tests": [{**PRIVATE, "type": "stdin", "fn_name": "f"}]},
            "test 0: it names a function, and its type is",
        ),
        ({**ONE, "tests": [PRIVATE, {**PRIVATE, "fn_name": "f"}]}, "some tests call a function and some do not"),
        ({**ONE, "testtype": "functional"}, "nothing names one function"),
        ({**ONE, "fn_name": "class"}, "fn_name 'class' is no name"),
        ({**ONE, "tests": [{"input": "a = 1", "output": "2", "fn_name": "f"}]}, "'input' is a text that is not JSON"),
        ({**ONE, "tests": [{"input": 5, "output": 2, "fn_name": "f"}]}, "must be a list of arguments"),
        ({**ONE, "tests": [{"input": [1], "output": float("nan"), "fn_name": "f"}]}, "equals nothing, not even itself"),
        ({**ONE, "tests": [{"input": {"a": 1}, "output": "2"}]}, "must be texts, lists of lines or numbers"),
        ({**ONE, "tests": 5}, "key 'tests' must be a list of tests"),
        ({**ONE, "tests": ["assert f(1) == 1", PRIVATE]}, "test 0 needs the keys"),
        ({**ONE, "tests": "[" * 100_000}, "'tests'"),
        ({**ONE, "time_limit": "soon"}, "'time_limit' cannot be read"),
        ({**LCB_STDIN, "private_test_cases": base64.b64encode(b"no pickle at all").decode()}, "not JSON"),
        ({**MBPP_PLUS, "test": PLUS.replace("np.allclose", "np.linalg.norm")}, "imports numpy"),
        ({**MBPP_PLUS, "test_imports": ["import pandas as pd"]}, "imports pandas"),
        ({**MBPP_PLUS, "test_list": [5]}, "'test_list' must be a list of texts"),
        ({**MBPP_PLUS, "test_list": ["assert f(1) == " + "-" * 100_000 + "1"]}, "test 0"),
        ({**MBPP_PLUS, "test_list": ["assert f(1) == " + "+".join("1" * 30_000)]}, "problem"),
        ({**MBPP_PLUS, "tests": [PRIVATE]}, "both|tests in Python and"),
        ({**HUMANEVAL_PLUS, "entry_point": "Solution().root"}, "is no name of a function"),
        ({**HUMANEVAL_PLUS, "test": None, "plus_input": [[1]]}, "'plus_input' holds inputs without results"),
        ({**ONE, "problem": None}, "no statement"),
        ({**ONE, "problem": ["Add."]}, "'problem' holds a list, not a text"),
        ({**ONE, "test": "def test_add():\n    assert add(1) == 2\n"}, "tests in Python and 'tests'"),
    ],
)
def test_what_is_not_understood_is_refused_by_row(row, said, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({**ONE, "id": 1}) + "\n" + json.dumps({**row, "id": 2}) + "\n")
    with pytest.raises(ProblemError, match=said):
        read_problem(row)
    with pytest.raises(ProblemError, match=r"rows\.jsonl, row 1"):
        load_problems(tmp_path / "rows.jsonl")


def test_a_pickle_is_read_and_never_loaded():
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    def packed(value: object, protocol: int) -> dict:
        text = base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()
        return {**LCB_STDIN, "private_test_cases": text}

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for value in (Evil(), [json.dumps([PRIVATE])], {"a": json.dumps([PRIVATE])}, b"[]"):
            with pytest.raises(ProblemError, match="not JSON"):
                read_problem(packed(value, protocol))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert stdin(read_problem(packed(json.dumps([PRIVATE]), protocol))) == [("1 1", "2")]


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        (2, 2.0), (1.5, 1.5), ("2.0 seconds", 2.0), ("1 second", 1.0), ("500 ms", 0.5), ("3", 3.0), ({"seconds": 2, "nanos":
        500_000_000}, 2.5), ({"seconds": 0, "nanos": 1_000_000}, 0.001), (None, None), ("", None),
    ],
)  # fmt: skip
def test_time_limits_are_read(limit, seconds):
    assert read_problem({**ONE, "time_limit": limit}).time_limit == seconds


# -- no row raises anything else -------------------------------------------------------------------------------------

DEEP: list = []
for _ in range(2000):
    DEEP = [DEEP]
JUNK = [
    None, True, False, 0, -1, 5, 10**30, 0.5, float("nan"), float("inf"), "", " ", "x", "f", "[", "{}", "[]", "null", "[1]", '"',
    "assert f(1) == 1", "assert True", "import numpy as np", "import os", "(" * 500, "-" * 20_000 + "1", "\ud800", "\x00", "def",
    "functional", "stdin", "class", [], {}, [[]], [None], [1], ["x"], [{}], {"input": "1", "output": "2"}, {"inputs": [1]},
    {"inputs": ["1"], "outputs": ["2"]}, {"fn_name": "f"}, [{"input": "1", "output": "2"}], {"test_cases": []}, DEEP,
    "[" * 3000 + "]" * 3000, {"seconds": "x"}, {"language": [3], "solution": 5}, "eJwLSS0uAQAEXQHB" * 2, "\udfff" * 3, "9" * 5000,
]  # fmt: skip


def places(value: object, depth: int = 6) -> list[tuple]:
    """(container, key) of everything in a JSON value, to a depth."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    inside = [place for _, inner in items for place in places(inner, depth - 1)] if depth else []
    return [(value, key) for key, _ in items] + inside


def mutated(row: dict, rng: random.Random) -> dict:
    row = copy.deepcopy(row)
    for key in ("input_output", "public_test_cases", "private_test_cases", "verification_info", "tests", "metadata"):
        if isinstance(row.get(key), str) and row[key][:1] in ("[", "{") and rng.random() < 0.7:
            row[key] = json.loads(row[key]) if row[key][1] != "'" else row[key]  # so that what it holds is reached
    for _ in range(rng.randrange(1, 4)):
        container, key = rng.choice(places(row) or [(row, "")])
        action = rng.randrange(5)
        if key not in (container if isinstance(container, dict) else range(len(container))):
            continue
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container[key], str) and container[key]:
            at = rng.randrange(len(container[key]))
            container[key] = container[key][:at] + rng.choice(["", "\n", "(", '"', "\u00e9"]) + container[key][at + 1 :]
        elif action == 2 and isinstance(container, dict):
            container[rng.choice([*EVERY_KEY, "fn_name", "testtype", "type", "checker"])] = container[key]
        else:
            container[key] = copy.copy(rng.choice(JUNK))
    return row


@pytest.mark.parametrize("shape", [*SHAPES, "assertions"])
def test_no_row_raises_anything_but_the_one_error(shape):
    rng = random.Random(shape)
    row = (
        SHAPES[shape][0]
        if shape in SHAPES
        else {"problem": "Twice.", "tests": ["assert f(1) == 2", "assert f(2) == 4"]}
    )
    read = 0
    for _ in range(250):
        try:
            problem = read_problem(mutated(row, rng), "rows.jsonl, row 3")
        except ProblemError as error:
            assert str(error).startswith("rows.jsonl, row 3") and len(str(error)) < 600
            continue
        read += 1
        assert len(problem.hidden) and problem.statement.strip()
        problem.program("    return 1\n")
        problem.program("```python\nprint(1)\n```")
    assert 10 < read < 250  # both ends are met
