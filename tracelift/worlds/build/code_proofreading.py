"""Plans in which every word and digit is tagged: + where it is what the problem and the plan so far call for, else −.

What the code world's Reason RM is fine-tuned from (tracelift/worlds/build/proofreading.py says why).

Sentences go wrong independently: a number, a name, an operator or an op replaced, a sentence left out, said twice, in the
wrong order or beside the point, code at the end. Later sentences are held against what earlier ones state, so a slip that
is carried through is tagged once.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tracelift.training.sft import Piece
from tracelift.worlds.build.proofreading import RIGHT, WRONG, closed, held, number
from tracelift.worlds.code.language import BOUNDS, OPS, PRINTS, SIBLINGS, Step
from tracelift.worlds.code.plans import CODE_MARK, Calculation, reference_plan
from tracelift.worlds.code.problems import PlanProblem


def tagged_plan(p: PlanProblem, rng: random.Random) -> list[Piece]:
    """Tagged pieces of a plan with random flaws and its closing tag; their texts join to the RM's reading of it."""
    rate = rng.uniform(0, 2)  # some plans are nearly sound, some nearly all wrong
    strikes = lambda probability: rng.random() < rate * probability  # noqa: E731
    plan = reference_plan(p)
    stated = {p.quantities[0].name: p.quantities[0].value}
    names = [q.name for q in p.quantities] + ([p.unused.name] if p.unused else [])
    parents = {q.name: q.parent or "" for q in p.quantities}
    steps = [replace(s, k=stated.get(s.name, s.k)) if s.name else s for s in plan.steps]
    openings = [f" {c.name}" for c in plan.calculations] + [_opening(s) for s in steps] + [f" {PRINTS[plan.end][0]}"]
    out: list[Piece] = []
    due: str | None = None  # how the first sentence that was left out begins
    for j, c in enumerate(plan.calculations):
        parent = stated.get(parents[c.name], 0)
        true = replace(c, right=parent) if c.op == "*" else replace(c, left=parent)
        true = replace(true, value=max(1, true.true_value))
        if strikes(0.05) and openings[j + 1] != (due or openings[j]):
            due = due or openings[j]
            stated[c.name] = true.value
            continue
        said = true if due else _spoiled_calculation(true, names, rng, rate)  # or it could become the one left out
        out += _calculation(said, true, due or openings[j])
        due = None
        stated[c.name] = said.value
        if strikes(0.08):
            out.append((f" {said}", WRONG, openings[j + 1]))
    behind = len(plan.calculations)
    if p.unused is not None and strikes(0.3):
        u = p.unused
        out.append((f" {Calculation(u.name, *u.terms, u.value)}", WRONG, due or openings[behind]))
    steps = [replace(s, k=stated[s.name]) if s.name else s for s in plan.steps]
    i = 0
    while i < len(steps):
        opening, after = due or openings[behind + i], openings[behind + i + 1]
        if strikes(0.06) and i + 1 < len(steps) and after != opening:
            out += [(f" {steps[i + 1].planned}", WRONG, opening), (f" {steps[i].planned}", WRONG)]
            due, i = None, i + 2
            continue
        if strikes(0.06) and after != opening:
            due, i = opening, i + 1
            continue
        if strikes(0.06):
            idle = Step(
                {"numbers": "add_each", "word": "repeat", "number": "add"}[OPS[steps[i].op].takes], rng.randint(0, 1)
            )
            out.append((f" {idle.planned}", WRONG, opening))
        out += _step(steps[i] if due else _spoiled_step(steps[i], stated, rng, rate), steps[i], opening)
        due, i = None, i + 1
    end = openings[-1]
    out.append(held(end, due or end))
    if strikes(0.12):
        lines = plan.program(p.start)
        leaked = lines if rng.random() < 0.5 else rng.choice(lines.split("\n")[1:-1])
        out.append((f" {CODE_MARK} {leaked}", WRONG))
    return closed(out)


def _slipped(rng: random.Random, value: int) -> int:
    return rng.choice([v for v in (value - 10, value - 2, value - 1, value + 1, value + 2, value + 10) if v > 0])


def _spoiled_calculation(c: Calculation, names: list[str], rng: random.Random, rate: float) -> Calculation:
    what = rng.random() / max(rate, 1e-9)
    if what < 0.10:
        return replace(c, name=rng.choice([n for n in names if n != c.name]))
    if what < 0.20:
        side = rng.choice(("left", "right"))
        c = replace(c, **{side: _slipped(rng, getattr(c, side))})
        return replace(c, value=max(1, c.true_value))
    if what < 0.28:
        c = replace(c, op=rng.choice([o for o in "+-*" if o != c.op]))
        return replace(c, value=max(1, c.true_value))
    return replace(c, value=_slipped(rng, c.value)) if what < 0.42 else c


def _spoiled_step(s: Step, stated: dict[str, int], rng: random.Random, rate: float) -> Step:
    what = rng.random() / max(rate, 1e-9)
    if what < 0.08:
        return replace(s, op=rng.choice(SIBLINGS[s.op]))
    if what < 0.18 and s.op in BOUNDS:
        return replace(s, op=BOUNDS[s.op])
    if what < 0.30 and s.k:
        return replace(s, k=_slipped(rng, s.k))
    if what < 0.42 and s.k:
        name = rng.choice(sorted(stated))
        return replace(s, k=stated[name], name=name)
    return s


def _calculation(said: Calculation, true: Calculation, opening: str) -> list[Piece]:
    """Operands are held against the problem, the result against the operands as they are said."""
    return [
        held(f" {said.name}", opening),
        (":", RIGHT, ":"),
        *number(said.left, true.left, f" {said.op}", f" {true.op}"),
        *number(said.right, true.right, " =", " ="),
        *number(said.value, said.true_value, ".", "."),
    ]


def _opening(s: Step) -> str:
    """How a step's sentence begins: its words up to the argument."""
    return " " + OPS[s.op].planned.partition("{k}")[0].rstrip(" ")


def _step(said: Step, true: Step, opening: str) -> list[Piece]:
    """The words before the argument, its name, its digits, and the words behind it."""
    behind, true_behind = (OPS[s.op].planned.partition("{k}")[2] for s in (said, true))
    pieces = [held(_opening(said), opening)]
    if not behind:
        return pieces
    if said.name:
        pieces += [held(f" {said.name}", f" {true.name}" if true.name else f" {str(true.k)[0]}"), (" =", RIGHT, " =")]
    return [*pieces, *number(said.k, true.k, behind, true_behind or ".")]
