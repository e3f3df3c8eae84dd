"""docs/results.md and the README's figures from benchmarks/results/: `python -m benchmarks.results`.

Every benchmarks/results/*.json becomes a section of the page: comparisons of rewards and studies as their own tables,
every other file as the tables it holds. Each section names the command, seeds, versions and machine its figures come
from, or says that they were not recorded. The README's picture, table and findings stand between `<!-- NAME:begin -->`
and `<!-- NAME:end -->`. Nothing in either is written by hand. `--check` writes nothing and fails where page or README are
not what the figures say. Left out: what the figures mean (README.md, docs/evaluation.md).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.compare_report import TITLES, number, render_markdown
from benchmarks.declared import render_declared
from benchmarks.plain_tables import facts, machine, tables
from benchmarks.rates import render as render_rates
from benchmarks.readme import readme_parts, wrapped
from benchmarks.reliability_figures import render_reliability
from benchmarks.study_figures import render_study

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Results

Made by `make results` from the figures in benchmarks/results/, each measured by the command named in its section.
Intervals are 95%. No figure here can be compared with the paper's, whose tables could not be had.
"""
ORDER = ("declared", "compare", "study", "reliability", "rates", "repeats", "step", "sampler", "kernel", "sandbox")
TITLE = {"step-cpu": "One GRPO step beside TRL's", "kernels_cpu": "Kernels on a CPU", "scale_step": "A 1.5 B step on a CPU",
         "compare-flat": "Groups of equal rewards counted, dropped, resampled, math demo",
         "repeats": "Ways to make a reward's runs, simulated", "scaling": "Larger models, by arithmetic", "kernel_resources": "Kernels as compiled"}  # fmt: skip
MADE_BY = {"step-cpu": "step", "kernels_cpu": "kernels"}  # files not named after their benchmark


def section(path: Path) -> str:
    """A file's section, with its own `note` on what the figures are not of, where it has one."""
    record = json.loads(path.read_text())
    return "\n\n".join([told_by_kind(path, record), *([record["note"]] if "note" in record else [])])


def told_by_kind(path: Path, record: dict[str, Any]) -> str:
    if "comparisons" in record and "arms" in record:
        return compare_section(path, record)
    if "cells" in record and "contrasts" in record:
        return study_section(record)
    if "reliability" in record:
        return reliability_section(path, record)
    if "worlds" in record:
        return f"## What the reward buys at equal cost\n\n{render_declared(record)}\n\n`{record['command']}`"
    if "chosen" in record:
        return rates_section(record)
    title = TITLE.get(path.stem) or path.stem.replace("_", " ").replace("-", " ").capitalize()
    return f"## {title}\n\n" + "\n\n".join([*facts(record, MADE_BY.get(path.stem, path.stem)), *tables(record)])


def study_section(record: dict[str, Any]) -> str:
    made = (
        f"`{record['command']}`, training seeds {', '.join(map(str, record['seeds']))}, {record['steps']} updates a run, "
        f"{record['problems']} fresh problems, evaluation seed {record['eval_seed']}. {machine(record['versions'])}"
    )
    return f"## When the mechanism matters\n\n{render_study(record)}\n\n{made}"


def reliability_section(path: Path, record: dict[str, Any]) -> str:
    made = f"`{record['command']}`, config {record['config']}. {machine(record['versions'])}"
    shown = f"{picture(path, 'success by trace and by problem')}{render_reliability(record)}"
    return f"## How reliable an executor run is, {record['world']} demo\n\n{shown}\n\n{made}"


def rates_section(record: dict[str, Any]) -> str:
    made = (
        f"`{record['command']}`, config {record['config']}, training seeds {', '.join(map(str, record['seeds']))}, "
        f"{record['updates']} updates a run: accuracy of the last quarter's rollouts; bold is chosen. {machine(record['versions'])}"
    )
    return f"## Learning rates, {record['world']} demo\n\n{render_rates(record)}\n\n{made}"


