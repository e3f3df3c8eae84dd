"""A program passes by right answers and by nothing else; and trouble of ours is neither its fault nor its excuse."""

from __future__ import annotations

import sys
import textwrap

import pytest

from tracelift.programs import CaseOutcome, StdinTest, judge, judge_many, parse_tests
from tracelift.rl.rewards import STATUSES, exec_reward
from tracelift.sandbox import Limits, Sandbox
from tracelift.verify.verdict import Verdict

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")

QUICK = Limits(cpu_seconds=0.4, wall_seconds=60.0, memory_bytes=256 << 20)
SHORT = Limits(cpu_seconds=0.4, wall_seconds=2.0, memory_bytes=256 << 20)  # for those that wait on purpose
TWICE = "def f(x):\n    return x + x\n"
STDIN_TWICE = "x = input()\nprint(x + x)\n"

CALLS = parse_tests(
    [
        "assert f(2) == 4",
        "assert f([1]) == [1, 1]",
        "assert f('ab') == 'abab'",
        "assert [0.5, 0.5] == f([0.5])",
        "assert f((7,)) == (7, 7)",
    ]
)
CODE = parse_tests(
    [
        "for i in range(1, 4):\n    assert abs(f(i) - 2 * i) < 1e-9",
        "assert sorted(f([2, 1])) == [1, 1, 2, 2]",
        "x = f('a')",
        "assert len(x) == 2 and x[1] == 'a'",
        "assert set(f((8,))) == {8}",
        "assert math.fabs(f(3.5) - 7) < 1e-6",
        "assert not f(0) and f(1)",
    ],
    setup="import math",
)
LINES = [StdinTest("ab\n", "abab\n"), StdinTest("7\n", "77\n")]


def verdict(box, program, tests, limits=QUICK):
    return judge(textwrap.dedent(program), tests, sandbox=box, limits=limits)


def test_the_three_ways_of_testing_are_the_ones_meant():
    assert CALLS.calls is not None and len(CALLS.calls) == len(CALLS) == 5
    assert CODE.calls is None and len(CODE) == 6


@pytest.mark.parametrize(
    "program",
    [
        TWICE,
        "class Solution:\n    def f(self, x):\n        return x + x\n",
        "print('noise', flush=True)\n" + TWICE + "\nif __name__ == '__main__':\n    f(input())\n",
        "f = lambda x: x * 2\n",
        "import collections\nclass L(list):\n    pass\n"
        "def f(x):\n    return L(x + x) if isinstance(x, list) else x + x\n",
    ],
)
def test_right_functions_pass(box, program):
    tests = [CALLS] if "Solution" in program else [CALLS, CODE]
    for t in tests:
        result = verdict(box, program, t)
        assert result.passed and result.pass_rate == 1.0 and result.verdict is Verdict.PASS, result
        assert result.produced_output and [o.outcome for o in result.outcomes] == [CaseOutcome.PASSED] * len(t)


def test_right_programs_pass(box):
    for program in (STDIN_TWICE, STDIN_TWICE + "import sys; sys.exit(0)", "print(input() * 2, '\\n\\n')"):
        assert verdict(box, program, LINES).passed


