"""What a dry run does in each stage, in the order of the run: `dry_run` and the three stages.

Left out: what is told of inputs and of the run folder (inputs.py, folder.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

import models
from models import RewardModel, Transformer
from tracelift.build import load_held_out, load_training_tasks, refuse_absent_servers, refuse_two_adapters
from tracelift.config import Config, demo_defaults
from tracelift.distributed.world import World, device_named, place
from tracelift.dry_run.folder import say_folder
from tracelift.dry_run.inputs import executor_inputs, group_text, group_tokens, planner_inputs, reward_model_inputs
from tracelift.dry_run.lines import (
    NOTE,
    Notes,
    Say,
    refuse_no_sandbox,
    refuse_targets,
    say_longest,
    say_rows,
    say_text,
    say_training_memory,
    say_weights,
)
from tracelift.errors import naming
from tracelift.reward_model.train import initial_heads, refuse_other_rubrics
from tracelift.reward_model.train import read_data as read_group_data
from tracelift.runs.console import quiet_unless_main
from tracelift.runs.folder import RunFolder
from tracelift.tasks.sources import FileTasks
from tracelift.training import sft
from tracelift.training.disk_plan import disk_plan, refuse_full_disk
from tracelift.training.memory_plan import Shape, adapter_of, config_at, say_memory_plan, size

SERIES = 200  # problems of an endless demo series that are measured; of a file, all are
UNSEEN = "(here stands the planner's trace)"


def dry_run(config: Config, folder: Path) -> None:
    """Tell what the run of `config` in `folder` would do. Raises what it would raise; memory that is short is told and not refused."""
    world = place()
    say = Notes(quiet_unless_main(world.is_main))
    ranks = f"{world.size} rank{'s' * (world.size > 1)}"
    say(f"dry run, nothing is written: stage {config.run.stage}, {ranks}, run folder {folder}")
    say_folder(config, folder, say)
    for key, wanted in (
        ("run.device", config.run.device),
        ("executor.device", config.executor.device),
        ("reward_model.device", config.reward_model.device),
    ):
        device = device_named(wanted, key) if wanted else torch.device("cpu")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            say(f"{NOTE}{key} = '{wanted}': there is no such GPU here")
    shape = STAGES[config.run.stage](config, world, say)
    plan = disk_plan(config, shape, len(RunFolder(folder, writes=False).checkpoints()))
    free = refuse_full_disk(plan, folder)
    say(f"disk: {plan.render()} of {size(free)} free")
    notes = f", beside the {say.count} note{'s' * (say.count > 1)} above" if say.count else ""
    say(f"dry run: nothing found that would stop the run{notes}")


# -- the stages: each returns the shape of the model it trains ----------------------------------------------------------


def planner(config: Config, world: World, say: Say) -> Shape:
    for line in demo_defaults(config):
        say(line)
    refuse_two_adapters(config)
    refuse_absent_servers(config)
    c = config_at("planner.path", config.planner.path)
    rank, targets = adapter_of(config)
    if config.lora.r:
        refuse_targets(config, Transformer, c)
    say_weights("planner.path", config.planner.path, say)

    tasks = load_training_tasks(config, say)
    held_out = load_held_out(config, tasks, say)
    seen = tasks.tasks if isinstance(tasks, FileTasks) else tasks.first(SERIES)
    say_rows("data.source", config.data.source, tasks, config.grpo.problems, config.run.steps, say)
    say(f"held-out problems: {len(held_out) or 'none, so there is no summary.txt'}")
    if any(task.code is not None for task in seen):
        refuse_no_sandbox(config)

    every, sample = [*seen, *held_out], seen[0]
    trace = sample.truth.trace if sample.truth is not None else UNSEEN
    planner_inputs(config, c, every, sample, say)
    executor_inputs(config, every, sample, trace, say)
    reward_model_inputs(config, every, sample, trace, say)
    say_memory_plan(config, device_named(config.run.device, "run.device"), world.size, world.local_size, say)
    return Shape.of(c, rank, targets)


def supervised(config: Config, world: World, say: Say) -> Shape:
    """Stage "sft"."""
    c, tokenizer = sft.initial_shape(config)
    rows, dev = sft.read_data(config)
    say_rows("sft.train", config.sft.train, rows, config.sft.batch_size, config.run.steps, say)
    encoded = sft.encode([*rows, *dev], tokenizer, c.max_positions, c.vocab_size)
    longest = max(len(row.prompt) + max(map(len, row.samples)) for row in encoded)
    say_text("the first row", len(encoded[0].prompt) + len(encoded[0].samples[0]), sft.text_of(rows[0]), say)
    say(f"rows: at most {longest} tokens of the model's {c.max_positions} ({len(dev)} held out)")
    if config.sft.init:
        say_weights("sft.init", config.sft.init, say)
    shape = Shape.of(c)
    say_training_memory(config, shape, say)
    return shape


def reward_model(config: Config, world: World, say: Say) -> Shape:
    """Stage "reward_model"."""
    groups, dev = read_group_data(config)
    c, heads, _ = initial_heads(config, groups[0].task_type)
    for path, each in ((config.rm.train, groups), (config.rm.dev, dev)):
        refuse_other_rubrics(heads.dimension_names, each, path)
    say_rows("rm.train", config.rm.train, groups, config.rm.groups, config.run.steps, say)
    if config.lora.r:
        refuse_targets(config, lambda shape: RewardModel(shape, heads), c)
    with naming("rm.init", config.rm.init):
        tokenizer = models.load_tokenizer(config.rm.init)
    limit = min(config.rm.max_tokens, c.max_positions)
    lengths = {}
    for group in [*groups, *dev]:
        lengths[group.problem_id] = group_tokens(group, tokenizer, limit)
    say_text("the first group's input", lengths[groups[0].problem_id], group_text(groups[0]), say)
    say_longest("inputs of the Reason RM, each group's longest trace", lengths, 0, limit, say)
    say_weights("rm.init", config.rm.init, say)
    shape = Shape.of(c, config.lora.r, tuple(config.lora.targets))
    say_training_memory(config, shape, say)
    return shape


STAGES: dict[str, Callable[[Config, World, Say], Shape]] = {
    "planner": planner,
    "sft": supervised,
    "reward_model": reward_model,
}
