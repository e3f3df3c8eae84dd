"""The Reason Reward Model R(x, z): a decoder backbone with rubric heads on the last real token (arXiv 2605.03862).

    E_d     = Σ_c c · softmax(head_d(h))_c            expected label of dimension d, labels 0 … C−1
    derived = Σ_d w_d · E_d / (C − 1)
    head    = sigmoid(total_head(h))
    total   = ½ · (derived + head), or derived where the model has no total head

Files are in the layout of the authors' released models: backbone under "model.", "dimension_heads.{i}", "total_head",
and in config.json `rm_dimension_names`, `rm_dimension_weights`, `rm_num_labels`, `rm_use_total_head`, and where training
noted them the kinds of flaw it showed, `rm_flaw_kinds`. Heads that do not
fit the config are an error, never re-drawn in silence.

Left out on purpose: losses and training (tracelift), input text (tracelift), dropout before the heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checkpoint import effective_state, load_weights, write_folder
from models.config import ModelConfig
from models.config_json import CheckpointError
from models.hf_config import REWARD_ARCHITECTURE_SUFFIX, architecture_name, check_folder, read_config, to_hf_config
from models.lora import load_adapter
from models.shards import tensor_files
from models.text.tokenizer import Tokenizer
from models.transformer import Attend, Backbone, Transformer, causal_attention

_MOST = 1000  # dimensions, or labels of each: more are a mistake, and a module each


@dataclass(frozen=True)
class RewardConfig:
    """What the heads judge: rubric dimensions by name, their weights in `derived`, and the number of classes each.

    flaw_kinds: the kinds of flaw that training showed them, for whoever asks what they never met; empty where nobody noted it.
    """

    dimension_names: tuple[str, ...]
    dimension_weights: tuple[float, ...] = (0.2, 0.2, 0.2, 0.2, 0.2)
    num_labels: int = 5
    use_total_head: bool = True
    flaw_kinds: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.dimension_names or len(self.dimension_names) != len(self.dimension_weights):
            raise ValueError(
                f"{len(self.dimension_names)} rubric dimension names against {len(self.dimension_weights)} weights"
            )
        if self.num_labels < 2:
            raise ValueError(f"a rubric needs at least 2 labels, got {self.num_labels}")
        if not all(math.isfinite(w) for w in self.dimension_weights):
            raise ValueError(f"rubric weights must be finite, got {self.dimension_weights}")


class RewardScores(NamedTuple):
    """All fp32. `dimensions` are expected labels in [0, num_labels − 1]; `head` is None without a total head."""

    total: Tensor  # (B,)
    derived: Tensor  # (B,)
    head: Tensor | None  # (B,)
    dimensions: Tensor  # (B, dims)


class RewardModel(nn.Module):
    def __init__(self, config: ModelConfig, reward: RewardConfig, head_bias: bool = True) -> None:
        super().__init__()
        self.config, self.reward = config, reward
        self.model = Backbone(config)
        self.dimension_heads = nn.ModuleList(
            nn.Linear(config.hidden_size, reward.num_labels, bias=head_bias) for _ in reward.dimension_names
        )
        self.total_head = nn.Linear(config.hidden_size, 1, bias=head_bias) if reward.use_total_head else None

    @classmethod
    def from_transformer(cls, transformer: Transformer, reward: RewardConfig, seed: int = 0) -> RewardModel:
        """A language model's backbone (shared, not copied) under fresh heads, drawn N(0, 0.02²) with zero bias."""
        with torch.device("meta"):
            rm = cls(transformer.config, reward)
        rm.model = transformer.model
        gen = torch.Generator().manual_seed(seed)
        for head in rm.heads():
            weight = torch.randn(head.weight.shape, generator=gen) * 0.02
            head.weight = nn.Parameter(weight.to(transformer.device, transformer.dtype))
            head.bias = nn.Parameter(head.weight.new_zeros(head.out_features))
        return rm.train(transformer.training)

    def heads(self) -> list[nn.Linear]:
        return [h for h in (*self.dimension_heads, self.total_head) if isinstance(h, nn.Linear)]

    def forward(
        self, tokens: Tensor, lengths: Tensor, positions: Tensor | None = None, attend: Attend = causal_attention
    ) -> tuple[Tensor, Tensor | None]:
        """tokens (B,T) int64 right-padded, lengths (B,) → dimension logits (B,dims,C), total logit (B,) or None.

        Raises ValueError where a length is not in 1 … T.
        """
        if lengths.shape != tokens.shape[:1] or lengths.min() < 1 or lengths.max() > tokens.shape[1]:
            raise ValueError(f"lengths must be {len(tokens)} values in 1 … {tokens.shape[1]}, got {lengths.tolist()}")
        hidden = self.model(tokens, positions, attend)
        last = lengths.to(hidden.device) - 1
        return self.judge(hidden[torch.arange(len(hidden), device=hidden.device), last])

    def judge(self, pooled: Tensor) -> tuple[Tensor, Tensor | None]:  # (B,D) -> (B,dims,C), (B,) | None
        """The heads alone, for callers that have the last hidden state already (packed or prefix-shared scoring)."""
        logits = torch.stack([head(pooled) for head in self.dimension_heads], dim=1)
        return logits, None if self.total_head is None else self.total_head(pooled).squeeze(-1)

    def combine(self, dimension_logits: Tensor, total_logit: Tensor | None) -> RewardScores:
        """Logits → scores by the equations above, in fp32 (fp64 stays); differentiable."""
        wide = torch.promote_types(dimension_logits.dtype, torch.float32)
        probs = F.softmax(dimension_logits.to(wide), dim=-1)  # (B,dims,C)
        dimensions = probs @ torch.arange(self.reward.num_labels, dtype=wide, device=probs.device)
        weights = torch.tensor(self.reward.dimension_weights, dtype=wide, device=probs.device)
        derived = dimensions @ weights / (self.reward.num_labels - 1)
        if total_logit is None:
            return RewardScores(derived, derived, None, dimensions)
        head = torch.sigmoid(total_logit.to(wide))
        return RewardScores(0.5 * (derived + head), derived, head, dimensions)

    @torch.no_grad()
    def score(self, tokens: Tensor, lengths: Tensor) -> RewardScores:
        """tokens (B,T) int64 right-padded, lengths (B,) → total, derived, head (B,) and dimensions (B,dims)."""
        return self.combine(*self(tokens, lengths))

    @property
    def dtype(self) -> torch.dtype:
        return self.model.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.model.norm.weight.device


