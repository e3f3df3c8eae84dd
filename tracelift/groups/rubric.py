"""Rubric labels by rule: what each kind of flaw costs in each dimension, at its place, with its consequence.

One table, and three rules on top of it. A judge who reads the spoiled trace sees what the builder knows exactly: which
step is wrong, how early, and whether the final answer is still right. Sound traces get 4 everywhere and a total of 1.

    place        early, middle or late: the third of the trace in which the flaw strikes
    spread       an early flaw whose numbers run through the later steps costs one more in step_coherence
    conclusion   a late flaw that leaves the answer right still costs one more in answer_support
    total        the mean label / 4, times 0.8 where the final answer is wrong

Left out on purpose: judgement by a model (tracelift/groups/judge.py), which can be compared with these labels.
"""

from __future__ import annotations

from fractions import Fraction

from tracelift.reward_model.group_format import Rubric
from tracelift.rubrics import MATH_DIMENSIONS, MAX_LABEL

# Columns: problem_understanding, solution_strategy, step_coherence, calculation_correctness, answer_support.
TABLE: dict[str, tuple[int, int, int, int, int]] = {
    "miscopied_number": (1, 3, 3, 3, 1),
    "misquoted_given": (2, 4, 3, 4, 3),
    "slip_carried": (4, 4, 3, 1, 1),
    "slip_repaired": (4, 4, 2, 1, 3),
    "wrong_operator": (3, 1, 2, 3, 1),
    "wrong_quantity": (2, 2, 2, 3, 1),
    "double_count": (2, 2, 3, 3, 1),
    "missed_term": (2, 2, 3, 3, 1),
    "dropped_step": (4, 3, 1, 3, 2),
    "swapped_steps": (4, 3, 1, 4, 3),
    "premature_stop": (3, 2, 3, 4, 0),
    "vague_step": (4, 3, 2, 2, 2),
    "unsupported_assumption": (3, 2, 2, 1, 1),
    "other_question": (1, 2, 3, 4, 0),
    "irrelevant_step": (3, 2, 2, 4, 3),
    "wrong_entity": (1, 3, 3, 4, 2),
}
WRONG_ANSWER = Fraction(4, 5)


def place_of(line: int, lines: int) -> str:
    """The third of a trace of `lines` steps in which step `line` (from 0) stands: "early", "middle" or "late"."""
    share = Fraction(2 * line + 1, 2 * lines)
    return "early" if share < Fraction(1, 3) else "middle" if share <= Fraction(2, 3) else "late"


def rubric_of(kind: str, place: str, carried: bool, answer_changed: bool) -> Rubric:
    """The labels of a flaw. Raises KeyError for a kind that the table does not hold."""
    labels = dict(zip(MATH_DIMENSIONS, TABLE[kind], strict=True))
    if place == "early" and carried:
        labels["step_coherence"] = max(0, labels["step_coherence"] - 1)
    if place == "late" and not answer_changed:
        labels["answer_support"] = max(0, labels["answer_support"] - 1)
    total = Fraction(sum(labels.values()), MAX_LABEL * len(labels)) * (WRONG_ANSWER if answer_changed else 1)
    return Rubric(labels, round(float(total), 3))


def sound_rubric() -> Rubric:
    return Rubric({name: MAX_LABEL for name in MATH_DIMENSIONS}, 1.0)


def table_markdown() -> str:
    """The table as Markdown, for the documentation."""
    head = f"| kind | {' | '.join(MATH_DIMENSIONS)} |\n|---{'|---' * len(MATH_DIMENSIONS)}|\n"
    return head + "".join(f"| {kind} | {' | '.join(map(str, row))} |\n" for kind, row in TABLE.items())
