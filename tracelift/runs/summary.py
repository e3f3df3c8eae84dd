"""summary.txt of a run that has no held-out problems to answer: how its own figures went, from metrics.jsonl; and what any run
of a planner cost, from timings.jsonl.

Left out: the summary of a run with held-out problems, which has intervals and tests (tracelift/rl/report.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracelift.files import read_log, write_text

Records = Sequence[Mapping[str, Any]]


COSTS = {
    "executor_runs": "executor calls",
    "executor_prompt_tokens": "executor prompt tokens",
    "executor_tokens": "executor tokens generated",
    "executor_scored_tokens": "executor tokens scored",
    "executor_computed_positions": "executor positions computed",
    "cpu_s": "CPU seconds",
    "gpu_s": "GPU seconds",
}  # figures of timings.jsonl that add up over rounds


def run_cost(folder: Path) -> dict[str, float | None]:
    """What all rounds of a run took, evaluations apart; None where its log does not say of every round."""
    rounds = read_log(folder / "timings.jsonl")
    known = {name: [v for r in rounds if (v := r.get(name)) is not None] for name in COSTS}
    return {name: round(sum(v), 1) if len(v) == len(rounds) else None for name, v in known.items()}


def cost_line(folder: Path) -> str:
    """The same in words, without what is not known or 0."""
    told = [f"{value:,.0f} {COSTS[name]}" for name, value in run_cost(folder).items() if value]
    return "cost of the training rounds: " + ", ".join(told)


def write_summary(folder: Path, title: str, names: Sequence[str], best: int | None = None) -> str:
    """Write `folder`/summary.txt and return its text: the figures of `names` that were logged, in the first, the best
    and the last round that has any. best: the number of that round; None leaves it out."""
    records = [r for r in read_log(folder / "metrics.jsonl") if any(name in r for name in names)]
    columns = {}
    if records:
        chosen = [("first", records[0]), ("last", records[-1])]
        chosen[1:1] = [("best", r) for r in records if r["step"] == best]
        columns = {f"{label}, round {r['step']}": [r] for label, r in chosen}
    return _write(folder, title, names, columns)


def write_summary_of_parts(folder: Path, title: str, names: Sequence[str]) -> str:
    """The same with means over the first and the last tenth of the rounds, for figures that differ much from round to
    round."""
    records = read_log(folder / "metrics.jsonl")
    size = -(-len(records) // 10)
    columns = {_rounds(part): part for part in (records[:size], records[len(records) - size :]) if part}
    return _write(folder, title, names, columns)


def _rounds(part: Records) -> str:
    first, last = part[0]["step"], part[-1]["step"]
    return f"round {first}" if first == last else f"rounds {first} to {last}"


def _write(folder: Path, title: str, names: Sequence[str], columns: Mapping[str, Records]) -> str:
    lines = [f"{title:<30}" + "".join(f"{label:>22}" for label in columns)]
    for name in names:
        cells = [_mean([v for r in part if isinstance(v := r.get(name), (int, float))]) for part in columns.values()]
        if any(cells):
            label = name.removeprefix("dev/").replace("_", " ")
            lines.append(f"  {label:<28}" + "".join(f"{cell or '-':>22}" for cell in cells))
    text = "\n".join(lines)
    write_text(folder / "summary.txt", text + "\n")
    return text


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.4g}" if values else ""
