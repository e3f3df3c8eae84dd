"""Run a text as the interpreter runs a script: the same tracebacks, exit codes and ending. And what of texts the tests of a
program may run beside it: literals and operators, since any other text could be the program's.

Left out on purpose: what the interpreter does for terminals (prompts, colours, `-i`).
"""

from __future__ import annotations

import ast
import atexit
import linecache
import os
import sys
import threading
import traceback
import types
from typing import NoReturn

FILENAME = "program.py"


def compile_text(source: str, filename: str = FILENAME) -> types.CodeType:
    """Compile, and let tracebacks show the lines."""
    lines = [line + "\n" for line in source.split("\n")]
    linecache.cache[filename] = (len(source), None, lines, filename)
    return compile(source, filename, "exec", dont_inherit=True)


def show_error(error: BaseException) -> None:
    """A traceback as the interpreter prints it, from the program's own first frame on."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename != FILENAME:
        tb = tb.tb_next
    traceback.print_exception(type(error), error, tb, file=sys.stderr)


def exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def finish(code: int) -> NoReturn:
    """What the interpreter does at its end: wait for threads, run exit functions, flush."""
    try:
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]  it has no public name
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except SystemExit as error:
        code = exit_code(error)
    except BaseException:
        code = code or 120  # the interpreter's own code for output that could not be flushed
    os._exit(code)


def run_as_main(code: types.CodeType) -> None:
    module = types.ModuleType("__main__")
    module.__file__ = FILENAME
    sys.modules["__main__"] = module
    try:
        exec(code, module.__dict__)
    except SystemExit as error:
        finish(exit_code(error))
    except BaseException as error:
        show_error(error)
        finish(1)
    finish(0)


# -- texts that tests may run -----------------------------------------------------------------------------------------

LITERAL = (ast.Expression, ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.IfExp, ast.expr_context)
LITERAL += (ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.unaryop, ast.operator, ast.boolop, ast.cmpop)
# Modules of the standard library that run code of their own making: imports, and classes they write.
RUNNERS = {"importlib._bootstrap", "importlib._bootstrap_external", "_frozen_importlib", "_frozen_importlib_external"}
RUNNERS |= {"dataclasses", "collections", "typing"}
PROCESSES = {"os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen", "pickle.find_class"}


class Trouble(Exception):
    """What tests may not do. `met` keeps the first: a test that catches it is judged by it all the same."""

    met: Trouble | None = None

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        Trouble.met = Trouble.met or self


def refuse(*_: object, **__: object) -> NoReturn:
    """Instead of exec and compile, which would run what may be a text of the program's."""
    raise Trouble("runtime_error", "a test may evaluate literals and operators; any other text could be the program's")


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
