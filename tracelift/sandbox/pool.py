"""The parent's side: start the launcher, hand it programs, as many at once as there are workers, and gather results.

    Sandbox ──exec──▶ launcher ──fork──▶ guard ──fork──▶ program            (see inside/__init__.py)
       ▲                                   │                │
       └────────── control socket ─────────┴── stdout, stderr and channel, as pipes            (running.py)

A stuck guard or a dead launcher is noticed, replaced, and reported as Status.ERROR, which says nothing about the
program.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from tracelift.sandbox.layers import Layers
from tracelift.sandbox.limits import Execution, Limits, SandboxError, Status
from tracelift.sandbox.running import Running, drain

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from inside.launcher import main; main(sys.argv[2])"
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
    with os.fdopen(os.dup(fd), "wb") as f:
        f.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return fd


class Launcher:
    """The process that forks programs, and the socket to it."""

    def __init__(self, without: Iterable[str]) -> None:
        self.jobs, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        python = getattr(sys, "_base_executable", None) or sys.executable  # a virtual environment adds only packages
        config = json.dumps({"socket": theirs.fileno(), "without": sorted(without), "owner": os.getpid()})
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
    without: layers to leave off, to test that the others hold (names in inside/confine.py: LAYERS).
    Raises SandboxError where programs cannot be run, or not safely.
    """

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

    def serve(self, code: str, requests: bytes, limits: Limits) -> Execution:
        """Load a program and have it answer `requests` (inside/serve.py); its answers are in Execution.channel."""

        def begin() -> list[Running]:
            file = frozen_file(requests, "requests")
            try:
                return [self.start(code, b"", limits, role="serve", channels=[file], captured=True)]
            finally:
                os.close(file)

        (execution,) = self._twice(begin)
        return execution

    def examine(self, code: str, tests: str, limits: Limits, test_limits: Limits) -> tuple[Execution, Execution]:
        """Run a program and the tests that call it (inside/examine.py) side by side, joined by two pipes. Returns what
        became of the program, and of the tests, whose verdicts are in the second one's channel."""

        def begin() -> list[Running]:
            (ask_read, ask_write), (answer_read, answer_write) = os.pipe(), os.pipe()
            try:
                program = self.start(code, b"", limits, role="serve", channels=[ask_read, answer_write])
                channels = [answer_read, ask_write]
                return [program, self.start(tests, b"", test_limits, role="examine", channels=channels, captured=True)]
            finally:
                for fd in (ask_read, ask_write, answer_read, answer_write):
                    os.close(fd)  # so that either side reads the end of file when the other goes

        own, theirs = self._twice(begin)
        return own, theirs

    def _twice(self, begin: Callable[[], list[Running]]) -> list[Execution]:
        """Start programs and gather them, in one worker's place; once more if that met with trouble of ours."""
        executions: list[Execution] = []
        for _ in range(2):
            with self._slots:
                executions = self.gather(begin())
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
        captured: bool = False,
    ) -> Running:
        """Start a program without waiting for it. `channels` become its descriptors 3, 4, … and stay the caller's to
        close; with `captured`, one more follows whose other end is read into `Execution.channel`."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pipes = [os.pipe() for _ in range(3 if captured else 2)]
        given = [frozen_file(code.encode("utf-8", "surrogatepass"), "program"), frozen_file(stdin, "stdin")]
        given += [write for _, write in pipes[:2]] + [theirs.fileno()] + list(channels)
        given += [write for _, write in pipes[2:]]
        running = Running(limits, mine, {read: bytearray() for read, _ in pipes})
        try:
            self._send({"role": role, "limits": asdict(limits)}, given)
        except OSError as error:
            running.state, running.detail = "trouble", f"the launcher cannot be reached: {error}"
        except SandboxError:
            running.close()
            raise
        finally:
            theirs.close()
            for fd in given[:2] + [write for _, write in pipes]:
                os.close(fd)
        return running

    def gather(self, programs: Sequence[Running]) -> list[Execution]:
        """Wait for started programs and close what belongs to them."""
        try:
            drain(programs)
        finally:
            for p in programs:
                p.close()
        if any(p.ended is None and p.state != "trouble" for p in programs):
            self._discard_launcher()  # the next program gets a fresh one
        return [p.result() for p in programs]

    def _send(self, job: dict, fds: list[int]) -> None:
        with self._lock:
            if self._closed:
                raise SandboxError("this sandbox has been closed")
            if self._launcher is None or self._launcher.process.poll() is not None:
                if self._launcher is not None:
                    self._launcher.close()
                self._launcher = Launcher(self.without)
            self._launcher.send(job, fds)
