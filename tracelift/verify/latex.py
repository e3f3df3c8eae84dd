"""MATH answers by math-verify, in a child process whose time and memory are bounded from outside.

math-verify bounds its own time by SIGALRM, which works on a main thread only and not inside one long C call; a verifier
that hangs or swallows its failure scores a whole benchmark as wrong without a word. So it runs in a child of its own: a
text too hard for it costs that child, not the evaluation. Its `verify(gold, prediction)` is asymmetric; the order is
kept. A reply that is a bare answer is boxed first (boxed.py), as gold is: math-verify reads LaTeX between delimiters only.

    PASS, FAIL   as math-verify says, but for what it takes for equal and is not: numbers that differ by less than its
                 tolerance (2^{-60} and 2^{-61}), a set and a pair ({1,2} and (1,2)), numerals to different bases
    FAIL         also where judging *this prediction* exceeds the bound while the gold answer alone is judged in time
    ERROR        gold cannot be read, or the child does not work

Protocol: one JSON object a line, {gold, text} in, {verdict, detail} out. Left out: a pool of children.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import selectors
import subprocess
import sys
from typing import Any

from tracelift.verify.boxed import changed_before, delimited, last_box, spelt
from tracelift.verify.verdict import Verdict
from tracelift.verify.where import without_reasoning

MEMORY_BYTES = 2 << 30
START_SECONDS = 120.0  # importing sympy on a busy machine
_BASE = re.compile(r"[0-9]\s*+_\s*+(?:\{\s*+)?([0-9]+)")


class MathVerifyMissing(ValueError):
    """MATH-style answers need a package that is not installed."""


class LatexJudge:
    """Judges LaTeX answers in a child that is started at first use and again whenever it had to be killed."""

    def __init__(self, seconds: float = 10.0) -> None:
        """seconds: bound on one judgement; one that exceeds it gets a second try of three times as long."""
        if importlib.util.find_spec("math_verify") is None:
            raise MathVerifyMissing(
                "MATH-style benchmarks are judged by math-verify, which is not installed: "
                "pip install 'math-verify[antlr4_13_2]'"
            )
        self.seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._gold_ok: dict[str, bool] = {}

    def __call__(self, gold: str, text: str) -> tuple[Verdict, str]:
        """(verdict, why) of one prediction."""
        gold = spelt(gold)
        text = without_reasoning(text)
        if (altered := _altered(text)) is None:
            return Verdict.FAIL, "what stands beside the answer changes it"
        text = delimited(altered, gold)
        answer = self._ask(gold, text, self.seconds) or self._ask(gold, text, 3 * self.seconds)
        if answer is not None:
            return Verdict[answer["verdict"]], answer["detail"]
        if gold not in self._gold_ok:
            alone = self._ask(gold, f"\\boxed{{{gold}}}", 3 * self.seconds)
            self._gold_ok[gold] = alone is not None and alone["verdict"] == "PASS"
        if self._gold_ok[gold]:
            return Verdict.FAIL, f"judging it took more than {3 * self.seconds:g} s or {MEMORY_BYTES >> 30} GiB"
        return Verdict.ERROR, f"the reference {gold[:60]!r} cannot be judged in time"

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self) -> subprocess.Popen[bytes]:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tracelift.verify.latex"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        hello = self._read_line(START_SECONDS)
        if hello is None:
            self.close()
            raise OSError("the math-verify process did not start; try `python -m tracelift.verify.latex`, then Ctrl-D")
        return self._child

    def _ask(self, gold: str, text: str, seconds: float) -> dict[str, Any] | None:
        """The child's answer; None where it took too long or died, in which case it is gone."""
        child = self._child if self._child is not None and self._child.poll() is None else self._start()
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps({"gold": gold, "text": text, "seconds": seconds}).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            self.close()
            return None
        line = self._read_line(seconds + 2)
        if line is None:
            self.close()
            return None
        return json.loads(line)

    def _read_line(self, seconds: float) -> bytes | None:
        """One line of the child's output. It answers a line at a time, so a readable pipe holds a whole one or an
        end."""
        assert self._child is not None and self._child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        line = self._child.stdout.readline()
        return line if line.endswith(b"\n") else None

    def __enter__(self) -> LatexJudge:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# -- the child -------------------------------------------------------------------------------------------------------


def _judge(gold: str, text: str, seconds: int) -> tuple[str, str]:
    from math_verify import parse, verify
    from math_verify.errors import TimeoutException

    try:
        wanted = parse(f"\\boxed{{{gold}}}", parsing_timeout=seconds, raise_on_error=True)
    except (MemoryError, TimeoutException):
        raise
    except Exception:
        wanted = []
    if not wanted:
        return "ERROR", f"math-verify reads no answer in the reference {gold[:60]!r}"
    box = last_box(text)
    answer = text if box is None else box.content
    if _written(gold) != _written(answer):
        return "FAIL", "numerals to different bases differ"
    if {_brackets(gold), _brackets(answer)} == {"{", "("}:
        return "FAIL", "a set is no pair"
    said = parse(text, parsing_timeout=seconds, raise_on_error=True)
    if not said:
        return "FAIL", "no answer found"
    equal = verify(wanted, said, timeout_seconds=seconds, raise_on_error=True)
    percent = "%" in gold or "%" in text
    return ("PASS" if equal and not differ(wanted[0], said[0], percent) else "FAIL"), str(said[0])[:200]


