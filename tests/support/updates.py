"""One round's update on made-up groups of a small random model: what tests of train.update_policy share."""

import math

import torch

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
            completion = Completion(tokens, old, finish_reason="stop")
            group.append(Sample(Task("p", "", "0"), prompt, completion, "", None, reward=float((p + g) % 3)))
        groups.append(group)
    return groups


def update(
    groups: list[list[Sample]], *settings: str, lora: bool = False
) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Metrics of one round on groups of equal size, and the gradients that the optimizer saw in it."""
    words = {"grpo.problems": len(groups), "planner.samples": len(groups[0]), "planner.temperature": 0.8}
    flags = [word for key, value in words.items() for word in (f"--{key}", str(value))]
    config = load_config(None, [*flags, "--optim.micro_tokens", "120", *settings])
    model = Transformer(SHAPE).init_weights(0, std=0.1)
    if lora:
        attach(model, LoRAConfig(4, 8.0), seed=1)
    reference = Reference(model) if config.grpo.kl_coef > 0 else None
    with torch.no_grad():  # away from the reference
        for i, p in enumerate(p for p in model.parameters() if p.requires_grad):
            p += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    learner, grads = Learner(model, config.optim, 10, World()), []
    step = learner.optimizer.step
    learner.optimizer.step = lambda: grads.extend(p.grad.clone() for p in learner.names) or step()
    return update_policy(groups, learner, reference, config, 0, 0), grads
