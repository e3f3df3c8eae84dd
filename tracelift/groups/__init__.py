"""TraceLift-Groups: a problem, its sound traces, and the same traces with one flaw each, labelled by a rubric.

The data a Reason Reward Model learns from. tracelift/reward_model/group_format.py reads and writes it (the
authors' layout, unchanged); this room builds it from seed problems. The command line is `python -m tracelift.groups`.
"""

from tracelift.errors import GroupError
from tracelift.reward_model.group_format import (
    Candidate,
    Group,
    Rubric,
    read_groups,
    scan_groups,
    split_of,
    write_groups,
)
from tracelift.rubrics import CODE_DIMENSIONS, MATH_DIMENSIONS, dimensions_of

__all__ = [
    "CODE_DIMENSIONS",
    "MATH_DIMENSIONS",
    "Candidate",
    "Group",
    "GroupError",
    "Rubric",
    "dimensions_of",
    "read_groups",
    "scan_groups",
    "split_of",
    "write_groups",
]
