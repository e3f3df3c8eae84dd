"""A reader that leaves ends what is printed to it without a word."""

import subprocess
import sys
from pathlib import Path

import pytest

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
