"""Which answers count as the same when samples vote (maj@k).

    gsm8k, number     the number that is read, exactly; a text that states none, as text
    latex             the boxed or last expression, as text: 1/2 and 0.5 are two answers unless both are right
    program           no vote: programs that differ in text may do the same

Right answers are one answer, however they are written, because each equals the reference. A run that says nothing votes
for nothing. Left out: votes weighted by the Reason RM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tracelift.evaluation.bench import Answer
from tracelift.stats import majority_at_k
from tracelift.verify.math import as_text, extract_answer, read_answer

VOTING = ("gsm8k", "number", "latex")  # kinds of problem


def vote_of(artifact: str, kind: str) -> str:
    """What a wrong artifact votes for; empty for nothing."""
    number = read_answer(artifact) if kind != "latex" else None
    return str(number.value) if number is not None else as_text(extract_answer(artifact))


def majority(answers: Sequence[Answer], rule: str, kind: str, k: int) -> float:
    """maj@k of one problem's judged samples."""
    right = sum(a.passes(rule) for a in answers)
    votes = Counter(vote_of(a.artifact or "", kind) for a in answers if not a.passes(rule))
    silent = votes.pop("", 0)
    return majority_at_k(right, list(votes.values()), k, silent)
