"""Planner + executor on a fixed set of problems, greedy and sampled, with paired comparison of two evaluations.

Greedy: planner and executor both take the most likely token, one run a problem. Sampled: both at their training
temperatures. Every problem has the same keys in every evaluation, so two planners meet the same random numbers and can
be compared problem by problem. Left out: external benchmarks and pass@k (eval.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from tracelift.config import Config
from tracelift.executor.executor import Executor
from tracelift.reward_model.scorer import Scorer
from tracelift.rl.metrics import Share, accuracy, trace_validity, wrong_reason_rate, wrong_reasons_by_fault
from tracelift.rl.rollout import PlannerPrompt, grade, sample_traces
from tracelift.rl.sample import Sample
from tracelift.sampler import Sampler, SamplingParams
from tracelift.stats import mcnemar_exact
from tracelift.stats.figures import SHARE, Figure, average, difference
from tracelift.tasks.task import Task

_EVALUATION = 1 << 40  # first element of every evaluation key: never a training round
_DRAWS = 2000  # random sign flips for the interval of uplift, where not all are counted


def evaluate_planner(
    sampler: Sampler,
    prompt: PlannerPrompt,
    executor: Executor,
    scorer: Scorer | None,
    tasks: Sequence[tuple[int, Task]],
    config: Config,
    greedy: bool,
) -> list[Sample]:
    """One graded sample per (number, task); the number names the task's random draws, whichever rank works on it."""
    params = SamplingParams(
        n=1,
        max_new_tokens=config.planner.max_new_tokens,
        temperature=0.0 if greedy else config.planner.temperature,
        seed=config.run.seed,
        stop=tuple(config.planner.stop),
    )
    keys = [(_EVALUATION, number) for number, _ in tasks]
    groups = sample_traces(sampler, prompt, [t for _, t in tasks], params, keys, config.executor.max_trace_chars)
    # Success rates whatever the training's uplift, so that runs can be compared.
    settings = dataclasses.replace(executor.settings, uplift="sampled")
    if greedy:  # repeats of a greedy executor are the same run
        settings = dataclasses.replace(settings, temperature=0.0, repeats=1, baseline_repeats=1)
    full = dataclasses.replace(
        config, reward=dataclasses.replace(config.reward, mode="tracelift" if scorer else "uplift_only")
    )
    executor, samples = executor.variant(settings), [group[0] for group in groups]
    grade(groups, executor, scorer, full)
    unformed = [s for s in samples if s.trace is None]  # it solves nothing, but what the executor can do alone counts
    for s, outcome in zip(unformed, executor.without_traces([s.task for s in unformed]), strict=True):
        s.outcome, s.error = outcome, outcome.error
    return samples


def summarise(samples: Sequence[Sample]) -> dict[str, Figure]:
    """Named figures, each {value, low, high, n} with a 95% interval over its n problems (tracelift/stats/figures.py).

    Accuracy, baseline accuracy and uplift are over the same problems: all but those that ended in an ERROR. A format
    failure solves none of them with its trace, and its baseline counts as any other.
    """
    kept = [s for s in samples if s.error is None]
    ran = [s.outcome for s in kept if s.outcome is not None]
    pairs = [(s.correct, s.valid) for s in kept]
    out: dict[str, Figure] = {}

    def share(name: str, found: Share) -> None:
        average_of(name, [1.0] * found.hits + [0.0] * (found.n - found.hits))

    def average_of(name: str, values: Sequence[float], bounds: tuple[float, float] = SHARE) -> None:
        if values:
            out[name] = average(values, bounds)

    share("accuracy", accuracy(pairs))
    rates = [(b, w) for o in ran if (b := o.success_base) is not None and (w := o.success_with) is not None]
    average_of("baseline accuracy", [b for b, _ in rates])
    if rates:
        gain = difference([b for b, _ in rates], [w for _, w in rates], _DRAWS)
        out["uplift"] = {"value": gain["difference"], "low": gain["low"], "high": gain["high"], "n": gain["n"]}
    programs = [s.outcome.judgement for s in kept if s.task.code is not None and s.outcome and s.outcome.judgement]
    average_of("hidden tests passed", [j.pass_rate for j in programs])
    average_of("visible tests passed", [j.visible_rate for j in programs if j.visible_rate is not None])
    average_of("RM score", [s.rm.total for s in kept if s.rm is not None])
    share("trace validity", trace_validity(pairs))
    share("wrong-reason rate", wrong_reason_rate(pairs))
    for fault, found in wrong_reasons_by_fault((s.correct, s.valid, s.fault) for s in kept).items():
        share(f"wrong reasons: {fault}", found)
    share("answer leaked", Share.of(s.leaked for s in kept))
    share("format failures", Share.of(s.trace is None for s in kept))
    average_of("trace tokens", [float(len(s.completion.tokens)) for s in kept], (0.0, math.inf))
    if len(kept) < len(samples):
        share("errors", Share.of(s.error is not None for s in samples))
    return out


def paired(before: Sequence[bool], after: Sequence[bool]) -> dict[str, Any]:
    """Exact two-sided McNemar test on the same problems."""
    gained = sum(b and not a for a, b in zip(before, after, strict=True))
    lost = sum(a and not b for a, b in zip(before, after, strict=True))
    return {
        "gained": gained,
        "lost": lost,
        "n": len(before),
        "points": 100 * (gained - lost) / max(1, len(before)),
        "p": mcnemar_exact(lost, gained),
    }
