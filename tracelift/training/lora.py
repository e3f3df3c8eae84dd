"""Fresh adapters from the [lora] section. Left out: the adapters themselves (models/lora.py)."""

from __future__ import annotations

import re

from models import RewardModel, Transformer
from models.lora import LoRAConfig, attach
from tracelift.config.schema import LoraConfig


def attach_lora(
    model: Transformer | RewardModel, config: LoraConfig, seed: int, also_train: tuple[str, ...] = ()
) -> None:
    """Fresh adapters in place, everything else but `also_train` frozen; nothing for r = 0.

    Raises ValueError where `lora.from_block` leaves no block, or a target names nothing.
    """
    if config.r:
        targets = lora_targets(config, model.config.num_layers)
        attach(model, LoRAConfig(config.r, config.alpha, config.dropout, targets, also_train), seed)


def lora_targets(config: LoraConfig, layers: int) -> tuple[str, ...] | str:
    """`lora.targets` of the blocks from `lora.from_block` on, as PEFT writes them. Raises ValueError where no block is left."""
    if not config.from_block:
        return tuple(config.targets)
    blocks = range(config.from_block, layers)
    if not blocks:
        raise ValueError(f"lora.from_block = {config.from_block}, but the model's {layers} blocks count from 0")
    names = "|".join(map(re.escape, config.targets))
    return rf".*\.layers\.({'|'.join(map(str, blocks))})\.(.*\.)?({names})"  # PEFT reads a string the same way
