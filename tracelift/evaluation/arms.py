"""What is run: stage 1 writes the planner's traces, stage 2 lets the executor answer with them and without.

    direct      E(x)              no trace
    planner     E(x, z)           z the planner's trace of x
    reference   E(x, z*)          the data's own solution: a ceiling for traces
    foreign     E(x, z')          the planner's trace of *another* problem: the control for form without content

Greedy mode is one trace and one run at temperature 0. Sampled mode is n traces and n runs, run j of every arm on the
same executor seed, so that arms and planners meet the same random numbers and compare pairwise. Draws are keyed by the
problem's id, so the number of ranks changes no answer, nor do the problems that come with it, but for the foreign arm,
which borrows its trace from the next of them.
Left out: several runs a trace (uplift of single traces is training's business: tracelift/executor/executor.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from tracelift.config import Config
from tracelift.distributed.world import World
from tracelift.errors import TrainingError
from tracelift.evaluation.records import Record, Records, key_of
from tracelift.evaluation.verdicts import Judge, failed
from tracelift.executor.backend import CompletionRequest, Reply
from tracelift.executor.executor import Executor
from tracelift.programs import leaks_program
from tracelift.reward_model.scorer import ScoreItem, Scorer
from tracelift.rl.rollout import PlannerPrompt, sample_traces
from tracelift.sampler import Sampler, SamplingParams
from tracelift.tasks.benchmarks import Problem
from tracelift.tasks.prompts import asks_for_expression, render
from tracelift.verify.leaks import leaks_answer

ARMS = ("direct", "planner", "reference", "foreign")
MODES = ("greedy", "sampled")
NO_BLOCK = "no complete <reasoning> block; the executor was not called"


def number_of(*parts: Any) -> int:
    """A 63-bit number that names `parts`: seeds and keys of random draws."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


@dataclass
class Planner:
    """A planner under evaluation. `fingerprint` changes with its weights."""

    label: str
    config: Config
    sampler: Sampler
    prompt: PlannerPrompt
    fingerprint: str


