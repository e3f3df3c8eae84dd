"""The statistics against exact sums, published tables, enumeration, and (where installed) scipy."""

import collections
import itertools
import math
import random
from fractions import Fraction

import pytest

from support.paired_data import outcomes_of, sampled
from tracelift.evaluation.figures.power import (
    least_detectable_difference,
    least_detectable_mean,
    mcnemar_power,
)
from tracelift.stats import (
    clopper_pearson,
    holm,
    majority_at_k,
    mcnemar_exact,
    pass_at_k,
    permutation_blocks,
    permutation_exact,
    sign_flip,
    welch,
    welch_blocks,
    wilson,
)
from tracelift.stats.runs import Welch, t_cdf, t_quantile


@pytest.mark.parametrize(
    "k,n,low,high",
    [  # Newcombe (1998), Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_the_published_table(k, n, low, high):
    assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_solves_its_own_equation_and_is_symmetric():
    z = 1.959963984540054
    for n in (1, 2, 7, 100, 100_000):
        for k in {0, 1, n // 3, n - 1, n}:
            low, high = wilson(k, n)
            assert 0 <= low <= k / n <= high <= 1
            for bound in (low, high):
                if 0 < bound < 1:  # |p̂ − π| = z·√(π(1−π)/n)
                    assert abs(k / n - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), rel=1e-9)
            assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 10, 0.99)[0] < wilson(5, 10, 0.95)[0]


def test_clopper_pearson_against_exact_tails():
    def tail(ks, n, p):
        return float(sum(math.comb(n, i) * Fraction(p) ** i * (1 - Fraction(p)) ** (n - i) for i in ks))

    for n in (1, 5, 13, 25):
        for k in range(n + 1):
            low, high = clopper_pearson(k, n)
            if k:
                assert tail(range(k, n + 1), n, low) == pytest.approx(0.025, rel=1e-6)
            if k < n:
                assert tail(range(k + 1), n, high) == pytest.approx(0.025, rel=1e-6)
    assert clopper_pearson(0, 10) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    low, high = clopper_pearson(30_000, 100_000)
    assert low == pytest.approx(0.29716, abs=1e-4) and high == pytest.approx(0.30285, abs=1e-4)


def test_mcnemar_is_the_sum_over_all_coin_sequences():
    for a, b in itertools.product(range(7), repeat=2):
        n = a + b
        extreme = sum(1 for heads in itertools.product((0, 1), repeat=n) if abs(2 * sum(heads) - n) >= abs(a - b))
        assert mcnemar_exact(a, b) == pytest.approx(extreme / 2**n, rel=1e-12)
        assert mcnemar_exact(a, b) == mcnemar_exact(b, a)


def test_mcnemar_known_values_and_large_counts():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(1, 8) == pytest.approx(0.0390625)
    assert mcnemar_exact(0, 2000) == 0.0 or mcnemar_exact(0, 2000) < 1e-300
    assert mcnemar_exact(5000, 5000) == 1.0
    assert mcnemar_exact(4900, 5100) == pytest.approx(0.0466, abs=2e-4)
    with pytest.raises(ValueError, match="only_b is -1"):
        mcnemar_exact(0, -1)


def test_pass_at_k_is_the_share_of_subsets_with_a_pass():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(itertools.combinations(range(n), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(min(s) < c for s in subsets) / len(subsets))
    product = 1 - math.prod(1 - 100 / i for i in range(200 - 13 + 1, 201))  # the form in Chen et al.
    assert pass_at_k(200, 13, 100) == pytest.approx(product, rel=1e-12)
    assert pass_at_k(10_000, 1, 1) == 1e-4
    for bad in ((5, 6, 1), (5, 2, 0), (5, 2, 6), (5, -1, 2)):
        with pytest.raises(ValueError):
            pass_at_k(*bad)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]
    with pytest.raises(ValueError):
        holm([1.2])


def test_least_detectable_difference_at_the_usual_sizes():
    # At 15% discordance and 80% power: GSM8K, MATH-500, HumanEval, from the simpler formula (z_α/2 + z_β)·√(ψ/n); the exact
    # test, which is a little cautious, needs a little more.
    for n, d in ((1319, 0.030), (500, 0.048), (164, 0.085)):
        assert d - 0.001 < least_detectable_difference(n) < d + 0.003
    assert least_detectable_difference(10**8) < 2e-4


def test_power_is_the_sum_over_every_outcome():
    for n, psi, d in ((8, 0.4, 0.4), (20, 0.5, 0.3), (12, 1.0, 0.8)):
        cases = outcomes_of(n, (psi + d) / 2, (psi - d) / 2)
        wanted = math.fsum(chance for up, down, chance in cases if mcnemar_exact(down, up) <= 0.05)
        assert mcnemar_power(n, psi, d) == pytest.approx(wanted, abs=1e-9)
    six = sum(math.comb(8, k) * 0.375**k * 0.625 ** (8 - k) for k in (6, 7, 8))  # all one way: six are needed
    assert mcnemar_power(8, 0.375, 0.375) == pytest.approx(six)
    below, above = mcnemar_power(500, 0.1999, 0.056), mcnemar_power(500, 0.2001, 0.056)  # exact, and approximated
    assert below == pytest.approx(above, abs=0.01)


def test_what_is_called_detectable_is():
    """At few discordant problems the least difference exceeds the discordance; too few problems can show nothing."""
    for n, psi in (
        (6, 0.1),
        (8, 0.375),
        (100, 0.05),
        (1000, 0.003),
        (200, 0.0),
        (200, 0.05),
        (400, 0.02),
        (1000, 0.15),
    ):
        d = least_detectable_difference(n, psi)
        wide = max(psi, d)
        assert 0.79 < mcnemar_power(n, wide, d) < 0.81, (n, psi)
        rng, found = random.Random(n), 0
        for _ in range(300):
            m = sum(rng.random() < wide for _ in range(n))
            gained = sum(rng.random() < (1 + d / wide) / 2 for _ in range(m))
            found += mcnemar_exact(m - gained, gained) <= 0.05
        assert 0.72 < found / 300 < 0.88, (n, psi)
    assert least_detectable_difference(1000, 0.003) > 0.0075 and least_detectable_difference(8, 0.375) > 0.75
    for n, psi in ((1, 1.0), (2, 0.15), (4, 0.125), (5, 1.0)):
        assert least_detectable_difference(n, psi) is None, "p is 2/2^n at best"
    with pytest.raises(ValueError, match="discordance is 1.5"):
        least_detectable_difference(10, 1.5)


def test_least_detectable_mean():
    for nothing in ([0.0] * 50, [0.5] * 8, [0.5], [0.0, 0.5, 0.25, 1.0]):
        assert least_detectable_mean(nothing) is None, nothing
    rng = random.Random(1)
    base = [y - x for x, y in zip(*sampled(rng, 30), strict=True)]
    middle, d = sum(base) / 30, least_detectable_mean(base)
    found = sum(sign_flip([rng.choice(base) - middle + d for _ in range(30)], 200) <= 0.05 for _ in range(200))
    assert 0.68 < found / 200 < 0.9
    rare = [0.5] * 3 + [0.0] * 197  # three that moved could not have been told from chance: more have to move
    share = least_detectable_mean(rare) / 0.5
    assert share == pytest.approx(least_detectable_difference(200, 0.0))
    found = sum(sign_flip([0.5 * (rng.random() < share) for _ in range(200)], 200) <= 0.05 for _ in range(200))
    assert 0.7 < found / 200 < 0.9


def test_least_detectable_difference_by_simulation():
    n, psi = 400, 0.2
    d = least_detectable_difference(n, psi)
    rng, found = random.Random(0), 0
    for _ in range(400):
        a = b = 0
        for _ in range(n):
            u = rng.random()
            a, b = a + (u < (psi - d) / 2), b + (u > 1 - (psi + d) / 2)
        found += mcnemar_exact(a, b) <= 0.05
    assert 0.68 < found / 400 < 0.88  # the exact test is a little conservative: just below 80%


def test_t_distribution_by_closed_forms_and_by_summing_its_density():
    for t in (-7.0, -0.3, 0.0, 1.0, 2.7):
        assert t_cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-12)
        assert t_cdf(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), abs=1e-12)
    for df in (3.5, 8.0, 400.0):
        scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
        steps = 4000
        density = [scale * (1 + (2.1 * (i + 0.5) / steps) ** 2 / df) ** (-(df + 1) / 2) for i in range(steps)]
        assert t_cdf(2.1, df) == pytest.approx(0.5 + math.fsum(density) * 2.1 / steps, abs=1e-7)
    for df in (1.0, 4.0, 30.0):
        assert t_cdf(t_quantile(0.975, df), df) == pytest.approx(0.975, abs=1e-12)
    assert t_quantile(0.975, 4) == pytest.approx(2.776445, abs=1e-6)  # as in every table


