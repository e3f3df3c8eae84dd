"""A minimal decoder-only transformer: Llama, Mistral, Qwen2, Qwen3, SmolLM3, OLMo 2, Granite, Phi-3 and Seed-OSS in one.

Blocks of grouped-query attention with rotary positions and a SwiGLU MLP; where families differ, a field of ModelConfig
says how. Parameter names are those of the Hugging Face checkpoints (`model.layers.0.self_attn.q_proj.weight`, ...), so
loading needs no renaming. How queries meet keys is the caller's choice: `attend` is one function, so that the KV-cached
sampler, packed training batches and plain causal attention all run through this same file.

Left out on purpose: any parallelism (see tracelift/distributed/parallel.py), KV caches (tracelift/sampler), LoRA (models/lora.py),
initialisation schemes beyond one normal draw, and dropout.

Shape letters: B batch, T tokens, D hidden, F intermediate, H query heads, G key/value heads, E head_dim, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.cpu_linear import linear
from models.config import ModelConfig

# attend(layer, q (B,T,H,E), k (B,T,G,E), v (B,T,G,E)) -> (B,T,H,E); q and k already carry their rotary phase.
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def causal_attention(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain causal attention inside one right-padded batch: padding sits after every real token, so none sees it."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
    return out.transpose(1, 2)


class Linear(nn.Linear):
    """nn.Linear by way of kernels.cpu_linear, which on a CPU takes the faster of PyTorch's two fp32 libraries."""

    def forward(self, input: Tensor) -> Tensor:  # (..., in) -> (..., out)
        return linear(input, self.weight, self.bias)


class RMSNorm(nn.Module):
    """x / rms(x) · weight, the mean of squares taken in at least fp32 whatever the dtype of x."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (..., D) -> (..., D)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # fp64 stays, for tests against exact gradients
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def rope_frequencies(config: ModelConfig) -> Tensor:  # -> (E/2,) fp32, radians per token
    """Rotary frequencies θ^(−2i/E), rescaled for long contexts where the config asks for it."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
    freq = 1.0 / config.rope_theta**exponent
    return freq if config.rope_scaling is None else config.rope_scaling.rescaled(freq, config.rope_theta)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # (B,T,*,E), (B,T,1,E/2) -> (B,T,*,E)
    """Turn each pair (x_i, x_{i+E/2}) by its angle: the half-split layout of Hugging Face checkpoints."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        D, E, H, G = config.hidden_size, config.head_dim, config.num_heads, config.num_kv_heads
        self.layer, self.head_dim = layer, E
        self.q_proj = Linear(D, H * E, bias=config.qkv_bias)
        self.k_proj = Linear(D, G * E, bias=config.qkv_bias)
        self.v_proj = Linear(D, G * E, bias=config.qkv_bias)
        self.o_proj = Linear(H * E, D, bias=config.o_bias)
        self.norm_whole = config.qk_norm_whole
        self.q_norm = RMSNorm(H * E if self.norm_whole else E, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(G * E if self.norm_whole else E, config.norm_eps) if config.qk_norm else None
        self.turns = layer not in config.rope_free_layers
        # Every `attend` computes softmax(q·k/√E); another multiplier than 1/√E goes into q.
        m = config.attention_multiplier
        self.q_scale = 1.0 if m is None else m * E**0.5

    def heads(self, x: Tensor, norm: RMSNorm | None) -> Tensor:  # (B,T,*·E) -> (B,T,*,E)
        if norm is None or not self.norm_whole:
            x = x.unflatten(-1, (-1, self.head_dim))
            return x if norm is None else norm(x)
        return norm(x).unflatten(-1, (-1, self.head_dim))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:  # (B,T,D) -> (B,T,D)
        q, k = self.heads(self.q_proj(x), self.q_norm), self.heads(self.k_proj(x), self.k_norm)
        v = self.heads(self.v_proj(x), None)
        if self.turns:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if self.q_scale != 1:
            q = q * self.q_scale
        return self.o_proj(attend(self.layer, q, k, v).flatten(-2))


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, Ff, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(D, Ff, bias=bias)
        self.up_proj = Linear(D, Ff, bias=bias)
        self.down_proj = Linear(Ff, D, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # (B,T,D) -> (B,T,D)
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention and MLP, each added to the stream: x + m·f(norm(x)), or with post_norm x + m·norm(f(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        D, eps = config.hidden_size, config.norm_eps
        self.post_norm, self.multiplier = config.post_norm, config.residual_multiplier
        if not self.post_norm:
            self.input_layernorm = RMSNorm(D, eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(D, eps)  # the MLP's norm; with post_norm, what it says
        self.mlp = MLP(config)
        if self.post_norm:
            self.post_feedforward_layernorm = RMSNorm(D, eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:  # (B,T,D) -> (B,T,D)
        if self.post_norm:
            out = self.post_attention_layernorm(self.self_attn(x, cos, sin, attend))
            x = torch.add(x, out, alpha=self.multiplier)
            return torch.add(x, self.post_feedforward_layernorm(self.mlp(x)), alpha=self.multiplier)
        x = torch.add(x, self.self_attn(self.input_layernorm(x), cos, sin, attend), alpha=self.multiplier)
        return torch.add(x, self.mlp(self.post_attention_layernorm(x)), alpha=self.multiplier)


def embedding(rows: int, width: int) -> nn.Embedding:
    """nn.Embedding; on the meta device without its first draw, which would import torch's compiler to draw nothing."""
    table = torch.empty(rows, width)
    return nn.Embedding.from_pretrained(table, freeze=False) if table.is_meta else nn.Embedding(rows, width)