PASS_LINES = r"""'{"test": %d, "outcome": "passed", "detail": "", "produced": true}\n' % i"""
EXPLOITS = {
    "empty": "",
    "only a comment": "# solved\n",
    "pass": "pass",
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "os._exit(0)": "import os\nos._exit(0)",
    "raise SystemExit": "raise SystemExit(0)",
    "exit in the function": "import sys\ndef f(x):\n    sys.exit(0)\nf(1)",
    "os._exit in the function": "import os\ndef f(x):\n    os._exit(0)\n",
    "SystemExit in the function": "def f(x):\n    raise SystemExit\n",
    "nothing returned": "def f(x):\n    pass\n",
    "always equal": """
        class Same:
            __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True
            __bool__ = lambda self: True
            __hash__ = lambda self: 0
            __len__ = lambda self: 2
            __sub__ = __rsub__ = __add__ = __abs__ = __float__ = __getitem__ = lambda self, *a: self
            __iter__ = lambda self: iter([self])
        def f(x):
            return Same()
        print(Same())
        """,
    "always equal, of the right type": """
        def f(x):
            class Same(type(x)):
                __eq__ = lambda self, other: True
                __ne__ = lambda self, other: False
                __hash__ = lambda self: 0
                __sub__ = __rsub__ = __abs__ = lambda self, *a: self
                __lt__ = lambda self, other: True
            return Same()
        """,
    "mock.ANY": "from unittest.mock import ANY\ndef f(x):\n    return ANY\n",
    "not a number": "def f(x):\n    return float('nan')\nprint('nan')\n",
    "pass markers printed": f"""
        import os
        for i in range(20):
            line = {PASS_LINES}
            print(line)
            print("PASSED", "OK", "1.0", "All tests passed")
            for fd in range(1, 40):
                try:
                    os.write(fd, line.encode())
                except OSError:
                    pass
        """,
    "answers sent unasked": r"""
        import os
        def f(x):
            for fd in range(3, 40):
                try:
                    os.write(fd, b'{"value":true,"args":[]}\n' * 50)
                except OSError:
                    pass
            return True
        """,
    "frames edited": """
        import sys, gc
        def f(x):
            frame = sys._getframe()
            while frame is not None:
                for names in (frame.f_globals, frame.f_locals):
                    for name in ("passed", "outcome", "outcomes", "failed", "result", "tests", "calls", "expected"):
                        if name in names:
                            names[name] = True
                frame = frame.f_back
            return True
        f(1)
        """,
    "builtins patched": """
        import builtins, math, json, sys, os
        builtins.abs = math.fabs = lambda *a: 0
        builtins.sorted = builtins.set = builtins.list = lambda *a: [1, 1, 2, 2]
        builtins.AssertionError = builtins.Exception = type("Never", (BaseException,), {})
        builtins.len = lambda *a: 2
        builtins.all = builtins.any = builtins.isinstance = builtins.bool = lambda *a: True
        json.dumps = lambda *a, **k: '{"value": true}'
        os.write = lambda fd, data: len(data)
        sys.excepthook = lambda *a: None
        def f(x):
            return True
        """,
    "traced": "import sys\nsys.settrace(print)\nsys.setprofile(lambda *a: None)\ndef f(x):\n    return True\n",
    "tests deleted": """
        import gc, os, shutil, sys
        for root, folders, files in os.walk("/", topdown=False):
            for name in files:
                try:
                    os.remove(os.path.join(root, name))
                except OSError:
                    pass
        for thing in gc.get_objects():
            if isinstance(thing, (list, dict)) and thing is not globals() and len(thing) < 50:
                try:
                    thing.clear()
                except BaseException:
                    pass
        """,
    "modules emptied": "import sys\nsys.modules.clear()\ndef f(x):\n    return True\n",
    "exit function": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x):\n    raise ValueError\nf(1)\n",
    "killed itself": "import os, signal\nos.kill(os.getpid(), 9)\n",
    "the tests' names defined": """
        class candidate: pass
        def check(c): pass
        def main(): pass
        x = "aa"
        abs = sorted = set = lambda *a: 0
        def f(x): return None
        """,
    "a last word": """
        import gc, os
        class Last:
            def __del__(self):
                os._exit(0)
        last = Last()
        def f(x):
            return last
        """,
    "a thread that answers": """
        import os, threading
        def speak():
            while True:
                for fd in range(3, 40):
                    try:
                        os.write(fd, b'{"value":true,"args":[]}\\n')
                    except OSError:
                        pass
        threading.Thread(target=speak, daemon=True).start()
        def f(x):
            return True
        """,
    "values that call themselves others": """
        class Text(str):
            __str__ = __repr__ = lambda self: "4"
            __eq__ = lambda self, other: True
            __hash__ = str.__hash__
        class Number(int):
            __str__ = __repr__ = lambda self: "4"
            __eq__ = lambda self, other: True
            __hash__ = int.__hash__
        def f(x):
            return Text("no") if x == "ab" else Number(17)
        print(Text("no"))
        """,
    "more digits than are written": "def f(x):\n    return 1 << 60000\n",
    "the end of an iteration": "def f(x):\n    raise StopIteration\n",
    "endless generator": "import itertools\ndef f(x):\n    return itertools.count()\n",
    "endless nest": "def f(x):\n    a = []\n    a.append(a)\n    return a\n",
    "deep nest": "def f(x):\n    a = []\n    for _ in range(100000): a = [a]\n    return a\n",
    "flood": "def f(x):\n    return 'x' * (50 << 20)\nwhile True: print('PASSED' * 1000)\n",
    "hang": "def f(x):\n    while True: pass\nf(1)\n",
    "crash": "import ctypes\nctypes.string_at(0)\n",
}  # fmt: skip


@pytest.mark.parametrize("exploit", EXPLOITS)
@pytest.mark.parametrize("tests", [CALLS, CODE, LINES], ids=["calls", "code", "lines"])
def test_no_exploit_passes_a_single_test(box, exploit, tests):
    result = verdict(box, EXPLOITS[exploit], tests, SHORT)
    assert len(result.outcomes) == len(tests)
    assert result.counts[CaseOutcome.PASSED] == 0, result.summary()
    assert result.verdict is Verdict.FAIL, f"an exploit may not turn its failure into an ERROR: {result.summary()}"