def test_permutations_of_runs_are_counted_exactly():
    assert permutation_exact([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == 2 / 252
    assert permutation_exact([1.0], [2.0]) == 1.0 == permutation_exact([3.0, 3.0], [3.0, 3.0])
    a, b = [0.1, 0.4, 0.35], [0.3, 0.9]
    deals = [(sum(pool[:3]) / 3, sum(pool[3:]) / 2) for pool in itertools.permutations([*a, *b])]
    seen = abs(sum(a) / 3 - sum(b) / 2) - 1e-12
    assert permutation_exact(a, b) == pytest.approx(sum(abs(x - y) >= seen for x, y in deals) / len(deals))
    with pytest.raises(ValueError, match="a million ways at most"):
        permutation_exact([0.0] * 20, [1.0] * 20)


def test_runs_in_blocks_are_dealt_out_within_their_block():
    """Against every deal written out; one block is the plain test; a shift between blocks is no difference of the arms."""
    blocks = [([0.1, 0.4, 0.35], [0.3, 0.9]), ([5.0, 5.2], [5.1, 5.6])]
    ways = []
    for a, b in blocks:
        pool = [*a, *b]
        sides = itertools.combinations(range(len(pool)), len(a))
        ways.append([
            sum(pool[i] for i in range(len(pool)) if i not in side) / len(b) - sum(pool[i] for i in side) / len(a)
            for side in sides
        ])  # fmt: skip
    seen = abs(sum(w[0] for w in ways)) - 1e-12
    wanted = [abs(x + y) >= seen for x in ways[0] for y in ways[1]]
    assert permutation_blocks(blocks) == pytest.approx(sum(wanted) / len(wanted)) and 0 < sum(wanted) < len(wanted)
    assert permutation_blocks(blocks[:1]) == permutation_exact(*blocks[0])
    low, high = [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]
    assert permutation_blocks([(low, high), ([v + 100 for v in low], [v + 100 for v in high])]) == 2 / 252**2
    with pytest.raises(ValueError, match="a million ways at most"):
        permutation_blocks([(low, high)] * 3)


def test_welch_over_blocks_is_the_mean_of_their_differences_with_their_variances():
    one, two = ([1.0, 2.0, 3.0], [4.0, 6.0, 8.0]), ([101.0, 102.0, 106.0], [103.0, 104.0])
    w = welch_blocks([one, two], 0.2)
    parts = [welch(*one), welch(*two)]
    assert w.difference == pytest.approx(sum(p.difference for p in parts) / 2)
    assert w.se**2 == pytest.approx(sum(p.se**2 for p in parts) / 4 + 0.2)
    squares = [(1 / 3 / 4, 2), (4 / 3 / 4, 2), (7 / 3 / 4, 2), (0.5 / 2 / 4, 1)]
    assert w.df == pytest.approx(sum(v for v, _ in squares) ** 2 / sum(v * v / f for v, f in squares))
    assert welch_blocks([one]) == welch(*one)


def test_welch_by_hand_and_by_coverage():
    w = welch([1, 2, 3], [4, 6, 8])  # variances 1 and 4, over 3: standard error sqrt(5/3)
    assert w.difference == 4 and w.df == pytest.approx((5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2))
    assert w.high - w.difference == pytest.approx(t_quantile(0.975, w.df) * math.sqrt(5 / 3))
    assert w.p == pytest.approx(2 * t_cdf(-4 / math.sqrt(5 / 3), w.df)) and w.least_detectable > w.high - w.difference
    wider = welch([1, 2, 3], [4, 6, 8], 0.5)
    assert wider.high - 4 == pytest.approx((w.high - 4) * math.sqrt((5 / 3 + 0.5) / (5 / 3))), (
        "never narrower for more doubt"
    )
    assert welch([2, 2], [3, 3], 0.25).high == pytest.approx(1 + 0.5 * 1.959964, abs=1e-6)
    assert welch([2, 2], [3, 3]) == Welch(1, 1, 1, 0.0, math.inf, 0.0)
    rng, inside = random.Random(3), 0
    for _ in range(600):
        a, b = [rng.gauss(0, 1) for _ in range(5)], [rng.gauss(0.7, 3) for _ in range(5)]
        inside += welch(a, b).low <= 0.7 <= welch(a, b).high
    assert 0.925 < inside / 600 < 0.98
    with pytest.raises(ValueError, match="at least two on each side"):
        welch([1.0], [2.0, 3.0])


def test_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    for k, n in ((3, 17), (50, 51), (400, 1319), (0, 9), (9, 9)):
        for method, ours in (("wilson", wilson), ("exact", clopper_pearson)):
            theirs = stats.binomtest(k, n).proportion_ci(0.9, method=method)
            assert ours(k, n, 0.9) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    rng = random.Random(4)
    a, b = [rng.random() for _ in range(5)], [rng.random() for _ in range(4)]
    theirs, interval = (t := stats.ttest_ind(b, a, equal_var=False)), t.confidence_interval()
    assert welch(a, b).p == pytest.approx(theirs.pvalue) and welch(a, b).low == pytest.approx(interval.low)
    for a, b in ((3, 11), (40, 61), (700, 650)):
        assert mcnemar_exact(a, b) == pytest.approx(stats.binomtest(a, a + b, 0.5).pvalue, rel=1e-9)


def test_majority_at_k_is_the_share_of_subsets_that_the_right_answer_wins():
    """Every subset of the samples, ties by lot; silent samples are drawn and vote for nothing."""
    rng = random.Random(3)
    for _ in range(60):
        right, silent = rng.randrange(5), rng.randrange(3)
        wrong = [rng.randrange(1, 4) for _ in range(rng.randrange(3))]
        votes = ["r"] * right + [""] * silent + [f"w{i}" for i, n in enumerate(wrong) for _ in range(n)]
        for k in range(1, len(votes) + 1):
            won = 0.0
            for subset in itertools.combinations(votes, k):
                counts = collections.Counter(v for v in subset if v)
                top = max(counts.values(), default=0)
                first = [v for v, n in counts.items() if n == top]
                won += ("r" in first) / len(first) if first else 0.0
            assert majority_at_k(right, wrong, k, silent) == pytest.approx(won / math.comb(len(votes), k))
    assert majority_at_k(3, [2, 2], 7) == 1.0 and majority_at_k(2, [2], 4) == 0.5 and majority_at_k(0, [1], 1) == 0.0
    with pytest.raises(ValueError, match="k is 5, expected 1 to 4"):
        majority_at_k(2, [2], 5)
