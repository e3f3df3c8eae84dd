"""The GRPO algebra against numbers worked out by hand and against autograd of the plain formulas."""

import dataclasses
import math
import random

import pytest
import torch

from tracelift.config.schema import GrpoConfig
from tracelift.rl.flat_groups import SAME, has_spread
from tracelift.rl.grpo import (
    BatchCounts,
    advantages,
    kl_estimate,
    policy_loss,
    token_weights,
)

PLAIN = GrpoConfig()


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]])
    a = advantages(rewards, torch.ones(2, 4, dtype=torch.bool))
    std = math.sqrt(4 * 0.25 / 3)
    torch.testing.assert_close(a[0], torch.tensor([0.5, -0.5, -0.5, 0.5]) / (std + 1e-4))
    assert a[1].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(
        advantages(rewards, torch.ones(2, 4, dtype=torch.bool), "none")[0], torch.tensor([0.5, -0.5, -0.5, 0.5])
    )


def test_a_floor_for_the_deviation_keeps_small_differences_small():
    """Two likelihoods of one success move nothing much; a group that differs by more than the floor is as without it."""
    rewards, valid = (
        torch.tensor([[0.9990, 0.9995, 0.9990, 0.9995], [1.0, 0.0, 0.0, 1.0]]),
        torch.ones(2, 4, dtype=torch.bool),
    )
    free, floored = advantages(rewards, valid), advantages(rewards, valid, least_std=0.05)
    assert free[0].abs().min() > 0.6 and floored[0].abs().max() < 0.006
    assert torch.equal(free[1], floored[1]) and torch.equal(floored[0].sign(), free[0].sign())
    torch.testing.assert_close(floored[0], (rewards[0] - rewards[0].mean()) / (0.05 + 1e-4))


def test_an_error_leaves_its_group_as_if_it_had_never_been_sampled():
    rewards = torch.tensor([[1.0, 0.0, 99.0, 0.25]])
    valid = torch.tensor([[True, True, False, True]])
    with_hole = advantages(rewards, valid)
    without = advantages(torch.tensor([[1.0, 0.0, 0.25]]), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(with_hole[0, [0, 1, 3]], without[0])
    assert with_hole[0, 2] == 0
    lonely = advantages(rewards, torch.tensor([[True, False, False, False]]))
    assert lonely.abs().sum() == 0


def float64_advantages(rewards: list[float], scale: str) -> list[float]:
    mean = math.fsum(rewards) / len(rewards)
    std = math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)) if scale == "std" else 1 - 1e-4
    return [(r - mean) / (std + 1e-4) for r in rewards]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", ["std", "none"])
def test_equal_rewards_have_no_advantage_at_all_and_others_that_of_float64(scale, dtype):
    """Every reward k/1000 in groups of 2 to 16, some of whose samples left: a mean that is rounded must not show."""
    rng = random.Random(0)
    for G in range(2, 17):
        equal = torch.arange(-500, 1501, dtype=torch.float64)[:, None].div(1000).expand(-1, G)
        valid = torch.rand(equal.shape, generator=torch.Generator().manual_seed(G)) < 0.8
        junk = torch.where(valid, equal, 7.0)  # what an invalid sample holds is nobody's business
        assert advantages(junk.to(dtype), valid, scale).abs().max() == 0
        assert advantages(equal.to(dtype), torch.ones_like(valid), scale).abs().max() == 0
        for _ in range(50):
            kept = sorted(rng.sample(range(G), rng.randint(2, G)))
            rewards = [rng.choice((-0.5, rng.randrange(1000) / 1000)) for _ in kept]
            if len(set(rewards)) == 1:
                continue
            row, mask = torch.full((1, G), 9.0, dtype=dtype), torch.zeros(1, G, dtype=torch.bool)
            row[0, kept], mask[0, kept] = torch.tensor(rewards, dtype=dtype), True
            found = advantages(row, mask, scale)
            expected = torch.zeros(G, dtype=torch.float64)
            expected[kept] = torch.tensor(float64_advantages(row[0, kept].tolist(), scale), dtype=torch.float64)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found[0], expected.float(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("reward", [0.0, 0.3, -0.5, 1.0, 40.0])
def test_nearly_equal_rewards_are_equal_up_to_the_tolerance(reward):
    """Both sides of it, at rewards below 1, where it is absolute, and above, where it is relative."""
    limit = SAME * max(1.0, abs(reward))
    for times, moves in ((0.9, False), (1.1, True)):
        group = torch.tensor(
            [[reward, reward + times * limit * (-1 if reward > 0 else 1), reward]], dtype=torch.float64
        )
        valid = torch.ones(1, 3, dtype=torch.bool)
        assert has_spread(group, valid).tolist() == [moves]
        assert (advantages(group, valid).abs().max() > 0) == moves
    assert SAME < 1e-3 / 2, "rewards that differ in a thousandth always do"


LENGTHS = [2, 3, 1]
SEQUENCE = torch.tensor([0, 0, 1, 1, 1, 2])


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("token", [1 / 6] * 6),
        ("sequence", [1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9, 1 / 3]),
        ("constant", [1 / 30] * 6),
    ],
)
def test_token_weights(aggregate, expected):
    w = token_weights(SEQUENCE, torch.tensor(LENGTHS), BatchCounts(6, 3, 10), aggregate)
    torch.testing.assert_close(w, torch.tensor(expected))


