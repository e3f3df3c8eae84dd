"""samples.jsonl: one line for each problem, arm, mode and sample, with everything that is known of it.

Flat columns, the same in every line, null where there is nothing to say: `pandas.read_json("samples.jsonl", lines=True)`
is a table, and (benchmark, problem_id, arm, mode, sample) is its key. Two evaluations of the same problems join on it.

    problem, gold, prompt, trace, artifact         as rendered and written; trace is what the executor read, null for none
    program                                        of a reply to a code problem: what the tests ran, null for none
    reply                                          the planner's whole text, in its own arm
    verdict, verdict_RULE, correct, detail         PASS, FAIL or ERROR; correct is null where there is no verdict
    valid, fault, fault_sentence                   of the trace, where the truth is known: the first thing wrong and where
    answer_stated, answer_unsupported              leaks
    rm_total, rm_derived, rm_head, rm_DIMENSION    the Reason RM's; rm_error where it could not score
    prompt_tokens, artifact_tokens, finish_reason  of the executor's run; trace_tokens, trace_finish_reason of the planner's
    seed                                           of the executor's run; null at temperature 0

Left out: other tools' layouts (export.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tracelift.evaluation.arms import executor_for, seed_of
from tracelift.evaluation.bench import Answer, Bench, Found, WrittenTrace
from tracelift.evaluation.verdicts import RULES
from tracelift.executor.executor import Executor
from tracelift.rl.rollout import TraceFacts
from tracelift.tasks.benchmarks import Benchmark, Problem

Row = dict[str, Any]
KEY = ("benchmark", "problem_id", "arm", "mode", "sample")


def sample_rows(bench: Bench, benchmarks: Sequence[Benchmark], found: dict[str, Found]) -> Iterator[Row]:
    """The lines of samples.jsonl, in the order of benchmarks, arms, modes and problems."""
    rules = list(dict.fromkeys(rule for b in benchmarks for rule in RULES[b.problems[0].kind]))
    for b in benchmarks:
        f, kind = found[b.name], b.problems[0].kind
        for label, modes in f.arms.items():
            own = f.traces_of(label)
            for mode, answers in modes.items():
                executor = executor_for(bench, kind, mode)
                for i, (problem, some) in enumerate(zip(b.problems, answers, strict=True)):
                    for j, answer in enumerate(some or ()):
                        key = dict(zip(KEY, (b.name, problem.problem_id, label, mode, j), strict=True))
                        written = own[mode][i][j] if mode in own else None
                        yield (
                            key
                            | _asked(executor, problem, answer, j)
                            | _judged(answer, rules, RULES[kind][0])
                            | _about_trace(written, bench.dimensions)
                        )


def _asked(executor: Executor, problem: Problem, answer: Answer, number: int) -> Row:
    called, code = answer.given is not None, problem.code
    return {
        "problem": problem.task.problem,
        "gold": problem.task.reference,
        "prompt": executor.prompt(problem.task, answer.given or None) if called else None,
        "trace": answer.given or None,
        "artifact": answer.artifact,
        "program": code.program(answer.artifact) if code is not None and answer.artifact else None,
        "prompt_tokens": answer.prompt_tokens,
        "artifact_tokens": answer.tokens,
        "finish_reason": answer.finish_reason or None,
        "seed": seed_of(executor, problem, number) if called and executor.settings.temperature else None,
    }


def _judged(answer: Answer, rules: Sequence[str], headline: str) -> Row:
    verdicts = {rule: verdict.name for rule, verdict in answer.verdicts.items()}
    return {
        "verdict": verdicts.get(headline, "ERROR"),
        "correct": answer.passes(headline) if answer.judged else None,
        **{f"verdict_{rule}": verdicts.get(rule) for rule in rules},
        "detail": answer.detail or None,
    }


def _about_trace(written: WrittenTrace | None, dimensions: Sequence[str]) -> Row:
    """Of the planner's own trace of this very problem; nulls in other arms."""
    facts = written.facts if written is not None else TraceFacts()
    score = written.score if written is not None else None
    scores = ("rm_total", "rm_derived", "rm_head", *(f"rm_{name}" for name in dimensions))
    values = (score.total, score.derived, score.head, *score.dimensions) if score is not None else (None,) * len(scores)
    return {
        "reply": written.text if written is not None else None,
        "valid": facts.valid,
        "fault": facts.fault,
        "fault_sentence": facts.step,
        "answer_stated": facts.stated,
        "answer_unsupported": facts.unsupported,
        **dict(zip(scores, values, strict=True)),
        "rm_error": written.rm_error if written is not None else None,
        "trace_tokens": written.tokens if written is not None else None,
        "trace_finish_reason": written.finish_reason if written is not None else None,
    }
