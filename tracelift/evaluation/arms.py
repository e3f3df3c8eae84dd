"""What is run: stage 1 writes the planner's traces, stage 2 lets the executor answer with them and without.

    direct      E(x)              no trace
    planner     E(x, z)           z the planner's trace of x
    reference   E(x, z*)          the data's own solution: a ceiling for traces
    foreign     E(x, z')          the planner's trace of *another* problem: the control for form without content

Greedy mode is one trace and one run at temperature 0. Sampled mode is n traces and n runs, run j of every arm on the
same executor seed, so that arms and planners meet the same random numbers and compare pairwise. Seeds are keyed by the
problem's id, so the number of ranks changes no answer, nor do the problems that come with it, but for the foreign arm,
which borrows its trace from the next of them.
Left out: how traces are written (traces.py), and several runs a trace (uplift of single traces is training's business:
tracelift/executor/executor.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from tracelift.evaluation.bench import Answer, Answers, Bench, Found, Planner, Traces, number_of
from tracelift.evaluation.records import key_of
from tracelift.evaluation.spending import Lap, Spent, total_spent
from tracelift.evaluation.traces import write_traces
from tracelift.evaluation.verdicts import RuleJudge
from tracelift.executor.cost import Cost
from tracelift.executor.executor import Executor, RunItem
from tracelift.executor.local import LocalBackend
from tracelift.tasks.benchmarks import Problem
from tracelift.tasks.prompts import asks_for_expression

ARMS = ("direct", "planner", "reference", "foreign")
MODES = ("greedy", "sampled")
Given = Sequence[str | None]  # what a problem's n runs read: "" is the prompt without trace, None a failed format


class Asked(NamedTuple):
    """A problem under an arm; `key` names everything that its answers depend on."""

    key: str
    problem: Problem
    given: Given


def evaluate(
    bench: Bench, planners: Sequence[Planner], problems: Sequence[Problem], say: Callable[[str], None]
) -> Found:
    """Everything about one benchmark, whose problems are of one kind."""
    found = Found()
    wanted, several = bench.config.eval.arms, len(planners) > 1
    for mode in bench.config.eval.modes:
        for planner in planners if {"planner", "foreign"} & set(wanted) else ():
            written, spent = write_traces(bench, planner, problems, mode)
            found.traces.setdefault(planner.label, {})[mode] = written
            found.trace_costs.setdefault(planner.label, {})[mode] = spent
        for arm in (a for a in ARMS if a in wanted):
            if arm in ("direct", "reference"):
                sides: dict[str, Traces | None] = {arm: None}
                lack = "these problems come without a reference trace"
            else:
                labels = [f"{arm} {p.label}" if several else arm for p in planners]
                sides = {label: found.traces[p.label][mode] for label, p in zip(labels, planners, strict=True)}
                lack = "no other problem has a complete trace to borrow"
            for label, traces in sides.items():
                answers, spent = run_arm(bench, arm, label, problems, traces, mode)
                if any(a is not None for a in answers):
                    found.arms.setdefault(label, {})[mode] = answers
                    found.arm_costs.setdefault(label, {})[mode] = spent
                else:
                    say(f"no {label} arm: {lack}")
    return found


def run_arm(
    bench: Bench, arm: str, label: str, problems: Sequence[Problem], traces: Traces | None, mode: str
) -> tuple[Answers, Spent]:
    """Every problem's answers, in order, on every rank; None where the arm has nothing to give (no reference trace). With
    them what they took.

    Raises TrainingError where more than `eval.max_error_share` of the runs could not be judged.
    """
    executor, judge = executor_for(bench, problems[0].kind, mode), bench.judges[problems[0].kind]
    given = traces_of_arm(arm, problems, traces, bench.samples(mode))
    mine = bench.world.share(list(zip(problems, given, strict=True)))
    asked = [Asked(_key(executor, judge, p, texts), p, texts) if texts is not None else None for p, texts in mine]
    todo = [a for a in asked if a is not None and bench.records.get(a.key) is None]
    for chunk in bench.progress(f"{label}, {mode}", len(mine), todo):
        before, lap = executor.cost, Lap(on_gpu(executor))
        answered = _answer(executor, judge.kind, chunk)
        lap.end((executor.cost - before).computed, len(chunk))
        kept, tried_again = [], []  # a run that could not be judged is for the next evaluation to make anew
        for a, answers in zip(chunk, answered, strict=True):
            samples = [answer.to_record() for answer in answers]
            record = {
                "key": a.key,
                "kind": "run",
                "problem_id": a.problem.problem_id,
                "samples": samples,
                "spent": lap.spent(_own_cost(executor, a, answers)),
            }
            (kept if all(answer.judged for answer in answers) else tried_again).append(record)
        bench.records.add(kept)
        bench.records.hold(tried_again)
    merged = bench.world.merge([_read(bench, a) if a is not None else None for a in asked])
    made = [answer for some in merged for answer in some or () if answer.given is not None]  # what was run
    errors = [answer.detail for answer in made if not answer.judged]
    bench.refuse_errors(errors, len(made), f"{label}, {mode}", "runs could not be judged")
    shares = bench.world.merge([bench.known(a.key).get("spent", {}) if a is not None else None for a in asked])
    return merged, total_spent(share for share in shares if share is not None)


def _own_cost(executor: Executor, asked: Asked, answers: Sequence[Answer]) -> Cost:
    """Of a problem's runs, equal ones once; what a run that failed has read is in nobody's count."""
    items = _items(executor, asked)
    called = [a for a in answers if a.given is not None]
    made = dict(zip([r for item in items for r in executor.requests(item)], called, strict=True))
    return sum((Cost(1, a.prompt_tokens if a.verdicts else 0, a.tokens) for a in made.values()), Cost())


def on_gpu(executor: Executor) -> bool:
    """Whether the executor's model runs on a GPU of this machine."""
    return isinstance(executor.backend, LocalBackend) and executor.backend.model.device.type == "cuda"


