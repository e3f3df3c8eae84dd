"""Test cases of a problem: a few visible ones, and hidden ones chosen to tell the reference from its near misses.

A hidden test is worth having where it catches a program that is nearly right. So every near miss (a bound off by one,
two steps swapped, a step dropped or taken for its sibling, an argument one off) is run on a pool of inputs, and tests
are picked greedily by how many of the misses not yet caught they catch. Reward never comes from the visible ones.

Left out: near misses that no input of the pool tells apart; most of those are equivalent programs.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tracelift.worlds.code.language import BOUNDS, OPS, SIBLINGS, Program, Value, result_type, run, show_value
from tracelift.worlds.code.problems import PlanProblem, draw_input, show_input

VISIBLE, HIDDEN = 2, 4
_POOL = 24


def near_misses(start: str, steps: Program) -> list[Program]:
    """Programs that fit the types and differ from `steps` in one place."""
    found: list[Program] = []
    for i, step in enumerate(steps):
        others = [*SIBLINGS[step.op], *([BOUNDS[step.op]] if step.op in BOUNDS else [])]
        if step.op == "double_times":  # doubling is its own kind of multiplication: a large count would be no near miss
            others = []
        found += [(*steps[:i], replace(step, op=o), *steps[i + 1 :]) for o in others]
        found += [(*steps[:i], replace(step, k=step.k + d), *steps[i + 1 :]) for d in (-1, 1) if step.k + d > 1]
        found.append((*steps[:i], *steps[i + 1 :]))
        if i + 1 < len(steps):
            found.append((*steps[:i], steps[i + 1], step, *steps[i + 2 :]))
    return [
        other
        for other in found
        if result_type(start, other) is not None and all(s.k > 0 or not OPS[s.op].has_argument for s in other)
    ]


def make_cases(problem: PlanProblem) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """(visible, hidden) pairs of (stdin, expected stdout); a function of the problem alone."""
    rng = random.Random(f"cases:{problem.problem_id}")
    edges = tuple(s.k for s in problem.steps if s.k)
    inputs: list[Value] = []
    while len(inputs) < _POOL:
        x = draw_input(rng, problem.start, edges)
        if show_value(run(problem.steps, x)):  # a test that expects no output would be passed by the empty program
            inputs.append(x)
    visible, pool = inputs[:VISIBLE], inputs[VISIBLE:]
    right = [run(problem.steps, x) for x in pool]
    caught = [
        {i for i, x in enumerate(pool) if run(other, x) != right[i]}
        for other in near_misses(problem.start, problem.steps)
    ]
    hidden: list[int] = []
    while len(hidden) < HIDDEN:
        rest = [i for i in range(len(pool)) if i not in hidden]
        best = max(rest, key=lambda i: (sum(i in c for c in caught), -i))
        hidden.append(best)
        caught = [c for c in caught if best not in c]
    return tuple(_case(problem, x) for x in visible), tuple(_case(problem, pool[i]) for i in sorted(hidden))


def _case(problem: PlanProblem, value: Value) -> tuple[str, str]:
    return show_input(value), show_value(run(problem.steps, value)) + "\n"
