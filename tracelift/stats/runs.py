"""Two sets of training runs, the run being the unit: an exact permutation test, and Welch's interval by Student's t.

Several tests: Holm. Left out: two systems on the same problems (paired.py).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from tracelift.stats.proportions import bisect, check_open_unit

Block = tuple[Sequence[float], Sequence[float]]  # two sets of runs that only each other are compared with


def permutation_exact(a: Sequence[float], b: Sequence[float]) -> float:
    """Exact two-sided p that two sets of independent runs come from one distribution, by the difference of means.

    All C(n + m, n) ways to deal the runs out are counted, so with 5 against 5 the least p is 2/252 = 0.008. Raises
    ValueError on an empty side and past a million ways.
    """
    return permutation_blocks([(a, b)])


def permutation_blocks(blocks: Sequence[Block]) -> float:
    """The same where the runs fall into blocks, such as the models they started from: runs are dealt out within each block,
    and the statistic is the mean over blocks of the difference of means. Two blocks of 5 against 5: at least 2/63504."""
    sums, size = [0.0], 1
    for a, b in blocks:
        size *= math.comb(len(a) + len(b), len(a))
        if not a or not b or size > 10**6:
            raise ValueError(
                f"{len(a)} against {len(b)} runs: expected at least one on each side, and a million ways at most"
            )
        pool, total = [*a, *b], math.fsum([*a, *b])
        mine = [math.fsum(side) for side in itertools.combinations(pool, len(a))]
        gaps = [(total - m) / len(b) - m / len(a) for m in mine]
        sums = [s + gap for s in sums for gap in gaps]
    near = 1e-12 * (1 + sum(abs(v) for block in blocks for side in block for v in side))
    # The first way is the observed one; sums in another order must not make a tie look smaller.
    observed = abs(sums[0]) - near
    return sum(abs(s) >= observed for s in sums) / len(sums)


@dataclass(frozen=True)
class Welch:
    """`difference` mean(b) − mean(a) with its t interval and two-sided p; `df` by Satterthwaite; `least_detectable` is
    the least true difference that such data show with 80% power."""

    difference: float
    low: float
    high: float
    p: float
    df: float
    least_detectable: float
    se: float = 0.0


def welch(a: Sequence[float], b: Sequence[float], also: float = 0.0, confidence: float = 0.95) -> Welch:
    """Welch's comparison of two sets of runs, whose spreads need not be equal.

    also: a further variance of the difference, such as that of the problems on which both sides were measured: the
    interval then covers other problems too. It widens the interval and lends it no degrees of freedom, of which it has
    many: by Satterthwaite's formula a few runs could look surer for it. Raises ValueError on fewer than two runs a side.
    """
    return welch_blocks([(a, b)], also, confidence)


def welch_blocks(blocks: Sequence[Block], also: float = 0.0, confidence: float = 0.95) -> Welch:
    """The same for the mean over blocks of mean(b) − mean(a): it speaks of other runs in these blocks, not of other blocks."""
    for a, b in blocks:
        if min(len(a), len(b)) < 2:
            raise ValueError(f"{len(a)} against {len(b)} runs: a spread needs at least two on each side")
    check_open_unit("confidence", confidence)
    n = len(blocks)
    difference = math.fsum(math.fsum(b) / len(b) - math.fsum(a) / len(a) for a, b in blocks) / n
    parts = [(variance(side) / len(side) / n**2, len(side) - 1) for block in blocks for side in block]
    runs = math.fsum(v for v, _ in parts)
    if runs + also == 0:
        return Welch(difference, difference, difference, float(difference == 0), math.inf, 0.0)
    df = runs**2 / math.fsum(v * v / f for v, f in parts) if runs else math.inf
    error = math.sqrt(runs + also)
    half = t_quantile((1 + confidence) / 2, df) * error
    p = min(1.0, 2 * (1 - t_cdf(abs(difference) / error, df)))
    visible = half + t_quantile(0.8, df) * error
    return Welch(difference, difference - half, difference + half, p, df, visible, error)


def variance(values: Sequence[float]) -> float:
    m = math.fsum(values) / len(values)
    return math.fsum((v - m) ** 2 for v in values) / (len(values) - 1)


def t_cdf(t: float, df: float) -> float:
    """P(T ≤ t) of Student's t, through the regularised incomplete beta function at df/(df + t²)."""
    if math.isinf(df):
        return NormalDist().cdf(t)
    tail = _beta_share(df / (df + t * t), df / 2, 0.5) / 2
    return 1 - tail if t > 0 else tail


def t_quantile(q: float, df: float) -> float:
    """The t with P(T ≤ t) = q, for 1/2 ≤ q < 1."""
    high = 1.0
    while t_cdf(high, df) < q:
        high *= 2
    return high * bisect(lambda share: t_cdf(share * high, df) < q)


def _beta_share(x: float, a: float, b: float) -> float:
    """I_x(a, b) by its continued fraction (Lentz's method; Abramowitz and Stegun 26.5.8)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, its mirror image converges fast
        return 1 - _beta_share(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d, f = 1.0, 0.0, 1.0
    for i in range(1000):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / (1 + term * d)
        c = 1 + term / c
        f *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * (f - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given: reject those ≤ α to bound the family-wise error by α."""
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"p-value {p} is not in [0, 1]")
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted
