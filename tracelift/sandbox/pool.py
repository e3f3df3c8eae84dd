"""The parent's side: start the launcher, hand it programs, as many at once as there are workers, and gather results.

    Sandbox ──exec──▶ launcher ──fork──▶ guard ──fork──▶ program            (see inside/__init__.py)
       ▲                                   │                │
       └────────── control socket ─────────┴── stdout, stderr and channel, as pipes            (running.py)

A stuck guard or a dead launcher is noticed, replaced, and reported as Status.ERROR, which says nothing about the
program.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from typing import ClassVar

from tracelift.sandbox.layers import Layers
from tracelift.sandbox.limits import Execution, Limits, SandboxError, Status
from tracelift.sandbox.running import Running, drain

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from inside.launcher import main; main(sys.argv[2])"
OLD_LANDLOCK = "landlock ABI "
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def frozen_file(data: bytes, name: str) -> int:
    """An anonymous in-memory file that nobody can change any more; reading it never blocks."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        written = 0
        while written < len(data):
            written += os.write(fd, memoryview(data)[written:])
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    except OSError:
        os.close(fd)
        raise
    return fd


def pipe(owner: ExitStack) -> tuple[int, int]:
    """A pipe whose ends are closed with the stack."""
    ends = os.pipe()
    for end in ends:
        owner.callback(os.close, end)
    return ends


def lacking() -> str:
    """What this process needs and is refused, by name; '' if nothing."""
    calls = {
        "memfd_create": lambda: os.close(frozen_file(b"", "probe")),
        "socketpair": lambda: [end.close() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)],
        "pipe": lambda: [os.close(end) for end in os.pipe()],
    }
    for name, attempt in calls.items():
        try:
            attempt()
        except OSError as error:
            return f"{name} is refused to this process ({refusal(error)})"
    return ""


def refusal(error: OSError) -> str:
    return f"{error}; raise the limit on open files, ulimit -n" if error.errno == errno.EMFILE else str(error)


