"""The shape of a decoder-only transformer, independent of any file format.

`ModelConfig` holds exactly what `models.transformer.Transformer` reads. Translating Hugging Face's config.json to and
from it lives in `models/hf_config.py`. Left out on purpose: dropout, sliding windows, mixture of experts, attention
soft-caps; a checkpoint that uses one of these is refused, not approximated.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's frequency-dependent rescaling of the rotary embedding (the only scaling supported)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True)
class ModelConfig:
    """Architecture constants; every size is in elements, `max_positions` in tokens."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    tied_head: bool = True  # the output projection is the embedding matrix
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False  # Qwen3: RMSNorm over head_dim on queries and keys
    family: str = "llama"  # llama | mistral | qwen2 | qwen3; decides only how config.json is written back

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even for rotary embeddings")
