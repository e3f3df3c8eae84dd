"""The shape of a decoder-only transformer, and the families that are one.

`ModelConfig` holds exactly what `models.transformer.Transformer` reads: what families do differently is a field with its
formula, never a class. `FAMILIES` says what each model_type of Hugging Face's assumes; translating config.json by it
lives in `models/hf_config.py`. The three rescalings of rotary frequencies stand here with their constants.

Left out on purpose: dropout, sliding windows, mixture of experts, attention soft-caps, partial rotary embeddings; a
checkpoint that uses one of these is refused, not approximated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Family:
    """What a model_type means: its class in transformers, and what that class assumes for a key config.json omits."""

    prefix: str
    max_positions: int
    kv_heads: int | None = None  # None: as many as query heads
    head_dim: int | None = None  # None: hidden_size / heads
    theta: float = 10_000.0
    eps: float = 1e-6
    tied: bool = False
    biases: tuple[str, ...] = ()  # the bias keys its class reads; of these, the ones that are true by default:
    biased: tuple[str, ...] = ()
    window: int | None = None  # sliding_window
    window_switch: bool = False  # a window counts only where use_sliding_window is true
    written_as: str = ""  # the family whose files we write, where that is another


_BOTH = ("attention_bias", "mlp_bias")
FAMILIES = {
    "llama": Family("Llama", 2048, biases=_BOTH),
    "mistral": Family("Mistral", 131_072, kv_heads=8, window=4096),
    "qwen2": Family("Qwen2", 32_768, kv_heads=32, window=4096, window_switch=True),
    "qwen3": Family("Qwen3", 32_768, 32, 128, biases=("attention_bias",), window=4096, window_switch=True),
    "smollm3": Family("SmolLM3", 32_768, kv_heads=4, theta=2e6, tied=True, biases=_BOTH, window_switch=True),
    "olmo2": Family("Olmo2", 2048, eps=1e-5, biases=("attention_bias",)),
    "granite": Family("Granite", 2048, biases=_BOTH),
    "phi3": Family("Phi3", 4096, eps=1e-5, written_as="llama"),  # once its fused weights are split
    "seed_oss": Family(
        "SeedOss", 524_288, 8, 128, biases=(*_BOTH, "attention_out_bias"), biased=("attention_bias",)
    ),
}  # fmt: skip


@dataclass(frozen=True)
class LinearScaling:
    """Position interpolation (Chen et al. 2023, arXiv 2306.15595): every wave turns `factor` times slower."""

    attention_factor: ClassVar[float] = 1.0
    factor: float

    def rescaled(self, freq: Tensor, theta: float) -> Tensor:  # (E/2,) -> (E/2,)
        return freq / self.factor


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's rescaling: long waves are slowed by `factor`, short ones kept, those between interpolated by how often
    they turn within the original context."""

    attention_factor: ClassVar[float] = 1.0
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    def rescaled(self, freq: Tensor, theta: float) -> Tensor:  # (E/2,) -> (E/2,)
        wavelength = 2 * math.pi / freq
        turns = self.original_max_positions / wavelength
        keep = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return freq * keep + freq / self.factor * (1 - keep)


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (Peng et al. 2023, arXiv 2309.00071): waves that turn less than `beta_slow` times within the original context
    are slowed by `factor`, those that turn more than `beta_fast` times kept, and a ramp over the index i between. Queries
    and keys are longer by `attention_factor` each, so that attention is as sharp as before."""

    factor: float
    original_max_positions: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True  # the ramp's ends are whole indices

    def rescaled(self, freq: Tensor, theta: float) -> Tensor:  # (E/2,) -> (E/2,)
        half = len(freq)

        def index(turns: float) -> float:  # where θ^(−i/half) · positions = 2π · turns
            return half * math.log(self.original_max_positions / (2 * math.pi * turns)) / math.log(theta)

        low, high = index(self.beta_fast), index(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * half - 1)
        slow = ((torch.arange(half, device=freq.device) - low) / (high - low or 0.001)).clamp(0, 1)
        return freq * (1 - slow) + freq / self.factor * slow


def yarn_attention_factor(factor: float, mscale: float = 1.0) -> float:
    """YaRN's length of queries and keys where a file gives none: 0.1 · mscale · ln(factor) + 1 (its equation 22)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


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
    rope_scaling: RopeScaling | YarnScaling | LinearScaling | None = None
    tied_head: bool = True  # the output projection is the embedding matrix
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False  # Qwen3, OLMo 2: RMSNorm on queries and keys before they turn
    qk_norm_whole: bool = False  # OLMo 2: that norm's mean is over all heads together, not over each
    post_norm: bool = False  # OLMo 2: x + norm(f(x)) instead of x + f(norm(x))
    rope_free_layers: tuple[int, ...] = ()  # SmolLM3: layers whose queries and keys do not turn
    embedding_multiplier: float = 1.0  # Granite: blocks start from m · embedding
    residual_multiplier: float = 1.0  # Granite: x + m · f(norm(x))
    attention_multiplier: float | None = None  # Granite: softmax(m · q·k); None: m = 1/√head_dim
    logits_scaling: float = 1.0  # Granite: logits = W · hidden / s
    family: str = "llama"  # a key of FAMILIES; decides only how config.json is written back

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even for rotary embeddings")
