"""Two systems on the same problems: is there a difference, and how large may it be? Interval and p always agree.

Right or wrong on each problem: McNemar's exact test (proportions.py) with Bonett and Price's interval. Means of several
samples a problem: Fisher's randomisation test, which flips the signs of the problems' differences, and the interval that
comes of turning this test round. Problems are what is independent, never the samples of one problem.

Left out: two sets of training runs (runs.py); what a set of problems could show (tracelift/evaluation/figures/power.py).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

from tracelift.stats.proportions import bisect, check_counts, check_open_unit, mcnemar_exact

EXACT = 2**12  # outcomes of the flips up to which all are counted: twelve differences that are all unlike
_STEPS = 14  # of bisection: to a hundredth of a point


def paired_interval(gained: int, lost: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two proportions on the same n problems, from the problems that one side alone solves.

    Bonett and Price's adjusted Wald interval (2012): Wald's with two imaginary problems, one gained and one lost, so that
    no interval is of zero width. It covers at least 94% from 5 problems up (counted out in the tests). It holds zero
    where McNemar's exact test does not reject, which for fewer than six problems is always.
    """
    check_counts(gained + lost, n)
    check_open_unit("confidence", confidence)
    m, total = (gained - lost) / (n + 2), n + 2
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(((gained + lost + 2) / total - m * m) / total)
    low, high = max(-1.0, m - half), min(1.0, m + half)
    unseen = mcnemar_exact(lost, gained) > 1 - confidence
    return (min(low, 0.0), max(high, 0.0)) if unseen else (low, high)


class Flipped(NamedTuple):
    """What random signs may make of some differences: Σ ±d, Σ ±1 with the same signs, and the chance of that."""

    total: float
    signs: int
    chance: float


def flips(differences: Sequence[float], draws: int, seed: int) -> list[Flipped]:
    """Every outcome of flipping the signs where these are few (`EXACT`), equal differences being counted together; else
    `draws` of them, keyed by `seed`. What their chances lack to 1 is due to the signs as observed: a test must count
    them too, or its p would be too small on average."""
    groups = list(Counter(differences).items())
    if math.prod(m + 1 for _, m in groups) > EXACT:
        rng = random.Random(f"sign flips {seed}")
        drawn = [[2 * rng.getrandbits(m).bit_count() - m for _, m in groups] for _ in range(draws)]
        totals = (math.fsum(d * s for (d, _), s in zip(groups, signs, strict=True)) for signs in drawn)
        return [Flipped(t, sum(signs), 1 / (1 + draws)) for t, signs in zip(totals, drawn, strict=True)]
    found = [Flipped(0.0, 0, 1.0)]
    for d, m in groups:
        ways = [(2 * k - m, math.comb(m, k) / 2**m) for k in range(m + 1)]
        found = [Flipped(t + d * s, signs + s, chance * way) for t, signs, chance in found for s, way in ways]
    return found


def _as_far(observed: float, flipped: Sequence[tuple[float, float]], scale: float) -> float:
    """The chance of a sum at least as far from zero as `observed`. flipped: (sum, chance); sums of size `scale` that
    were added up in another order stay ties."""
    seen = abs(observed) - 1e-12 * (1 + scale)
    counted = math.fsum(chance for total, chance in flipped if abs(total) >= seen)
    return min(1.0, counted + 1 - math.fsum(chance for _, chance in flipped))


def sign_flip(differences: Sequence[float], draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p that paired differences are as likely to have the other sign: Fisher's randomisation test of their sum.

    Exact where the differences are few or of few values (`flips`); n of them that are not zero cannot show less than
    2/2^n. Beyond, from `draws` keyed by `seed`, the observed signs counted as one more: never 0.
    """
    moved = [abs(d) for d in differences if d]  # a sign that may be either is no matter, so these are counted together
    flipped = [(f.total, f.chance) for f in flips(moved, draws, seed)]
    return _as_far(math.fsum(differences), flipped, math.fsum(moved))


@dataclass(frozen=True)
class Paired:
    """A mean `difference` over `problems`, its interval from `low` to `high`, and `p` by sign flips."""

    difference: float
    low: float
    high: float
    p: float
    problems: int


def paired_mean(differences: Sequence[float], draws: int = 10_000, confidence: float = 0.95, seed: int = 0) -> Paired:
    """Interval and p of a mean difference of scores from 0 to 1, one difference a problem. Deterministic in `seed`.

    The interval holds the means δ that the sign-flip test of the differences less δ does not reject, so it holds zero
    exactly where p > 1 − confidence. As few or equal differences are not certainty, the test has two imaginary problems
    more, one gained and one lost as in `paired_interval`, each by the mean and the largest difference seen together (a
    whole point at most, and where all are zero). Their weight is |nδ| over that, 1 at most: at δ = 0 the test is the one
    that gives p. Covers at least 94% for whole and quarter points (counted out and simulated in the tests).
    Raises ValueError on none, or on one beyond ±1.
    """
    check_open_unit("confidence", confidence)
    if not differences or draws < 1 or max(map(abs, differences)) > 1 + 1e-9:
        raise ValueError(f"{len(differences)} differences, {draws} draws: expected at least one each, from -1 to 1")
    total, n, alpha = math.fsum(differences), len(differences), 1 - confidence
    seen, p, real = total / n, sign_flip(differences, draws, seed), flips(differences, draws, seed)
    size = min(1.0, abs(seen) + max(map(abs, differences))) or 1.0

    def held(mean: float) -> bool:
        weight = min(1.0, n * abs(mean) / size)
        more, less = weight * (size - mean), weight * (-size - mean)
        pairs = [a + b for a in (more, -more) for b in (less, -less)]
        flipped = [(f.total - mean * f.signs + pair, f.chance / 4) for f in real for pair in pairs]
        return _as_far(total - n * mean + more + less, flipped, n + size) > alpha

    def bound(side: float) -> float:
        """Where the means that are held end, between one that is and one that is not."""
        inside, far = seen, side  # the mean itself always is: the imaginary pair alone is as far off half of the time
        if p > alpha:
            inside = side * max(0.0, side * seen)
        elif side * seen < 0:
            far = 0.0
        if far and held(far):
            return far
        return inside + (far - inside) * bisect(lambda share: held(inside + (far - inside) * share), _STEPS)

    return Paired(seen, bound(-1.0), bound(1.0), p, n)