def executor_for(bench: Bench, kind: str, mode: str) -> Executor:
    """The executor as problems of this kind are put to it, judged by their rules."""
    settings = bench.executor.settings
    if mode == "greedy":
        settings = replace(settings, temperature=0.0)
    if kind == "latex":
        settings = replace(
            settings,
            template=asks_for_expression(settings.template),
            baseline_template=asks_for_expression(settings.baseline_template),
        )
    return bench.executor.variant(settings, bench.judges[kind])


def seed_of(executor: Executor, problem: Problem, number: int) -> int:
    """Of run `number` of a problem, in every arm."""
    return number_of("executor", executor.settings.seed, problem.problem_id, number)


def traces_of_arm(arm: str, problems: Sequence[Problem], traces: Traces | None, n: int) -> list[Given | None]:
    """What each problem's n runs of an arm read; None where the arm has nothing to give."""
    out: list[Given | None] = []
    for i, p in enumerate(problems):
        if arm == "direct":
            out.append([""] * n)
        elif arm == "reference":
            out.append([p.reference_trace] * n if p.reference_trace else None)
        elif traces is None:
            raise ValueError(f"arm '{arm}' needs a planner's traces")
        elif arm == "planner":
            out.append([w.trace for w in traces[i]])
        else:
            borrowed = [_borrow(traces, i, j) for j in range(n)]
            out.append(None if None in borrowed else borrowed)
    return out


def _borrow(traces: Traces, i: int, j: int) -> str | None:
    """Sample j of the next problem, going round, that has a trace."""
    for step in range(1, len(traces)):
        trace = traces[(i + step) % len(traces)][j].trace
        if trace is not None:
            return trace
    return None


def _key(executor: Executor, judge: RuleJudge, p: Problem, texts: Given) -> str:
    prompts = [None if text is None else executor.prompt(p.task, text or None) for text in texts]
    s, rests_on = executor.settings, judge.rests_on(p.task)
    how = (s.temperature, s.max_new_tokens, list(s.stop), s.seed)
    return key_of("run", executor.fingerprint, p.problem_id, *rests_on, prompts, *how)


def _items(executor: Executor, asked: Asked) -> list[RunItem]:
    """The runs of a problem, one an item; none for a format failure."""
    return [
        RunItem(asked.problem.task, text or None, (seed_of(executor, asked.problem, j),))
        for j, text in enumerate(asked.given)
        if text is not None
    ]


def _answer(executor: Executor, kind: str, chunk: Sequence[Asked]) -> list[list[Answer]]:
    """Run and judge some problems together."""
    runs = iter(executor.run([item for asked in chunk for item in _items(executor, asked)]))
    return [
        [Answer.without_trace(kind) if text is None else Answer.of(next(runs)[0], text) for text in texts]
        for _, _, texts in chunk
    ]


def _read(bench: Bench, asked: Asked) -> list[Answer]:
    samples = bench.known(asked.key)["samples"]
    return [Answer.from_record(s, text) for s, text in zip(samples, asked.given, strict=True)]
