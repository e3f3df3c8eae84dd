"""Many training and evaluation commands, a few at a time with one thread each, none of them twice.

A `Job` is one command and the file that exists once it is done. `Setup` is what all jobs of a folder have in common
(configs, weights, number of problems): a folder made with other models is refused, never mixed in. Left out: several
machines.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracelift.files import write_text

ROOT = Path(__file__).resolve().parents[1]
WORLDS = {"math": "configs/math-demo.toml", "code": "configs/code-demo.toml"}  # the training config of each demo


@dataclass
class Job:
    """One command, its log, and the file that exists once it is done."""

    name: str
    command: list[str]
    log: Path
    done: Path


def run_all(jobs: Sequence[Job], at_once: int) -> None:
    """Run what is not done yet, `at_once` at a time with one thread each. Raises SystemExit naming every job that
    failed."""
    waiting, running, failed = [j for j in jobs if not j.done.exists()], [], []
    finished, started = len(jobs) - len(waiting), time.time()
    if finished:
        print(f"{finished} of {len(jobs)} are done already", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                job.log.parent.mkdir(parents=True, exist_ok=True)
                log = open(job.log, "a")  # noqa: SIM115 (the child's, closed here at once below)
                print("$ " + shlex.join(job.command), file=log, flush=True)
                running.append((job, subprocess.Popen(job.command, cwd=ROOT, env=environment, stdout=log, stderr=log)))
                log.close()
            time.sleep(0.5)
            for job, process in [pair for pair in running if pair[1].poll() is not None]:
                running.remove((job, process))
                if process.returncode or not job.done.exists():
                    failed.append(f"{job.name} ended with {process.returncode}; its log: {job.log}")
                    continue
                finished += 1
                print(f"{finished}/{len(jobs)} {job.name}  ({(time.time() - started) / 60:.1f} min)", flush=True)
    finally:
        for _, process in running:  # a Ctrl-C here: each saves a checkpoint and can be resumed
            process.terminate()
        for _, process in running:
            process.wait()
    if failed:
        raise SystemExit("\n".join(failed))


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """(a benchmark's own arguments, those behind `--`, which are the config's)."""
    cut = words.index("--") if "--" in words else len(words)
    return words[:cut], words[cut + 1 :]


def asset_words(world: str, seed: int, *models: str) -> list[str]:
    """Flags for a demo's models of another asset seed, by default those that stay as they are in training; none for 0, whose
    models the demos' configs name."""
    out = Path("runs") / f"assets-{world}-{seed}" / "out"
    return flags({f"{name}.path": out / name for name in models or ("executor", "reward_model")}) if seed else []


def flags(options: Mapping[str, object]) -> list[str]:
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


def run_job(name: str, folder: Path, config: str, options: Mapping[str, object], *more: str) -> Job:
    """train.py into `folder`, any stage, going on from its newest checkpoint where there is one."""
    command = [sys.executable, "train.py", config, *flags({"run.out": folder, "run.threads": 1, **options}), *more]
    if (folder / "metrics.jsonl").exists():
        command.append("--run.resume")
    return Job(name, command, folder / "train.log", folder / "final" / "config.json")


def train_job(folder: Path, config: str, options: Mapping[str, object], *more: str) -> Job:
    """A planner's run. Nothing is evaluated on the way, and the logs leave out token ids."""
    ours = {"sandbox.workers": 2, "data.eval_problems": 0, "run.log_tokens": "false"}
    return run_job(f"train {folder.name}", folder, config, {**ours, **options}, *more)


def eval_job(folder: Path, config: str, planner: str | Path, options: Mapping[str, object], *more: str) -> Job:
    """eval.py of one planner into `folder`."""
    ours = {"run.threads": 1, "sandbox.workers": 2, "eval.out": folder}
    command = [sys.executable, "eval.py", config, "--planner", str(planner), *more, *flags({**ours, **options})]
    return Job(
        f"evaluate {folder.parent.name}", command, folder.parent / f"{folder.name}.log", folder / "outcomes.json"
    )


def print_of(path: Path) -> str:
    """sha256 of a file, or of a model folder's weights and tokenizer; shortened."""
    files = sorted(p for p in path.glob("*.*") if p.suffix in (".safetensors", ".json")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def claim(folder: Path, setup: Mapping[str, object]) -> None:
    """Make `folder` the place of runs with this setup. Raises SystemExit where it holds runs with another."""
    path, setup = folder / "setup.json", json.loads(json.dumps(setup))
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(setup, indent=1) + "\n")
        return
    old = json.loads(path.read_text())
    if changed := [
        f"{k}: {old.get(k)!r} there, {setup.get(k)!r} now" for k in {**old, **setup} if old.get(k) != setup.get(k)
    ]:
        raise SystemExit(
            f"{folder} holds runs with another setup; give --out another folder, or remove it\n  "
            + "\n  ".join(changed)
        )
