"""The names of the paper's rubric dimensions, how a label is bounded, and the ways in which a sound trace is told otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from tracelift.errors import GroupError

MATH_DIMENSIONS: tuple[str, ...] = (
    "problem_understanding",
    "solution_strategy",
    "step_coherence",
    "calculation_correctness",
    "answer_support",
)
CODE_DIMENSIONS: tuple[str, ...] = (
    "task_understanding",
    "plan_quality",
    "step_coherence",
    "action_support",
    "non_leakage",
)
TASK_TYPES = ("math", "code")
MAX_LABEL = 4  # five classes a dimension, 0 worst

# An alternative is the reference told otherwise in one place, and as sound. Which kinds can be made of a trace, and what
# shows that they are sound, is each builder's business: tracelift/groups/alternatives.py, tracelift/worlds/*/alternatives.py.
ALTERNATIVES: dict[str, str] = {
    "terms_exchanged": "Two terms of a sum, or two factors of a product, change places.",
    "steps_reordered": "Steps that do not need each other stand in another order.",
    "sum_regrouped": "A sum of three or more terms is added up in another grouping.",
    "product_as_sum": "Two times a number is written as that number plus itself.",
    "reworded": "The conclusion opens with another connective.",
}


def dimensions_of(task_type: str) -> tuple[str, ...]:
    """The five rubric dimensions of "math" or "code", in the order of the reward model's heads."""
    if task_type == "math":
        return MATH_DIMENSIONS
    if task_type == "code":
        return CODE_DIMENSIONS
    raise GroupError(f"task_type {task_type!r} is not one of {', '.join(TASK_TYPES)}")


def other_rubric(names: Sequence[str], task_type: str) -> str | None:
    """A line where a Reason RM of these dimensions is asked about traces of another rubric; None where it is theirs, or where
    its server does not say."""
    if not names or tuple(names) == dimensions_of(task_type):
        return None
    return (
        f"note: the Reason RM scores {', '.join(names)}, which is not the rubric of {task_type}: take one that was trained on "
        f"groups of {task_type} (reward_model.path), or a reward.mode that needs none"
    )
