"""Intervals and p of paired differences against enumeration and simulation: they cover, and never contradict each other."""

import itertools
import math
import random

import pytest

from support.paired_data import outcomes_of, sampled
from tracelift.stats import mcnemar_exact, paired_interval, paired_mean, sign_flip
from tracelift.stats.figures import difference
from tracelift.stats.paired import EXACT, flips


def signed_sums(d):
    return [sum(s * x for s, x in zip(signs, d, strict=True)) for signs in itertools.product((1, -1), repeat=len(d))]


BOTH = [  # chances of a problem to be gained, and to be lost
    (0.1, 0.05),
    (0.01, 0.0),
    (0.05, 0.0),
    (0.3, 0.0),
    (0.3, 0.03),
    (0.5, 0.45),
    (0.9, 0.01),
    (0.02, 0.02),
    (0.7, 0.1),
]


def test_sign_flips_are_all_counted():
    for d in ([0.5, -0.25, 1.0, 0.0, 0.75], [1.0] * 4, [0.1, 0.2, -0.3], [0.25, -0.25, 0.25, 0.5, 0.5], [0.0, 0.0]):
        seen = abs(sum(d)) - 1e-9
        assert sign_flip(d) == pytest.approx(sum(abs(s) >= seen for s in signed_sums(d)) / 2 ** len(d))
    assert sign_flip([0.75] * 4) == 0.125 and sign_flip([]) == 1.0, "four problems cannot show less"
    for won, lost in ((15, 5), (200, 160)):  # equal differences are counted together, so that many are exact too
        assert sign_flip([1.0] * won + [-1.0] * lost, 1) == pytest.approx(mcnemar_exact(lost, won))
        assert sign_flip([0.25] * won + [-0.25] * lost, 1) == pytest.approx(mcnemar_exact(lost, won))


def test_what_is_too_much_to_count_is_drawn():
    rng = random.Random(0)
    d = [rng.random() - 0.3 for _ in range(12)]
    assert len(flips(d, 5, 0)) == 2**12 == EXACT and len(flips([*d, 0.9], 5, 0)) == 5
    sums = [abs(s) for s in signed_sums([*d, 0.9])]
    exact = sum(s >= abs(sum(d) + 0.9) - 1e-9 for s in sums) / len(sums)
    assert sign_flip([*d, 0.9], 20_000) == pytest.approx(exact, abs=0.005)
    alike = [0.9 + 0.001 * i for i in range(40)]
    assert sign_flip(alike, 99) == pytest.approx(0.01) == sign_flip(alike, 99, seed=5), "never 0"
    assert sign_flip([*d, 0.9], 300, seed=1) == sign_flip([*d, 0.9], 300, seed=1) != sign_flip([*d, 0.9], 300, seed=2)


@pytest.mark.parametrize("n", [4, 8, 12, 30])
def test_sign_flips_keep_the_null(n):
    rng, runs = random.Random(n), 300
    found = sum(sign_flip([y - x for x, y in zip(*sampled(rng, n), strict=True)], 300) <= 0.05 for _ in range(runs))
    assert found <= 26, "Binomial(300, .05) stays below 27 but for one run in several hundred"


def agrees(d, r, draws):
    """Interval, mean and p of one set of differences do not contradict each other."""
    assert r.low < r.high and -1 <= r.low <= r.difference <= r.high <= 1, d
    assert r.p == sign_flip(d, draws) and (r.low <= 0 <= r.high) == (r.p > 0.05), d


@pytest.mark.parametrize("lift,samples", [(0.2, 4), (0.0, 4), (0.06, 8)])
@pytest.mark.parametrize("n,runs", [(5, 200), (10, 100), (30, 60), (100, 40)])
def test_the_interval_of_means_covers_and_excludes_zero_exactly_where_p_is_small(lift, samples, n, runs):
    rng, covered = random.Random(n), 0
    for _ in range(runs):
        d = [y - x for x, y in zip(*sampled(rng, n, lift, samples), strict=True)]
        r = paired_mean(d, draws=100)
        agrees(d, r, 100)
        covered += r.low <= lift <= r.high
    assert covered / runs >= 0.94 - 2.5 * math.sqrt(0.94 * 0.06 / runs)


