"""The Reason RM's input, losses and metrics against numbers worked out in plain Python."""

import math
import random
from types import SimpleNamespace

import pytest
import torch

from models import ModelConfig, RewardConfig, RewardModel, Transformer
from models.reward import RewardScores
from tracelift.reward_model.loss import ranking_metrics, rm_loss
from tracelift.reward_model.scorer import (
    LocalScorer,
    RMTargets,
    ScoreItem,
    rm_text,
    rm_tokens,
)
from tracelift.rubrics import MATH_DIMENSIONS


def test_input_text():
    assert (
        rm_text("math", "P\nQ", "R")
        == "<task>math</task>\n<type></type>\n<problem>\nP\nQ\n</problem>\n<reasoning>\nR\n</reasoning>"
    )
    with_tests = rm_text("code", "P", "R", "codeforces", "assert f(1)")
    assert (
        "<type>codeforces</type>" in with_tests
        and "</problem>\n<tests>\nassert f(1)\n</tests>\n<reasoning>" in with_tests
    )


class Letters:
    """One token a character."""

    pad_id = 0
    user_text = staticmethod(str)

    def encode(self, text):
        return [ord(c) % 59 + 1 for c in text]

    def most_characters(self, tokens):
        return tokens


class Words:
    """One token a word: a few characters less need not be a token less."""

    pad_id = 0
    user_text = staticmethod(str)

    def encode(self, text):
        return text.split()

    def most_characters(self, tokens):
        return None