def test_expected_results_are_nowhere_in_the_programs_process(box):
    """The program tells all it can find: its requests, its memory, its arguments. The canary is not in it."""
    program = """
        import gc, os
        def f(x):
            found = []
            for fd in range(3, 64):
                try:
                    found.append(os.pread(fd, 1 << 16, 0))
                except OSError:
                    pass
            canary = "canary" + chr(45) + "5f1c"  # put together here, so that the program's own text does not hold it
            found += [o for o in gc.get_objects() if isinstance(o, (list, dict, tuple)) and len(o) < 100]
            raise ValueError(canary if canary in repr(found) else "not there")
        """
    for tests in (["assert f(1) == 'canary-5f1c'"], ["assert f(1) + '' == 'canary-5f1c'"]):
        result = verdict(box, program, parse_tests(tests))
        assert "not there" in result.outcomes[0].detail, result


def answering(line: str) -> str:
    """A program whose process writes `line` where its answers belong, and goes."""
    return f"import os\ndef f(x):\n    data = ({line}).encode() + b'\\n'\n    while data: data = data[os.write(4, data):]\n    os._exit(0)\n"


RAW = {
    "no JSON": "'{'",
    "no object": "'[1, 2]'",
    "no value": "'{}'",
    "a raised thing of the wrong kind": """'{"raised":{"0":1},"text":5}'""",
    "raised text": """'{"raised":"ValueError"}'""",
    "unknown kind": """'{"value":{"module":"os"}}'""",
    "a number for a list": """'{"value":{"set":5}}'""",
    "a list for a number": """'{"value":{"int":[]}}'""",
    "too large for a float": """'{"value":{"complex":[' + '9' * 400 + ',0]}}'""",
    "too many digits": """'{"value":' + '9' * 5000 + '}'""",
    "deeper than recursion": "'{\"value\":' + '[' * 100000 + ']' * 100000 + '}'",
    "an endless range": """'{"value":{"range":[0,' + '9' * 4000 + ',1]}}'""",
    "one hash for all": "'{\"value\":{\"set\":[' + ','.join(str(i * ((1 << 61) - 1)) for i in range(1, 40000)) + ']}}'",
}


@pytest.mark.parametrize("line", RAW)
def test_no_answer_troubles_the_parent(box, line):
    """Whatever comes through the channel is a wrong answer: no exception here, and no work beyond the answer's length.
    (A set of values with one hash takes hours to build.)"""
    tests = parse_tests(
        ["assert f(1) == 4", "assert f(1) == {1: {2}, 3: (4,)}", "assert f(1) is None", "assert not f(1)"]
    )
    result = verdict(box, answering(RAW[line]), tests, SHORT)
    assert result.counts[CaseOutcome.PASSED] == 0 and result.verdict is Verdict.FAIL, result
    assert all(o.detail.isprintable() for o in result.outcomes)
    truth = verdict(box, answering(RAW[line]), parse_tests(["assert f(1)"]), SHORT)
    assert truth.verdict is not Verdict.ERROR and len(truth.outcomes) == 1, truth
    code = verdict(box, answering(RAW[line]), parse_tests(["assert f([1]) + 1 == 9"]), SHORT)
    assert code.verdict is Verdict.FAIL, code


def test_what_is_shown_of_a_programs_errors_is_one_printable_line(box):
    """It ends up in logs, in terminals and in HTML that is written as UTF-8."""
    program = "def f(x):\n    raise ValueError('\\ud800\\n\\x1b[2J')\nraise_it = ValueError\n"
    for tests in (CALLS, CODE):
        result = verdict(box, program, tests)
        assert {str(o.outcome) for o in result.outcomes} == {"runtime_error"}
        for outcome in result.outcomes:
            assert outcome.detail.isprintable() and "ValueError" in outcome.detail and outcome.detail.encode()


def test_no_exception_ends_a_loop_of_the_tests(box):
    """StopIteration out of a function under test would end `for … in map(f, …)`, as if everything had been compared."""
    tests = parse_tests(
        ["for got, x in zip(map(f, [1, 2]), [1, 2]): assert got == 2 * x", "assert all(map(f, [1, 2]))"]
    )
    assert verdict(box, TWICE, tests).passed
    for name in ("StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit", "KeyboardInterrupt"):
        result = verdict(box, f"def f(x):\n    raise {name}\n", tests)
        assert names(result) == ["runtime_error"] * 2, (name, result)


