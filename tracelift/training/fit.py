"""The supervised loop that the sft and reward_model stages share: rounds, dev evaluations, checkpoints, progress.

Left out: what a round computes; each stage passes its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import nn

from tracelift.config.schema import Config
from tracelift.distributed.world import World
from tracelift.errors import ConfigError, Stopped, naming
from tracelift.runs.folder import RunFolder
from tracelift.runs.signals import StopSignal
from tracelift.training.learner import Learner

T = TypeVar("T")


def read_split(
    section: str, train: str, dev: str, what: str, read: Callable[[str], list[T]]
) -> tuple[list[T], list[T]]:
    """What `read` finds in the files of SECTION.train and SECTION.dev (nothing without the latter). Raises ConfigError
    without the first, saying `what` it should be, or as `read` does, naming the key."""
    if not train:
        raise ConfigError(f"{section}.train: give {what}")
    with naming(f"{section}.train"):
        rows = read(train)
    with naming(f"{section}.dev"):
        return rows, read(dev) if dev else []


def fit(
    config: Config,
    run: RunFolder,
    world: World,
    learner: Learner,
    *,
    round_loss: Callable[[int], dict[str, float]],
    write_model: Callable[[Path], None],
    read_model: Callable[[Path], nn.Module],
    evaluate: Callable[[], dict[str, float]] | None,
    eval_every: int,
    shown: Mapping[str, str],
    say: Callable[[str], None],
    on_eval: Callable[[int, dict[str, float]], None] | None = None,
) -> int:
    """The supervised loop of the sft and reward_model stages. Returns the number of rounds done.

    round_loss(step) runs forward and backward over this rank's share of round `step` and returns metrics; evaluate()
    returns dev metrics, logged with the round as `dev/NAME`. shown: the metrics of a progress line and what they are called
    there, in this order; metrics.jsonl has all. Stops early, checkpoint saved, when SIGTERM came.
    """
    stop = StopSignal(config.run.stop_s)
    done = learner.resume(run, read_model, say) if config.run.resume else 0
    started, steps = time.perf_counter(), config.run.steps
    for step in range(done, steps):
        learner.model.train()
        metrics = round_loss(step) | learner.update(step)
        last = step + 1 == steps
        stopping = world.any(stop.seen)
        if evaluate is not None and ((step + 1) % eval_every == 0 or last):
            learner.refuse_not_finite(step + 1)  # it may be the best so far, and kept
            learner.model.eval()
            results = evaluate()
            metrics |= {f"dev/{k}": v for k, v in results.items()}
            if on_eval is not None:
                on_eval(step + 1, results)
        run.log("metrics.jsonl", {"step": step + 1, **metrics})
        if (step + 1) % max(1, min(eval_every, steps // 20 or 1)) == 0 or last:
            pace = (time.perf_counter() - started) / (step + 1 - done)
            figures = "  ".join(f"{label} {metrics[name]:.4g}" for name, label in shown.items() if name in metrics)
            left = pace * (steps - step - 1) / 60
            say(f"round {step + 1}/{steps}  {figures}  ({pace:.2f} s a round, {left:.1f} min left)")
        if (step + 1) % config.run.save_every == 0 or last or stopping:
            learner.save(run, step + 1, config.run.keep, write_model)
        if stopping:
            raise Stopped(f"stopped on request after round {step + 1}; --resume goes on from here")
    return steps
