"""Tiny random transformers for tests, and what each family adds to the plain one."""

import torch

from models import ModelConfig

# By family as it is written: the fields of ModelConfig that make it one. A Phi-3 is a Llama here.
FIELDS: dict[str, dict] = {
    "llama": dict(),
    "mistral": dict(family="mistral", tied_head=False),
    "qwen2": dict(family="qwen2", qkv_bias=True),
    "qwen3": dict(family="qwen3", qk_norm=True, tied_head=False),
    "smollm3": dict(family="smollm3", rope_free_layers=(1,)),
    "olmo2": dict(family="olmo2", qk_norm=True, qk_norm_whole=True, post_norm=True, tied_head=False),
    "granite": dict(
        family="granite",
        embedding_multiplier=6.0,
        residual_multiplier=0.7,
        attention_multiplier=0.1,
        logits_scaling=3.0,
    ),
    "seed_oss": dict(family="seed_oss", qkv_bias=True, tied_head=False),
}


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
