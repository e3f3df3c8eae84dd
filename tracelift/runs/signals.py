"""What a run does when it is asked to stop: finish the round, save, exit with 143, within a limit.

SIGTERM, Ctrl-C, and SIGUSR1, with which schedulers warn before the time is up, all ask.

Left out: who looks at `seen`, and saves (train.py, tracelift/training/fit.py).
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tracelift.errors import Stopped

_ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
EXIT_STOPPED = 143  # a request was answered: a checkpoint is saved, `--resume` goes on from it


class StopSignal:
    """Notes SIGTERM, SIGINT and SIGUSR1 instead of dying, so that the round in progress can be finished and saved.

    That takes at most `seconds`: a rank that waits in a collective for one that hangs never comes back to look at
    `seen`, since Python's own handlers wait for the main thread. A thread hears the signal too and then ends the
    process; what was saved before stays whole.
    """

    asked = False  # of this process, for whoever has no StopSignal at hand: why another rank may be gone

    def __init__(self, seconds: float = 300.0) -> None:
        StopSignal.asked = False
        self.seen, self.seconds = False, seconds
        self._over = threading.Event()
        self._at_once = ""
        for number in _ASKING:
            signal.signal(number, self._note)
        heard, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._limit, args=(heard,), daemon=True).start()

    def close(self) -> None:
        """The limit no longer holds."""
        self._over.set()

    @contextmanager
    def at_once(self, sentence: str) -> Iterator[None]:
        """While there is nothing to save: a request raises Stopped(sentence) where the main thread is."""
        self._at_once = sentence
        try:
            if self.seen:  # it came before
                raise Stopped(sentence)
            yield
        finally:
            self._at_once = ""

    def _limit(self, heard: socket.socket) -> None:
        while heard.recv(1)[0] not in _ASKING:
            pass
        if not self._over.wait(self.seconds):
            line = (
                f"train.py: asked to stop, but the round was not finished {self.seconds:g} s later (run.stop_s); nothing of it is "
                "saved, --resume goes on from the last checkpoint\n"
            )
            os.write(2, line.encode())
            os._exit(EXIT_STOPPED)

    def _note(self, number: int, frame: Any) -> None:
        if self.seen and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C is meant
        self.seen = StopSignal.asked = True
        if self._at_once:
            raise Stopped(self._at_once)
