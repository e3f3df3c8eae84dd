"""The "examine" role: run tests that are Python code, while the functions they call live in *another* process.

A test such as `for i in range(100): assert abs(poly(f(xs), i)) < 1e-4` cannot be turned into inputs and outputs. So it
runs here, where no line of the program under test ever does: `f` is a stand-in that sends its arguments to the
program's process (serve.py) and receives plain values. There are no frames to walk to, no builtins to patch, no marker
to print; and no text that the program returns is run here, whatever the tests do with it (`literal`, `watch`).

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
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import sys
import types
from typing import NoReturn

from . import script, wire
from .link import MOST, Link, Trouble, literal, refuse, watch

VERDICTS = 5


def verdict(test: int, outcome: str, detail: str = "", produced: bool = False) -> None:
    os.write(VERDICTS, wire.line({"test": test, "outcome": outcome, "detail": detail[:300], "produced": produced}))


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
