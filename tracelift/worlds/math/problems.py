"""Generator of word problems with exact reference traces.

A problem is a short story about one quantity ("Tom has 12 apples. He buys 3 bags of 4 apples each. ..."), built from
events; each event contributes one or two arithmetic steps. The reference trace lists those steps, each with
the reason it serves and its result, except the last, whose result is left to the executor: a planner must help without
giving the answer away (the paper's planner prompt asks the same).

    Bags: 3 * 4 = 12. More: 12 + 12 = 24. Left: 24 - 5.

The same steps can be told in many ways (tracelift/worlds/math/tellings.py); the reference is one of them, drawn for each
problem, with every result written out.

All values are integers in 1..99, so that models of half a million parameters can do the arithmetic. What the world
leaves out: fractions, units that convert, and more than two people.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tracelift.worlds.math.derivation import LARGEST, Step, Steps, join, tell
from tracelift.worlds.math.tellings import retold

NAMES = ("Tom", "Ann", "Ben", "Eva", "Sam", "Mia", "Leo", "Zoe", "Max", "Ida", "Kim", "Ray")
ITEMS = ("apples", "pens", "cards", "shells", "coins", "books", "stamps", "eggs", "nuts", "balls", "cups", "keys")


@dataclass(frozen=True)
class MathProblem:
    problem_id: str
    text: str
    story: Steps  # as the story tells them
    steps: Steps  # the same derivation as the reference trace tells it
    answer: int
    distractor: tuple[str, int] | None  # (label, number) of a sentence that no step needs

    @property
    def trace(self) -> str:
        """Raises ValueError on a derivation that leaves the world's numbers."""
        sentences = tell(self.steps)
        if sentences is None:
            raise ValueError(f"derivation leaves 0..{LARGEST}: {self.steps}")
        return join(sentences)


@dataclass
class _Story:
    """The quantity under construction: sentences so far, steps so far, and where the running total lives."""

    rng: random.Random
    name: str
    friend: str
    item: str
    sentences: list[str]
    steps: list[Step]
    total: int  # operand code: a given number, or −1−i
    value: int

    def add(self, kind: str, label: str, left: int, op: str, right: int, value: int) -> int:
        self.steps.append(Step(label, left, op, right, kind))
        self.total, self.value = -len(self.steps), value
        return -len(self.steps)

    def say(self, *choices: str) -> None:
        self.sentences.append(self.rng.choice(choices))


def _gain(s: _Story) -> bool:
    b = s.rng.randint(2, 30)
    if s.value + b > LARGEST:
        return False
    s.say(
        f"{s.name} buys {b} more {s.item}.",
        f"Then {s.name} finds {b} {s.item}.",
        f"{s.friend} brings {s.name} {b} {s.item}.",
    )
    s.add("gain", "More", s.total, "+", b, s.value + b)
    return True


def _loss(s: _Story) -> bool:
    if s.value < 5:
        return False
    b = s.rng.randint(2, min(30, s.value - 2))
    s.say(
        f"{s.name} loses {b} {s.item}.",
        f"Then {s.name} sells {b} {s.item}.",
        f"{s.name} gives {b} {s.item} to {s.friend}.",
    )
    s.add("loss", "Left", s.total, "-", b, s.value - b)
    return True


def _packs(s: _Story) -> bool:
    n, m = s.rng.randint(2, 9), s.rng.randint(2, 9)
    if s.value + n * m > LARGEST or n == m == 2:
        return False
    s.say(f"{s.name} buys {n} bags of {m} {s.item} each.", f"{s.name} gets {n} bags with {m} {s.item} in each.")
    before, value = s.total, s.value
    bags = s.add("packs", "Bags", n, "*", m, n * m)
    s.add("gain", "More", before, "+", bags, value + n * m)
    return True


def _daily(s: _Story) -> bool:
    n, m = s.rng.randint(2, 9), s.rng.randint(2, 9)
    if n * m > s.value - 2 or n == m == 2:
        return False
    s.say(f"{s.name} uses {m} {s.item} a day for {n} days.", f"For {n} days {s.name} gives away {m} {s.item} a day.")
    before, value = s.total, s.value
    days = s.add("daily", "Days", n, "*", m, n * m)
    s.add("loss", "Left", before, "-", days, value - n * m)
    return True


