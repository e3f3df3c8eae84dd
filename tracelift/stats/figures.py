"""Figures as every report gives them: a value with its 95% interval and what it is over. All intervals are decided here.

    ratio       hits over sizes of groups: Wilson's for single runs, else ± 1.96 standard errors over the groups
    average     a mean of one value a problem; between bounds as a share of the way from one to the other
    difference  two systems on the same problems, with p: McNemar's exact test, or sign flips of the means
    adjust      several such p: Holm's, within families

No interval leaves the range of its figure, and no spread is not certainty: none is of zero width. `se` is the standard
error, the spread over what is independent by the root of its number; where there is no spread it is 0, and the interval is
what to read.
Left out: how the values come about; the variance between training seeds (runs.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

from tracelift.stats.paired import paired_interval, paired_mean
from tracelift.stats.proportions import mcnemar_exact, wilson
from tracelift.stats.runs import holm, variance

Figure = dict[str, Any]
NOTHING: Figure = {"value": None, "low": None, "high": None, "n": 0, "se": None}  # a figure of nothing
FEW = 10  # problems: too few for a spread over them to be trusted alone
SHARE = (0.0, 1.0)
_Z = NormalDist().inv_cdf(0.975)


def ratio(hits: Sequence[float], sizes: Sequence[float]) -> Figure:
    """Hits of all groups over their sizes together, ± 1.96 standard errors over the groups, which are what is independent:
    the ratio estimator, linearised (Cochran, 1977, 6.3). Where each group is one run that hits or not: Wilson's interval.

    Groups that are few, or all alike, show less spread than there is: then it is at least Wilson's interval over groups.
    """
    n = len(sizes)
    if not n:
        return NOTHING.copy()
    value, size = math.fsum(hits) / math.fsum(sizes), math.fsum(sizes) / n
    whole = value * n  # of whole groups that hit: the next smaller number below, the next larger one above
    floor = wilson(math.floor(whole + 1e-9), n)[0], wilson(math.ceil(whole - 1e-9), n)[1]
    if all(s == 1 for s in sizes) and set(hits) <= {0, 1}:
        return {"value": value, "low": floor[0], "high": floor[1], "n": n, "se": math.sqrt(value * (1 - value) / n)}
    error = deviation([(h - value * s) / size for h, s in zip(hits, sizes, strict=True)]) / math.sqrt(n)
    half = _Z * error
    low, high = max(0.0, value - half), min(1.0, value + half)
    if n < FEW or half < 1e-9:
        low, high = min(low, floor[0]), max(high, floor[1])
    return {"value": value, "low": low, "high": high, "n": n, "se": error}


def average(values: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf)) -> Figure:
    """A mean over the values, one a problem. bounds: the least and the greatest value there can be.

    Between two bounds the values are shares of the way, and so is the interval (`ratio`). Else ± 1.96 standard errors,
    cut at a bound; no interval where there is no spread to tell it by. Values that break the bounds have none.
    """
    low, high = bounds
    if not values:
        return NOTHING.copy()
    if not all(low <= v <= high for v in values):
        return average(values)
    if math.isfinite(high - low):
        found, span = ratio([(v - low) / (high - low) for v in values], [1] * len(values)), high - low
        ends = {key: found[key] * span + low for key in ("value", "low", "high")}
        return ends | {"n": len(values), "se": found["se"] * span}
    m = math.fsum(values) / len(values)
    error = deviation(values) / math.sqrt(len(values))
    half = _Z * error
    cut = (max(low, m - half), min(high, m + half)) if half > 1e-9 * abs(m) else (None, None)
    return {"value": m, "low": cut[0], "high": cut[1], "n": len(values), "se": error}


def difference(a: Sequence[float], b: Sequence[float], draws: int = 10_000) -> Figure:
    """b − a of two systems scored from 0 to 1 on the same problems, one score a problem each: n, difference, low, high, se,
    test, p, and where all scores are 0 or 1 the problems gained and lost. The interval holds zero where p > 0.05.

    draws: random sign flips, where not all are counted. Raises ValueError on no problem or unequal numbers of them.
    """
    pairs = list(zip(a, b, strict=True))
    error = deviation([y - x for x, y in pairs]) / math.sqrt(len(pairs)) if pairs else 0.0
    if {*a, *b} <= {0, 1} and pairs:
        lost, gained, n = sum(x > y for x, y in pairs), sum(y > x for x, y in pairs), len(pairs)
        low, high = paired_interval(gained, lost, n)
        figure = {"n": n, "difference": (gained - lost) / n, "low": low, "high": high, "se": error}
        return figure | {"test": "McNemar exact"} | {"p": mcnemar_exact(lost, gained), "gained": gained, "lost": lost}
    found = paired_mean([y - x for x, y in pairs], draws)
    figure = {"n": found.problems, "difference": found.difference, "low": found.low, "high": found.high, "se": error}
    return figure | {"test": "sign flips over problems", "p": found.p}


def adjust(comparisons: Sequence[Figure], *family: str) -> None:
    """Give each comparison `p_holm`: its p, Holm-adjusted among those that are alike in the keys `family`."""
    families: dict[tuple[Any, ...], list[Figure]] = {}
    for c in comparisons:
        families.setdefault(tuple(c[key] for key in family), []).append(c)
    for members in families.values():
        for c, p in zip(members, holm([c["p"] for c in members]), strict=True):
            c["p_holm"] = p


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for fewer than two values."""
    return math.sqrt(variance(values)) if len(values) > 1 else 0.0
