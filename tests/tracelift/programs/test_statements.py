"""What of test code judges, and whose its names are: read without running anything."""

from __future__ import annotations

import pytest

from tracelift.programs import ProblemError, StdinTest, parse_tests

RAISES = "try:\n    f(-1)\n    assert False\nexcept ValueError:\n    pass"


@pytest.mark.parametrize(
    "sources, tests",
    [
        (["assert f(1) == 1", RAISES], 2),
        (["for i in range(5):\n    if f(i) != i:\n        assert False"], 1),
        (["r = f(2)", "if r == 2: pass\nelse: assert 0"], 1),
        (["assert f(1) == 2", "if f(3) != 6: raise AssertionError"], 2),
        (["def same(a, b):\n    assert a == b", "same(f(1), 1)", "same(f(2), 2)"], 2),
        (["def low(a):\n    raise ValueError", "def high(a):\n    low(a)", "high(f(1))", "assert f(2)"], 2),
        (["class T:\n    def check(self):\n        assert f(1) == 1", "t = T()", "t.check()"], 1),
        (["class R:\n    def __exit__(self, *a):\n        assert a[0]", "with R(): f(-1)", "assert f(1)"], 2),
        (["import unittest", "class T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(1), 1)",
          "if __name__ == '__main__':\n    unittest.main()"], 1),
        (["assert f(1) == 1", "f(2)", "x = f(3)"], 1),
        (["random.seed(0)", "f(1)", "assert f(2)"], 1),
        (["assert True, 'of nothing'", "'text'", "assert f(1)"], 1),
        (["assert False, 'never'", "assert f(1)"], 2),
        (["async def go():\n    assert await f(1) == 1", "asyncio.run(go())"], 1),
    ],
)  # fmt: skip
def test_each_statement_is_a_test_or_belongs_to_one(sources, tests):
    read = parse_tests(sources)
    assert len(read) == tests and read.statements[-1].is_test, "what follows the last test is a part of it"
    text = "\n".join(s.source for s in read.statements)
    for source in sources:
        for line in source.splitlines():
            kept = line.strip() not in ("assert True, 'of nothing'", "'text'")
            assert (line.strip().rstrip(":").split(":")[0] in text) == kept, line


@pytest.mark.parametrize(
    "sources", [["f(1)", "assert True"], ["x = f(1)", "random.seed(0)"], ["def g():\n  assert f(1)"]]
)
def test_what_cannot_fail_a_wrong_answer_is_no_test(sources):
    with pytest.raises(ProblemError, match="nothing is asserted"):
        parse_tests(sources)


@pytest.mark.parametrize(
    "sources, how, asked, tools",
    [
        (["assert math.isclose(f(1), 2.5)"], {}, "f", "import math"),
        (["assert isclose(f(1), 2.5)"], {}, "f", "from math import isclose"),
        (["assert Counter(f('a')) == Counter(EXPECTED)"], {}, "EXPECTED f", "from collections import Counter"),
        (["assert f(EXPECTED[0]) == EXPECTED[0]"], {}, "EXPECTED f", ""),
        (["assert sorted(f([2])) == [2]"], {}, "f", ""),
        # the standard library's name for what is asked
        (["assert gcd(4, 6) == 2"], {}, "gcd", ""),
        (["assert gcd(4, 6) == 2", "assert lcm(4, 6) == 12"], {}, "gcd lcm", ""),
        (["x = gcd(4, 6)", "assert x == 2"], {}, "gcd", ""),
        (["def both(a):\n    return gcd(a, 6)", "assert both(4) == 2"], {}, "gcd", ""),
        (["assert isclose(sqrt(4), 2)"], {}, "sqrt", "from math import isclose"),
        (["assert Counter(product('ab')) == {}"], {}, "product", "from collections import Counter"),
        (
            ["assert sqrt(f(4)) == 2", "assert gcd(f(4), 6) == 2"],
            {},
            "f",
            "from math import gcd\nfrom math import sqrt",
        ),
        (["assert isclose(gcd(4, 6), 2)"], {"entry": ["gcd"]}, "", "from math import isclose"),
        (["assert copy([1]) == [1]"], {}, "copy", ""),
        # in place: what is asked changes what is asserted
        (["c = deque()", "f(c)", "assert len(c) == 1"], {}, "f", "from collections import deque"),
        (["c = deque()", "assert len(c) == 1", "assert len(f(1)) == 1"], {}, "deque f", ""),
        (["assert copy.copy(f(1)) == 1"], {}, "f", "import copy"),
        # bound by the tests, in whatever scope
        (["import math as m", "assert m.isclose(f(1), 2)"], {}, "f", ""),
        (
            ["def close(a, b):\n    tolerance = 1\n    return abs(a - b) < tolerance", "assert close(f(1), 2)"],
            {},
            "f",
            "",
        ),
        (["assert all(x == y for x, y in zip(f(1), [2]))"], {}, "f", ""),
        (["assert f(1) == isclose"], {"setup": "from math import *\nisclose = 3"}, "f", ""),
        # a class of the program's, in the tests and in their setup
        (["p = Pair(1, 2)", "assert p.total() == 3"], {}, "Pair", ""),
        (["assert depth(root) == 2"], {"setup": "root = Node(1)\nroot.left = Node(2)"}, "Node depth", ""),
    ],
)
def test_names_are_the_tests_the_librarys_or_the_programs(sources, how, asked, tools):
    tests = parse_tests(sources, **how)
    assert (" ".join(tests.free_names), tests.owners.tools) == (asked, tools)
    assert tests.owners.setup_asks == ("Node" in asked)


