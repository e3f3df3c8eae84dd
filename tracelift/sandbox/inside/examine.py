"""The "examine" role: run tests that are Python code, while the functions they call live in *another* process.

A test such as `for i in range(100): assert abs(poly(f(xs), i)) < 1e-4` cannot be turned into inputs and outputs. So it
runs here, where no line of the program under test ever does: `f` is a stand-in that sends its arguments to the
program's process (serve.py) and receives plain values. There are no frames to walk to, no builtins to patch, no marker
to print; and no text that the program returns is run here, whatever the tests do with it (script.py).

A stand-in (`Remote`) can be called, asked for attributes and items, and be given some, as an object of the program's own
class; each of that happens in the program's process, and what comes back is plain data or another stand-in. It equals
nothing but itself and takes part in no arithmetic: both are done here, and never ask the program. So a program that makes
its own objects decides what they answer, and not whether an answer is right.

The text of this role is a JSON object:
    TOOLS    imports of what the tests read from the standard library without an import of their own
    SETUP    source; ASKS says that it reads names of the program, and so runs after these are there
    TESTS    a list of [source, is_test]
    ENTRY    names that are always the program's, whatever they are
    NAMES    names whose functions and classes are the program's, unless SETUP defines them; never its plain values
    AWAITS   the tests await: an answer of an asynchronous function is then something to await, else its value
    START    the first test to run
    MEMORY   bytes that the program's process may use

Verdicts leave on descriptor 5, one JSON line each: {"test": i, "outcome": "passed" | "failed_test" | "runtime_error" |
"lost" | "error", "detail": s, "produced": b}. "lost" means that the program's process went away during test i (-1: before
the first); its own guard knows why. Nothing of the tests runs after that, so they cannot swallow it.

Left out on purpose: functions and objects of the tests' own in the program's process, which cannot be sent.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import sys
import types
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn

from . import script, wire
from .script import Trouble, literal, refuse, watch

ANSWERS, REQUESTS, VERDICTS = 3, 4, 5
MOST = 16 << 20  # bytes of one answer


def verdict(test: int, outcome: str, detail: str = "", produced: bool = False) -> None:
    os.write(VERDICTS, wire.line({"test": test, "outcome": outcome, "detail": detail[:300], "produced": produced}))


# -- stand-ins -------------------------------------------------------------------------------------------------------


def unsendable(what: str) -> Trouble:
    """A test hands the program something that cannot travel: the test's fault, whatever the program does."""
    return Trouble("error", f"a test passes {what}")


class ProgramError(Exception):
    """Stands for exceptions of the program whose class does not exist here."""


class Link:
    """One question at a time to the program's process. lost: what to do, for good, once that is gone."""

    def __init__(self, memory: int, awaits: bool, lost: Callable[[], NoReturn]) -> None:
        self.answers = os.fdopen(ANSWERS, "rb")
        self.memory, self.awaits, self.lost = memory, awaits, lost
        self.calls = 0
        self.produced = False  # some answer was not None
        self.raised: BaseException | None = None  # the last exception that came from the program

    def ask(self, **request: object) -> dict:
        data = wire.line(request)
        if not wire.fits(data, self.memory):
            raise unsendable(f"{len(data)} bytes, more than Limits.memory_bytes = {self.memory} can hold")
        try:
            while data:
                data = data[os.write(REQUESTS, data) :]
        except BrokenPipeError:
            self.lost()
        answer = self.answers.readline(MOST)
        if not answer.endswith(b"\n"):
            self.lost()
        try:
            message = json.loads(answer)
        except (ValueError, RecursionError):
            message = None
        return message if isinstance(message, dict) else {}

    def call(self, what: object, do: str | None, args: tuple, kwargs: dict) -> Any:
        answer = self.ask(
            call=what,
            do=do,
            args=[wire.encode(a, as_handle) for a in args],
            kwargs={k: wire.encode(v, as_handle) for k, v in kwargs.items()},
            back=any(isinstance(a, wire.MUTABLE) for a in args),
        )
        self.calls += 1
        if "raised" in answer:
            self.raised = self.exception(answer)
            raise self.raised
        for place, theirs in answer.get("args") or []:
            copy_state(args[place], wire.decode(theirs, self.remote))
        value = wire.decode(answer.get("value"), self.remote)
        self.produced |= value is not None
        return comes_to(value) if self.awaits and answer.get("awaited") is True else value

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


def comes_to(value: object) -> Coroutine:
    async def done() -> object:
        return value

    return done()


def as_handle(value: Any) -> dict:
    """What stands for `value` on the way to the program."""
    if hasattr(value, "__next__"):
        return {"iterator": [wire.encode(v, as_handle) for v in value]}
    if not isinstance(value, Remote):
        raise unsendable(f"a {type(value).__name__}, which cannot be sent to the program")
    return value._item


class Remote:
    """Something in the program's process that is no plain value."""

    _link: Link
    _item: dict

    def __init__(self, link: Link, item: dict) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_item", item)

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._link.call(self._item, None, args, kwargs)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.call(self._item, "getattr", (name,), {})

    def __setattr__(self, name: str, value: object) -> None:
        self._link.call(self._item, "setattr", (name, value), {})

    def __delattr__(self, name: str) -> None:
        self._link.call(self._item, "delattr", (name,), {})

    def __len__(self) -> int:
        return self._link.call(self._item, "len", (), {})

    def __getitem__(self, key: object) -> object:
        return self._link.call(self._item, "getitem", (key,), {})

    def __setitem__(self, key: object, value: object) -> None:
        self._link.call(self._item, "setitem", (key, value), {})

    def __delitem__(self, key: object) -> None:
        self._link.call(self._item, "delitem", (key,), {})

    def __iter__(self) -> Iterator:
        return iter(self._link.call(self._item, "iter", (), {}))

    def __bool__(self) -> bool:
        return True


