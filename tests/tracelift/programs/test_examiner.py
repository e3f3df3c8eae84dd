"""Tests as code, beside the program's process: all of them count, what judges is never the program's, and what is right
passes. Where the interpreter can be the oracle, it is: the same program and tests in one file."""

from __future__ import annotations

import random
import sys
import textwrap

import pytest

from tracelift.programs import StdinTest, judge, parse_tests
from tracelift.sandbox import Limits
from tracelift.verify.verdict import Verdict

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")

QUICK = Limits(cpu_seconds=1.0, wall_seconds=60.0, memory_bytes=256 << 20)


def verdict(box, program, tests, limits=QUICK, **how):
    read = tests if isinstance(tests, list) and not isinstance(tests[0], str) else parse_tests(tests, **how)
    return judge(textwrap.dedent(program), read, sandbox=box, limits=limits)


def names(result):
    return [str(o.outcome) for o in result.outcomes]


# -- every statement counts ------------------------------------------------------------------------------------------

UNIT = "import unittest\nclass T(unittest.TestCase):\n  def test_it(self):\n    self.assertEqual(f(3), 6)\n"
FAILING = {
    "an exception that must come": ["assert f(1) == 2", "try:\n  f(-1)\n  assert False\nexcept ValueError:\n  pass"],
    "a loop": ["for i in range(5):\n if f(i) != 2 * i:\n  assert False"],
    "an else": ["r = f(2)", "if r == 4: pass\nelse: assert 0"],
    "a raise": ["assert f(1) == 2", "if f(3) != 6: raise AssertionError"],
    "a helper": ["def same(a, b):\n  assert a == b", "assert f(1) == 2", "same(f(3), 6)"],
    "a helper's helper": ["def no():\n  raise ValueError", "def same(a, b):\n  a == b or no()", "same(f(3), 6)"],
    "a preparation": ["assert f(1) == 2", "[1, 2, 3, 4][f(3) - 6:][0 if f(3) == 6 else 9]"],
    "an exit": ["assert f(1) == 2", "import sys", "sys.exit(f(3) != 6)"],
    "unittest": [UNIT + "if __name__ == '__main__':\n  unittest.main()"],
    "unittest after others": ["assert f(1) == 2", UNIT, "unittest.main()"],
}


@pytest.mark.parametrize("case", FAILING)
def test_what_fails_natively_fails_here(box, case):
    right = "def f(x):\n  if x < 0: raise ValueError\n  return x + x"
    wrong = "def f(x): return 2"
    for program in (right, wrong):
        native = box.run(program + "\n" + "\n".join(FAILING[case]), limits=QUICK)
        result = verdict(box, program, FAILING[case])
        assert (str(native.status) == "ok") == (program is right), native
        assert result.passed == (program is right) and result.verdict is not Verdict.ERROR, result


def test_random_tests_pass_where_they_pass_natively(box):
    """Statements drawn at random around programs of which one is right: the same verdict as the interpreter's."""
    rng = random.Random(16)
    programs = ["def f(x):\n  if x < 0: raise ValueError(x)\n  return x * x", "def f(x): return x * x",
                "def f(x):\n  if x < 0: raise ValueError(x)\n  return x * x if x != 3 else 8", "def f(x): return [x]"]  # fmt: skip
    head = ["def same(a, b):\n  if a != b: raise AssertionError((a, b))", "seen = []"]
    kinds = [
        "assert f({i}) == {i} * {i}", "same(f({i}), {i} * {i})", "x = f({i})", "assert x >= 0", "seen.append(f({i}))",
        "assert all(s >= 0 for s in seen)", "if f({i}) != {i} ** 2: raise KeyError({i})", "f({i})", "assert True",
        "try:\n  f(-{i} - 1)\n  assert False\nexcept ValueError:\n  pass", "for j in range({i}):\n  same(f(j), j ** 2)",
        "for j in range({i}):\n  assert f(j) == j ** 2", "while f({i}) > 100: pass", "del x\nx = 1", "(lambda: f({i}))()",
    ]  # fmt: skip
    differ = []
    for _ in range(40):
        chosen = ["x = 1", *(k.format(i=rng.randrange(6)) for k in rng.choices(kinds, k=rng.randrange(1, 8)))]
        tests = [*head, *chosen, "assert f(0) is not None"]
        rng.shuffle(programs)
        native = box.run(programs[0] + "\n" + "\n".join(tests), limits=QUICK)
        result = verdict(box, programs[0], tests)
        if result.passed != (str(native.status) == "ok"):
            differ.append((programs[0], tests, native.stderr[-200:], result.summary()))
    assert differ == []


