"""A folder has one owner: among processes, after a kill, beside a child that outlives its parent, and aloud where it has none."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tracelift.errors import ConfigError
from tracelift.runs.lock import FolderLock

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from pathlib import Path
from tracelift.runs.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(200)
"""


def holder(folder, script=HOLD):
    """A process that has the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_the_loser_is_told_who_has_it_and_a_kill_gives_it_free(tmp_path):
    process = holder(tmp_path)
    with pytest.raises(ConfigError, match=rf"process {process.pid} on .* \(since 2.*works in it"):
        FolderLock(tmp_path, grace_s=0.2)
    process.kill()
    process.wait()
    FolderLock(tmp_path).release()


def test_a_child_that_outlives_the_owner_does_not_keep_it(tmp_path):
    script = HOLD.replace('print("held"', 'import os\nif os.fork() == 0:\n    time.sleep(200)\nprint("held"')
    process = holder(tmp_path, script)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children, "the child lives"
    process.kill()
    process.wait()
    try:
        FolderLock(tmp_path, grace_s=2).release()
    finally:
        for child in children:
            os.kill(int(child), signal.SIGKILL)


def test_many_at_once_go_one_after_the_other(tmp_path):
    """Each adds one to a number without care: none is lost if they are never two."""
    (tmp_path / "number").write_text("0")
    script = """
import sys, time
from pathlib import Path
from tracelift.runs.lock import FolderLock
folder = Path(sys.argv[1])
lock = FolderLock(folder, grace_s=200)
found = int((folder / "number").read_text())
time.sleep(0.05)
(folder / "number").write_text(str(found + 1))
lock.release()
"""
    many = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT) for _ in range(6)]
    assert [p.wait() for p in many] == [0] * 6
    assert (tmp_path / "number").read_text() == "6"


def test_one_process_has_it_once(tmp_path):
    lock = FolderLock(tmp_path)
    with pytest.raises(ConfigError, match="this process works in it already"):
        FolderLock(tmp_path, grace_s=0)
    lock.release()
    FolderLock(tmp_path).release()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    said = []
    FolderLock(tmp_path, said.append).release()
    assert len(said) == 1 and "gives no locks" in said[0]


def test_a_lock_file_taken_away_while_another_waits_gives_one_owner_all_the_same(tmp_path):
    first = FolderLock(tmp_path)
    waits = HOLD.replace(
        "FolderLock(Path(sys.argv[1]))", 'print("waits", flush=True) or FolderLock(Path(sys.argv[1]), grace_s=200)'
    )
    process = subprocess.Popen(
        [sys.executable, "-c", waits, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "waits\n"
    fds = Path(f"/proc/{process.pid}/fd")
    while str(tmp_path / ".lock") not in [os.readlink(fd) for fd in fds.iterdir() if fd.is_symlink()]:
        time.sleep(0.01)  # until it has the file that goes
    (tmp_path / ".lock").unlink()
    first.release()
    assert process.stdout.readline() == "held\n"
    try:
        with pytest.raises(ConfigError, match=f"process {process.pid} on "):
            FolderLock(tmp_path, grace_s=0.2)
    finally:
        process.kill()
        process.wait()
