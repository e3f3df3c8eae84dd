"""How many executor runs a reward is worth, by simulation: repeats apart, pooled, added one by one, added where R is high.

    python -m benchmarks.repeats [--groups 20000]

Groups of 8 traces, half of them flawed: a flawed trace has a low R, and every second flaw strikes its success probability,
which is drawn from a Beta distribution whose reliability of one run is given; baselines lie between 0 and 0.8. An estimate is
as good as the correlation of its advantages with those of the true reward. Each way to make the runs is told by its mean runs
a trace, and by the number of pooled runs that is as good:

    apart        one end to end and three repeats, as in the paper
    sequential   two pooled, and one more where they disagree: the mean is biased (docs/decisions.md)
    by group     three pooled where the first runs of a group differ, else one: biased too
    by R         three pooled where R > ½, else one: not biased, for R does not depend on outcomes

Runs of a group have seeds of their own, or share them as in training: then one uniform number is compared with all its
probabilities. Figures go to benchmarks/results/repeats.json. Left out: the planner, the update, and shaped execution rewards
(exec is success).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.jobs import ROOT
from tracelift.files import write_text
from tracelift.rl.grpo import advantages
from tracelift.runs.record import versions

G, MOST, REPEATS = 8, 9, 3
RELIABILITIES = (0.5, 0.65, 0.8)
REWARDS = {  # e2e or exec, success rate, R, baseline
    "tracelift, math": lambda e, s, R, b: 0.5 * e + 0.5 * R * (s - b),
    "tracelift, code": lambda e, s, R, b: e + 0.2 * R * (s - b),
    "graded": lambda e, s, R, b: R * s,
}


class Groups(NamedTuple):
    p: np.ndarray  # (N, G) true success
    R: np.ndarray  # (N, G)
    base: np.ndarray  # (N, 1)
    runs: np.ndarray  # (N, G, MOST) 0 or 1


def draw(n: int, reliability: float, shared: bool, seed: int) -> Groups:
    """Beta(m·s, (1 − m)·s) has one-run reliability 1/(1 + s); a flaw that strikes takes four fifths of the success."""
    rng, s = np.random.default_rng(seed), 1 / reliability - 1
    m = rng.uniform(0.15, 0.95, (n, 1))
    p = rng.beta(m * s, (1 - m) * s, (n, G))
    flawed, strikes = rng.random((2, n, G)) < 0.5
    p = np.where(flawed & strikes, 0.2 * p, p)
    R = np.where(flawed, rng.beta(2, 12, (n, G)), rng.beta(18, 1.5, (n, G)))
    luck = rng.random((n, 1 if shared else G, MOST))
    return Groups(p, R, rng.uniform(0, 0.8, (n, 1)), (luck < p[:, :, None]).astype(float))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def mean_of_first(runs: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The mean of each trace's first `count` runs: (N, G, MOST), (N, G) → (N, G)."""
    return (runs * (np.arange(MOST) < count[:, :, None])).sum(2) / count


def row(name: str, reliability: float, shared: bool, n: int, seed: int = 0) -> dict[str, Any]:
    """The ways to make the runs of one reward, each with its mean runs a trace and the pooled runs that are as good."""
    g = draw(n, reliability, shared, seed)
    reward = REWARDS[name]
    everyone = torch.ones(g.p.shape, dtype=torch.bool)

    def earned(e: np.ndarray, s: np.ndarray) -> np.ndarray:
        return advantages(torch.from_numpy(reward(e, s, g.R, g.base)), everyone).double().numpy()

    true = earned(g.p, g.p)

    def quality(e: np.ndarray, s: np.ndarray) -> float:
        return correlation(earned(e, s), true)

    pooled = [quality(mean, mean) for k in range(1, MOST + 1) for mean in [g.runs[:, :, :k].mean(2)]]
    found: dict[str, Any] = {"reward": name, "reliability": reliability, "seeds": "shared" if shared else "own"}
    disagree = g.runs[:, :, 0] != g.runs[:, :, 1]
    differ = np.broadcast_to(g.runs[:, :, :1].std(1) > 0, g.p.shape)
    ways = {
        "sequential": np.where(disagree, 3, 2),
        "by group": np.where(differ, 3, 1),
        "by R": np.where(g.R > 0.5, 3, 1),
    }
    made = {"apart": (1.0 + REPEATS, quality(g.runs[:, :, 0], g.runs[:, :, 1 : 1 + REPEATS].mean(2)))}
    for way, count in ways.items():
        mean = mean_of_first(g.runs, count)
        made[way] = (float(count.mean()), quality(mean, mean))
    for way, (runs, good) in made.items():
        equal = float(np.interp(good, pooled, range(1, MOST + 1)))
        found[f"{way}: runs"], found[f"{way}: correlation"] = round(runs, 2), round(good, 3)
        found[f"{way}: as good pooled"] = round(equal, 2)
    return found


def main() -> None:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repeats", description=about)
    parser.add_argument("--groups", type=int, default=20_000, help="simulated groups of each row (default 20,000)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "repeats.json")
    args = parser.parse_args()
    settings = [(name, rho, shared) for name in REWARDS for rho in RELIABILITIES for shared in (False, True)]
    rows = [row(*setting, args.groups) for setting in settings]
    record = {
        "command": shlex.join(["python", "-m", "benchmarks.repeats", *sys.argv[1:]]),
        "versions": {**versions(), "numpy": np.__version__},
        "groups": args.groups,
        "rows": rows,
    }
    write_text(args.out, json.dumps(record, indent=1) + "\n")
    for r in rows:
        print(", ".join(f"{k} {v}" for k, v in r.items()))


if __name__ == "__main__":
    main()
