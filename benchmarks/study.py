"""When does the executor-grounded reward matter? Small runs on the math demo along six axes, each cell a few seeds.

    python -m benchmarks.study [--seeds 3] [--steps 80] [--cells PATTERN,PATTERN] [--list]

    executor    weak, medium, strong, and one that repairs flawed traces: execution-only against TraceLift with each
    rm          no RM (uplift alone), the trained RM, the world's own rubric, the rubric with 25% and 50% wrong labels
    blind       the world's rubric, but one kind of fault is taken for sound, for each kind
    noise       the executor's temperature, and at each: K = 1, 3 and 8, pooled runs, likelihood uplift, gated, execution only
    long        four times the updates: does the planner come to exploit its Reason RM?
    transfer    no training: planners trained for one executor, evaluated with the others they never saw, by accuracy

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
from collections.abc import Iterator, Sequence
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
LONG = "320"  # updates of the axis `long`


@dataclass(frozen=True)
class Cell:
    """One setting of training: its axis, its executor, what differs from the math demo's config, and the cell it is asked
    against ("": none)."""

    axis: str
    name: str
    executor: str = "strong"
    options: dict[str, str] = field(default_factory=dict, hash=False)
    against: str = ""

    @property
    def id(self) -> str:
        return f"{self.axis}.{self.name}"


# The cell that several axes share: strong executor at its temperature, trained RM, K = 3, sampled uplift.
REFERENCE = "executor.strong tracelift"
FAULTS = ("false_arithmetic", "ungrounded", "wrong_reason", "duplicate", "missing_step", "answer_leaked")
NOISE = {  # what is varied at each of the executor's temperatures
    "execution only": {"reward.mode": "exec_only"},
    "gated": {"reward.mode": "gated"},
    "K 1": {"executor.repeats": "1"},
    "K 8": {"executor.repeats": "8"},
    "pooled": {"reward.runs": "pooled"},
    "likelihood": {"executor.uplift": "likelihood"},
}
TEMPERATURES = ("0.5", "2.0")  # temperatures beside the demo's own


def noise_cells() -> Iterator[Cell]:
    """TraceLift at K = 3 at each temperature, and what is asked against it there; at the demo's own it is the reference."""
    yield from (
        Cell("noise", name, options=o, against=REFERENCE) for name, o in NOISE.items() if "execution" not in name
    )
    for t in TEMPERATURES:
        at, base = {"executor.temperature": t}, f"noise.T {t} K 3"
        yield Cell("noise", f"T {t} K 3", options=at)
        yield from (Cell("noise", f"T {t} {name}", options=at | o, against=base) for name, o in NOISE.items())


def executor_cells() -> Iterator[Cell]:
    for executor in ("strong", "weak", "medium", "repairing"):
        plain = Cell("executor", f"{executor} exec_only", executor, {"reward.mode": "exec_only"})
        yield plain
        yield Cell("executor", f"{executor} tracelift", executor, {"reward.mode": "tracelift"}, plain.id)


CELLS = (
    *executor_cells(),
    Cell("rm", "none", options={"reward.mode": "uplift_only"}, against=REFERENCE),
    Cell("rm", "oracle", options={"reward_model.path": "oracle"}, against=REFERENCE),
    *(Cell("rm", f"oracle {100 * float(share):.0f}% wrong", options={"reward_model.path": f"oracle:{share}"}, against="rm.oracle")
      for share in ("0.25", "0.5")),
    *(Cell("blind", f"to {fault}", options={"reward_model.path": f"oracle:blind-{fault}"}, against="rm.oracle")
      for fault in FAULTS),
    *noise_cells(),
    *(Cell("long", f"{mode}, four times as long", options={"reward.mode": mode, "run.steps": LONG}, against=against)
      for mode, against in (("tracelift", REFERENCE), ("gated", "noise.gated"), ("rm_only", ""))),
)  # fmt: skip
TRANSFERRED = ("executor.strong exec_only", REFERENCE, "noise.gated")


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
    options: dict[str, object] = {
        "run.seed": seed,
        "data.seed": 1000 + seed,
        "run.steps": args.steps,
        "optim.lr": args.rate,
        "executor.path": executor_path(cell.executor, args.out),
        **cell.options,
    }
    job = train_job(folder, CONFIG, options)
    job.name = f"train {cell.id} {seed}"
    return job


def evaluate(
    planner: str | Path, executor: str, folder: Path, arms: str, args: argparse.Namespace, temperature: str = ""
) -> Job:
    """One planner with one executor, at the demo's temperature or another. The RM column is the asset's in every cell, whatever
    it was trained by."""
    options = {
        "eval.benchmarks": "demo:math",
        "eval.limit": args.problems,
        "eval.samples": 2,
        "eval.k": "1",
        "eval.arms": arms,
        "run.seed": EVAL_SEED,
        "executor.path": executor_path(executor, args.out),
        **({"executor.temperature": temperature} if temperature else {}),
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


def chosen_cells(patterns: Sequence[str]) -> list[Cell]:
    """The cells that fit, those they are asked against, and the reference; in the order of CELLS."""
    wanted = {c.id for c in CELLS if c.id == REFERENCE or any(fnmatch.fnmatch(c.id, p) for p in patterns)}
    wanted |= {c.against for c in CELLS if c.id in wanted}
    return [c for c in CELLS if c.id in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", default="3", help="how many training seeds, or a list such as 3,4,7")
    parser.add_argument("--steps", type=int, default=80, help="updates of a run")
    parser.add_argument("--rate", type=float, default=4e-4, help="learning rate of every run")
    parser.add_argument("--problems", type=int, default=500, help="fresh problems of an evaluation")
    parser.add_argument(
        "--cells",
        default="*",
        help="only cells whose AXIS.NAME fits one of these patterns, by comma, e.g. 'rm.*,blind.*'; what they are asked "
        "against runs too, and the reference always",
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
    chosen = chosen_cells(args.cells.split(","))
    executors = {c.executor for c in chosen}
    if args.list:
        print("\n".join(f"{c.id:<32} executor {c.executor:<10} {shlex.join(flags(c.options))}" for c in chosen))
        return

    models = {name: print_of(ROOT / "assets" / "math" / name) for name in ("planner", "executor", "reward_model")}
    claim(
        args.out,
        {
            "config": print_of(ROOT / CONFIG),
            "steps": args.steps,
            "rate": args.rate,
            "problems": args.problems,
            **models,
        },
    )
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
        evaluate(
            where[c.id] / str(s) / "final",
            c.executor,
            where[c.id] / str(s) / "eval",
            "planner",
            args,
            c.options.get("executor.temperature", ""),
        )
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
        "rate": args.rate,
        "problems": args.problems,
        "eval_seed": EVAL_SEED,
        **collect(
            args.out,
            [(c.axis, c.name, c.executor, slug(c.id), c.options) for c in done],
            args.seeds,
            moved,
            {c.id: slug(c.id) for c in CELLS},
            [(c.against, c.id) for c in done if c.against],
        ),
    }
    args.results.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.results, json.dumps(record, indent=1) + "\n")
    print(f"{len(done)} of {len(CELLS)} cells; figures: {args.results}")


if __name__ == "__main__":
    main()
