"""The update whose gradient is formed going forward is the update that scores first and differentiates after."""

import math

import pytest
import torch

import kernels
from support.updates import groups_of, update


def score_first(hidden, weight, targets, loss, *data, **options):
    """`linear_loss` the long way: all scores, then the objective of all tokens, then autograd through both."""
    scores = kernels.linear_logprob(hidden, weight, targets, **options)
    return loss(scores, *data), kernels.TokenScores(*(None if s is None else s.detach() for s in scores))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        (),
        (
            "--grpo.aggregate",
            "sequence",
            "--grpo.entropy_coef",
            "0.05",
            "--grpo.kl_coef",
            "0.2",
            "--grpo.kl_estimator",
            "k3",
        ),
        ("--grpo.kl_coef", "0.2", "--grpo.kl_estimator", "exact"),
    ],
)
def test_same_metrics_and_gradients(monkeypatch, settings, lora):
    calls = []
    real = kernels.linear_loss

    def counted(hidden, weight, targets, loss, *data, **options):
        calls.append(len(targets))
        return real(hidden, weight, targets, loss, *data, chunk=16, **options)  # several chunks a micro-batch

    monkeypatch.setattr(kernels, "linear_loss", counted)
    metrics, grads = update(groups_of(4, 4), *settings, lora=lora)
    assert len(calls) > 1 and max(calls) > 32  # micro-batches, of more than one chunk
    monkeypatch.setattr(kernels, "linear_loss", score_first)
    expected, expected_grads = update(groups_of(4, 4), *settings, lora=lora)
    assert metrics.keys() == expected.keys() and metrics["clip_low"] > 0 and metrics["clip_high"] > 0
    for name, value in expected.items():
        assert math.isclose(metrics[name], value, rel_tol=1e-5, abs_tol=1e-7), name
    assert any(g.abs().max() > 1e-4 for g in expected_grads)
    for a, b in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_a_sequence_ratio_waits_for_all_its_tokens(monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a chunk does not hold a whole sequence")

    monkeypatch.setattr(kernels, "linear_loss", forbidden)
    metrics, _ = update(groups_of(4, 4), "--grpo.importance", "sequence")
    assert metrics["grad_norm"] > 0
