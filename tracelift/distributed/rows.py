"""Tensors whose rows are dealt over ranks (DTensors): telling them, their part on this rank, others laid out alike.

torch.distributed.tensor takes as long to import as torch itself, and most processes never meet a sharded tensor. So it is
imported by whoever makes one, and everybody else asks `is_sharded`.

Left out: who shards (tracelift/distributed/parallel.py), files of shards (tracelift/distributed/sharded_checkpoint.py).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(x: Tensor) -> TypeGuard[DTensor]:
    """Whether `x` is a DTensor: where their module was never imported there is none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def place(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor that every rank holds, laid out as `like` is. Collective where that is sharded."""
    value = value.to(like.device)
    if not is_sharded(like) or value.dim() == 0:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.contiguous(), like.device_mesh, like.placements)


def local(x: Tensor) -> Tensor:
    """This rank's rows of a sharded tensor, sharing its memory; any other tensor as it is."""
    return x.to_local() if is_sharded(x) else x


def first_row_of(x: Tensor) -> int:
    """The place of this rank's first row in the whole tensor: rows are dealt as by torch.chunk."""
    if not is_sharded(x):
        return 0
    return min(x.shape[0], x.device_mesh.get_local_rank() * -(-x.shape[0] // x.device_mesh.size()))


def zeros_like_rows_of(p: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros of the whole `shape`, sharded by rows as `p` is."""
    if not is_sharded(p):
        return torch.zeros(shape, dtype=dtype, device=p.device)
    here = torch.zeros((local(p).shape[0], *shape[1:]), dtype=dtype, device=p.device)
    return type(p).from_local(
        here,
        p.device_mesh,
        p.placements,
        run_check=False,
        shape=torch.Size(shape),
        stride=torch.empty(shape, device="meta").stride(),
    )