# -- one outcome a test ----------------------------------------------------------------------------------------------


def names(result):
    return [str(o.outcome) for o in result.outcomes]


def test_each_outcome_has_its_name(box):
    program = """
        def f(x):
            if x == 2:
                while True: pass
            if x == [1]:
                raise KeyError(x)
            if x == 'ab':
                return 'wrong'
            return x + x
        """
    assert names(verdict(box, program, CALLS)) == ["timeout", "runtime_error", "failed_test", "passed", "passed"]
    mixed = parse_tests(
        [
            "assert f([1]) != 3",
            "assert f(5) - 10 == 0",
            "for i in (2,):\n  assert f(i) == 4",
            "assert f('ab')[0] == 'a'",
            "assert f(1) - 2 == 0",
        ]
    )
    result = verdict(box, program, mixed)
    assert names(result) == ["runtime_error", "passed", "timeout", "failed_test", "passed"]
    assert (result.status, result.pass_rate) == ("timeout", 0.4) and "CPU" in result.summary()
    lines = [StdinTest(a, b) for a, b in (("1", "2"), ("x", "2"), ("3", "6"), ("0", "1"))]
    assert names(verdict(box, "print(2 * int(input()))", lines)) == ["passed", "runtime_error", "passed", "failed_test"]


def test_statuses_are_those_the_reward_takes(box):
    cases = {
        "passed": (TWICE, CALLS),
        "failed_test": ("def f(x): return x", CALLS),
        "runtime_error": ("def f(x): raise ValueError", CALLS),
        "timeout": ("def f(x):\n while True: pass", CALLS),
        "compile_error": ("def f(x) return x", CALLS),
        "no_tests": (TWICE, []),
    }
    assert set(cases) == set(STATUSES)
    for status, (program, tests) in cases.items():
        result = verdict(box, program, tests)
        assert result.status == status
        exec_reward(result.status, result.pass_rate, "hybrid", "corrected", result.produced_output)
    assert judge(None, CALLS, sandbox=box).status == "compile_error"
    assert judge(None, [], sandbox=box).status == "no_tests"


@pytest.mark.parametrize("program", ["", "pass", "def f(x):\n    pass\n", "import sys; sys.exit(0)"])
def test_programs_that_do_nothing_earn_nothing(box, program):
    for tests in (CALLS, CODE, LINES):
        result = verdict(box, program, tests)
        reward = exec_reward(result.status, result.pass_rate, "hybrid", "corrected", result.produced_output)
        assert reward == 0.0, (result.summary(), reward)


def test_a_program_that_hangs_is_asked_only_so_often(box):
    many = parse_tests([f"assert f({i}) == {i}" for i in range(200)])
    result = verdict(box, "def f(x):\n while True: pass", many, Limits(cpu_seconds=0.2, wall_seconds=30))
    assert names(result) == ["timeout"] * 200
    lines = [StdinTest(str(i), str(i)) for i in range(200)]
    assert names(verdict(box, "while True: pass", lines, Limits(cpu_seconds=0.2, wall_seconds=30))) == ["timeout"] * 200


