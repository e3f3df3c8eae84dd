"""Sixteen ways in which a sound trace goes wrong, each striking one known place, with its consequence worked out.

A flaw takes the reference and spoils one step: the trace stays on topic and as a whole looks right. What the flaw does
to the numbers after it, and to the final answer, comes from re-running the trace (trace.py), so it is known.
Some flaws carry on to the final answer, others leave it right: those are the ones an outcome reward cannot see.

Left out on purpose: how words and numbers change (wording.py), labels (tracelift/groups/rubric.py), choice and matching
of lengths (tracelift/groups/build.py), flaws of code plans (code.py).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from tracelift.groups.flaws.numbers import write_number
from tracelift.groups.flaws.trace import Edit, Rerun, Slot, Trace, givens
from tracelift.groups.flaws.wording import (
    mid_sentence,
    miscopies,
    names_in,
    nouns_in,
    shuffled,
    slips,
    statements,
    without_calculation,
)
from tracelift.verify.arithmetic import find_equations


@dataclass(frozen=True)
class Flawed:
    """A spoiled trace. `line`: where the flaw strikes in `lines`. `note`: the flaw in words. `final`: the answer the
    trace now leads to. `carried`: whether numbers after the flaw changed with it."""

    kind: str
    lines: tuple[str, ...]
    line: int
    note: str
    final: Fraction
    carried: bool


Maker = Callable[[Trace, str, random.Random], Iterator[Flawed]]
MAKERS: dict[str, Maker] = {}


def kind(maker: Maker) -> Maker:
    """Registers a maker under its name. It yields the flaws it can make of a trace, in random order, lazily."""
    MAKERS[maker.__name__] = maker
    return maker


def make(name: str, trace: Trace, problem: str, rng: random.Random) -> Flawed | None:
    """One flaw of the named kind that changes the text, or None where the trace offers no place for it."""
    reference = tuple(line.text for line in trace.lines)
    return next((f for f in MAKERS[name](trace, problem, rng) if f.lines != reference), None)


def _carried(trace: Trace, run: Rerun, name: str, line: int, note: str, lines: tuple[str, ...] | None = None) -> Flawed:
    lines = run.lines if lines is None else lines
    later = any(a != b.text for a, b in zip(lines[line + 1 :], trace.lines[line + 1 :], strict=False))
    return Flawed(name, lines, line, note, run.final, later)


def _sums(trace: Trace, rng: random.Random) -> list[tuple[int, int]]:
    return shuffled([(i, k) for i, line in enumerate(trace.lines) for k in range(len(line.sums))], rng)


def _slips(slot: Slot, rng: random.Random) -> list[Fraction]:
    """Wrong results on the same side of zero."""
    return [slot.sign * wrong for wrong in slips(slot.text, rng)]


# ---------------------------------------------------------------------------------- numbers read or worked out wrong


@kind
def miscopied_number(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A given is copied wrongly into one step, and everything after it follows from the wrong number."""
    for i, line in shuffled(list(enumerate(trace.lines)), rng):
        for slot in shuffled([s for s in line.slots if s.in_sum and trace.nodes[s.node].kind == "given"], rng):
            if trace.ambiguous(i, slot):
                continue
            for wrong in miscopies(slot.text, rng):
                edit = Edit(operand={(i, s): wrong for s, other in enumerate(line.slots) if other.node == slot.node})
                if (run := trace.run(edit)) and run.final != trace.nodes[trace.final].value:
                    note = f"the problem's {slot.text} read as {write_number(wrong, slot.text)}"
                    yield _carried(trace, run, "miscopied_number", i, note)


