"""When does the executor-grounded reward matter? Small runs on the math demo along five axes, each cell a few seeds.

    python -m benchmarks.study [--seeds 3] [--steps 40] [--cells PATTERN] [--list]

    executor    weak, medium, strong, and one that repairs flawed traces: execution-only against TraceLift with each
    rm          no RM (uplift alone), the trained RM, the world's own rubric, the rubric with 25% and 50% wrong labels
    k           K = 1, 3 and 8 runs behind a success rate; a cached baseline of 24 runs instead of K
    uplift      success rates sampled against the executor's likelihood of the answer
    transfer    no training: planners trained for one executor, evaluated with the others they never saw

Executors are made first, from seeds: `weak` and `medium` are the asset's recipe stopped early, from the base that
`python -m tracelift.worlds.build math` leaves in runs/assets-math (made here where it is missing); `repairing` is the asset
taught to answer right from flawed traces. What is finished is never repeated; the record always holds the cells that
are done. Figures go to benchmarks/results/study-math.json. Left out: the code demo, whose runs cost several times more.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.jobs import ROOT, Job, claim, eval_job, flags, print_of, run_all, run_job, train_job
from benchmarks.study_figures import collect
from tracelift.files import json_line, write_text
from tracelift.runs.record import versions
from tracelift.worlds.build.__main__ import SERIES

CONFIG = "configs/math-demo.toml"
EVAL_SEED = 20_260  # as in benchmarks/compare.py
STRONG = "assets/math/executor"
EXECUTORS = {  # name: training rows (tracelift/worlds/build/math_data.py), what it starts from, rounds
    "weak": ("executor", "base", 60),
    "medium": ("executor", "base", 200),
    "repairing": ("repair", STRONG, 800),
}
ROWS = 40_000  # of an executor's data


@dataclass(frozen=True)
class Cell:
    """One setting of training: its axis, its executor, and what differs from the math demo's config."""

    axis: str
    name: str
    executor: str = "strong"
    options: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def id(self) -> str:
        return f"{self.axis}.{self.name}"


CELLS = (
    *(Cell("executor", f"{executor} {mode}", executor, {"reward.mode": mode})
      for executor in ("strong", "weak", "medium", "repairing") for mode in ("exec_only", "tracelift")),
    Cell("rm", "none", options={"reward.mode": "uplift_only"}),
    Cell("rm", "oracle", options={"reward_model.path": "oracle"}),
    Cell("rm", "oracle 25% wrong", options={"reward_model.path": "oracle:0.25"}),
    Cell("rm", "oracle 50% wrong", options={"reward_model.path": "oracle:0.5"}),
    Cell("k", "K 1", options={"executor.repeats": "1"}),
    Cell("k", "K 8", options={"executor.repeats": "8"}),
    Cell("k", "K 3, baseline 24", options={"executor.baseline_repeats": "24"}),
    Cell("uplift", "likelihood", options={"executor.uplift": "likelihood"}),
)  # fmt: skip
# The cell that every axis shares: strong executor, trained RM, K = 3, sampled uplift. Others are compared with it.
REFERENCE = "executor.strong tracelift"
TRANSFERRED = ("executor.strong exec_only", REFERENCE, "executor.repairing exec_only", "executor.repairing tracelift")


def slug(name: str) -> str:
    return name.replace(",", "").replace("%", "").replace(" ", "-")


def executor_path(name: str, out: Path) -> str:
    return STRONG if name == "strong" else str(out / "executors" / name / "final")


def make_base(out: Path) -> Path:
    """The language model that the demo's models start from: the asset build's own, or the same made here."""
    for work in (ROOT / "runs" / "assets-math", out / "base"):
        if (work / "base" / "final" / "config.json").exists():
            return work / "base" / "final"
    work = out / "base"
    command = [
        sys.executable,
        "-m",
        "tracelift.worlds.build",
        "math",
        "--until",
        "base",
        "--work",
        str(work),
        "--threads",
        "1",
    ]
    run_all([Job("base", command, work / "build.log", work / "base" / "final" / "config.json")], 1)
    return work / "base" / "final"


def make_executors(names: set[str], args: argparse.Namespace) -> None:
    """Train the executors that `names` asks for, as their recipe says."""
    jobs = []
    data = importlib.import_module("tracelift.worlds.build.math_data")
    for name in (n for n in EXECUTORS if n in names):
        rows, start, steps = EXECUTORS[name]
        folder = args.out / "executors" / name
        file = args.out / "executors" / f"{rows}.jsonl"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            maker = data.repair_rows if rows == "repair" else data.executor_rows
            made = maker(ROWS, SERIES["math"]["executor"])
            write_text(file, "".join(json_line(row, ensure_ascii=True) for row in made))
        init = make_base(args.out) if start == "base" else ROOT / start
        options = {"run.steps": steps, "sft.train": file, "sft.init": init}
        jobs.append(run_job(f"executor {name}", folder, "configs/assets/math-executor.toml", options))
    run_all(jobs, args.jobs)


