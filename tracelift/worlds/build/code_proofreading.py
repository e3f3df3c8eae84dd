"""Plans in which every word and digit is tagged: + where it is what the problem and the plan so far call for, else −.

What the code world's Reason RM is fine-tuned from (tracelift/worlds/build/proofreading.py says why).

A row starts from a random sound telling. Its sentences go wrong independently: a number, a name, an operator or an op
replaced, a sentence left out, said twice or in the wrong order, an idle step, code at the end. Later sentences are held
against what earlier ones state, so a slip that is carried through is tagged once. A piece is wrong only where no sound
telling goes on so: of 6 + 4 the operand 4 may come first.

Left out: what the held-out kinds do (tracelift/worlds/code/flaws.py: HELD_OUT), so no sort before a step that does not care,
no quantity that nothing needs, nothing of the back taken from the front or the reverse, no "less" taken as more. Nor is
a calculation left out that could stand inside its step: without its sentence the plan may still become sound.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tracelift.training.sft import Piece
from tracelift.worlds.build.proofreading import RIGHT, WRONG, closed, number
from tracelift.worlds.code.flaws import confusable, has_needless_sort, other_names
from tracelift.worlds.code.language import BOUNDS, OPS, PRINTS, Step
from tracelift.worlds.code.plans import CODE_MARK, Calculation, Expression, Plan, expressions
from tracelift.worlds.code.problems import PlanProblem
from tracelift.worlds.code.tellings import retold

_IDLE = {"numbers": "add_each", "word": "repeat", "number": "add"}
Openings = tuple[str, ...]  # every way in which a sentence may begin, that of the telling first


def tagged_plan(p: PlanProblem, rng: random.Random) -> list[Piece]:
    """Tagged pieces of a plan with random flaws and its closing tag; their texts join to the RM's reading of it."""
    while True:
        tagger = _Tagger(p, retold(p.plan, rng, merged=0.5), rng, rng.uniform(0, 2))  # nearly sound to nearly all wrong
        pieces = tagger.tagged()
        if not has_needless_sort(tuple(tagger.said)):
            return closed(pieces)