def _half(s: _Story) -> bool:
    if s.value % 2 or s.value < 6:
        return False
    s.say(f"{s.name} sells half of the {s.item}.", f"Then {s.name} loses half of the {s.item}.")
    s.add("half", "Half", s.total, "/", 2, s.value // 2)
    return True


def _fewer(s: _Story) -> bool:
    if s.value < 5:
        return False
    b = s.rng.randint(2, min(20, s.value - 2))
    s.say(f"{s.friend} has {b} fewer {s.item} than {s.name}.", f"{s.friend} owns {b} {s.item} less than {s.name}.")
    s.add("fewer", "Fewer", s.total, "-", b, s.value - b)
    return True


def _extra(s: _Story) -> bool:
    b = s.rng.randint(2, 20)
    if s.value + b > LARGEST:
        return False
    s.say(f"{s.friend} has {b} {s.item} more than {s.name}.", f"{s.friend} owns {b} more {s.item} than {s.name}.")
    s.add("extra", "Extra", s.total, "+", b, s.value + b)
    return True


def _times(s: _Story) -> bool:
    k = s.rng.randint(2, 5)
    if s.value * k > LARGEST:
        return False
    s.say(f"{s.friend} has {k} times as many {s.item} as {s.name}.")
    s.add("times", "Times", s.total, "*", k, s.value * k)
    return True


EVENTS: tuple[tuple[Callable[[_Story], bool], int, int], ...] = (  # (event, steps, weight)
    (_gain, 1, 2), (_loss, 1, 2), (_packs, 2, 4), (_daily, 2, 4), (_half, 1, 3),
)  # fmt: skip
COMPARISONS: tuple[tuple[Callable[[_Story], bool], int], ...] = ((_fewer, 4), (_extra, 2), (_times, 2))


def _distract(rng: random.Random, friend: str, item: str) -> tuple[str, tuple[str, int]]:
    d = rng.randint(3, 19)
    return rng.choice(
        [
            (f"{friend} is {d} years old.", ("Age", d)),
            (f"One bag costs {d} dollars.", ("Cost", d)),
            (f"The walk home takes {d} minutes.", ("Walk", d)),
        ]
    )


def make_problem(seed: int, index: int) -> MathProblem:
    """Problem `index` of the endless series named by `seed`: the same arguments always give the same problem."""
    rng = random.Random(f"math-world:{seed}:{index}")
    while True:
        problem = _attempt(rng, f"math-{seed}-{index}")
        if problem is not None:
            return problem


def _attempt(rng: random.Random, problem_id: str) -> MathProblem | None:
    name, friend = rng.sample(NAMES, 2)
    item = rng.choice(ITEMS)
    start = rng.randint(4, 40)
    s = _Story(rng, name, friend, item, [f"{name} has {start} {item}."], [], start, start)
    wanted = rng.choices((1, 2, 3, 4, 5), (2, 3, 3, 3, 3))[0]
    compare = rng.random() < 0.5  # end on a question about the friend
    together = compare and wanted >= 3 and rng.random() < 0.4
    body = wanted - compare - together
    while len(s.steps) < body:
        fitting = [(event, weight) for event, size, weight in EVENTS if len(s.steps) + size <= body]
        event = rng.choices([e for e, _ in fitting], [w for _, w in fitting])[0]
        if not event(s):
            return None
    own, own_value = s.total, s.value
    if compare:
        event = rng.choices([e for e, _ in COMPARISONS], [w for _, w in COMPARISONS])[0]
        if not event(s):
            return None
    if together:
        if own_value + s.value > LARGEST:
            return None
        s.add("both", "Both", own, "+", s.total, own_value + s.value)
        question = f"How many {item} do they have together?"
    elif compare:
        question = f"How many {item} does {friend} have?"
    else:
        question = f"How many {item} does {name} have now?"
    distractor = None
    if rng.random() < 0.4:
        sentence, distractor = _distract(rng, friend, item)
        s.sentences.insert(rng.randint(1, len(s.sentences)), sentence)
    text = " ".join([*s.sentences, question])
    story = tuple(s.steps)
    return MathProblem(problem_id, text, story, retold(story, random.Random(f"told:{problem_id}")), s.value, distractor)
