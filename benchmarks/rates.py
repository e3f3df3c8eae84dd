"""Which learning rate suits each reward: a sweep on training seeds that no comparison uses.

    python -m benchmarks.rates [--world math|code] [--arms exec_only,tracelift,gated] [--rates 1e-4,2e-4,4e-4] [--seeds 100,101]

Every (arm, rate, seed) is trained by train.py as benchmarks/compare.py trains it. A run's score is the accuracy of its own
training rollouts, sampled traces on problems it had not met, averaged over the last quarter of its rounds; each arm's rate is
the one whose mean over seeds is highest, the smaller of equals. Right answers alone decide: reasoning is what the comparison
is about. What is finished is never repeated. Figures go to benchmarks/results/rates-WORLD.json, from which `benchmarks.compare
--rates` takes them. Left out: any other setting, and schedules other than the demos' constant one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from benchmarks.compare import train_arm
from benchmarks.jobs import ROOT, WORLDS, claim, print_of, run_all, split_words
from tracelift.config import load_config
from tracelift.files import read_log, write_text
from tracelift.runs.record import versions


def score(run: Path) -> float:
    """Mean accuracy of the rollouts of the last quarter of a run's rounds."""
    rows = [r["accuracy"] for r in read_log(run / "metrics.jsonl")]
    last = rows[-max(1, len(rows) // 4) :]
    return sum(last) / len(last)


def means(by_rate: dict[str, list[float]]) -> dict[float, float]:
    """rate → its mean over seeds."""
    return {float(rate): round(sum(v) / len(v), 9) for rate, v in by_rate.items()}


def choose(scores: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """arm → its rate, of arm → rate → a score per seed: the highest mean, the smaller rate of equals."""
    chosen = {}
    for arm, by_rate in scores.items():
        mean = means(by_rate)
        chosen[arm] = min(r for r in mean if mean[r] == max(mean.values()))
    return chosen


def render(record: dict[str, Any]) -> str:
    """Each arm's score by rate; the chosen one in bold."""
    arms = record["scores"]
    rates = list(next(iter(arms.values())))
    lines = ["| reward | " + " | ".join(rates) + " |", "|---|" + "---|" * len(rates)]
    for arm, by_rate in arms.items():
        cells = [f"{m:.3f}" if float(r) != record["chosen"][arm] else f"**{m:.3f}**" for r, m in
                 zip(rates, means(by_rate).values(), strict=True)]  # fmt: skip
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    words = sys.argv[1:]
    own, overrides = split_words(words)
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rates", description=about)
    parser.add_argument("--world", choices=sorted(WORLDS), default="math")
    parser.add_argument("--arms", default="exec_only,tracelift,gated", help="rewards by comma")
    parser.add_argument("--rates", default="1e-4,2e-4,4e-4", help="learning rates by comma")
    parser.add_argument("--seeds", default="100,101", help="training seeds by comma")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=None, help="folder of the runs; default: runs/rates/WORLD")
    parser.add_argument("--results", type=Path, default=None, help="default: benchmarks/results/rates-WORLD.json")
    args = parser.parse_args(own)
    args.out = (args.out or Path("runs/rates") / args.world).resolve()
    args.results = args.results or ROOT / "benchmarks" / "results" / f"rates-{args.world}.json"
    args.config, args.overrides, args.equal = WORLDS[args.world], overrides, []
    config = load_config(args.config, overrides)
    args.planner = config.planner.path
    arms, rates = args.arms.split(","), args.rates.split(",")
    seeds = [int(s) for s in args.seeds.split(",")]

    models = {name: print_of(ROOT / getattr(config, name).path) for name in ("planner", "executor", "reward_model")}
    claim(args.out, {"config": print_of(ROOT / args.config), "overrides": overrides, **models})
    top, jobs = args.out, []
    for rate in rates:
        args.out, args.rates = top / f"lr-{rate}", dict.fromkeys(arms, float(rate))
        jobs += [train_arm(arm, seed, args) for seed in seeds for arm in arms]
    run_all(jobs, args.jobs)

    scores = {arm: {r: [round(score(top / f"lr-{r}" / f"{arm}-{s}"), 6) for s in seeds] for r in rates} for arm in arms}
    record = {
        "command": shlex.join(["python", "-m", "benchmarks.rates", *words]),
        "versions": versions(),
        "world": args.world,
        "config": args.config,
        "overrides": overrides,
        "seeds": seeds,
        "updates": len(read_log(top / f"lr-{rates[0]}" / f"{arms[0]}-{seeds[0]}" / "metrics.jsonl")),
        "scores": scores,
        "chosen": choose(scores),
    }
    args.results.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.results, json.dumps(record, indent=1) + "\n")
    print(f"\n{render(record)}\n\nfigures: {args.results}")


if __name__ == "__main__":
    main()
