"""Which planners eval.py is asked about: --run, --planner and --against → configurations, labels and folders.

Each planner keeps its own prompt, length and temperature; executor, Reason RM, problems and seeds are those of the first.
What is given and would have no effect is refused. Left out: loading the models (eval.py).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tracelift.build import MEMORY, load_training_tasks, trained_on
from tracelift.config import Config, config_of_run, load_config
from tracelift.config.key import value_of
from tracelift.errors import ConfigError
from tracelift.evaluation.bench import number_of
from tracelift.runs.folder import RunFolder
from tracelift.tasks.benchmarks import Benchmark
from tracelift.tasks.task import TaskSource

Flags = dict[str, list[str]]  # --run, --planner and --against, as given
SAYS_NOTHING = re.compile(r"final|best|planner|reward_model|adapter|model|checkpoints|step-\d+")  # folders of any run
SHARED = ("data.source", "executor.path", "executor.url", "reward_model.path", "reward_model.url")
Say = Callable[[str], None]


class System(NamedTuple):
    """One planner: how it is evaluated, and the configuration it was trained with, None where that is not known."""

    config: Config
    trained: Config | None


Systems = dict[str, System]  # by label


def read_arguments(argv: Sequence[str], about_rm: bool = False) -> tuple[Config, Flags]:
    """The config in force, and --run, --planner, --against as given. about_rm: for `eval.py reward-model`.

    Raises ConfigError on what cannot be meant, FileNotFoundError for a folder that is not there.
    """
    words, flags, path = list(argv), Flags(), None
    rest: list[str] = []
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name in ("--run", "--planner", "--against"):
            flags[name[2:]] = _folders(name, [value] if equals else [], words)
        elif not rest and path is None and not word.startswith("--"):
            path = word
        else:
            rest.append(word)
            if word.startswith("--") and not equals and words and not words[0].startswith("--"):
                rest.append(words.pop(0))
    if path is not None and Path(path).is_dir():
        how = (
            f"--against {path} compares another planner"
            if flags
            else f"a run is --run {path}, a model --planner {path}"
        )
        raise ConfigError(f"{path}: a folder, where a config would stand; {how}")
    _refuse_at_odds(flags, rest, about_rm)
    base = config_of_run(flags["run"][0]) if "run" in flags else None
    config = load_config(path, rest, base, training=False)
    if not about_rm:
        for given in (*flags.get("run", [])[:1], *flags.get("planner", [])):
            point_at(config, given)
    return config, flags


def _folders(name: str, found: list[str], words: list[str]) -> list[str]:
    """The folders of a flag, taken from the front of `words`: one for --planner, else all up to the next flag or config."""
    most = 1 if name == "--planner" else len(words) + 1
    while len(found) < most and words and not words[0].startswith("--") and not words[0].endswith(".toml"):
        found.append(words.pop(0))
    if not found or not all(found):
        raise ConfigError(f"{name}: give a folder")
    return found


def _refuse_at_odds(flags: Flags, rest: Sequence[str], about_rm: bool) -> None:
    if about_rm:
        others = sorted(flags.keys() - {"run"})
        if others or len(flags.get("run", [])) > 1:
            what = f"--{others[0]}" if others else "several runs"
            raise ConfigError(f"{what}: eval.py reward-model judges one Reason RM: --run RUN or --reward_model.path RM")
        return
    if {"run", "planner"} <= flags.keys():
        raise ConfigError(
            "--run and --planner: give one of them; --run takes the run's own model, and --against compares another"
        )
    for key in ("--planner.path", "--planner.adapter") if flags.keys() & {"run", "planner"} else ():
        if any(word.partition("=")[0] == key for word in rest):
            raise ConfigError(
                f"{key}: the planner is given by --{'run' if 'run' in flags else 'planner'}; leave one out"
            )


def point_at(config: Config, path: str) -> None:
    """Make a run folder's model, a Hugging Face folder or a LoRA folder the planner. Raises ConfigError for the run of a
    Reason RM."""
    folder = final_of(Path(path)) if is_run(path) else Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: no such folder (a run, a model, or a LoRA adapter)")
    if (made := trained_with(path)) is not None and made.run.stage == "reward_model":
        raise ConfigError(f"{path}: a run that trained a Reason RM: python eval.py reward-model --run {path} judges it")
    if (folder / "adapter_config.json").exists():
        config.planner.adapter = str(folder)
    else:
        config.planner.path, config.planner.adapter = str(folder), ""
    config.lora.r = 0  # an adapter of its own is on disk; a fresh one would be noise


def is_run(path: str) -> bool:
    return (Path(path) / "metrics.jsonl").exists()


def trained_with(path: str) -> Config | None:
    """The configuration of a run; None for a model's folder, or a run without its record."""
    return config_of_run(path) if is_run(path) and (Path(path) / "config.json").exists() else None


