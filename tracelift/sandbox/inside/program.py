"""The program's own process: take up its descriptors, give up its rights, then run the text it was given.

It is process 1 of its PID namespace, forked from a warm interpreter. Whatever runs after `running` is reported may be
hostile, so by then nothing of value is left here: no descriptor but its own, no environment, no secret, no way to
report.

Three roles: "program" runs the text as `python program.py` would; "serve" (serve.py) loads it and answers calls of its
functions; "examine" (examine.py) runs the tests that make such calls, in another process than the functions.

Differences from `python program.py`, all harmless to honest programs: signals with a default action do not reach
process 1, `random` starts from seed 0, and `sys.flags` shows a launcher.
"""

from __future__ import annotations

import atexit
import builtins
import fcntl
import linecache
import os
import random
import socket
import sys
import tempfile
import threading
import traceback
import types

from . import confine, examine, guard, serve

HIGH = 100  # descriptors are first moved up here, so that none is overwritten before it has been moved
FILENAME = "program.py"


def take_descriptors(fds: list[int]) -> tuple[str, socket.socket]:
    """stdin, stdout and stderr become 0, 1, 2, the channels 3, 4, …; returns the text and the control socket."""
    text, stdin, stdout, stderr, control, *channels = [fcntl.fcntl(fd, fcntl.F_DUPFD, HIGH) for fd in fds]
    with os.fdopen(text, "rb") as f:
        f.seek(0)
        source = f.read().decode("utf-8", errors="surrogatepass")
    for place, fd in enumerate((stdin, stdout, stderr, *channels)):
        os.dup2(fd, place)
    os.closerange(3 + len(channels), control)
    os.closerange(control + 1, 1 << 16)
    return source, socket.socket(fileno=control)


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


def finish(code: int) -> None:
    """What the interpreter does at its end: wait for threads, run exit functions, flush."""
    try:
        threading._shutdown()
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


def run(job: dict, fds: list[int], layers: set[str], work: str) -> None:
    """Become the program. Never returns."""
    source, control = take_descriptors(fds)
    try:
        os.setsid()
        os.chdir(work)
        os.environ["HOME"] = os.environ["TMPDIR"] = work
        tempfile.tempdir = None  # the guard's choice, which the program may not write to
        if "rlimits" in layers:
            confine.limit_resources(job["limits"])
        confine.give_up_rights(layers, work)
    except Exception:
        guard.report(control, state="trouble", detail=f"program: {traceback.format_exc(limit=3)}")
        os._exit(1)
    guard.report(control, state="ready")
    try:
        code = compile_text(source)
    except BaseException as error:  # SyntaxError, or what odd text can provoke: ValueError, MemoryError, ...
        show_error(error)
        sys.stderr.flush()
        detail = f"{type(error).__name__}: {error}"
        guard.report(control, state="compile_error", detail=detail[:500])
        os._exit(1)
    guard.report(control, state="running")
    control.close()
    become_ordinary()
    if job["role"] == "serve":
        serve.serve(code)
    elif job["role"] == "examine":
        examine.examine(code)
    else:
        run_as_main(code)


def become_ordinary() -> None:
    """Make the forked launcher look like a fresh interpreter."""
    for name in [name for name in sys.modules if name.split(".")[0] == __package__.split(".")[0]]:
        del sys.modules[name]
    sys.argv = [FILENAME]
    sys.path[:] = [p for p in sys.path if p.startswith((sys.base_prefix, sys.base_exec_prefix))]
    builtins.exit = builtins.quit = sys.exit  # site, which -S leaves out, would have made them
    random.seed(0)
    depth, frame = int(sys.version_info < (3, 12)), sys._getframe()  # up to 3.11 the call of exec counts as a frame
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(sys.getrecursionlimit() + depth)  # our own frames are not the program's to pay for
