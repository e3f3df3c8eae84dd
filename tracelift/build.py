"""Build a run's parts from its config: planner, executor (from disk or behind a server), Reason RM.

Kept out of train.py and eval.py so that both build the same things from the same keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import models
from models import Tokenizer, Transformer
from models.lora import load_adapter
from tracelift.config.schema import Config
from tracelift.distributed.parallel import Parallel
from tracelift.distributed.world import World, find_device
from tracelift.errors import naming
from tracelift.executor.backend import Backend
from tracelift.executor.baselines import BaselineCache
from tracelift.executor.executor import Executor, ExecutorSettings
from tracelift.executor.judge import TaskJudge
from tracelift.executor.likelihood import spellings
from tracelift.executor.local import LocalBackend
from tracelift.reward_model.oracle import is_oracle, oracle
from tracelift.reward_model.scorer import LocalScorer, Scorer
from tracelift.rl.grpo import Reference
from tracelift.rl.policy import Policy
from tracelift.rl.rollout import PlannerPrompt
from tracelift.rubrics import other_rubric
from tracelift.sampler import Sampler
from tracelift.sandbox import Limits
from tracelift.tasks.benchmarks import Benchmark, demo_benchmark, read_benchmark
from tracelift.tasks.prompts import BASELINE, EXECUTOR, PromptFormat, load_template, use_chat
from tracelift.tasks.rows import Verifier
from tracelift.tasks.sources import FileTasks, code_file_tasks, file_tasks
from tracelift.tasks.task import Task, TaskSource
from tracelift.training.lora import attach_lora
from tracelift.worlds.tasks import demo_tasks

MiB = 1 << 20


def build_planner(config: Config, device: torch.device) -> tuple[Transformer, Tokenizer]:
    """The model to train, with its tokenizer. Raises FileNotFoundError, ValueError or models.CheckpointError."""
    p = config.planner
    refuse_two_adapters(config)
    with naming("planner.path", p.path):
        model = models.load_pretrained(p.path, dtype=getattr(torch, config.run.dtype), device=device)
        tokenizer = models.load_tokenizer(p.path)
    if p.adapter:
        with naming("planner.adapter", p.adapter):
            load_adapter(model, p.adapter)
    attach_lora(model, config.lora, config.run.seed)
    return model.eval(), tokenizer


def refuse_two_adapters(config: Config) -> None:
    """Raise ValueError where the planner's adapter is given twice, from a folder and fresh."""
    if config.planner.adapter and config.lora.r:
        raise ValueError("planner.adapter and lora.r: an adapter brings its own rank; give one of the two")


def build_policy(config: Config, world: World, device: torch.device) -> Policy:
    model, tokenizer = build_planner(config, device)
    reference = Reference(model, bool(config.planner.adapter)) if config.grpo.kl_coef > 0 else None
    copies = [reference.copy] if reference and reference.copy else []
    parallel = Parallel(model, config.parallel.mode, world, copies)
    sampler = build_sampler(parallel.whole, tokenizer, config)
    return Policy(config, model, tokenizer, reference, parallel, sampler, PlannerPrompt(config, tokenizer))


def build_sampler(model: Transformer, tokenizer: Tokenizer, config: Config) -> Sampler:
    return Sampler(
        model,
        tokenizer.eos_ids,
        tokenizer.pad_id,
        decode=tokenizer.decode,
        memory_bytes=config.executor.memory_mb * MiB,
    )


def build_judge(config: Config) -> TaskJudge:
    """The verifier, with the config's limits for programs; no sandbox starts before the first program."""
    c = config.sandbox
    limits = Limits(cpu_seconds=c.cpu_seconds, wall_seconds=c.wall_seconds, memory_bytes=c.memory_mb * MiB)
    return TaskJudge(limits, c.workers, c.allow_weak_sandbox)


