"""benchmarks/repeats: the simulated runs have the reliability asked for, and what is said of each way follows from them."""

import numpy as np
import pytest

from benchmarks.repeats import MOST, REWARDS, G, draw, mean_of_first, row
from tracelift.stats.reliability import components, table_sums


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_drawn_has_the_reliability_asked_for(shared):
    """Of sound traces alone, whose success probability no flaw has touched: by the estimators of the executor's runs."""
    g = draw(3000, 0.6, shared, seed=3)
    sound = g.R > 0.6
    tables = [r[s].astype(int).tolist() for r, s in zip(g.runs, sound, strict=True) if s.sum() > 1]
    assert components([table_sums(t) for t in tables]).alone == pytest.approx(0.6, abs=0.03)
    assert g.p.min() >= 0 and g.p.max() <= 1 and sound.mean() == pytest.approx(0.5, abs=0.02)


def test_the_mean_of_the_first_runs_by_hand():
    runs = np.zeros((1, 2, MOST))
    runs[0, :, :3] = [[1, 0, 1], [0, 1, 1]]
    assert mean_of_first(runs, np.array([[1, 2]])).tolist() == [[1.0, 0.5]]
    assert mean_of_first(runs, np.array([[3, 3]])).tolist() == [[2 / 3, 2 / 3]] and G == 8


@pytest.mark.parametrize("name", REWARDS)
def test_pooling_is_the_better_use_of_runs(name):
    """Four runs apart are worth fewer pooled ones, of R x success exactly the three that it looks at."""
    found = row(name, 0.65, shared=False, n=4000, seed=1)
    assert found["apart: runs"] == 4 and found["apart: as good pooled"] < 3.2
    if name == "graded":
        assert found["apart: as good pooled"] == pytest.approx(3, abs=0.15)
    assert found == row(name, 0.65, shared=False, n=4000, seed=1)
    assert 2 < found["sequential: runs"] < 3 and found["by R: runs"] == pytest.approx(2, abs=0.05)
