"""Activation checkpointing from outside the model: a block keeps its input and is computed again in the backward pass.

One more forward pass (a third more arithmetic) for memory that no longer grows with what a block computes inside, only
with its input: for a 7 B shape about 1/20 (tracelift/training/memory_plan.py has the figures). Gradients are bit for bit the same: the
same operations run on the same numbers (tests/tracelift/training/test_memory_plan.py). Left out: choosing among the operations inside
a block, and keeping inputs on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.transformer import Block


def recompute_blocks(model: nn.Module) -> int:
    """Make every transformer block of `model` recompute itself, in place; returns their number. Doing it twice is once."""
    blocks = [m for m in model.modules() if isinstance(m, Block)]
    for block in blocks:
        if "forward" not in vars(block):
            # A bound method, so that copies of the model get their own.
            block.forward = partial(_recomputed, block.forward)  # pyright: ignore[reportAttributeAccessIssue]  takes any
    return len(blocks)


def _recomputed(forward: Callable[..., Tensor], *args: object) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*args)
    return checkpoint(forward, *args, use_reentrant=False)
