"""The lines of a dry run that several of its parts write: texts, lengths, rows, weights, memory; and a count of its notes.

Left out: what is measured and refused (the package itself, inputs.py, folder.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from models import ModelConfig
from models.lora import find_targets
from models.shards import tensor_files
from tracelift.config import Config
from tracelift.errors import ConfigError, naming
from tracelift.sandbox import Sandbox, SandboxError
from tracelift.tasks.sources import FileTasks
from tracelift.training.lora import lora_targets
from tracelift.training.memory_plan import Shape, optimizer_bytes, size

Say = Callable[[str], None]
NOTE = "note: "


class Notes:
    """Says lines, and counts those that begin with "note: "."""

    def __init__(self, say: Say) -> None:
        self._say, self.count = say, 0

    def __call__(self, line: str) -> None:
        self.count += line.startswith(NOTE)
        self._say(line)


def refuse_targets(config: Config, build: Callable[[ModelConfig], torch.nn.Module], c: ModelConfig) -> None:
    """Raise ValueError where `lora.targets` or `lora.from_block` name nothing of the model."""
    with torch.device("meta"):
        find_targets(build(c), lora_targets(config.lora, c.num_layers))


def refuse_no_sandbox(config: Config) -> None:
    """Raise ConfigError where this machine cannot run programs as the run demands."""
    try:
        Sandbox(workers=1, allow_weak_sandbox=config.sandbox.allow_weak_sandbox).close()
    except SandboxError as e:
        raise ConfigError(str(e)) from None


def say_weights(key: str, path: str, say: Say) -> None:
    """A note where a model folder has no weights yet. Raises models.CheckpointError where they are broken."""
    try:
        with naming(key, path):
            tensor_files(Path(path))
    except FileNotFoundError as e:
        say(f"{NOTE}{e}; the run will need it")


def say_rows(key: str, name: str, rows: object, a_round: int, rounds: int, say: Say) -> None:
    """How many rows there are, and how often the run walks them."""
    if isinstance(rows, FileTasks):
        rows = rows.tasks
    if not isinstance(rows, list):
        return say(f"{key} {name}: an endless series, {a_round} a round, {rounds} rounds")
    say(
        f"{key} {name}: {len(rows)} rows, {a_round} a round, {rounds} rounds: {a_round * rounds / len(rows):,.1f} times each"
    )


def say_text(title: str, tokens: int, text: str, say: Say) -> None:
    say(
        "\n".join(
            [f"{title}" + (f" ({tokens} tokens):" if tokens else ":"), *(f"  | {line}" for line in text.split("\n"))]
        )
    )


def say_longest(what: str, lengths: dict[str, int], new: int, limit: int, say: Say) -> None:
    name = max(lengths, key=lambda k: lengths[k])
    more = f" and {new} new" if new else ""
    say(f"{what}: at most {lengths[name]} tokens ({name}){more} of {limit}; {len(lengths)} measured")


def say_tight(who: str, lengths: dict[str, int], more: int, limit: int, say: Say) -> None:
    """A note on inputs that fit, but not with the longest trace and answer there can be."""
    if tight := [name for name, n in lengths.items() if n + more > limit]:
        say(
            f"note: {who}: with the longest trace (taken at {more} tokens with what is written after it) {len(tight)} of "
            f"{len(lengths)} inputs exceed {limit} tokens, {tight[0]} among them"
        )


def say_training_memory(config: Config, shape: Shape, say: Say) -> None:
    """What the stages that are no planner's hold throughout; their activations follow `optim.micro_tokens`."""
    itemsize = getattr(torch, config.run.dtype).itemsize
    trained, vectors, width = (shape.lora, 0, 4) if shape.lora else (shape.total, shape.vectors, itemsize)
    states = optimizer_bytes(shape, trained, vectors, width, config)
    say(
        f"memory, without activations: weights {size(shape.total * itemsize + shape.lora * 4)}, gradients {size(trained * width)}, "
        f"optimizer states {size(states)}"
    )
