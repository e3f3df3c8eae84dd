"""Many ranks train one planner: as replicas (DDP) or in shards (FSDP2), around a model that knows of neither.

    none   every rank holds everything; gradients are added up in one message after the last micro-batch
    ddp    the same, but bucket by bucket while the backward pass still runs (Li et al. 2020)
    fsdp   each rank keeps 1/N of every matrix, its gradient and its optimizer state; a block's weights are gathered just
           before its forward or backward and dropped after (ZeRO-3, Rajbhandari et al. 2020; torch's fully_shard)

Gradients are *summed* over ranks, in fp32: the loss is divided by global counts already. All three give the same update
within rounding (tests/tracelift/distributed/test_parallel.py). Two things follow from collectives inside forward and
backward. All ranks must run equally many micro-batches, so `paced` lets a rank that is out of rows compute something of
weight zero. And code that reads weights outside a forward pass needs them whole: the sampler, evaluation and the final
folder use `whole`, a copy that `gather` brings up to date once a round, trained parameters only: with LoRA the adapters
alone. Sampling in shards instead would gather every block once per token.

A sharded checkpoint is torch.distributed.checkpoint's Hugging Face storage: each rank writes its rows as a safetensors
file whose header says where they belong; no pickle is written or read. Any number of ranks reads it back, in any mode.
Left out: tensor parallelism, pipeline and context parallelism.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Generic, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from models.transformer import Block
from tracelift.distributed.rows import is_sharded
from tracelift.distributed.world import World

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


class Replica(DistributedDataParallel):
    """DDP that answers for its model: `policy.head_weight` is the model's."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def add_up(group, bucket):  # no annotations: DDP checks them, and refuses them as strings
    """DDP communication hook: the sum (DDP's own is a mean) of a bucket over ranks, rounded once from fp32."""
    dtype = bucket.buffer().dtype
    work = dist.all_reduce(bucket.buffer().float(), group=group, async_op=True)
    assert work is not None, "this rank belongs to the group that DDP hands its hook"
    return work.get_future().then(lambda done: done.value()[0].to(dtype))


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """fully_shard every block, and embedding, norm and head as one group that stays gathered from forward to backward:
    the loss multiplies by the head's weight after the model's own forward is over."""
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard  # slow to import

    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for block in [m for m in model.modules() if isinstance(m, Block)]:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # a sum, not a mean,
            module.set_force_sum_reduction_for_comms(True)  # asked for in words that gloo understands


class Parallel(Generic[M]):
    """One model on many ranks.

    policy: what to call for hidden states that take gradients. whole: a model with all weights in place, for sampling
    and saving; the trained model itself unless weights are sharded. Build it before the optimizer: sharding replaces
    parameters. `others` are frozen models (a KL reference) sharded alike. A world of one is always mode "none".
    """

    def __init__(self, model: M, mode: str, world: World, others: Sequence[nn.Module] = ()) -> None:
        self.model, self.world = model, world
        self.mode = mode if world.size > 1 else "none"
        self.policy = self.whole = model
        self._replica: Replica | None = None
        if world.size == 1:
            return
        if self.mode == "ddp":
            self._replica = Replica(model, gradient_as_bucket_view=True)
            self._replica.register_comm_hook(dist.group.WORLD, add_up)
            self.policy = cast(M, self._replica)  # it answers for the model
        elif self.mode == "fsdp":
            self.whole = copy.deepcopy(model).requires_grad_(False)
            mesh = init_device_mesh(self.device.type, (world.size,))
            shard(model, mesh)
            for other in others:
                shard(other, mesh)

    def trained(self) -> dict[nn.Parameter, str]:
        """What takes gradients, by name."""
        return {p: name for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def sharded(self) -> bool:
        """Whether no rank holds all that is trained: then checkpoints are written in shards."""
        return self.mode == "fsdp"

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def paced(self, micros: Iterable[T], idle: Callable[[], None]) -> Iterator[T]:
        """This rank's micro-batches. Out of them before other ranks are, it calls `idle` for each turn that is left; with
        DDP only the last turn is summed."""
        mine = list(micros)
        turns = len(mine) if self.mode == "none" else max(self.world.gather(len(mine)))
        for i in range(turns):
            with self._replica.no_sync() if self._replica is not None and i + 1 < turns else nullcontext():
                if i < len(mine):
                    yield mine[i]
                else:
                    idle()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if self.mode == "none":
            self.world.sum_gradients(parameters)

    def clip(self, parameters: Collection[nn.Parameter], most: float) -> float:
        """Scale gradients so that their norm over all ranks is at most `most`; returns the norm. One that is not finite
        is left as it is. Collective where anything is sharded."""
        kinds = (
            [p for p in parameters if is_sharded(p)],
            [p for p in parameters if not is_sharded(p)],
        )
        gradients = [[p.grad for p in kind if p.grad is not None] for kind in kinds]
        totals = [
            (kind, torch.nn.utils.get_total_norm(grads)) for kind, grads in zip(kinds, gradients, strict=True) if kind
        ]
        norm = math.hypot(*(number(total) for _, total in totals))
        if not math.isfinite(norm):
            return norm
        if len(totals) == 1:
            ((kind, total),) = totals
            torch.nn.utils.clip_grads_with_norm_(kind, most, total)
            return norm
        for grad in (grad for grads in gradients for grad in grads):
            grad.mul_(min(1.0, most / (norm + 1e-6)))
        return norm

    @torch.no_grad()
    def gather(self) -> None:
        """Bring `whole` up to date, one matrix at a time. Collective."""
        if self.whole is self.model:
            return
        targets = dict(self.whole.named_parameters())
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                targets[name].copy_(whole(p))


def whole(x: Tensor) -> Tensor:
    """All rows of a tensor that may be sharded. Collective where it is."""
    return x.full_tensor() if is_sharded(x) else x


def number(x: Tensor) -> float:
    return whole(x).item()
