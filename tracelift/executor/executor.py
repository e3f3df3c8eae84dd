"""The frozen executor: (problem, trace) → artifact → verdict, K runs an arm, each problem's baseline measured once.

    success_with(z) = mean_k V(E(x, z; seed_k))      success_base = mean_k V(E(x; seed_k))      (docs/method.md)

Both arms share their seeds, so they meet the same random numbers; the separate end-to-end run has a seed of its own.
With `uplift = "likelihood"` both are the probability of the reference itself, computed and not sampled
(tracelift/executor/likelihood.py), and the only run is the end-to-end one.
All runs of all traces go to the backend in one call, equal ones once. The baseline does not depend on the planner, so
its successes are kept in a file keyed by everything they do depend on (weights, prompt, settings, seeds) and survive
restarts. Where a reply failed (a server's client has tried it again by then), its sample's outcome is an ERROR and the
sample leaves the group: a failed call must neither lower nor, on the baseline's side, raise anyone's reward.

Left out: how text is made (tracelift/executor/local.py, tracelift/executor/remote/client.py), how it is judged
(tracelift/executor/judge.py; one call for all texts of a round), what a success is worth (tracelift/rl/rewards.py).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tracelift.executor.backend import (
    Backend,
    CompletionRequest,
    Likelihood,
    Prefetching,
    Progress,
    Reply,
    ScoreRequest,
    Scoring,
)
from tracelift.executor.baselines import Baseline, BaselineCache
from tracelift.executor.cost import Cost, Counted
from tracelift.executor.judge import Judge, Judgement, TaskJudge
from tracelift.executor.likelihood import spellings
from tracelift.executor.outcome import Outcome
from tracelift.tasks.prompts import PromptFormat
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
    uplift: str = "sampled"  # or "likelihood"
    nats: float = 1.0  # of likelihood uplift that count as an uplift of 1


@dataclass(frozen=True)
class RunItem:
    """Runs to make of one problem: with a trace or (None) without, one a seed."""

    task: Task
    trace: str | None
    seeds: tuple[int, ...]
    in_full: bool = True  # False: nothing but the verdict is wanted of them (tracelift/executor/judge.py)


@dataclass(frozen=True)
class Run:
    """One run: the reply, and what the judge says of its text; an ERROR where no text came."""

    reply: Reply
    judgement: Judgement

    @property
    def text(self) -> str:
        return self.reply.text


class Executor:
    """Runs a frozen language model on problems with and without traces, and judges what it wrote."""

    def __init__(
        self,
        backend: Backend,
        settings: ExecutorSettings,
        cache: BaselineCache | None = None,
        form: PromptFormat | None = None,
        judge: Judge | None = None,
    ) -> None:
        """form: how its prompts are written; None as for a server's model. judge: the verifier V.

        Raises ValueError for uplift by likelihood from a backend that cannot score given texts.
        """
        if settings.uplift == "likelihood" and not isinstance(backend, Scoring):
            raise ValueError(
                "executor.uplift = 'likelihood' needs the log-probabilities of given texts, which this executor (a server) "
                "does not give; use a local executor.path, or executor.uplift = 'sampled'"
            )
        self.backend, self.settings, self.form = backend, settings, form or PromptFormat()
        self.judge = judge or TaskJudge()
        self.cache = cache if cache is not None else BaselineCache()
        self._counted = Counted()

    def variant(self, settings: ExecutorSettings, judge: Judge | None = None) -> Executor:
        """The same model under other settings, and another judge if one is given. It counts its own cost."""
        return Executor(self.backend, settings, self.cache, self.form, judge or self.judge)

    @property
    def cost(self) -> Cost:
        """Of all that was asked so far."""
        return self._counted.cost

    @property
    def fingerprint(self) -> str:
        """Changes with the model (tracelift/executor/backend.py)."""
        return self.backend.fingerprint

    def run(self, items: Sequence[RunItem], progress: Progress | None = None) -> list[list[Run]]:
        """Make and judge every item's runs: one list an item, one run a seed, in order.

        All requests go to the backend in one call, equal ones once. All texts that came go to the judge in one call; a run
        without a text is an ERROR that says why.
        """
        requests = [self.requests(item) for item in items]
        replies = self._counted.complete(self.backend, [request for some in requests for request in some], progress)
        made = [(item, replies[request]) for item, some in zip(items, requests, strict=True) for request in some]
        came = [(item, reply) for item, reply in made if reply.error is None]
        judged = iter(self.judge([(item.task, reply.text) for item, reply in came], [item.in_full for item, _ in came]))
        runs = iter([Run(r, next(judged) if r.error is None else failed(r.error)) for _, r in made])
        return [[next(runs) for _ in some] for some in requests]

    def evaluate(
        self,
        items: Sequence[tuple[Task, str]],
        progress: Progress | None = None,
        need_repeats: bool = True,
        need_baseline: bool = True,
    ) -> list[Outcome]:
        """One outcome per (task, trace). The end-to-end run is always made, the repeats and the baseline on request."""
        s = self.settings
        if need_repeats and s.uplift == "likelihood":
            alone = self.evaluate(items, progress, need_repeats=False, need_baseline=False)
            return self._with_likelihoods(items, alone, need_baseline)
        K, n = s.repeats if need_repeats else 0, 2 * len(items)
        keys = [self.baseline_key(task) if need_baseline else "" for task, _ in items]
        missing = self._unknown([task for task, _ in items]) if need_baseline else {}
        asked = [item for task, trace in items for item in self._with_trace(task, trace, K)]
        runs = self.run([*asked, *map(self._without, missing.values())], progress)

        new = self._learn(zip(missing, map(as_baseline, runs[n:]), strict=True))
        outcomes = []
        for key, (primary,), repeats in zip(keys, runs[:n:2], runs[1:n:2], strict=True):
            base = new.get(key) or self.cache.get(key) or Baseline(0, 0)
            outcomes.append(
                Outcome(
                    e2e=primary.judgement.verdict,
                    with_successes=successes(repeats),
                    repeats=K,
                    base_successes=base.successes,
                    base_repeats=base.repeats,
                    artifact=primary.text,
                    runs=tuple(r.text for r in repeats),
                    verdicts=tuple(r.judgement.verdict.name for r in repeats),
                    base_runs=base.runs,
                    error=first_error([primary, *repeats]) or base.error,
                    judgement=primary.judgement,
                )
            )
        return outcomes

    def without_traces(self, tasks: Sequence[Task]) -> list[Outcome]:
        """One outcome per task whose trace was none: it solves nothing in any of the K runs, which are not made, and its
        baseline is measured as any other's. Sampled uplift only."""
        missing = self._unknown(tasks)
        new = self._learn(
            zip(missing, map(as_baseline, self.run([*map(self._without, missing.values())])), strict=True)
        )
        outcomes = []
        for key in map(self.baseline_key, tasks):
            base = new.get(key) or self.cache.get(key)
            assert base is not None  # known before, or new
            arm = (base.successes, base.repeats)
            outcomes.append(
                Outcome(Verdict.FAIL, 0, self.settings.repeats, *arm, base_runs=base.runs, error=base.error)
            )
        return outcomes

    def _unknown(self, tasks: Sequence[Task]) -> dict[str, Task]:
        """The tasks whose baseline is not known, by its key."""
        keys = {self.baseline_key(task): task for task in tasks}
        return {key: task for key, task in keys.items() if self.cache.get(key) is None}

    def _learn(self, found: Iterable[tuple[str, Baseline]]) -> dict[str, Baseline]:
        """New baselines by key; those that are no ERROR are kept."""
        new = dict(found)
        self.cache.put({key: b for key, b in new.items() if b.error is None})
        return new

    def begin(self, task: Task, trace: str, need_repeats: bool = True, need_baseline: bool = True) -> None:
        """Start what `evaluate` will ask about this trace, where the backend can work ahead."""
        if not isinstance(self.backend, Prefetching):
            return
        s = self.settings
        sampled = s.uplift == "sampled"
        items = self._with_trace(task, trace, s.repeats if sampled and need_repeats else 0)
        if sampled and need_baseline and self.cache.get(self.baseline_key(task)) is None:
            items.append(self._without(task))
        self.backend.begin([request for item in items for request in self.requests(item)])

    def _with_trace(self, task: Task, trace: str, repeats: int) -> list[RunItem]:
        """The end-to-end run and the repeats."""
        again = tuple(self._seed(task, k) for k in range(repeats))
        return [RunItem(task, trace, (self._seed(task, END_TO_END),)), RunItem(task, trace, again, in_full=False)]

    def _without(self, task: Task) -> RunItem:
        seeds = tuple(self._seed(task, k) for k in range(self.settings.baseline_repeats))
        return RunItem(task, None, seeds, in_full=False)

    def _with_likelihoods(
        self, items: Sequence[tuple[Task, str]], outcomes: list[Outcome], need_baseline: bool
    ) -> list[Outcome]:
        """The outcomes of the end-to-end runs with the arms' likelihoods: one pass over all traces and new baselines."""
        arms = [self._score_request(self.trace_prompt(task, trace), task) for task, trace in items]
        keys = [self.baseline_key(task) for task, _ in items]
        unknown = self._unknown([task for task, _ in items]) if need_baseline else {}
        missing = {key: self._score_request(self.baseline_prompt(task), task) for key, task in unknown.items()}
        assert isinstance(self.backend, Scoring)  # the constructor saw to it
        found = self._counted.score(self.backend, [*arms, *missing.values()])
        new = self._learn((key, scored_baseline(found[request])) for key, request in missing.items())
        out = []
        for outcome, request, key in zip(outcomes, arms, keys, strict=True):
            base, arm = Baseline(0, 0) if not need_baseline else new.get(key) or self.cache.get(key), found[request]
            assert base is not None  # known before, or new
            error = outcome.error or arm.error or base.error
            out.append(
                replace(
                    outcome,
                    with_successes=math.exp(arm.logprob),
                    repeats=1,
                    base_successes=base.successes,
                    base_repeats=base.repeats,
                    nats=self.settings.nats,
                    error=error,
                    logprobs=None if error else (arm.logprob, base.logprob if need_baseline else None),
                )
            )
        return out

    def _score_request(self, prompt: str, task: Task) -> ScoreRequest:
        s = self.settings
        temperature = s.temperature or 1.0  # greedy is scored at 1
        return ScoreRequest(prompt, spellings(task, s.stop), temperature, s.stop, self.form.add_special_tokens)

    def prompt(self, task: Task, trace: str | None) -> str:
        """What the model reads; without a trace, the baseline's prompt."""
        return self.baseline_prompt(task) if trace is None else self.trace_prompt(task, trace)

    def trace_prompt(self, task: Task, trace: str) -> str:
        return self.form.prompt(self.settings.template, problem=task.problem, trace=trace)

    def baseline_prompt(self, task: Task) -> str:
        return self.form.prompt(self.settings.baseline_template, problem=task.problem)

    def baseline_key(self, task: Task) -> str:
        s = self.settings
        parts = [self.backend.fingerprint, self.baseline_prompt(task), task.reference]
        if s.uplift == "likelihood":
            parts += ["likelihood", spellings(task, s.stop), s.temperature or 1.0, list(s.stop)]
        else:
            parts += [s.baseline_repeats, s.max_new_tokens, s.temperature, list(s.stop), self._seed(task, 0)]
        if not self.form.add_special_tokens:
            parts.append("without special tokens")
        if task.code is not None:
            parts.append(repr(task.code.hidden))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _seed(self, task: Task, k: int) -> int:
        digest = hashlib.sha256(f"executor:{self.settings.seed}:{task.problem_id}:{k}".encode()).digest()
        return int.from_bytes(digest[:8], "little")

    def requests(self, item: RunItem) -> list[CompletionRequest]:
        """What an item asks of the backend, one request a seed; equal ones are one run."""
        s, prompt = self.settings, self.prompt(item.task, item.trace)
        seeds = [seed if s.temperature > 0 else 0 for seed in item.seeds]  # greedy runs of one prompt are one request
        settings = (s.max_new_tokens, s.temperature, s.stop)
        return [CompletionRequest(prompt, *settings, seed, self.form.add_special_tokens) for seed in seeds]


def as_baseline(runs: Sequence[Run]) -> Baseline:
    texts = tuple((r.text, r.judgement.verdict.name) for r in runs)
    return Baseline(successes(runs), len(runs), first_error(runs), texts)


def scored_baseline(found: Likelihood) -> Baseline:
    return Baseline(math.exp(found.logprob), 1, found.error, logprob=found.logprob)


def successes(runs: Sequence[Run]) -> int:
    return sum(r.judgement.verdict is Verdict.PASS for r in runs)


def failed(error: str) -> Judgement:
    """Of a run that gave no text."""
    return Judgement(Verdict.ERROR, detail=error)


def first_error(runs: Sequence[Run]) -> str | None:
    """Why the first of the runs that could not be judged could not; None where all could."""
    judged = [r.judgement for r in runs]
    return next((j.detail or "the run could not be judged" for j in judged if j.verdict is Verdict.ERROR), None)
