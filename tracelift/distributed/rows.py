"""A rank's rows of a sharded tensor."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def local(x: Tensor) -> Tensor:
    """This rank's rows of a sharded tensor, sharing its memory; any other tensor as it is."""
    return x.to_local() if isinstance(x, DTensor) else x


def first_row_of(x: Tensor) -> int:
    """The place of this rank's first row in the whole tensor: rows are dealt as by torch.chunk."""
    if not isinstance(x, DTensor):
        return 0
    return min(x.shape[0], x.device_mesh.get_local_rank() * -(-x.shape[0] // x.device_mesh.size()))


def zeros_like_rows_of(p: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros of the whole `shape`, sharded by rows as `p` is."""
    if not isinstance(p, DTensor):
        return torch.zeros(shape, dtype=dtype, device=p.device)
    here = torch.zeros((local(p).shape[0], *shape[1:]), dtype=dtype, device=p.device)
    return DTensor.from_local(here, p.device_mesh, p.placements, run_check=False, shape=torch.Size(shape),
                              stride=torch.empty(shape, device="meta").stride())  # fmt: skip
