"""Rebuild a demo's assets from a seed: `python -m tracelift.worlds.build math|code --out assets/math|code`.

Writes the training data to a work folder, then runs the stages a user would run, in this order:

    base          sft from nothing: problem → sound trace, and problem + sound trace → artifact
    planner       sft of base on traces with the demo planner's misconceptions
    executor      sft of base: artifacts with a trace (sound or flawed) or without
    proofreader   sft of base, deepened, on tagging right and wrong digits
    reward_model  reward_model stage of the proofreader, on TraceLift-Groups of reference traces and localized flaws

What the rows are is the worlds' own business (math_data.py, code_data.py). A stage that is done is kept, one that
was interrupted goes on. `--asset-seed` makes other models by the same recipe: other problems, other initial weights, other
batches. Left out: tuning. The recipe is in configs/assets/, its seeds in the files themselves.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tracelift.config import load_config
from tracelift.files import json_line, replaced_file
from tracelift.reward_model.group_format import write_groups
from tracelift.worlds.build.tokenizer import save_tokenizer, train_tokenizer

ROWS = {  # world: rows for base, planner and executor, and groups for the Reason RM
    "math": (80_000, 30_000, 100_000, 60_000),
    "code": (60_000, 12_000, 30_000, 17_000),
}
PROOFREAD_ROWS = 16_000  # of four traces each
DEV_ROWS, DEV_GROUPS = 600, 400
LEAST = 200  # rows of anything, however small the share
# The series of problems that each part draws from, by world; another asset seed draws from other series.
SERIES = {
    world: {
        name: first + i
        for i, name in enumerate(("base", "planner", "executor", "groups", "tokenizer", "dev", "proofread"))
    }
    for world, first in (("math", 101), ("code", 201))
}
_APART = 1000  # between the series, and between the run seeds, of two asset seeds


def write_rows(path: Path, rows: Iterable[dict[str, str]]) -> None:
    with replaced_file(path) as f:
        f.writelines(json_line(row, ensure_ascii=True) for row in rows)


def write_data(world: str, work: Path, scale: float, asset_seed: int) -> None:
    """Tokenizer, rows and groups, by tracelift.worlds.build.WORLD_data. Writes work/data-complete last."""
    data = importlib.import_module(f"tracelift.worlds.build.{world}_data")
    base, planner, executor, groups, proofread = (
        max(LEAST, int(count * scale)) for count in (*ROWS[world], PROOFREAD_ROWS)
    )
    dev_rows, dev_groups = (min(count, base) for count in (DEV_ROWS, DEV_GROUPS))
    series = {name: number + _APART * asset_seed for name, number in SERIES[world].items()}
    corpus = data.tokenizer_corpus(series["tokenizer"])
    save_tokenizer(train_tokenizer(corpus, data.VOCABULARY, data.PIECES), work / "tokenizer")
    write_rows(work / "base.jsonl", data.base_rows(base, series["base"]))
    write_rows(work / "planner.jsonl", data.planner_rows(planner, series["planner"]))
    write_rows(work / "executor.jsonl", data.executor_rows(executor, series["executor"]))
    write_rows(work / "dev.jsonl", data.executor_rows(dev_rows, series["dev"]))
    write_rows(work / "proofread.jsonl", data.proofread_rows(proofread, series["proofread"]))
    write_groups(work / "groups.jsonl", data.make_groups(series["groups"], groups))
    write_groups(work / "groups-dev.jsonl", data.make_groups(series["dev"], dev_groups, negatives=12))
    (work / "data-complete").touch()


def stage(config: str, out: Path, *overrides: str) -> Path:
    """Run one train.py stage as a user would; returns its final folder. A stage that is already done is kept."""
    final = out / "final"
    if not (final / "config.json").exists():
        resume = ["--resume"] if (out / "metrics.jsonl").exists() else []
        subprocess.run([sys.executable, "train.py", config, "--run.out", str(out), *overrides, *resume], check=True)
    return final


def build(
    world: str, out: Path, work: Path, scale: float, threads: int = 0, until: str = "", asset_seed: int = 0
) -> None:
    """All stages of one world; assets in `out`/planner, executor and reward_model. Raises on a stage that fails.

    until = "base": only the language model that the others start from, in `work`/base/final.
    """
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "data-complete").exists():
        write_data(world, work, scale, asset_seed)

    def run(name: str, config: str, **files: str | Path) -> Path:
        recipe = f"configs/assets/{world}-{config}.toml"
        seed = load_config(recipe).run.seed + _APART * asset_seed
        given = [word for key, path in files.items() for word in (f"--{key.replace('_', '.')}", str(path))]
        return stage(recipe, work / name, "--run.threads", str(threads), "--run.seed", str(seed), *given)

    dev = work / "dev.jsonl"
    base = run("base", "base", sft_train=work / "base.jsonl", sft_dev=dev, sft_tokenizer=work / "tokenizer")
    if until == "base":
        return
    planner = run("planner", "planner", sft_train=work / "planner.jsonl", sft_init=base)
    executor = run("executor", "executor", sft_train=work / "executor.jsonl", sft_dev=dev, sft_init=base)
    reader = run("proofreader", "proofreader", sft_train=work / "proofread.jsonl", sft_init=base)
    groups, groups_dev = work / "groups.jsonl", work / "groups-dev.jsonl"
    rm = run("reward_model", "reward-model", rm_train=groups, rm_dev=groups_dev, rm_init=reader)
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
    parser.add_argument(
        "--asset-seed",
        type=int,
        default=0,
        help="0 makes the committed models; others go to runs/assets-WORLD-SEED/out",
    )
    args = parser.parse_args()
    name = f"assets-{args.world}" + (f"-{args.asset_seed}" if args.asset_seed else "")
    work = args.work or Path("runs") / name
    out = args.out or (work / "out" if args.asset_seed else Path("assets") / args.world)
    build(args.world, out, work, args.scale, args.threads, args.until, args.asset_seed)


if __name__ == "__main__":
    main()