def test_the_entry_point_is_all_that_becomes_data():
    assert parse_tests(["assert gcd(4, 6) == 2"]).calls is not None
    assert parse_tests(["assert f(1) == 1", "assert gcd(4, 6) == 2"], entry=["f"]).calls is None
    assert parse_tests(["assert f(1) == 1", "assert sorted([1]) == [1]"]).calls is None
    assert parse_tests(["assert sorted([1]) == [1]"], entry=["sorted"]).calls is not None
    assert parse_tests(["assert f(1) == 1", "f(2)"]).calls is None


@pytest.mark.parametrize("call", ["exec(f(1))", "compile(f(1), 'x', 'exec')", "eval('f(1)') == 1"])
def test_tests_that_run_texts_are_refused(call):
    with pytest.raises(ProblemError, match=r"row 3, test 0: it calls \w+\(\)"):
        parse_tests([f"assert {call}"], where="row 3")
    with pytest.raises(ProblemError, match="row 3, the tests' setup: it calls"):
        parse_tests(["assert f(1)"], setup=f"x = {call}", where="row 3")
    parse_tests(["assert re.compile('a').match(f(1)) and eval(f(2)) == 3"])


@pytest.mark.parametrize("source", ["assert f(1) == " + "-" * 100_000 + "1", "assert f(1) == " + "1 + " * 30_000 + "1"])
def test_what_is_too_deep_is_an_error_of_the_row(source):
    with pytest.raises(ProblemError, match="row 3, test 0: its expressions are nested too deeply"):
        parse_tests([source], where="row 3")


@pytest.mark.parametrize(
    "expected, accepted, refused",
    [
        ("inf", ["inf", "Infinity", "+inf"], ["5", "-inf", "nan", "1e999", "1e308", "x"]),
        ("1e400", ["1e400", "10e399", "1" + "0" * 400], ["5", "inf", "1e401", "1.0000000001e400", "1e999999999"]),
        ("-inf", ["-inf"], ["inf", "-5"]),
        ("nan", ["nan"], ["5", "inf"]),
        ("1e308", ["1e308", "1.0000000001e308"], ["1e309", "inf", "9e307"]),
        ("0.5", ["0.5000000001", "5e-1"], ["0.51", "inf", "nan", "1e400", "half"]),
        ("1000000", ["1000000.5"], ["1000002", "inf"]),
        ("x", ["x"], ["y", "1"]),
    ],
)
def test_a_tolerance_is_relative_to_a_number(expected, accepted, refused):
    test = StdinTest("", expected, tolerance=1e-6)
    assert [got for got in accepted if not test.accepts(got)] == []
    assert [got for got in refused if test.accepts(got)] == []
    assert StdinTest("", expected, tolerance=1e300).accepts("5") <= (
        expected not in ("inf", "1e400", "-inf", "nan", "x")
    )