class Launcher:
    """The process that forks programs, and the socket to it."""

    def __init__(self, without: Iterable[str]) -> None:
        if reason := lacking():
            raise SandboxError(f"the sandbox cannot run programs here: {reason}")
        self.jobs, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        python = getattr(sys, "_base_executable", None) or sys.executable  # a virtual environment adds only packages
        old = [int(name.removeprefix(OLD_LANDLOCK)) for name in without if name.startswith(OLD_LANDLOCK)]
        newest = min(old, default=1 << 31) - 1
        layers = {"without": sorted(without), "landlock_newest": newest}
        config = json.dumps({"socket": theirs.fileno(), **layers, "owner": os.getpid()})
        environment = dict(ENVIRONMENT)
        if "LD_LIBRARY_PATH" in os.environ:  # some interpreters do not start without theirs
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        # `-I` but for its `-E`, which would ignore the fixed hash seed: the environment is all ours anyway.
        command = [python, "-P", "-s", "-S", "-B", "-c", BOOT, os.path.dirname(os.path.abspath(__file__)), config]
        self.process = subprocess.Popen(
            command,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        theirs.close()
        self.jobs.settimeout(60)
        try:
            hello = self.jobs.recv(1 << 16)
        except TimeoutError:
            hello = b""
        self.jobs.settimeout(None)
        message = json.loads(hello or b"{}")
        if "layers" not in message:
            self.close()
            reason = message.get("trouble") or f"it ended with status {self.process.returncode} before its first word"
            raise SandboxError(f"the sandbox's launcher ({python}) does not start: {reason}")
        self.layers = Layers(reasons=message["layers"], landlock_abi=message["landlock_abi"])

    def send(self, job: dict, fds: list[int]) -> None:
        socket.send_fds(self.jobs, [json.dumps(job).encode()], fds)

    def close(self) -> None:
        self.jobs.close()  # it leaves by itself at that; its guards see their own sockets close
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Sandbox:
    """Runs untrusted programs, `workers` at a time. Safe to use from many threads; use one for the whole run.

    allow_weak_sandbox: run even if the kernel gives no network or no file isolation. Logged loudly.
    without: layers to leave off, to test that the others hold (names in inside/confine.py: LAYERS); "landlock ABI 3" leaves
    off what Landlock knows from its ABI 3 on.
    Raises SandboxError where programs cannot be run, or not safely.
    """

    programs_cpu_s: ClassVar[float] = 0.0  # of all programs of this process; the kernel buries them uncounted
    _counting: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self, workers: int | None = None, *, allow_weak_sandbox: bool = False, without: Iterable[str] = ()
    ) -> None:
        if not sys.platform.startswith("linux"):
            raise SandboxError(
                f"the sandbox needs Linux (this is {sys.platform}): run inside a Linux machine or container"
            )
        self.workers = workers or os.cpu_count() or 1
        self.without = frozenset(without)
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(self.workers)
        self._closed = False
        self._taken: set[int] = set()  # slots of programs that run
        self._launcher: Launcher | None = Launcher(self.without)
        self.layers = self._launcher.layers
        try:
            self.layers.require(allow_weak_sandbox)
        except SandboxError:
            self.close()
            raise

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the launcher, and with it whatever still runs."""
        self._closed = True
        self._discard_launcher()

    def _discard_launcher(self) -> None:
        with self._lock:
            if self._launcher is not None:
                self._launcher.close()
                self._launcher = None

    def run(self, code: str, stdin: str = "", limits: Limits = Limits()) -> Execution:
        """Run one program, as `python program.py < stdin` would. Trouble is tried once more, then reported as ERROR."""
        (execution,) = self._twice(lambda: [self.start(code, stdin.encode("utf-8", "surrogatepass"), limits)])
        return execution

    def run_many(self, jobs: Sequence[tuple[str, str]], limits: Limits = Limits()) -> list[Execution]:
        """Run (code, stdin) pairs, `workers` at a time; results in the order of the jobs."""
        with ThreadPoolExecutor(self.workers) as threads:
            return list(threads.map(lambda job: self.run(job[0], job[1], limits), jobs))

    def serve(self, code: str, requests: bytes, limits: Limits, answer_bytes: int) -> Execution:
        """Load a program and have it answer `requests` (inside/serve.py); of its answers, Execution.channel keeps so many
        bytes."""

        def begin() -> list[Running]:
            file = frozen_file(requests, "requests")
            try:
                return [self.start(code, b"", limits, role="serve", channels=[file], captured=answer_bytes)]
            finally:
                os.close(file)

        (execution,) = self._twice(begin)
        return execution

    def examine(
        self, code: str, tests: str, limits: Limits, test_limits: Limits, verdict_bytes: int
    ) -> tuple[Execution, Execution]:
        """Run a program and the tests that call it (inside/examine.py) side by side, joined by two pipes. Returns what
        became of the program, and of the tests, whose verdicts are in the second one's channel."""

        def begin() -> list[Running]:
            started: list[Running] = []
            with ExitStack() as ours:  # closed here, so that either side reads the end of file when the other goes
                (ask_read, ask_write), (answer_read, answer_write) = pipe(ours), pipe(ours)
                try:
                    started.append(self.start(code, b"", limits, role="serve", channels=[ask_read, answer_write]))
                    channels = [answer_read, ask_write]
                    started.append(
                        self.start(tests, b"", test_limits, role="examine", channels=channels, captured=verdict_bytes)
                    )
                except BaseException:
                    self._finish(started)
                    raise
            return started

        own, theirs = self._twice(begin, count=2)
        return own, theirs

    def _twice(self, begin: Callable[[], list[Running]], count: int = 1) -> list[Execution]:
        """Start programs and gather them, in one worker's place; once more if that met with trouble of ours."""
        executions: list[Execution] = []
        for _ in range(2):
            with self._slots:
                try:
                    executions = self.gather(begin())
                except OSError as error:
                    detail = f"this process cannot make what a program needs: {refusal(error)}"
                    executions = [Execution(Status.ERROR, "", "", 0.0, detail=detail)] * count
            if all(e.status is not Status.ERROR for e in executions):
                break
        return executions

    def start(
        self,
        code: str,
        stdin: bytes,
        limits: Limits,
        role: str = "program",
        channels: Sequence[int] = (),
        captured: int = 0,
    ) -> Running:
        """Start a program without waiting for it. `channels` become its descriptors 3, 4, … and stay the caller's to
        close; with `captured`, one more follows of which so many bytes are read into `Execution.channel`. Raises OSError
        where this process can open no more files."""
        bounds = [limits.output_bytes] * 2 + [captured] * bool(captured)
        lent, kept, mine = [], [], None  # descriptors whose copies the launcher gets; what is read here
        with self._lock:
            slot = next(n for n in itertools.count() if n not in self._taken)
            self._taken.add(slot)
        try:
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            lent.append(theirs.detach())
            for _ in bounds:
                read, write = os.pipe()
                kept.append(read)
                lent.append(write)
            lent.append(frozen_file(code.encode("utf-8", "surrogatepass"), "program"))
            lent.append(frozen_file(stdin, "stdin"))
            control, out, err, *channel, text, given = lent
            streams, most = {fd: bytearray() for fd in kept}, dict(zip(kept, bounds, strict=True))
            running = Running(limits, mine, streams, most, slot)
            job = {"role": role, "limits": asdict(limits), "slot": slot, "at_once": 2 * self.workers}
            try:
                self._send(job, [text, given, out, err, control, *channels, *channel])
            except OSError as error:
                running.state, running.detail = "trouble", f"the launcher cannot be reached: {error}"
        except BaseException:
            for fd in kept:
                os.close(fd)
            if mine is not None:
                mine.close()
            self._taken.discard(slot)
            raise
        finally:
            for fd in lent:
                os.close(fd)
        return running

    def gather(self, programs: Sequence[Running]) -> list[Execution]:
        """Wait for started programs and close what belongs to them."""
        try:
            drain(programs)
        finally:
            self._finish(programs)
        if any(p.ended is None and p.state != "trouble" for p in programs):
            self._discard_launcher()  # the next program gets a fresh one
        executions = [p.result() for p in programs]
        with Sandbox._counting:
            Sandbox.programs_cpu_s += sum(e.cpu_seconds for e in executions)
        return executions

    def _finish(self, programs: Sequence[Running]) -> None:
        for p in programs:
            p.close()
            self._taken.discard(p.slot)

    def _send(self, job: dict, fds: list[int]) -> None:
        with self._lock:
            if self._closed:
                raise SandboxError("this sandbox has been closed")
            if self._launcher is None or self._launcher.process.poll() is not None:
                if self._launcher is not None:
                    self._launcher.close()
                self._launcher = Launcher(self.without)
            self._launcher.send(job, fds)
