"""How well surface features alone tell sound traces from flawed ones.

Two classifiers that know nothing of the problem see pairs (sound, flawed) of one group: one sees only lengths
(characters, words, lines), one a bag of words and word pairs with digits masked. Both are logistic models on the
difference of the two traces' features, fitted on training groups and measured on held-out ones. Pair accuracy is the
share of pairs in which the sound trace scores higher, ties counting half: 0.5 is chance, and a Reason RM is only
worth what it adds over these.

Left out on purpose: anything that reads numbers, which is what the RM is for.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tracelift.reward_model.group_format import Group

Pair = tuple[str, str, str, float]  # kind, sound trace, flawed trace, weight


@dataclass(frozen=True)
class Trial:
    """Held-out pair accuracy of one kind: lengths (one model for all kinds), the best single rule "longer" or
    "shorter" chosen for this kind on the training pairs, and the bag of words."""

    kind: str
    pairs: int
    length: float
    length_rule: float
    words: float


def pairs_of(groups: Iterable[Group]) -> list[Pair]:
    """Every (sound, flawed) pair of every group; the pairs of one flawed trace weigh 1 together."""
    return [
        (str(negative.negative_kind), positive.reasoning, negative.reasoning, 1 / len(group.positive_pool))
        for group in groups
        for negative in group.negative_bank
        for positive in group.positive_pool
    ]


def shortcut_report(train: Sequence[Group], dev: Sequence[Group]) -> list[Trial]:
    """Fit both classifiers on `train`, measure them on `dev`: one row a kind, and "all kinds" last."""
    train_pairs, dev_pairs = pairs_of(train), pairs_of(dev)
    if not train_pairs or not dev_pairs:
        raise ValueError("a shortcut report needs groups on both sides, to fit and to measure")
    lengths_train, lengths_dev = (np.array([_lengths(p) for p in pairs]) for pairs in (train_pairs, dev_pairs))
    by_length = _wins(lengths_dev @ _fit_lengths(lengths_train, train_pairs))
    by_words = _wins(_Words(train_pairs).margins(dev_pairs))

    longer = defaultdict(float)  # kind -> how much more often the sound trace is the longer one, on train
    for (kind, _, _, weight), diff in zip(train_pairs, lengths_train[:, 0], strict=True):
        longer[kind] += weight * float(np.sign(diff))
        longer["all kinds"] += weight * float(np.sign(diff))
    wins_longer = _wins(lengths_dev[:, 0])

    kinds = np.array([p[0] for p in dev_pairs])
    weights = np.array([p[3] for p in dev_pairs])
    rows = []
    for kind in (*sorted(set(kinds)), "all kinds"):
        mine = np.ones(len(kinds), bool) if kind == "all kinds" else kinds == kind
        rule = np.average(wins_longer[mine], weights=weights[mine])
        rows.append(
            Trial(
                kind,
                round(float(weights[mine].sum())),
                float(np.average(by_length[mine], weights=weights[mine])),
                float(rule if longer[kind] >= 0 else 1 - rule),
                float(np.average(by_words[mine], weights=weights[mine])),
            )
        )
    return rows


def markdown(rows: Sequence[Trial]) -> str:
    head = "| kind | held-out flawed traces | lengths | longer/shorter rule | bag of words |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| {r.kind} | {r.pairs} | {r.length:.3f} | {r.length_rule:.3f} | {r.words:.3f} |\n" for r in rows
    )


def _wins(margins: np.ndarray) -> np.ndarray:
    return np.where(np.abs(margins) < 1e-12, 0.5, margins > 0)


def _lengths(pair: Pair) -> tuple[float, float, float]:
    """Sound minus flawed: characters, words, lines."""
    _, sound, flawed, _ = pair
    return len(sound) - len(flawed), len(sound.split()) - len(flawed.split()), sound.count("\n") - flawed.count("\n")


def _fit_lengths(diffs: np.ndarray, pairs: Sequence[Pair]) -> np.ndarray:
    """Logistic regression without intercept (a pair has no first member), by Newton's method."""
    weights = np.array([p[3] for p in pairs])
    scale = diffs.std(axis=0) + 1e-9
    x, w = diffs / scale, np.zeros(diffs.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (weights * (1 - p)) - 1e-3 * w
        hessian = (x * (weights * p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(len(w))
        w += np.linalg.solve(hessian, gradient)
    return w / scale


class _Words:
    """Logistic regression on differences of counts of words and word pairs, fitted by AdaGrad; digits are masked."""

    def __init__(self, pairs: Sequence[Pair], epochs: int = 4, rate: float = 0.3, least: int = 5) -> None:
        rows = [_word_difference(p) for p in pairs]
        frequent = Counter(feature for row in rows for feature in row)
        self.index = {f: i for i, f in enumerate(sorted(f for f, n in frequent.items() if n >= least))}
        self.weights = np.zeros(len(self.index))
        squares = np.full(len(self.index), 1e-6)
        encoded = [self._encode(row) for row in rows]
        order = np.random.default_rng(0)
        for _ in range(epochs):
            for i in order.permutation(len(rows)):
                ids, counts = encoded[i]
                if len(ids):
                    margin = float(self.weights[ids] @ counts)
                    step = pairs[i][3] * counts / (1 + np.exp(np.clip(margin, -30, 30)))
                    squares[ids] += step**2
                    self.weights[ids] += rate * step / np.sqrt(squares[ids])

    def _encode(self, row: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
        known = [(self.index[f], n) for f, n in row.items() if f in self.index]
        return np.array([i for i, _ in known], dtype=np.int64), np.array([n for _, n in known], dtype=np.float64)

    def margins(self, pairs: Sequence[Pair]) -> np.ndarray:
        encoded = [self._encode(_word_difference(p)) for p in pairs]
        return np.array([float(self.weights[ids] @ counts) for ids, counts in encoded])


def _word_difference(pair: Pair) -> dict[str, int]:
    counts = Counter(_features(pair[1]))
    counts.subtract(_features(pair[2]))
    return {f: n for f, n in sorted(counts.items()) if n}


def _features(text: str) -> list[str]:
    words = re.findall(r"[0-9]+|[^\W\d_]+|[^\w\s]|\n", text.casefold())
    words = ["0" if w[0].isdigit() else w for w in words]
    return words + [f"{a} {b}" for a, b in pairwise(words)]
