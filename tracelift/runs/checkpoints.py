"""Checkpoints: written aside and renamed, so that a run killed at any instant finds whole ones; read newest first.

    checkpoints/step-000010/    model/, optimizer.safetensors, state.json

One that was damaged later is passed over for the one before it. Left out: when a checkpoint is written
(tracelift/training/learner.py), and how a sharded model's weights are (tracelift/distributed/sharded_checkpoint.py).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.atomic import flush
from models.shards import open_safetensors
from tracelift.files import json_text, read_json, write_text

_STEP = re.compile(r"step-(\d{6,})")
_UNREADABLE = (OSError, ValueError, SafetensorError)  # json and models' CheckpointError are ValueErrors


class NewestWhole(NamedTuple):
    step: int  # of the newest checkpoint whose files are whole; 0 where there are none
    damaged: list[tuple[Path, str]]  # newer ones, with what is wrong with them


@dataclass
class Checkpoints:
    """The checkpoints of the run at `path`. Where `writes` is False they are only read."""

    path: Path
    writes: bool = True

    def save_checkpoint(
        self,
        step: int,
        keep: int,
        write_model: Callable[[Path], None],
        optimizer: dict[str, torch.Tensor],
        state: dict[str, Any],
    ) -> None:
        """Write checkpoints/step-N aside and rename it; then drop all but the `keep` newest. Raises OSError if it cannot.

        Checkpoints of later steps are dropped too: this run went back before them, so they are damaged or of another past.
        """
        if not self.writes:
            return
        folder, aside = self.path / "checkpoints" / f"step-{step:06d}", self.aside(step)
        for leftover in folder.parent.glob(".step-*.saving"):  # of saves that were killed
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            aside.mkdir(parents=True)
            write_model(aside / "model")
            save_file(optimizer, str(aside / "optimizer.safetensors"))
            write_text(aside / "state.json", json_text({"step": step, **state}, indent=2))
            for file in (*aside.rglob("*"), aside):
                flush(file)
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(aside, folder)
            flush(folder.parent)
        except (OSError, SafetensorError) as e:
            shutil.rmtree(aside, ignore_errors=True)
            raise OSError(f"{folder}: could not save the checkpoint ({e}); earlier checkpoints are untouched") from e
        present = self.checkpoints()
        here = present.index(folder) + 1
        for other in (*present[: max(0, here - keep)], *present[here:]):
            shutil.rmtree(other)

    def aside(self, step: int) -> Path:
        """Where the checkpoint of `step` is written before it takes its name."""
        return self.path / "checkpoints" / f".step-{step:06d}.saving"

    def checkpoints(self) -> list[Path]:
        """Complete-looking checkpoint folders, oldest first."""
        found = [(int(m[1]), p) for p in (self.path / "checkpoints").glob("step-*") if (m := _STEP.fullmatch(p.name))]
        return [p for _, p in sorted(found)]

    def load_checkpoint(
        self, load_model: Callable[[Path], None], say: Callable[[str], None] = print
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Load the newest checkpoint that is whole; damaged ones are named and passed over. None where there is none.

        Raises ValueError where there are some and none can be read: starting over would overwrite them.
        """
        found = self.checkpoints()
        for folder in reversed(found):
            try:
                state = _state(folder)
                optimizer = load_file(str(folder / "optimizer.safetensors"))
                load_model(folder / "model")
                return optimizer, state
            except _UNREADABLE as e:
                say(f"checkpoint {folder.name} cannot be read ({e}); trying the one before")
        if found:
            raise _none_readable(found)
        return None

    def newest_whole(self) -> NewestWhole:
        """Where `load_checkpoint` would go on, as far as files' headers and sizes tell. Raises as it does."""
        found, damaged = self.checkpoints(), list[tuple[Path, str]]()
        for folder in reversed(found):
            try:
                step = _state(folder)["step"]
                for file in (folder / "optimizer.safetensors", *(folder / "model").rglob("*.safetensors")):
                    with open_safetensors(file):
                        pass
                return NewestWhole(step, damaged)
            except _UNREADABLE as e:
                damaged.append((folder, str(e)))
        if found:
            raise _none_readable(found, "; ".join(f"{folder.name}: {why}" for folder, why in damaged))
        return NewestWhole(0, damaged)


def _none_readable(found: list[Path], why: str = "reasons above") -> ValueError:
    return ValueError(
        f"{found[0].parent}: none of its {len(found)} checkpoints can be read by this run ({why}); "
        "give the settings it was started with, or another --run.out to start over"
    )


def _state(folder: Path) -> dict[str, Any]:
    """What state.json of a checkpoint says. Raises ValueError where it is not of that folder's round."""
    state, step = read_json(folder / "state.json"), int(folder.name.rpartition("-")[2])
    counts = (state.get("step"), state.get("skipped", 0)) if isinstance(state, dict) else ()
    if not counts or any(type(n) is not int or n < 0 for n in counts) or counts[0] != step:
        raise ValueError(f"{folder / 'state.json'}: not the state of round {step}")
    return state


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: dict[torch.nn.Parameter, str]
) -> dict[str, torch.Tensor]:
    """An optimizer's per-parameter state as named tensors: `NAME.exp_avg`, `NAME.exp_avg_sq`, `NAME.step`."""
    return {
        f"{names[p]}.{key}": value.detach().cpu().contiguous()
        for p, state in optimizer.state.items()
        if isinstance(p, torch.nn.Parameter)
        for key, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[torch.nn.Parameter, str], tensors: dict[str, torch.Tensor]
) -> None:
    """Put `optimizer_tensors` back. Raises ValueError where they belong to another model."""
    by_name = {name: p for p, name in names.items()}
    for full, value in tensors.items():
        name, _, key = full.rpartition(".")
        if name not in by_name:
            raise ValueError(f"optimizer state holds '{name}', which this model does not train")
        p = by_name[name]
        optimizer.state[p][key] = value.to(p.device, copy=True)  # `step` too: the fused optimizer wants it beside p
