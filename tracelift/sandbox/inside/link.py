"""What the tests hold of the program while they run: stand-ins, the questions they send, and the guard over its texts.

A stand-in (`Remote`) can be called, asked for attributes and items, and be given some, as an object of the program's own
class; each of that happens in the program's process, and what comes back is plain data or another stand-in. It equals
nothing but itself and takes part in no arithmetic: both are done here, and never ask the program. So a program that makes
its own objects decides what they answer, and not whether an answer is right.

Left out on purpose: functions and objects of the tests' own in the program's process, which cannot be sent.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn

from . import wire

ANSWERS, REQUESTS = 3, 4
MOST = 16 << 20  # bytes of one answer


class Trouble(Exception):
    """What the examiner does not do. `met` keeps the first: a test that catches it is judged by it all the same."""

    met: Trouble | None = None

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        Trouble.met = Trouble.met or self


def unsendable(what: str) -> Trouble:
    """A test hands the program something that cannot travel: the test's fault, whatever the program does."""
    return Trouble("error", f"a test passes {what}")


def refuse(*_: object, **__: object) -> NoReturn:
    """Instead of exec and compile, which would run what may be a text of the program's."""
    raise Trouble("runtime_error", "a test may evaluate literals and operators; any other text could be the program's")


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


# -- texts of the program's ------------------------------------------------------------------------------------------

LITERAL = (ast.Expression, ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.IfExp, ast.expr_context)
LITERAL += (ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.unaryop, ast.operator, ast.boolop, ast.cmpop)
# Modules of the standard library that run code of their own making: imports, and classes they write.
RUNNERS = {"importlib._bootstrap", "importlib._bootstrap_external", "_frozen_importlib", "_frozen_importlib_external"}
RUNNERS |= {"dataclasses", "collections", "typing"}
PROCESSES = {"os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen", "pickle.find_class"}


def literal(text: object, *_: object) -> object:
    """`eval`, as tests have it: of literals and operators. With neither names nor calls there is nothing to run.

    Raises Trouble for anything else, SyntaxError where the text is not Python."""
    tree = ast.parse(text.lstrip(" \t") if isinstance(text, str) else refuse(), mode="eval")
    if not all(isinstance(node, LITERAL) for node in ast.walk(tree)):
        refuse()
    return eval(compile(tree, "answer", "eval"), {"__builtins__": {}})


def watch(event: str, args: tuple) -> None:
    """The examiner's audit hook, behind the two above: whatever way a text takes to the interpreter, it is not run."""
    if event in PROCESSES:
        refuse()
    if event == "exec":
        caller = str(sys._getframe(1).f_globals.get("__name__"))
        if caller not in RUNNERS and not caller.startswith(f"{__package__}."):
            refuse()
