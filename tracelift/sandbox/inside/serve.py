"""The "serve" role: load a program, then answer calls of its functions, one JSON line each.

Requests come on descriptor 3, answers leave on 4, {"loaded": true} before all others:

    {"names": [n, …]}                        → {"names": {n: {"value": v} | {"handle": i, …}}}, the known ones only
    {"call": name | {"handle": i}, "do": operation | null, "args": [v, …], "kwargs": {k: v}, "back": b}
                                             → {"value": v, "args": [[i, v], …], "awaited": b}
                                             | {"raised": [class names], "text": s}

"args" says, where it was asked for ("back"), how the arguments that the call changed are after it, for functions that work
in place. "awaited" says that the function was asynchronous: it has been run to its end. Nothing here is trusted by the
other side: a program that seizes the descriptors can only give *answers*, which is what it was asked for.
"""

from __future__ import annotations

import json
import operator
import os
import sys
import types
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from . import script, wire

REQUESTS, ANSWERS = 3, 4
# What is asked of an object other than to call it. Kept here: the program may put others in their place.
OPERATIONS: dict[str, Callable] = {
    "getattr": getattr,
    "setattr": setattr,
    "delattr": delattr,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
    "len": len,
    "iter": iter,
}


class Server:
    def __init__(self, names: dict) -> None:
        self.names = names
        self.objects: list[Any] = []  # what was handed out as handles, by number

    def handle(self, value: Any) -> dict:
        if hasattr(value, "__next__"):
            return {"iterator": [wire.encode(v, self.handle) for v in value]}
        self.objects.append(value)
        kind = type(value).__name__
        return {"handle": len(self.objects) - 1, "type": kind, "callable": callable(value)}

    def find(self, what: Any) -> Any:
        if isinstance(what, dict):
            return self.objects[what["handle"]]
        if what in self.names:
            return self.names[what]
        solution = self.names.get("Solution")  # the one class judges of functions are used to look into
        if isinstance(solution, type) and hasattr(solution, what):
            return getattr(solution(), what)
        raise NameError(f"the program defines no {what!r}")

    def known(self, names: list[str]) -> dict:
        found = {}
        for name in names:
            try:
                found[name] = wire.encode(self.find(name), self.handle)
            except BaseException:  # not there, or a Solution that cannot be made
                continue
        return found

    def call(self, request: dict) -> dict:
        target = self.find(request["call"])
        args = [wire.decode(a, self.find) for a in request["args"]]
        kwargs = {k: wire.decode(v, self.find) for k, v in request["kwargs"].items()}
        value = OPERATIONS[request["do"]](target, *args) if request.get("do") else target(*args, **kwargs)
        awaited = hasattr(type(value), "__await__")
        if awaited:
            value = run_to_end(value)
        answer = {"value": wire.encode(value, self.handle), "awaited": awaited}
        if request.get("back"):
            after = [(i, wire.encode(a, self.handle)) for i, a in enumerate(args) if isinstance(a, wire.MUTABLE)]
            answer["args"] = [[i, item] for i, item in after if item != request["args"][i]]
        return answer

    def answer(self, request: dict) -> dict:
        if "names" in request:
            return {"names": self.known(request["names"])}
        try:
            return self.call(request)
        except BaseException as error:  # SystemExit too: the function ended without an answer
            return {"raised": [c.__name__ for c in type(error).__mro__], "text": str(error)[:500]}


def run_to_end(value: Awaitable) -> object:
    import asyncio  # 30 ms, for those alone who need it

    async def wait() -> object:
        return await value

    return asyncio.run(wait())


def serve(code: types.CodeType) -> NoReturn:
    """Never returns. A program that cannot be loaded exits with status 1, and its caller reads the end of file."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        script.show_error(error)
        script.finish(1)
    server = Server(module.__dict__)
    os.write(ANSWERS, wire.line({"loaded": True}))
    with os.fdopen(REQUESTS, "rb") as requests:
        for text in requests:
            answer = wire.line(server.answer(json.loads(text)))
            while answer:
                answer = answer[os.write(ANSWERS, answer) :]
    script.finish(0)
