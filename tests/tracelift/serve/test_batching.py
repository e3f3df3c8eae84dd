"""The worker's queue with a model that does as it is told: who waits for whom, and what becomes of the others' errors."""

import random
import threading
from collections import Counter

import pytest

from tracelift.serve.batching import Batcher
from tracelift.serve.fields import Refused

NEVER_GONE = bool


class Held:
    """A model that notes each call and gives its payloads back once it is let; `stopped` holds it from the first call on."""

    def __init__(self, stopped=True):
        self.calls, self.entered, self.go = [], threading.Semaphore(0), threading.Event()
        if not stopped:
            self.go.set()

    def __call__(self, payloads):
        self.calls.append(list(payloads))
        self.entered.release()
        self.go.wait()
        if "bad" in payloads:
            raise ValueError("a bad one")
        if "broken" in payloads:
            raise RuntimeError("out of memory")
        return list(payloads)


def batcher(model, most=4, waiting=100):
    return Batcher("items", model, most, waiting, lambda line: None)


def parts(name, count, units=2):
    return [(f"{name}{i}", units) for i in range(count)]


def served(made, jobs):
    return made.wait(jobs, 60, NEVER_GONE)


def test_a_short_request_does_not_wait_for_all_of_a_long_one():
    """While the first part of twenty runs, two short ones come: they are in the very next call."""
    model = Held()
    made = batcher(model, most=2)
    long = made.submit(parts("long", 20))
    model.entered.acquire()
    a, b = made.submit([("a", 1)]), made.submit([("b", 1)])
    model.go.set()
    assert served(made, a) == ["a"] and served(made, b) == ["b"]
    assert served(made, long) == [f"long{i}" for i in range(20)], "results in the order of the parts"
    order = [payload for call in model.calls for payload in call]
    assert order[0] == "long0" and set(order[1:3]) == {"a", "b"} and order[3:] == [f"long{i}" for i in range(1, 20)]


@pytest.mark.parametrize("seed", range(5))
def test_no_request_starves(seed):
    """Of requests that all wait, none has two parts more behind it than another that still has some: turns are taken."""
    draw = random.Random(seed)
    model = Held()
    made = batcher(model, most=1)
    first = made.submit([("first", 1)])
    model.entered.acquire()
    sizes = {name: draw.randrange(1, 9) for name in "abcdef"}
    asked = {name: made.submit([((name, i), 1) for i in range(size)]) for name, size in sizes.items()}
    model.go.set()
    served(made, first)
    for name, jobs in asked.items():
        assert served(made, jobs) == [(name, i) for i in range(sizes[name])]
    done: Counter = Counter()
    for (name, i), *_ in model.calls[1:]:
        assert i == done[name]
        done[name] += 1
        left = [done[other] for other, size in sizes.items() if done[other] < size]
        assert not left or done[name] - min(left) <= 1


def test_a_long_request_loses_no_more_than_a_place_to_each_that_comes_later():
    model = Held()
    made = batcher(model, most=1)
    long = made.submit([(f"long{i}", 1) for i in range(3)])
    later = [made.submit([(f"short{i}", 1)]) for i in range(5)]
    model.go.set()
    served(made, long)
    for jobs in later:
        served(made, jobs)
    order = [call[0] for call in model.calls]
    late = made.submit(
        [("late", 1)]
    )  # its turn begins where the queue stands, not at nought: none before it is passed over
    assert served(made, late) == ["late"] and sorted(order) == sorted(
        [f"long{i}" for i in range(3)] + [f"short{i}" for i in range(5)]
    )
    assert order.index("long0") == 0 and order.index("long1") < order.index("long2")


def test_an_error_is_of_its_own_part_and_request():
    model = Held()
    made = batcher(model, most=9)
    held = made.submit([("held", 1)])
    model.entered.acquire()
    fine, bad, broken = (made.submit([(name, 1), ("more", 1)]) for name in ("fine", "bad", "broken"))
    model.go.set()
    assert served(made, held) == ["held"] and served(made, fine) == ["fine", "more"]
    for jobs, status in ((bad, 400), (broken, 500)):
        with pytest.raises(Refused) as refused:
            served(made, jobs)
        assert refused.value.status == status


def test_all_parts_are_taken_or_none():
    model = Held()
    made = batcher(model, most=1, waiting=5)
    made.submit([("first", 1)])
    model.entered.acquire()
    made.submit(parts("a", 2))
    with pytest.raises(Refused, match="the queue is full: 4 items wait already"):
        made.submit(parts("b", 1))
    assert made.depth == 1, "one request waits, whatever its parts"
    model.go.set()
    assert made.close(60) and len(model.calls) == 3
    with pytest.raises(Refused, match="shutting down"):
        made.submit(parts("c", 1))


def test_what_nobody_waits_for_any_more_is_not_run():
    model = Held()
    made = batcher(model, most=1)
    first = made.submit([("first", 1)])
    model.entered.acquire()
    left = made.submit(parts("left", 5))
    with pytest.raises(Refused, match="the client closed"):
        made.wait(left, 60, lambda: True)
    late = made.submit([("late", 1)])
    with pytest.raises(Refused, match="no result within 0 s"):
        made.wait(late, 0, NEVER_GONE)
    model.go.set()
    assert served(made, first) == ["first"] and made.close(60)
    assert model.calls == [["first"]]


def test_a_request_of_no_parts_waits_for_nothing():
    model = Held()
    made = batcher(model)
    made.submit([("first", 1)])
    assert served(made, made.submit([])) == []
    model.go.set()
