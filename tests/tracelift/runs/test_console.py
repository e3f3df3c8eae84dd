"""A reader that leaves ends what is printed to it without a word."""

import subprocess
import sys
from pathlib import Path

import pytest

from tracelift.runs.console import exit_of
from tracelift.runs.signals import StopSignal

ENDLESS = """
from tracelift.runs.console import reader_may_leave
{head}
    while True:
        print("a line that somebody may read")
"""


@pytest.mark.parametrize(("head", "code"), [("with reader_may_leave():", 0), ("if True:", 1)])
def test_a_reader_may_leave(head, code):
    script = ENDLESS.replace("{head}", head)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=-1, stderr=-1, cwd=Path(__file__).parents[3], text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait() == code and ("BrokenPipeError" in said) == bool(code), said


@pytest.mark.parametrize(("asked", "code", "says"), [(False, 2, "rank 0 of 1 lost"), (True, 143, "asked to stop, but")])
def test_a_rank_that_is_lost_after_a_request_to_stop_was_stopped(monkeypatch, asked, code, says):
    monkeypatch.setattr(StopSignal, "asked", asked)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    found, sentence = exit_of(RuntimeError("[gloo] Connection closed by peer"), 3.0)
    assert found == code and says in sentence and "lost another rank" in sentence
