"""A dry run's look at the run folder: who works in it, what going on would change, and from which round it would go on.

Left out: the disk (tracelift/training/disk_plan.py); reading a checkpoint's tensors, whose headers alone are looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

from tracelift.config import Config
from tracelift.dry_run.lines import NOTE, Say
from tracelift.errors import ConfigError
from tracelift.runs.folder import RunFolder
from tracelift.runs.lock import refuse_owned


def say_folder(config: Config, folder: Path, say: Say) -> None:
    """Raises ConfigError as the run would: where another process has the folder, where it cannot be written, where it holds
    a run that this is not, or checkpoints of which none can be read."""
    refuse_unwritable("run.out", folder)
    refuse_owned(folder)
    run = RunFolder(folder, writes=False)
    for change in run.changes_on_resume(config):
        say(f"on resume: {change}")
    if not config.run.resume or not run.begun():
        return
    for damaged, why in (found := run.newest_whole()).damaged:
        say(f"{NOTE}checkpoint {damaged.name} cannot be read ({why}); the run takes the one before")
    say(
        f"on resume: going on after round {found.step}"
        if found.step
        else "on resume: no checkpoint: starting with round 1"
    )


def refuse_unwritable(key: str, path: Path) -> None:
    """Raise ConfigError where nothing can be made at `path`: the nearest folder that is there may not be written."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{key}: {there} cannot be written")