def _altered(text: str) -> str | None:
    """`text`, with the sign before its box drawn into it; None where a neighbour of the box or last formula changes it."""
    if (box := last_box(text)) is not None:
        signed = box.content.startswith("-") and not box.changed
        return None if box.changed else (f"\\boxed{{{box.content}}}" if signed else text)
    places = [i for i, c in enumerate(text) if c == "$" and not text[:i].endswith("\\")] if "$" in text else []
    at = places[-2] if len(places) > 1 else None
    return None if at is not None and changed_before(text, at) else text


def _written(answer: str) -> list[str]:
    """The bases of numerals (`31_4`), which math-verify drops."""
    return _BASE.findall(answer)


def _brackets(answer: str) -> str:
    """What the whole stands in: "{" of a set, "(" of a pair or interval, "" of a list, which may be either."""
    stripped = re.sub(r"\\left|\\right|\\[,;! ]|[\s$]", "", answer).replace("\\{", "{").replace("\\lbrace", "{")
    return {"{": "{", "(": "(", "[": "("}.get(stripped[:1], "") if "," in stripped else ""


def differ(a: Any, b: Any, percent: bool) -> bool:
    """Whether two sympy values that math-verify calls equal are different numbers, or hold some in the same places.

    Decimals are compared as they are written, exact numbers to 40 digits, and a decimal with a number that no decimals
    write out (1/3, √2) as math-verify does. percent: one of them has a percent sign, which may stand for nothing.
    """
    import sympy

    pairs = _pairs(a, b)
    if pairs is not None:
        return any(differ(x, y, percent) for x, y in pairs)
    if not all(isinstance(x, sympy.Expr) for x in (a, b)):
        return False
    if any(x.atoms(sympy.Float) for x in (a, b)):
        if not all(_is_written(n) for x in (a, b) for n in x.atoms(sympy.Number)):
            return False
        a, b = (x.xreplace({n: sympy.Rational(str(n)) for n in x.atoms(sympy.Float)}) for x in (a, b))
    if a.free_symbols or b.free_symbols:
        return _differ_at_a_point(a, b)
    if not all(x.is_number and x.is_finite for x in (a, b)):
        return False
    return not any(_equal(a * factor, b) for factor in ((1, 100, sympy.Rational(1, 100)) if percent else (1,)))


def _pairs(a: Any, b: Any) -> list[tuple[Any, Any]] | None:
    """What stands in the same places of two equations, relations, sets, tuples or matrices; [] where math-verify is
    trusted, None for single values."""
    import sympy
    from sympy.core.relational import Relational

    if isinstance(a, sympy.Equality) != isinstance(b, sympy.Equality):  # x = 5 and 5
        return [(getattr(a, "rhs", a), getattr(b, "rhs", b))]
    if isinstance(a, sympy.MatrixBase) and isinstance(b, sympy.MatrixBase):
        return list(zip(a.flat(), b.flat(), strict=True)) if a.shape == b.shape else []
    if isinstance(a, Relational) and isinstance(b, Relational):
        other: Any = b.reversed if a.lhs == b.rhs else b  # anything else may be the same relation in other terms
        return [(a.rhs, other.rhs)] if a.lhs == other.lhs else []
    for kind in (sympy.FiniteSet, sympy.Tuple, sympy.Interval):
        if isinstance(a, kind) and isinstance(b, kind) and len(a.args) == len(b.args):
            first, second = (sorted(x.args, key=sympy.default_sort_key) for x in (a, b))
            return list(zip(first, second, strict=True))
    return None


def _differ_at_a_point(a: Any, b: Any) -> bool:
    """Whether two expressions with variables have different values at one of two points, to 40 digits; only those that
    are finite are compared."""
    import sympy

    names = sorted({s.name for s in a.free_symbols | b.free_symbols})
    for shift in (1, 2):
        place = {n: sympy.Rational(7 + 2 * i + shift, 5 + i) for i, n in enumerate(names)}
        x, y = (e.subs({s: place[s.name] for s in e.free_symbols}) for e in (a, b))
        if all(v.is_number and v.is_finite for v in (x, y)) and not _equal(x, y):
            return True
    return False


def _is_written(x: Any) -> bool:
    """Whether decimals write a sympy number out: 0.25, 1/4 and 3, but neither 1/3 nor √2."""
    import sympy

    return isinstance(x, sympy.Float) or (isinstance(x, sympy.Rational) and not 10**400 % x.q)


def _equal(a: Any, b: Any) -> bool:
    a, b = a.evalf(60), b.evalf(60)
    return bool(a == b or abs(a - b) <= max(abs(a), abs(b)) * 10**-40)


def serve() -> None:
    import logging
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from math_verify.errors import TimeoutException

    logging.disable(logging.CRITICAL)
    out = os.fdopen(os.dup(1), "w")  # the protocol's own; anything a library prints goes to stderr
    os.dup2(2, 1)
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            verdict, detail = _judge(request["gold"], request["text"], max(1, int(request["seconds"])))
        except (MemoryError, TimeoutException):
            sys.exit(1)  # the parent sees the pipe close and decides whose fault it was
        except Exception as e:
            verdict, detail = "FAIL", f"{type(e).__name__}: {e}"[:200]
        print(json.dumps({"verdict": verdict, "detail": detail}), file=out, flush=True)


if __name__ == "__main__":
    serve()
