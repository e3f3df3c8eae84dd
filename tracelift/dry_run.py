"""`train.py CONFIG --dry-run`: everything a run does before its first weight, told; nothing is written.

In this order: run folder and devices, the demo's defaults beside parts of one's own, models by their config.json and
tokenizer files, data, the prompts of one problem, the longest inputs against the contexts, memory, disk. What the run
would refuse, at once or an hour later, is raised with the run's own sentence where it has one. Left out: the weights
themselves, what servers answer (that somebody listens there is looked at, nothing is asked), and the run's logs on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import models
from models import ModelConfig, RewardModel, Tokenizer, Transformer
from models.lora import find_targets
from models.reward import read_reward_config
from models.shards import tensor_files
from tracelift.build import (
    build_executor,
    load_held_out,
    load_training_tasks,
    refuse_absent_servers,
    refuse_two_adapters,
)
from tracelift.config import Config, demo_defaults
from tracelift.distributed.world import World, device_named, place
from tracelift.errors import ConfigError, naming
from tracelift.executor.backend import CompletionRequest, Likelihood, Progress, Reply, ScoreRequest
from tracelift.executor.executor import Executor
from tracelift.reward_model.group_format import Group
from tracelift.reward_model.oracle import is_oracle, oracle
from tracelift.reward_model.scorer import rm_text, rm_tokens
from tracelift.reward_model.train import initial_heads, refuse_other_rubrics
from tracelift.reward_model.train import read_data as read_group_data
from tracelift.rl.rollout import PlannerPrompt, refuse_no_room
from tracelift.rubrics import dimensions_of
from tracelift.runs.console import quiet_unless_main
from tracelift.runs.folder import RunFolder
from tracelift.sandbox import Sandbox, SandboxError
from tracelift.tasks.sources import FileTasks
from tracelift.tasks.task import Task
from tracelift.training import sft
from tracelift.training.disk_plan import disk_plan, refuse_full_disk
from tracelift.training.lora import lora_targets
from tracelift.training.memory_plan import Shape, adapter_of, config_at, optimizer_bytes, say_memory_plan, size

Say = Callable[[str], None]
SERIES = 200  # problems of an endless demo series that are measured; of a file, all are
UNSEEN = "(here stands the planner's trace)"


def dry_run(config: Config, folder: Path) -> None:
    """Tell what the run of `config` in `folder` would do. Raises what it would raise; memory that is short is told and not refused."""
    world = place()
    say = quiet_unless_main(world.is_main)
    for change in RunFolder(folder, writes=False).changes_on_resume(config):
        say(f"on resume: {change}")
    ranks = f"{world.size} rank{'s' * (world.size > 1)}"
    say(f"dry run, nothing is written: stage {config.run.stage}, {ranks}, run folder {folder}")
    for key, wanted in (
        ("run.device", config.run.device),
        ("executor.device", config.executor.device),
        ("reward_model.device", config.reward_model.device),
    ):
        device = device_named(wanted, key) if wanted else torch.device("cpu")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            say(f"note: {key} = '{wanted}': there is no such GPU here")
    shape = STAGES[config.run.stage](config, world, say)
    plan = disk_plan(config, shape, len(RunFolder(folder, writes=False).checkpoints()))
    free = refuse_full_disk(plan, folder)
    say(f"disk: {plan.render()} of {size(free)} free")
    say("dry run: nothing found that would stop the run")


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
    encoded = sft.encode([*rows, *dev], tokenizer, c.max_positions)
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


# -- inputs: rendered for one problem, measured for all -----------------------------------------------------------------


def planner_inputs(config: Config, c: ModelConfig, tasks: Sequence[Task], sample: Task, say: Say) -> None:
    """Raises as `sample_traces` does where a prompt leaves no room for its traces."""
    with naming("planner.path", config.planner.path):
        tokenizer = models.load_tokenizer(config.planner.path)
    prompt, lengths, new = PlannerPrompt(config, tokenizer), {}, config.planner.max_new_tokens
    for task in tasks:
        ids = prompt(task)
        refuse_no_room(task, ids, new, c.max_positions)
        lengths[task.problem_id] = len(ids)
    ids = prompt(sample)
    say_text(f"planner's prompt for {sample.problem_id}", len(ids), tokenizer.decode(ids, skip_special=False), say)
    say_longest("planner's prompts", lengths, new, c.max_positions, say)


def executor_inputs(config: Config, tasks: Sequence[Task], sample: Task, trace: str, say: Say) -> None:
    """Raises ConfigError where more prompts exceed the executor's context, whatever the trace, than the run would bear."""
    e = config.executor
    executor = build_executor(config, torch.device("cpu"), None, backend=Unasked())
    if e.url:
        say(f"executor at {e.url}, which is not asked: its context and tokens are not known here")
        say_text("executor's prompt", 0, executor.prompt(sample, trace), say)
        say_text("executor's prompt without a trace", 0, executor.prompt(sample, None), say)
        return
    c = config_at("executor.path", e.path)
    say_weights("executor.path", e.path, say)
    with naming("executor.path", e.path):
        tokenizer = models.load_tokenizer(e.path)
    say_executor_prompts(executor, tokenizer, sample, trace, say)
    lengths = {task.problem_id: len(tokenizer.encode(executor.prompt(task, ""))) for task in tasks}
    say_longest("executor's prompts without their traces", lengths, e.max_new_tokens, c.max_positions, say)
    over = [name for name, n in lengths.items() if n + e.max_new_tokens > c.max_positions]
    if len(over) > e.max_error_share * len(lengths):
        raise ConfigError(
            f"{len(over)} of {len(lengths)} problems ({over[0]} and others) exceed the executor's {c.max_positions} positions, "
            "whatever the trace: each would be an ERROR, and more than executor.max_error_share of them stop the run; lower "
            "executor.max_new_tokens or planner.max_problem_chars"
        )
    say_tight("executor", lengths, longest_trace(config) + e.max_new_tokens, c.max_positions, say)


