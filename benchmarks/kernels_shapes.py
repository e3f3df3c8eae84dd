"""Ours over eager PyTorch on a CPU, at ten shapes and two kinds of rows: the time of forward + backward, and the peak memory.

The two take turns within a round, and who begins changes from round to round; a round's figure is the ratio of their times, so that
what else the machine does hits both. Told are the median over the rounds and its quartiles. With one thread the time is the
process's CPU time, with more it is wall time.

Left out: other rivals and the GPU (benchmarks/kernels.py).
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median, quantiles

import torch

from benchmarks.kernels_rivals import Task, eager_logits, ours_logits
from benchmarks.meter import Meter

SHAPES = (
    (4096, 128), (2048, 512), (512, 2048), (256, 4096), (64, 32_000), (512, 32_000), (64, 50_257), (32, 128_256),
    (64, 151_936), (8, 151_936),
)  # fmt: skip
LEAST_SECONDS = 0.03  # of one contender in a round: shorter calls are repeated


def measure_shapes(threads: int, rounds: int, shapes: tuple[tuple[int, int], ...] = SHAPES) -> list[dict]:
    """One entry a shape, dtype and kind of rows."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [
            {
                "N": N,
                "V": V,
                "dtype": str(dtype).split(".")[-1],
                "rows": "peaked" if peaked else "flat",
                "threads": threads,
            }
            | measure(Task("logits", dtype, N, V, peaked=peaked), threads, rounds)
            for N, V in shapes
            for dtype in (torch.float32, torch.bfloat16)
            for peaked in (False, True)
        ]
    finally:
        torch.set_num_threads(before)


def measure(task: Task, threads: int, rounds: int) -> dict:
    data, meter, clock = task.inputs("cpu"), Meter("cpu"), 0 if threads == 1 else 1

    def step(loss: Callable) -> None:
        loss(data).backward()
        data["logits"].grad = None

    for loss in (ours_logits, eager_logits):
        step(loss)
    peaks = [meter.peak(lambda loss=loss: step(loss)) for loss in (ours_logits, eager_logits)]
    once = meter(lambda: step(eager_logits))[1]
    times = max(1, round(LEAST_SECONDS / once))
    ratios = []
    for i in range(rounds):
        seconds = {}
        for loss in (ours_logits, eager_logits)[:: 1 if i % 2 else -1]:
            seconds[loss] = meter(lambda loss=loss: [step(loss) for _ in range(times)])[clock]
        ratios.append(seconds[ours_logits] / seconds[eager_logits])
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "time": round(median(ratios), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "memory": round(peaks[0] / peaks[1], 4),
        "peak_bytes": peaks[0],
    }