def reference_loss(logprob, old, advantage, weight, config, entropy, ref):
    """Token by token in Python floats' double precision, from the formulas in the module's docstring."""
    total = 0.0
    for s in range(3):
        where = (s == SEQUENCE).nonzero()[:, 0].tolist()
        mean_log_ratio = sum(logprob[i] - old[i] for i in where) / len(where)
        for i in where:
            log_ratio = mean_log_ratio if config.importance == "sequence" else logprob[i] - old[i]
            ratio = torch.exp(log_ratio)
            bounded = torch.clamp(ratio, 1 - config.clip_low, 1 + config.clip_high)
            gain = torch.minimum(ratio * advantage[i], bounded * advantage[i])
            d = ref[i] - logprob[i]
            kl = {"k1": -d, "k2": d * d / 2, "k3": torch.exp(d) - d - 1}[config.kl_estimator]
            total = total - weight[i] * (gain - config.kl_coef * kl + config.entropy_coef * entropy[i])
    return total


@pytest.mark.parametrize("importance", ["token", "sequence"])
@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
def test_loss_and_gradient_follow_the_formula(importance, kl):
    config = dataclasses.replace(
        PLAIN, importance=importance, kl_estimator=kl, kl_coef=0.3, entropy_coef=0.05, clip_low=0.1, clip_high=0.25
    )
    gen = torch.Generator().manual_seed(3)
    old, ref = (-torch.rand(6, generator=gen, dtype=torch.float64) for _ in range(2))
    advantage = torch.tensor([1.0, 1.0, -2.0, -2.0, -2.0, 0.5], dtype=torch.float64)
    weight = torch.rand(6, generator=gen, dtype=torch.float64)
    results = []
    for mine in (True, False):
        logprob = (
            old + 0.4 * torch.randn(6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        ).requires_grad_()
        entropy = (logprob * -1.5).exp()
        if mine:
            loss = policy_loss(logprob, old, advantage, weight, SEQUENCE, config, entropy, ref).loss
        else:
            loss = reference_loss(logprob, old, advantage, weight, config, entropy, ref)
        (grad,) = torch.autograd.grad(loss, logprob)
        results.append((loss.detach(), grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-10, atol=1e-12)


def test_clipping_is_one_sided_in_the_right_direction():
    """A ratio past the clip stops the gradient only where it would push further."""
    old = torch.zeros(4)
    logprob = torch.tensor([0.5, 0.5, -0.5, -0.5], requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0])
    piece = policy_loss(logprob, old, advantage, torch.ones(4), torch.arange(4), PLAIN)
    (grad,) = torch.autograd.grad(piece.loss, logprob)
    assert (grad != 0).tolist() == [False, True, True, False]
    assert piece.sums["clip_high"] == 1 and piece.sums["clip_low"] == 1


def two_policies():
    """Logits of a policy (trained) and log-probs of a reference over a vocabulary of 8, far enough apart to tell."""
    gen = torch.Generator().manual_seed(0)
    logits, q = (torch.randn(8, generator=gen, dtype=torch.float64) for _ in range(2))
    return logits.requires_grad_(), q.log_softmax(-1)


def test_the_value_of_k1_and_k3_has_the_expectation_of_the_kl():
    logits, q = two_policies()
    p = logits.detach().log_softmax(-1)
    exact = (p.exp() * (p - q)).sum()
    assert exact > 0.5
    for kind in ("k1", "k3"):
        torch.testing.assert_close((p.exp() * kl_estimate(kind, p, q, None)).sum(), exact, rtol=1e-12, atol=0)
    assert abs((p.exp() * kl_estimate("k2", p, q, None)).sum() - exact) > 0.05, "k2 is no estimate of the value"
    assert (kl_estimate("k3", p, q, None) >= 0).all()
    with pytest.raises(ValueError, match="exact"):
        kl_estimate("exact", p, q, None)


def penalty_gradient(kind: str) -> torch.Tensor:
    """E over y ~ π of the gradient of the loss's KL term at y, (8,): every token of the vocabulary, weighed by its
    probability, which is held constant as sampling holds it."""
    logits, q = two_policies()
    p = logits.log_softmax(-1)
    exact = (p.exp() * (p - q)).sum().expand(8)
    config = dataclasses.replace(PLAIN, kl_coef=1.0, kl_estimator=kind)
    none = torch.zeros(8, dtype=torch.float64)
    piece = policy_loss(p, p.detach(), none, p.detach().exp(), torch.arange(8), config, None, q, exact)
    (gradient,) = torch.autograd.grad(piece.loss, logits)
    return gradient


def test_only_k2_and_the_sum_pull_the_policy_towards_the_reference():
    """k3's pull is that of the KL the other way round, k1 has none: this is why one is named in the help, one refused."""
    logits, q = two_policies()
    p = logits.log_softmax(-1)
    (reverse,) = torch.autograd.grad((p.exp() * (p - q)).sum(), logits, retain_graph=True)
    (forward,) = torch.autograd.grad((q.exp() * (q - p)).sum(), logits)
    assert torch.nn.functional.cosine_similarity(reverse, forward, dim=0) < 0.95
    for kind, expected in (("k1", torch.zeros(8).double()), ("k2", reverse), ("k3", forward), ("exact", reverse)):
        torch.testing.assert_close(penalty_gradient(kind), expected, rtol=1e-12, atol=1e-14, msg=kind)


@pytest.mark.parametrize("kind", ["k2", "k3", "exact"])
def test_the_kl_that_is_logged_is_the_same_quantity_whatever_the_penalty(kind):
    logits, q = two_policies()
    p = logits.detach().log_softmax(-1)
    exact = (p.exp() * (p - q)).sum().expand(8)
    config = dataclasses.replace(PLAIN, kl_coef=1.0, kl_estimator=kind)
    sums = policy_loss(p, p, torch.ones(8).double(), p.exp(), torch.arange(8), config, None, q, exact).sums
    torch.testing.assert_close(sums["kl"], (exact if kind == "exact" else kl_estimate("k3", p, q, None)).sum())


def test_tokens_without_an_advantage_stay_out_of_what_not_every_run_computes():
    old, logprob = torch.zeros(4), torch.tensor([0.1, 0.2, 0.9, -0.9])
    advantage = torch.tensor([1.0, -1.0, 0.0, 0.0])
    both = policy_loss(logprob, old, advantage, torch.ones(4), torch.arange(4), PLAIN).sums
    alone = policy_loss(logprob[:2], old[:2], advantage[:2], torch.ones(2), torch.arange(2), PLAIN).sums
    assert (both.pop("computed"), alone.pop("computed")) == (4, 2) and both == alone and both["moving"] == 2
