"""A training run as it stood when it had cost as much as another: its newest checkpoint within a budget.

At a constant learning rate a checkpoint of round n is what a run of n rounds ends with, so one long run answers for every
length. Where a budget falls between two checkpoints the earlier one stands, and what it cost is told.

Left out: how the budget is chosen (benchmarks/compare.py: what execution-only reward spent), runs whose learning rate falls.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from tracelift.files import read_log, write_text

BUDGETS = {"positions": "executor_computed_positions", "seconds": "cpu_s"}  # what is equal: the figure of timings.jsonl
LOGS = ("metrics.jsonl", "timings.jsonl")


@dataclass(frozen=True)
class Standing:
    """A run after `rounds` rounds, for which it had `spent` so much; its planner is in `model`."""

    rounds: int
    spent: float
    model: Path


def spent(run: Path, budget: str) -> list[float]:
    """What the run had cost after each round. Raises ValueError where its log does not say so of every round."""
    name = BUDGETS[budget]
    costs = [r.get(name) for r in read_log(run / "timings.jsonl")]
    if not costs or None in costs:
        raise ValueError(f"{run}: timings.jsonl has no {name} of every round; it was made by an older version")
    return list(itertools.accumulate(c for c in costs if c is not None))


def standing(run: Path, budget: str, limit: float) -> Standing:
    """The newest checkpoint whose rounds cost at most `limit`. Raises ValueError where none does, or where the learning rate
    was not constant, so that a checkpoint is no shorter run."""
    config = json.loads((run / "config.json").read_text())["config"]
    if config["optim"]["schedule"] != "constant":
        raise ValueError(
            f"{run}: optim.schedule = {config['optim']['schedule']!r}: its checkpoints are no shorter runs"
        )
    costs = spent(run, budget)
    kept = {int(p.name.partition("-")[2]): p / "model" for p in (run / "checkpoints").glob("step-*")}
    kept[len(costs)] = run / "final"
    within = [n for n in kept if n <= len(costs) and costs[n - 1] <= limit]
    if not within:
        raise ValueError(
            f"{run}: no checkpoint within {limit:g} {budget}; the first is of round {min(kept)}: save oftener"
        )
    return Standing(max(within), costs[max(within) - 1], kept[max(within)])


def as_it_stood(run: Path, there: Path, budget: str, limit: float) -> Standing:
    """Make `there` the folder of the run at that moment: its logs up to then. The planner stays where it is."""
    found = standing(run, budget, limit)
    there.mkdir(parents=True, exist_ok=True)
    for name in LOGS:
        rows = read_log(run / name)[: found.rounds]
        write_text(there / name, "".join(json.dumps(row) + "\n" for row in rows))
    return found
