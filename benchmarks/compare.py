"""Does the executor-grounded reward beat execution-only training? The arms, several seeds each, on an embedded demo.

    python -m benchmarks.compare [--world math] [--seeds 5] [--jobs 2] [--match-tokens] [-- --section.key value ...]

In order: every (arm, seed) is trained by train.py from the same planner for the same number of updates; every final
planner, and the starting one, is evaluated by eval.py on the same fresh problems with the same executor seeds;
figures go to benchmarks/results/compare-WORLD.json and curves to compare-WORLD.png. What is finished is never
repeated: stop it and give the same command again. Words after `--` go to train.py. `--match-tokens` adds exec_only
with as many more updates as make its executor tokens equal TraceLift's. docs/results.md is then made by `python -m
benchmarks.results`. Left out: anything a run needs beyond its config; a row is reproduced by one train.py and one
eval.py command.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare_figures import ARMS, MATCHED, aggregate, draw, render_markdown, tokens_of
from tracelift.runs import versions, write_text

ROOT = Path(__file__).resolve().parents[1]
EVAL_SEED = 20_260  # of all evaluations alike: two planners meet the same executor draws
WORLDS = {"math": "configs/math-demo.toml", "code": "configs/code-demo.toml"}


@dataclass
class Job:
    """One command, its log, and the file that exists once it is done."""

    name: str
    command: list[str]
    log: Path
    done: Path


def run_all(jobs: list[Job], at_once: int) -> None:
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


def flags(options: dict[str, object]) -> list[str]:
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


def train_job(arm: str, seed: int, args: argparse.Namespace, extra: list[str]) -> Job:
    out = args.out / f"{arm}-{seed}"
    mode = "exec_only" if arm == MATCHED else arm
    options = {"run.out": out, "run.seed": seed, "data.seed": 1000 + seed, "data.eval_problems": 0, "run.threads": 1,
               "run.log_tokens": "false", "reward.mode": mode, "planner.path": args.planner}  # fmt: skip
    command = [sys.executable, "train.py", args.config, *flags(options), *args.overrides, *extra]
    if (out / "metrics.jsonl").exists():
        command.append("--run.resume")
    return Job(f"train {out.name}", command, out / "train.log", out / "final" / "config.json")


def eval_job(name: str, arms: str, args: argparse.Namespace) -> Job:
    """name: a run's folder, or "start" for the planner that all began from."""
    folder = args.out / name
    planner = args.planner if name == "start" else str(folder / "final")
    options = {"eval.benchmarks": f"demo:{args.world}", "eval.limit": args.problems, "eval.samples": args.samples,
               "eval.k": f"1,{args.samples}", "eval.arms": arms, "eval.out": folder / "eval"}  # fmt: skip
    ours = {"run.seed": EVAL_SEED, "run.threads": 1}
    command = [
        sys.executable,
        "eval.py",
        args.config,
        "--planner",
        planner,
        *flags(ours),
        *args.overrides,
        *flags(options),
    ]
    return Job(f"evaluate {name}", command, folder / "eval.log", folder / "eval" / "outcomes.json")


def matched_steps(args: argparse.Namespace) -> int:
    """Updates of exec_only that show it as many executor tokens as TraceLift's runs saw, on average."""
    steps = json.loads((args.out / f"tracelift-{args.seeds[0]}" / "config.json").read_text())["config"]["run"]["steps"]
    seen = [sum(tokens_of(args.out / f"{arm}-{s}") for s in args.seeds) for arm in ("tracelift", "exec_only")]
    return round(steps * seen[0] / max(1, seen[1]))


def main() -> None:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", choices=sorted(WORLDS), default="math")
    parser.add_argument("--config", default="", help="training config of every arm; default: the world's demo")
    parser.add_argument("--planner", default="", help="starting planner; default: the world's asset")
    parser.add_argument("--arms", default=",".join(ARMS), help="reward modes, by comma")
    parser.add_argument("--seeds", default="5", help="how many training seeds, or a list such as 3,4,7")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--problems", type=int, default=1000, help="fresh problems of the evaluation")
    parser.add_argument("--samples", type=int, default=4, help="samples a problem of the sampled evaluation")
    parser.add_argument("--out", type=Path, default=None, help="folder of the runs; default: runs/compare/WORLD")
    parser.add_argument("--results", type=Path, default=None, help="default: benchmarks/results/compare-WORLD.json")
    parser.add_argument("--match-tokens", action="store_true", help="also exec_only at TraceLift's executor tokens")
    args = parser.parse_args(words[:cut])
    args.overrides = words[cut + 1 :]
    args.config = args.config or WORLDS[args.world]
    args.planner = args.planner or f"assets/{args.world}/planner"
    args.out = (args.out or Path("runs/compare") / args.world).resolve()
    args.results = args.results or ROOT / "benchmarks" / "results" / f"compare-{args.world}.json"
    args.seeds = [int(s) for s in args.seeds.split(",")] if "," in args.seeds else list(range(int(args.seeds)))
    arms = args.arms.split(",")
    if wrong := [a for a in arms if a not in ARMS]:
        raise SystemExit(f"--arms: '{wrong[0]}' is none of {', '.join(ARMS)}")
    if args.match_tokens and not {"tracelift", "exec_only"} <= set(arms):
        raise SystemExit("--match-tokens needs both arms, tracelift and exec_only")

    run_all([train_job(arm, seed, args, []) for seed in args.seeds for arm in arms], args.jobs)
    if args.match_tokens:
        more = ["--run.steps", str(matched_steps(args))]
        run_all([train_job(MATCHED, seed, args, more) for seed in args.seeds], args.jobs)
        arms = [*arms, MATCHED]
    names = [f"{arm}-{seed}" for arm in arms for seed in args.seeds]
    run_all(
        [eval_job("start", "direct,planner,reference,foreign", args), *(eval_job(n, "planner", args) for n in names)],
        args.jobs,
    )

    record = {
        "command": shlex.join(["python", "-m", "benchmarks.compare", *words]),
        "versions": versions(),
        "world": args.world,
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
