"""How reliable one executor run is: the variance of outcomes between traces against that between runs of one trace.

A problem's table y holds M traces × R runs, 0 or 1. Run k has the same seed for every trace, as in training, so a column may
be lucky as a whole. With a_t the mean of a row, c_k of a column and g of the table, sums of squares and what they come to:

    rows       R·Σ (a_t − g)²           over M − 1              R·trace + rest
    runs       Σ (y − a_t)²             over M(R − 1)           run             chance within a trace
    rest       Σ (y − a_t − c_k + g)²   over (M − 1)(R − 1)     rest            what a shared seed does not take away

    trace = (rows/(M − 1) − rest/((M − 1)(R − 1))) / R      variance of a problem's true success probabilities

Sums are taken over all problems before they are divided. With a seed of its own for every run, rest estimates what runs
estimates, and `trace` is the one-way estimator: variance of the row means less the variance within over R. With shared
seeds rest is the smaller one, and the one-way estimator too small. Reliability is the true variance over the whole:
trace/(trace + run) of two runs that share nothing, trace/(trace + rest) of a group's runs with shared seeds: ICC(2,1) and
ICC(3,1) of Shrout and Fleiss ("Intraclass correlations", Psychological Bulletin 86, 1979). The estimators are the analysis of
variance's, without bias whatever the distribution (Searle, Casella, McCulloch, "Variance Components", 1992, chapters 3
and 4), so they hold for 0/1. K runs by Spearman and Brown (1910).

Left out: tables with holes (a trace with a run that could not be judged is no row), and models of the distribution.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracelift.stats.figures import Figure

Table = Sequence[Sequence[int]]  # of one problem: traces × runs, run k of every trace on the same seed


@dataclass(frozen=True)
class TableSums:
    """What is kept of one problem's table: sums of squares as above, and its mean."""

    traces: int
    runs: int
    mean: float
    of_rows: float
    of_runs: float
    of_rest: float


def table_sums(table: Table) -> TableSums:
    """Raises ValueError on fewer than two traces or two runs, and on rows of unequal length."""
    M, R = len(table), len(table[0]) if table else 0
    if M < 2 or R < 2 or any(len(row) != R for row in table):
        raise ValueError(f"{M} traces of {R} runs: expected at least 2 of at least 2 runs, as many for each")
    rows = [sum(row) / R for row in table]
    columns = [sum(column) / M for column in zip(*table, strict=True)]
    mean = math.fsum(rows) / M
    of_runs = math.fsum((y - a) ** 2 for row, a in zip(table, rows, strict=True) for y in row)
    of_rest = math.fsum(
        (y - a - c + mean) ** 2 for row, a in zip(table, rows, strict=True) for y, c in zip(row, columns, strict=True)
    )
    return TableSums(M, R, mean, R * math.fsum((a - mean) ** 2 for a in rows), of_runs, of_rest)


@dataclass(frozen=True)
class Components:
    """Estimated variances. `problem`: of problems' mean success probabilities; None of one problem. An estimate may be
    negative where the true value is near zero; ratios count it as zero."""

    trace: float
    run: float
    rest: float
    problem: float | None

    @property
    def alone(self) -> float | None:
        """Reliability of one run among traces of a problem whose runs share no seed; None where nothing varies."""
        return ratio_of(self.trace, self.run)

    @property
    def grouped(self) -> float | None:
        """The same where the traces' runs share their seed, as a group's do."""
        return ratio_of(self.trace, self.rest)

    @property
    def overall(self) -> float | None:
        """Reliability of one run among traces of all problems."""
        return None if self.problem is None else ratio_of(max(0.0, self.problem) + max(0.0, self.trace), self.run)


def ratio_of(true: float, chance: float) -> float | None:
    true, chance = max(0.0, true), max(0.0, chance)
    return true / (true + chance) if true + chance > 1e-12 else None


def components(problems: Sequence[TableSums]) -> Components:
    """The variances by the sums of all problems. The problems' own is that of their means less what M traces and R runs put
    into it, exact where all tables have one shape. Raises ValueError on no problem."""
    if not problems:
        raise ValueError("no problem: there is nothing to estimate a variance from")
    run = math.fsum(p.of_runs for p in problems) / sum(p.traces * (p.runs - 1) for p in problems)
    rest = math.fsum(p.of_rest for p in problems) / sum((p.traces - 1) * (p.runs - 1) for p in problems)
    between = sum(p.traces - 1 for p in problems)
    true = sum((p.traces - 1) * p.runs for p in problems) / between  # runs a row, mean by weight
    trace = (math.fsum(p.of_rows for p in problems) / between - rest) / true
    if len(problems) < 2:
        return Components(trace, run, rest, None)
    n = len(problems)
    middle = math.fsum(p.mean for p in problems) / n
    of_means = math.fsum((p.mean - middle) ** 2 for p in problems) / (n - 1)
    # The mean of M traces that share R seeds: (run + (M − 1)·common)/(M·R), common = run − rest.
    chance = (trace / p.traces + (run + (p.traces - 1) * (run - rest)) / (p.traces * p.runs) for p in problems)
    return Components(trace, run, rest, of_means - math.fsum(chance) / n)


def spearman_brown(reliability: float, runs: float) -> float:
    """Reliability of the mean of `runs` runs, from that of one."""
    return runs * reliability / (1 + (runs - 1) * reliability)


def resampled(
    problems: Sequence[TableSums], of: Callable[[Components], float | None], draws: int = 2000, seed: int = 0
) -> Figure:
    """One figure of the components with its 95% interval: percentiles over `draws` samples of as many problems, with
    replacement. n counts problems; None where nothing varies, and no interval where no sample has one."""
    value, rng = of(components(problems)), random.Random(seed)
    found = sorted(v for _ in range(draws) if (v := of(components(rng.choices(problems, k=len(problems))))) is not None)
    ends = (found[int(0.025 * len(found))], found[math.ceil(0.975 * len(found)) - 1]) if found else (None, None)
    return {"value": value, "low": ends[0], "high": ends[1], "n": len(problems)}
