"""One owner a folder: an exclusive lock for as long as a process works in it, and a sentence that names the owner.

A POSIX record lock on FOLDER/.lock. The system drops it when the process ends, however that comes about, and a child of
the process does not inherit it. It holds between the processes of one machine; between machines it holds where the file
system hands locks on (NFS with its lock manager, Lustre and GPFS with locks switched on). Where it gives none, that is
said and nothing is promised. Readers take no lock: a run can be looked at and evaluated while it trains.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracelift.distributed.world import World
from tracelift.errors import ConfigError
from tracelift.files import parse_json

LOCK = ".lock"
_TAKEN = (errno.EACCES, errno.EAGAIN)
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_GRACE_S = 5.0  # a job that is requeued may meet its predecessor's last breath
_held: set[Path] = set()  # by this process: its own lock would not stop it


class FolderLock:
    """Held from construction to `release`, or to the end of the process."""

    def __init__(self, folder: Path, say: Callable[[str], None] = print, grace_s: float = _GRACE_S) -> None:
        """Makes the folder if need be. Raises ConfigError naming the owner where another has it for `grace_s` and longer,
        OSError where the folder cannot be written."""
        self.path = (folder / LOCK).resolve()
        if self.path in _held:
            raise ConfigError(f"{folder}: this process works in it already")
        until = time.monotonic() + grace_s
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._take(folder, say, until)
            except BaseException:
                os.close(self._file)
                raise
            if self._is_found():
                break
            os.close(self._file)  # its owner took the file away: who comes next would lock another
        _held.add(self.path)
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": sys.argv,
        }
        self._write(json.dumps(owner) + "\n")

    def _take(self, folder: Path, say: Callable[[str], None], until: float) -> None:
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as e:
                if e.errno in _WITHOUT_LOCKS:
                    say(
                        f"{folder}: this file system gives no locks ({e.strerror}); make sure that no other run writes here"
                    )
                    return
                if e.errno not in _TAKEN:
                    raise
            if time.monotonic() > until:
                raise _taken(folder, self._file)
            time.sleep(0.1)

    def _is_found(self) -> bool:
        """Whether the open file still stands under its name."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _write(self, text: str) -> None:
        with suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text.encode(), 0)

    def release(self) -> None:
        if self.path in _held:
            _held.remove(self.path)
            self._write("")
            os.close(self._file)


def refuse_owned(folder: Path) -> None:
    """Raise ConfigError, naming the owner, where another process has the folder at this moment. Nothing is written or kept."""
    path = (folder / LOCK).resolve()
    if path in _held or not path.exists():  # to close a file of this process's own lock would drop the lock
        return
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in _TAKEN:
            raise _taken(folder, file) from None
    finally:
        os.close(file)


def _taken(folder: Path, file: int) -> ConfigError:
    try:
        owner = parse_json(os.pread(file, 1 << 16, 0))
        who = f"process {owner['pid']} on {owner['host']} (since {owner['since']}: {' '.join(owner['command'])})"
    except (ValueError, KeyError, TypeError, OSError):
        who = "another process"
    return ConfigError(f"{folder}: {who} works in it; wait for it, or take another folder")


@contextmanager
def owned(folder: Path, world: World, say: Callable[[str], None]) -> Iterator[None]:
    """The folder is this job's alone until the block ends. Collective; raises on every rank what `FolderLock` raises."""
    locks: list[FolderLock] = []
    try:
        world.agreed(lambda: locks.append(FolderLock(folder, say)))
        yield
    finally:
        for lock in locks:
            lock.release()
