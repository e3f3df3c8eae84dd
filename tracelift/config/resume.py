"""Whether a run that goes on is the run it was: its keys against those on record.

Each key says beside its default what --resume may do to it (`Later` in key.py). Left out: the record itself
(tracelift/runs/record.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tracelift.config.key import Later, keys_of
from tracelift.config.schema import Config
from tracelift.errors import ConfigError

_OF_THE_COMMAND = ("run.out", "run.resume")  # where and whether to go on: not part of what the run is


class Change(NamedTuple):
    """A key that a resumed run has another value of."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.old!r} and is now {self.new!r}"


def changes(old: Config, new: Config) -> list[Change]:
    """Every key whose value differs, in the order of the schema."""
    both = zip(keys_of(old), keys_of(new), strict=True)
    return [
        Change(was.name, was.value, now.value)
        for was, now in both
        if was.value != now.value and was.name not in _OF_THE_COMMAND
    ]


def permitted_changes(folder: Path, old: Config, new: Config) -> list[Change]:
    """The keys that going on with the run in `folder` changes. Raises ConfigError where one of them may not change."""
    found, later = changes(old, new), {key.name: key.about["later"] for key in keys_of(new)}
    refused = [c for c in found if not _may_change(c, later[c.key])]
    if refused:
        raise ConfigError(
            f"{folder}: --resume goes on with the run on record, and it would become another one: "
            f"{'; '.join(map(str, refused))}. `--run.out {folder} --resume` alone takes every key from the record; "
            "another --run.out starts a new run"
        )
    decays = new.optim.schedule != "constant"
    if decays and (steps := [c for c in found if c.key == "run.steps"]):
        raise ConfigError(
            f"{folder}: {steps[0]}, but optim.schedule = '{new.optim.schedule}' spreads the learning rate over run.steps: "
            "every round left would have another rate, and the first of them a higher one than the last that ran. Only "
            "optim.schedule = 'constant' can be prolonged"
        )
    return found


def _may_change(change: Change, later: Later) -> bool:
    if later == "grows":
        return change.new > change.old
    if later == "moves":
        return bool(change.old) and bool(change.new)
    return later == "yes"
