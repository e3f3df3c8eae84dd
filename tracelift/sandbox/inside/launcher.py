"""The process from which all programs of one sandbox are forked: small, single-threaded, and ready.

The trainer has threads, GPUs and gigabytes, and may not be forked. So it starts this launcher once, by exec. The
launcher imports what programs commonly import, enters the shared namespaces, and then forks a guard for each job that
arrives: a program meets a warm interpreter, at the price of two forks instead of an interpreter's start. It runs no
program itself, keeps no state between jobs, and leaves when the trainer's end of the socket closes.

A job is one message: JSON, and descriptors for the program text, stdin, stdout, stderr, control, and any channels.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import traceback

from . import confine, guard

PRELOAD = (
    "re math random collections heapq bisect itertools functools operator string typing copy json datetime "
    "decimal fractions ast traceback linecache threading"
).split()
MAX_DESCRIPTORS = 8
OPEN_FILES = 64  # what a guard and its program need between them before the program's own limit
MAX_MESSAGE = 16 << 10


def lacking() -> str:
    """What every guard needs and this machine refuses; '' if nothing. Found here, it is told once, by name."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        return f"a process may open {hard} files here (ulimit -Hn); {OPEN_FILES} are needed"
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return f"pidfd_open is refused ({error}): it takes Linux 5.3, and a container whose seccomp profile knows it"
    return ""


def main(argument: str) -> None:
    """argument: JSON {"socket": descriptor, "without": [layers to leave off], "landlock_newest": ABI to use at most, "owner":
    the trainer's id, for `ps`}."""
    config = json.loads(argument)
    jobs = socket.socket(fileno=config["socket"])
    if trouble := lacking():
        jobs.send(json.dumps({"trouble": trouble}).encode())
        return
    confine.landlock.newest = config["landlock_newest"]
    for name in PRELOAD:
        importlib.import_module(name)
    try:
        reasons = confine.enter_shared(set(config["without"]))
    except Exception:
        jobs.send(json.dumps({"trouble": traceback.format_exc(limit=3)}).encode())
        return
    layers = {name for name, reason in reasons.items() if not reason}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # guards report over their sockets; the kernel may bury them
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, whose going this process notices
    gc.collect()
    gc.freeze()  # what is here now stays: a collection in a child must not touch, and so copy, these pages
    jobs.send(json.dumps({"layers": reasons, "landlock_abi": confine.landlock.abi()}).encode())
    while True:
        message, fds, _, _ = socket.recv_fds(jobs, MAX_MESSAGE, MAX_DESCRIPTORS)
        if not message:
            return
        if os.fork() == 0:
            try:
                jobs.close()
                guard.guard(json.loads(message), fds, layers)
            finally:
                sys.stderr.flush()
                os._exit(0)
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    main(sys.argv[1])
