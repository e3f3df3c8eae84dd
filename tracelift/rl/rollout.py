"""From problems to graded traces: `sample_traces`, then `grade`: execute, verify, score, reward.

A `Sample` collects everything that is known about one trace; training, evaluation, the logs and `tracelift.explain` all
read the same record. Left out: what the reward means (tracelift/rl/rewards.py) and how it moves the policy
(tracelift/rl/grpo.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from models import Tokenizer
from tracelift.config import Config
from tracelift.config.modes import MODES
from tracelift.distributed.world import World
from tracelift.errors import ServerGone, TrainingError
from tracelift.executor.executor import Executor
from tracelift.executor.outcome import Outcome
from tracelift.programs import leaks_program
from tracelift.reward_model.scorer import ScoreItem, Scorer
from tracelift.rl.rewards import code_reward, exec_reward, math_reward
from tracelift.rl.sample import Sample
from tracelift.sampler import Completion, Sampler, SamplingParams
from tracelift.tasks.prompts import PLANNER as PLANNER_TEMPLATES
from tracelift.tasks.prompts import PromptFormat, extract_trace, load_template, use_chat
from tracelift.tasks.task import Task
from tracelift.verify.leaks import leaks_answer
from tracelift.verify.verdict import Verdict


class PlannerPrompt:
    """Turns a problem into the planner's token ids. `prefill` opens the reply: part of its text, not of its training."""

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.template = load_template(config.planner.prompt, PLANNER_TEMPLATES, ("problem",))
        self.form = PromptFormat(tokenizer, use_chat(config.planner.chat, tokenizer), config.planner.chat_options)
        self.prefill = config.planner.prefill

    def __call__(self, task: Task) -> list[int]:
        ids = self.form.encode(self.form.prompt(self.template, problem=task.problem))
        return ids + self.tokenizer.encode(self.prefill, add_special_tokens=False) if self.prefill else ids

    def reply(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """The text of `tokens` written after `prompt`, `prefill` in front of it."""
        return self.prefill + self.tokenizer.decode(tokens, after=prompt)


def sample_traces(
    sampler: Sampler,
    prompt: PlannerPrompt,
    tasks: Sequence[Task],
    params: SamplingParams,
    keys: Sequence[tuple[int, ...]],
    max_trace_chars: int,
    prefetch: Callable[[Task, str], None] | None = None,
) -> list[list[Sample]]:
    """`params.n` samples per task, grouped by task. `prefetch` is told each trace as soon as it is written.

    Raises ValueError on a prompt that leaves no room for a trace, TrainingError on log-probs that are not finite.
    """
    prompts = [prompt(t) for t in tasks]
    limit = sampler.model.config.max_positions
    for task, ids in zip(tasks, prompts, strict=True):
        refuse_no_room(task, ids, params.max_new_tokens, limit)

    def written(i: int, j: int, completion: Completion) -> None:
        trace = extract_trace(prompt.reply(prompts[i], completion.tokens), max_trace_chars)
        if trace is not None and prefetch is not None:
            prefetch(tasks[i], trace)

    groups = sampler.generate(prompts, params, keys=list(keys), finished=written if prefetch else None)
    if not all(math.isfinite(x) for completions in groups for c in completions for x in c.logprobs):
        raise TrainingError(
            "the planner's log-probs are not finite: its weights hold NaN or have grown without bound; "
            "start from good weights, or resume from an earlier checkpoint with a lower optim.lr"
        )
    out = []
    for task, ids, completions in zip(tasks, prompts, groups, strict=True):
        texts = [prompt.reply(ids, c.tokens) for c in completions]
        out.append(
            [
                Sample(task, ids, c, text, extract_trace(text, max_trace_chars))
                for c, text in zip(completions, texts, strict=True)
            ]
        )
    return out


def refuse_no_room(task: Task, prompt: Sequence[int], new: int, limit: int) -> None:
    """Raise ValueError where a prompt and `new` tokens more exceed the planner's `limit` positions."""
    if len(prompt) + new > limit:
        raise ValueError(
            f"{task.problem_id}: a prompt of {len(prompt)} tokens and {new} new ones exceed the planner's "
            f"context of {limit}; lower planner.max_new_tokens or planner.max_problem_chars"
        )


@dataclass(frozen=True)
class TraceFacts:
    """What the problem itself says of a trace. `valid`: every step is true and grounded; None where the truth is unknown.
    `stated`: the final value, or the program or a line of it; None without a trace. `unsupported`: a value without the
    steps that yield it; None without a trace, and for programs, of which this is not asked. `fault` and `step`: the first
    thing wrong in a trace that is not valid, and its 0-based sentence (tracelift.tasks.task.Validity)."""

    valid: bool | None = None
    stated: bool | None = None
    unsupported: bool | None = None
    fault: str | None = None
    step: int | None = None


def trace_facts(task: Task, trace: str | None) -> TraceFacts:
    """The facts about one trace; a format failure (None) is no valid trace where the truth is known."""
    found = task.check(trace)
    valid, fault, step = (found.valid, found.fault, found.step) if found is not None else (None, None, None)
    if trace is None:
        return TraceFacts(valid, None, None, fault, step)
    if task.code is not None:
        return TraceFacts(valid, leaks_program(trace, task.reference), None, fault, step)
    leak = leaks_answer(trace, task.reference, task.problem)
    return TraceFacts(valid, leak.stated, leak.unsupported, fault, step)


def score_item(task: Task, trace: str) -> ScoreItem:
    """What the Reason RM is asked about a trace."""
    return ScoreItem(task.task_type, task.problem, trace, task.task_type, truth=task.truth)


class Runs(TypedDict):
    need_repeats: bool
    need_baseline: bool


def runs_of(config: Config) -> Runs:
    """What the reward asks of the executor beside the end-to-end run, as `Executor.evaluate` and `begin` take it."""
    needs = MODES[config.reward.mode]
    return {"need_repeats": needs.repeats, "need_baseline": needs.baseline}


def grade(groups: Sequence[Sequence[Sample]], executor: Executor, scorer: Scorer | None, config: Config) -> None:
    """Fill in outcome, RM score, reward, validity and leakage of every sample, in place."""
    samples = [s for group in groups for s in group]
    formed = [s for s in samples if s.trace is not None]
    outcomes = executor.evaluate([(s.task, s.trace or "") for s in formed], **runs_of(config))
    for s, outcome in zip(formed, outcomes, strict=True):
        s.outcome, s.error = outcome, outcome.error
    if scorer is not None:
        judged = [s for s in formed if s.error is None]
        scores = scorer.score([score_item(s.task, s.trace or "") for s in judged])
        for s, score in zip(judged, scores, strict=True):
            s.rm, s.error = score, score.error
    for s in samples:
        facts = trace_facts(s.task, s.trace)
        s.valid, s.fault, s.leaked = facts.valid, facts.fault, bool(facts.stated)
        s.leaked_unsupported = s.leaked if facts.unsupported is None else facts.unsupported
        if s.error is None:
            s.reward = reward_of(s, config)


def grade_everywhere(
    groups: list[list[Sample]], executor: Executor, scorer: Scorer | None, config: Config, world: World
) -> list[list[Sample]]:
    """Grade this rank's groups, filling their samples in; returns all ranks' graded groups, in the order of the problems
    that were shared out (of one rank they are the same objects).

    Raises ServerGone on every rank where a server that any rank asks stayed away for longer than executor.patience_s.
    """
    try:
        grade(groups, executor, scorer, config)
        gone = None
    except ServerGone as e:
        gone = str(e)
    if (gone := world.first(gone)) is not None:
        raise ServerGone(gone)
    return world.merge(groups)


def reward_of(s: Sample, config: Config) -> float:
    """The scalar that GRPO sees; the variant and ablation come from the config.

    Paper: 0.5·e2e + 0.5·R·u for a number, clip(exec + 0.2·R·c) for a program (docs/method.md).
    """
    c = config.reward
    if s.outcome is None:
        return c.format_reward
    o = s.outcome
    if s.task.code is not None:
        return program_reward(s, o, config)
    s.parts = math_reward(
        o.e2e is Verdict.PASS,
        *counts_of(o, c.mode),
        s.rm.total if s.rm is not None else None,
        variant=c.variant,
        mode=c.mode,
        base_repeats=max(1, o.base_repeats),
        leaked=s.leaked,
        leak_penalty=c.leak_penalty,
        uplift=None if o.logprobs is None else o.uplift,
    )
    return s.parts.reward


def counts_of(o: Outcome, mode: str) -> tuple[float, float, int]:
    """(successes with the trace, without it, runs) as the rewards take them; what was not run reads 0 of one. The graded
    reward by likelihood counts the bounded log-likelihood as its success."""
    won = o.closeness if mode == "graded" and o.logprobs is not None else o.with_successes
    return won, o.base_successes, max(1, o.repeats)


def program_reward(s: Sample, o: Outcome, config: Config) -> float:
    """The code reward from the primary run's shaped execution reward, less the penalty for a leak."""
    c, run = config.reward, o.judgement
    if run is None:
        raise ValueError(f"{s.task.problem_id}: a program without a judgement has no reward")
    shaped = exec_reward(run.status, run.pass_rate, c.exec_style, c.variant, run.produced_output)
    s.parts = code_reward(
        shaped,
        *counts_of(o, c.mode),
        s.rm.total if s.rm is not None else None,
        weight=c.code_weight,
        variant=c.variant,
        mode=c.mode,
        base_repeats=max(1, o.base_repeats),
        exec_range=(-1.0, 1.0) if c.exec_style == "coderl" else (0.0, 1.0),
        uplift=None if o.logprobs is None else o.uplift,
    )
    return s.parts.reward - (c.leak_penalty if s.leaked else 0.0)
