"""From problems to graded traces: sample, execute, verify, score, reward. One function a verb, in that order.

A `Sample` collects everything that is known about one trace; training, evaluation, the logs and `tracelift.explain` all
read the same record. Left out: what the reward means (tracelift/rl/rewards.py) and how it moves the policy
(tracelift/rl/grpo.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from models import Tokenizer
from tracelift.config import Config
from tracelift.tasks.sources import Task
from tracelift.distributed.world import World
from tracelift.executor.executor import Executor, Outcome
from tracelift.verify.leaks import leaks_answer
from tracelift.executor.outage import ServerGone
from tracelift.tasks.prompts import encode_prompt, extract_trace, load_template, render, use_chat
from tracelift.tasks.prompts import PLANNER as PLANNER_TEMPLATES
from tracelift.programs import leaks_program
from tracelift.reward_model.scorer import RMScore, Scorer, ScoreItem
from tracelift.rl.rewards import CodeReward, MathReward, code_reward, exec_reward, math_reward
from tracelift.sampler import Completion, Sampler, SamplingParams
from tracelift.errors import TrainingError
from tracelift.verify.math import Verdict


@dataclass
class Sample:
    """One trace on its way to a reward. Fields fill from top to bottom; `error` set means it leaves its group."""

    task: Task
    prompt_tokens: list[int]
    completion: Completion
    text: str
    trace: str | None  # None: a format failure, the executor is not called
    outcome: Outcome | None = None
    rm: RMScore | None = None
    parts: MathReward | CodeReward | None = None
    reward: float | None = None
    leaked: bool = False  # the final value is stated, or the program or a line of it
    leaked_unsupported: bool = False  # a value without the steps that yield it
    valid: bool | None = None  # every step true and grounded; None where the truth is unknown
    error: str | None = None

    @property
    def correct(self) -> bool:
        return self.outcome is not None and self.outcome.e2e is Verdict.PASS

    def record(self, tokens: bool = False) -> dict[str, Any]:
        """Everything about this sample, for samples.jsonl; with `tokens` also the trained tokens and their log-probs."""
        o, r, c = self.outcome, self.rm, self.completion
        trained = {"token_ids": c.tokens, "logprobs": [round(x, 4) for x in c.logprobs]} if tokens else {}
        ran = {} if o is None or o.judgement is None or self.task.code is None else {
            "status": o.judgement.status, "pass_rate": o.judgement.pass_rate, "visible_rate": o.judgement.visible_rate,
            "detail": o.judgement.detail}  # fmt: skip
        return ran | {
            "problem_id": self.task.problem_id, "problem": self.task.problem, "reference": self.task.reference,
            "text": self.text, "trace": self.trace, "tokens": len(self.completion.tokens),
            "finish_reason": self.completion.finish_reason, "artifact": o.artifact if o else None,
            "runs": list(o.runs) if o else [], "verdicts": list(o.verdicts) if o else [],
            "base_runs": [list(run) for run in o.base_runs] if o else [], "e2e": o.e2e.name if o else None,
            "success_with": o.success_with if o else None, "success_base": o.success_base if o else None,
            "uplift": o.uplift if o else None, "likelihoods": list(o.logprobs) if o and o.logprobs else None, "rm_total": r.total if r else None,
            "rm_derived": r.derived if r else None, "rm_head": r.head if r else None,
            "rm_dimensions": list(r.dimensions) if r else None, "leaked": self.leaked,
            "leaked_unsupported": self.leaked_unsupported, "valid": self.valid,
            "parts": asdict(self.parts) if self.parts else None, "reward": self.reward, "error": self.error, **trained,
        }  # fmt: skip


class PlannerPrompt:
    """Turns a problem into the planner's token ids. `prefill` opens the reply: part of its text, not of its training."""

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.template = load_template(config.planner.prompt, PLANNER_TEMPLATES, ("problem",))
        self.chat = use_chat(config.planner.chat, tokenizer)
        self.prefill = config.planner.prefill

    def __call__(self, task: Task) -> list[int]:
        ids = encode_prompt(self.tokenizer, render(self.template, problem=task.problem), self.chat)
        return ids + self.tokenizer.encode(self.prefill, add_special_tokens=False) if self.prefill else ids


