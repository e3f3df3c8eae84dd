"""What every training stage shares: optimizer, learning rate, the guarded update, stopping on request, checkpoints.

The order of a round is in the stages themselves (train.py for the planner, tracelift/training/sft.py, tracelift/reward_model/train.py).
AdamW is torch's own, or that of tracelift/training/optimizer.py where states are compact or weights are bf16. Weight decay goes
to matrices only. Gradients arrive already divided by global counts; they are summed over ranks, clipped by global norm,
and applied only if finite. Left out: loss scaling (bf16 needs none).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tracelift.config.schema import OptimConfig
from tracelift.distributed.parallel import Parallel, number
from tracelift.distributed.rows import local, place
from tracelift.distributed.sharded_checkpoint import SHARD_FILES, read_sharded, write_sharded
from tracelift.distributed.world import World
from tracelift.errors import TrainingError
from tracelift.runs.checkpoints import optimizer_tensors, restore_optimizer
from tracelift.runs.folder import RunFolder
from tracelift.training.optimizer import adamw
from tracelift.training.recompute import recompute_blocks

_STATE = "optimizer:"  # before the names of optimizer states in a sharded checkpoint


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """The rate of 0-based round `step`: linear warm-up, then constant, or down to a tenth, linearly or by half a cosine."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, steps - config.warmup)
    floor = 0.1
    if config.schedule == "linear":
        return config.lr * (1 - (1 - floor) * done)
    if config.schedule == "cosine":
        return config.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))
    return config.lr


