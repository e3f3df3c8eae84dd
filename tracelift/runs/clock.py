"""Where a run's time goes: seconds and tokens/s of each phase, and the processor's seconds beside those of the wall.

Wall seconds on a shared machine measure its other users too; a process's CPU seconds do not. Left out: what the seconds
bought (tracelift/executor/cost.py).
"""

from __future__ import annotations

import os
import time

import torch

from tracelift.sandbox import Sandbox


def cpu_seconds() -> float:
    """CPU seconds of this process, all its threads, its children that have ended, and the programs it had the sandbox run."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system + Sandbox.programs_cpu_s


class Clock:
    """Seconds and tokens/s of each phase of a round; a phase that comes again adds to its first."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.cpu_start = cpu_seconds()
        self.laps: dict[str, tuple[float, int]] = {}

    def lap(self, name: str, tokens: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds, before = self.laps.get(name, (0.0, 0))
        self.laps[name] = (seconds + now - self.last, before + tokens)
        self.last = now

    @property
    def seconds(self) -> float:
        """From the start to the end of the last phase."""
        return self.last - self.start

    @property
    def cpu(self) -> float:
        """CPU seconds since the start."""
        return cpu_seconds() - self.cpu_start

    def record(self) -> dict[str, float]:
        out = {"seconds": self.seconds}
        for name, (seconds, tokens) in self.laps.items():
            out |= {f"{name}_s": seconds, f"{name}_tokens_per_s": tokens / max(seconds, 1e-9)}
        return out
