"""What can be made of a seed: its reference with quotations, sound traces told otherwise, and flaws; or why nothing can.

A flaw strikes one of the sound traces, drawn as a positive of the group is. Were the reference alone struck, a bracket or a
changed order would be a mark that nothing but sound traces carry: a bag of words then tells a regrouped sum from every
flaw, and a planner could learn to write the mark.

Left out on purpose: which of the flaws a group takes, and matched lengths (build.py).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
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
from tracelift.verify.leaks import announces_answer, leaks_answer

MAX_QUOTATIONS = 3


@dataclass(frozen=True)
class Dropped:
    """Why there is no group: one of a few reasons, fit for counting, and what it was in this seed."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Offers:
    """What can be made of a seed: the reference with none to all quotations and the alternatives; the texts of both without
    quotations, the reference first; and flaws in random order, lazily, each as its kind, its text without quotations, and the
    candidates it makes with none to all quotations."""

    positives: list[Candidate]
    sound: list[str]
    answer: str
    flaws: Iterator[tuple[str, str, list[Candidate]]]


Telling = tuple[str | None, Trace]  # kind of alternative (alternatives.MAKERS), None: the reference


def math_offers(
    seed: Seed, rng: random.Random, facts: Counter, told_rng: random.Random | None = None
) -> Offers | Dropped:
    """told_rng: of alternatives and of what flaws strike; None: no alternatives."""
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
    quotations = statements(seed.problem)[:MAX_QUOTATIONS]
    leak = leaks_answer(trace.text, answer)
    facts["reference", "yields its answer in a step" if not leak.unsupported else "states its answer unsupported"] += 1

    positives = [_sound(trace, quotations[:n]) for n in range(len(quotations) + 1)]
    pool: list[Telling] = [(None, trace)] * len(positives)
    if told_rng:
        told = _alternatives(trace, seed.problem, answer, told_rng, facts)
        positives += [_sound(t, quotations[: told_rng.randint(0, len(quotations))], kind) for kind, t in told]
        pool += told

    def offers() -> Iterator[tuple[str, str, list[Candidate]]]:
        for name in rng.sample(list(flaws.MAKERS), len(flaws.MAKERS)):
            struck = told_rng.choice(pool) if told_rng else pool[0]
            for kind, telling in dict.fromkeys((struck, pool[0])):  # the reference where the drawn one has no place
                flawed = flaws.make(name, telling, seed.problem, rng)
                if flawed is not None:
                    options = [
                        _candidate(trace, quotations[:n], flawed, answer, kind) for n in range(len(quotations) + 1)
                    ]
                    yield name, "\n".join(flawed.lines), options
                    break
            else:
                facts["no place", name] += 1

    return Offers(positives, list(dict.fromkeys(telling.text for _, telling in pool)), answer, offers())


def _alternatives(trace: Trace, problem: str, answer: str, rng: random.Random, facts: Counter) -> list[Telling]:
    """One sound trace of each kind that can be made of GSM8K's and fits."""
    found: list[Telling] = []
    for kind in alternatives.MAKERS:
        lines = alternatives.make(kind, trace, problem, answer, rng)
        if lines is None:
            facts["no alternative", kind] += 1
        else:
            found.append((kind, parse_trace("\n".join(lines), problem, answer)))
    return found


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
    return Offers(positives, [code.joined(steps, seed.trace)], seed.answer, offers())


def _sound(trace: Trace, quotations: list[str], kind: str | None = None) -> Candidate:
    extra = {"label": "positive", "metadata": {"quotations": len(quotations)}}
    return Candidate("\n".join((*quotations, trace.text)), sound_rubric(), None, extra, positive_kind=kind)


def _candidate(
    trace: Trace, quotations: list[str], flawed: flaws.Flawed, answer: str, told: str | None = None
) -> Candidate:
    """told: the kind of the alternative that is struck; None: the reference."""
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
        **({"told": told} if told else {}),
    }
    extra = {"negative_index": 0, "label": "negative", "metadata": {"quotations": len(quotations), "flaw": flaw}}
    return Candidate(reasoning, rubric_of(flawed.kind, place, flawed.carried, changed), flawed.kind, extra)
