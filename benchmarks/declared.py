"""The comparison that docs/evaluation.md declares: TraceLift and gated against execution only at equal cost, two sets of models.

    python -m benchmarks.compare --world WORLD --arms exec_only,tracelift,gated --equal positions,seconds --rates [--asset-seed 1]
    python -m benchmarks.declared

reads benchmarks/results/compare-WORLD.json and compare-WORLD-1.json, whichever exist with arms at equal cost. Runs started from
models of one asset seed are a block: p deals runs out within blocks, the interval is Welch's over blocks, widened by the
evaluation's problems, and speaks of other training seeds with these models. Holm over the eight tests of a world: two arms, two
budgets, sampled accuracy and sampled wrong-reason rate. Figures go to benchmarks/results/declared.json. Left out: whatever was not
declared (the comparisons' own tables hold it).
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.budgets import BUDGETS
from benchmarks.compare_report import COLUMNS, EQUAL, TITLES, interval, title
from benchmarks.jobs import ROOT, WORLDS
from tracelift.files import write_text
from tracelift.stats import permutation_blocks, welch_blocks
from tracelift.stats.figures import adjust, deviation

ARMS, FIGURES, ASSET_SEEDS = ("tracelift", "gated"), ("accuracy", "wrong_reason_rate"), (0, 1)
NAMES = dict(COLUMNS)


def endpoints(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The declared tests of one world over its comparisons, one an asset seed: difference, interval, p and p_holm of each."""
    found = []
    for budget in BUDGETS:
        for arm in ARMS:
            for figure in FIGURES:
                blocks = [
                    tuple(r["arms"][name]["sampled"][figure]["seeds"] for name in ("exec_only", f"{arm}@{budget}"))
                    for r in records
                ]
                alike = [
                    c["se_problems"] for r in records for c in r["equal_cost"]
                    if (c["budget"], c["arm"], c["figure"]) == (budget, arm, figure)
                ]  # fmt: skip
                w = welch_blocks(blocks, math.fsum(se**2 for se in alike) / len(records) ** 2)
                found.append({
                    "family": "all", "budget": budget, "arm": arm, "figure": figure,
                    "mean": [mean([v for block in blocks for v in block[side]]) for side in (0, 1)],
                    "by_asset_seed": [mean(b) - mean(a) for a, b in blocks],
                    "difference": w.difference, "low": w.low, "high": w.high, "least_detectable": w.least_detectable,
                    "p": permutation_blocks(blocks),
                })  # fmt: skip
    adjust(found, "family")
    return found


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every arm over all its runs: the two figures, mean and deviation; updates, executor positions and CPU seconds, mean."""
    names = [name for name in records[0]["arms"] if all(name in r["arms"] for r in records)]
    out = []
    for name in names:
        runs = [r["arms"][name] for r in records]
        row: dict[str, Any] = {"arm": name, "updates": mean([u for r in runs for u in r["updates"]])}
        for figure in FIGURES:
            values = [v for r in runs for v in r["sampled"][figure]["seeds"]]
            row[figure] = {"mean": mean(values), "sd": deviation(values)}
        row |= {budget: mean([c[key] for r in runs for c in r["costs"]]) for budget, key in BUDGETS.items()}
        out.append(row)
    return out


def render_declared(record: dict[str, Any]) -> str:
    """One table a world: arm, budget and figure, the difference with its interval, p and Holm's."""
    parts = []
    for world, f in record["worlds"].items():
        seeds = " and ".join(map(str, f["asset_seeds"]))
        parts.append(
            f"**{world} demo**, asset seed{'s' if len(f['asset_seeds']) > 1 else ''} {seeds}, training seeds "
            f"{', '.join(map(str, f['seeds']))} with each, sampled traces of {f['problems']} fresh problems; differences in points"
        )
        lines = ["| reward | at equal | figure | execution only | reward | difference | by asset seed | p | p, Holm |",
                 "|" + "---|" * 9]  # fmt: skip
        for c in f["endpoints"]:
            cells = [TITLES[c["arm"]], EQUAL[c["budget"]], NAMES[c["figure"]], *(f"{m:.3f}" for m in c["mean"]),
                     interval(c, 100, 1), ", ".join(f"{100 * d:+.1f}" for d in c["by_asset_seed"]),
                     f"{c['p']:.2g}", f"{c['p_holm']:.2g}"]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
        table = ["| runs | updates | executor positions | CPU seconds |", "|---|---|---|---|"]
        for c in f["rows"]:
            table.append(f"| {title(c['arm'])} | {c['updates']:.0f} | {c['positions']:,.0f} | {c['seconds']:,.0f} |")
        parts.append("\n".join(table))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.declared", description=(__doc__ or "").split("\n")[0])
    folder = ROOT / "benchmarks" / "results"
    parser.add_argument("--results", type=Path, default=folder / "declared.json", help="default: %(default)s")
    args = parser.parse_args()
    record: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.declared", *sys.argv[1:]]),
        "worlds": {},
    }
    for world in WORLDS:
        made = {}
        for seed in ASSET_SEEDS:
            path = folder / f"compare-{world}{f'-{seed}' if seed else ''}.json"
            found = json.loads(path.read_text()) if path.exists() else {}
            if found.get("equal_cost"):
                made[seed] = found
        if not made:
            continue
        records = list(made.values())
        if len({(tuple(r["seeds"]), r["problems"], json.dumps(r["rates"])) for r in records}) > 1:
            raise SystemExit(f"{world}: its comparisons differ in seeds, problems or learning rates")
        record["versions"] = records[0]["versions"]
        record["worlds"][world] = {
            "asset_seeds": list(made), "seeds": records[0]["seeds"], "problems": records[0]["problems"],
            "endpoints": endpoints(records),
            "least_p": 2 / math.comb(2 * len(records[0]["seeds"]), len(records[0]["seeds"])) ** len(records), "rows": rows(records),
            "start": {f: mean([r["start"]["sampled"][f] for r in records]) for f in FIGURES},
        }  # fmt: skip
    if not record["worlds"]:
        raise SystemExit(f"{folder}: no comparison with --equal; run benchmarks.compare first")
    write_text(args.results, json.dumps(record, indent=1) + "\n")
    print(f"{render_declared(record)}\n\nfigures: {args.results}")


if __name__ == "__main__":
    main()
