"""The frozen executor: (problem, trace) → artifact → verdict, K runs an arm, each problem's baseline measured once.

    success_with(z) = mean_k V(E(x, z; seed_k))      success_base = mean_k V(E(x; seed_k))      (docs/method.md)

Both arms share their seeds, so they meet the same random numbers; the separate end-to-end run has a seed of its own.
With `uplift = "likelihood"` both are the probability of the reference itself, computed and not sampled
(tracelift/executor/likelihood.py), and the only run is the end-to-end one.
All runs of all traces go to the backend in one call, equal ones once. The baseline does not depend on the planner, so
its successes are kept in a file keyed by everything they do depend on (weights, prompt, settings, seeds) and survive
restarts. A reply that failed is asked for again; if it keeps failing, its sample's outcome is an ERROR and the sample
leaves the group: a failed call must neither lower nor, on the baseline's side, raise anyone's reward.

Left out: how text is made (tracelift/executor/local.py, tracelift/executor/client.py), how it is judged
(tracelift/executor/judge.py; one call for all texts of a round), what a success is worth (tracelift/rl/rewards.py).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tracelift.executor.backend import Backend, CompletionRequest, Likelihood, Progress, Reply, ScoreRequest
from tracelift.executor.baselines import Baseline, BaselineCache
from tracelift.executor.judge import Judge, Judgement, TaskJudge
from tracelift.executor.likelihood import spellings
from tracelift.executor.prefetch import PrefetchingBackend
from tracelift.tasks.prompts import render
from tracelift.tasks.task import Task
from tracelift.verify.verdict import Verdict

END_TO_END = 1_000_000  # the seed index of the run that e2e is measured on, apart from the K repeats


@dataclass(frozen=True)
class ExecutorSettings:
    """What an executor run is: everything its outcome depends on beside weights, problem, trace and seed."""

    template: str  # with {problem} and {trace}
    baseline_template: str  # with {problem}
    repeats: int = 3  # K
    baseline_repeats: int = 3
    max_new_tokens: int = 8
    temperature: float = 0.5
    stop: tuple[str, ...] = ("\n",)
    seed: int = 0
    retries: int = 2
    uplift: str = "sampled"  # or "likelihood"
    nats: float = 1.0  # of likelihood uplift that count as an uplift of 1


@dataclass(frozen=True)
class Outcome:
    """What the executor made of one trace. `error` is set where any run it needs stayed an ERROR: no reward then.

    By likelihood, each arm counts as one run whose success is the reference's probability."""

    e2e: Verdict
    with_successes: float
    repeats: int
    base_successes: float
    base_repeats: int
    artifact: str = ""  # the end-to-end run's text
    runs: tuple[str, ...] = field(default=(), compare=False)  # the K repeats' texts
    verdicts: tuple[str, ...] = field(default=(), compare=False)  # theirs, by name
    base_runs: tuple[tuple[str, str], ...] = field(default=(), compare=False)  # the baseline's (text, verdict)
    error: str | None = None
    judgement: Judgement | None = field(
        default=None, compare=False
    )  # of the end-to-end run; None where it gave no text
    logprobs: tuple[float, float] | None = (
        None  # of the reference with and without the trace, where uplift is by likelihood
    )
    nats: float = 1.0

    @property
    def success_with(self) -> float:
        return self.with_successes / self.repeats

    @property
    def success_base(self) -> float:
        return self.base_successes / self.base_repeats

    @property
    def uplift(self) -> float:
        """The difference of success rates; by likelihood the difference of log-probabilities in units of `nats`."""
        if self.logprobs is not None:
            return (self.logprobs[0] - self.logprobs[1]) / self.nats
        return self.success_with - self.success_base


