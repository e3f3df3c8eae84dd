"""The statistics that results are reported with, exact where an exact test exists, on the standard library alone.

Proportions: Wilson and Clopper-Pearson intervals. Two systems on the same problems: McNemar's exact test with Bonett and
Price's interval; of means over samples a sign-flip test with a bootstrap interval, both over problems (never samples: the
samples of one problem are not independent). Two sets of training runs: an exact permutation test and Welch's interval,
the run being the unit. Several tests: Holm. Code: the unbiased pass@k of Chen et al. (2021).

Left out on purpose: anything that needs scipy at run time; what a set of problems could show (tracelift/evaluation/power.py).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion: (low, high) within [0, 1]; (0, 1) where n = 0."""
    _check_counts(successes, n)
    check_open_unit("confidence", confidence)
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else max(0.0, (middle - half) / scale)
    high = 1.0 if successes == n else min(1.0, (middle + half) / scale)
    return low, high


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact (conservative) interval for a proportion: (low, high); (0, 1) where n = 0."""
    _check_counts(successes, n)
    check_open_unit("confidence", confidence)
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else bisect(lambda p: 1 - binomial_cdf(successes - 1, n, p) < tail)
    high = 1.0 if successes == n else bisect(lambda p: binomial_cdf(successes, n, p) > tail)
    return low, high


def bisect(below: Callable[[float], bool], steps: int = 60) -> float:
    """The p in [0, 1] up to which `below(p)` holds, to the last bit or so."""
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X ≤ k) for X ~ Bin(n, p), summed from the smaller tail in logs so that no term over- or underflows."""
    if k < 0:
        return 0.0
    if k >= n or p <= 0.0:
        return 1.0
    if p >= 1.0:
        return 0.0
    if k < n * p:
        return min(1.0, binomial_mass(range(k + 1), n, p))
    return max(0.0, 1.0 - binomial_mass(range(k + 1, n + 1), n, p))


