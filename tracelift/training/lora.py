"""Fresh adapters from the [lora] section."""

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
    if not config.r:
        return
    targets: tuple[str, ...] | str = tuple(config.targets)
    if config.from_block:
        blocks = range(config.from_block, model.config.num_layers)
        if not blocks:
            raise ValueError(
                f"lora.from_block = {config.from_block}, but the model's {model.config.num_layers} blocks count from 0"
            )
        names = "|".join(map(re.escape, config.targets))
        targets = rf".*\.layers\.({'|'.join(map(str, blocks))})\.(.*\.)?({names})"  # PEFT reads a string the same way
    attach(model, LoRAConfig(config.r, config.alpha, config.dropout, targets, also_train), seed)
