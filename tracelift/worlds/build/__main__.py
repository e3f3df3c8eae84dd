"""Rebuild a demo's assets from a seed: `python -m tracelift.worlds.build math|code --out assets/math|code`.

Writes the training data to a work folder, then runs the stages a user would run, in this order:

    base          sft from nothing: problem → sound trace, and problem + sound trace → artifact
    planner       sft of base on traces with the demo planner's misconceptions
    executor      sft of base: artifacts with a trace (sound or flawed) or without
    proofreader   sft of base, deepened, on tagging right and wrong digits (where the world asks for it)
    reward_model  reward_model stage of the proofreader, or of base, on TraceLift-Groups of reference traces and localized flaws

What the rows are is the worlds' own business (math_data.py, code_data.py). A stage that is done is kept, one that
was interrupted goes on. Left out: tuning. The recipe is in configs/assets/, its seeds in the files themselves.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tracelift.files import json_line, replaced_file
from tracelift.reward_model.group_format import write_groups
from tracelift.worlds.build.tokenizer import save_tokenizer, train_tokenizer

ROWS = {  # world: rows for base, planner and executor, and groups for the Reason RM
    "math": (80_000, 30_000, 100_000, 60_000),
    "code": (60_000, 12_000, 30_000, 17_000),
}
PROOFREAD_ROWS = 16_000  # of four traces each


def write_rows(path: Path, rows: Iterable[dict[str, str]]) -> None:
    with replaced_file(path) as f:
        f.writelines(json_line(row, ensure_ascii=True) for row in rows)


def write_data(world: str, data: Any, work: Path, scale: float) -> None:
    """Tokenizer, rows and groups. `data` is tracelift.worlds.build.WORLD_data. Writes work/data-complete last."""
    base, planner, executor, groups = (max(200, int(count * scale)) for count in ROWS[world])
    save_tokenizer(train_tokenizer(data.tokenizer_corpus(), data.VOCABULARY, data.PIECES), work / "tokenizer")
    write_rows(work / "base.jsonl", data.base_rows(base))
    write_rows(work / "planner.jsonl", data.planner_rows(planner))
    write_rows(work / "executor.jsonl", data.executor_rows(executor))
    write_rows(work / "dev.jsonl", data.executor_rows(600, data.SERIES["dev"]))
    if hasattr(data, "proofread_rows"):
        write_rows(work / "proofread.jsonl", data.proofread_rows(max(200, int(PROOFREAD_ROWS * scale))))
    write_groups(work / "groups.jsonl", data.make_groups(data.SERIES["groups"], groups))
    write_groups(work / "groups-dev.jsonl", data.make_groups(data.SERIES["dev"], 400, negatives=12))
    (work / "data-complete").touch()


def stage(config: str, out: Path, *overrides: str) -> Path:
    """Run one train.py stage as a user would; returns its final folder. A stage that is already done is kept."""
    final = out / "final"
    if not (final / "config.json").exists():
        resume = ["--resume"] if (out / "metrics.jsonl").exists() else []
        subprocess.run([sys.executable, "train.py", config, "--run.out", str(out), *overrides, *resume], check=True)
    return final


def build(world: str, out: Path, work: Path, scale: float, threads: int = 0, until: str = "") -> None:
    """All stages of one world; assets in `out`/planner, executor and reward_model. Raises on a stage that fails.

    until = "base": only the language model that the others start from, in `work`/base/final.
    """
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "data-complete").exists():
        write_data(world, importlib.import_module(f"tracelift.worlds.build.{world}_data"), work, scale)

    def run(name: str, config: str, *overrides: str) -> Path:
        return stage(f"configs/assets/{world}-{config}.toml", work / name, "--run.threads", str(threads), *overrides)

    file = lambda name: str(work / name)  # noqa: E731
    base = str(
        run(
            "base",
            "base",
            "--sft.train",
            file("base.jsonl"),
            "--sft.dev",
            file("dev.jsonl"),
            "--sft.tokenizer",
            file("tokenizer"),
        )
    )
    if until == "base":
        return
    planner = run("planner", "planner", "--sft.train", file("planner.jsonl"), "--sft.init", base)
    executor = run(
        "executor",
        "executor",
        "--sft.train",
        file("executor.jsonl"),
        "--sft.dev",
        file("dev.jsonl"),
        "--sft.init",
        base,
    )
    judge = base  # what the Reason RM starts from
    if (work / "proofread.jsonl").exists():
        judge = str(run("proofreader", "proofreader", "--sft.train", file("proofread.jsonl"), "--sft.init", base))
    rm = run(
        "reward_model",
        "reward-model",
        "--rm.train",
        file("groups.jsonl"),
        "--rm.dev",
        file("groups-dev.jsonl"),
        "--rm.init",
        judge,
    )
    for name, folder in (("planner", planner), ("executor", executor), ("reward_model", rm)):
        target = out / name
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            (target / path.name).write_bytes(path.read_bytes())
        print(f"{target}: {sum(f.stat().st_size for f in target.iterdir()) / 2**20:.2f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tracelift.worlds.build", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("world", choices=sorted(ROWS))
    parser.add_argument("--out", type=Path, help="where planner/, executor/, reward_model/ go (default assets/WORLD)")
    parser.add_argument(
        "--work", type=Path, help="data and training runs; kept, and resumed from (default runs/assets-WORLD)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full data, for trying the recipe")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of each stage; 0 takes all")
    parser.add_argument(
        "--until", choices=["base"], default="", help="stop after this stage, which leaves its model in the work folder"
    )
    args = parser.parse_args()
    build(
        args.world,
        args.out or Path("assets") / args.world,
        args.work or Path("runs") / f"assets-{args.world}",
        args.scale,
        args.threads,
        args.until,
    )


if __name__ == "__main__":
    main()
