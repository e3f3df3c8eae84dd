"""Rebuild the demo's assets from a seed: `python -m tracelift.worlds.build math --out assets/math`.

Writes the training data to a work folder, then runs the stages a user would run, in this order:

    base          sft from nothing: problem → sound trace, and problem + sound trace → answer
    planner       sft of base on traces with the demo planner's misconceptions
    executor      sft of base: answers with a trace (sound or flawed) or without
    reward_model  reward_model stage of base on TraceLift-Groups of reference traces and localized flaws

An executor answers what the trace's last step says, also where a flaw of sort A led it astray: it follows guidance, it
does not audit it. With nothing to follow it must work the problem out in one forward pass, which it cannot.
Left out: tuning. The recipe is in configs/assets/, its seeds in the files themselves.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tracelift.groups.format import Candidate, Group, Rubric, write_groups
from tracelift.prompts import BASELINE, CLOSE, EXECUTOR, OPEN, PLANNER
from tracelift.reason_rm import rm_text
from tracelift.worlds.math import MathProblem, apply_flaw, make_problem, misconceived_trace, rubric_of
from tracelift.worlds.math.flaws import FLAWS, all_flaws
from tracelift.worlds.math.validity import final_value
from tracelift.worlds.tokenizer import save_tokenizer, train_tokenizer

SERIES = {"base": 101, "planner": 102, "executor": 103, "groups": 104, "tokenizer": 105, "dev": 106}  # problem seeds
Row = dict[str, str]


def planner_row(p: MathProblem, trace: str) -> Row:
    return {"prompt": PLANNER["demo"].format(problem=p.text), "completion": f"{OPEN}{trace}{CLOSE}"}


def base_rows(count: int) -> Iterator[Row]:
    """Half as planner, half as executor whose guidance is part of what is learned; some without guidance."""
    for i in range(count):
        p, rng = make_problem(SERIES["base"], i), random.Random(f"base:{i}")
        kind = rng.random()
        if kind < 0.45:
            yield planner_row(p, p.trace)
        elif kind < 0.95:
            before, after = EXECUTOR["demo"].split("{trace}")
            yield {"prompt": before.format(problem=p.text).rstrip(" "), "completion": f" {p.trace}{after} {p.answer}"}
        else:
            yield {"prompt": BASELINE["demo"].format(problem=p.text), "completion": f" {p.answer}"}


def planner_rows(count: int) -> Iterator[Row]:
    for i in range(count):
        p = make_problem(SERIES["planner"], i)
        yield planner_row(p, misconceived_trace(p, random.Random(f"planner:{i}")))


def executor_rows(count: int, series: int | None = None) -> Iterator[Row]:
    """Mostly sound traces; flawed ones so that it follows what is written; none at all so that it has a baseline."""
    for i in range(count):
        p, rng = make_problem(series or SERIES["executor"], i), random.Random(f"executor:{i}")
        kind, trace = rng.random(), p.trace
        if kind < 0.15:
            yield {"prompt": BASELINE["demo"].format(problem=p.text), "completion": f" {p.answer}"}
            continue
        if kind < 0.45:
            trace = misconceived_trace(p, rng)
        elif kind < 0.65:
            flaw = apply_flaw(p, rng.choice(sorted(FLAWS)), rng)
            trace = flaw.trace if flaw else trace
        value = final_value(trace)
        answer = p.answer if value is None else value
        yield {"prompt": EXECUTOR["demo"].format(problem=p.text, trace=trace), "completion": f" {answer}"}


def make_group(p: MathProblem, rng: random.Random, negatives: int) -> Group:
    """One flaw of each of `negatives` kinds, drawn per group so that over many groups every kind is as frequent as it fits."""
    bank = []
    for flaw in all_flaws(p, rng):
        labels, total = rubric_of(flaw.kind)
        extra = {"place": flaw.place, "changes_answer": flaw.changes_answer}
        bank.append(Candidate(flaw.trace, Rubric(labels, total), flaw.kind, extra))
        if len(bank) == negatives:
            break
    labels, total = rubric_of(None)
    return Group(problem_id=p.problem_id, source="demo:math", task_type="math", problem=p.text, reference_solution=p.trace,
                 positive_pool=(Candidate(p.trace, Rubric(labels, total), None),), negative_bank=tuple(bank),
                 metadata={"answer": p.answer})  # fmt: skip


def make_groups(series: int, count: int, negatives: int = 6) -> Iterator[Group]:
    for i in range(count):
        yield make_group(make_problem(series, i), random.Random(f"groups:{series}:{i}"), negatives)


def tokenizer_corpus() -> Iterator[str]:
    for i in range(4000):
        p, rng = make_problem(SERIES["tokenizer"], i), random.Random(i)
        trace = misconceived_trace(p, rng)
        yield EXECUTOR["demo"].format(problem=p.text, trace=trace) + f" {p.answer}"
        yield rm_text("math", p.text, trace).replace("<", " ").replace(">", " ")


def write_rows(path: Path, rows: Iterator[Row]) -> None:
    with open(path, "w") as f:
        for row in rows:
            f.write(json.dumps(row) + "\n")


def stage(config: str, out: Path, *overrides: str) -> Path:
    """Run one train.py stage as a user would; returns its final folder. A stage that is already done is kept."""
    final = out / "final"
    if not (final / "config.json").exists():
        resume = ["--resume"] if (out / "metrics.jsonl").exists() else []
        subprocess.run([sys.executable, "train.py", config, "--run.out", str(out), *overrides, *resume], check=True)
    return final


def build_math(out: Path, work: Path, scale: float) -> None:
    work.mkdir(parents=True, exist_ok=True)
    n = lambda count: max(200, int(count * scale))  # noqa: E731
    tokenizer = work / "tokenizer"
    if not (work / "data-complete").exists():
        save_tokenizer(train_tokenizer(tokenizer_corpus(), 512), tokenizer)
        write_rows(work / "base.jsonl", base_rows(n(80_000)))
        write_rows(work / "planner.jsonl", planner_rows(n(30_000)))
        write_rows(work / "executor.jsonl", executor_rows(n(100_000)))
        write_rows(work / "dev.jsonl", executor_rows(600, SERIES["dev"]))
        write_groups(work / "groups.jsonl", make_groups(SERIES["groups"], n(60_000)))
        write_groups(work / "groups-dev.jsonl", make_groups(SERIES["dev"], 400, negatives=12))
        (work / "data-complete").touch()
    base = stage("configs/assets/math-base.toml", work / "base", "--sft.train", str(work / "base.jsonl"),
                 "--sft.dev", str(work / "dev.jsonl"), "--sft.tokenizer", str(tokenizer))  # fmt: skip
    planner = stage("configs/assets/math-planner.toml", work / "planner", "--sft.train", str(work / "planner.jsonl"), "--sft.init", str(base))
    executor = stage("configs/assets/math-executor.toml", work / "executor", "--sft.train", str(work / "executor.jsonl"),
                     "--sft.dev", str(work / "dev.jsonl"), "--sft.init", str(base))  # fmt: skip
    rm = stage("configs/assets/math-reward-model.toml", work / "reward_model", "--rm.train", str(work / "groups.jsonl"),
               "--rm.dev", str(work / "groups-dev.jsonl"), "--rm.init", str(base))  # fmt: skip
    for name, folder in (("planner", planner), ("executor", executor), ("reward_model", rm)):
        target = out / name
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir()):
            (target / file.name).write_bytes(file.read_bytes())
        print(f"{target}: {sum(f.stat().st_size for f in target.iterdir()) / 2**20:.2f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tracelift.worlds.build", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("world", choices=["math"])
    parser.add_argument("--out", type=Path, default=Path("assets/math"), help="where planner/, executor/, reward_model/ go")
    parser.add_argument("--work", type=Path, default=Path("runs/assets-math"), help="data and training runs; kept, and resumed from")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full data, for trying the recipe")
    args = parser.parse_args()
    build_math(args.out, args.work, args.scale)


if __name__ == "__main__":
    main()
