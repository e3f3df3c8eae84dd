"""The reference plan with one place told otherwise (tracelift/worlds/code/tellings.py), as a Reason RM's groups need it.

A judge that has met nothing but reference plans knows their wording and no more. Left out: two changes in one plan;
`retold` makes those.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tracelift.worlds.code.plans import Plan
from tracelift.worlds.code.problems import PlanProblem
from tracelift.worlds.code.tellings import MAKERS


def sound_alternatives(problem: PlanProblem) -> Iterator[tuple[str, Plan]]:
    """(kind, plan), one of each kind that fits. Depends on the problem alone."""
    rng = random.Random(f"alternatives:{problem.problem_id}")
    for kind, ways in MAKERS.items():
        told = list(ways(problem.reference))
        if told:
            yield kind, rng.choice(told)
