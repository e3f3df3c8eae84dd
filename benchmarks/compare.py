"""Does the executor-grounded reward beat execution-only training? The arms, several seeds each, on an embedded demo.

    python -m benchmarks.compare [--world math|code] [--seeds 5] [-- --section.key value ...]

`--arms` names rewards, or what becomes of groups of equal rewards and of cut traces beside plain TraceLift:

    python -m benchmarks.compare --arms tracelift,drop,resample --seeds 3 --out runs/flat --results FILE.json
    python -m benchmarks.compare --arms exec_only,tracelift,gated --equal positions,seconds --asset-seed 1

In order: every (arm, seed) is trained by train.py from the same planner for the same number of updates; every final
planner, and the starting one, is evaluated by eval.py on the same fresh problems with the same executor seeds (the
executor without a trace, with reference and foreign traces once, with the starting planner); figures go to
benchmarks/results/compare-WORLD.json and curves to compare-WORLD.png. What is finished is never repeated: stop it and
give the same command again. Words after `--` go to train.py and eval.py. `--equal positions,seconds` also evaluates
every other arm as it stood when it had cost as much as exec_only's whole runs (benchmarks/budgets.py): ARM@positions,
ARM@seconds; there exec_only has no Reason RM, whose scores it would pay for and not use. `--asset-seed 1` takes the
demo models of another seed, from where tracelift.worlds.build leaves them. `--rates` gives each arm the learning rate
that benchmarks/rates.py chose for it. docs/results.md is then made by `python -m benchmarks.results`. Left out:
anything a run needs beyond its config (a row is reproduced by one train.py and one eval.py command), and a baseline
cache that arms of one seed share: it would save a tenth of their executor tokens, and the tokens each arm is shown
could no longer be counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from benchmarks.budgets import BUDGETS, as_it_stood, spent
from benchmarks.compare_figures import ARMS, REWARDS, aggregate
from benchmarks.compare_report import draw, render_markdown
from benchmarks.jobs import ROOT, WORLDS, Job, asset_words, claim, eval_job, print_of, run_all, split_words, train_job
from tracelift.config import load_config
from tracelift.files import write_text
from tracelift.runs.record import versions

SAVE_EVERY = 2  # rounds between checkpoints, where a run is to be found at some cost
EVAL_SEED = 20_260  # of all evaluations alike: two planners meet the same executor draws


def train_arm(arm: str, seed: int, args: argparse.Namespace) -> Job:
    options = {"run.seed": seed, "data.seed": 1000 + seed, **ARMS[arm], "planner.path": args.planner}
    if args.equal:
        options |= {"run.save_every": SAVE_EVERY, "run.keep": 1000}
    if arm in args.rates:
        options["optim.lr"] = args.rates[arm]
    words = [*args.overrides]
    if args.equal and arm == "exec_only":
        words += ["--reward_model.path", ""]  # after the overrides, which may name one
    return train_job(args.out / f"{arm}-{seed}", args.config, options, *words)


def evaluate_arm(name: str, arms: str, args: argparse.Namespace, planner: Path | str = "") -> Job:
    """name: a run's folder, or "start" for the planner that all began from. planner: where it is not the run's last."""
    options = {
        "eval.benchmarks": f"demo:{args.world}",
        "eval.limit": args.problems,
        "eval.samples": args.samples,
        "eval.k": f"1,{args.samples}",
        "eval.arms": arms,
        "run.seed": EVAL_SEED,
    }
    planner = planner or (args.planner if name == "start" else args.out / name / "final")
    return eval_job(args.out / name / "eval", args.config, planner, options, *args.overrides)


def equal_cost(arms: list[str], budgets: list[str], args: argparse.Namespace) -> tuple[list[str], list[Job]]:
    """(the arms ARM@BUDGET, their evaluations): every arm but exec_only as it stood at the mean cost of exec_only's runs."""
    names, jobs = [], []
    for budget in budgets:
        whole = [spent(args.out / f"exec_only-{seed}", budget)[-1] for seed in args.seeds]
        for arm in (a for a in arms if a != "exec_only"):
            names.append(f"{arm}@{budget}")
            for seed in args.seeds:
                run, there = args.out / f"{arm}-{seed}", args.out / f"{arm}@{budget}-{seed}"
                found = as_it_stood(run, there, budget, sum(whole) / len(whole))
                jobs.append(evaluate_arm(there.name, "planner", args, found.model))
    return names, jobs


