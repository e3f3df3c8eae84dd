"""Tiny models shared by the tests of this room. Norm weights and biases are random too, so that a swap shows."""

import pytest
import torch

from models import ModelConfig, Transformer


def tiny_config(**changes) -> ModelConfig:
    shape = dict(
        vocab_size=61, hidden_size=24, intermediate_size=40, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=6,
        max_positions=64, norm_eps=1e-3,
    )  # fmt: skip
    return ModelConfig(**{**shape, **changes})


def randomise(module: torch.nn.Module, seed: int) -> None:
    gen = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data = (torch.randn(p.shape, generator=gen) * 0.25 + (p.dim() == 1)).to(p.dtype)


@pytest.fixture
def make_model():
    """make_model(seed=0, **config changes) -> a random tiny Transformer in eval mode."""

    def make(seed: int = 0, **changes) -> Transformer:
        model = Transformer(tiny_config(**changes))
        randomise(model, seed)
        return model.eval()

    return make


@pytest.fixture
def tokens():
    return torch.randint(0, 61, (2, 40), generator=torch.Generator().manual_seed(7))
