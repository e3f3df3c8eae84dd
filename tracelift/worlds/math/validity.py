"""Is every step of a trace true and grounded in the problem?

This is the quantity the paper cannot measure: `trace_validity`, and with the executor's verdict `wrong_reason_rate`
(right answer, invalid trace). A trace is valid when it tells one derivation of the story's answer: each sentence a step, or
two of which one stands inside the other, that the story calls for, under its reason, from operands known by then, with a
true result, nothing twice, nothing beside the point, nothing left out, and the last result left to the executor. How it is
told is free: every telling of tracelift/worlds/math/tellings.py is valid, in any combination.

Left out: paraphrase. A trace in other words than the world's is `unreadable`, hence invalid.
"""

from __future__ import annotations

from tracelift.tasks.task import Validity
from tracelift.worlds.math.derivation import Sentence, Steps, binds_right, evaluate, read_sentences, same_reason
from tracelift.worlds.math.problems import MathProblem
from tracelift.worlds.math.tellings import derivations

_VAGUE = ("ungrounded", "missing_step")  # what a trace that follows another derivation is called too
Term = int | tuple["Term", str, "Term"]


def check_trace(problem: MathProblem, trace: str) -> Validity:
    """Check a trace (the text between the reasoning tags) against the story. The fault named is that of the derivation which
    the trace follows furthest."""
    sentences = read_sentences(trace)
    if sentences is None:
        return Validity(False, "unreadable", None)
    found = [_follow(steps, sentences) for steps in derivations(problem.story)]
    return max(found, key=lambda v: (v.valid, v.step or 0, v.fault not in _VAGUE))


def final_value(trace: str) -> int | None:
    """What the last sentence's expression comes to; None where there is none or it leaves the world's numbers."""
    sentences = read_sentences(trace)
    return sentences[-1].value if sentences else None


class _Mismatch(Exception):
    """A sentence that tells something else than a given step; its argument is the fault if it is the closest one."""


def _follow(steps: Steps, sentences: list[Sentence]) -> Validity:
    """Whether the sentences tell exactly `steps`."""
    results = evaluate(steps)
    if results is None:
        raise ValueError(f"the reference derivation itself leaves the world: {steps}")
    last, told, stated = len(steps) - 1, set[int](), set[int]()
    for at, sentence in enumerate(sentences):
        if sentence.result is not None and sentence.value != sentence.result:
            return Validity(False, "false_arithmetic", at)
        match, inside, fault = None, set[int](), "ungrounded"
        for j, step in enumerate(steps):
            try:
                inside = _told_inside(_tree(sentence), j, steps, results, told, stated)
            except _Mismatch as e:
                fault = str(e) or fault
                continue
            if same_reason(sentence.label, step.label) and j not in told:
                match = j
                break
            fault = "duplicate" if j in told and same_reason(sentence.label, step.label) else "wrong_reason"
        if match is None:
            return Validity(False, fault, at)
        if (match == last) != (sentence.result is None):
            return Validity(False, "answer_leaked" if match == last else "no_result", at)
        told |= {match, *inside}
        stated.add(match)
    return Validity(True) if len(told) == len(steps) else Validity(False, "missing_step", len(sentences))


def _tree(sentence: Sentence) -> tuple[Term, str, Term]:
    if len(sentence.ops) == 1:
        return sentence.numbers[0], sentence.ops[0], sentence.numbers[1]
    (a, b, c), (first, second) = sentence.numbers, sentence.ops
    return (a, first, (b, second, c)) if binds_right(first, second) else ((a, first, b), second, c)


def _told_inside(
    said: tuple[Term, str, Term], j: int, steps: Steps, results: list[int], told: set[int], stated: set[int]
) -> set[int]:
    """The steps told inline where `said` is what step j calculates. Raises _Mismatch where it is not."""
    left, op, right = said
    step = steps[j]
    if op != step.op:
        raise _Mismatch
    closest = ""
    for a, b in [(left, right), (right, left)][: 2 if op in "+*" else 1]:
        try:
            return _operand(a, step.left, steps, results, told, stated) | _operand(
                b, step.right, steps, results, told, stated
            )
        except _Mismatch as e:
            closest = closest or str(e)
    raise _Mismatch(closest)


def _operand(term: Term, operand: int, steps: Steps, results: list[int], told: set[int], stated: set[int]) -> set[int]:
    if operand >= 0:
        if term != operand:
            raise _Mismatch
        return set()
    i = -1 - operand
    if isinstance(term, int):
        if term != results[i]:
            raise _Mismatch
        if i not in stated:
            raise _Mismatch("missing_step")
        return set()
    inside = _told_inside(term, i, steps, results, told, stated) | {i}
    if i in told:
        raise _Mismatch("duplicate")
    return inside
