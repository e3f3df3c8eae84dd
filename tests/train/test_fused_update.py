"""The update whose gradient is formed going forward is the update that scores first and differentiates after."""

import math

import pytest
import torch

import kernels
from models import ModelConfig, Transformer
from models.lora import LoRAConfig, attach
from tracelift.config import load_config
from tracelift.distributed.world import World
from tracelift.rl.grpo import Reference
from tracelift.rl.sample import Sample
from tracelift.sampler import Completion
from tracelift.tasks.task import Task
from tracelift.training.learner import Learner
from train import update_policy

SHAPE = ModelConfig(211, 32, 48, 2, 4, 2, 8, 256, tied_head=True, qkv_bias=True, family="qwen2")


def groups_of(P: int, G: int) -> list[list[Sample]]:
    """Uneven completions whose old log-probs are near the policy's for some tokens and past the clip for others."""
    gen = torch.Generator().manual_seed(1)
    groups = []
    for p in range(P):
        prompt = torch.randint(211, (5 + p,), generator=gen).tolist()
        group = []
        for g in range(G):
            tokens = torch.randint(211, (3 + 5 * ((p + g) % 4),), generator=gen).tolist()
            old = (-math.log(211) + 0.3 * torch.randn(len(tokens), generator=gen)).tolist()
            group.append(
                Sample(Task("p", "", "0"), prompt, Completion(tokens, old), "", None, reward=float((p + g) % 3))
            )
        groups.append(group)
    return groups


def update(monkeypatch, linear_loss, lora: bool, *settings: str) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Metrics of one round of one update, and the gradients the optimizer saw."""
    config = load_config(
        None,
        [
            "--grpo.problems",
            "4",
            "--planner.samples",
            "4",
            "--planner.temperature",
            "0.8",
            "--optim.micro_tokens",
            "120",
            *settings,
        ],
    )
    model = Transformer(SHAPE).init_weights(0, std=0.1)
    if lora:
        attach(model, LoRAConfig(4, 8.0), seed=1)
    reference = Reference(model) if config.grpo.kl_coef > 0 else None
    with torch.no_grad():  # away from the reference
        for i, p in enumerate(p for p in model.parameters() if p.requires_grad):
            p += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    learner, grads = Learner(model, config.optim, 10, World()), []
    step = learner.optimizer.step
    monkeypatch.setattr(
        learner.optimizer, "step", lambda: grads.extend(p.grad.clone() for p in learner.names) or step()
    )
    monkeypatch.setattr(kernels, "linear_loss", linear_loss)
    return update_policy(groups_of(4, 4), learner, reference, config, 0, 0), grads


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

    metrics, grads = update(monkeypatch, counted, lora, *settings)
    assert len(calls) > 1 and max(calls) > 32  # micro-batches, of more than one chunk
    expected, expected_grads = update(monkeypatch, score_first, lora, *settings)
    assert metrics.keys() == expected.keys() and metrics["clip_low"] > 0 and metrics["clip_high"] > 0
    for name, value in expected.items():
        assert math.isclose(metrics[name], value, rel_tol=1e-5, abs_tol=1e-7), name
    assert any(g.abs().max() > 1e-4 for g in expected_grads)
    for a, b in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_a_sequence_ratio_waits_for_all_its_tokens(monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a chunk does not hold a whole sequence")

    metrics, _ = update(monkeypatch, forbidden, False, "--grpo.importance", "sequence")
    assert metrics["grad_norm"] > 0