@dataclass
class _Tagger:
    """One pass over a plan. stated: what the plan so far says each quantity is; due: how the first sentence that was left out
    begins; said: the steps written so far."""

    p: PlanProblem
    plan: Plan
    rng: random.Random
    rate: float
    stated: dict[str, int] = field(default_factory=dict)
    due: Openings | None = None
    said: list[Step] = field(default_factory=list)
    out: list[Piece] = field(default_factory=list)

    def strikes(self, probability: float) -> bool:
        return self.rng.random() < self.rate * probability

    def tagged(self) -> list[Piece]:
        self.stated = {q.name: q.value for q in self.p.quantities[:1]}
        ends = PRINTS[self.plan.end][0]
        end = f" {ends[self.plan.end_wording]}"
        openings = [(f" {c.name}",) for c in self._apart()] + [_openings(s) for s in self.plan.steps]
        openings.append((end, *(f" {text}" for text in ends)))
        self._calculations(openings)
        self._steps(openings[len(self._apart()) :])
        if self.strikes(0.05):
            other = self.rng.choice([kind for kind in PRINTS if kind != self.plan.end])
            end = f" {PRINTS[other][0][self.plan.end_wording]}"
        self.out.append(_one_of(end, self.due or openings[-1]))
        if self.strikes(0.12):
            lines = self.plan.program(self.p.start)
            leaked = lines if self.rng.random() < 0.5 else self.rng.choice(lines.split("\n")[1:-1])
            self.out.append((f" {CODE_MARK} {leaked}", WRONG))
        return self.out

    def _apart(self) -> list[Calculation]:
        return [c for c in self.plan.calculations if c.name not in self.plan.merged]

    def _ways(self, name: str) -> tuple[Expression, ...]:
        """How quantity `name` may be written by now, the telling's way first."""
        q = next(q for q in self.p.quantities if q.name == name)
        told = next(c for c in self.plan.calculations if c.name == name)
        ways = expressions(*q.terms_at(self.stated[q.parent or ""]))
        way = expressions(*q.calculation.terms).index(told.terms)
        first = ways[way] if way < len(ways) else ways[0]
        return (first, *(w for w in ways if w != first))

    def _calculations(self, openings: list[Openings]) -> None:
        for j, c in enumerate(self._apart()):
            ways = self._ways(c.name)
            true = c.told(ways[0])
            true = replace(true, value=max(1, true.true_value))
            self.stated[c.name] = true.value
            if not self.plan.may_merge(c.name) and self.strikes(0.05):
                self.due = self.due or openings[j]
                continue
            spoiled = true if self.due else self._spoiled_calculation(true)  # or it could become the one left out
            self.out += [_one_of(f" {spoiled.name}", self.due or openings[j]), (":", RIGHT, ":")]
            self.out += _walk(_parts(spoiled.terms, " ="), [_parts(w, " =") for w in ways])
            self.out += number(spoiled.value, spoiled.true_value, ".", ".")
            self.due = None
            self.stated[c.name] = spoiled.value
            if self.strikes(0.08):
                self.out.append((f" {spoiled}", WRONG, openings[j + 1][0]))

    def _steps(self, openings: list[Openings]) -> None:
        steps = [replace(s, k=self.stated.get(s.name, s.k)) if s.name else s for s in self.plan.steps]
        i = 0
        while i < len(steps):
            opening, after = self.due or openings[i], openings[i + 1]
            told_apart = not set(after) & set(opening)
            if self.strikes(0.06) and i + 1 < len(steps) and told_apart:
                self.out += [
                    (self._sentence(steps[i + 1]), WRONG, opening[0]),
                    (self._sentence(steps[i]), WRONG),
                ]
                self.said += [steps[i + 1], steps[i]]
                self.due, i = None, i + 2
                continue
            if self.strikes(0.06) and told_apart:
                self.due, i = opening, i + 1
                continue
            if self.strikes(0.06):
                idle = Step(_IDLE[OPS[steps[i].op].takes], self.rng.randint(0, 1), wording=self.rng.randrange(2))
                self.out.append((f" {idle.planned}", WRONG, opening[0]))
                self.said.append(idle)
            self._step(steps[i], opening)
            self.due, i = None, i + 1

    def _sentence(self, s: Step) -> str:
        if s.name in self.plan.merged:
            left, op, right = self._ways(s.name)[0]
            return f" {s.text.format(k=f'{s.name} = {left} {op} {right}')}"
        return f" {s.planned}"

    def _step(self, true: Step, opening: Openings) -> None:
        """The words before the argument, its name, its digits or its calculation, and the words behind it."""
        merged = true.name in self.plan.merged
        said = true if self.due else self._spoiled_step(true, merged)
        self.said.append(said)
        behind, true_behind = (s.text.partition("{k}")[2] for s in (said, true))
        self.out.append(_one_of(_openings(said)[0], opening))
        if not behind:
            return
        if said.name:
            first = f" {true.name}" if true.name else f" {str(true.k)[0]}"
            self.out += [_one_of(f" {said.name}", (first,)), (" =", RIGHT, " =")]
        if true.name and merged:
            ways = self._ways(true.name)
            terms = ways[0] if self.due else self._spoiled_terms(Calculation(true.name, *ways[0], 0)).terms
            tail = true_behind or "."
            self.out += _walk(_parts(terms, behind), [_parts(w, tail) for w in ways])
        else:
            self.out += number(said.k, true.k, behind, true_behind or ".")

    def _spoiled_calculation(self, c: Calculation) -> Calculation:
        if self.strikes(0.10):
            return replace(c, name=self.rng.choice(other_names(self.p, c)))
        said = self._spoiled_terms(c)
        said = replace(said, value=max(1, said.true_value))
        return replace(said, value=_slipped(self.rng, said.value)) if said == c and self.strikes(0.14) else said

    def _spoiled_terms(self, c: Calculation) -> Calculation:
        if self.strikes(0.10):
            side = self.rng.choice(("left", "right"))
            return replace(c, **{side: _slipped(self.rng, getattr(c, side))})
        if self.strikes(0.08):
            return replace(c, op=self.rng.choice({"+": "-*", "*": "+-", "-": "*"}[c.op]))
        return c

    def _spoiled_step(self, s: Step, merged: bool) -> Step:
        others = confusable(s.op)
        if others and self.strikes(0.08):
            return replace(s, op=self.rng.choice(others))
        if s.op in BOUNDS and self.strikes(0.10):
            return replace(s, op=BOUNDS[s.op])
        if merged:
            named = Calculation(s.name or "", *self._ways(s.name or "")[0], 0)
            return replace(s, name=self.rng.choice(other_names(self.p, named))) if self.strikes(0.10) else s
        if s.k and self.strikes(0.12):
            return replace(s, k=_slipped(self.rng, s.k))
        if s.k and self.stated and self.strikes(0.12):
            name = self.rng.choice(sorted(self.stated))
            return replace(s, k=self.stated[name], name=name)
        return s


def _slipped(rng: random.Random, value: int) -> int:
    return rng.choice([v for v in (value - 10, value - 2, value - 1, value + 1, value + 2, value + 10) if v > 0])


def _openings(s: Step) -> Openings:
    """How a step's sentence begins, up to its argument: in its own wording first, then in every one."""
    before: Callable[[str], str] = lambda text: " " + text.partition("{k}")[0].rstrip(" ")  # noqa: E731
    return (before(s.text), *map(before, OPS[s.op].planned))


def _one_of(text: str, meant: Openings) -> Piece:
    """A piece held against every text that could stand there."""
    return (text, RIGHT, text) if text in meant else (text, WRONG, meant[0])


def _parts(terms: Expression, then: str) -> list[str]:
    """An expression piece by piece, a digit each, and `then` behind it."""
    left, op, right = terms
    digits = lambda n: [" " * (k == 0) + d for k, d in enumerate(str(n))]  # noqa: E731
    return [*digits(left), f" {op}", *digits(right), then]


def _walk(said: list[str], sound: list[list[str]]) -> list[Piece]:
    """`said` held against every sound way to write it, piece by piece. Behind the first wrong piece nobody can say what is
    meant until the words that follow the expression."""
    for i, piece in enumerate(said):
        if not any(way[: i + 1] == said[: i + 1] for way in sound):
            meant = next(way[i] for way in sound if way[:i] == said[:i])
            rest: list[Piece] = [(text, False) for text in said[i + 1 :]]
            return [*((text, RIGHT, text) for text in said[:i]), (piece, WRONG, meant), *rest]
    return [(text, RIGHT, text) for text in said]
