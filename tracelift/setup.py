"""Build a run's parts from its config: planner, executor (from disk or behind a server), Reason RM.

Kept out of train.py and eval.py so that both build the same things from the same keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import models
from models import Tokenizer, Transformer
from models.lora import LoRAConfig, attach
from tracelift.backend import LocalBackend
from tracelift.config import Config, Lora
from tracelift.executor import BaselineCache, Executor, ExecutorSettings
from tracelift.judging import TaskJudge
from tracelift.prompts import BASELINE, EXECUTOR, load_template, use_chat
from tracelift.reason_rm import LocalScorer, Scorer
from tracelift.sampler import Sampler
from tracelift.sandbox import Limits

MiB = 1 << 20


def build_planner(config: Config, device: torch.device) -> tuple[Transformer, Tokenizer]:
    """The model to train, with its tokenizer. Raises FileNotFoundError, ValueError or models.CheckpointError."""
    p = config.planner
    if p.adapter and config.lora.r:
        raise ValueError("planner.adapter and lora.r: an adapter brings its own rank; give one of the two")
    model = models.load_pretrained(p.path, dtype=getattr(torch, config.run.dtype), device=device, adapter=p.adapter or None)
    attach_lora(model, config.lora, config.run.seed)
    return model, models.load_tokenizer(p.path)


def attach_lora(model: nn.Module, config: Lora, seed: int, also_train: tuple[str, ...] = ()) -> None:
    """Fresh adapters in place, everything else but `also_train` frozen; nothing for r = 0.

    Raises ValueError where `lora.from_block` leaves no block, or a target names nothing.
    """
    if not config.r:
        return
    targets: tuple[str, ...] | str = tuple(config.targets)
    if config.from_block:
        blocks = range(config.from_block, model.config.num_layers)
        if not blocks:
            raise ValueError(f"lora.from_block = {config.from_block}, but the model's {model.config.num_layers} blocks count from 0")
        names = "|".join(map(re.escape, config.targets))
        targets = rf".*\.layers\.({'|'.join(map(str, blocks))})\.(.*\.)?({names})"  # PEFT reads a string the same way
    attach(model, LoRAConfig(config.r, config.alpha, config.dropout, targets, also_train), seed)


def build_sampler(model: Transformer, tokenizer: Tokenizer, config: Config) -> Sampler:
    return Sampler(model, tokenizer.eos_ids, tokenizer.pad_id, decode=tokenizer.decode,
                   memory_bytes=config.executor.memory_mb * MiB)  # fmt: skip


def build_judge(config: Config) -> TaskJudge:
    """The verifier, with the config's limits for programs; no sandbox starts before the first program."""
    c = config.sandbox
    limits = Limits(cpu_seconds=c.cpu_seconds, wall_seconds=c.wall_seconds, memory_bytes=c.memory_mb * MiB)
    return TaskJudge(limits, c.workers, c.allow_weak_sandbox)


def build_executor(config: Config, device: torch.device, cache: Path | None) -> Executor:
    """A frozen local model, or a remote server where `executor.url` is set."""
    e = config.executor
    settings = ExecutorSettings(
        template=load_template(e.prompt, EXECUTOR, ("problem", "trace")),
        baseline_template=load_template(e.baseline_prompt, BASELINE, ("problem",)),
        repeats=e.repeats, baseline_repeats=e.baseline_repeats or e.repeats, max_new_tokens=e.max_new_tokens,
        temperature=e.temperature, stop=tuple(e.stop), seed=config.run.seed, retries=e.retries,
    )  # fmt: skip
    judge = build_judge(config)
    if e.url:
        from tracelift.remote import RemoteBackend

        if e.chat == "on":
            raise ValueError("executor.chat = 'on' needs a local tokenizer; a remote executor gets plain prompts")
        return Executor(RemoteBackend(e.url, e.model, api_key(e.key_env)), settings, BaselineCache(cache), judge=judge)
    model = models.load_pretrained(e.path, dtype=getattr(torch, config.run.dtype), device=device).requires_grad_(False)
    tokenizer = models.load_tokenizer(e.path)
    backend = LocalBackend(model, tokenizer, build_sampler(model, tokenizer, config))
    if not use_chat(e.chat, tokenizer):
        return Executor(backend, settings, BaselineCache(cache), judge=judge)

    def wrap(text: str) -> str:
        return tokenizer.render_chat([{"role": "user", "content": text}], add_generation_prompt=True)

    return Executor(backend, settings, BaselineCache(cache), wrap, judge)


def api_key(variable: str) -> str | None:
    """The value of an environment variable, None for no name. Raises ValueError where it is not set."""
    if variable and not os.environ.get(variable):
        raise ValueError(f"key_env: the environment variable {variable} is not set")
    return os.environ[variable] if variable else None


def build_scorer(config: Config, device: torch.device) -> Scorer | None:
    """The Reason RM of a folder, or of a server where `reward_model.url` is set; None where neither is given."""
    r = config.reward_model
    if r.url:
        from tracelift.remote_rm import RemoteScorer

        return RemoteScorer(r.url, api_key(r.key_env), r.max_tokens, timeout_s=r.timeout_s, retries=r.retries)
    if not r.path:
        return None
    rm = models.load_reward_model(r.path, dtype=getattr(torch, config.run.dtype), device=device).requires_grad_(False)
    return LocalScorer(rm, models.load_tokenizer(r.path), r.max_tokens)


def quiet_unless_main(is_main: bool) -> Callable[[str], None]:
    """Progress lines from rank 0 only, flushed as they come."""
    return (lambda line: print(line, flush=True)) if is_main else (lambda line: None)