class Executor:
    """Runs a frozen language model on problems with and without traces, and judges what it wrote."""

    def __init__(
        self,
        backend: Backend,
        settings: ExecutorSettings,
        cache: BaselineCache | None = None,
        wrap: Callable[[str], str] = lambda text: text,
        judge: Judge | None = None,
    ) -> None:
        """wrap: puts a prompt into the executor's chat template, where it has one. judge: the verifier V.

        Raises ValueError for uplift by likelihood from a backend that cannot score given texts.
        """
        if settings.uplift == "likelihood" and not hasattr(backend, "score"):
            raise ValueError(
                "executor.uplift = 'likelihood' needs the log-probabilities of given texts, which this executor (a server, "
                "or ranks of its own) does not give; use a local executor.path, or executor.uplift = 'sampled'"
            )
        self.backend, self.settings, self.wrap = backend, settings, wrap
        self.judge = judge or TaskJudge()
        self.cache = cache if cache is not None else BaselineCache()
        self.tokens = 0  # generated so far, for throughput and for counting what a run cost
        self.runs = 0  # distinct requests: equal ones are answered once

    def evaluate(
        self, items: Sequence[tuple[Task, str]], progress: Progress | None = None, need_repeats: bool = True
    ) -> list[Outcome]:
        """One outcome per (task, trace). With `need_repeats = False` (exec_only) only the end-to-end run is made."""
        s = self.settings
        if need_repeats and s.uplift == "likelihood":
            return self._with_likelihoods(items, self.evaluate(items, progress, need_repeats=False))
        K = s.repeats if need_repeats else 0
        keys = [self.baseline_key(task) if need_repeats else "" for task, _ in items]
        missing = {
            key: task
            for key, (task, _) in zip(keys, items, strict=True)
            if need_repeats and self.cache.get(key) is None
        }

        requests = [request for task, trace in items for request in self._with_trace(task, trace, K)]
        requests += [request for task in missing.values() for request in self._without(task)]
        replies = iter(self._complete(requests, progress))

        with_trace = [[next(replies) for _ in range(1 + K)] for _ in items]
        without = [[next(replies) for _ in range(s.baseline_repeats)] for _ in missing]
        owned = [(task, reply) for (task, _), runs in zip(items, with_trace, strict=True) for reply in runs]
        owned += [(task, reply) for task, runs in zip(missing.values(), without, strict=True) for reply in runs]
        primaries = [k == 0 for _ in items for k in range(1 + K)] + [False] * (len(missing) * s.baseline_repeats)
        judged = iter(self._judge(owned, primaries))

        runs_judged = [[next(judged) for _ in range(1 + K)] for _ in items]
        baselines: dict[str, Baseline] = {}
        for key, texts in zip(missing, without, strict=True):
            arm = [next(judged) for _ in range(s.baseline_repeats)]
            baselines[key] = Baseline(
                successes(arm),
                s.baseline_repeats,
                first_error(arm),
                tuple((r.text, j.verdict.name) for r, j in zip(texts, arm, strict=True)),
            )
        self.cache.put({key: b for key, b in baselines.items() if b.error is None})
        outcomes = []
        for key, runs, (primary, *repeats) in zip(keys, with_trace, runs_judged, strict=True):
            base = baselines.get(key) or self.cache.get(key) or Baseline(0, s.baseline_repeats)
            outcomes.append(
                Outcome(
                    e2e=primary.verdict,
                    with_successes=successes(repeats),
                    repeats=s.repeats,
                    base_successes=base.successes,
                    base_repeats=base.repeats,
                    artifact=runs[0].text,
                    runs=tuple(r.text for r in runs[1:]),
                    verdicts=tuple(j.verdict.name for j in repeats),
                    base_runs=base.runs,
                    error=first_error([primary, *repeats]) or base.error,
                    judgement=primary,
                )
            )
        return outcomes

    def begin(self, task: Task, trace: str, need_repeats: bool = True) -> None:
        """Start what `evaluate` will ask about this trace, where the backend can work ahead (tracelift/executor/prefetch.py)."""
        if not isinstance(self.backend, PrefetchingBackend):
            return
        s = self.settings
        sampled = need_repeats and s.uplift == "sampled"
        requests = self._with_trace(task, trace, s.repeats if sampled else 0)
        if sampled and self.cache.get(self.baseline_key(task)) is None:
            requests += self._without(task)
        self.backend.begin(requests)

    def _with_trace(self, task: Task, trace: str, repeats: int) -> list[CompletionRequest]:
        """The end-to-end run and the repeats."""
        prompt = self.trace_prompt(task, trace)
        return [self._request(prompt, task, k) for k in [END_TO_END, *range(repeats)]]

    def _without(self, task: Task) -> list[CompletionRequest]:
        prompt = self.baseline_prompt(task)
        return [self._request(prompt, task, k) for k in range(self.settings.baseline_repeats)]

    def _with_likelihoods(self, items: Sequence[tuple[Task, str]], outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes of the end-to-end runs with both arms' likelihoods: one pass over all traces and new baselines."""
        arms = [self._score_request(self.trace_prompt(task, trace), task) for task, trace in items]
        keys = [self.baseline_key(task) for task, _ in items]
        missing = {
            key: self._score_request(self.baseline_prompt(task), task)
            for key, (task, _) in zip(keys, items, strict=True)
            if self.cache.get(key) is None
        }
        distinct = list(dict.fromkeys([*arms, *missing.values()]))
        found = dict(zip(distinct, self.backend.score(distinct) if distinct else [], strict=True))
        new = {key: as_baseline(found[request]) for key, request in missing.items()}
        self.cache.put({key: b for key, b in new.items() if b.error is None})
        out = []
        for outcome, request, key in zip(outcomes, arms, keys, strict=True):
            base, arm = new.get(key) or self.cache.get(key), found[request]
            error = outcome.error or arm.error or base.error
            out.append(
                replace(
                    outcome,
                    with_successes=math.exp(arm.logprob),
                    repeats=1,
                    base_successes=base.successes,
                    base_repeats=1,
                    nats=self.settings.nats,
                    error=error,
                    logprobs=None if error else (arm.logprob, base.logprob),
                )
            )
        return out

    def _score_request(self, prompt: str, task: Task) -> ScoreRequest:
        s = self.settings
        return ScoreRequest(prompt, spellings(task, s.stop), s.temperature or 1.0, s.stop)  # greedy is scored at 1

    def direct(self, tasks: Sequence[Task], progress: Progress | None = None) -> list[tuple[Verdict, str]]:
        """One end-to-end run per task without any trace: (verdict, artifact)."""
        replies = self._complete([self._request(self.baseline_prompt(t), t, END_TO_END) for t in tasks], progress)
        judged = self._judge(list(zip(tasks, replies, strict=True)), [False] * len(replies))
        return [(j.verdict, reply.text) for j, reply in zip(judged, replies, strict=True)]

    def _judge(self, owned: Sequence[tuple[Task, Reply]], in_full: Sequence[bool]) -> list[Judgement]:
        """One judgement per reply; a reply that never came is an ERROR that says why."""
        came = [(task, reply.text) for task, reply in owned if reply.error is None]
        judged = iter(
            self.judge(came, [full for (_, reply), full in zip(owned, in_full, strict=True) if reply.error is None])
        )
        return [
            next(judged) if reply.error is None else Judgement(Verdict.ERROR, detail=reply.error) for _, reply in owned
        ]

    def trace_prompt(self, task: Task, trace: str) -> str:
        return self.wrap(render(self.settings.template, problem=task.problem, trace=trace))

    def baseline_prompt(self, task: Task) -> str:
        return self.wrap(render(self.settings.baseline_template, problem=task.problem))

    def baseline_key(self, task: Task) -> str:
        s = self.settings
        parts = [self.backend.fingerprint, self.baseline_prompt(task), task.reference]
        if s.uplift == "likelihood":
            parts += ["likelihood", spellings(task, s.stop), s.temperature or 1.0, list(s.stop)]
        else:
            parts += [s.baseline_repeats, s.max_new_tokens, s.temperature, list(s.stop), self._seed(task, 0)]
        if task.code is not None:
            parts.append(repr(task.code.hidden))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _seed(self, task: Task, k: int) -> int:
        digest = hashlib.sha256(f"executor:{self.settings.seed}:{task.problem_id}:{k}".encode()).digest()
        return int.from_bytes(digest[:8], "little")

    def _request(self, prompt: str, task: Task, k: int) -> CompletionRequest:
        s = self.settings
        seed = self._seed(task, k) if s.temperature > 0 else 0  # greedy runs of one prompt are one request
        return CompletionRequest(prompt, s.max_new_tokens, s.temperature, s.stop, seed)

    def _complete(self, requests: list[CompletionRequest], progress: Progress | None) -> list[Reply]:
        distinct = list(dict.fromkeys(requests))
        replies = dict(zip(distinct, self.backend.complete(distinct, progress) if distinct else [], strict=True))
        for _ in range(self.settings.retries):
            failed = [request for request, reply in replies.items() if reply.error is not None]
            if not failed:
                break
            replies |= zip(failed, self.backend.complete(failed), strict=True)
        self.runs += len(distinct)
        self.tokens += sum(reply.tokens for reply in replies.values())
        return [replies[request] for request in requests]


def as_baseline(found: Likelihood) -> Baseline:
    return Baseline(math.exp(found.logprob), 1, found.error, logprob=found.logprob)


def successes(runs: Sequence[Judgement]) -> int:
    return sum(j.verdict is Verdict.PASS for j in runs)


def first_error(runs: Sequence[Judgement]) -> str | None:
    """Why the first of the runs that could not be judged could not; None where all could."""
    return next((j.detail or "the run could not be judged" for j in runs if j.verdict is Verdict.ERROR), None)
