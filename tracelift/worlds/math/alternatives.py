"""The reference trace with one place told otherwise (tracelift/worlds/math/tellings.py), as a Reason RM's groups need it.

A judge that has met nothing but reference traces knows their wording and no more (it takes `5 + 12` for a flaw where the
reference says `12 + 5`). Left out: two changes in one trace; `retold` makes those.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from tracelift.worlds.math.problems import MathProblem
from tracelift.worlds.math.tellings import MAKERS, ways


def sound_alternatives(problem: MathProblem) -> Iterator[tuple[str, MathProblem]]:
    """(kind, the problem with its trace told otherwise), one of each kind that fits. Depends on the problem alone."""
    rng = random.Random(f"alternatives:{problem.problem_id}")
    for kind in MAKERS:
        made = [replace(problem, steps=steps) for steps in ways(kind, problem.steps)]
        other = [told for told in made if told.trace != problem.trace]
        if other:
            yield kind, rng.choice(other)
