"""Training data of the code demo's models: what each stage of tracelift/worlds/build/__main__.py learns from.

The executor writes the program that the plan's sentences say, also where they are wrong: it follows guidance, it does
not audit it. With nothing to follow it must find constants and order in the statement in one forward pass while writing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tracelift.reward_model.group_format import Group
from tracelift.reward_model.scorer import rm_text
from tracelift.tasks.prompts import BASELINE, CLOSE, EXECUTOR
from tracelift.worlds.build.code_proofreading import tagged_plan
from tracelift.worlds.build.rows import Row, flawed, planner_row, sound
from tracelift.worlds.build.tokenizer import PHRASES
from tracelift.worlds.code.alternatives import sound_alternatives
from tracelift.worlds.code.cases import make_cases
from tracelift.worlds.code.flaws import FLAWS, all_flaws, apply_flaw, rubric_of
from tracelift.worlds.code.habits import misconceived_plan
from tracelift.worlds.code.plans import read_plan
from tracelift.worlds.code.problems import PlanProblem, make_problem

PIECES, VOCABULARY = PHRASES, 896
SERIES = {
    "base": 201,
    "planner": 202,
    "executor": 203,
    "groups": 204,
    "tokenizer": 205,
    "dev": 206,
    "proofread": 207,
}  # problem seeds


def program_of(p: PlanProblem, trace: str) -> str:
    """The program that follows a plan of this world to the letter. Raises ValueError on a plan that cannot be read."""
    plan = read_plan(trace)
    if plan is None:
        raise ValueError(f"{p.problem_id}: not a plan of the code world: {trace!r}")
    return plan.program(p.start)


def base_rows(count: int) -> Iterator[Row]:
    """Half as planner, half as executor whose guidance is part of what is learned; some without guidance."""
    for i in range(count):
        p, rng = make_problem(SERIES["base"], i), random.Random(f"base:{i}")
        kind = rng.random()
        if kind < 0.45:
            yield planner_row(p.text, p.trace)
        elif kind < 0.95:
            before, after = EXECUTOR["demo-code"].split("{trace}")
            yield {"prompt": before.format(problem=p.text).rstrip(" "), "completion": f" {p.trace}{after}{p.program}"}
        else:
            yield {"prompt": BASELINE["demo-code"].format(problem=p.text), "completion": p.program}


def planner_rows(count: int) -> Iterator[Row]:
    for i in range(count):
        p = make_problem(SERIES["planner"], i)
        yield planner_row(p.text, misconceived_plan(p, random.Random(f"planner:{i}")))


def executor_rows(count: int, series: int | None = None) -> Iterator[Row]:
    """Mostly sound plans; flawed ones so that it follows what is written; none at all so that it has a baseline."""
    for i in range(count):
        p, rng = make_problem(series or SERIES["executor"], i), random.Random(f"executor:{i}")
        kind, trace = rng.random(), p.trace
        if kind < 0.1:
            yield {"prompt": BASELINE["demo-code"].format(problem=p.text), "completion": p.program}
            continue
        if kind < 0.45:
            trace = misconceived_plan(p, rng)
        elif kind < 0.7:
            flaw = apply_flaw(p, rng.choice(sorted(FLAWS)), rng)
            trace = flaw.trace if flaw else trace
        yield {"prompt": EXECUTOR["demo-code"].format(problem=p.text, trace=trace), "completion": program_of(p, trace)}


def proofread_rows(count: int) -> Iterator[Row]:
    """Four tagged plans a problem, which is read once for all of them."""
    for i in range(count):
        p, rng = make_problem(SERIES["proofread"], i), random.Random(f"proofread:{i}")
        before, _ = rm_text("code", p.text, "", "code").split(f"\n{CLOSE}")
        yield {"prompt": before, "completions": [tagged_plan(p, rng) for _ in range(4)]}


def make_group(p: PlanProblem, rng: random.Random, negatives: int, alternatives: bool = False) -> Group:
    """One flaw of each of `negatives` kinds, drawn per group so that over many groups every kind is as frequent as it fits.
    alternatives: the positive pool holds sound traces told otherwise too, and flaws strike any of the pool: were the
    reference alone struck, another order of terms would be a mark of soundness."""
    told = list(sound_alternatives(p)) if alternatives else []
    visible, hidden = make_cases(p)
    pairs = lambda cases: [{"input": i, "output": o} for i, o in cases]  # noqa: E731
    return Group(
        problem_id=p.problem_id,
        source="demo:code",
        task_type="code",
        problem=p.text,
        reference_solution=p.program,
        positive_pool=sound(p.trace, rubric_of, [(kind, str(t)) for kind, t in told]),
        negative_bank=flawed(all_flaws(p, rng, told), rubric_of, negatives, "changes_result"),
        metadata={"visible_tests": pairs(visible), "tests": pairs(hidden)},
    )


def demo_group(number: int, series: int, negatives: int, alternatives: bool = False) -> Group:
    """The group of problem `number` of a series; draws are keyed by both."""
    return make_group(make_problem(series, number), random.Random(f"groups:{series}:{number}"), negatives, alternatives)


def make_groups(series: int, count: int, negatives: int = 6) -> Iterator[Group]:
    """What the committed Reason RM learned from: references and flaws, no alternatives."""
    for i in range(count):
        yield demo_group(i, series, negatives)


def tokenizer_corpus() -> Iterator[str]:
    for i in range(4000):
        p, rng = make_problem(SERIES["tokenizer"], i), random.Random(i)
        trace = misconceived_plan(p, rng)
        yield EXECUTOR["demo-code"].format(problem=p.text, trace=trace) + program_of(p, trace)
        yield rm_text("code", p.text, trace).replace("<", " ").replace(">", " ")
