"""What a script says and how it ends: lines from the rank that should speak, one sentence and one exit code an error.

A reader of a pipe that has seen enough (`… | head`) is no error. Left out: progress lines (tracelift/rl/report.py, tracelift/training/fit.py), stopping on request (signals.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tracelift.distributed.world import lost_contact
from tracelift.errors import TrainingError
from tracelift.runs.signals import EXIT_STOPPED, StopSignal
from tracelift.sandbox import SandboxError

EXIT_BAD_INPUT = 1  # configuration, data or model
EXIT_FAILED = 2  # it began, and could not go on


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Inside, what is printed into a pipe that nobody reads any more is dropped, and the work inside ends there."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is the flush at exit an error


def quiet_unless_main(is_main: bool) -> Callable[[str], None]:
    """Progress lines from rank 0 only, flushed as they come."""
    return (lambda line: print(line, flush=True)) if is_main else (lambda line: None)


def from_any_rank(rank: int) -> Callable[[str], None]:
    """Lines that matter whichever rank has them: all wait for one that waits."""
    return lambda line: print(line if rank == 0 else f"rank {rank}: {line}", flush=True)


def exit_of(error: Exception, timeout_s: float) -> tuple[int, str]:
    """(exit code, the sentence to print) of an error that a user can act on; raises any other again.

    timeout_s: how long a rank waits for the others before it says that one is lost. Where all were asked to stop and could
    not finish, the first to give up is lost to the others: they too were stopped.
    """
    # ConfigError and models.CheckpointError are ValueErrors
    if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError)):
        return EXIT_BAD_INPUT, str(error)
    if isinstance(error, (TrainingError, SandboxError, OSError)):
        return EXIT_FAILED, str(error)
    if isinstance(error, RuntimeError) and (why := lost_contact(error, timeout_s)) is not None:
        return (
            (EXIT_STOPPED, f"asked to stop, but the round was not finished: {why}")
            if StopSignal.asked
            else (EXIT_FAILED, why)
        )
    raise error