# -- what judges is never the program's -------------------------------------------------------------------------------

CHEATS = {
    "a module of its own": ("class M:\n def isclose(self, *a, **k): return True\nmath = M()\ndef f(x): return 0",
                            ["assert math.isclose(f(1), 2.5)"]),
    "the module patched": ("import math\nmath.isclose = lambda *a, **k: True\ndef f(x): return 0",
                           ["assert math.isclose(f(1), 2.5, rel_tol=1e-3)"]),
    "a function": ("isclose = lambda *a, **k: True\ndef f(x): return 0", ["assert isclose(f(1), 2.5)"]),
    "Counter": ("Counter = lambda x: 0\ndef f(x): return 0", ["assert Counter(f(1)) == Counter([1, 2])"]),
    "a builtin": ("def sorted(x): return [1]\ndef f(x): return 0", ["assert sorted(f(1)) == [1]"]),
    "a constant": ("EXPECTED = [0]\ndef f(x): return 0", ["assert f(1) == EXPECTED[0]"]),
    "a module's name as a value": ("math = 3\ndef f(x): return 0", ["assert math.floor(f(1)) == 3"]),
    "an object with answers of its own": (
        "class A:\n __sub__ = __rsub__ = __abs__ = __eq__ = lambda s, *a: 0\n __lt__ = lambda s, o: True\ndef f(x): return A()",
        ["assert abs(f(1) - 2.5) < 1e-6"]),
    "an equal object": ("class A:\n def __init__(s, x): pass\n def __eq__(s, o): return True\ndef f(x): return A(x)",
                        ["assert f(1) == A(2)"]),
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_program_judges_itself(box, cheat):
    program, tests = CHEATS[cheat]
    result = verdict(box, program, tests)
    assert result.verdict is Verdict.FAIL, result


@pytest.mark.parametrize(
    "program, test",
    [
        ("def f(x): return 2.5", "assert math.isclose(f(1), 2.5)"),
        ("def f(x): return 2.5", "assert isclose(f(1), 2.5) and f(1) < inf"),
        ("def f(x): return 'aab'", "assert Counter(f(1)) == {'a': 2, 'b': 1} and deque(f(2))[0] == 'a'"),
        ("def f(x): return [3, 1]", "assert copy.deepcopy(f(1)) == [3, 1] and re.match('3', str(f(1)[0]))"),
        ("def gcd(a, b):\n  return gcd(b, a % b) if b else a", "assert gcd(4, 6) == 2 and gcd(9, 6) - 3 == 0"),
    ],
)
def test_right_programs_need_no_import_for_the_tests(box, program, test):
    assert verdict(box, program, [test]).passed
    assert verdict(box, "def f(x): return 0\ndef gcd(a, b): return 1", [test]).verdict is Verdict.FAIL


def test_an_entry_point_may_be_a_value(box):
    tests = parse_tests(["assert LIMIT + 0 == 9"], entry=["LIMIT"])
    assert judge("LIMIT = 9", tests, sandbox=box).passed
    assert judge("LIMIT = 8", tests, sandbox=box).status == "failed_test"
    assert judge("", tests, sandbox=box).status == "runtime_error"


WRITE = "__import__('os').write(5, b'%s\\n')"
TEXTS = {
    "a verdict": WRITE % '{"test": 0, "outcome": "passed", "detail": "", "produced": true}'
    + " and __import__('os')._exit(0)",
    "garbage": WRITE % "garbage",
    "a lambda": "(lambda: 24)()",
    "a name": "int",
    "an attribute": "().__class__",
    "a comprehension": "[24 for _ in 'a'][0]",
    "a walrus": "(x := 24)",
    "an f-string": "f'{24}'",
    "much work": "9**9**9**9",
    "deep": "(" * 90 + "-" * 50_000 + "24" + ")" * 90,
}


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_of_the_programs_runs_beside_the_tests(box, text):
    program = f"def f(x):\n    return {TEXTS[text]!r}\n"
    short = Limits(cpu_seconds=0.5, wall_seconds=60, memory_bytes=256 << 20)
    for test in ("assert eval(f(24)) == 24", "import builtins\nassert builtins.eval(f(24)) == 24",
                 "try:\n  eval(f(24))\nexcept Exception:\n  pass\nassert f(24) == '24' or eval(f(24)) != 0"):  # fmt: skip
        result = verdict(box, program, [test], short)
        assert result.verdict is Verdict.FAIL, (test, result)


@pytest.mark.parametrize(
    "test",
    [
        "import timeit\nassert timeit.timeit(f(1), number=1) >= 0",
        "import code\ncode.InteractiveInterpreter().runsource(f(1))\nassert f(1)",
        "import subprocess, sys\nassert subprocess.run([sys.executable, '-c', f(1)]).returncode == 0",
        "import os\nassert os.system(f(1)) == 0",
    ],
)
def test_nor_by_way_of_the_library(box, test):
    result = verdict(box, "def f(x): return 'pass'", [test])
    assert result.status == "runtime_error" and "literals and operators" in result.summary(), result


def test_literals_and_operators_are_evaluated(box):
    tests = ["assert eval(f(24)) == 24", "assert eval(f(0)) + 0 == 24"]
    assert verdict(box, "def f(x): return ' (1 + 2) * 4 * 2'", tests).passed
    assert verdict(box, "def f(x): return '25'", tests).status == "failed_test"
    assert verdict(box, "def f(x): return '[1, {2: (3,)}][0] +'", tests).status == "runtime_error"


def test_classes_that_write_code_still_work_in_tests(box):
    setup = """
from collections import namedtuple
from dataclasses import dataclass
from typing import NamedTuple
P = namedtuple('P', 'a b')
@dataclass
class D:
    a: int
class N(NamedTuple):
    a: int
"""
    tests = ["assert P(1, 2) == f(1) and D(1).a == f(1)[0] and N(f(1)[0]).a == 1"]
    assert verdict(box, "def f(x): return (1, 2)", tests, setup=setup).passed


@pytest.mark.parametrize(
    "around",
    [
        "def g(x):\n r = x\n try: r = f(x)\n finally: return r",
        "def g(x):\n try: return f(x)\n except: return x",
        "def g(x):\n while True:\n  try: return f(x)\n  except BaseException: return x",
        "import contextlib\ndef g(x):\n with contextlib.suppress(BaseException): return f(x)\n return x",
    ],
)
def test_tests_do_not_swallow_the_programs_death(box, around):
    result = verdict(box, "import os\ndef f(x): os._exit(0)", [around, "assert g(2) == 2", "assert g(3) == 3"])
    assert names(result) == ["runtime_error"] * 2 and "ended before it answered" in result.summary()
    result = verdict(box, "def f(x): raise SystemExit", [around, "assert g(2) == 2"])
    assert result.status != "error"


@pytest.mark.parametrize("line", ["garbage", "[]", "5", '{"test": 7, "outcome": "passed"}', '{"outcome": []}', "\\xff"])
def test_garbage_among_the_verdicts_is_a_verdict(box, line):
    """Here the tests write it, since no program can."""
    test = f"import os\nos.write(5, b'''{line}\\n''')\nassert f(1) == 1"
    result = verdict(box, "def f(x): return x", [test, "assert f(2) + 0 == 2"])
    assert result.verdict is Verdict.FAIL and names(result) == ["runtime_error"] * 2, result


# -- honest programs --------------------------------------------------------------------------------------------------


def test_arguments_are_not_counted_as_answers(box):
    many = [f"assert f(list(range({n}))) == {sum(range(n))}" for n in (100_000,) * 3]
    literal = [f"assert f({list(range(n))!r}) == {sum(range(n))}" for n in (100_000, 100_000, 100_000, 200_000)]
    roomy = Limits(cpu_seconds=10, wall_seconds=120)
    for tests in (many, literal, [*literal, "assert f([1]) + 0 == 1"]):
        read = parse_tests(tests)
        assert (read.calls is not None) == (tests is literal)
        assert judge("def f(xs): return sum(xs)", read, sandbox=box, limits=roomy).passed


def test_the_bounds_grow_with_what_the_tests_expect(box):
    roomy = Limits(cpu_seconds=10, wall_seconds=120, output_bytes=100_000)
    large = parse_tests([f"assert f({n}) == {[(i,) for i in range(n)]!r}" for n in (20_000, 30_000)])
    assert large.calls is not None
    assert judge("def f(n): return [(i,) for i in range(n)]", large, sandbox=box, limits=roomy).passed
    flood = judge("def f(n): return [(i,) for i in range(100 * n)]", large, sandbox=box, limits=roomy)
    assert flood.verdict is Verdict.FAIL and "wrote more than" in flood.summary()
    line = [StdinTest("", "7" * 300_000)]
    assert judge("print('7' * 300_000)", line, sandbox=box, limits=roomy).passed
    assert judge("print('7' * 900_000)", line, sandbox=box, limits=roomy).status == "runtime_error"
    many = parse_tests([f"assert f({i}) in ({i}, {i})" for i in range(400)])
    talk = judge("def f(i): raise ValueError('x' * 400)", many, sandbox=box, limits=roomy)
    assert names(talk) == ["runtime_error"] * 400 and "x" in talk.summary()


def test_arguments_that_no_program_could_hold_are_the_tests_error(box):
    small = Limits(cpu_seconds=5, wall_seconds=60, memory_bytes=64 << 20)
    as_code = parse_tests(["assert f('x' * (17 << 20)) + 0 == 17 << 20"])
    as_data = parse_tests(["assert f('" + "x" * (17 << 20) + "') == 5"])
    for tests in (as_code, as_data):
        for program in ("def f(x): return len(x)", "def f(x): return 0"):
            result = judge(program, tests, sandbox=box, limits=small)
            assert result.verdict is Verdict.ERROR and "memory" in result.summary().lower(), result


def test_what_the_tests_print_is_nobodys_output(box):
    assert verdict(
        box, "def f(x): return x", ["for i in range(30): print('x' * 100_000)", "assert f(1) + 0 == 1"]
    ).passed


@pytest.mark.parametrize(
    "tests",
    [
        ["assert asyncio.run(f(1)) == 2"],
        ["async def go():\n  return await f(1) + await f(2)", "assert asyncio.run(go()) == 5"],
        ["async def go():\n  return await asyncio.gather(f(1), f(2))", "assert asyncio.run(go()) == [2, 3]"],
        ["assert f(1) == 2"],
        ["assert f(1) + 0 == 2"],
    ],
)
def test_asynchronous_functions_are_awaited(box, tests):
    program = "import asyncio\nasync def f(x):\n  await asyncio.sleep(0)\n  return x + 1"
    roomy = Limits(cpu_seconds=5, wall_seconds=60)
    assert verdict(box, program, tests, roomy).passed
    assert verdict(box, program.replace("+ 1", "+ 2"), tests, roomy).status == "failed_test"


VALUES = """
None | True | 0 | 1 | 1.0 | 0.5 | -0.0 | 1j | "a" | b"a" | bytearray(b"a") | [1] | (1,) | {1} | frozenset({1}) | {1: 2}
{} | [] | range(1, 2) | Fraction(1, 2) | Fraction(1) | Decimal("0.5") | Decimal("1.00") | Decimal("NaN") | float("nan")
deque([1]) | deque([1], 5) | Counter("a") | Counter(a=1, b=0) | {"a": 1} | OrderedDict(a=1, b=2) | OrderedDict(b=2, a=1)
{"a": 1, "b": 2} | {1: 2}.keys() | {1: 2}.values() | {1: 2}.items() | {(1, 2)} | defaultdict(int, a=1) | Point(1, 2) | (1, 2)
date(2024, 1, 2) | datetime(2024, 1, 2) | datetime(2024, 1, 2, 3, 4, 5, 6) | time(3, 4) | timedelta(1, 2, 3) | 10**30 | 1e30
""".replace("\n", "|").split("|")  # fmt: skip
IMPORTS = """
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
Point = namedtuple("Point", "a b")
"""


def test_values_compare_as_they_do_natively(box):
    """Each value of the list, out of the program, with each, in the tests; the oracle is the interpreter in this process."""
    written = [v.strip() for v in VALUES if v.strip()]
    scope: dict = {}
    exec(IMPORTS, scope)
    made = [eval(v, scope) for v in written]
    program = f"{IMPORTS}\nVALUES = [{', '.join(written)}]\ndef f(i): return VALUES[i]"
    tests = []
    for i, a in enumerate(made):
        equal = [bool(a == eval(v, scope)) for v in written]
        same = {"bytearray": "bytes"}.get(type(a).__name__, type(a).__name__)
        tests.append(
            f"assert [f({i}) == v for v in OURS] == {equal!r}, {written[i]!r} + str([f({i}) == v for v in OURS])"
        )
        tests.append(f"assert bool(f({i})) is {bool(a)!r} and {same!r}")
    setup = f"{IMPORTS}\nOURS = [{', '.join(written)}]"
    result = verdict(box, program, tests, Limits(cpu_seconds=20, wall_seconds=120), setup=setup)
    assert result.passed, [o.detail for o in result.outcomes if o.outcome != "passed"]


@pytest.mark.parametrize(
    "answer, expected, holds",
    [
        ("Fraction(1, 2)", "0.5", True),
        ("Fraction(2)", "2", True),
        ("{1: 0, 2: 0}.keys()", "{1, 2}", True),
        ("{1: 0}.keys()", "[1]", False),
        ("Counter('aab')", "{'a': 2, 'b': 1}", True),
        ("Counter(a=1, b=0)", "{'a': 1}", False),
        ("Decimal('2.50')", "2.5", True),
        ("{1: 2}.items()", "{(1, 2)}", True),
    ],
)
def test_answers_to_plain_calls_compare_so_too(box, answer, expected, holds):
    tests = parse_tests([f"assert f(0) == {expected}"])
    assert tests.calls is not None
    assert judge(f"{IMPORTS}\ndef f(x): return {answer}", tests, sandbox=box).passed is holds


@pytest.mark.parametrize(
    "kind, body",
    [
        ("fraction", '["0x" + "f" * 200000, "0x" + "e" * 200001]'),
        ("decimal", '"9" * 500000'),
        ("decimal", '"sNaN"'),
        ("fraction", '["0x1", "0x0"]'),
        ("datetime", '"yesterday"'),
        ("timedelta", "[10 ** 30, 0, 0]"),
        ("keys", "[[1]]"),
        ("counter", "[1]"),
    ],
)
def test_hostile_values_cost_nothing_and_prove_nothing(box, kind, body):
    program = f"import json, os\ndef f(x):\n  os.write(4, (json.dumps({{'value': {{{kind!r}: {body}}}}}) + '\\n').encode())\n  os._exit(0)"
    for test in ("assert f(1) == 5", "assert f(1) - 5 == 0"):
        assert verdict(box, program, [test]).verdict is Verdict.FAIL


def test_changes_in_place_come_back(box):
    program = """
        def f(c):
            if isinstance(c, dict): c['new'] = 1
            elif isinstance(c, set): c.add('new')
            elif isinstance(c, bytearray): c += b'new'
            else: c.append('new')
        """
    kinds = ["[]", "{}", "set()", "bytearray()", "deque()", "Counter()", "OrderedDict()", "defaultdict(int)"]
    tests = [
        f"c = {k}\nf(c)\nassert 'new' in (bytes(c).decode() if isinstance(c, bytearray) else c), {k!r}" for k in kinds
    ]
    tests = [part for t in tests for part in t.split("\n")]
    assert verdict(box, program, tests).passed
    reorder = ["c = OrderedDict(a=1, b=2)", "g(c)", "assert list(c) == ['b', 'a']"]
    assert verdict(box, "def g(c): c.move_to_end('a')", reorder).passed


NODE = """
class Node:
    count = 0
    def __init__(self, value):
        self.value, self.left, self.right = value, None, None
        self.items = {}
    def __getitem__(self, key): return self.items[key]
    def __setitem__(self, key, value): self.items[key] = value
def depth(node): return 0 if node is None else 1 + max(depth(node.left), depth(node.right))
"""


def test_objects_of_the_programs_classes_are_built_by_tests_and_setup(box):
    setup = "root = Node(1)\nroot.left = Node(2)\nroot.left.right = Node(3)"
    tests = ["assert depth(root) == 3", "root.left.right.left = Node(4)", "assert depth(root) - 4 == 0",
             "root['k'] = 5", "assert root['k'] == 5 and root.items == {'k': 5}", "Node.count = 7", "assert Node.count == 7",
             "del root.left", "assert not hasattr(root, 'left')"]  # fmt: skip
    native = box.run(NODE + "\n".join([setup, *tests]), limits=QUICK)
    assert str(native.status) == "ok", native
    assert verdict(box, NODE, tests, setup=setup).passed
    wrong = verdict(box, NODE.replace("1 + max", "2 + max"), tests, setup=setup)
    assert wrong.status == "failed_test" and wrong.pass_rate == 0.6
    for lacking in (
        "def depth(n): return 3",
        "class Node: pass\ndef depth(n): return 3",
        "Node = 5\ndef depth(n): return 3",
    ):
        result = verdict(box, lacking, tests, setup=setup)
        assert result.verdict is Verdict.FAIL and result.pass_rate == 0, result


def test_methods_of_a_solution_are_found_by_code_too(box):
    solution = "class Solution:\n  def f(self, x): return x + x"
    assert verdict(box, solution, ["assert f(1) == 2", "assert f(2) - 4 == 0"]).passed


# -- trouble that is the tests' ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tests, how",
    [
        (["assert nothing.here(1) and f(1) - 1 == 0"], {"setup": "nothing = None"}),
        (["assert f(1) - 1 == 0"], {"setup": "1 / 0"}),
        (["assert f(1) - 1 == 0"], {"setup": "x = int(f)"}),
        (["import nowhere", "assert f(1) - 1 == 0"], {}),
        (["try:\n  f(lambda: 1)\nexcept Exception:\n  pass\nassert f(1) - 1 == 0"], {}),
    ],
)
def test_tests_that_fail_before_they_ask_are_errors(box, tests, how):
    for program in ("def f(x): return x", "def f(x): raise ValueError"):
        assert verdict(box, program, tests, **how).verdict is Verdict.ERROR
    for program in ("", "f = 5", "1 / 0", "import os\nos._exit(0)"):  # what a program lacks is not the tests' trouble
        result = verdict(box, program, ["assert g(f(1)) == 1"])
        assert result.verdict is Verdict.FAIL, result