@kind
def misquoted_given(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A sentence of the problem is quoted with a wrong number, which no step then uses: a false claim of no effect."""
    for sentence in shuffled(statements(problem), rng):
        for match in shuffled(list(re.finditer(r"(?<![\w.,/])[0-9]+(?![\w,/:]|\.[0-9])", sentence)), rng):
            for wrong in miscopies(match[0], rng):
                if wrong not in givens(problem):
                    text = f"{sentence[: match.start()]}{wrong}{sentence[match.end() :]}"
                    lines = (text, *(line.text for line in trace.lines))
                    yield _same_answer(trace, "misquoted_given", lines, 0, f"the problem says {match[0]}, not {wrong}")


@kind
def slip_carried(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A calculation comes out wrong, and the steps after it use the wrong result."""
    for i, k in _sums(trace, rng):
        s = trace.lines[i].sums[k].result
        slot = trace.lines[i].slots[s]
        for wrong in _slips(slot, rng):
            if (run := trace.run(Edit(forced={(i, s): wrong}))) and run.final != trace.nodes[trace.final].value:
                note = f"the result is {slot.said}, not {write_number(wrong, slot.text)}"
                yield _carried(trace, run, "slip_carried", i, note)


@kind
def slip_repaired(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A calculation is written with a wrong result, but the steps after it use the right one."""
    for i, k in _sums(trace, rng):
        s = trace.lines[i].sums[k].result
        slot = trace.lines[i].slots[s]
        if not trace.uses(slot.node, after=i):
            continue
        for wrong in _slips(slot, rng):
            if run := trace.run(Edit(shown={(i, s): wrong})):
                note = f"the result is {slot.said}, not {write_number(wrong, slot.text)}; later steps use {slot.said}"
                yield _same_answer(trace, "slip_repaired", run.lines, i, note)


@kind
def wrong_operator(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """One operation is another (plus for minus, times for divided by, …), with the result it then has."""
    others = {"+": "-*", "-": "+", "*": "+/", "×": "+/", "/": "*-"}
    for i, k in _sums(trace, rng):
        tokens = trace.lines[i].sums[k].tokens
        binary = [
            t
            for t in range(1, len(tokens))
            if tokens[t].text in others
            and tokens[t].end - tokens[t].start == 1
            and (tokens[t - 1].kind == "number" or tokens[t - 1].text in ")%")
        ]
        for t in shuffled(binary, rng):
            for other in shuffled(list(others[tokens[t].text]), rng):
                run = trace.run(Edit(operator={(i, k, t): other}))
                if run and run.final != trace.nodes[trace.final].value:
                    note = f"{trace.lines[i].text[tokens[t].start]} became {other}"
                    yield _carried(trace, run, "wrong_operator", i, note)


@kind
def wrong_quantity(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A step takes another known quantity (a given, or an earlier result) than the one it needs."""
    for i, k in _sums(trace, rng):
        line, calculation = trace.lines[i], trace.lines[i].sums[k]
        present = {line.slots[s].value for s in calculation.slots}
        known = {n.value for n in trace.nodes if n.kind != "constant" and n.line < i and n.value > 1} - present
        for s in shuffled(list(calculation.slots), rng):
            for other in shuffled(sorted(known), rng):
                run = trace.run(Edit(operand={(i, s): other}))
                if run and run.final != trace.nodes[trace.final].value:
                    note = f"{write_number(other, line.slots[s].text)} used where {line.slots[s].said} is needed"
                    yield _carried(trace, run, "wrong_quantity", i, note)


@kind
def double_count(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A term of an addition is counted twice."""
    yield from _changed_terms(trace, rng, "double_count")


@kind
def missed_term(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A term of an addition of three or more is left out."""
    yield from _changed_terms(trace, rng, "missed_term")


def _changed_terms(trace: Trace, rng: random.Random, name: str) -> Iterator[Flawed]:
    for i, k in _sums(trace, rng):
        line, calculation = trace.lines[i], trace.lines[i].sums[k]
        tokens = calculation.tokens
        if len(tokens) < (3 if name == "double_count" else 5) or any(t.text != "+" for t in tokens[1::2]):
            continue
        result = line.slots[calculation.result]
        ends = [t.start for t in tokens[1::2]] + [line.text.find("=", tokens[-1].end)]  # of each term with its unit
        for n, s in shuffled(list(enumerate(calculation.slots))[1:], rng):
            term = line.slots[s]
            value = result.value + (term.value if name == "double_count" else -term.value)
            run = trace.run(Edit(forced={(i, calculation.result): value}))
            start, end = ends[n - 1], ends[n]
            if run is None or run.final == trace.nodes[trace.final].value or start < 0 or end < start:
                continue
            text, piece = run.lines[i], line.text[start:end]
            if text[start:end] != piece:  # a number before it grew or shrank
                continue
            changed = text[:end] + piece + text[end:] if name == "double_count" else text[:start] + text[end:]
            note = f"{term.said} is {'counted twice' if name == 'double_count' else 'left out'}"
            yield _carried(trace, run, name, i, note, (*run.lines[:i], changed, *run.lines[i + 1 :]))


# ------------------------------------------------------------------------------------ steps missing, moved or idle


def _same_answer(trace: Trace, name: str, lines: tuple[str, ...], line: int, note: str) -> Flawed:
    return Flawed(name, lines, line, note, trace.nodes[trace.final].value, False)


@kind
def dropped_step(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A step is missing whose result a later step uses: that number now comes from nowhere."""
    for i in shuffled(list(range(len(trace.lines) - 1)), rng):
        if any(trace.uses(node, after=i) for node in trace.results(i)) and trace.final not in trace.results(i):
            lines = trace.text.split("\n")
            missing = lines.pop(i)
            if find_equations("\n".join(lines)):
                yield _same_answer(trace, "dropped_step", tuple(lines), i, f"missing: {missing}")


@kind
def swapped_steps(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """Two steps stand in the wrong order: one uses a number that only the next derives."""
    for i in shuffled(list(range(len(trace.lines) - 1)), rng):
        used_in = [line for node in trace.results(i) for line, _ in trace.uses(node, after=i)]
        if i + 1 in used_in:
            lines = trace.text.split("\n")
            lines[i], lines[i + 1] = lines[i + 1], lines[i]
            yield _same_answer(trace, "swapped_steps", tuple(lines), i, "this step uses what only the next one derives")


@kind
def premature_stop(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """The trace ends before the question is answered."""
    for i in shuffled(list(range((len(trace.lines) + 1) // 2, len(trace.lines))), rng):
        results = [node for j in range(i) for node in trace.results(j)]
        if results and trace.final not in results:
            final = trace.nodes[results[-1]].value
            if final != trace.nodes[trace.final].value:
                missing = len(trace.lines) - i
                note = f"stops with {missing} step{'s' * (missing > 1)} to go"
                yield Flawed("premature_stop", tuple(trace.text.split("\n")[:i]), i - 1, note, final, False)


@kind
def vague_step(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A step gives its result without the calculation that yields it."""
    for i, k in _sums(trace, rng):
        if text := without_calculation(trace.lines[i].text, k):
            lines = (*trace.text.split("\n")[:i], text, *trace.text.split("\n")[i + 1 :])
            yield _same_answer(trace, "vague_step", lines, i, f"no calculation; it was: {trace.lines[i].text}")


@kind
def unsupported_assumption(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A result is assumed rather than derived, and the assumed number is not the right one."""
    hedges = ("about", "around", "probably", "maybe", "perhaps", "roughly", "likely")
    for i, k in _sums(trace, rng):
        s = trace.lines[i].sums[k].result
        slot = trace.lines[i].slots[s]
        for wrong in _slips(slot, rng):
            run = trace.run(Edit(forced={(i, s): wrong}))
            if run is None or run.final == trace.nodes[trace.final].value:
                continue
            if text := without_calculation(run.lines[i], k, rng.choice(hedges) + " "):
                note = f"{write_number(wrong, slot.text)} is assumed; the calculation gives {slot.said}"
                lines = (*run.lines[:i], text, *run.lines[i + 1 :])
                yield _carried(trace, run, "unsupported_assumption", i, note, lines)


@kind
def other_question(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """The conclusion is an intermediate quantity: it answers another question than the one asked."""
    last = max(i for i in range(len(trace.lines)) if trace.final in trace.results(i))
    for i in shuffled(list(range(last)), rng):
        text = without_calculation(trace.lines[i].text, len(trace.lines[i].sums) - 1)
        if not text:
            continue
        final = trace.nodes[trace.results(i)[-1]].value
        if final != trace.nodes[trace.final].value:
            lead = rng.choice(("So ", "Therefore, ", "Thus, ", "So, ", "Hence, "))
            lines = (*trace.text.split("\n")[:last], lead + mid_sentence(text))
            yield Flawed("other_question", lines, last, "concludes with an intermediate quantity", final, False)


@kind
def irrelevant_step(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A true calculation that nothing needs stands between the steps."""
    nouns = nouns_in(problem)
    numbers = [v for v in sorted(givens(problem)) if v.denominator == 1 and v > 1 and v in nouns]
    pairs = [(a, b) for a in numbers for b in numbers if a > b]
    combined = {frozenset(line.slots[s].value for s in c.slots) for line in trace.lines for c in line.sums}
    taken = {node.value for node in trace.nodes}
    for a, b in sorted(shuffled(pairs, rng), key=lambda p: nouns[p[0]] != nouns[p[1]]):  # like with like first
        sign, value = rng.choice((("+", a + b), ("-", a - b)))
        if frozenset((a, b)) in combined or value in taken:
            continue
        lead = rng.choice(("Then ", "Also, ", "So ", "There are ", "That is ", ""))
        text = f"{lead}{a} {nouns[a]} {sign} {b} {nouns[b]} = {value} {nouns[a] if sign == '-' else 'in total'}."
        at = rng.randrange(len(trace.lines))
        lines = trace.text.split("\n")
        lines.insert(at, text)
        yield _same_answer(trace, "irrelevant_step", tuple(lines), at, "nothing needs this step")


@kind
def wrong_entity(trace: Trace, problem: str, rng: random.Random) -> Iterator[Flawed]:
    """A right number is given to the wrong person or in the wrong unit."""
    nouns = sorted(set(nouns_in(problem).values()) | set(nouns_in(trace.text).values()))
    names = names_in(problem)
    for i in shuffled(list(range(len(trace.lines))), rng):
        text = trace.lines[i].text
        here = [name for name in names if re.search(rf"\b{name}\b", text)]
        options = [(a, b, rf"\b{a}\b") for a in here for b in names if a != b and b not in here]
        for c in trace.lines[i].sums:
            after = re.match(r"\s+([a-z]{3,})\b", text[trace.lines[i].slots[c.result].end :])
            if after and after[1] in nouns:
                place = trace.lines[i].slots[c.result].text
                options += [(after[1], b, rf"(?<={re.escape(place)} ){after[1]}\b") for b in nouns if b != after[1]]
        for wrong in shuffled(options, rng):
            changed = re.sub(wrong[2], wrong[1], text)
            if changed != text:
                lines = (*trace.text.split("\n")[:i], changed, *trace.text.split("\n")[i + 1 :])
                yield _same_answer(trace, "wrong_entity", lines, i, f"{wrong[1]} instead of {wrong[0]}")