def binomial_mass(counts: Sequence[int], n: int, p: float) -> float:
    """P(X in counts) for X ~ Bin(n, p), 0 < p < 1."""
    log_p, log_q, ways = math.log(p), math.log1p(-p), math.lgamma(n + 1)
    return math.fsum(
        math.exp(ways - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * log_p + (n - i) * log_q) for i in counts
    )


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p that A and B succeed equally often, from the problems that only one of them solves.

    Under the null each discordant problem is a fair coin. Exact in integers, however many there are.
    """
    for name, count in (("only_a", only_a), ("only_b", only_b)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"{name} is {count!r}, expected a whole number of at least 0")
    n = only_a + only_b
    term = tail = 1  # C(n, 0), and the sum up to the smaller count
    for i in range(min(only_a, only_b)):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, float(Fraction(2 * tail, 2**n)))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased pass@k from n samples of which c pass: 1 − C(n−c, k)/C(n, k) (Chen et al., 2021)."""
    _check_counts(c, n)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise ValueError(f"k is {k!r}, expected 1 to {n}, the number of samples")
    if n - c < k:
        return 1.0
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def paired_interval(gained: int, lost: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two proportions on the same n problems, from the problems that one side alone solves.

    Bonett and Price's adjusted Wald interval (2012): Wald's with two imaginary problems, one gained and one lost, so that
    no interval is of zero width. It covers at least 94% from 5 problems up (counted out in the tests). It holds zero
    where McNemar's exact test does not reject, which for fewer than six problems is always.
    """
    _check_counts(gained + lost, n)
    check_open_unit("confidence", confidence)
    m, total = (gained - lost) / (n + 2), n + 2
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(((gained + lost + 2) / total - m * m) / total)
    return _agreed(max(-1.0, m - half), min(1.0, m + half), mcnemar_exact(lost, gained), confidence)


def _agreed(low: float, high: float, p: float, confidence: float) -> tuple[float, float]:
    """The interval, widened to zero where the exact test cannot tell the difference from zero."""
    return (min(low, 0.0), max(high, 0.0)) if p > 1 - confidence else (low, high)


def sign_flip(differences: Sequence[float], draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p that paired differences are as likely to have the other sign: Fisher's randomisation test of their sum.

    Exact over all signs of up to 12 differences that are not zero (n of them cannot show less than 2/2^n); beyond, from
    `draws` keyed by `seed`, the observed signs counted as one more, so that p is never 0 and never too small on average.
    """
    moved = [float(d) for d in differences if d]
    seen = abs(math.fsum(moved)) - 1e-12 * (1 + math.fsum(map(abs, moved)))  # sums in another order stay ties
    if len(moved) <= 12:
        sums = [0.0]
        for d in moved:
            sums = [s + x for s in sums for x in (d, -d)]
        return sum(abs(s) >= seen for s in sums) / len(sums)
    rng = random.Random(f"sign flips {seed}")
    flipped = (sum(d if rng.random() < 0.5 else -d for d in moved) for _ in range(draws))
    return (1 + sum(abs(s) >= seen for s in flipped)) / (1 + draws)


@dataclass(frozen=True)
class Paired:
    """`difference` is mean(b) − mean(a) over problems, `low`/`high` its bootstrap interval, `p` by sign flips."""

    difference: float
    low: float
    high: float
    p: float
    problems: int


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    problems: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Paired:
    """Interval and p of the mean difference b − a of two systems scored from 0 to 1 on the same items, over problems.

    a, b: scores of the same items in the same order. problems: the problem of each item (default: each its own); all
    samples of a problem are averaged first and resampled together. The percentile interval resamples the problems and two
    imaginary ones, a whole point gained and a whole one lost: as in `paired_interval`, a few problems that agree are not
    certainty. It holds zero where the sign-flip test does not reject. Deterministic in `seed`.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"a holds {len(a)} scores and b {len(b)}: expected the same number, at least 1")
    if problems is not None and len(problems) != len(a):
        raise ValueError(f"problems names {len(problems)} items, but there are {len(a)} scores")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, expected at least 1")
    check_open_unit("confidence", confidence)
    by_problem: dict[Hashable, list[float]] = {}
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        by_problem.setdefault(i if problems is None else problems[i], []).append(float(y) - float(x))
    means = [math.fsum(d) / len(d) for d in by_problem.values()]
    rng, pool = random.Random(seed), [*means, 1.0, -1.0]
    draws = sorted(math.fsum(rng.choices(pool, k=len(pool))) / len(pool) for _ in range(resamples))
    tail, p = (1 - confidence) / 2, sign_flip(means, resamples, seed)
    low, high = _agreed(_quantile(draws, tail), _quantile(draws, 1 - tail), p, confidence)
    return Paired(math.fsum(means) / len(means), low, high, p, len(means))


def permutation_exact(a: Sequence[float], b: Sequence[float]) -> float:
    """Exact two-sided p that two sets of independent runs come from one distribution, by the difference of means.

    All C(n + m, n) ways to deal the runs out are counted, so with 5 against 5 the least p is 2/252 = 0.008. Raises
    ValueError on an empty side and past a million ways.
    """
    n, pool = len(a), [*a, *b]
    if not a or not b or (ways := math.comb(len(pool), n)) > 10**6:
        raise ValueError(
            f"{len(a)} against {len(b)} runs: expected at least one on each side, and a million ways at most"
        )
    total, near = math.fsum(pool), 1e-12 * (1 + sum(map(abs, pool)))

    def gap(side: Sequence[float]) -> float:
        mine = math.fsum(side)
        return abs(mine / n - (total - mine) / len(b))

    observed = gap(a) - near  # sums in another order must not make a tie look smaller
    return sum(gap(side) >= observed for side in itertools.combinations(pool, n)) / ways


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


def welch(a: Sequence[float], b: Sequence[float], also: float = 0.0, confidence: float = 0.95) -> Welch:
    """Welch's comparison of two sets of runs, whose spreads need not be equal.

    also: a further variance of the difference, such as that of the problems on which both sides were measured: the
    interval then covers other problems too. It widens the interval and lends it no degrees of freedom, of which it has
    many: by Satterthwaite's formula a few runs could look surer for it. Raises ValueError on fewer than two runs a side.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{len(a)} against {len(b)} runs: a spread needs at least two on each side")
    check_open_unit("confidence", confidence)
    difference = math.fsum(b) / len(b) - math.fsum(a) / len(a)
    parts = [(variance(side) / len(side), len(side) - 1) for side in (a, b)]
    runs = math.fsum(v for v, _ in parts)
    if runs + also == 0:
        return Welch(difference, difference, difference, float(difference == 0), math.inf, 0.0)
    df = runs**2 / math.fsum(v * v / f for v, f in parts) if runs else math.inf
    error = math.sqrt(runs + also)
    half = t_quantile((1 + confidence) / 2, df) * error
    p = min(1.0, 2 * (1 - t_cdf(abs(difference) / error, df)))
    visible = half + t_quantile(0.8, df) * error
    return Welch(difference, difference - half, difference + half, p, df, visible)


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


def _quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of sorted values, interpolated linearly between ranks."""
    position = q * (len(ordered) - 1)
    i = min(int(position), len(ordered) - 2) if len(ordered) > 1 else 0
    if len(ordered) == 1:
        return ordered[0]
    return ordered[i] + (position - i) * (ordered[i + 1] - ordered[i])


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


def _check_counts(successes: int, n: int) -> None:
    for name, count in (("successes", successes), ("n", n)):
        if isinstance(count, bool) or not isinstance(count, int):
            raise ValueError(f"{name} is {count!r}, expected a whole number")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: expected 0 to {n}")


def check_open_unit(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}, expected a share between 0 and 1")
