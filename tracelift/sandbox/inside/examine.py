"""The "examine" role: run tests that are Python code, while the functions they call live in *another* process.

A test such as `for i in range(100): assert abs(poly(f(xs), i)) < 1e-4` cannot be turned into inputs and outputs. So it
runs here, where no line of the program under test ever does: `f` is a stand-in that sends its arguments to the
program's process (serve.py) and receives plain values. There are no frames to walk to, no builtins to patch, no marker
to print.

The text of this role defines SETUP (source), TESTS (a list of [source, is_test]), ENTRY (names that are always the
program's), NAMES (names to be the program's unless SETUP defines them) and START (the first test to run). Verdicts
leave on descriptor 5, one JSON line each: {"test": i, "outcome": "passed" | "failed_test" | "runtime_error" | "lost" |
"error", "detail": s, "produced": b}. "lost" means that the program's process went away during test i (-1: before the
first); its own guard knows why.
"""

from __future__ import annotations

import builtins
import json
import os
import types
from collections.abc import Iterator
from typing import Any, NoReturn

from . import script, wire

ANSWERS, REQUESTS, VERDICTS = 3, 4, 5
MOST = 16 << 20  # bytes of one answer


class Lost(BaseException):
    """The program's process is gone. Not an Exception: no test may catch it."""


class Unsendable(wire.Unplain):
    """A test hands the program something that cannot travel: the test's fault, whatever the program does."""


class ProgramError(Exception):
    """Stands for exceptions of the program whose class does not exist here."""


class Link:
    """One question at a time to the program's process."""

    def __init__(self) -> None:
        self.answers = os.fdopen(ANSWERS, "rb")
        self.produced = False  # some answer was not None
        self.raised: BaseException | None = None  # the last exception that came from the program

    def ask(self, **request: object) -> dict:
        data = wire.line(request)
        try:
            while data:
                data = data[os.write(REQUESTS, data) :]
        except BrokenPipeError:
            raise Lost from None
        answer = self.answers.readline(MOST)
        if not answer.endswith(b"\n"):
            raise Lost
        try:
            message = json.loads(answer)
        except (ValueError, RecursionError):
            message = None
        return message if isinstance(message, dict) else {}

    def call(self, what: object, method: str | None, args: tuple, kwargs: dict) -> Any:
        answer = self.ask(
            call=what,
            method=method,
            args=[wire.encode(a, as_handle) for a in args],
            kwargs={k: wire.encode(v, as_handle) for k, v in kwargs.items()},
        )
        if "raised" in answer:
            self.raised = self.exception(answer)
            raise self.raised
        for mine, theirs in zip(args, answer.get("args") or [], strict=False):
            if isinstance(mine, (list, dict, set, bytearray)):
                copy_state(mine, wire.decode(theirs, self.remote))
        value = wire.decode(answer.get("value"), self.remote)
        self.produced |= value is not None
        return value

    def exception(self, answer: dict) -> Exception:
        text = str(answer.get("text", ""))[:500]
        for name in answer["raised"] if isinstance(answer["raised"], list) else []:
            kind = getattr(builtins, name, None) if isinstance(name, str) else None
            if kind in (StopIteration, StopAsyncIteration):
                continue  # would quietly end a loop of the tests' over map(f, ...), as if all had been compared
            if isinstance(kind, type) and issubclass(kind, Exception):
                try:
                    return kind(text)
                except TypeError:  # UnicodeDecodeError and its kin want more than a text
                    continue
        return ProgramError(text)  # SystemExit among them: over here it must not end the tests

    def remote(self, item: dict) -> Remote:
        return Remote(self, item)


def as_handle(value: Any) -> dict:
    """What stands for `value` on the way to the program."""
    if hasattr(value, "__next__"):
        return {"iterator": [wire.encode(v, as_handle) for v in value]}
    if not isinstance(value, Remote):
        raise Unsendable(f"a test passes a {type(value).__name__}, which cannot be sent to the program")
    return value._item


class Remote:
    """Something in the program's process that is no plain value: it can be called, asked for methods, and passed back.

    It equals nothing but itself: comparing is done here, and never asks the program's process."""

    def __init__(self, link: Link, item: dict) -> None:
        self._link, self._item = link, item

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._link.call(self._item, None, args, kwargs)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        value = self._link.call(self._item, "__getattribute__", (name,), {})
        return value

    def __len__(self) -> int:
        return self._link.call(self._item, "__len__", (), {})

    def __getitem__(self, key: object) -> object:
        return self._link.call(self._item, "__getitem__", (key,), {})

    def __iter__(self) -> Iterator:
        return iter(self._link.call(self._item, "__iter__", (), {}))

    def __bool__(self) -> bool:
        return True


def copy_state(mine: Any, theirs: Any) -> None:
    """Give the caller's container the content it has after the call, as if it had been shared."""
    if type(theirs) is not type(mine) and not isinstance(mine, bytearray):
        return
    if isinstance(mine, (list, bytearray)):
        mine[:] = theirs
    elif mine != theirs:
        mine.clear()
        mine.update(theirs)


def verdict(test: int, outcome: str, detail: str = "", produced: bool = False) -> None:
    os.write(VERDICTS, wire.line({"test": test, "outcome": outcome, "detail": detail[:300], "produced": produced}))


def fetch_names(link: Link, names: dict, entry: list[str], wanted: list[str]) -> None:
    """Put the program's functions, classes and constants where the tests look for them."""
    ask = [n for n in wanted if n not in names]
    found = link.ask(names=entry + ask).get("names")
    for name, item in (found if isinstance(found, dict) else {}).items():
        if name in entry or name in ask:
            names[name] = wire.decode(item, link.remote)
    for name in entry:
        if not isinstance(found, dict) or name not in found:
            names.pop(name, None)  # SETUP may hold the statement's own stub of it


def examine(code: types.CodeType) -> NoReturn:
    """Never returns."""
    text: dict = {}
    exec(code, text)
    module = types.ModuleType("tests")
    names = module.__dict__
    try:
        exec(script.compile_text(text["SETUP"], "setup.py"), names)
        tests = [(compile(source, "tests.py", "exec"), is_test) for source, is_test in text["TESTS"]]
    except BaseException as error:
        verdict(-1, "error", f"the tests' own setup fails: {type(error).__name__}: {error}")
        script.finish(0)
    link, number, broken = Link(), -1, None
    try:
        if not link.answers.readline(MOST):
            raise Lost
        fetch_names(link, names, text["ENTRY"], text["NAMES"])
        for statement, is_test in tests:
            number += is_test
            if is_test and number < text["START"]:
                continue
            outcome, detail = broken or run_statement(link, statement, names)
            if is_test:
                verdict(number, outcome, detail, link.produced)
            elif outcome != "passed" and not broken:
                broken = ("error" if outcome == "error" else "runtime_error", f"before this test: {detail}")
    except Lost:
        verdict(number, "lost")
    script.finish(0)


def run_statement(link: Link, statement: types.CodeType, names: dict) -> tuple[str, str]:
    """→ (outcome, detail). An exception is the program's, except an AssertionError raised over here."""
    link.raised, link.produced = None, False
    try:
        exec(statement, names)
    except Unsendable as error:
        return "error", str(error)
    except Exception as error:
        failed = isinstance(error, AssertionError) and error is not link.raised
        return "failed_test" if failed else "runtime_error", f"{type(error).__name__}: {error}"
    return "passed", ""