def sample_traces(sampler: Sampler, prompt: PlannerPrompt, tasks: Sequence[Task], params: SamplingParams,
                  keys: Sequence[tuple[int, ...]], max_trace_chars: int,
                  early: Callable[[Task, str], None] | None = None) -> list[list[Sample]]:  # fmt: skip
    """`params.n` samples per task, grouped by task. `early` is told each trace as soon as it is written.

    Raises ValueError on a prompt that leaves no room for a trace, TrainingError on log-probs that are not finite.
    """
    prompts = [prompt(t) for t in tasks]
    limit = sampler.model.config.max_positions
    for task, ids in zip(tasks, prompts, strict=True):
        if len(ids) + params.max_new_tokens > limit:
            raise ValueError(
                f"{task.problem_id}: a prompt of {len(ids)} tokens and {params.max_new_tokens} new ones exceed the planner's "
                f"context of {limit}; lower planner.max_new_tokens or planner.max_problem_chars"
            )

    def written(i: int, j: int, completion: Completion) -> None:
        trace = extract_trace(prompt.prefill + prompt.tokenizer.decode(completion.tokens), max_trace_chars)
        if trace is not None:
            early(tasks[i], trace)

    groups = sampler.generate(prompts, params, keys=list(keys), finished=written if early else None)
    if not all(math.isfinite(x) for completions in groups for c in completions for x in c.logprobs):
        raise TrainingError("the planner's log-probs are not finite: its weights hold NaN or have grown without bound; "
                            "start from good weights, or resume from an earlier checkpoint with a lower optim.lr")  # fmt: skip
    out = []
    for task, ids, completions in zip(tasks, prompts, groups, strict=True):
        texts = [prompt.prefill + prompt.tokenizer.decode(c.tokens) for c in completions]
        out.append([Sample(task, ids, c, text, extract_trace(text, max_trace_chars))
                    for c, text in zip(completions, texts, strict=True)])  # fmt: skip
    return out


def needs_uplift(config: Config) -> bool:
    """Whether the reward asks for the executor's repeats and baseline, and not for the end-to-end run alone."""
    return config.reward.mode in ("tracelift", "uplift_only", "product_only")


def grade(groups: Sequence[Sequence[Sample]], executor: Executor, scorer: Scorer | None, config: Config) -> None:
    """Fill in outcome, RM score, reward, validity and leakage of every sample, in place."""
    samples = [s for group in groups for s in group]
    formed = [s for s in samples if s.trace is not None]
    outcomes = executor.evaluate([(s.task, s.trace or "") for s in formed], need_repeats=needs_uplift(config))
    for s, outcome in zip(formed, outcomes, strict=True):
        s.outcome, s.error = outcome, outcome.error
    if scorer is not None:
        judged = [s for s in formed if s.error is None]
        items = [ScoreItem(s.task.task_type, s.task.problem, s.trace or "", s.task.task_type, truth=s.task.truth) for s in judged]
        for s, score in zip(judged, scorer.score(items), strict=True):
            s.rm, s.error = score, score.error
    for s in samples:
        if s.trace is not None:
            s.valid = s.task.trace_valid(s.trace)
            if s.task.code is not None:
                s.leaked = s.leaked_unsupported = leaks_program(s.trace, s.task.reference)
            else:
                leak = leaks_answer(s.trace, s.task.reference, s.task.problem)
                s.leaked, s.leaked_unsupported = leak.stated, leak.unsupported
        elif s.task.truth is not None:
            s.valid = False
        if s.error is None:
            s.reward = reward_of(s, config)


def grade_everywhere(groups: list[list[Sample]], executor: Executor, scorer: Scorer | None, config: Config, world: World) -> list[list[Sample]]:
    """Grade this rank's groups in place; returns all ranks' groups, in the order of the round's problems.

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

    Paper: 0.5·e2e + 0.5·R·u for a number, clip(exec + 0.2·R·c) for a program (DESIGN §2).
    """
    c = config.reward
    if s.outcome is None:
        return c.format_reward
    o = s.outcome
    if s.task.code is not None:
        return program_reward(s, o, config)
    s.parts = math_reward(
        o.e2e is Verdict.PASS, o.with_successes, o.base_successes, o.repeats,
        s.rm.total if s.rm is not None else None, variant=c.variant, mode=c.mode, base_repeats=o.base_repeats,
        leaked=s.leaked, leak_penalty=c.leak_penalty, uplift=None if o.logprobs is None else o.uplift,
    )  # fmt: skip
    return s.parts.reward


