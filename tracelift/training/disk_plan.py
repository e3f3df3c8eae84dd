"""What a run's models and checkpoints take on disk, from shapes and arithmetic alone, against what is free.

A checkpoint holds the trained weights (of LoRA the adapter alone) and the optimizer's states; each is written aside before
the oldest goes, so `run.keep` and one more are there at once. tests/tracelift/training/test_disk_plan.py holds the plan
against the files of real runs. Left out: logs, which grow with the rounds (a few hundred bytes a trace, and token ids and
log-probs with `run.log_tokens`), and tokenizer files.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from tracelift.config import Config
from tracelift.errors import ConfigError
from tracelift.training.memory_plan import Shape, optimizer_bytes, size


@dataclass(frozen=True)
class DiskPlan:
    """Bytes: of one checkpoint, `count` of which are still to be written beside others, and of the models left at the end."""

    checkpoint: int
    count: int
    models: dict[str, int]

    @property
    def needed(self) -> int:
        return self.checkpoint * self.count + sum(self.models.values())

    def render(self) -> str:
        parts = [f"{self.count} checkpoints of {size(self.checkpoint)}"]
        parts += [f"{name} {size(b)}" for name, b in self.models.items()]
        return f"{size(self.needed)} ({', '.join(parts)})"


def disk_plan(config: Config, shape: Shape, there: int = 0) -> DiskPlan:
    """The plan of any stage. shape: the trained model's; there: checkpoints that the run folder holds already."""
    itemsize = getattr(torch, config.run.dtype).itemsize
    whole = shape.total * itemsize
    if shape.lora:
        weights, states = shape.lora * 4, optimizer_bytes(shape, shape.lora, 0, 4, config)  # adapters are fp32
    else:
        weights, states = whole, optimizer_bytes(shape, shape.total, shape.vectors, itemsize, config)
    made = -(-config.run.steps // config.run.save_every)
    count = max(1, min(config.run.keep + 1, made) - there)
    if config.run.stage == "planner":
        models = {"final/": whole} | ({"final-adapter/": weights} if shape.lora else {})
    else:
        section = config.sft if config.run.stage == "sft" else config.rm
        models = {"final/": shape.total * getattr(torch, section.save_dtype).itemsize}
        if config.run.stage == "reward_model" and config.rm.dev:
            models["best/"] = whole
    return DiskPlan(weights + states, count, models)


def refuse_full_disk(plan: DiskPlan, folder: Path) -> int:
    """The bytes free on the disk of a run folder, which need not be there yet. Raises ConfigError where `plan` needs more."""
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if plan.needed > free:
        raise ConfigError(
            f"{folder}: {size(free)} are free on its disk, and the run needs {plan.render()}: lower run.keep, or give run.out on "
            "another disk"
        )
    return free
