"""One guard for each program: it forks the program, measures it, ends it in time, and alone reports how it ended.

The guard lives outside the program's PID namespace and never runs a line of the program. Its report goes over a control
socket of which the program has closed its copy before its first line: neither an exit status nor a timeout can be
forged. The same socket carries the order to stop: any word from the parent, or its end of the socket closing; so
programs also die with a parent that is killed.

    program   {"state": "ready"}      every layer is in place
              {"state": "running"} or {"state": "compile_error", "detail": …}
    guard     {"state": "ended", "reason": "exit" | "cpu" | "wall" | "stopped", "code", "seconds", "cpu_seconds",
               "peak_bytes"}
    either    {"state": "trouble", "detail": …}      the sandbox's own failure, from whoever met it
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import tempfile
import time
import traceback

from . import confine, program, syscalls
from .program import report

CPU_STEP = 0.005  # seconds: the finest interval at which CPU time is looked at


def cpu_clock(pid: int) -> int:
    """The id of another process's CPU-time clock: the kernel's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)."""
    return (~pid << 3) | 2


def guard(job: dict, fds: list[int], layers: set[str]) -> None:
    """Run one job to its end. Called in a fresh fork of the launcher; the caller exits right after.

    fds: program text, stdin, stdout, stderr, control, then what the program gets as descriptors 3, 4, ….
    """
    control = socket.socket(fileno=fds[4])
    scratch = None
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the launcher ignores it, and then nothing could be waited for
        os.setsid()
        syscalls.die_with_parent()
        confine.enter_own_namespaces(layers, job["limits"]["disk_bytes"])
        if "mount" in layers:
            work = confine.rootfs.WORK
        else:
            work = scratch = tempfile.mkdtemp(prefix="tracelift-")
            if os.geteuid() == 0 and "unprivileged" in layers:
                os.chown(work, confine.user_id(layers, job["slot"]), confine.NOBODY)
        pid = os.fork()
        if pid == 0:
            program.run(job, fds, layers, work)  # never returns
        for fd in fds[:4] + fds[5:]:
            os.close(fd)
        outcome = supervise(pid, control, job["limits"])
    except Exception:
        outcome = {"state": "trouble", "detail": f"guard: {traceback.format_exc(limit=3)}"}
    if scratch:
        syscalls.outlive_parent()  # the sandbox may be closed upon the report, but the folder has to go
    report(control, **outcome)
    if scratch:
        control.close()
        remove_folder(scratch)


def remove_folder(path: str) -> None:
    """Remove a folder that a program, by now dead, has filled: as deep as it likes, and with folders shut to their owner.

    One step down or up at a time: neither recursion nor open files nor the length of a path grows with the depth.
    """

    def remove_files() -> list[str]:
        """Of the current folder; returns the folders in it."""
        entries = [(e.name, e.is_dir(follow_symlinks=False)) for e in os.scandir(".")]
        for name, is_folder in entries:
            if not is_folder:
                os.unlink(name)
        return [name for name, is_folder in entries if is_folder]

    try:
        os.chdir(path)
        levels, names = [remove_files()], []  # folders still to be removed at each level; the way down
        while levels:
            if levels[-1]:
                names.append(levels[-1].pop())
                os.chmod(names[-1], 0o700)
                os.chdir(names[-1])
                levels.append(remove_files())
                continue
            levels.pop()
            if names:
                os.chdir("..")
                os.rmdir(names.pop())
        os.chdir("/")
        os.rmdir(path)
    except OSError:
        pass  # what cannot be removed stays: there is nobody here to tell


def supervise(pid: int, control: socket.socket, limits: dict) -> dict:
    """Wait for the program, or end it at the first bound it reaches. Returns the report."""
    start = time.monotonic()
    ended = os.pidfd_open(pid)
    watch = select.poll()
    watch.register(ended, select.POLLIN)
    watch.register(control, select.POLLIN)  # any word from the parent, or its going, means stop
    cores = min(os.cpu_count() or 1, limits["threads"])
    reason = "exit"
    while True:
        wall_left = limits["wall_seconds"] - (time.monotonic() - start)
        try:
            cpu_left = limits["cpu_seconds"] - time.clock_gettime(cpu_clock(pid))
        except OSError:
            cpu_left = CPU_STEP  # already a zombie: the poll below returns at once
        if cpu_left <= 0 or wall_left <= 0:
            reason = "cpu" if cpu_left <= 0 else "wall"
            break
        # CPU time cannot pass faster than wall time on every core, so nothing is missed by sleeping that long.
        pause = min(wall_left, max(cpu_left / cores, CPU_STEP))
        events = dict(watch.poll(pause * 1000 + 1))
        if ended in events:
            break
        if events:
            reason = "stopped"
            break
    seconds = time.monotonic() - start
    os.kill(pid, signal.SIGKILL)  # process 1 of its namespace: all others there go with it
    with contextlib.suppress(ProcessLookupError):  # it ended before it became a group's leader
        os.killpg(pid, signal.SIGKILL)  # where there is no PID namespace, what remains of its process group
    _, status, usage = os.wait4(pid, 0)
    cpu = usage.ru_utime + usage.ru_stime
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
    if reason == "exit" and killed and cpu >= limits["cpu_seconds"]:
        reason = "cpu"  # the kernel's own limit came first
    code = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1024 if sys.platform == "linux" else 1)
    return {
        "state": "ended",
        "reason": reason,
        "code": code,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_bytes": peak,
    }