@dataclass
class Bench:
    """What all evaluations of one call share."""

    config: Config
    executor: Executor
    records: Records
    world: World
    judge: Judge
    scorer: Scorer | None = None

    def samples(self, mode: str) -> int:
        return 1 if mode == "greedy" else self.config.eval.samples

    def bar(self, title: str, total: int) -> tqdm:
        return tqdm(total=total, desc=title, unit="problem", disable=None if self.world.is_main else True, leave=False)

    def chunks(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        size = self.config.eval.chunk
        return [items[i : i + size] for i in range(0, len(items), size)]


# -- stage 1: traces -------------------------------------------------------------------------------------------------


def write_traces(bench: Bench, planner: Planner, problems: Sequence[Problem], mode: str) -> list[Record]:
    """One record per problem, in order, on every rank: {samples: [{text, trace, tokens, valid, leaked, …, rm}]}.

    Raises TrainingError where more than `eval.max_error_share` of the traces could not be scored.
    """
    c, n = planner.config, bench.samples(mode)
    temperature = 0.0 if mode == "greedy" else c.planner.temperature
    params = SamplingParams(
        n=n,
        max_new_tokens=c.planner.max_new_tokens,
        temperature=temperature,
        seed=bench.config.run.seed,
        stop=tuple(c.planner.stop),
    )
    limit = bench.config.executor.max_trace_chars
    mine = bench.world.share(list(problems))
    keys = [
        key_of("trace", planner.fingerprint, planner.prompt(p.task), p.problem_id, asdict(params), limit) for p in mine
    ]
    todo = [(key, p) for key, p in zip(keys, mine, strict=True) if bench.records.get(key) is None]
    with bench.bar(f"{planner.label} traces, {mode}", len(mine)) as bar:
        bar.update(len(mine) - len(todo))
        for chunk in bench.chunks(todo):
            draws = [(number_of("evaluation", p.problem_id),) for _, p in chunk]
            groups = sample_traces(planner.sampler, planner.prompt, [p.task for _, p in chunk], params, draws, limit)
            found = []
            for (key, p), group in zip(chunk, groups, strict=True):
                samples = [
                    {
                        "text": s.text,
                        "trace": s.trace,
                        "tokens": len(s.completion.tokens),
                        "finish_reason": s.completion.finish_reason,
                    }
                    for s in group
                ]
                found.append({"key": key, "kind": "trace", "problem_id": p.problem_id, "samples": samples})
            bench.records.add(found)
            bar.update(len(chunk))
    traces = [bench.records.get(key) or {} for key in keys]
    told = [
        {**t, "samples": [{**s, **_facts(p, s["trace"])} for s in t["samples"]]}
        for p, t in zip(mine, traces, strict=True)
    ]
    merged = bench.world.merge(_with_scores(bench, mine, told))
    errors = [s["rm_error"] for t in merged for s in t["samples"] if s["rm_error"]]
    total = sum(s["trace"] is not None for t in merged for s in t["samples"])
    _refuse(errors, total, f"{planner.label}, {mode}", "traces could not be scored", bench.config.eval.max_error_share)
    return merged


def _facts(p: Problem, trace: str | None) -> Record:
    """What the problem says of a trace. Quick, so it is not kept: a corrected reference is read anew."""
    valid = p.task.trace_valid(trace) if trace is not None else (False if p.task.truth is not None else None)
    stated = unsupported = None
    if trace is not None and p.kind == "program":
        stated = leaks_program(trace, p.task.reference)
    elif trace is not None:
        leak = leaks_answer(trace, p.task.reference, p.task.problem)
        stated, unsupported = leak.stated, leak.unsupported
    return {"valid": valid, "leaked": stated, "leaked_unsupported": unsupported}


def _with_scores(bench: Bench, problems: Sequence[Problem], traces: list[Record]) -> list[Record]:
    """The same records, each sample with its Reason RM score under "rm" (None without RM, trace or score) and under
    "rm_error" why it has none although it was asked for (else None). Only scores are kept on disk."""
    if bench.scorer is None:
        return [{**t, "samples": [{**s, "rm": None, "rm_error": None} for s in t["samples"]]} for t in traces]
    wanted: dict[str, ScoreItem] = {}
    judge = bench.scorer.fingerprint
    names: list[list[str | None]] = []
    for p, record in zip(problems, traces, strict=True):
        row: list[str | None] = []
        for s in record["samples"]:
            if s["trace"] is None:
                row.append(None)
                continue
            item = ScoreItem(p.task.task_type, p.task.problem, s["trace"], p.task.task_type, truth=p.task.truth)
            row.append(key_of("score", judge, asdict(replace(item, truth=None))))
            wanted[str(row[-1])] = item
        names.append(row)
    todo = [(key, item) for key, item in wanted.items() if (r := bench.records.get(key)) is None or r["error"]]
    for chunk in bench.chunks(todo):
        scores = bench.scorer.score([item for _, item in chunk])
        found = [{"key": key, "kind": "score", **asdict(s)} for (key, _), s in zip(chunk, scores, strict=True)]
        bench.records.add([r for r in found if not r["error"]])
        bench.records.hold([r for r in found if r["error"]])
    return [
        {**t, "samples": [{**s, **_score(bench, key)} for s, key in zip(t["samples"], row, strict=True)]}
        for t, row in zip(traces, names, strict=True)
    ]


def _score(bench: Bench, key: str | None) -> Record:
    record = (bench.records.get(key) if key else None) or {"error": None, "total": None}
    error, unknown = record["error"], record["total"] is None
    return {"rm": None if error or unknown else {k: record[k] for k in ("total", "dimensions")}, "rm_error": error}


# -- stage 2: answers ------------------------------------------------------------------------------------------------


def traces_of_arm(
    arm: str, problems: Sequence[Problem], traces: Sequence[Record] | None, n: int
) -> list[list[str | None] | None]:
    """What each problem's n runs of an arm read: "" is the prompt without trace, None a failed format; no list: no
    arm."""
    out: list[list[str | None] | None] = []
    for i, p in enumerate(problems):
        if arm == "direct":
            out.append([""] * n)
        elif arm == "reference":
            out.append([p.reference_trace] * n if p.reference_trace else None)
        elif traces is None:
            raise ValueError(f"arm '{arm}' needs a planner's traces")
        elif arm == "planner":
            out.append([s["trace"] for s in traces[i]["samples"]])
        else:
            borrowed = [_borrow(traces, i, j) for j in range(n)]
            out.append(None if None in borrowed else borrowed)
    return out


def _borrow(traces: Sequence[Record], i: int, j: int) -> str | None:
    """Sample j of the next problem, going round, that has a trace."""
    for step in range(1, len(traces)):
        trace = traces[(i + step) % len(traces)]["samples"][j]["trace"]
        if trace is not None:
            return trace
    return None


def run_arm(
    bench: Bench, arm: str, label: str, problems: Sequence[Problem], traces: Sequence[Record] | None, mode: str
) -> list[Record | None]:
    """One record per problem, in order, on every rank: {samples: [{artifact, verdicts, detail, tokens, given}]}.

    None where the arm has nothing to give (no reference trace). Raises TrainingError past `eval.max_error_share`.
    """
    n, settings = bench.samples(mode), bench.executor.settings
    temperature = 0.0 if mode == "greedy" else settings.temperature
    given = traces_of_arm(arm, problems, traces, n)
    mine = bench.world.share(list(zip(problems, given, strict=True)))
    todo, keys = [], []
    for p, texts in mine:
        if texts is None:
            keys.append("")
            continue
        prompts = [None if t is None else _prompt(bench.executor, p, t) for t in texts]
        key = key_of(
            "run",
            bench.executor.backend.fingerprint,
            p.problem_id,
            *bench.judge.rests_on(p),
            prompts,
            temperature,
            settings.max_new_tokens,
            list(settings.stop),
            settings.seed,
        )
        keys.append(key)
        if bench.records.get(key) is None:
            todo.append((key, p, prompts))
    with bench.bar(f"{label}, {mode}", len(mine)) as bar:
        bar.update(len(mine) - len(todo))
        for chunk in bench.chunks(todo):
            found = _answer(bench, chunk, temperature)
            bench.records.add([r for r in found if not errors_in(r)])
            bench.records.hold([r for r in found if errors_in(r)])
            bar.update(len(chunk))
    merged = bench.world.merge(
        [
            ({**(bench.records.get(key) or {}), "given": texts} if key else None)
            for key, (_, texts) in zip(keys, mine, strict=True)
        ]
    )
    refuse_too_many_errors(merged, f"{label}, {mode}", bench.config.eval.max_error_share)
    return merged


def _prompt(executor: Executor, p: Problem, trace: str) -> str:
    fields = {"problem": p.task.problem} | ({"trace": trace} if trace else {})
    template = executor.settings.template if trace else executor.settings.baseline_template
    return executor.wrap(render(asks_for_expression(template) if p.kind == "latex" else template, **fields))


def _answer(bench: Bench, chunk: Sequence[tuple[str, Problem, list[str | None]]], temperature: float) -> list[Record]:
    """Run and judge some problems' prompts together."""
    s = bench.executor.settings
    requests, owners = [], []
    for _, p, prompts in chunk:
        for j, prompt in enumerate(prompts):
            if prompt is not None:
                seed = number_of("executor", s.seed, p.problem_id, j) if temperature > 0 else 0
                requests.append(CompletionRequest(prompt, s.max_new_tokens, temperature, s.stop, seed))
                owners.append(p)
    replies = _complete(bench.executor, requests)
    good = [i for i, r in enumerate(replies) if r.error is None]
    judged = dict(zip(good, bench.judge([(owners[i], replies[i].text) for i in good]), strict=True))
    out, at = [], 0
    for key, p, prompts in chunk:
        samples = []
        for prompt in prompts:
            if prompt is None:
                j, reply = failed(p, NO_BLOCK), Reply("", 0)
            else:
                reply = replies[at]
                j = judged.get(at)
                at += 1
            verdicts = {rule: v.name for rule, v in j.verdicts.items()} if j else {}
            samples.append(
                {
                    "artifact": reply.text if prompt is not None else None,
                    "tokens": reply.tokens,
                    "verdicts": verdicts,
                    "detail": reply.error or (j.detail if j else ""),
                }
            )
        out.append({"key": key, "kind": "run", "problem_id": p.problem_id, "samples": samples})
    return out


def _complete(executor: Executor, requests: list[CompletionRequest]) -> list[Reply]:
    distinct = list(dict.fromkeys(requests))
    replies = dict(zip(distinct, executor.backend.complete(distinct) if distinct else [], strict=True))
    for _ in range(executor.settings.retries):
        failing = [q for q, r in replies.items() if r.error is not None]
        if not failing:
            break
        replies |= zip(failing, executor.backend.complete(failing), strict=True)
    return [replies[q] for q in requests]


def errors_in(record: Record | None) -> int:
    """Samples without a verdict: the run or its judge failed."""
    return sum(not s["verdicts"] or "ERROR" in s["verdicts"].values() for s in record["samples"]) if record else 0


def refuse_too_many_errors(records: Sequence[Record | None], what: str, allowed: float) -> None:
    samples = [s for r in records if r for s in r["samples"]]
    errors = [s["detail"] for s in samples if not s["verdicts"] or "ERROR" in s["verdicts"].values()]
    _refuse(errors, len(samples), what, "runs could not be judged", allowed)


def _refuse(errors: Sequence[str], total: int, what: str, failed_to: str, allowed: float) -> None:
    if len(errors) > allowed * total:
        raise TrainingError(
            f"{what}: {len(errors)} of {total} {failed_to}, more than eval.max_error_share = {allowed}. "
            f"The first: {errors[0]}"
        )


def evaluate(
    bench: Bench, planners: Sequence[Planner], problems: Sequence[Problem], say: Callable[[str], None]
) -> Record:
    """Everything about one benchmark: {"traces": {label: {mode: [...]}}, "arms": {label: {mode: [...]}}}."""
    traces: dict[str, dict[str, list[Record]]] = {}
    arms: dict[str, dict[str, list[Record | None]]] = {}
    wanted, several = bench.config.eval.arms, len(planners) > 1
    for mode in bench.config.eval.modes:
        for planner in planners if {"planner", "foreign"} & set(wanted) else ():
            traces.setdefault(planner.label, {})[mode] = write_traces(bench, planner, problems, mode)
        for arm in (a for a in ARMS if a in wanted):
            if arm in ("direct", "reference"):
                runs = run_arm(bench, arm, arm, problems, None, mode)
                if any(r is not None for r in runs):
                    arms.setdefault(arm, {})[mode] = runs
                else:
                    say(f"no {arm} arm: these problems come without a reference trace")
                continue
            for planner in planners:
                label = f"{arm} {planner.label}" if several else arm
                runs = run_arm(bench, arm, label, problems, traces[planner.label][mode], mode)
                if any(r is not None for r in runs):
                    arms.setdefault(label, {})[mode] = runs
                else:
                    say(f"no {label} arm: no other problem has a complete trace to borrow")
    return {"traces": traces, "arms": arms}
