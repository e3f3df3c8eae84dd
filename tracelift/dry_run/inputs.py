"""A dry run's inputs of planner, executor and Reason RM: rendered for one problem, measured for all against the contexts.

Left out: what a stage has beside them (the package itself).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

import models
from models import ModelConfig, Tokenizer
from models.reward import read_reward_config
from tracelift.build import build_executor
from tracelift.config import Config
from tracelift.dry_run.folder import refuse_unwritable
from tracelift.dry_run.lines import Say, say_longest, say_text, say_tight, say_weights
from tracelift.errors import ConfigError, naming
from tracelift.executor.backend import CompletionRequest, Likelihood, Progress, Reply, ScoreRequest
from tracelift.executor.executor import Executor
from tracelift.reward_model.group_format import Group
from tracelift.reward_model.oracle import is_oracle, oracle
from tracelift.reward_model.scorer import rm_text, rm_tokens
from tracelift.rl.rollout import PlannerPrompt, refuse_no_room
from tracelift.rubrics import other_rubric
from tracelift.tasks.task import Task
from tracelift.training.memory_plan import config_at


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
    if e.cache:
        refuse_unwritable("executor.cache", Path(e.cache))
    cache = Path(e.cache) if e.cache else None  # read, so that a file that is none is refused
    executor = build_executor(config, torch.device("cpu"), cache, backend=Unasked())
    if e.url:
        say(f"executor at {e.url}, which is not asked: its context and tokens are not known here")
        say_text("executor's prompt", 0, executor.prompt(sample, trace), say)
        say_text("executor's prompt without a trace", 0, executor.prompt(sample, None), say)
        return
    c = config_at("executor.path", e.path)
    say_weights("executor.path", e.path, say)
    say_executor_prompts(executor, sample, trace, say)
    lengths = {task.problem_id: len(executor.form.encode(executor.prompt(task, ""))) for task in tasks}
    say_longest("executor's prompts without their traces", lengths, e.max_new_tokens, c.max_positions, say)
    over = [name for name, n in lengths.items() if n + e.max_new_tokens > c.max_positions]
    if len(over) > e.max_error_share * len(lengths):
        raise ConfigError(
            f"{len(over)} of {len(lengths)} problems ({over[0]} and others) exceed the executor's {c.max_positions} positions, "
            "whatever the trace: each would be an ERROR, and more than executor.max_error_share of them stop the run; lower "
            "executor.max_new_tokens or planner.max_problem_chars"
        )
    say_tight("executor", lengths, longest_trace(config) + e.max_new_tokens, c.max_positions, say)


def say_executor_prompts(executor: Executor, sample: Task, trace: str, say: Say) -> None:
    for title, given in (("executor's prompt", trace), ("executor's prompt without a trace", None)):
        text = executor.prompt(sample, given)
        say_text(title, len(executor.form.encode(text)), text, say)


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
    if line := other_rubric(heads.dimension_names, sample.task_type):
        say(line)


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
