"""Stage 1: a planner's traces of a benchmark, with what their problems and the Reason RM say of them.

Draws are keyed by the problem's id, so the number of ranks changes no trace, nor do the problems that come with it.
Left out: what the executor makes of them (arms.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from tracelift.evaluation.bench import Bench, Planner, Traces, WrittenTrace, number_of
from tracelift.evaluation.records import Record, key_of
from tracelift.evaluation.spending import Lap, Spent, total_spent
from tracelift.executor.cost import Cost
from tracelift.reward_model.scorer import RMScore, ScoreItem, Scorer
from tracelift.rl.rollout import sample_traces, score_item, trace_facts
from tracelift.sampler import SamplingParams
from tracelift.tasks.benchmarks import Problem


def write_traces(bench: Bench, planner: Planner, problems: Sequence[Problem], mode: str) -> tuple[Traces, Spent]:
    """Every problem's traces, in order, on every rank, and what writing them took.

    Raises TrainingError where more than `eval.max_error_share` of the traces could not be scored.
    """
    mine = bench.world.share(list(problems))
    replies, shares = _write(bench, planner, mine, mode)
    written = [
        [replace(w, facts=trace_facts(p.task, w.trace)) for w in samples]
        for p, samples in zip(mine, replies, strict=True)
    ]
    if bench.scorer is not None:
        written = _score(bench, bench.scorer, mine, written)
    merged = bench.world.merge(written)
    errors = [w.rm_error for samples in merged for w in samples if w.rm_error]
    total = sum(w.trace is not None for samples in merged for w in samples)
    bench.refuse_errors(errors, total, f"{planner.label}, {mode}", "traces could not be scored")
    return merged, total_spent(bench.world.merge(shares))


def _write(bench: Bench, planner: Planner, problems: Sequence[Problem], mode: str) -> tuple[Traces, list[Spent]]:
    """The planner's replies, from the records or sampled now, and each problem's share of what they took."""
    c = planner.config
    params = SamplingParams(
        n=bench.samples(mode),
        max_new_tokens=c.planner.max_new_tokens,
        temperature=0.0 if mode == "greedy" else c.planner.temperature,
        seed=bench.config.run.seed,
        stop=tuple(c.planner.stop),
    )
    limit = bench.config.executor.max_trace_chars
    keys = [
        key_of("trace", planner.fingerprint, planner.prompt(p.task), p.problem_id, asdict(params), limit)
        for p in problems
    ]
    todo = [(key, p) for key, p in zip(keys, problems, strict=True) if bench.records.get(key) is None]
    for chunk in bench.progress(f"{planner.label} traces, {mode}", len(problems), todo):
        draws = [(number_of("evaluation", p.problem_id),) for _, p in chunk]
        computed, lap = planner.sampler.computed_tokens, Lap(planner.sampler.model.device.type == "cuda")
        groups = sample_traces(planner.sampler, planner.prompt, [p.task for _, p in chunk], params, draws, limit)
        lap.end(planner.sampler.computed_tokens - computed, len(chunk))
        costs = [sum((Cost(1, len(s.prompt_tokens), len(s.completion.tokens)) for s in g), Cost()) for g in groups]
        found = [[WrittenTrace.of(sample).to_record() for sample in group] for group in groups]
        bench.records.add(
            [
                {"key": key, "kind": "trace", "problem_id": p.problem_id, "samples": samples, "spent": lap.spent(cost)}
                for (key, p), samples, cost in zip(chunk, found, costs, strict=True)
            ]
        )
    records = [bench.known(key) for key in keys]
    replies = [[WrittenTrace.from_record(s) for s in r["samples"]] for r in records]
    return replies, [r.get("spent", {}) for r in records]


def _score(bench: Bench, scorer: Scorer, problems: Sequence[Problem], written: Traces) -> Traces:
    """The same traces with their Reason RM scores. Failures are held for this process only: they are tried again."""
    wanted: dict[str, ScoreItem] = {}
    names: list[list[str | None]] = []
    judge = scorer.fingerprint
    for p, samples in zip(problems, written, strict=True):
        items = [score_item(p.task, w.trace) if w.trace is not None else None for w in samples]
        row = [key_of("score", judge, asdict(replace(item, truth=None))) if item else None for item in items]
        wanted |= {key: item for key, item in zip(row, items, strict=True) if key and item}
        names.append(row)
    todo = [(key, item) for key, item in wanted.items() if (r := bench.records.get(key)) is None or r["error"]]
    for chunk in bench.chunks(todo):
        scores = scorer.score([item for _, item in chunk])
        found = [{"key": key, "kind": "score", **asdict(s)} for (key, _), s in zip(chunk, scores, strict=True)]
        bench.records.add([r for r in found if not r["error"]])
        bench.records.hold([r for r in found if r["error"]])
    return [
        [replace(w, rm=_rm_score(bench.known(key))) if key else w for w, key in zip(samples, row, strict=True)]
        for samples, row in zip(written, names, strict=True)
    ]


def _rm_score(record: Record) -> RMScore:
    dimensions = tuple(record["dimensions"])
    return RMScore(record["total"], record["derived"], record["head"], dimensions, record["error"])