def say_executor_prompts(executor: Executor, tokenizer: Tokenizer, sample: Task, trace: str, say: Say) -> None:
    for title, given in (("executor's prompt", trace), ("executor's prompt without a trace", None)):
        text = executor.prompt(sample, given)
        say_text(title, len(tokenizer.encode(text)), text, say)


def reward_model_inputs(config: Config, tasks: Sequence[Task], sample: Task, trace: str, say: Say) -> None:
    r = config.reward_model
    if r.url:
        return say(f"Reason RM at {r.url}, which is not asked")
    if not r.path:
        return say(f"no Reason RM: reward.mode = '{config.reward.mode}' needs none")
    if is_oracle(r.path):
        oracle(r.path)
        return say("Reason RM: the math demo's own rubric")
    with naming("reward_model.path", r.path):
        c, heads = read_reward_config(r.path)
        tokenizer = models.load_tokenizer(r.path)
    say_weights("reward_model.path", r.path, say)
    limit = min(r.max_tokens, c.max_positions)
    text = rm_text(sample.task_type, sample.problem, trace, sample.task_type)
    say_text("Reason RM's input", len(tokenizer.encode(text)), text, say)
    lengths = {t.problem_id: len(tokenizer.encode(rm_text(t.task_type, t.problem, "", t.task_type))) for t in tasks}
    say_longest("Reason RM's inputs without their traces", lengths, 0, limit, say)
    say_tight("Reason RM (the problem is then shortened)", lengths, longest_trace(config), limit, say)
    if dimensions_of(sample.task_type) != heads.dimension_names:
        say(
            f"note: reward_model.path judges {', '.join(heads.dimension_names)}, which is not the rubric of {sample.task_type}"
        )


def group_text(group: Group) -> str:
    """The input of a group's longest trace."""
    longest = max(group.candidates, key=lambda c: len(c.reasoning))
    return rm_text(group.task_type, group.problem, longest.reasoning, group.type_text)


def group_tokens(group: Group, tokenizer: Tokenizer, limit: int) -> int:
    """Tokens of a group's longest trace as the stage reads it. Raises ValueError where it does not fit."""
    longest = max(group.candidates, key=lambda c: len(c.reasoning))
    return len(rm_tokens(tokenizer, limit, group.task_type, group.problem, longest.reasoning, group.type_text))


def longest_trace(config: Config) -> int:
    """The most tokens of a trace, taking the reader's tokens to be as long as the planner's."""
    return min(config.planner.max_new_tokens, config.executor.max_trace_chars)


class Unasked:
    """An executor's backend that is there for the prompts (tracelift.executor.backend.Backend and Scoring)."""

    fingerprint = "none"

    def complete(self, requests: Sequence[CompletionRequest], progress: Progress | None = None) -> list[Reply]:
        raise NotImplementedError("a dry run asks no executor")

    def score(self, requests: Sequence[ScoreRequest]) -> list[Likelihood]:
        raise NotImplementedError("a dry run asks no executor")


# -- refusals and lines -------------------------------------------------------------------------------------------------


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
    """A note where a model folder has no weights yet, or broken ones."""
    try:
        tensor_files(Path(path))
    except (FileNotFoundError, models.CheckpointError) as e:
        say(f"note: {key}: {e}; the run will need it")


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