# -- what tests may do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program, tests, passes",
    [
        # in place: the caller's list changes
        ("def f(x): x.sort()", ["x = [3, 1, 2]", "f(x)", "assert x == [1, 2, 3]"], True),
        ("def f(x): sorted(x)", ["x = [3, 1, 2]", "f(x)", "assert x == [1, 2, 3]"], False),
        # expected exceptions keep their class
        (
            "def f(x): raise ValueError(x)",
            ["try:\n  f(1)\n  assert False, 'no error'\nexcept ValueError as e:\n  assert str(e) == '1'"],
            True,
        ),
        ("def f(x): raise KeyError(x)", ["try:\n  f(1)\n  assert False\nexcept ValueError:\n  assert 1 < f(2)"], False),
        # an AssertionError of the program is its own error
        ("def f(x): assert False", ["try:\n  assert f(1) == f(2)\nexcept KeyError: pass"], False),
        # classes and other functions of the program
        (
            "class Pair:\n  def __init__(self, a, b): self.a, self.b = a, b\n"
            "  def total(self): return self.a + self.b\n"
            "def longest(ps): return max(p.total() for p in ps)",
            [
                "assert longest([Pair(1, 2), Pair(3, 4)]) == 7",
                "p = Pair(1, 2)",
                "assert p.total() == 3 and p.a == 1",
            ],
            True,
        ),
        # native comparison rules
        ("from collections import Counter\ndef f(x): return Counter(x)", ["assert f('aab') == {'a': 2, 'b': 1}"], True),
        ("def f(x): return tuple(x)", ["assert f([1, 2]) == [1, 2]"], False),
        ("def f(x): return [x]", ["assert f(1) == (1,)"], False),
        ("def f(x): return 1", ["assert f(0) == True"], True),
        ("def f(x): return 1", ["assert f(0) is True"], False),
        ("def f(x): return 2.0", ["assert f(0) == 2"], True),
        ("def f(x): return 10 ** 300", ["assert f(0) == 1e300"], False),
        ("def f(x): return 2 ** 80", ["assert f(0) == 1208925819614629174706176.0"], True),
        ("def f(x): return None", ["assert f(0) is None"], True),
        ("def f(x): return None", ["assert f(0) == None", "assert not f(1)"], True),
        ("def f(x): yield from x", ["assert f([1]) == [1]"], False),
        ("def f(x): yield from x", ["assert list(f([1, 2])) == [1, 2]"], True),
        ("def f(x): return {1: (2, {3})}", ["assert f(0) == {1: (2, {3})}"], True),
        ("def f(a, b=2, *, c): return a + b + c", ["assert f(1, c=4) == 7", "assert f(1, b=0, c=0) == 1"], True),
        ("def f(x): return iter(x)", ["assert sum(g(f(x)) for x in [[1], [2]]) == 3"], False),
        ("def f(x): return iter(x)\ndef g(i): return sum(i)", ["assert g(f([1, 2])) + 0 == 3"], True),
        # state lives on between calls, as it does natively
        ("seen = []\ndef f(x):\n  seen.append(x)\n  return len(seen)", ["assert f(1) == 1", "assert f(1) == 2"], True),
    ],
)
def test_tests_mean_what_they_mean_natively(box, program, tests, passes):
    """The oracle is the interpreter: the same program and tests in one file."""
    native = box.run(program + "\n" + "\n".join(tests), limits=QUICK)
    assert (native.status == "ok") == passes, native
    result = verdict(box, program, parse_tests(tests))
    assert result.passed == passes and result.status != "error", result.summary()


def test_helpers_of_the_problem_are_not_the_programs_to_replace(box):
    setup = "def poly(xs, x):\n    return sum(c * x ** i for i, c in enumerate(xs))\n"
    tests = parse_tests(["assert abs(poly([1, 2], f([1, 2]))) < 1e-4"], entry=["f"], setup=setup)
    cheat = "def poly(xs, x):\n    return 0.0\ndef f(xs):\n    return 17.0\n"
    assert verdict(box, cheat, tests).status == "failed_test"
    assert verdict(box, "def f(xs):\n    return -0.5\n", tests).passed
    direct = parse_tests(["assert poly([1], 5) == f([1])"], entry=["f"], setup=setup)
    assert direct.calls is None, "a helper's call must not be asked of the program"


def test_the_output_is_compared_as_judges_do():
    test = StdinTest("", "1 2\n3\n")
    assert all(map(test.accepts, ["1 2\n3", "1 2 \n3\n\n", "1 2\r\n3\r\n"]))
    assert not any(map(test.accepts, ["", "1 2 3", "1  2\n3", "\n1 2\n3", "1 2\n3\n4"]))
    near = StdinTest("", "0.3333333 inf", tolerance=1e-6)
    assert near.accepts("0.33333334 inf") and not near.accepts("0.3334 inf") and not near.accepts("nan inf")


# -- trouble that is not the program's -------------------------------------------------------------------------------


def test_broken_tests_are_errors(box):
    assert verdict(box, TWICE, parse_tests(["assert f(1) - 2 == 0"], setup="import nowhere")).status == "error"
    unsendable = verdict(box, TWICE, parse_tests(["assert f(lambda: 1) is not None"]))
    assert unsendable.status == "error" and "cannot be sent" in unsendable.summary()


def test_a_broken_sandbox_is_an_error(monkeypatch):
    with Sandbox(workers=1) as box:
        monkeypatch.setattr(box, "_send", lambda *a: (_ for _ in ()).throw(OSError("no launcher")))
        for tests in (CALLS, CODE, LINES):
            result = verdict(box, TWICE, tests)
            assert result.status == "error" and result.verdict is Verdict.ERROR and "no launcher" in result.summary()


def test_many_at_once_keep_their_order(box):
    jobs = [(TWICE if i % 3 else "def f(x): return 0", CODE if i % 2 else CALLS) for i in range(24)]
    results = judge_many(jobs, sandbox=box)
    assert [r.passed for r in results] == [i % 3 != 0 for i in range(24)]
