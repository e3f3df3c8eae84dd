"""The one order in which rows are walked: fresh in each epoch, named by (what, seed, epoch), a function of the round alone.

A resumed run therefore needs no data position, and every rank finds the same rows. Left out: mixing several files.
"""

from __future__ import annotations

import functools
import random


@functools.lru_cache(maxsize=4)
def epoch_order(name: str, count: int, epoch: int) -> tuple[int, ...]:
    """The places 0 … count - 1 in the order of one epoch. `name` names the order, the seed included."""
    order = list(range(count))
    random.Random(f"{name}:{epoch}").shuffle(order)
    return tuple(order)


def round_places(name: str, count: int, step: int, size: int, from_end: bool = False) -> list[int]:
    """The `size` places that 0-based round `step` visits, out of `count` that are walked without end.

    from_end: each epoch's order is walked from its last place, which is what `random.sample(range(count), count)` draws;
    the stages that started out with it keep their orders.
    """
    positions = [divmod(at, count) for at in range(step * size, (step + 1) * size)]
    orders = {epoch: epoch_order(name, count, epoch) for epoch in {epoch for epoch, _ in positions}}
    return [orders[epoch][-1 - at if from_end else at] for epoch, at in positions]