def train(cell: Cell, seed: int, args: argparse.Namespace) -> Job:
    folder = args.out / slug(cell.id) / str(seed)
    options = {
        "run.seed": seed,
        "data.seed": 1000 + seed,
        "run.steps": args.steps,
        "executor.path": executor_path(cell.executor, args.out),
        **cell.options,
    }
    job = train_job(folder, CONFIG, options)
    job.name = f"train {cell.id} {seed}"
    return job


def evaluate(planner: str | Path, executor: str, folder: Path, arms: str, args: argparse.Namespace) -> Job:
    """One planner with one executor. The RM column is the asset's in every cell, whatever it was trained by."""
    options = {
        "eval.benchmarks": "demo:math",
        "eval.limit": args.problems,
        "eval.samples": 2,
        "eval.k": "1",
        "eval.arms": arms,
        "run.seed": EVAL_SEED,
        "executor.path": executor_path(executor, args.out),
    }
    job = eval_job(folder, CONFIG, planner, options)
    job.name = f"evaluate {folder.relative_to(args.out)}"
    return job


def transfers(executors: set[str]) -> list[tuple[str, str]]:
    """(cell, executor it never saw) to evaluate."""
    made = {c.id: c.executor for c in CELLS}
    return [
        (cell, e)
        for cell in TRANSFERRED
        for e in ("weak", "medium", "strong", "repairing")
        if e in executors and made[cell] != e
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", default="3", help="how many training seeds, or a list such as 3,4,7")
    parser.add_argument("--steps", type=int, default=40, help="updates of a run")
    parser.add_argument("--problems", type=int, default=500, help="fresh problems of an evaluation")
    parser.add_argument(
        "--cells",
        default="*",
        help="only cells whose AXIS.NAME fits this pattern, e.g. 'rm.*'; the reference always runs",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="runs at a time, one thread each; default: one a core"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/study/math"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "study-math.json")
    parser.add_argument("--list", action="store_true", help="say what the cells are, and stop")
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.seeds = [int(s) for s in args.seeds.split(",")] if "," in args.seeds else list(range(int(args.seeds)))
    chosen = [c for c in CELLS if c.id == REFERENCE or fnmatch.fnmatch(c.id, args.cells)]
    executors = {c.executor for c in chosen}
    if args.list:
        print("\n".join(f"{c.id:<32} executor {c.executor:<10} {shlex.join(flags(c.options))}" for c in chosen))
        return

    models = {name: print_of(ROOT / "assets" / "math" / name) for name in ("planner", "executor", "reward_model")}
    claim(args.out, {"config": print_of(ROOT / CONFIG), "steps": args.steps, "problems": args.problems, **models})
    make_executors(executors, args)
    start = "assets/math/planner"
    run_all(
        [
            evaluate(start, e, args.out / "start" / e, "direct,planner,reference,foreign", args)
            for e in sorted(executors)
        ],
        args.jobs,
    )
    run_all([train(c, s, args) for s in args.seeds for c in chosen], args.jobs)
    where = {c.id: args.out / slug(c.id) for c in chosen}
    jobs = [
        evaluate(where[c.id] / str(s) / "final", c.executor, where[c.id] / str(s) / "eval", "planner", args)
        for c in chosen
        for s in args.seeds
    ]
    moved = [t for t in transfers(executors) if t[0] in where]
    jobs += [
        evaluate(where[cell] / str(s) / "final", e, where[cell] / str(s) / f"with-{e}", "planner", args)
        for cell, e in moved
        for s in args.seeds
    ]
    run_all(jobs, args.jobs)

    done = [
        c
        for c in CELLS
        if all((args.out / slug(c.id) / str(s) / "eval" / "outcomes.json").exists() for s in args.seeds)
    ]
    record: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.study", *sys.argv[1:]]),
        "versions": versions(),
        "seeds": args.seeds,
        "steps": args.steps,
        "problems": args.problems,
        "eval_seed": EVAL_SEED,
        **collect(
            args.out,
            [(c.axis, c.name, c.executor, slug(c.id), c.options) for c in done],
            args.seeds,
            moved,
            {c.id: slug(c.id) for c in CELLS},
            REFERENCE,
        ),
    }
    args.results.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.results, json.dumps(record, indent=1) + "\n")
    print(f"{len(done)} of {len(CELLS)} cells; figures: {args.results}")


if __name__ == "__main__":
    main()
