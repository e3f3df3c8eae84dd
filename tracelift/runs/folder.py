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
Left out: remote storage; how a sharded model's weights are written (tracelift/distributed/sharded_checkpoint.py).
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tracelift.config import Config, to_dict
from tracelift.distributed.world import restarted
from tracelift.errors import ConfigError
from tracelift.files import append_lines, json_line, read_log, write_text
from tracelift.runs.checkpoints import Checkpoints

LOGS = ("metrics.jsonl", "timings.jsonl", "samples.jsonl")


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
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "tokenizers": tokenizers.__version__,
        "device": device,
        "machine": platform.machine(),
    }


@dataclass
class RunFolder(Checkpoints):
    """Writing is rank 0's; other ranks hold the same object with `writes = False` and only read checkpoints."""

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
            append_lines(self.path / name, map(json_line, records))
        except OSError as e:
            raise OSError(f"{e}; --resume goes on from the last checkpoint") from e

    def read(self, name: str) -> list[dict[str, Any]]:
        return read_log(self.path / name) if (self.path / name).exists() else []

    def cut_logs(self, step: int) -> None:
        """Drop every log line of a later step: those rounds run again."""
        if not self.writes:
            return
        for name in LOGS:
            kept = [r for r in self.read(name) if r["step"] <= step]
            write_text(self.path / name, "".join(map(json_line, kept)))
