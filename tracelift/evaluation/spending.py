"""What each part of an evaluation took, kept with its records, so that an interrupted evaluation still knows the whole.

    calls, prompt, generated     a problem's own, as tracelift/executor/cost.py counts them, of the executor or of the planner;
                                 equal runs of a problem are made, and counted, once
    computed                     positions that went through the model
    cpu_s                        CPU seconds of the process meanwhile, verdicts included
    gpu_s                        wall seconds meanwhile where the model is on a GPU, else 0

Work is done in chunks of problems. The last three belong to a chunk, and each problem's record holds its equal share; sums over
records are the whole again. Arms that ask the same (a planner that writes the reference) share records, and each has its cost.
A count that is not known (a server's, or in a record of an older version) makes its sum None. Left out: the
Reason RM's scoring, and what loading the models took.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from tracelift.executor.cost import Cost
from tracelift.runs.clock import cpu_seconds

Spent = dict[str, float | None]
COUNTS = ("calls", "prompt", "generated", "computed", "cpu_s", "gpu_s")


class Lap:
    """The work of one chunk, from now on; `spent` is one problem's: its own counts and its share of the rest."""

    def __init__(self, on_gpu: bool) -> None:
        self.on_gpu, self.cpu, self.wall = on_gpu, cpu_seconds(), time.perf_counter()
        self.share: list[float | None] = []

    def end(self, computed: int | None, problems: int) -> None:
        """The chunk is done. computed: its positions, None where they are not known."""
        gpu = time.perf_counter() - self.wall if self.on_gpu else 0.0
        whole = (computed, cpu_seconds() - self.cpu, gpu)
        self.share = [None if value is None else round(value / problems, 6) for value in whole]

    def spent(self, own: Cost) -> Spent:
        return dict(zip(COUNTS, (own.calls, own.prompt, own.generated, *self.share), strict=True))


def total_spent(shares: Iterable[Mapping[str, float | None]]) -> Spent:
    """The sum of records' shares: counts as whole numbers, seconds to the millisecond."""
    listed = list(shares)
    out: Spent = {}
    for name in COUNTS:
        known = [v for share in listed if (v := share.get(name)) is not None]
        if len(known) < len(listed):
            out[name] = None
        else:
            out[name] = round(sum(known), 3) if name.endswith("_s") else round(sum(known))
    return out
