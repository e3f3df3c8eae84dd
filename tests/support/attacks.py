"""What the sandbox's attack tests share: the sandboxes they run in, and ways to look at the machine from outside.

Each attack runs in up to three sandboxes: with all layers, with namespaces alone, and with Landlock and seccomp alone
(what default Docker leaves). So a layer that silently did nothing would show.
"""

from __future__ import annotations

import os
import textwrap
import time
from pathlib import Path

import pytest

from tracelift.sandbox import Limits, Sandbox, SandboxError
from tracelift.sandbox.inside.confine import NAMESPACES

ADD_KEY = {"x86_64": 248, "aarch64": 217}  # and request_key, keyctl after it
QUICK = Limits(cpu_seconds=1.0, wall_seconds=30.0)
WITHOUT = {"all layers": (), "namespaces alone": ("landlock", "seccomp"), "filters alone": NAMESPACES}
ran: list[str] = []
skipped: list[str] = []


@pytest.fixture(scope="module", params=WITHOUT)
def box(request):
    try:
        sandbox = Sandbox(workers=2, without=WITHOUT[request.param])
    except SandboxError as error:
        pytest.skip(f"{request.param}: {error}")
    with sandbox:
        sandbox.kind = request.param
        yield sandbox


@pytest.fixture(autouse=True)
def count(request):
    yield
    ran.append(request.node.name)


@pytest.fixture
def victim(tmp_path):
    """A file outside the sandbox that its permissions let anybody overwrite, in a folder that they let anybody fill."""
    os.chmod(tmp_path, 0o777)
    victim = tmp_path / "victim"
    victim.write_text("whole")
    victim.chmod(0o666)
    return victim


def attack(box, code: str, limits: Limits = QUICK, **values: object):
    """Run `code` with `values` as its global names."""
    head = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    return box.run(head + textwrap.dedent(code), limits=limits)


def skip(reason: str) -> None:
    skipped.append(reason)
    pytest.skip(reason)


def needs(box, promise: str) -> None:
    if not box.layers.keeps(promise):
        skip(f"{box.kind}: this kernel lets nothing keep the promise of {promise}")


def own_processes(token: str = f'"owner": {os.getpid()}') -> set[int]:
    """Ids of every process forked from this test's launchers, wherever it may have moved."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if token in Path(f"/proc/{entry}/cmdline").read_text():
                    found.add(int(entry))
            except OSError:
                pass  # it has just ended
    return found


def wait_until(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False