def load_reward_model(
    path: str | PathLike[str],
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    adapter: str | PathLike[str] | None = None,
) -> RewardModel:
    """A Reason RM folder (+ a PEFT LoRA folder) → RewardModel in eval mode. Raises as `models.load_pretrained`."""
    folder = check_folder(path)
    config, reward = read_reward_config(folder)
    names = {name for names in tensor_files(folder).values() for name in names}
    with torch.device("meta"):
        rm = RewardModel(config, reward, head_bias="dimension_heads.0.bias" in names)
    load_weights(rm, folder, dtype, device)
    if adapter is not None:
        load_adapter(rm, adapter)
    return rm.eval()


def read_reward_config(path: str | PathLike[str]) -> tuple[ModelConfig, RewardConfig]:
    """A Reason RM's backbone and heads, from config.json alone. Raises as `models.load_pretrained`."""
    config, raw = read_config(path)
    return config, _parse(raw, Path(path) / "config.json")


def save_reward_model(
    rm: RewardModel,
    path: str | PathLike[str],
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int = 5_000_000_000,
    notes: Mapping[str, str] | None = None,
) -> None:
    """RewardModel → a folder in the authors' layout, adapters merged. Raises as `models.save_pretrained`.

    notes: further text files that belong to these weights and are replaced with them, by name.
    """
    raw = to_hf_config(rm.config, rm.dtype)
    raw |= {
        "architectures": [architecture_name(rm.config.family, REWARD_ARCHITECTURE_SUFFIX)],
        "rm_dimension_names": list(rm.reward.dimension_names),
        "rm_dimension_weights": list(rm.reward.dimension_weights),
        "rm_num_labels": rm.reward.num_labels,
        "rm_use_total_head": rm.reward.use_total_head,
        **({"rm_flaw_kinds": list(rm.reward.flaw_kinds)} if rm.reward.flaw_kinds else {}),
    }
    write_folder(path, effective_state(rm), raw, tokenizer, max_shard_bytes, notes)


def _parse(raw: dict[str, Any], where: Path) -> RewardConfig:
    names, weights = raw.get("rm_dimension_names"), raw.get("rm_dimension_weights")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or len(names) > _MOST:
        raise CheckpointError(f'{where}: "rm_dimension_names" is missing or no list of names; is this a Reason RM?')
    if not isinstance(weights, list) or not all(isinstance(w, (int, float)) for w in weights):
        raise CheckpointError(f'{where}: "rm_dimension_weights" is missing or no list of numbers')
    labels, use_total = raw.get("rm_num_labels", 5), raw.get("rm_use_total_head", True)
    if not isinstance(labels, int) or labels > _MOST or not isinstance(use_total, bool):
        raise CheckpointError(f'{where}: "rm_num_labels" must be an integer and "rm_use_total_head" true or false')
    kinds = raw.get("rm_flaw_kinds", [])
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise CheckpointError(f'{where}: "rm_flaw_kinds" is no list of names')
    try:
        return RewardConfig(tuple(names), tuple(map(float, weights)), labels, use_total, tuple(kinds))
    except (ValueError, OverflowError) as e:
        raise CheckpointError(f"{where}: {e}") from None