class Learner:
    """A model with its optimizer: gradients in, one guarded update out."""

    def __init__(
        self,
        model: nn.Module,
        config: OptimConfig,
        steps: int,
        world: World,
        parallel: Parallel[Any] | None = None,
        bad_batches: Callable[..., Path | None] | None = None,
    ) -> None:
        """bad_batches: folder for batches whose gradient is not finite (tracelift/rl/nan_dump.py); None keeps none."""
        self.bad_batches = bad_batches
        self.model, self.config, self.steps, self.world = model, config, steps, world
        self.parallel: Parallel[Any] = parallel or Parallel(model, "none", world)
        self.names = self.parallel.trained()
        if not self.names:
            raise TrainingError("the model has no trainable parameter")
        matrices = [p for p in self.names if p.dim() >= 2]
        vectors = [p for p in self.names if p.dim() < 2]
        self.optimizer = adamw(
            matrices,
            vectors,
            config.lr,
            (config.beta1, config.beta2),
            config.weight_decay,
            config.state_dtype,
            config.master_weights,
        )
        if config.checkpoint_activations:
            recompute_blocks(model)
        self.skipped = 0

    @property
    def millions(self) -> str:
        """How much is trained, for people to read."""
        return f"{sum(p.numel() for p in self.names) / 1e6:.2f} M trained parameters"

    def update(
        self, step: int, nth: int = 0, batch: Callable[[], tuple[dict, list[dict]]] | None = None
    ) -> dict[str, float]:
        """Sum gradients over ranks, clip, step, clear. Returns grad_norm (before clipping) and lr.

        nth: this update's number within round `step`; batch: what led to it, asked for where its gradient is not finite.
        Raises TrainingError there with `optim.on_nan = "stop"`; with "skip" the update is left out and counted.
        """
        for p in self.names:  # no gradient is a zero gradient: momentum acts alike on one rank and on many
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        self.parallel.sum_gradients(self.names)
        norm = self.parallel.clip(self.names, self.config.max_grad_norm)
        rate = learning_rate(self.config, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if math.isfinite(norm):
            self.optimizer.step()
        else:
            kept = self._keep(step, nth, norm, batch)
            if self.config.on_nan == "stop":
                raise TrainingError(
                    f"round {step + 1}: the gradient is not finite (norm {norm}). The model is unchanged since the last good "
                    f"round. Lower optim.lr, set optim.on_nan = 'skip', or look at what led to it: {kept or 'samples.jsonl'}"
                )
            self.skipped += 1
        self.optimizer.zero_grad(set_to_none=True)
        return {"grad_norm": norm, "lr": rate, "updates_skipped": float(self.skipped)}

    def _keep(
        self, step: int, nth: int, norm: float, batch: Callable[[], tuple[dict, list[dict]]] | None
    ) -> str | None:
        """Write the batch behind a bad gradient; the command that shows it. Collective: norms of shards are sums."""
        norms = {name: number(p.grad.norm()) for p, name in self.names.items() if p.grad is not None}
        if self.bad_batches is None or batch is None or self.config.nan_batches == 0:
            return None
        head, samples = batch()
        head |= {"grad_norm": norm, "grad_norms": norms}
        path = self.bad_batches(self.config.nan_batches, step, nth, self.world.rank, head, samples)
        return f"python -m tracelift.explain.nan {path.parent.parent} {path.name}" if path else None

    def save(self, run: RunFolder, step: int, keep: int, write_model: Callable[[Path], None]) -> None:
        """Checkpoint after round `step`; every rank waits until it is on disk. Sharded, each rank writes its own rows.

        Raises as `refuse_not_finite`: nothing is written then.
        """
        self.refuse_not_finite(step)
        tensors = {} if self.parallel.sharded else optimizer_tensors(self.optimizer, self.names)
        if self.parallel.sharded:
            write_model = self._write_shards
            if not self.world.is_main:
                write_model(run.aside(step) / "model")
        run.save_checkpoint(step, keep, write_model, tensors, {"skipped": self.skipped})
        self.world.barrier()

    def refuse_not_finite(self, step: int) -> None:
        """Raises TrainingError, on every rank, where a weight or an optimizer state is not finite after round `step`."""
        if (name := self.world.first(self._not_finite())) is not None:
            raise TrainingError(
                f"round {step}: {name} is not finite, so nothing of it is saved; earlier checkpoints are untouched. Start "
                "a new run with a lower optim.lr, or with float32 weights (run.dtype)"
            )

    def _not_finite(self) -> str | None:
        """The first trained weight or optimizer state, by name, that holds NaN or an infinity."""
        for p, name in self.names.items():
            for what, tensor in (("the weight", p.detach()), *self.optimizer.state[p].items()):
                if torch.is_tensor(tensor) and tensor.is_floating_point() and not local(tensor).isfinite().all():
                    return f"{what} {name}" if what == "the weight" else f"the optimizer's {what} of {name}"
        return None

    def _write_shards(self, folder: Path) -> None:
        states = {
            f"{_STATE}{name}.{key}": value
            for p, name in self.names.items()
            for key, value in self.optimizer.state[p].items()
        }
        write_sharded(folder, {name: p.detach() for p, name in self.names.items()} | states, self.world)

    def resume(self, run: RunFolder, read_model: Callable[[Path], nn.Module], say: Callable[[str], None]) -> int:
        """Load the newest whole checkpoint into this learner and cut the logs back to where it goes on; returns the rounds
        done, 0 where there is none."""

        def load(folder: Path) -> None:
            if list(folder.glob(SHARD_FILES)):
                states = read_sharded(folder, {name: p for p, name in self.names.items()}, _STATE, self.world)
                restore_optimizer(self.optimizer, self.names, states)
                return
            with torch.no_grad():
                fresh = dict(read_model(folder).named_parameters())
                for p, name in self.names.items():
                    if name not in fresh:
                        raise ValueError(f"{folder}: holds no weights for '{name}'")
                    if fresh[name].shape != p.shape:
                        raise ValueError(
                            f"{folder}: '{name}' is {list(fresh[name].shape)}, this model's {list(p.shape)}"
                        )
                    p.copy_(place(fresh[name].detach().to(p.dtype), p))

        found = run.load_checkpoint(load, say)
        done = 0
        if found is not None:
            tensors, state = found
            by_name = {name: p for p, name in self.names.items()}
            whole = {
                full: place(t, by_name[name]) if (name := full.rpartition(".")[0]) in by_name else t
                for full, t in tensors.items()
            }
            restore_optimizer(self.optimizer, self.names, whole)
            self.skipped = state.get("skipped", 0)
            done = state["step"]
        run.go_on(done, say)
        return done
