"""Metrics as TensorBoard event files, where the tensorboard package is installed; metrics.jsonl is always the record.

A resumed run writes on from its checkpoint: rounds that run again are purged from the curves, as they are cut from the
logs. Left out: anything that metrics.jsonl and timings.jsonl do not hold.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path


class TensorBoard:
    """Scalars of each round under `folder`; does nothing where tensorboard is not importable or `writes` is false."""

    def __init__(self, folder: Path, done: int = 0, writes: bool = True) -> None:
        self.writer = None
        if writes and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder), purge_step=done + 1)

    def log(self, step: int, metrics: Mapping[str, object]) -> None:
        """Every number of one round; other values are left to metrics.jsonl."""
        if self.writer is None:
            return
        for name, value in metrics.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
