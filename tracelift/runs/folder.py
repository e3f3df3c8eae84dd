"""The run folder: config, metrics, samples, checkpoints, and going on after any kind of end.

    runs/NAME/
        config.json        every key in force, and its history (record.py)
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

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracelift.config import Config, config_of_run, load_config
from tracelift.config.resume import Change, changes, permitted_changes
from tracelift.distributed.world import World, restarted
from tracelift.errors import ConfigError
from tracelift.files import append_lines, json_line, read_log, without_nan, write_text
from tracelift.runs.checkpoints import Checkpoints
from tracelift.runs.inputs import input_hashes
from tracelift.runs.lock import LOCK, owned
from tracelift.runs.record import record_resume, refuse_other_inputs, write_record

EVAL_BEFORE = "eval_before.json"
LOGS = ("metrics.jsonl", "timings.jsonl", "samples.jsonl")


@dataclass
class RunFolder(Checkpoints):
    """Writing is rank 0's; other ranks hold the same object with `writes = False` and only read checkpoints."""

    config: Config | None = None  # of the run, once it is prepared
    _changed: Sequence[Change] = field(default=(), repr=False)

    def begun(self) -> bool:
        """Whether a round was logged or a checkpoint saved: there is something that another run would spoil."""
        log = self.path / "metrics.jsonl"
        return bool(self.checkpoints()) or (log.exists() and log.stat().st_size > 0)

    def recorded(self) -> bool:
        """Whether there is a record to go on with, of a run that may not have logged a round."""
        return (self.path / "config.json").exists()

    def forget(self) -> None:
        """Take back a start that failed before its first round: the folder is none that --resume would take."""
        if self.writes and not self.begun():
            for name in ("config.json", EVAL_BEFORE, LOCK):
                (self.path / name).unlink(missing_ok=True)
            with suppress(OSError):  # what else is in it is not ours
                self.path.rmdir()

    def prepare(self, config: Config) -> None:
        """Write the record of a new run, or hold one that goes on against its record. Raises as `changes_on_resume`,
        before anything is written."""
        if not self.writes:
            return
        self.config, self._changed = config, self.changes_on_resume(config)
        if not self.begun():
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.recorded() or changes(config_of_run(self.path), config):
                (self.path / EVAL_BEFORE).unlink(missing_ok=True)  # of a start with other settings
            write_record(self.path, config, input_hashes(config))

    def changes_on_resume(self, config: Config) -> Sequence[Change]:
        """The keys that going on by `config` changes; none where no run has begun here.

        Raises ConfigError where the folder holds a run and `run.resume` is not set, where a key differs that may not, and
        where rounds are logged whose checkpoints are gone.
        """
        if not self.begun():
            return ()
        if not config.run.resume:
            raise ConfigError(
                f"{self.path}: already holds a run; add --resume to go on with it, or give another --run.out"
            )
        before = config_of_run(self.path)
        changed = permitted_changes(self.path, before, config)
        refuse_other_inputs(self.path, config)
        rounds = [r["step"] for r in self.read("metrics.jsonl")]
        due = bool(rounds) and rounds[-1] > before.run.save_every
        if not self.checkpoints() and (due or (self.path / "final").exists()):
            raise ConfigError(
                f"{self.path}: {len(rounds)} rounds are logged and no checkpoint is left to go on from; put one back, or give "
                "another --run.out to start anew"
            )
        return changed

    def go_on(self, done: int, say: Callable[[str], None]) -> None:
        """The run goes on after round `done`: cut the logs back to it, and note with which keys."""
        if not self.writes:
            return
        began = self.begun()
        self.cut_logs(done)
        if self.config is not None and done < self.config.run.steps:
            for name in ("summary.txt", "summary.json", "eval_after.json"):  # of an earlier end
                (self.path / name).unlink(missing_ok=True)
            if (self.path / "final").exists():
                say(f"{self.path / 'final'} is the model of this run's earlier end, until the run ends again")
        for change in self._changed:
            say(f"from round {done + 1} on: {change}")
        if began and self.config is not None:
            for version in record_resume(self.path, self.config, self._changed, done):
                say(f"from round {done + 1} on: {version}")
        say(f"going on after round {done}" if done else f"{self.path} holds no checkpoint: starting with round 1")

    def log(self, name: str, *records: dict[str, Any]) -> None:
        """Append one JSON line a record, on disk when this returns. A figure that is not finite is null, and
        "not_finite" says what it was."""
        if not self.writes:
            return
        try:
            append_lines(self.path / name, map(json_line, map(without_nan, records)))
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
            write_text(self.path / name, "".join(map(json_line, map(without_nan, kept))))


def asked_run(path: str | None, words: Sequence[str]) -> tuple[Config, Path]:
    """The config and the folder of the run that a config file and a command line ask for.

    With `--resume`, or in a job that torchrun restarted, the keys on record stand in for the defaults. Nothing is written.
    Raises ConfigError as `load_config` and `choose_folder` do.
    """
    asked = load_config(path, list(words), checked=False)
    asked.run.resume |= restarted()
    folder = choose_folder(asked, path)
    goes_on = asked.run.resume and RunFolder(folder, writes=False).recorded()
    config = load_config(path, list(words), config_of_run(folder) if goes_on else None)
    config.run.out, config.run.resume = asked.run.out, asked.run.resume
    return config, folder


def choose_folder(config: Config, config_path: str | None) -> Path:
    """The run's folder: the one that the config names, or runs/NAME-K: the next free one, with `run.resume` the newest.

    Raises ConfigError in a job that torchrun restarted where none is named: nothing then says which one it had. Resuming
    where nothing is yet starts from the beginning: a run killed before its first checkpoint goes on by the same command as
    any other.
    """
    if config.run.out:
        if Path(config.run.out).is_file():
            raise ConfigError(f"run.out: {config.run.out} is a file; give a folder")
        return Path(config.run.out)
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
    recorded = [p for _, p in taken if RunFolder(p, writes=False).recorded()]
    if config.run.resume and recorded:
        return recorded[-1]
    return Path("runs") / f"{name}-{taken[-1][0] + 1 if taken else 1}"


@contextmanager
def open_run(config: Config, folder: Path, world: World, say: Callable[[str], None]) -> Iterator[RunFolder]:
    """The run's folder, prepared, and owned by this job alone until the block ends. Collective.

    Raises ConfigError on every rank alike where another process has it, and as `RunFolder.prepare` does.
    """
    if not config.run.out and not config.run.resume:
        folder = world.agreed(lambda: _claim(folder))
    with owned(folder, world, say):
        run = RunFolder(folder, writes=world.is_main)
        fresh = not run.recorded()
        world.agreed(lambda: run.prepare(config))
        try:
            yield run
        except (ValueError, FileNotFoundError):  # bad input
            if fresh:
                run.forget()
            raise


def _claim(folder: Path) -> Path:
    """runs/NAME-K, or the first after it that nobody else makes at this moment."""
    name, _, number = folder.name.rpartition("-")
    for k in range(int(number), int(number) + 1000):
        try:
            (folder.parent / f"{name}-{k}").mkdir(parents=True)
            return folder.parent / f"{name}-{k}"
        except FileExistsError:
            continue
    raise ConfigError(f"{folder}: a thousand folders after it are taken; name one with --run.out")