def test_a_program_that_dies_cannot_make_the_rest_an_error(box):
    """The second round skips the test that would have set x."""
    tests = ["for x in [1]:\n  assert f(x) == 1", "assert x == f(2)"]
    program = "import os\ndef f(x):\n  if x == 1: os._exit(0)\n  return x"
    assert names(verdict(box, program, tests)) == ["runtime_error"] * 2


# -- time ---------------------------------------------------------------------------------------------------------------


def test_sleeping_just_under_the_limit_costs_few_limits(box, monkeypatch):
    lines = [StdinTest(str(i), "right") for i in range(40)]
    runs, run = [], box.run
    monkeypatch.setattr(box, "run", lambda *args: runs.append(args) or run(*args))
    program = "import time\ntime.sleep(0.5)\nprint('wrong')"
    outcomes = names(judge(program, lines, sandbox=box, limits=Limits(cpu_seconds=0.3, wall_seconds=0.6)))
    assert len(outcomes) == 40 and len(runs) <= 6 and set(outcomes[len(runs) :]) == {"timeout"}, (len(runs), outcomes)
    busy = "t = __import__('time').process_time\nend = t() + 0.1\nwhile t() < end: pass\nprint('right')"
    assert judge(busy, lines, sandbox=box, limits=Limits(cpu_seconds=1, wall_seconds=20)).passed
