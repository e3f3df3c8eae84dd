"""Sound traces told otherwise: the reference of a seed with one place written another way, and nothing of it untrue.

A Reason RM that has met one sound trace a problem learns to know the reference's wording, not soundness: it then takes
`36 + 48` for a flaw where the reference says `48 + 36`. An alternative is as localized as a flaw and as sound as the
reference. Each is read again by the parser that finds miscalculations (flaws/trace.py): same results, same answer, made
of the same quantities.

Kinds are named in tracelift/rubrics.py: ALTERNATIVES. Where the words around a number could become untrue, none is made:
a sum told in two steps keeps its grouping (its first step says of what it is the total), and steps are not reordered
where one of them, or the one after, points back (`this`, `she`, `then`).

Left out on purpose: paraphrase beyond connectives, and free-text plans, of which nothing shows that they are equal.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise

from tracelift.groups.flaws.trace import Line, Sum, Trace, TraceError, parse_trace
from tracelift.groups.flaws.wording import mid_sentence, shuffled

Lines = tuple[str, ...]
Span = tuple[int, int]  # in a line
_PRODUCT = ("*", "×", "x", "X")
_OPERAND = re.compile(r"[$€£]?[0-9][0-9,]*(?:\.[0-9]+)?(?: ?[^\W\d_]+(?:/[^\W\d_]+)?){0,2}")
_POINTING = (
    "he she it they we him her them his hers its their theirs this that these those both each "
    "rest remaining remainder left other others another same"
)
_CONNECTING = (
    "so then thus therefore hence after afterwards before finally next now also and but first initially later in since "
    "because again together altogether total combined if when"
)
_POINTS = re.compile(rf"\b(?:{_POINTING.replace(' ', '|')})\b", re.IGNORECASE)
_LEANS = re.compile(rf"(?:{f'{_POINTING} {_CONNECTING}'.replace(' ', '|')})\b", re.IGNORECASE)
_CONCLUDING = ("So ", "Therefore, ", "Thus, ", "Hence, ")
_NO_CONCLUSION = re.compile(
    r"(?:if|since|because|but|however|finally|although|while|th(?:is|at) means)\b", re.IGNORECASE
)


def make(kind: str, trace: Trace, problem: str, answer: str, rng: random.Random) -> Lines | None:
    """The trace told otherwise in one place, drawn among those that the kind finds; None where there is none."""
    reference = tuple(line.text for line in trace.lines)
    dropped = {Fraction(2)} if kind == "product_as_sum" else set()
    for lines in MAKERS[kind](trace, rng):
        if lines != reference and says_the_same(trace, lines, problem, answer, dropped):
            return lines
    return None


def says_the_same(trace: Trace, lines: Lines, problem: str, answer: str, dropped: set[Fraction]) -> bool:
    """Whether `lines` parse to the same results and the same answer, made of the same quantities but for `dropped`."""
    try:
        told = parse_trace("\n".join(lines), problem, answer)
    except TraceError:
        return False
    mine, theirs = (Counter(n.value for n in t.nodes if n.kind == "result") for t in (trace, told))
    used, wanted = (_quantities(t, dropped) for t in (told, trace))
    return mine == theirs and used == wanted and told.nodes[told.final].value == trace.nodes[trace.final].value


def _quantities(trace: Trace, dropped: set[Fraction]) -> set[tuple[str, Fraction]]:
    nodes = {slot.node for line in trace.lines for slot in line.slots if slot.in_sum}
    return {(trace.nodes[n].kind, trace.nodes[n].value) for n in nodes if trace.nodes[n].value not in dropped}


def _replaced(trace: Trace, i: int, text: str) -> Lines:
    lines = [line.text for line in trace.lines]
    return (*lines[:i], text, *lines[i + 1 :])


def _calculations(trace: Trace, rng: random.Random) -> Iterator[tuple[int, Line, Sum, str, list[Span]]]:
    """(line number, line, calculation, its operator, the places of its operands with their units) in random order, of the
    calculations that have one kind of operator, + or ×, between plain numbers."""
    for i, k in shuffled([(i, k) for i, line in enumerate(trace.lines) for k in range(len(line.sums))], rng):
        line = trace.lines[i]
        calculation = line.sums[k]
        numbers, signs = calculation.tokens[::2], calculation.tokens[1::2]
        said = {line.text[t.start : t.end] for t in signs}
        if len(numbers) != len(calculation.slots) or not (said <= {"+"} or said <= set(_PRODUCT)):
            continue
        ends = [*(t.start for t in signs), line.text.find("=", numbers[-1].end)]
        places = [
            (t.start - (line.text[t.start - 1 : t.start] in tuple("$€£")), end)
            for t, end in zip(numbers, ends, strict=True)
        ]
        places = [(start, start + len(line.text[start:end].rstrip())) for start, end in places]
        if all(_OPERAND.fullmatch(line.text[start:end]) for start, end in places):
            yield i, line, calculation, "+" if "+" in said else "*", places


def _terms_exchanged(trace: Trace, rng: random.Random) -> Iterator[Lines]:
    for i, line, _, _, places in _calculations(trace, rng):
        pairs = [(a, b) for n, a in enumerate(places) for b in places[n + 1 :]]
        for (a, b), (c, d) in shuffled(pairs, rng):
            text = line.text
            yield _replaced(trace, i, text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:])


def _sum_regrouped(trace: Trace, rng: random.Random) -> Iterator[Lines]:
    for i, line, _, sign, places in _calculations(trace, rng):
        for n in shuffled(list(range(1, len(places) - 1)), rng) if sign == "+" else ():
            (start, _), (_, end) = places[n], places[n + 1]
            yield _replaced(trace, i, f"{line.text[:start]}({line.text[start:end]}){line.text[end:]}")


def _product_as_sum(trace: Trace, rng: random.Random) -> Iterator[Lines]:
    for i, line, calculation, sign, places in _calculations(trace, rng):
        if sign != "*" or len(places) != 2:
            continue
        texts = [line.text[start:end] for start, end in places]
        for two, number in ((0, 1), (1, 0)):
            derived = trace.nodes[line.slots[calculation.slots[two]].node].kind == "result"
            if texts[two] == "2" and not derived and re.fullmatch(r"[$€£]?[0-9.,]+", texts[number]):
                text = f"{line.text[: places[0][0]]}{texts[number]} + {texts[number]}{line.text[places[1][1] :]}"
                yield _replaced(trace, i, text)


def _steps_reordered(trace: Trace, rng: random.Random) -> Iterator[Lines]:
    lines = [line.text for line in trace.lines]
    places = [i for i, two in enumerate(pairwise(trace.lines[:-1])) if all(line.sums for line in two)]
    for i in shuffled(places, rng):
        needed = any(line == i + 1 for node in trace.results(i) for line, _ in trace.uses(node, after=i))
        leaning = any(_LEANS.match(text) or _POINTS.search(text) for text in lines[i : i + 2])
        if not needed and not leaning and not _POINTS.match(lines[i + 2]):
            yield (*lines[:i], lines[i + 1], lines[i], *lines[i + 2 :])


def _reworded(trace: Trace, rng: random.Random) -> Iterator[Lines]:
    text = trace.lines[-1].text
    if not _NO_CONCLUSION.match(text):
        for lead in shuffled(list(_CONCLUDING), rng):
            if not text.startswith(lead.rstrip(", ")):
                yield _replaced(trace, len(trace.lines) - 1, lead + mid_sentence(text))


MAKERS: dict[str, Callable[[Trace, random.Random], Iterator[Lines]]] = {
    "terms_exchanged": _terms_exchanged,
    "steps_reordered": _steps_reordered,
    "sum_regrouped": _sum_regrouped,
    "product_as_sum": _product_as_sum,
    "reworded": _reworded,
}
