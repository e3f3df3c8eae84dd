"""An optimizer's states as named tensors, for safetensors files, and back.

Left out: when and where a checkpoint is written (tracelift/runs/folder.py).
"""

from __future__ import annotations

import torch


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: dict[torch.nn.Parameter, str]
) -> dict[str, torch.Tensor]:
    """An optimizer's per-parameter state as named tensors: `NAME.exp_avg`, `NAME.exp_avg_sq`, `NAME.step`."""
    return {
        f"{names[p]}.{key}": value.detach().cpu().contiguous()
        for p, state in optimizer.state.items()
        if isinstance(p, torch.nn.Parameter)
        for key, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[torch.nn.Parameter, str], tensors: dict[str, torch.Tensor]
) -> None:
    """Put `optimizer_tensors` back. Raises ValueError where they belong to another model."""
    by_name = {name: p for p, name in names.items()}
    for full, value in tensors.items():
        name, _, key = full.rpartition(".")
        if name not in by_name:
            raise ValueError(f"optimizer state holds '{name}', which this model does not train")
        p = by_name[name]
        optimizer.state[p][key] = value.to(p.device, copy=True)  # `step` too: the fused optimizer wants it beside p
