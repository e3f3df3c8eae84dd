"""config.json, the record of what a run is: its keys, and from which round on each of them held.

    {"config": {section: {key: value}}, "versions": {…}, "command": […], "source": {…}     as they are in force now
     "inputs": {key: hash},                                                      of the files that keys name (inputs.py)
     "history": [{"from_round": 7, "changed": {key: [old, new]}, "versions": {…}, "command": […]}, …]}

Every --resume adds a line to the history. `config_of_run(folder, step)` (tracelift/config/load.py) reads it backwards.
Left out: which keys may change (tracelift/config/key.py).
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tracelift import __version__
from tracelift.config import Config, to_dict
from tracelift.config.resume import Change
from tracelift.errors import ConfigError
from tracelift.files import json_text, read_json, write_text
from tracelift.runs.inputs import input_hashes


def versions() -> dict[str, str]:
    """What a figure depends on besides the code: interpreter, libraries, device."""
    import tokenizers
    import triton

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu x{os.cpu_count()}"
    return {
        "tracelift": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "tokenizers": tokenizers.__version__,
        "device": device,
        "machine": platform.machine(),
    }


@functools.cache
def source_commit() -> dict[str, Any]:
    """The commit of the source tree that runs, and whether the tree was clean; nulls where it is no git checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str | None:
        try:
            ran = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return ran.stdout.strip() if ran.returncode == 0 else None

    inside = git("rev-parse", "--show-toplevel")
    if inside is None or Path(inside).resolve() != root:  # an installed copy within another project's checkout
        return {"commit": None, "clean": None}
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "clean": None if changed is None else not changed}


def hardware() -> dict[str, Any]:
    """What figures in seconds depend on: processor, cores this process may use, memory, GPUs."""
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus,
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def write_record(folder: Path, config: Config, inputs: dict[str, str], history: Sequence[dict[str, Any]] = ()) -> None:
    """inputs: of `input_hashes`, which reads every file, and so is asked once a start."""
    record = {
        "config": to_dict(config),
        "inputs": inputs,
        "versions": versions(),
        "command": sys.argv,
        "source": source_commit(),
        "history": list(history),
    }
    write_text(folder / "config.json", json_text(record, indent=2))


def refuse_other_inputs(folder: Path, config: Config) -> None:
    """Raises ConfigError where a key of the run in `folder` names what it named, and other contents stand there now."""
    before, now = read_json(folder / "config.json").get("inputs", {}), input_hashes(config)
    if changed := [key for key, was in before.items() if now.get(key, was) != was]:
        raise ConfigError(
            f"{folder}: what {', '.join(changed)} names is no longer what the run was started with (other contents under "
            "the same path); put it back, or start a new run with another --run.out"
        )


def record_resume(folder: Path, config: Config, changed: Sequence[Change], done: int) -> list[str]:
    """Note that the run goes on after round `done`, and with what. Returns the library versions that differ, in words."""
    record = read_json(folder / "config.json")
    history = record.get("history", [])
    for entry in history:  # the run went back before this: its values hold from where it goes on
        entry["from_round"] = min(entry["from_round"], done + 1)
    now = versions()
    entry = {
        "from_round": done + 1,
        "changed": {c.key: [c.old, c.new] for c in changed},
        "versions": now,
        "command": sys.argv,
    }
    write_record(folder, config, record.get("inputs") or input_hashes(config), [*history, entry])
    before = record["versions"]
    return [
        f"{name} was {before[name]} and is now {now[name]}" for name in now if before.get(name, now[name]) != now[name]
    ]