def setup(args: argparse.Namespace) -> dict[str, object]:
    """What every run of the folder shares: another config, other weights or problems are other runs."""
    config = load_config(args.config, args.overrides)
    models = {"planner": args.planner, "executor": config.executor.path, "reward_model": config.reward_model.path}
    prints = {name: print_of(ROOT / path) for name, path in models.items() if (ROOT / path).is_dir()}
    return {
        "config": print_of(ROOT / args.config),
        "overrides": args.overrides,
        "problems": args.problems,
        "samples": args.samples,
        **({"rates": args.rates} if args.rates else {}),
        **prints,
    }


def main() -> None:
    words = sys.argv[1:]
    own, overrides = split_words(words)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", choices=sorted(WORLDS), default="math")
    parser.add_argument("--config", default="", help="training config of every arm; default: the world's demo")
    parser.add_argument("--planner", default="", help="starting planner; default: the config's")
    parser.add_argument("--arms", default=",".join(REWARDS), help=f"by comma, of {', '.join(ARMS)}")
    parser.add_argument("--seeds", default="5", help="how many training seeds, or a list such as 3,4,7")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="runs at a time, one thread each; default: one a core"
    )
    parser.add_argument("--problems", type=int, default=1000, help="fresh problems of the evaluation")
    parser.add_argument("--samples", type=int, default=4, help="samples a problem of the sampled evaluation")
    parser.add_argument("--out", type=Path, default=None, help="folder of the runs; default: runs/compare/WORLD")
    parser.add_argument("--results", type=Path, default=None, help="default: benchmarks/results/compare-WORLD.json")
    parser.add_argument(
        "--asset-seed", type=int, default=0, help="demo models of this seed (default 0: those in assets/)"
    )
    parser.add_argument("--rates", action="store_true", help="learning rates of benchmarks/results/rates-WORLD.json")
    parser.add_argument(
        "--equal",
        default="",
        help=f"by comma, of {', '.join(BUDGETS)}: every arm also as it stood at exec_only's cost, so counted",
    )
    args = parser.parse_args(own)
    args.equal = [word for word in args.equal.split(",") if word]
    args.overrides = [*asset_words(args.world, args.asset_seed), *overrides]
    args.config = args.config or WORLDS[args.world]
    name = args.world + (f"-{args.asset_seed}" if args.asset_seed else "")
    args.planner = (
        args.planner or load_config(args.config, asset_words(args.world, args.asset_seed, "planner")).planner.path
    )
    args.out = (args.out or Path("runs/compare") / name).resolve()
    args.results = args.results or ROOT / "benchmarks" / "results" / f"compare-{name}.json"
    rates = ROOT / "benchmarks" / "results" / f"rates-{args.world}.json"
    args.rates = json.loads(rates.read_text())["chosen"] if args.rates else {}
    args.seeds = [int(s) for s in args.seeds.split(",")] if "," in args.seeds else list(range(int(args.seeds)))
    if any(word.partition("=")[0] == "--planner.path" for word in args.overrides):
        raise SystemExit("--planner.path: each evaluation has a planner of its own; give the starting one as --planner")
    arms = args.arms.split(",")
    if wrong := [a for a in arms if a not in ARMS]:
        raise SystemExit(f"--arms: '{wrong[0]}' is none of {', '.join(ARMS)}")
    if wrong := [b for b in args.equal if b not in BUDGETS]:
        raise SystemExit(f"--equal: '{wrong[0]}' is none of {', '.join(BUDGETS)}")
    if args.equal and "exec_only" not in arms:
        raise SystemExit("--equal needs the arm exec_only, whose cost is the measure")

    claim(args.out, setup(args))
    run_all([train_arm(arm, seed, args) for seed in args.seeds for arm in arms], args.jobs)
    names = [f"{arm}-{seed}" for arm in arms for seed in args.seeds]
    run_all(
        [
            evaluate_arm("start", "direct,planner,reference,foreign", args),
            *(evaluate_arm(n, "planner", args) for n in names),
        ],
        args.jobs,
    )

    if args.equal:
        more, jobs = equal_cost(arms, args.equal, args)
        run_all(jobs, args.jobs)
        arms = [*arms, *more]

    record = {
        "command": shlex.join(["python", "-m", "benchmarks.compare", *words]),
        "versions": versions(),
        "world": args.world,
        "asset_seed": args.asset_seed,
        "rates": args.rates,
        "planner": args.planner,
        "config": args.config,
        "overrides": args.overrides,
        "seeds": args.seeds,
        "eval_seed": EVAL_SEED,
        "problems": args.problems,
        "samples": args.samples,
        **aggregate(args.out, arms, args.seeds),
    }
    args.results.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.results, json.dumps(record, indent=1) + "\n")
    picture = draw(record, args.results.with_suffix(".png"))
    print("\n" + render_markdown(record) + f"\n\nfigures: {args.results}   curves: {picture}")


if __name__ == "__main__":
    main()
