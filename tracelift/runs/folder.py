"""The run folder: config, metrics, samples, checkpoints, and going on after any kind of end.

    runs/NAME/
        config.json        every key as it was in force, with versions
        metrics.jsonl      one line a round; the same for the same seed, whatever was killed and resumed between
        timings.jsonl      seconds and tokens/s of each phase (kept apart because no two runs share them)
        samples.jsonl      traces with artifacts, verdicts and every part of their reward
        checkpoints/step-000010/   weights, optimizer, state.json; written aside, then renamed
        final/             the trained model as a Hugging Face folder

A checkpoint holds no random state: every draw is keyed by (seed, step, problem, sample), so a step number is all it
takes to go on. On resume the logs are cut back to the checkpoint's step and continue from there. A folder that was
half-written when the process died never got its name; one that was damaged later is passed over for the one before it.
Left out: remote storage; how a sharded model's weights are written (tracelift/distributed/parallel.py).
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tracelift.config import Config, to_dict
from tracelift.distributed.world import restarted
from tracelift.errors import ConfigError
from tracelift.files import _fsync, read_jsonl, write_text

LOGS = ("metrics.jsonl", "timings.jsonl", "samples.jsonl")
_STEP = re.compile(r"step-(\d{6,})")


def choose_folder(config: Config, config_path: str | None) -> Path:
    """The run's folder. Named in the config: must be new, or `run.resume` set. Unnamed: the next free runs/NAME-K.

    Raises ConfigError where a named folder already holds a run, and in a job that torchrun restarted where none is named:
    nothing then says which one it had. Resuming where nothing is yet starts from the beginning:
    a run killed before its first checkpoint goes on by the same command as any other.
    """
    if config.run.out:
        folder = Path(config.run.out)
        if (folder / "metrics.jsonl").exists() and not config.run.resume:
            raise ConfigError(
                f"{folder}: already holds a run; add --resume to go on with it, or give another --run.out"
            )
        return folder
    if restarted():
        raise ConfigError(
            "torchrun restarted this job: give it --run.out, so that it can go on with its own run folder"
        )
    name = Path(config_path).stem if config_path else "demo"
    taken = sorted(
        (int(m[1]), p)
        for p in Path("runs").glob(f"{name}-*")
        if (m := re.fullmatch(rf"{re.escape(name)}-(\d+)", p.name))
    )
    if config.run.resume and taken:
        return taken[-1][1]
    return Path("runs") / f"{name}-{taken[-1][0] + 1 if taken else 1}"


def versions() -> dict[str, str]:
    """What a figure depends on besides the code: interpreter, libraries, device."""
    import tokenizers
    import triton

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu x{os.cpu_count()}"
    return {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__,
            "tokenizers": tokenizers.__version__, "device": device, "machine": platform.machine()}  # fmt: skip


@dataclass
class RunFolder:
    """Writing is rank 0's; other ranks hold the same object with `writes = False` and only read checkpoints."""

    path: Path
    writes: bool = True

    def prepare(self, config: Config) -> None:
        if not self.writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        record = {"config": to_dict(config), "versions": versions(), "command": sys.argv}
        write_text(self.path / "config.json", json.dumps(record, indent=2) + "\n")

    def log(self, name: str, *records: dict[str, Any]) -> None:
        """Append one JSON line a record, on disk when this returns."""
        if not self.writes:
            return
        try:
            with open(self.path / name, "a", encoding="utf-8") as f:
                f.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
                f.flush()
                os.fsync(f.fileno())
        except OSError as e:
            raise OSError(
                f"{self.path / name}: could not write ({e}); --resume goes on from the last checkpoint"
            ) from e

    def read(self, name: str) -> list[dict[str, Any]]:
        return read_jsonl(self.path / name) if (self.path / name).exists() else []

    def cut_logs(self, step: int) -> None:
        """Drop every log line of a later step: those rounds run again."""
        if not self.writes:
            return
        for name in LOGS:
            kept = [r for r in self.read(name) if r["step"] <= step]
            write_text(self.path / name, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept))

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def save_checkpoint(self, step: int, keep: int, write_model: Callable[[Path], None],
                        optimizer: dict[str, torch.Tensor], state: dict[str, Any]) -> None:  # fmt: skip
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
            write_text(aside / "state.json", json.dumps({"step": step, **state}, indent=2) + "\n")
            for file in (*aside.rglob("*"), aside):
                _fsync(file)
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(aside, folder)
            _fsync(folder.parent)
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

    def load_checkpoint(self, load_model: Callable[[Path], None], say: Callable[[str], None] = print) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:  # fmt: skip
        """Load the newest checkpoint that is whole; damaged ones are named and passed over. None where there is none.

        Raises ValueError where there are some and none can be read: starting over would overwrite them.
        """
        found = self.checkpoints()
        for folder in reversed(found):
            try:
                state = json.loads((folder / "state.json").read_text())
                optimizer = load_file(str(folder / "optimizer.safetensors"))
                load_model(folder / "model")
                return optimizer, state
            except (OSError, ValueError, SafetensorError) as e:  # json and models' CheckpointError are ValueErrors
                say(f"checkpoint {folder.name} cannot be read ({e}); trying the one before")
        if found:
            raise ValueError(f"{found[0].parent}: none of its {len(found)} checkpoints can be read by this run (reasons above); "
                             "give the settings it was started with, or another --run.out to start over")  # fmt: skip
        return None