@pytest.mark.parametrize("size", [1.0, 0.25])
@pytest.mark.parametrize("n,chances", [(5, BOTH), (10, BOTH), (30, [c for c in BOTH if not c[1]])])
def test_the_interval_of_a_mean_covers_by_counting_every_outcome(size, n, chances):
    """Differences of a whole point, or of a quarter, gained and lost with these chances."""
    intervals, covered = {}, dict.fromkeys(chances, 0.0)
    for gained, lost in chances:
        for up, down, chance in outcomes_of(n, gained, lost):
            if chance and (up, down) not in intervals:
                d = [size] * up + [-size] * down + [0.0] * (n - up - down)
                intervals[up, down] = paired_mean(d)
                agrees(d, intervals[up, down], 10_000)
            if chance:
                r = intervals[up, down]
                covered[gained, lost] += chance * (r.low <= size * (gained - lost) <= r.high)
    assert min(covered.values()) >= 0.94, covered


def test_the_interval_of_a_mean_is_no_wider_than_its_differences_tell():
    """The case that contradicted itself: differences of a quarter, beside which a whole imaginary point counts for all."""
    d = [-0.25] * 14 + [0.25] * 2 + [0.0] * 24
    r = paired_mean(d)
    assert r.p == pytest.approx(mcnemar_exact(2, 14)) and r.p < 0.01 and r.high < -0.02
    error = math.sqrt(math.fsum((x - r.difference) ** 2 for x in d) / 39 / 40)
    assert 2 * 1.96 * error < r.high - r.low < 1.3 * 2 * 1.96 * error
    assert paired_mean([x * 2 for x in d]).high == pytest.approx(2 * r.high, abs=1e-3), "in units of the differences"


def test_few_problems_that_agree_are_not_certainty():
    for n in (1, 2, 4, 5):
        r = paired_mean([0.75] * n)
        assert r.p == 2 * 0.5**n and r.low <= 0 < 0.75 < r.high, n
    six = paired_mean([0.75] * 6)
    assert six.p == 2 * 0.5**6 and 0 < six.low < 0.6 and six.high > 0.8
    assert paired_mean([0.25] * 6).high > 0.26, "there may be problems that gain more than any seen"
    same = paired_mean([0.0] * 50)
    assert same.p == 1 and same.low < -0.03 and same.high > 0.03, "a whole point in one of 50 may not have been seen"


def test_a_mean_is_of_differences_from_minus_one_to_one():
    for bad in ([], [0.5, 1.5], [-1.1]):
        with pytest.raises(ValueError, match="expected at least one each, from -1 to 1"):
            paired_mean(bad)
    assert paired_mean([0.5, 0.25, 0.5, 0.75, 0.5, 0.75], confidence=0.5).low > paired_mean([0.5] * 6).low


def test_scores_of_one_run_are_compared_by_mcnemar_and_means_by_sign_flips():
    one = difference([0, 1, 0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0, 1, 1])
    assert (one["gained"], one["lost"], one["test"]) == (5, 0, "McNemar exact") and one["p"] == mcnemar_exact(0, 5)
    assert (one["low"], one["high"]) == paired_interval(5, 0, 8)
    several = difference([0.5] * 8, [0.75] * 8)
    assert several["test"].startswith("sign flips") and "gained" not in several and several["n"] == 8
    assert several["difference"] == 0.25 and several["p"] == 2 * 0.5**8 and 0 < several["low"] < 0.25


@pytest.mark.parametrize("n,cases", [(5, 9), (10, 9), (30, 9), (200, 1)])
def test_the_paired_interval_covers_by_counting_every_outcome(n, cases):
    for gained, lost in BOTH[:cases]:
        covered = 0.0
        for up, down, chance in outcomes_of(n, gained, lost):
            low, high = paired_interval(up, down, n)
            covered += chance * (low <= gained - lost <= high)
        assert covered >= 0.938, (gained, lost)


def test_the_paired_interval_and_its_p_never_contradict():
    for n in (1, 3, 5, 6, 8, 13, 40):
        for up, down in itertools.product(range(n + 1), repeat=2):
            if up + down <= n:
                low, high = paired_interval(up, down, n)
                assert low < high and low <= (up - down) / n <= high
                assert (low <= 0 <= high) == (mcnemar_exact(down, up) > 0.05), (up, down, n)
    m, v = 3 / 10, (5 / 10 - 0.09) / 10  # 3 gained, none lost of 8: by hand
    assert paired_interval(3, 0, 8) == pytest.approx((m - 1.959964 * v**0.5, m + 1.959964 * v**0.5), abs=1e-6)
    with pytest.raises(ValueError, match="expected 0 to 4"):
        paired_interval(3, 2, 4)
