"""Variance components of 0/1 tables: by hand, against simulated worlds of known reliability, and where nothing varies."""

import random

import pytest

from tracelift.stats.reliability import components, resampled, spearman_brown, table_sums


def simulated(problems, traces, runs, reliability, seed, shared=False):
    """Tables of success probabilities from Beta distributions whose one-run reliability within a problem is known: with
    p ~ Beta(m·s, (1 − m)·s) it is 1/(1 + s) for every m. shared: run k of all traces compares p with one uniform number."""
    rng, s = random.Random(seed), 1 / reliability - 1
    tables, truth = [], []
    for _ in range(problems):
        m = rng.choice((0.3, 0.5, 0.8))
        p = [rng.betavariate(m * s, (1 - m) * s) for _ in range(traces)]
        truth.append(p)
        luck = [rng.random() for _ in range(runs)]
        tables.append([[int((luck[k] if shared else rng.random()) < q) for k in range(runs)] for q in p])
    return [table_sums(t) for t in tables], truth


def spread(values):
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / (len(values) - 1)


def shared_chance(truth):
    """Mean covariance of two traces' runs on one uniform number: the smaller probability less the product."""
    pairs = [(p, q) for row in truth for i, p in enumerate(row) for q in row[:i]]
    return sum(min(p, q) - p * q for p, q in pairs) / len(pairs)


def test_a_small_case_by_hand():
    """Rows 1100 and 1111 have means ½ and 1, their columns 1, 1, ½ and ½, the table ¾."""
    s = table_sums([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert (s.traces, s.runs, s.mean) == (2, 4, 0.75)
    assert s.of_rows == pytest.approx(0.5) and s.of_runs == pytest.approx(1.0)
    assert s.of_rest == pytest.approx(0.5)  # that of the runs less 2·Σ (c − g)² = 2·4/16
    found = components([s])
    assert found.run == pytest.approx(1 / 6) and found.rest == pytest.approx(1 / 6)
    assert found.trace == pytest.approx((0.5 - 1 / 6) / 4) and found.problem is None and found.overall is None
    assert found.alone == pytest.approx((1 / 12) / (1 / 12 + 1 / 6))


@pytest.mark.parametrize("reliability", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("shared", [False, True], ids=["own seeds", "shared seeds"])
def test_a_known_reliability_is_found(reliability, shared):
    """All variances against those of the drawn probabilities themselves."""
    sums, truth = simulated(3000, 5, 4, reliability, seed=1, shared=shared)
    found = components(sums)
    trace = sum(map(spread, truth)) / len(truth)
    run = sum(q * (1 - q) for p in truth for q in p) / (len(truth) * 5)
    assert found.trace == pytest.approx(trace, rel=0.06) and found.run == pytest.approx(run, rel=0.04)
    assert found.alone == pytest.approx(reliability, abs=0.02)
    problem = spread([sum(p) / 5 for p in truth]) - trace / 5
    assert found.problem == pytest.approx(problem, abs=0.006)
    rest = run - (shared_chance(truth) if shared else 0.0)
    assert found.rest == pytest.approx(rest, rel=0.04) and found.grouped == pytest.approx(
        trace / (trace + rest), abs=0.02
    )
    one_way = (sum(s.of_rows for s in sums) / (4 * len(sums)) - found.run) / 4
    assert one_way == pytest.approx(trace - (run - rest) / 4, abs=0.003), "what the one-way estimator comes to"


def test_problems_of_several_shapes_add_up():
    small, _ = simulated(1500, 3, 6, 0.5, seed=2)
    large, _ = simulated(1500, 9, 3, 0.5, seed=3)
    found = components(small + large)
    assert found.alone == pytest.approx(0.5, abs=0.03) and found.grouped == pytest.approx(0.5, abs=0.03)


def test_nothing_to_chance_is_wholly_reliable_and_alike_traces_not_at_all():
    sure = components([table_sums([[1] * 5, [0] * 5, [1] * 5]), table_sums([[0] * 5, [1] * 5, [1] * 5])])
    assert sure.run == sure.rest == 0 and sure.alone == sure.grouped == sure.overall == 1.0
    rng = random.Random(0)
    alike = [table_sums([[int(rng.random() < 0.6) for _ in range(8)] for _ in range(6)]) for _ in range(2000)]
    assert components(alike).alone == pytest.approx(0, abs=0.01)
    same = components([table_sums([[1] * 4] * 3)] * 4)
    assert same.alone is None and same.grouped is None and same.trace == 0


def test_k_runs_by_spearman_and_brown():
    """Against the components themselves: a mean of K runs has a Kth of the chance."""
    for rho in (0.1, 0.5, 0.9):
        for K in (1, 2, 3, 8):
            assert spearman_brown(rho, K) == pytest.approx(rho / (rho + (1 - rho) / K))
    assert spearman_brown(0.0, 8) == 0 and spearman_brown(1.0, 8) == 1


def test_the_interval_covers_what_it_should():
    """Of 60 measurements, the 95% interval holds the true reliability in most; the same seed draws the same problems."""
    held = 0
    for i in range(60):
        sums, _ = simulated(60, 4, 6, 0.6, seed=100 + i)
        figure = resampled(sums, lambda c: c.alone, draws=200, seed=i)
        assert figure["low"] <= figure["value"] <= figure["high"] and figure["n"] == 60
        held += figure["low"] <= 0.6 <= figure["high"]
    assert held >= 51
    assert figure == resampled(sums, lambda c: c.alone, draws=200, seed=i)


@pytest.mark.parametrize("table", [[], [[1, 0]], [[1], [0]], [[1, 0], [1]]])
def test_what_is_no_table_is_refused(table):
    with pytest.raises(ValueError, match="expected at least 2"):
        table_sums(table)
    with pytest.raises(ValueError, match="no problem"):
        components([])
