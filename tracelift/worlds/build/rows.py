"""What the demo worlds' training data have in common: the planner's row, and the candidates of a group.

Left out: everything that depends on what a world's problems and flaws are (math_data.py, code_data.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from tracelift.reward_model.group_format import Candidate, Rubric
from tracelift.tasks.prompts import CLOSE, OPEN, PLANNER

Row = dict[str, Any]
RubricOf = Callable[[str | None], tuple[dict[str, int], float]]


def planner_row(problem: str, trace: str) -> Row:
    """One supervised row: the planner's prompt, and the trace inside its tags."""
    return {"prompt": PLANNER["demo"].format(problem=problem), "completion": f"{OPEN}{trace}{CLOSE}"}


def sound(trace: str, rubric_of: RubricOf, told: Iterable[tuple[str, str]] = ()) -> tuple[Candidate, ...]:
    """The positive pool: the reference trace, and (kind, trace) of those that tell it otherwise; flawless all of them."""
    rubric = Rubric(*rubric_of(None))
    return (Candidate(trace, rubric), *(Candidate(text, rubric, positive_kind=kind) for kind, text in told))


def flawed(flaws: Iterable[Any], rubric_of: RubricOf, negatives: int, *recorded: str) -> tuple[Candidate, ...]:
    """The negative bank: the first `negatives` flaws (.kind, .trace), each with its rubric, the `recorded` attributes and,
    where an alternative was struck, its kind (`told`)."""
    return tuple(
        Candidate(
            f.trace,
            Rubric(*rubric_of(f.kind)),
            f.kind,
            {name: getattr(f, name) for name in recorded} | ({"told": f.told} if f.told else {}),
        )
        for f in islice(flaws, negatives)
    )
