"""A round of training again, from its record in samples.jsonl: rewards, advantages and token weights.

Everything is computed by the functions training itself used, from what it logged; nothing is sampled or
executed again. tracelift/explain/prose.py tells it to people. Left out: code rewards, whose shaped execution reward needs
the programs' runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tracelift.config import Config
from tracelift.executor.outcome import closeness
from tracelift.files import read_log
from tracelift.rl.flat_groups import GroupRewards, group_rewards, trained_traces
from tracelift.rl.grpo import BatchCounts, advantages, minibatches, token_weights
from tracelift.rl.rewards import math_reward
from tracelift.verify.leaks import leaks_answer
from tracelift.worlds.tasks import DemoTasks

Record = dict[str, Any]


class ExplainError(ValueError):
    """What was asked for is not in the run's record."""


def read_round(run: Path, step: int | None) -> tuple[list[int], list[Record]]:
    """(all logged rounds, the records of round `step`). Raises ExplainError where there are none."""
    path = run / "samples.jsonl"
    if not path.exists():
        raise ExplainError(f"{run}: no samples.jsonl there; is it the folder of a planner run?")
    records = read_log(path)
    steps = sorted({r["step"] for r in records})
    chosen = [r for r in records if r["step"] == step]
    if step is not None and not chosen:
        raise ExplainError(
            f"{path}: no round {step}; there are {steps[0]} to {steps[-1]}" if steps else f"{path}: is empty"
        )
    if chosen and "group" not in chosen[0]:
        raise ExplainError(f"{path}: was written by an older version that did not log every sample of a round")
    return steps, chosen


def why_invalid(r: Record, config: Config) -> str:
    """The first fault of a demo trace and the sentence it stands in, from the world's own record of the problem; empty
    where the truth is not known."""
    found = _truth(r, config)
    if found is None or found.fault is None:
        return ""
    return found.fault.replace("_", " ") + ("" if found.step is None else f" in sentence {found.step + 1}")


def _truth(r: Record, config: Config) -> Any:
    """The demo world's own judgement of a trace; None where the truth is not known."""
    if not config.data.source.startswith("demo:") or r["trace"] is None:
        return None
    task = DemoTasks(config.data.seed, config.data.source.removeprefix("demo:")).named(r["problem_id"])
    return (
        task.truth.check(r["trace"])
        if task is not None and task.truth is not None and task.problem == r["problem"]
        else None
    )


def grouped(records: Sequence[Record]) -> list[list[Record]]:
    """Samples of a round by problem, in the order of training."""
    groups: dict[int, list[Record]] = {}
    for r in records:
        groups.setdefault(r["group"], []).append(r)
    return [sorted(groups[i], key=lambda r: r["sample"]) for i in sorted(groups)]


def replay_rewards(groups: Sequence[Sequence[Record]]) -> GroupRewards:
    """What the update asked about a round's groups."""
    return group_rewards(
        [[(None if r["error"] is not None else r["reward"], r["finish_reason"]) for r in g] for g in groups]
    )


def replay_advantages(groups: Sequence[Sequence[Record]], config: Config) -> list[list[float]]:
    """The advantages of a round from its rewards, by the function training used."""
    known = replay_rewards(groups)
    return advantages(known.reward, known.valid, config.grpo.advantage_scale, config.grpo.least_std).tolist()


def replay_trained(groups: Sequence[Sequence[Record]], config: Config) -> list[list[bool]]:
    """Which traces of a round the loss was a mean over, by the function training used."""
    return trained_traces(replay_rewards(groups), config.grpo).tolist()


def replay_counts(groups: Sequence[Sequence[Record]], group: int, step: int, config: Config) -> list[BatchCounts]:
    """The denominators that group `group` met, one per pass over the rollout (see train.update_policy)."""
    out, trained = [], replay_trained(groups, config)
    for epoch in range(config.grpo.epochs):
        members = next(p for p in minibatches(config.grpo, config.run.seed, step - 1, epoch) if group in p)
        kept = [r for i in members if i < len(groups) for r, t in zip(groups[i], trained[i], strict=True) if t]
        out.append(BatchCounts(sum(r["tokens"] for r in kept), len(kept), config.planner.max_new_tokens))
    return out


def replay_reward(r: Record, config: Config) -> float | None:
    """The math reward from the record's own counts; None for programs, whose logged parts are shown instead."""
    if r["trace"] is None:
        return config.reward.format_reward
    parts = r["parts"]
    if r["e2e"] is None or parts is None or "e2e" not in parts:
        return None
    won, lost = r["success_with"] or 0.0, r["success_base"] or 0.0  # null: the reward does not ask for that arm
    if r.get("likelihoods"):
        if config.reward.mode == "graded":
            won = closeness(r["likelihoods"][0], config.executor.likelihood_nats)
        counts, base, uplift = (won, lost, 1), 1, r["uplift"]
    else:
        K = len(r["runs"]) or config.executor.repeats
        base = len(r["base_runs"]) or config.executor.baseline_repeats or config.executor.repeats
        counts, uplift = (round(won * K), round(lost * base), K), None
    return math_reward(
        r["e2e"] == "PASS",
        *counts,
        r["rm_total"],
        base_repeats=base,
        variant=config.reward.variant,
        mode=config.reward.mode,
        leaked=r["leaked"],
        leak_penalty=config.reward.leak_penalty,
        uplift=uplift,
    ).reward


def contradictions(r: Record, config: Config) -> list[str]:
    """What in a sample's record no longer follows from the rest of it, each in words; empty where all does."""
    if r["trace"] is None or r["error"] is not None:
        return []
    found: list[tuple[str, float | bool | None, float | bool]] = []  # what, logged, from the rest of the record
    for name, verdicts in (("success_with", r["verdicts"]), ("success_base", [v for _, v in r["base_runs"]])):
        if verdicts and "ERROR" not in verdicts:
            found.append((name, r[name], sum(v == "PASS" for v in verdicts) / len(verdicts)))
    if r["success_with"] is not None and r["success_base"] is not None and not r.get("likelihoods"):
        found.append(("uplift", r["uplift"], r["success_with"] - r["success_base"]))
    if r["rm_total"] is not None and r["rm_head"] is not None:
        found.append(("rm_total", r["rm_total"], 0.5 * (r["rm_derived"] + r["rm_head"])))
    if r["parts"] is not None and r["rm_total"] is not None:
        found.append(("the reward's R", r["parts"]["reason_score"], min(1.0, max(0.0, r["rm_total"]))))
    if "status" not in r:
        leak = leaks_answer(r["trace"], r["reference"], r["problem"])
        found += [
            ("leaked", r["leaked"], leak.stated),
            ("leaked_unsupported", r["leaked_unsupported"], leak.unsupported),
        ]
    if (truth := _truth(r, config)) is not None:
        found.append(("valid", r["valid"], truth.fault is None))
    return [
        f"{what} was logged as {_told(logged)}; the rest of the record gives {_told(again)}"
        for what, logged, again in found
        if logged is not None and abs(logged - again) > 1e-5
    ]


def _told(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.4f}"


def weight_of(r: Record, counts: BatchCounts, config: Config) -> float:
    """w of each token of one trace that was trained."""
    return token_weights(torch.tensor([0]), torch.tensor([r["tokens"]]), counts, config.grpo.aggregate).item()
