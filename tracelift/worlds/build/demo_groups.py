"""TraceLift-Groups of the code world's problems, whose flaws are exact."""

from __future__ import annotations

import random

from tracelift.reward_model.group_format import Group


def demo_group(number: int, seed: int, negatives: int) -> Group:
    """A problem of the code world with its exact flaws."""
    from tracelift.worlds.build.code_data import make_group
    from tracelift.worlds.code.problems import make_problem

    return make_group(make_problem(seed, number), random.Random(f"groups:{seed}:{number}"), negatives)
