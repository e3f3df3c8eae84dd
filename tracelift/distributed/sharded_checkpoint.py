"""Checkpoints in shards: each rank writes its rows as a safetensors file, any number of ranks reads them back.

torch.distributed.checkpoint's Hugging Face storage; no pickle is written or read. It is imported on first use, like all
that knows of sharded tensors (tracelift/distributed/rows.py). Left out: which tensors a checkpoint holds
(tracelift/training/learner.py).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from tracelift.distributed.rows import zeros_like_rows_of
from tracelift.distributed.world import World

SHARD_FILES = "shard-*.safetensors"


def write_sharded(folder: Path, tensors: dict[str, Tensor], world: World) -> None:
    """Each rank's part of `tensors` into `folder`. Collective. Raises OSError, on every rank, where one could not write."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    if world.is_main:
        folder.mkdir(parents=True, exist_ok=True)
    world.barrier()
    try:
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as e:
        rank, (error, _) = next(iter(e.failures.items()))
        raise OSError(f"rank {rank}: {error}") from e


def read_sharded(folder: Path, likes: dict[str, Tensor], extra: str, world: World) -> dict[str, Tensor]:
    """Read `write_shards`' files into `likes` in place, sharded or whole as those are, on any number of ranks.

    What the files hold beside them is named `extra` + NAME + "." + key (optimizer states): made like the rows of
    `likes[NAME]` and returned. Raises ValueError on tensors that are missing, misshapen, unknown or incomplete.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(folder))
    wanted: dict[str, Tensor] = {name: p.detach() for name, p in likes.items()}
    found = reader.read_metadata().state_dict_metadata
    made = {}
    for name, stored in found.items():
        assert isinstance(stored, TensorStorageMetadata), "safetensors files hold tensors alone"
        if sum(math.prod(chunk.sizes) for chunk in stored.chunks) != math.prod(stored.size):
            raise ValueError(f"{folder}: '{name}' is incomplete: a shard's file is missing")
        if name in likes:
            if stored.size != likes[name].shape:
                raise ValueError(f"{folder}: '{name}' is {list(stored.size)}, this model's {list(likes[name].shape)}")
            continue
        owner = name.removeprefix(extra).rpartition(".")[0]
        if not name.startswith(extra) or owner not in likes:
            raise ValueError(f"{folder}: holds '{name}', which this model does not train")
        like = likes[owner]
        whole = math.prod(stored.size) == 1 and name.endswith(".step")
        make = (
            torch.zeros(stored.size) if whole else zeros_like_rows_of(like, tuple(stored.size), stored.properties.dtype)
        )
        made[name] = make
    if missing := sorted(likes.keys() - found.keys()):
        raise ValueError(f"{folder}: holds no weights for '{missing[0]}'")
    try:
        load(wanted | made, storage_reader=reader, no_dist=not dist.is_initialized())
    except CheckpointException as e:
        rank, (error, _) = next(iter(e.failures.items()))
        raise ValueError(f"{folder}: rank {rank}: {error}") from e
    return {name.removeprefix(extra): tensor for name, tensor in made.items()}
