"""Two systems on the same problems, made up: scores with a known difference, and every outcome with its chance."""

import itertools
import math


def sampled(rng, n, lift=0.0, samples=4):
    """Two systems' shares of right samples on n problems of differing difficulty, b better by `lift` on each."""
    level = [rng.random() * (1 - lift) for _ in range(n)]
    return [[sum(rng.random() < p + extra for _ in range(samples)) / samples for p in level] for extra in (0.0, lift)]


def outcomes_of(n, gained, lost):
    """(gained, lost, probability) of every outcome on n problems that are gained and lost with these chances."""
    for up, down in itertools.product(range(n + 1), repeat=2):
        if up + down <= n:
            yield (
                up,
                down,
                math.comb(n, up)
                * math.comb(n - up, down)
                * gained**up
                * lost**down
                * (1 - gained - lost) ** (n - up - down),
            )