def program_reward(s: Sample, o: Outcome, config: Config) -> float:
    """The code reward from the primary run's shaped execution reward, less the penalty for a leak."""
    c, run = config.reward, o.judgement
    if run is None:
        raise ValueError(f"{s.task.problem_id}: a program without a judgement has no reward")
    shaped = exec_reward(run.status, run.pass_rate, c.exec_style, c.variant, run.produced_output)
    s.parts = code_reward(
        shaped, o.with_successes, o.base_successes, o.repeats, s.rm.total if s.rm is not None else None, weight=c.code_weight,
        variant=c.variant, mode=c.mode, base_repeats=o.base_repeats, exec_range=(-1.0, 1.0) if c.exec_style == "coderl" else (0.0, 1.0),
        uplift=None if o.logprobs is None else o.uplift,
    )  # fmt: skip
    return s.parts.reward - (c.leak_penalty if s.leaked else 0.0)


def refuse_too_many_errors(groups: list[list[Sample]], allowed: float, step: int) -> None:
    """Stop where ERROR verdicts are no longer the exception: training on what is left would be training on luck."""
    samples = [s for g in groups for s in g]
    errors = [s.error for s in samples if s.error is not None]
    if len(errors) > allowed * len(samples):
        raise TrainingError(
            f"round {step + 1}: {len(errors)} of {len(samples)} samples ended in an ERROR verdict, more than "
            f"executor.max_error_share = {allowed}. The first: {errors[0]}"
        )


def group_metrics(groups: Sequence[Sequence[Sample]], dimension_names: Sequence[str]) -> dict[str, float]:
    """Means over a round's samples, ERROR samples left out of everything but their own count."""
    samples = [s for group in groups for s in group]
    kept = [s for s in samples if s.error is None]
    ran = [s for s in kept if s.outcome is not None]
    rewards = [s.reward for s in kept if s.reward is not None]
    spread = [len({round(s.reward, 9) for s in g if s.error is None and s.reward is not None}) <= 1 for g in groups]
    metrics = {
        "reward": mean(rewards),
        "reward_std": (mean([(r - mean(rewards)) ** 2 for r in rewards])) ** 0.5,
        "accuracy": mean([float(s.correct) for s in kept]),
        "format_failures": mean([float(s.trace is None) for s in samples]),
        "verdict_errors": mean([float(s.error is not None) for s in samples]),
        "zero_spread": mean([float(x) for x in spread]),
        "trace_tokens": mean([float(len(s.completion.tokens)) for s in samples]),
        "truncated": mean([float(s.completion.finish_reason == "length") for s in samples]),
        "leak_rate": mean([float(s.leaked) for s in kept]),
        "leak_unsupported_rate": mean([float(s.leaked_unsupported) for s in kept]),
        "distinct_traces": mean([len({s.text for s in g}) / len(g) for g in groups]),
    }
    if any(s.parts is not None and s.outcome and (s.outcome.runs or s.outcome.logprobs) for s in ran):
        metrics["success_with"] = mean([s.outcome.success_with for s in ran if s.outcome])
        metrics["success_base"] = mean([s.outcome.success_base for s in ran if s.outcome])
        metrics["uplift"] = metrics["success_with"] - metrics["success_base"]
    scored = [s.outcome for s in ran if s.outcome and s.outcome.logprobs]
    if scored:  # nats per answer, before the reward clips them
        metrics["likelihood_uplift"] = mean([o.logprobs[0] - o.logprobs[1] for o in scored])
        metrics["likelihood_clipped"] = mean([float(abs(o.uplift) > 1) for o in scored])
    programs = [s.outcome.judgement for s in ran if s.task.code is not None and s.outcome and s.outcome.judgement]
    if programs:
        metrics["pass_rate"] = mean([j.pass_rate for j in programs])
        metrics["visible_pass_rate"] = mean([j.visible_rate for j in programs if j.visible_rate is not None])
        for status in ("failed_test", "runtime_error", "timeout", "compile_error"):
            metrics[f"status/{status}"] = mean([float(j.status == status) for j in programs])
    judged = [s.rm for s in kept if s.rm is not None]
    if judged:
        metrics["rm_score"] = mean([r.total for r in judged])
        for d, name in enumerate(dimension_names):
            metrics[f"rm/{name}"] = mean([r.dimensions[d] for r in judged])
    known = [s for s in kept if s.valid is not None]
    if known:
        metrics["trace_validity"] = mean([float(bool(s.valid)) for s in known])
        right = [s for s in known if s.correct]
        metrics["wrong_reason_rate"] = mean([float(not s.valid) for s in right])
    return metrics


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
