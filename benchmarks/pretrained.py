"""Execution-only against TraceLift with a real pretrained model as planner and executor, on the math demo's word problems.

    python -m benchmarks.pretrained --base smollm2 [--seeds 2] [--jobs 2] [-- --section.key value ...]

In order: SmolLM2-135M-Instruct learns by `sft` to write traces with the demo planner's habits, and once more to answer
from a trace, which makes the starting planner and the frozen executor (configs/smollm2-{planner,executor}.toml); then
benchmarks/compare.py trains the planner by GRPO (LoRA on its upper half, configs/smollm2-math.toml) with either reward
and evaluates all on the same fresh problems. The Reason RM is the demo's own: text crosses between the tokenizers. What
is finished is never repeated. Figures go to benchmarks/results/compare-smollm2.json. One command for a CPU and for a
GPU, where `-- --run.dtype bfloat16` and more problems and updates are affordable. Left out: GSM8K, whose traces
nobody can judge exactly.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.jobs import ROOT, Job, claim, print_of, run_all, run_job, split_words
from tracelift.files import read_log, write_text
from tracelift.worlds.build import math_data as data
from tracelift.worlds.build.__main__ import SERIES, write_rows

ROWS = {"planner": 4000, "executor": 6000}  # what sft draws from
ABOUT = "SmolLM2-135M as planner and executor, the math demo's problems"
NAME = "smollm2"


def write_data(work: Path) -> None:
    for name, rows in (
        ("planner", data.planner_rows(ROWS["planner"], SERIES["math"]["planner"])),
        ("executor", data.executor_rows(ROWS["executor"], SERIES["math"]["executor"])),
        ("dev", data.executor_rows(100, SERIES["math"]["dev"])),
    ):
        write_rows(work / f"{name}.jsonl", rows)


def stage(role: str, base: Path, work: Path) -> Job:
    """The sft run that makes planner or executor."""
    options = {
        "sft.init": base,
        "sft.train": work / f"{role}.jsonl",
        **({"sft.dev": work / "dev.jsonl"} if role == "executor" else {}),
    }
    return run_job(f"sft {role}", work / role, f"configs/{NAME}-{role}.toml", options)


def main() -> None:
    words = sys.argv[1:]
    own, overrides = split_words(words)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrained", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--base",
        type=Path,
        required=True,
        help="folder of SmolLM2-135M-Instruct (docs/reward-model.md says how to get it)",
    )
    parser.add_argument("--seeds", default="2", help="how many training seeds, or a list such as 3,4,7")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="runs at a time, one thread each; one for a GPU"
    )
    parser.add_argument("--problems", type=int, default=200, help="fresh problems of the evaluation")
    args = parser.parse_args(own)
    if not (args.base / "config.json").exists():
        raise SystemExit(f"--base {args.base}: no model folder (config.json is missing)")
    work, results = ROOT / "runs" / NAME, ROOT / "benchmarks" / "results" / f"compare-{NAME}.json"
    claim(
        work, {"base": print_of(args.base), **{role: print_of(ROOT / f"configs/{NAME}-{role}.toml") for role in ROWS}}
    )
    if not (work / "dev.jsonl").exists():
        write_data(work)
    run_all([stage(role, args.base.resolve(), work) for role in ROWS], args.jobs)

    compare = [
        sys.executable,
        "-m",
        "benchmarks.compare",
        "--config",
        f"configs/{NAME}-math.toml",
        "--arms",
        "exec_only,tracelift",
        "--seeds",
        args.seeds,
        "--jobs",
        str(args.jobs),
        "--problems",
        str(args.problems),
        "--samples",
        "2",
        "--out",
        f"runs/compare/{NAME}",
        "--results",
        str(results),
        *(["--", *overrides] if overrides else []),
    ]
    if done := subprocess.run(compare, cwd=ROOT).returncode:
        raise SystemExit(done)
    record = json.loads(results.read_text())
    record["about"] = ABOUT
    record["command"] = shlex.join(["python", "-m", "benchmarks.pretrained", *words])
    record["sft"] = {role: {"updates": len(read_log(work / role / "metrics.jsonl"))} for role in ROWS}
    write_text(results, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
