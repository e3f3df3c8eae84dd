"""The GRPO algebra against numbers worked out by hand and against autograd of the plain formulas."""

import dataclasses
import math

import pytest
import torch

from tracelift.config.schema import GrpoConfig
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


def test_an_error_leaves_its_group_as_if_it_had_never_been_sampled():
    rewards = torch.tensor([[1.0, 0.0, 99.0, 0.25]])
    valid = torch.tensor([[True, True, False, True]])
    with_hole = advantages(rewards, valid)
    without = advantages(torch.tensor([[1.0, 0.0, 0.25]]), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(with_hole[0, [0, 1, 3]], without[0])
    assert with_hole[0, 2] == 0
    lonely = advantages(rewards, torch.tensor([[True, False, False, False]]))
    assert lonely.abs().sum() == 0


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


def test_kl_estimators_agree_in_expectation_with_the_exact_sum():
    gen = torch.Generator().manual_seed(0)
    p, q = (torch.randn(8, generator=gen, dtype=torch.float64).mul(0.3).log_softmax(-1) for _ in range(2))
    exact = (p.exp() * (p - q)).sum()
    for kind, tolerance in (("k1", 1e-12), ("k3", 1e-12), ("k2", 0.02)):
        mean = (p.exp() * kl_estimate(kind, p, q, None)).sum()
        assert abs(mean - exact) <= tolerance, kind
    assert (kl_estimate("k3", p, q, None) >= 0).all()
    with pytest.raises(ValueError, match="exact"):
        kl_estimate("exact", p, q, None)
