"""Is every step of a trace true and grounded in the problem?

This is the quantity the paper cannot measure: `trace_validity`, and with the executor's verdict `wrong_reason_rate`
(right answer, invalid trace). A trace is valid when its sentences are exactly the problem's derivation: each one a
step that the story calls for, with its reason, its operands known by then, a true result, nothing twice, nothing
beside the point, nothing left out, and the last result left to the executor. Operands of + and * may be swapped, and
independent steps may come in any order that respects what they need.

Left out: paraphrase. A trace in another wording than the world's is `unreadable`, hence invalid.
"""

from __future__ import annotations

import re

from tracelift.tasks.task import Validity
from tracelift.worlds.math.problems import MathProblem, compute, evaluate, resolve

_SENTENCE = re.compile(r"([A-Z][a-z]+): (\d+) ([-+*/]) (\d+)(?: = (\d+))?\.")


def check_trace(problem: MathProblem, trace: str) -> Validity:
    """Check a trace (the text between the reasoning tags) against the story's derivation."""
    sentences = _SENTENCE.findall(trace)
    if " ".join(_SENTENCE.sub("", trace).split()) or not sentences:
        return Validity(False, "unreadable", None)
    results = evaluate(problem.steps)
    if results is None:
        raise ValueError(f"{problem.problem_id}: the reference derivation itself leaves the world")
    last = len(problem.steps) - 1
    done: set[int] = set()
    for i, (label, left, op, right, claimed) in enumerate(sentences):
        a, b = int(left), int(right)
        if claimed and compute(a, op, b) != int(claimed):
            return Validity(False, "false_arithmetic", i)
        match, fault = None, "ungrounded"
        for j, step in enumerate(problem.steps):
            wanted = (resolve(step.left, results), resolve(step.right, results))
            same = op == step.op and ((a, b) == wanted or (op in "+*" and (b, a) == wanted))
            if not same:
                continue
            if label != step.label:
                fault = "wrong_reason"
            elif j in done:
                fault = "duplicate"
            elif any(-1 - o not in done for o in (step.left, step.right) if o < 0):
                fault = "missing_step"
            else:
                match = j
                break
        if match is None:
            return Validity(False, fault, i)
        if (match == last) != (claimed == ""):
            return Validity(False, "answer_leaked" if match == last else "no_result", i)
        done.add(match)
    if len(done) <= last:
        return Validity(False, "missing_step", len(sentences))
    return Validity(True)


def final_value(trace: str) -> int | None:
    """What the last sentence's expression comes to; None where there is none or it leaves the world's numbers."""
    sentences = _SENTENCE.findall(trace)
    if not sentences:
        return None
    _, left, op, right, _ = sentences[-1]
    return compute(int(left), op, int(right))
