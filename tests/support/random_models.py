"""Tiny random transformers for the tests of models/."""

import torch

from models import ModelConfig


def tiny_config(**changes) -> ModelConfig:
    shape = dict(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=40,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=6,
        max_positions=64,
        norm_eps=1e-3,
    )
    return ModelConfig(**{**shape, **changes})


def randomise(module: torch.nn.Module, seed: int) -> None:
    gen = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data = (torch.randn(p.shape, generator=gen) * 0.25 + (p.dim() == 1)).to(p.dtype)
