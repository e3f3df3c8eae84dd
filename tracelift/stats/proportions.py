"""Shares of problems: Wilson's and Clopper-Pearson's intervals, McNemar's exact test of two shares, the unbiased pass@k.

Exact where an exact test exists, on the standard library alone. Left out: means that are no shares (paired.py, figures.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from statistics import NormalDist


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion: (low, high) within [0, 1]; (0, 1) where n = 0."""
    check_counts(successes, n)
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
    check_counts(successes, n)
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
    check_counts(c, n)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise ValueError(f"k is {k!r}, expected 1 to {n}, the number of samples")
    if n - c < k:
        return 1.0
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def majority_at_k(right: int, wrong: Sequence[int], k: int, silent: int = 0) -> float:
    """maj@k: the chance that the most frequent answer among k of the samples, drawn without replacement, is the right one;
    answers that tie for it are chosen among by lot (self-consistency: Wang et al., 2023).

    right: samples that give the right answer; wrong: how many give each wrong one; silent: samples without an answer, which
    are drawn like the others and vote for nothing. Exact. Raises ValueError where k is not 1 to the number of samples.
    """
    n = right + sum(wrong) + silent
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise ValueError(f"k is {k!r}, expected 1 to {n}, the number of samples")
    won = Fraction(0)
    for votes in range(1, min(right, k) + 1):
        # ways[drawn, tied]: draws of `drawn` other samples, no wrong answer above `votes`, `tied` of them equal to it
        ways = {(d, 0): math.comb(silent, d) for d in range(min(silent, k - votes) + 1)}
        for count in wrong:
            new: dict[tuple[int, int], int] = {}
            for (drawn, tied), number in ways.items():
                for v in range(min(count, votes, k - votes - drawn) + 1):
                    at = drawn + v, tied + (v == votes)
                    new[at] = new.get(at, 0) + number * math.comb(count, v)
            ways = new
        for (drawn, tied), number in ways.items():
            if drawn == k - votes:
                won += Fraction(math.comb(right, votes) * number, 1 + tied)
    return float(won / math.comb(n, k))


def check_counts(successes: int, n: int) -> None:
    for name, count in (("successes", successes), ("n", n)):
        if isinstance(count, bool) or not isinstance(count, int):
            raise ValueError(f"{name} is {count!r}, expected a whole number")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: expected 0 to {n}")


def check_open_unit(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}, expected a share between 0 and 1")