def picture(path: Path, what: str) -> str:
    """The image beside a file of figures, where there is one."""
    image = path.with_suffix(".png")
    return f"![{what}](../{image.relative_to(ROOT).as_posix()})\n\n" if image.exists() else ""


def compare_section(path: Path, record: dict[str, Any]) -> str:
    made = (
        f"`{record['command']}`, config {record['config']}, training seeds "
        f"{', '.join(map(str, record['seeds']))}, evaluation seed "
        f"{record['eval_seed']}. {machine(record['versions'])}"
    )
    words = [
        *record["overrides"],
        *(["--optim.lr", f"{rate:g}"] if (rate := record.get("rates", {}).get("tracelift")) else []),
    ]
    if record.get("asset_seed"):
        words += ["--planner.path", record["planner"]]
    reproduce = (
        f"One row again: `python train.py {record['config']} --run.seed 0 --data.seed 1000 "
        "--data.eval_problems 0 --run.threads 1 "
        f"--run.out runs/row{''.join(' ' + w for w in words)}`, "
        f"then `python eval.py --run runs/row --run.seed "
        f"{record['eval_seed']} --eval.benchmarks demo:{record['world']} --eval.limit {record['problems']} "
        f"--eval.samples {record['samples']} --eval.k 1,{record['samples']}`. {expected(record)}"
    )
    about = record.get("about", f"{record['world']} demo")
    title = TITLE.get(path.stem, f"The reward compared, {about}")
    return f"## {title}\n\n{picture(path, 'learning curves')}{render_markdown(record)}\n\n{made}\n\n{reproduce}"


def expected(record: dict[str, Any]) -> str:
    """What that row should show: seed 0's own figures, of which the table holds the mean with those of the other seeds."""
    arm = next((a for a in ("tracelift", *record["arms"]) if a in record["arms"]), None)
    if arm is None or 0 not in record["seeds"]:
        return ""
    at, greedy = record["seeds"].index(0), record["arms"][arm]["greedy"]
    told = [
        f"{name} {number(greedy[key]['seeds'][at], key)}"
        for key, name in (
            ("accuracy", "accuracy"),
            ("trace_validity", "trace validity"),
            ("wrong_reason_rate", "wrong-reason rate"),
        )
        if key in greedy and greedy[key]["seeds"][at] is not None
    ]
    return f"Seed 0 of {TITLES[arm]} gave, greedy: {', '.join(told)}; every seed's figures are in the JSON."


def filled(text: str, parts: dict[str, str]) -> str:
    """`text` with each part between its markers. Raises ValueError where a marker is missing."""
    for name, part in parts.items():
        pattern = rf"(<!-- {name}:begin -->\n).*?(\n<!-- {name}:end -->)"
        text, found = re.subn(pattern, lambda m, part=part: m[1] + part + m[2], text, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"README.md: expected one <!-- {name}:begin --> with its end, found {found}")
    return text


def page(folder: Path) -> str:
    """The whole text: comparisons and studies first, then the other measurements."""

    def place(path: Path) -> tuple[int, str, str]:
        rank = next((i for i, word in enumerate(ORDER) if path.stem.startswith(word)), len(ORDER))
        return rank, "" if path.stem == "compare-math" else path.stem, path.stem

    text = HEAD + "\n" + "\n\n".join(section(p) for p in sorted(folder.glob("*.json"), key=place)) + "\n"
    return "\n".join(wrapped(line) if line[:1].isalpha() and "`" not in line else line for line in text.split("\n"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="only say whether docs/results.md and README.md are up to date"
    )
    args = parser.parse_args()
    folder, readme = ROOT / "benchmarks" / "results", ROOT / "README.md"
    wanted = {ROOT / "docs" / "results.md": page(folder), readme: filled(readme.read_text(), readme_parts(folder))}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in wanted:
        if not args.check:
            path.write_text(wanted[path])
        print(
            f"{path}: "
            + (
                "up to date"
                if path not in stale
                else "not what benchmarks/results/ says; run make results"
                if args.check
                else "written"
            )
        )
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
