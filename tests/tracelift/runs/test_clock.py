"""Where a round's seconds go: the processor's own include those of programs that the sandbox ran."""

import time

import pytest

from tracelift.runs.clock import cpu_seconds
from tracelift.sandbox import Limits, Sandbox, Status, default_sandbox


def test_seconds_of_sandboxed_programs_are_this_process_seconds_and_waiting_is_not():
    box = default_sandbox()
    box.run("pass")
    before, counted = cpu_seconds(), Sandbox.programs_cpu_s
    busy = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    found = box.run_many([(busy, ""), (busy, "")], Limits(cpu_seconds=5, wall_seconds=60))
    spent = cpu_seconds() - before
    assert [e.status for e in found] == [Status.OK] * 2
    assert Sandbox.programs_cpu_s - counted == pytest.approx(sum(e.cpu_seconds for e in found))
    assert spent + 1e-6 >= sum(e.cpu_seconds for e in found) >= 1.0
    before = cpu_seconds()
    time.sleep(0.3)
    assert cpu_seconds() - before < 0.25, "waiting costs nothing"