def final_of(run: Path) -> Path:
    """The model a run left: final/, or that of its newest checkpoint. Raises FileNotFoundError where there is
    neither."""
    if (run / "final").is_dir():
        return run / "final"
    checkpoints = RunFolder(run, writes=False).checkpoints()
    if not checkpoints:
        raise FileNotFoundError(f"{run}: holds neither final/ nor a checkpoint")
    return checkpoints[-1] / "model"


def systems_of(config: Config, flags: Flags) -> tuple[Systems, Systems]:
    """The planners by label, those of --run and those of --against. Raises ConfigError where several planners are given and
    eval.arms holds nothing to compare them by."""
    runs = flags.get("run") or flags.get("planner") or [config.planner.path]
    ours: Systems = {label_of(runs[0]): System(config, config if config.run.stage == "planner" else None)}
    for path in runs[1:]:
        ours[_fresh(label_of(path), ours)] = system_at(config, path)
    theirs: Systems = {}
    for path in flags.get("against", []):
        theirs[_fresh(label_of(path), {**ours, **theirs}, "against")] = system_at(config, path)
    if len(ours) + len(theirs) > 1 and "planner" not in config.eval.arms:
        raise ConfigError("eval.arms: planners are compared by the arm 'planner'; add it, or give one planner")
    return ours, theirs


def _fresh(label: str, taken: Iterable[str], mark: str = "again") -> str:
    while label in taken:
        label = f"{label} ({mark})"
    return label


def system_at(config: Config, path: str) -> System:
    """`config` with the planner of another run or model."""
    trained = trained_with(path)
    other = trained or config
    second = dataclasses.replace(
        config, planner=dataclasses.replace(other.planner), lora=dataclasses.replace(other.lora)
    )
    point_at(second, path)
    return System(second, trained if trained is not None and trained.run.stage == "planner" else None)


def notes_on(systems: Systems, of_run: bool, say: Say) -> None:
    """A line for each planner that was trained with another executor or Reason RM than the first's, which are used, or with
    other data than the first. of_run: the first is a run, so its data are known."""
    first, *others = systems.items()
    shared = SHARED if of_run else SHARED[1:]
    for label, system in others:
        if system.trained is not None and (
            keys := [k for k in shared if value_of(system.trained, k) != value_of(first[1].config, k)]
        ):
            say(f"note: {label} was trained with another {', '.join(keys)}; here all planners meet those of {first[0]}")


def overlap_with_training(
    systems: Mapping[str, System], benchmarks: Sequence[Benchmark], say: Say
) -> dict[str, dict[str, int | None]]:
    """Of each benchmark and planner, how many problems stand in the planner's training file too, and one line where any do;
    None where that is not known, as without a file that can be read."""
    shared: dict[str, dict[str, int | None]] = {b.name: dict.fromkeys(systems) for b in benchmarks}
    read: dict[tuple[object, ...], TaskSource | None] = {}
    for label, system in systems.items():
        if system.trained is None or system.trained.data.source.startswith("demo:"):
            continue
        d = system.trained.data
        key = d.source, d.limit, d.verifier, system.trained.planner.max_problem_chars
        if key not in read:
            read[key] = None
            with suppress(OSError, ValueError):
                read[key] = load_training_tasks(system.trained, lambda line: None)
        for b in benchmarks if read[key] is not None else ():
            shared[b.name][label] = n = trained_on(read[key], [p.task for p in b.problems])
            if n:
                say(f"note: {n} problems of {b.name} are in {label}'s data.source = {d.source} too: {MEMORY}")
    return shared


def suffix_of(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """What the files of a comparison have before their endings; nothing for one planner alone."""
    parts = ["with", *ours[1:]] if ours[1:] else []
    parts += ["against", *theirs] if theirs else []
    name = "-".join(["", *parts])
    return name if len(name) <= 120 else f"{name[:100]}-{len(parts)}-{number_of(name):x}"


def folder_of(config: Config, flags: Flags, name: str) -> Path:
    """Where results go: eval.out, RUN/eval, or runs/`name`."""
    return Path(config.eval.out or (Path(flags["run"][0]) / "eval" if "run" in flags else f"runs/{name}"))


def label_of(path: str) -> str:
    """A short name for a run or model folder: its own, after its parents' as far as those below say nothing; for a URL all
    of it but the scheme."""
    if "://" in path:
        return re.sub(r"\W+", "-", path.partition("://")[2]).strip("-")
    p = Path(path).resolve()
    name = p.name
    while p.parent != p.parent.parent and SAYS_NOTHING.fullmatch(p.name):
        p = p.parent
        name = name if p.name == "checkpoints" else f"{p.name}-{name}"
    return name