@pytest.mark.parametrize("tokenizer", [Letters(), Words()])
def test_an_overlong_problem_is_shortened_at_its_beginning_and_the_reasoning_never(tokenizer):
    problem = " ".join(f"w{i}" for i in range(300))
    reasoning = "first second third"
    frame = len(tokenizer.encode(rm_text("math", "", reasoning)))
    whole = len(tokenizer.encode(rm_text("math", problem, reasoning)))
    for limit in (frame, frame + 7, (frame + whole) // 2, whole - 1):
        ids = rm_tokens(tokenizer, limit, "math", problem, reasoning)
        assert len(ids) <= limit
        end = tokenizer.encode("</problem>\n<reasoning>\n" + reasoning + "\n</reasoning>")
        assert ids[-len(end) :] == end, "the end of the input is whole"
    assert rm_tokens(tokenizer, whole, "math", problem, reasoning) == tokenizer.encode(
        rm_text("math", problem, reasoning)
    )
    kept = rm_tokens(Words(), 30, "math", problem, reasoning)
    assert "w299" in kept and "w0" not in kept
    with pytest.raises(ValueError, match="trace of 18 characters does not fit.*raise max_tokens"):
        rm_tokens(tokenizer, frame - 1, "math", problem, reasoning)


# -- loss ------------------------------------------------------------------------------------------------------------

GROUPS = [0, 0, 0, 1, 1, 1, 1]
POSITIVE = [True, False, False, False, True, False, False]
GOLD = [0.9, 0.2, 0.6, 0.1, 1.0, 0.5, 0.3]
LABELS = [[4, 3], [0, 1], [2, 2], [1, 0], [4, 4], [2, 3], [1, 1]]


def random_logits(seed=0):
    rng = random.Random(seed)
    logits = [[[rng.uniform(-2, 2) for _ in range(5)] for _ in range(2)] for _ in GROUPS]
    totals = [rng.uniform(-2, 2) for _ in GROUPS]
    return logits, totals


def by_hand(logits, totals, total_weight, rank_weight, negative_weight, margin):
    """The loss from its formula, in Python floats, over a batch with one positive a group."""

    def softmax(row):
        e = [math.exp(x) for x in row]
        return [x / sum(e) for x in e]

    n = len(GROUPS)
    ce = sum(-math.log(softmax(logits[i][d])[LABELS[i][d]]) for i in range(n) for d in range(2)) / n
    head = [1 / (1 + math.exp(-t)) for t in totals]
    derived = [sum(0.5 * sum(c * p for c, p in enumerate(softmax(row))) / 4 for row in logits[i]) for i in range(n)]
    score = [0.5 * (a + b) for a, b in zip(head, derived, strict=True)]
    huber = (
        sum(0.5 * (h - g) ** 2 for h, g in zip(head, GOLD, strict=True)) / n
    )  # |error| < 1 = delta: the quadratic branch

    def mean_rank(pairs):
        return sum(math.log1p(math.exp(-(score[i] - score[j]))) for i, j in pairs)

    pairs = [(i, j) for i in range(n) for j in range(n) if GROUPS[i] == GROUPS[j] and POSITIVE[i] and not POSITIVE[j]]
    ranked = [
        (i, j)
        for i in range(n)
        for j in range(n)
        if GROUPS[i] == GROUPS[j] and not POSITIVE[i] and not POSITIVE[j] and GOLD[i] - GOLD[j] >= margin
    ]
    assert len(pairs) == 5 and len(ranked) == 4
    parts = {"ce": ce, "huber": huber, "rank": mean_rank(pairs) / 5, "negative_rank": mean_rank(ranked) / 5}
    loss = ce + total_weight * huber + rank_weight * parts["rank"] + negative_weight * parts["negative_rank"]
    return parts | {"loss": loss}


def loss_of(logits, totals, keep=None, **weights):
    keep = list(range(len(GROUPS))) if keep is None else keep
    rm = SimpleNamespace(reward=RewardConfig(("a", "b"), (0.5, 0.5)))
    scores = RewardModel.combine(rm, logits[keep], totals[keep])
    targets = RMTargets(
        torch.tensor(LABELS)[keep],
        torch.tensor(GOLD, dtype=totals.dtype)[keep],
        torch.tensor(GROUPS)[keep],
        torch.tensor(POSITIVE)[keep],
    )
    return rm_loss(logits[keep], scores, targets, (7, 5), **weights)


def test_loss_by_hand():
    logits, totals = random_logits()
    expected = by_hand(logits, totals, 0.5, 0.7, 0.3, 0.15)
    found = loss_of(torch.tensor(logits), torch.tensor(totals), negative_weight=0.3)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert math.isclose(found[name].item(), value, rel_tol=1e-5), name
    defaults = loss_of(torch.tensor(logits), torch.tensor(totals))
    assert "negative_rank" not in defaults
    assert math.isclose(defaults["loss"].item(), by_hand(logits, totals, 0.5, 0.7, 0.0, 0.15)["loss"], rel_tol=1e-5)


def test_pieces_of_a_batch_add_up_to_the_whole_in_loss_and_gradient():
    logits, totals = (torch.tensor(x).requires_grad_() for x in random_logits(1))
    whole = loss_of(logits, totals, negative_weight=0.3)
    expected = torch.autograd.grad(whole["loss"], (logits, totals))
    pieces = [
        loss_of(logits, totals, [i for i, g in enumerate(GROUPS) if g == group], negative_weight=0.3)
        for group in (1, 0)
    ]
    for name in whole:
        torch.testing.assert_close(sum(p[name] for p in pieces), whole[name])
    found = torch.autograd.grad(sum(p["loss"] for p in pieces), (logits, totals))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_the_ranking_loss_pulls_the_positive_up_and_its_own_negatives_down():
    logits, totals = (torch.tensor(x).requires_grad_() for x in random_logits(2))
    (grad,) = torch.autograd.grad(loss_of(logits, totals)["rank"], totals)
    assert [(g < 0).item() for g in grad] == POSITIVE


def test_a_model_without_a_total_head_has_no_huber_part():
    scores = RewardScores(torch.rand(7), torch.rand(7), None, torch.rand(7, 2))
    targets = RMTargets(torch.tensor(LABELS), torch.tensor(GOLD), torch.tensor(GROUPS), torch.tensor(POSITIVE))
    parts = rm_loss(torch.zeros(7, 2, 5), scores, targets, (7, 5))
    assert "huber" not in parts and math.isclose(parts["ce"].item(), 2 * math.log(5), rel_tol=1e-6)


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_ranking_metrics_by_hand():
    total = [0.9, 0.1, 0.95, 0.5, 0.5, 0.2, 0.3]
    kinds = ["copy" if not p else None for p in POSITIVE]
    kinds[2] = "swap"
    found = ranking_metrics(total, GOLD, GROUPS, POSITIVE, kinds)
    assert found["pair_accuracy"] == (1 + 0 + 0.5 + 1 + 1) / 5  # a tie counts half
    assert found["group_accuracy"] == 0  # group 0 has a negative above, group 1 one level with its positive
    errors = [a - b for a, b in zip(total, GOLD, strict=True)]
    assert math.isclose(found["mae"], sum(map(abs, errors)) / 7)
    assert math.isclose(found["rmse"], math.sqrt(sum(e * e for e in errors) / 7))
    assert (found["pair/swap"], found["pair/copy"]) == (0, 3.5 / 4)
    assert ranking_metrics(GOLD, GOLD, GROUPS, POSITIVE)["group_accuracy"] == 1
    alone = ranking_metrics([0.5, 0.1], [0.5, 0.1], [0, 1], [True, False])
    assert (alone["pair_accuracy"], alone["group_accuracy"], alone["mae"]) == (0, 0, 0), "no pair, nothing ranked"


@pytest.mark.parametrize("seed", range(20))
def test_ranking_metrics_agree_with_counting_pairs_one_by_one(seed):
    """Groups of every make: without a flaw, without a reference, with and without alternatives; levels among the scores."""
    rng = random.Random(seed)
    n = rng.randrange(1, 60)
    total, gold = ([rng.choice((0.1, 0.25, 0.5, 0.75)) for _ in range(n)] for _ in range(2))
    group, positive = [rng.randrange(8) for _ in range(n)], [rng.random() < 0.5 for _ in range(n)]
    kinds = [None if p else rng.choice(("slip", "swap")) for p in positive]
    told = [rng.choice((None, "reworded", "exchanged")) if p else None for p in positive]
    found = ranking_metrics(total, gold, group, positive, kinds, told)

    def pairs(flaw=lambda j: True, sound=lambda i: told[i] is None):
        of = [(i, j) for i in range(n) for j in range(n) if group[i] == group[j] and positive[i] and not positive[j]]
        return [(total[i] > total[j]) + 0.5 * (total[i] == total[j]) for i, j in of if sound(i) and flaw(j)]

    def clean(whose, needed):
        of = [[i for i in range(n) if group[i] == g] for g in sorted(set(group))]
        of = [m for m in of if any(needed(i) for i in m) and not all(positive[i] for i in m)]
        least = [
            min((total[i] for i in m if whose(i)), default=2) > max(total[j] for j in m if not positive[j]) for m in of
        ]
        return sum(least) / len(least) if least else None

    def mean(values):
        return sum(values) / len(values) if values else None

    reference, alternative = lambda i: positive[i] and told[i] is None, lambda i: told[i] is not None
    wanted = {
        "pair_accuracy": mean(pairs()) or 0.0,
        "group_accuracy": clean(reference, reference) or 0.0,
        "alternative_pair_accuracy": mean(pairs(sound=alternative)),
        "sound_group_accuracy": clean(lambda i: positive[i], alternative),
        **{f"pair/{k}": mean(pairs(lambda j, k=k: kinds[j] == k)) for k in ("slip", "swap")},
        **{f"alternative/{k}": mean(pairs(sound=lambda i, k=k: told[i] == k)) for k in ("reworded", "exchanged")},
    }
    ranked = {name: value for name, value in found.items() if name not in ("mae", "rmse")}
    assert ranked == pytest.approx({name: value for name, value in wanted.items() if value is not None})
    plain = ranking_metrics(total, gold, group, positive, kinds)
    assert (plain["mae"], plain["rmse"]) == (found["mae"], found["rmse"])
    assert plain == ranking_metrics(total, gold, group, positive, kinds, [None] * n)


def test_every_positive_must_stand_above_every_negative():
    group, positive = [0] * 4, [True, True, False, False]
    assert ranking_metrics([0.9, 0.8, 0.7, 0.1], [0.0] * 4, group, positive)["group_accuracy"] == 1
    found = ranking_metrics([0.9, 0.6, 0.7, 0.1], [0.0] * 4, group, positive)
    assert found["group_accuracy"] == 0 and found["pair_accuracy"] == 0.75


# -- scoring ---------------------------------------------------------------------------------------------------------


def scorer(**changes):
    shape = ModelConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        max_positions=160,
    )
    rm = RewardModel.from_transformer(Transformer(shape).init_weights(1, std=0.4), RewardConfig(MATH_DIMENSIONS), 1)
    return LocalScorer(rm, Letters(), **changes)


def test_scores_are_those_of_each_item_alone_whatever_the_batch():
    items = [ScoreItem("math", "p" * n, "r" * (n % 5 + 1), "math") for n in (3, 40, 7, 3, 22, 1)]
    items.append(items[1])
    together, alone = scorer(), scorer(batch_tokens=1)
    scores = together.score(items)
    for item, score in zip(items, scores, strict=True):
        (single,) = alone.score([item])
        assert math.isclose(score.total, single.total, rel_tol=1e-5) and score.error is None
        assert (
            math.isclose(score.total, 0.5 * (score.derived + score.head), rel_tol=1e-6) and len(score.dimensions) == 5
        )
    assert scores[0] == scores[3] and scores[1] == scores[6] and scores[0] != scores[1]
    assert together.score([]) == []


def test_what_does_not_fit_is_an_error_of_its_own_item():
    good, bad = ScoreItem("math", "p", "r"), ScoreItem("math", "p", "r" * 500)
    first, second = scorer().score([bad, good])
    assert "does not fit" in first.error and second.error is None
