"""What can be made of a seed: its reference with quotations, sound traces told otherwise, and flaws; or why nothing can.

Left out on purpose: which of the flaws a group takes, and matched lengths (build.py).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tracelift.groups import alternatives
from tracelift.groups.flaws import code
from tracelift.groups.flaws import math as flaws
from tracelift.groups.flaws.numbers import write_number
from tracelift.groups.flaws.trace import Trace, TraceError, clean_reference, parse_trace
from tracelift.groups.flaws.wording import statements
from tracelift.groups.rubric import place_of, rubric_of, sound_rubric
from tracelift.groups.seeds import Seed
from tracelift.reward_model.group_format import Candidate
from tracelift.rubrics import ALTERNATIVES
from tracelift.verify.leaks import announces_answer, leaks_answer

MAX_QUOTATIONS = 3


@dataclass(frozen=True)
class Dropped:
    """Why there is no group: one of a few reasons, fit for counting, and what it was in this seed."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Offers:
    """What can be made of a seed: the reference with none to all quotations, and flaws in random order, lazily, each as its
    kind, its text without quotations, and the candidates it makes with none to all quotations. `trace`: of math, parsed."""

    positives: list[Candidate]
    reference: str
    answer: str
    flaws: Iterator[tuple[str, str, list[Candidate]]]
    trace: Trace | None = None


def math_offers(seed: Seed, rng: random.Random, facts: Counter) -> Offers | Dropped:
    _, marks, answer = seed.answer.rpartition("####")
    answer = answer.strip()
    if not marks:
        return Dropped("no #### answer line", seed.answer)
    try:
        trace = parse_trace(clean_reference(seed.answer), seed.problem, answer)
    except TraceError as error:
        return Dropped(f"trace not understood: {error}", error.detail)
    if announces_answer(trace.text, answer):
        return Dropped("reference announces its answer", answer)
    quotations = _quotations(seed.problem)
    leak = leaks_answer(trace.text, answer)
    facts["reference", "yields its answer in a step" if not leak.unsupported else "states its answer unsupported"] += 1

    def offers() -> Iterator[tuple[str, str, list[Candidate]]]:
        for name in rng.sample(list(flaws.MAKERS), len(flaws.MAKERS)):
            flawed = flaws.make(name, trace, seed.problem, rng)
            if flawed is None:
                facts["no place", name] += 1
            else:
                options = [_candidate(trace, quotations[:n], flawed, answer) for n in range(len(quotations) + 1)]
                yield name, "\n".join(flawed.lines), options

    reference = tuple(line.text for line in trace.lines)
    positives = [_sound(reference, quotations[:n]) for n in range(len(quotations) + 1)]
    return Offers(positives, trace.text, answer, offers(), trace)


def _quotations(problem: str) -> list[str]:
    return statements(problem)[:MAX_QUOTATIONS]


def alternatives_of(trace: Trace, problem: str, answer: str, rng: random.Random, facts: Counter) -> Iterator[Candidate]:
    """One sound trace of each kind of ALTERNATIVES that fits, opened by quotations as the reference is."""
    quotations = _quotations(problem)
    for kind in ALTERNATIVES:
        lines = alternatives.make(kind, trace, problem, answer, rng)
        opening = quotations[: rng.randint(0, len(quotations))]
        if lines is None:
            facts["no alternative", kind] += 1
        else:
            yield _sound(lines, opening, kind)


def code_offers(seed: Seed, rng: random.Random, facts: Counter) -> Offers | Dropped:
    steps = code.steps_of(seed.trace)
    if len(steps) < 2:
        return Dropped("a plan of one step", seed.trace)
    if code.holds_code(seed.trace):
        return Dropped("reference holds code", seed.trace)
    quotations = code.quotations_of(seed.problem)[:MAX_QUOTATIONS]

    def offers() -> Iterator[tuple[str, str, list[Candidate]]]:
        for name in rng.sample(code.KINDS, len(code.KINDS)):
            flawed = code.make(name, steps, seed.answer, rng)
            if flawed is None:
                facts["no place", name] += 1
            else:
                options = [
                    code.candidate(seed.trace, quotations[:n], (name, flawed)) for n in range(len(quotations) + 1)
                ]
                yield name, code.joined(flawed[0], seed.trace), options

    positives = [code.candidate(seed.trace, quotations[:n], None) for n in range(len(quotations) + 1)]
    return Offers(positives, code.joined(steps, seed.trace), seed.answer, offers())


def _sound(lines: Sequence[str], quotations: list[str], kind: str | None = None) -> Candidate:
    extra = {"label": "positive", "metadata": {"quotations": len(quotations)}}
    return Candidate("\n".join((*quotations, *lines)), sound_rubric(), None, extra, positive_kind=kind)


def _candidate(trace: Trace, quotations: list[str], flawed: flaws.Flawed, answer: str) -> Candidate:
    reasoning = "\n".join((*quotations, *flawed.lines))
    place = place_of(flawed.line, len(flawed.lines))
    changed = flawed.final != trace.nodes[trace.final].value
    flaw: dict[str, Any] = {
        "line": flawed.line + len(quotations),
        "place": place,
        "note": flawed.note,
        "carried": flawed.carried,
        "answer_changed": changed,
        "final_answer": write_number(flawed.final, answer.strip()) or str(flawed.final),
    }
    extra = {"negative_index": 0, "label": "negative", "metadata": {"quotations": len(quotations), "flaw": flaw}}
    return Candidate(reasoning, rubric_of(flawed.kind, place, flawed.carried, changed), flawed.kind, extra)
