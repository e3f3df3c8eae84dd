"""What a run does when it is asked to stop: finish the round, save, exit with 143, within a limit.

Left out: who looks at `seen`, and saves (train.py, tracelift/training/fit.py).
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Any

EXIT_STOPPED = 143  # SIGTERM was answered: a checkpoint is saved, `--resume` goes on from it


class StopSignal:
    """Notes SIGTERM and SIGINT instead of dying, so that the round in progress can be finished and saved.

    That takes at most `seconds`: a rank that waits in a collective for one that hangs never comes back to look at
    `seen`, since Python's own handlers wait for the main thread. A thread hears the signal too and then ends the
    process; what was saved before stays whole.
    """

    def __init__(self, seconds: float = 300.0) -> None:
        self.seen, self.seconds = False, seconds
        self._over = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        heard, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._limit, args=(heard,), daemon=True).start()

    def close(self) -> None:
        """The limit no longer holds."""
        self._over.set()

    def _limit(self, heard: socket.socket) -> None:
        while heard.recv(1)[0] not in (signal.SIGTERM, signal.SIGINT):
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
        self.seen = True
