"""Run a text as the interpreter runs a script: the same tracebacks, exit codes and ending.

Left out on purpose: what the interpreter does for terminals (prompts, colours, `-i`).
"""

from __future__ import annotations

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
