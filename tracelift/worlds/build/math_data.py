"""Training data of the math demo's models: what each stage of tracelift/worlds/build/__main__.py learns from.

An executor answers what the trace's last step says, also where a flaw of sort A led it astray: it follows guidance, it
does not audit it. With nothing to follow it must work the problem out in one forward pass, which it cannot.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tracelift.reward_model.group_format import Group
from tracelift.reward_model.scorer import rm_text
from tracelift.tasks.prompts import BASELINE, CLOSE, EXECUTOR
from tracelift.worlds.build.math_proofreading import tagged_trace
from tracelift.worlds.build.rows import Row, flawed, planner_row, sound
from tracelift.worlds.build.tokenizer import WORDS
from tracelift.worlds.math import MathProblem, apply_flaw, make_problem, misconceived_trace, rubric_of
from tracelift.worlds.math.alternatives import sound_alternatives
from tracelift.worlds.math.flaws import FLAWS, all_flaws
from tracelift.worlds.math.validity import final_value

PIECES, VOCABULARY = WORDS, 512
SERIES = {
    "base": 101,
    "planner": 102,
    "executor": 103,
    "groups": 104,
    "tokenizer": 105,
    "dev": 106,
    "proofread": 107,
}  # problem seeds


def base_rows(count: int) -> Iterator[Row]:
    """Half as planner, half as executor whose guidance is part of what is learned; some without guidance."""
    for i in range(count):
        p, rng = make_problem(SERIES["base"], i), random.Random(f"base:{i}")
        kind = rng.random()
        if kind < 0.45:
            yield planner_row(p.text, p.trace)
        elif kind < 0.95:
            before, after = EXECUTOR["demo"].split("{trace}")
            yield {"prompt": before.format(problem=p.text).rstrip(" "), "completion": f" {p.trace}{after} {p.answer}"}
        else:
            yield {"prompt": BASELINE["demo"].format(problem=p.text), "completion": f" {p.answer}"}


def planner_rows(count: int) -> Iterator[Row]:
    for i in range(count):
        p = make_problem(SERIES["planner"], i)
        yield planner_row(p.text, misconceived_trace(p, random.Random(f"planner:{i}")))


def executor_rows(count: int, series: int | None = None) -> Iterator[Row]:
    """Mostly sound traces; flawed ones so that it follows what is written; none at all so that it has a baseline."""
    for i in range(count):
        p, rng = make_problem(series or SERIES["executor"], i), random.Random(f"executor:{i}")
        kind, trace = rng.random(), p.trace
        if kind < 0.15:
            yield {"prompt": BASELINE["demo"].format(problem=p.text), "completion": f" {p.answer}"}
            continue
        if kind < 0.45:
            trace = misconceived_trace(p, rng)
        elif kind < 0.65:
            flaw = apply_flaw(p, rng.choice(sorted(FLAWS)), rng)
            trace = flaw.trace if flaw else trace
        value = final_value(trace)
        answer = p.answer if value is None else value
        yield {"prompt": EXECUTOR["demo"].format(problem=p.text, trace=trace), "completion": f" {answer}"}


def proofread_rows(count: int) -> Iterator[Row]:
    """Four tagged traces a problem, which is read once for all of them."""
    for i in range(count):
        p, rng = make_problem(SERIES["proofread"], i), random.Random(f"proofread:{i}")
        before, _ = rm_text("math", p.text, "", "math").split(f"\n{CLOSE}")
        yield {"prompt": before, "completions": [tagged_trace(p, rng) for _ in range(4)]}


def repair_rows(count: int) -> Iterator[Row]:
    """For an executor that audits what it reads: the right answer, also where the trace would lead elsewhere."""
    for i in range(count):
        p, rng = make_problem(SERIES["executor"], i), random.Random(f"repair:{i}")
        kind, trace = rng.random(), p.trace
        if kind < 0.1:
            yield {"prompt": BASELINE["demo"].format(problem=p.text), "completion": f" {p.answer}"}
            continue
        if kind < 0.7:
            trace = misconceived_trace(p, rng)
        elif kind < 0.9:
            flaw = apply_flaw(p, rng.choice(sorted(FLAWS)), rng)
            trace = flaw.trace if flaw else trace
        yield {"prompt": EXECUTOR["demo"].format(problem=p.text, trace=trace), "completion": f" {p.answer}"}


def make_group(p: MathProblem, rng: random.Random, negatives: int, alternatives: bool = False) -> Group:
    """One flaw of each of `negatives` kinds, drawn per group so that over many groups every kind is as frequent as it fits.
    alternatives: the positive pool holds sound traces told otherwise too, and flaws strike any of the pool: were the
    reference alone struck, another order of terms would be a mark of soundness."""
    told = list(sound_alternatives(p)) if alternatives else []
    return Group(
        problem_id=p.problem_id,
        source="demo:math",
        task_type="math",
        problem=p.text,
        reference_solution=p.trace,
        positive_pool=sound(p.trace, rubric_of, [(kind, t.trace) for kind, t in told]),
        negative_bank=flawed(all_flaws(p, rng, told), rubric_of, negatives, "place", "changes_answer"),
        metadata={"answer": p.answer},
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
        trace = misconceived_trace(p, rng)
        yield EXECUTOR["demo"].format(problem=p.text, trace=trace) + f" {p.answer}"
        yield rm_text("math", p.text, trace).replace("<", " ").replace(">", " ")
