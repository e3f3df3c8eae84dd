"""Waiting for a server that is gone: for a bounded time, with growing pauses, saying what is waited for.

A server that is restarted, rescheduled or cut off for minutes must not turn a round's samples into ERROR verdicts: the
round waits and then goes on as if nothing had been. Only past `seconds` is it given up, by `ServerGone`, which every
stage answers by saving what there is and stopping (train.py; `eval.py` keeps its records as they come).

Left out: what a server is and how it is asked (tracelift/executor/remote/client.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tracelift.errors import ServerGone


def _say(line: str) -> None:
    print(line, flush=True)


@dataclass
class Outage:
    """How long to wait, who hears of it, and what calls it off (`give_up`, asked about once a second)."""

    seconds: float = 600.0
    say: Callable[[str], None] = _say
    give_up: Callable[[], bool] = bool
    longest_pause_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, what: str, ask: Callable[[], str | None]) -> bool:
        """Ask until `ask()` returns None instead of a reason. Returns whether any waiting was needed.

        Raises ServerGone after `seconds`, or as soon as `give_up()` says so.
        """
        started, pause = time.monotonic(), 1.0
        why = ask()
        if why is None:
            return False
        while why is not None:
            waited = time.monotonic() - started
            if waited >= self.seconds:
                raise ServerGone(
                    f"{what} has been gone for {waited:.0f} s ({why}); start it again and --resume, "
                    "or allow a longer wait (executor.patience_s)"
                )
            self.say(f"waiting for {what}, {waited:.0f} s of at most {self.seconds:.0f} s: {why}")
            until = min(time.monotonic() + pause, started + self.seconds)
            while (left := until - time.monotonic()) > 0:
                if self.give_up():
                    raise ServerGone(f"{what} was still gone when the wait for it was called off ({why})")
                self.sleep(min(1.0, left))
            pause = min(2 * pause, self.longest_pause_s)
            why = ask()
        self.say(f"{what} answers again after {time.monotonic() - started:.0f} s")
        return True
