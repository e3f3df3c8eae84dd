"""Plans in which every word and digit is tagged: + where it is what the problem and the plan so far call for, else −.

What the code world's Reason RM is fine-tuned from, as in the math world (tracelift/worlds/math/data.py): one verdict on a
whole plan says too little about which word of it was wrong. Sentences go wrong independently: a number, a name, an
operator or an op replaced, a sentence left out, said twice or beside the point, code at the end. Later sentences are held
against what earlier ones state, so a slip that is carried through is tagged once.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tracelift.worlds.code.language import BOUNDS, OPS, PRINTS, SIBLINGS, Step
from tracelift.worlds.code.plans import CODE_MARK, Calculation, reference_plan
from tracelift.worlds.code.problems import CodeProblem

Piece = tuple[str, str]  # text, tag


def tagged_plan(p: CodeProblem, rng: random.Random) -> list[Piece]:
    """(text, tag) pieces of a plan with random flaws; their texts join to the plan."""
    plan = reference_plan(p)
    stated = {p.quantities[0].name: p.quantities[0].value}
    names = [q.name for q in p.quantities] + ([p.unused.name] if p.unused else [])
    parents = {q.name: q.parent or "" for q in p.quantities}
    out: list[Piece] = []
    missing = False  # the sentence before was left out: the next one is not what should come
    for c in plan.calculations:
        parent = stated.get(parents[c.name], 0)
        true = replace(c, right=parent) if c.op == "*" else replace(c, left=parent)
        true = replace(true, value=max(1, true.true_value))
        if rng.random() < 0.05:
            missing = True
            stated[c.name] = true.value
            continue
        said = _spoiled_calculation(true, names, rng)
        out += _calculation(said, true, missing)
        missing = False
        stated[c.name] = said.value
        if rng.random() < 0.08:
            out += [(text, " -") for text, _ in _calculation(said, said, False)]
    if p.unused is not None and rng.random() < 0.3:
        u = p.unused
        extra = Calculation(u.name, *u.terms, u.value)
        out += [(text, " -") for text, _ in _calculation(extra, extra, False)]
    steps = [replace(s, k=stated[s.name]) if s.name else s for s in plan.steps]
    i = 0
    while i < len(steps):
        what = rng.random()
        if what < 0.06 and i + 1 < len(steps):
            out += _step(steps[i + 1], steps[i])  # the wrong one first
            out += [(text, " -") for text, _ in _step(steps[i], steps[i])]
            i += 2
            missing = False
            continue
        if what < 0.12:
            missing = True
            i += 1
            continue
        if what < 0.18:
            idle = Step({"numbers": "add_each", "word": "repeat", "number": "add"}[OPS[steps[i].op].takes], rng.randint(0, 1))
            out += [(text, " -") for text, _ in _step(idle, idle)]
        said = _spoiled_step(steps[i], stated, rng)
        pieces = _step(said, steps[i])
        out += [(pieces[0][0], " -"), *pieces[1:]] if missing else pieces
        missing = False
        i += 1
    end, _ = PRINTS[plan.end]
    out.append((f" {end}", " -" if missing else " +"))
    if rng.random() < 0.12:
        lines = plan.program(p.start)
        leaked = lines if rng.random() < 0.5 else rng.choice(lines.split("\n")[1:-1])
        out.append((f" {CODE_MARK} {leaked}", " -"))
    first, tag = out[0]
    return [(first.lstrip(" "), tag), *out[1:]]


def _slipped(rng: random.Random, value: int) -> int:
    return rng.choice([v for v in (value - 10, value - 2, value - 1, value + 1, value + 2, value + 10) if v > 0])


def _spoiled_calculation(c: Calculation, names: list[str], rng: random.Random) -> Calculation:
    what = rng.random()
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


def _spoiled_step(s: Step, stated: dict[str, int], rng: random.Random) -> Step:
    what = rng.random()
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


def _tag(right: bool) -> str:
    return " +" if right else " -"


def _digits(written: int, true: int) -> list[Piece]:
    a, b = str(written), str(true)
    return [(" " * (k == 0) + digit, _tag(len(a) == len(b) and digit == b[k])) for k, digit in enumerate(a)]


def _calculation(said: Calculation, true: Calculation, unexpected: bool) -> list[Piece]:
    """Operands are held against the problem, the result against the operands as they are said."""
    return [(f" {said.name}", _tag(said.name == true.name and not unexpected)), (":", " +"), *_digits(said.left, true.left),
            (f" {said.op}", _tag(said.op == true.op)), *_digits(said.right, true.right), (" =", " +"),
            *_digits(said.value, said.true_value), (".", " +")]  # fmt: skip


def _step(said: Step, true: Step) -> list[Piece]:
    """The words before the argument, its name, its digits, and the words behind it."""
    (before, _, behind), (true_before, _, true_behind) = OPS[said.op].planned.partition("{k}"), OPS[true.op].planned.partition("{k}")
    before, true_before = before.rstrip(" "), true_before.rstrip(" ")
    pieces = [(f" {before}", _tag(before == true_before))]
    if not behind:
        return pieces
    if said.name:
        pieces += [(f" {said.name}", _tag(said.name == true.name)), (" =", " +")]
    return [*pieces, *_digits(said.k, true.k), (behind, _tag(behind == true_behind))]