def copy_state(mine: Any, theirs: Any) -> None:
    """Give the caller's container the content it has after the call, as if it had been shared."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        mine.clear()
        for key, value in theirs.items():  # not update(): a Counter's adds
            mine[key] = value
    elif isinstance(mine, (list, bytearray)) and isinstance(theirs, (list, bytearray)):
        mine[:] = theirs
    elif isinstance(mine, set) and isinstance(theirs, set):
        mine.clear()
        mine.update(theirs)
    elif isinstance(mine, deque) and isinstance(theirs, deque):
        mine.clear()
        mine.extend(theirs)


# -- the tests --------------------------------------------------------------------------------------------------------


class Examiner:
    """The tests' names, and what is known of the program so far."""

    def __init__(self, text: dict) -> None:
        self.text = text
        self.number = -1  # of the test that runs
        self.whole = True  # the program has all it was asked for, as functions and classes
        self.link = Link(text["MEMORY"], text["AWAITS"], self.lost)
        self.module = types.ModuleType("__main__")  # `if __name__ == "__main__": unittest.main()` is a test, too
        self.names = self.module.__dict__
        self.names["__builtins__"] = {**vars(builtins), "eval": literal, "exec": refuse, "compile": refuse}
        sys.modules["__main__"] = self.module

    def lost(self) -> NoReturn:
        verdict(self.number, "lost")
        os._exit(0)

    def fetch(self) -> dict:
        """The program's functions, classes and, of ENTRY, constants. What it lacks of ENTRY is not there at all: SETUP
        may hold the statement's own stub of it."""
        entry, ask = self.text["ENTRY"], [n for n in self.text["NAMES"] if n not in self.names]
        found = self.link.ask(names=entry + ask).get("names")
        fetched = {}
        for name in entry + ask:
            item = found.get(name) if isinstance(found, dict) else None
            stand_in = isinstance(item, dict) and "handle" in item and item.get("callable") is True
            self.whole &= stand_in
            if stand_in or (name in entry and isinstance(found, dict) and name in found):
                with contextlib.suppress(wire.Unplain, RecursionError):
                    fetched[name] = wire.decode(item, self.link.remote)
        return fetched

    def set_up(self, setup: types.CodeType) -> tuple[str, str] | None:
        """Run SETUP and put the program's names over it; returns what is broken. A setup of the tests' own that fails is
        theirs, one that asks the program may fail for the program."""
        failure = self.run(setup) if not self.text["ASKS"] else ("passed", "")
        if failure[0] != "passed":
            return "error", f"the tests' own setup fails: {failure[1]}"
        if not self.link.answers.readline(MOST):
            self.lost()
        fetched = self.fetch()
        self.names.update(fetched)
        if self.text["ASKS"]:
            failure = self.run(setup)
            self.names.update(fetched)
        for name in self.text["ENTRY"]:
            if name not in fetched:
                self.names.pop(name, None)
        return None if failure[0] == "passed" else (failure[0], f"in the tests' setup: {failure[1]}")

    def run(self, statement: types.CodeType) -> tuple[str, str]:
        """→ (outcome, detail). An exception is the program's, except an AssertionError raised over here, and whatever is
        raised before the program was asked anything: no program could change that."""
        link = self.link
        link.raised, link.produced, Trouble.met = None, False, None
        outcome, detail = "passed", ""
        try:
            exec(statement, self.names)
        except SystemExit as end:  # unittest.main() ends so
            if end.code:
                outcome, detail = "failed_test", f"the tests end with {end.code!r}"
        except Exception as error:
            failed = isinstance(error, AssertionError) and error is not link.raised
            outcome, detail = "failed_test" if failed else "runtime_error", f"{type(error).__name__}: {error}"
            if not link.calls and self.whole and self.text["START"] == 0:
                outcome, detail = "error", f"the tests fail before they ask the program anything: {detail}"
        return (Trouble.met.outcome, str(Trouble.met)) if Trouble.met else (outcome, detail)

    def examine(self) -> None:
        try:
            exec(script.compile_text(self.text["TOOLS"], "tools.py"), self.names)
            setup = script.compile_text(self.text["SETUP"], "setup.py")
            tests = [(compile(source, "tests.py", "exec"), is_test) for source, is_test in self.text["TESTS"]]
        except Exception as error:
            return verdict(-1, "error", f"the tests cannot be run: {type(error).__name__}: {error}")
        broken = self.set_up(setup)
        if broken and broken[0] == "error":
            return verdict(-1, *broken)
        for statement, is_test in tests:
            self.number += is_test
            if is_test and self.number < self.text["START"]:
                continue
            outcome, detail = broken or self.run(statement)
            if is_test:
                verdict(self.number, outcome, detail, self.link.produced)
            elif outcome != "passed" and not broken:
                broken = (outcome, f"before this test: {detail}")


class Nowhere(io.TextIOBase):
    """What tests print is nobody's output, and there may be any amount of it."""

    def write(self, text: str) -> int:
        return len(text)


def examine(text: str) -> NoReturn:
    """Never returns."""
    examiner = Examiner(json.loads(text))
    sys.stdout = sys.stderr = Nowhere()
    sys.addaudithook(watch)
    examiner.examine()
    script.finish(0)
