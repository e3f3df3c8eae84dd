"""What a program may use, and what is known of it afterwards: `Limits` in, `Execution` out.

CPU time is the limit that matters: it is the same on a busy machine and on an idle one. Wall-clock time is a looser
bound, there for programs that sleep or wait for input (on a loaded machine a tight wall clock alone has moved a
suite's pass@1 from .40 to .23).

Left out on purpose: any judgement of a program's answer. An `Execution` says how a process ended; whether that is a
pass is for tracelift/programs to decide, from the output.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import Enum

MIB = 1 << 20


class SandboxError(RuntimeError):
    """The sandbox cannot run programs here at all: a required layer is missing or the launcher will not start."""


class Status(str, Enum):
    """How a program ended. Only ERROR is the sandbox's own trouble; all others are the program's doing."""

    OK = "ok"  # ran to its end, exit status 0
    RUNTIME_ERROR = "runtime_error"  # an uncaught exception, a non-zero exit status, or death by a signal
    COMPILE_ERROR = "compile_error"  # not Python
    TIMEOUT = "timeout"  # CPU or wall-clock time ran out
    OUTPUT_LIMIT = "output_limit"  # stopped for writing more than Limits.output_bytes to one stream
    ERROR = "error"  # sandbox trouble: says nothing about the program, and must never become a reward

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Limits:
    """Bounds for one program; all are enforced by the kernel or from outside the program's process.

    cpu_seconds and memory_bytes default to the paper's 2 s and 1,024 MB a test.
    """

    cpu_seconds: float = 2.0  # user + system time of all threads
    wall_seconds: float = 10.0  # from the first line of the program to its end
    memory_bytes: int = 1024 * MIB  # address space
    output_bytes: int = MIB  # kept of stdout and of stderr, each; a program that writes more is stopped
    file_bytes: int = 16 * MIB  # the largest file it may write
    disk_bytes: int = 64 * MIB  # all its files together
    open_files: int = 64
    threads: int = 32

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise ValueError(f"Limits.{name} must be a positive number, got {value!r}")
        if self.wall_seconds < self.cpu_seconds:
            raise ValueError(
                f"Limits.wall_seconds ({self.wall_seconds}) is below cpu_seconds ({self.cpu_seconds}): "
                "a busy machine would then fail honest programs; raise wall_seconds"
            )


@dataclass(frozen=True)
class Execution:
    """One finished run."""

    status: Status
    stdout: str  # UTF-8, undecodable bytes replaced; at most Limits.output_bytes of it
    stderr: str
    seconds: float  # wall clock, from the program's first line to its end
    cpu_seconds: float = 0.0
    peak_bytes: int = 0  # largest resident set, the interpreter's own pages included
    exit_code: int | None = None  # as a shell shows it; negative for a signal; None if it never ran
    detail: str = ""  # one sentence on anything but OK
    channel: bytes = b""  # what came through the extra channel, for the function-test protocol