def build_executor(
    config: Config,
    device: torch.device,
    cache: Path | None,
    say: Callable[[str], None] = print,
    give_up: Callable[[], bool] = bool,
    backend: Backend | None = None,
) -> Executor:
    """A frozen model: a remote server's where `executor.url` is set, or a local one.

    say, give_up: who hears that the server is waited for, and what ends the wait early (a request to stop). backend: what
    answers instead of either; the prompts are the same.
    """
    e = config.executor
    settings = ExecutorSettings(
        template=load_template(e.prompt, EXECUTOR, ("problem", "trace")),
        baseline_template=load_template(e.baseline_prompt, BASELINE, ("problem",)),
        repeats=e.repeats,
        baseline_repeats=e.baseline_repeats or e.repeats,
        max_new_tokens=e.max_new_tokens,
        temperature=e.temperature,
        stop=tuple(e.stop),
        seed=config.run.seed,
        uplift=e.uplift,
        nats=e.likelihood_nats,
    )
    cached, judge = BaselineCache(cache), build_judge(config)
    if e.url:
        if e.chat == "on":
            raise ValueError("executor.chat = 'on' needs a local tokenizer; a remote executor gets plain prompts")
        return Executor(backend or remote_backend(config, say, give_up), settings, cached, judge=judge)
    with naming("executor.path", e.path):
        tokenizer = models.load_tokenizer(e.path)
    form = PromptFormat(tokenizer, use_chat(e.chat, tokenizer), e.chat_options)
    return Executor(backend or build_backend(config, device, tokenizer), settings, cached, form, judge)


def remote_backend(config: Config, say: Callable[[str], None], give_up: Callable[[], bool]) -> Backend:
    """The server at `executor.url`. Raises ValueError where its key is not in the environment, or nobody listens there."""
    from tracelift.executor.remote.client import RemoteBackend
    from tracelift.executor.remote.outage import Outage
    from tracelift.executor.remote.prefetch import PrefetchingBackend

    e = config.executor
    patience = Outage(e.patience_s, say, give_up)
    key = api_key(e.key_env)
    with naming("executor.url"):
        server = RemoteBackend(e.url, e.model, key, retries=e.retries, patience=patience)
        server.knock()
    with naming("executor.model"):
        _ = server.name  # asked for where none is given
    return PrefetchingBackend(server)


def refuse_absent_servers(config: Config) -> None:
    """Raises ValueError naming the key where nobody listens at `executor.url` or `reward_model.url`. Nothing is asked."""
    from tracelift.executor.remote.client import RemoteBackend
    from tracelift.reward_model.remote import ScoreCalls

    e, r = config.executor, config.reward_model
    for name, section, client in (("executor.url", e, RemoteBackend), ("reward_model.url", r, ScoreCalls)):
        if section.url:
            key = api_key(section.key_env)
            with naming(name):
                client(section.url, "", key).knock()


def api_key(variable: str) -> str | None:
    """The value of an environment variable, None for no name. Raises ValueError where it is not set."""
    if variable and not os.environ.get(variable):
        raise ValueError(f"key_env: the environment variable {variable} is not set")
    return os.environ[variable] if variable else None


def build_backend(config: Config, device: torch.device, tokenizer: Tokenizer | None = None) -> LocalBackend:
    """The executor's model in this process, on `executor.device` or else `device`."""
    e = config.executor
    place = find_device(e.device, "executor.device") if e.device else device
    with naming("executor.path", e.path):
        model = models.load_pretrained(e.path, dtype=getattr(torch, config.run.dtype), device=place)
        tokenizer = tokenizer or models.load_tokenizer(e.path)
    model.requires_grad_(False)
    return LocalBackend(model, tokenizer, build_sampler(model, tokenizer, config))


def check_references(config: Config, tasks: TaskSource) -> None:
    """Refuse at the start, not rounds later, a file of problems of which some have no reference to score.

    Raises ValueError naming the problem. The demos' problems all have one.
    """
    if config.executor.uplift == "likelihood" and isinstance(tasks, FileTasks):
        for task in tasks.tasks:
            spellings(task, tuple(config.executor.stop))


