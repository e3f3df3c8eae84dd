"""The README's picture, table and findings: what the declared comparison found (benchmarks/declared.py), in words that follow.

A difference is "more" or "less" where its Holm-adjusted p is below 0.05, "by its interval" where only the interval leaves out
zero; otherwise none is shown. The least p that so many runs can show stands below. Left out: every other figure (docs/results.md).
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.compare_report import EQUAL, TITLES, interval, title
from benchmarks.declared import ARMS

SHOWN = ("exec_only", *(f"{arm}@seconds" for arm in ARMS), *ARMS)  # the table's rows
WORDS = {"accuracy": ("fewer", "more"), "wrong_reason_rate": ("less", "more")}


def readme_parts(folder: Path) -> dict[str, str]:
    """What stands between the README's markers, by name. Worlds that were not compared are left out."""
    worlds = json.loads((folder / "declared.json").read_text())["worlds"]
    about = "; ".join(
        f"{world}: {len(f['seeds'])} training seeds with the models of asset seed{'s' * (len(f['asset_seeds']) > 1)} "
        f"{' and '.join(map(str, f['asset_seeds']))}, {f['problems']:,} fresh problems"
        for world, f in worlds.items()
    )
    head = (
        "Sampled traces, at equal cost: TraceLift, and *gated*, which pays R times the outcome of one run, as they stood when "
        "they had cost what execution only cost in CPU seconds, and after all updates; mean ± sd over runs "
        f"({about})."
    )
    findings = [
        "1. **Right answers**, the reward minus execution only, in points.",
        *told(worlds, "accuracy"),
        "2. **Right for a wrong reason**, share of right answers, the same.",
        *told(worlds, "wrong_reason_rate"),
    ]
    least = "; ".join(f"{world} {min(1, len(f['endpoints']) * f['least_p']):.2g}" for world, f in worlds.items())
    read = (
        "Brackets are 95% intervals over training runs and problems, p is exact over all ways to deal the runs out, adjusted by "
        f"Holm over the eight tests of a demo; so many runs cannot show less than {least}. What was declared before the runs: "
        "[docs/evaluation.md](docs/evaluation.md#the-declared-comparison)."
    )
    more = "All figures, with command, seeds, versions and machine of each: [docs/results.md](docs/results.md)."
    parts = ["## Results", wrapped(head), table(worlds), "\n".join(findings), wrapped(read), wrapped(more)]
    picture = "![learning curves of the math demo](benchmarks/results/compare-math.png)"
    return {"picture": picture, "results": "\n\n".join(parts)}


def table(worlds: dict[str, Any]) -> str:
    lines = [
        "| demo | reward | accuracy | right for a wrong reason | updates | CPU seconds |",
        "|" + "---|" * 6,
    ]
    for world, f in worlds.items():
        lines.append(
            f"| {world} | start | {f['start']['accuracy']:.3f} | {f['start']['wrong_reason_rate']:.3f} | 0 | |"
        )
        rows = {row["arm"]: row for row in f["rows"]}
        for name in (n for n in SHOWN if n in rows):
            row = rows[name]
            cells = [f"{row[k]['mean']:.3f} ± {row[k]['sd']:.3f}" for k in ("accuracy", "wrong_reason_rate")]
            lines.append(
                f"| {world} | {title(name)} | {' | '.join(cells)} | {row['updates']:.0f} | {row['seconds']:,.0f} |"
            )
    return "\n".join(lines)


def told(worlds: dict[str, Any], figure: str) -> list[str]:
    """A line a reward: its difference in each world at each budget."""
    lines = []
    for arm in ARMS:
        by_world = []
        for world, f in worlds.items():
            found = [c for c in f["endpoints"] if (c["arm"], c["figure"]) == (arm, figure)]
            by_world.append(f"{world}: " + "; ".join(f"at equal {EQUAL[c['budget']]} {verdict(c)}" for c in found))
        lines.append(wrapped(f"   - {TITLES[arm]}: " + ". ".join(by_world) + "."))
    return lines


def verdict(c: dict[str, Any]) -> str:
    word = WORDS[c["figure"]][c["difference"] > 0]
    if c["p_holm"] >= 0.05:
        word = f"{word} by its interval" if c["low"] * c["high"] > 0 else "no difference shown"
    return f"{word} ({interval(c, 100, 1)}, p {c['p_holm']:.2g})"


def wrapped(text: str) -> str:
    indent = "     " if text.startswith("   - ") else ""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
