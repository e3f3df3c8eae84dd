"""A sandbox for Python programs written by a model that is rewarded when they pass. docs/sandbox.md has the promises.

    from tracelift.sandbox import run_python, Limits
    run_python("print(input()[::-1])", stdin="abc", limits=Limits(cpu_seconds=1)).stdout     # "cba"

`Sandbox` is the same with a choice of how many programs run at once; `run_python` shares one per process.
`python -m tracelift.sandbox --probe` prints which layers this machine grants.
"""

from __future__ import annotations

import atexit
import os
import threading

from tracelift.sandbox.layers import Layers
from tracelift.sandbox.limits import Execution, Limits, SandboxError, Status
from tracelift.sandbox.pool import Sandbox

__all__ = [
    "Execution",
    "Layers",
    "Limits",
    "Sandbox",
    "SandboxError",
    "Status",
    "default_sandbox",
    "probe",
    "run_python",
]

_shared: dict[bool, Sandbox] = {}  # by allow_weak_sandbox
_lock = threading.Lock()


def default_sandbox(allow_weak_sandbox: bool = False) -> Sandbox:
    """This process's own sandbox, started at its first use. Raises SandboxError where none can be had."""
    with _lock:
        if allow_weak_sandbox not in _shared:
            _shared[allow_weak_sandbox] = Sandbox(allow_weak_sandbox=allow_weak_sandbox)
        return _shared[allow_weak_sandbox]


def run_python(code: str, stdin: str = "", limits: Limits = Limits(), *, allow_weak_sandbox: bool = False) -> Execution:
    """Run an untrusted Python program with `stdin` as its input.

    Returns an Execution: .status (Status.OK, RUNTIME_ERROR, COMPILE_ERROR, TIMEOUT, OUTPUT_LIMIT or ERROR), .stdout,
    .stderr, .seconds. Raises SandboxError if the machine lacks network or file isolation and weak is not allowed.
    """
    return default_sandbox(allow_weak_sandbox).run(code, stdin, limits)


def probe() -> Layers:
    """Start a launcher, see what the kernel grants it, and end it."""
    with Sandbox(workers=1, allow_weak_sandbox=True) as sandbox:
        return sandbox.layers


@atexit.register
def _close_all() -> None:
    for sandbox in _shared.values():
        sandbox.close()


# A forked child (a data loader's worker, say) starts its own: two processes on one socket would steal each other's
# replies.
os.register_at_fork(after_in_child=_shared.clear)
