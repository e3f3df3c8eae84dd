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

import builtins
import contextlib
import fcntl
import json
import os
import random
import socket
import sys
import tempfile
import traceback

from . import confine, examine, script, serve

HIGH = 40  # descriptors are first moved up here, so that none is overwritten before it has been moved


def report(control: socket.socket, **message: object) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the parent has given up: it needs no report
        control.send(json.dumps(message).encode())


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


def run(job: dict, fds: list[int], layers: set[str], work: str) -> None:
    """Become the program. Never returns."""
    source, control = take_descriptors(fds)
    try:
        os.setsid()
        os.chdir(work)
        os.environ["HOME"] = os.environ["TMPDIR"] = work
        tempfile.tempdir = None  # the guard's choice, which the program may not write to
        if "rlimits" in layers:
            confine.limit_resources(job["limits"], confine.most_threads(job["limits"], layers, job["at_once"]))
        confine.give_up_rights(layers, work, confine.user_id(layers, job["slot"]))
    except Exception:
        report(control, state="trouble", detail=f"program: {traceback.format_exc(limit=3)}")
        os._exit(1)
    report(control, state="ready")
    try:
        code = script.compile_text(source) if job["role"] != "examine" else None  # whose text is no program
    except BaseException as error:  # SyntaxError, or what odd text can provoke: ValueError, MemoryError, ...
        script.show_error(error)
        sys.stderr.flush()
        detail = f"{type(error).__name__}: {error}"
        report(control, state="compile_error", detail=detail[:500])
        os._exit(1)
    report(control, state="running")
    control.close()
    become_ordinary()
    if code is None:
        examine.examine(source)
    elif job["role"] == "serve":
        serve.serve(code)
    else:
        script.run_as_main(code)


def become_ordinary() -> None:
    """Make the forked launcher look like a fresh interpreter."""
    for name in [name for name in sys.modules if name.split(".")[0] == __name__.split(".")[0]]:
        del sys.modules[name]
    sys.argv = [script.FILENAME]
    sys.path[:] = [p for p in sys.path if p.startswith((sys.base_prefix, sys.base_exec_prefix))]
    builtins.exit = builtins.quit = sys.exit  # site, which -S leaves out, would have made them
    random.seed(0)
    depth, frame = int(sys.version_info < (3, 12)), sys._getframe()  # up to 3.11 the call of exec counts as a frame
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(sys.getrecursionlimit() + depth)  # our own frames are not the program's to pay for
