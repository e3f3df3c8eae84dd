"""The "serve" role: load a program, then answer calls of its functions, one JSON line each.

Requests come on descriptor 3, answers leave on 4, {"loaded": true} before all others:

    {"names": [n, …]}                        → {"names": {n: {"value": v} | {"handle": i, …}}}, the known ones only
    {"call": name | {"handle": i}, "method": m | null, "args": [v, …], "kwargs": {k: v}}
                                             → {"value": v, "args": [v, …]} | {"raised": [class names], "text": s}

"args" repeats the positional arguments as they are after the call, for functions that work in place. Nothing here is
trusted by the other side: a program that seizes the descriptors can only give *answers*, which is what it was asked
for.
"""

from __future__ import annotations

import json
import os
import sys
import types
from typing import Any, NoReturn

from . import script, wire

REQUESTS, ANSWERS = 3, 4


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
        if what not in self.names and isinstance(self.names.get("Solution"), type):
            return getattr(self.names["Solution"](), what)  # the one class judges of functions are used to look into
        if what not in self.names:
            raise NameError(f"the program defines no {what!r}")
        return self.names[what]

    def call(self, request: dict) -> dict:
        function = self.find(request["call"])
        if request.get("method"):
            function = getattr(function, request["method"])
        args = [wire.decode(a, self.find) for a in request["args"]]
        kwargs = {k: wire.decode(v, self.find) for k, v in request["kwargs"].items()}
        value = function(*args, **kwargs)
        return {"value": wire.encode(value, self.handle), "args": [wire.encode(a, self.handle) for a in args]}

    def answer(self, request: dict) -> dict:
        if "names" in request:
            known = {n: self.names[n] for n in request["names"] if n in self.names}
            return {"names": {n: wire.encode(v, self.handle) for n, v in known.items()}}
        try:
            return self.call(request)
        except BaseException as error:  # SystemExit too: the function ended without an answer
            return {"raised": [c.__name__ for c in type(error).__mro__], "text": str(error)[:500]}


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
