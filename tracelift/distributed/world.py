"""torch.distributed in one page: joining the job torchrun started, splitting work, and summing what ranks found.

Every rank draws the same problems and works on its share (index ≡ rank mod world), so a run is named by its seed and
not by its number of ranks. Gradients are summed, not averaged: the loss is already divided by global counts
(tracelift/rl/grpo.py). Left out: sharded parameters (tracelift/distributed/parallel.py), elastic membership.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's place in the job; rank 0 of 1 when not started by torchrun."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, items: list[T]) -> list[T]:
        """This rank's part of a list that every rank holds."""
        return items[self.rank :: self.size]

    def local(self, numbers: Iterable[int]) -> list[int]:
        """Where `share` put those of these places of the shared list that are this rank's."""
        return [number // self.size for number in numbers if number % self.size == self.rank]

    def merge(self, mine: list[T]) -> list[T]:
        """Undo `share`: every rank's results, back in the order of the shared list, on every rank."""
        if self.size == 1:
            return mine
        parts = self.gather(mine)
        merged: list[T] = []
        for i in range(max(len(part) for part in parts)):
            merged.extend(part[i] for part in parts if i < len(part))
        return merged

    def gather(self, value: T) -> list[T]:
        """Every rank's value, on every rank, by rank."""
        if self.size == 1:
            return [value]
        out: list[Any] = [None] * self.size
        dist.all_gather_object(out, value)
        return out

    def any(self, flag: bool) -> bool:
        return any(self.gather(flag))

    def first(self, value: T | None) -> T | None:
        """The value of the first rank that has one, on every rank."""
        return next((v for v in self.gather(value) if v is not None), None)

    def agreed(self, act: Callable[[], T]) -> T:
        """What `act` gives on rank 0, where alone it is called, on every rank; its ValueError or OSError likewise."""
        value, trouble = None, None
        if self.is_main:
            try:
                value = act()
            except (ValueError, OSError) as e:
                trouble = e
        value, trouble = self.gather((value, trouble))[0]
        if trouble is not None:
            raise trouble
        return cast(T, value)  # rank 0's

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up each parameter's gradient over ranks in one flat fp32 message; missing gradients count as zero."""
        if self.size == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([g.flatten().float() for g in gradients])
        dist.all_reduce(flat)
        at = 0
        for p in trained:
            p.grad = flat[at : at + p.numel()].view_as(p).to(p.dtype)
            at += p.numel()


def place() -> World:
    """What torchrun's environment says of this process, without joining the others."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return World(*(int(os.environ[k]) for k in names)) if "RANK" in os.environ else World()


def join(device: str, timeout_s: float = 600.0) -> World:
    """Join the process group torchrun describes in the environment, or be a world of one.

    timeout_s bounds every wait for another rank from here on.
    """
    world = place()
    if world.size > 1 and not dist.is_initialized():
        backend = "nccl" if device.startswith("cuda") else "gloo"
        limit = timedelta(seconds=timeout_s)
        store, *_ = next(rendezvous("env://", timeout=limit))
        # torchrun may hand a restarted job the store of the one before: who starts first must not find the dead by their keys
        store = PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=limit)
    return world


def lost_contact(error: RuntimeError, timeout_s: float) -> str | None:
    """A sentence on what went wrong between ranks, where that is what `error` is about; None where it is not.

    Every backend has words of its own, and gloo a plain RuntimeError, for a peer whose connection closed (it died) or
    who said nothing for the timeout (it hangs).
    """
    words = (
        "Connection closed by peer",
        "Connection reset by peer",
        "Broken pipe",
        "Timed out",
        "timed out",
        "NCCL",
        "Connection refused",
    )
    if not isinstance(error, dist.DistError) and not ("gloo" in str(error) and any(w in str(error) for w in words)):
        return None
    rank, size, why = os.environ.get("RANK", 0), os.environ.get("WORLD_SIZE", 1), " ".join(str(error).split())[:200]
    return (
        f"rank {rank} of {size} lost another rank, which died or was silent for parallel.timeout_s = {timeout_s:g} s; "
        f"--resume goes on from the last checkpoint ({why})"
    )


def restarted() -> bool:
    """Whether torchrun started this process anew after an earlier one of the job had failed (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def end(code: int) -> NoReturn:
    """End the process with this exit status. A rank does so without the interpreter's teardown, in which threads of the
    collectives' library that are still ending can abort it: torchrun would call a finished job failed."""
    if "RANK" in os.environ:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def pick_device(wanted: str) -> torch.device:
    """`cuda` is this rank's GPU, from now on the current one; `auto` that, or the CPU without one. Raises ValueError on a
    device that is not there."""
    device = find_device(wanted, "run.device")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def find_device(wanted: str, key: str) -> torch.device:
    """The device a config key names; a GPU without a number is this rank's. Raises ValueError, naming the key."""
    device = device_named(wanted, key)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"{key} = '{wanted}' is GPU {device.index}, but this PyTorch sees {torch.cuda.device_count()} GPUs; "
            "use cpu, or fewer ranks"
        )
    return device


def device_named(wanted: str, key: str) -> torch.device:
    """As `find_device`, whether or not that GPU is there. `auto` is a GPU where there are any, else the CPU."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ValueError(f"{key} = '{wanted}' is none of auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", place().local_rank)
    return device


def set_threads(world: World, wanted: int) -> int:
    """Share the machine's cores among the ranks on it; returns the number of threads this process uses.

    OMP_NUM_THREADS is obeyed for a single rank only: torchrun sets it to 1 for several, whatever the machine has.
    """
    alone = int(os.environ.get("OMP_NUM_THREADS", 0)) if world.local_size == 1 else 0
    threads = wanted or alone or max(1, (os.cpu_count() or 1) // world.local_size)
    torch.set_num_threads(threads)
    return threads
