"""Planning: the least true difference between two systems that a set of problems would show.

Always by the power of the very test that is reported, so that what is called detectable is. With few problems that test
may be unable to reject whatever happens; then nothing is detectable, and the answer is None, never a number.
Left out: training runs, whose least detectable difference Welch's comparison gives (tracelift/stats/runs.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

from tracelift.stats.proportions import binomial_cdf, binomial_mass, bisect, check_open_unit
from tracelift.stats.runs import t_quantile, variance

EXACT = 100  # discordant problems expected, up to which power is summed out
STEPS = 17  # of bisection: to a thousandth of a point


def mcnemar_power(problems: int, discordance: float, difference: float, confidence: float = 0.95) -> float:
    """The chance that McNemar's exact test finds a true difference, where a share `discordance` of the problems is solved
    by exactly one side. 0 < |difference| ≤ discordance.

    Exact, by summing over the number of discordant problems, up to 100 of them expected; beyond, the normal approximation
    (Miettinen, 1968) with a continuity correction, which is right there to a point of power.
    """
    mean, alpha = problems * discordance, 1 - confidence
    if mean > EXACT:
        seen = (abs(difference) * problems - 1) / math.sqrt(problems)  # the exact test is cautious by about one problem
        beyond = seen - NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt(discordance)
        return NormalDist().cdf(beyond / math.sqrt(max(1e-12, discordance - difference**2)))
    discordance, ours = min(discordance, 1 - 1e-12), (1 + difference / discordance) / 2
    reach, total = 8 * math.sqrt(mean) + 8, 0.0  # what lies beyond eight deviations cannot be seen
    for m in range(max(0, int(mean - reach)), min(problems, int(mean + reach)) + 1):
        if (most := _most_lost(m, alpha)) >= 0:
            found = binomial_cdf(most, m, ours) + binomial_cdf(most, m, 1 - ours)
            total += binomial_mass([m], problems, discordance) * found
    return total


@cache
def _most_lost(m: int, alpha: float) -> int:
    """The most that the losing side may win of m discordant problems for McNemar's exact p ≤ alpha; -1: p is larger."""
    lost, term, tail = -1, 1, 1  # C(m, 0), and the sum so far
    while 2 * tail <= alpha * 2**m:
        lost += 1
        term = term * (m - lost) // (lost + 1)
        tail += term
    return lost


def least_detectable_difference(
    problems: int, discordance: float = 0.15, power: float = 0.8, confidence: float = 0.95
) -> float | None:
    """The smallest true paired difference of accuracies that McNemar's exact test finds with this power, as a share.

    discordance: the share of problems that exactly one system solves, as observed or expected. A difference d needs a
    discordance of at least d: where none within the given one is found, the discordance rises with the difference, which
    then goes one way on every discordant problem.
    None where no difference is found with this power: by the exact test at 95%, for fewer than six problems.
    """
    if problems < 1:
        raise ValueError(f"problems is {problems}, expected at least 1")
    if not 0 <= discordance <= 1:
        raise ValueError(f"discordance is {discordance}, expected a share from 0 to 1")
    for name, value in (("power", power), ("confidence", confidence)):
        check_open_unit(name, value)

    def too_small(d: float) -> bool:
        return mcnemar_power(problems, max(discordance, d), d, confidence) < power

    return None if too_small(1.0) else bisect(too_small, STEPS)


def least_detectable_mean(differences: Sequence[float], power: float = 0.8, confidence: float = 0.95) -> float | None:
    """The smallest true mean of per-problem differences (of scores from 0 to 1) that such problems show with this power.

    By the t test, to which the sign-flip test is close: (t_{α/2} + t_β) standard errors; and never less than what lets
    enough problems move at all, each by as much as those that moved here. Below ten problems a little bold. None where the
    differences have no spread to plan with, or nothing up to 1 is found.
    """
    moved, n = [abs(d) for d in differences if d], len(differences)
    rare = least_detectable_difference(n, 0.0, power, confidence)
    if rare is None or (spread := variance(differences)) < 1e-18:
        return None
    visible = (t_quantile((1 + confidence) / 2, n - 1) + t_quantile(power, n - 1)) * math.sqrt(spread / n)
    visible = max(visible, rare * math.fsum(moved) / len(moved))
    return visible if visible <= 1 else None