class Backbone(nn.Module):
    """Embedding, blocks and final norm: everything under `model.` in a Hugging Face checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.register_buffer("rope_freq", rope_frequencies(config), persistent=False)
        self.rope_length = 1.0 if config.rope_scaling is None else config.rope_scaling.attention_factor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Backbone:
        """`model.to(bfloat16)` must not round the frequencies: at 8 bits, position 1000 is radians off."""
        super()._apply(fn, recurse)
        self.rope_freq = rope_frequencies(self.config).to(self.rope_freq.device)
        return self

    def forward(self, tokens: Tensor, positions: Tensor | None = None, attend: Attend = causal_attention) -> Tensor:
        # tokens (B,T) int64, positions (B,T) or (1,T) int64 -> (B,T,D)
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        x = self.embed_tokens(tokens)
        if self.config.embedding_multiplier != 1:
            x = x * self.config.embedding_multiplier
        angle = positions[..., None, None].float() * self.rope_freq.float()  # (B,T,1,E/2), fp32: phases need the bits
        cos, sin = (self.rope_length * f(angle) for f in (torch.cos, torch.sin))
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        for block in self.layers:
            x = block(x, cos, sin, attend)
        return self.norm(x)


class Transformer(nn.Module):
    """A causal language model. `model(tokens)` gives final hidden states; `model.logits(hidden)` projects them.

    The two are apart because the projection is the expensive half for large vocabularies: training hands `hidden`
    and `head_weight` to `kernels.linear_logprob`, and the sampler projects only the last position.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = None if config.tied_head else Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, tokens: Tensor, positions: Tensor | None = None, attend: Attend = causal_attention) -> Tensor:
        """tokens (B,T) int64 → hidden states (B,T,D) after the final norm, in the model's dtype.

        They are divided by logits_scaling here, once, since many multiply them by `head_weight` themselves.
        """
        hidden = self.model(tokens, positions, attend)
        return hidden if self.config.logits_scaling == 1 else hidden / self.config.logits_scaling

    @property
    def head_weight(self) -> Tensor:  # (V,D)
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) → logits (..., V) in the model's dtype."""
        return linear(hidden, self.head_weight)

    @property
    def dtype(self) -> torch.dtype:
        return self.model.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.model.norm.weight.device

    @torch.no_grad()
    def init_weights(self, seed: int, std: float = 0.02) -> Transformer:
        """Fill with N(0, std²), residual outputs scaled by 1/√(2·layers) so that depth does not grow the stream."""
        gen = torch.Generator(device="cpu").manual_seed(seed)
        residual = std / math.sqrt(2 * self.config.num_layers)
        for name, p in self.named_parameters():
            if name.endswith(".bias"):
                p.zero_()
            elif p.dim() == 1:
                p.fill_(1.0)
            else:
                scale = residual if name.endswith(("o_proj.weight", "down_proj.weight")) else std
                p.copy_(torch.randn(p.shape, generator=gen) * scale)
        return self