def build_scorer(
    config: Config, device: torch.device, say: Callable[[str], None] = print, give_up: Callable[[], bool] = bool
) -> Scorer | None:
    """The Reason RM of a folder, on `reward_model.device` or else `device`, or of a server where `reward_model.url` is set;
    None where neither is given."""
    r = config.reward_model
    if r.url:
        from tracelift.executor.remote.outage import Outage
        from tracelift.reward_model.remote import RemoteScorer

        patience, key = Outage(config.executor.patience_s, say, give_up), api_key(r.key_env)
        with naming("reward_model.url"):
            return RemoteScorer(r.url, key, r.max_tokens, timeout_s=r.timeout_s, retries=r.retries, patience=patience)
    if not r.path:
        return None
    if is_oracle(r.path):
        return oracle(r.path)
    place = find_device(r.device, "reward_model.device") if r.device else device
    with naming("reward_model.path", r.path):
        rm = models.load_reward_model(r.path, dtype=getattr(torch, config.run.dtype), device=place)
        return LocalScorer(rm.requires_grad_(False), models.load_tokenizer(r.path), r.max_tokens)


def load_tasks(
    source: str,
    seed: int,
    limit: int = 0,
    max_chars: int = 0,
    say: Callable[[str], None] = print,
    verifier: Verifier = "numeric",
) -> TaskSource:
    """`demo:math` or `demo:code`; `code:FILE`, programs with tests; or a file of problems (tracelift/tasks/sources.py).

    Rows longer than `max_chars` characters are left out and counted aloud. Raises FileNotFoundError for a missing file,
    ValueError naming file and line for a broken row, and ValueError for a file that yields no problem.
    """
    if source.startswith("demo:"):
        return demo_tasks(source, seed)
    if source.startswith("code:"):
        return code_file_tasks(Path(source.removeprefix("code:")), seed, limit, max_chars, say)
    return file_tasks(Path(source), seed, limit, max_chars, say, verifier)


MEMORY = "what the evaluation says of them is memory as well as skill; give problems that no round trains on"


def load_training_tasks(config: Config, say: Callable[[str], None], dimension_names: Sequence[str] = ()) -> TaskSource:
    """The problems a run trains on; said where a Reason RM of these dimensions has another rubric. Raises as `load_tasks` and
    `check_references` do."""
    d = config.data
    with naming("data.source"):
        tasks = load_tasks(d.source, d.seed, d.limit, config.planner.max_problem_chars, say, d.verifier)
    check_references(config, tasks)
    if line := other_rubric(dimension_names, tasks.first(1)[0].task_type):
        say(line)
    return tasks


def load_held_out(config: Config, training: TaskSource, say: Callable[[str], None]) -> list[Task]:
    """The problems a training run is evaluated on before and after; none for a file without `data.eval_source`.

    Those of a file that are among `training` are counted aloud. Raises as `load_tasks` does.
    """
    source = config.data.eval_source or (config.data.source if config.data.source.startswith("demo:") else "")
    if not source or config.data.eval_problems <= 0:
        return []
    with naming("data.eval_source" if config.data.eval_source else "data.source"):
        longest, verifier = config.planner.max_problem_chars, config.data.verifier
        found = load_tasks(source, config.data.eval_seed, max_chars=longest, say=say, verifier=verifier)
    held_out = found.first(config.data.eval_problems)
    if shared := trained_on(training, held_out):
        say(f"note: {shared} of the {len(held_out)} problems of data.eval_source are in data.source too: {MEMORY}")
    return held_out


def trained_on(training: TaskSource | None, tasks: Sequence[Task]) -> int | None:
    """How many of the tasks are among a training file's problems; None for a source that is no file."""
    if not isinstance(training, FileTasks):
        return None
    known = {task.problem for task in training.tasks}
    return sum(task.problem in known for task in tasks)


def load_benchmark(spec: str, config: Config, say: Callable[[str], None] = print) -> Benchmark:
    """`demo:math`, `demo:code`, or FORMAT:FILE (tracelift/tasks/benchmarks.py). Raises ValueError on any other demo,
    BenchmarkError on a file that cannot be read."""
    if spec.startswith("demo:"):
        return demo_benchmark(spec, demo_tasks(spec, config.data.eval_seed), config.eval.limit)
    return read_benchmark(spec, config, say)
