"""Groups of programming problems: a seed's reference plan, and the same plan with one localized flaw of fourteen kinds.

    plan        the wrong operation, a wrong constant, an unsupported assumption, a step that nothing needs
    bounds      a limit off by one, or inclusive where it is exclusive
    edge cases  the sentence that treats the empty, single, zero, negative or equal case left out
    structure   a list for a set, a queue for a stack, …
    order       two steps swapped, a step dropped, the plan cut off, a step without what it does
    leakage     a line of the solution, or all of it, in a plan that was asked for none (needs a `solution`)

A seed is a JSON line with `problem` (or `question`), `trace` (or `reasoning`, `plan`) and, where there is one, `solution`.
Plans are free text, so what a flaw does to the program is not known and not claimed (`answer_changed` is null). Seeds
`demo:code` are problems of the code world, whose flaws are exact and whose consequences are run (tracelift/worlds/code/flaws.py).

Left out: parsing of solutions, and traces written by a model (see `--generate-with`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from tracelift.groups.rubric import place_of
from tracelift.reward_model.group_format import Candidate, Rubric
from tracelift.rubrics import CODE_DIMENSIONS, MAX_LABEL

# Columns: task_understanding, plan_quality, step_coherence, action_support, non_leakage.
TABLE: dict[str, tuple[int, int, int, int, int]] = {
    "wrong_bound": (3, 2, 3, 1, 4),
    "wrong_operation": (2, 1, 3, 1, 4),
    "wrong_constant": (2, 2, 3, 1, 4),
    "edge_case_dropped": (2, 2, 3, 2, 4),
    "wrong_data_structure": (3, 1, 3, 1, 4),
    "swapped_steps": (4, 2, 1, 1, 4),
    "dropped_step": (3, 1, 1, 1, 4),
    "premature_stop": (3, 1, 3, 0, 4),
    "vague_step": (4, 2, 2, 1, 4),
    "duplicated_step": (4, 2, 1, 3, 4),
    "irrelevant_step": (3, 2, 2, 3, 4),
    "unsupported_assumption": (1, 2, 3, 1, 4),
    "line_leaked": (4, 3, 4, 4, 1),
    "program_leaked": (4, 1, 3, 3, 0),
}
_PAIRS = {
    "wrong_bound": ("less than|at most", "greater than|at least", "inclusive|exclusive", "<=|<", ">=|>", "up to and including|up to but not including",
                    "starting from 0|starting from 1", "from the first|from the second", "n - 1|n", "n-1|n"),
    "wrong_operation": ("sum|product", "add|subtract", "adding|subtracting", "increment|decrement", "increase|decrease", "maximum|minimum", "max|min",
                        "largest|smallest", "longest|shortest", "ascending|descending", "increasing|decreasing", "first|last", "even|odd",
                        "and|or", "multiply|divide", "prefix|suffix", "left|right", "before|after"),
    "wrong_data_structure": ("set|list", "dictionary|list", "hash map|list", "map|list", "stack|queue", "heap|list", "deque|stack", "tree|list",
                             "array|set", "counter|set"),
}  # fmt: skip
_EDGE = re.compile(r"\b(empty|zero|negative|single|only one|no elements|none|edge case|corner case|overflow|equal|ties?|duplicates?|"
                   r"missing|otherwise|if there (?:is|are) no)\b", re.IGNORECASE)  # fmt: skip
_VAGUE = (
    "Process the input as the problem requires.",
    "Work out the needed values from what is given.",
    "Handle the elements in a suitable way.",
)
_IRRELEVANT = (
    "Also keep a reversed copy of the input.",
    "Also count the characters of the input.",
    "Also store the time at which the program starts.",
)
_ASSUMED = ("The input is already sorted, so this order can be relied on.", "All values are different, so repetitions cannot occur.",
            "No value is negative, so signs can be ignored.", "There is always at least one valid answer, so that case needs no care.")  # fmt: skip
Steps = tuple[str, ...]
Flawed = tuple[Steps, int, str]  # steps, which is struck, the flaw in words


def steps_of(trace: str) -> Steps:
    """A plan's steps: its lines without their numbers, or the sentences of a plan of one or two lines."""
    lines = _lines(trace)
    if len(lines) > 2:
        return tuple(_NUMBER.sub("", line) for line in lines) if _numbered(lines) else tuple(lines)
    return tuple(s.strip() for line in lines for s in re.split(r"(?<=[.;!?])\s+(?=[A-Z`])", line) if s.strip())


def joined(steps: Steps, like: str) -> str:
    """Steps laid out as `like` is; numbers run on without a gap, for a gap would tell what is missing."""
    lines = _lines(like)
    if _numbered(lines):
        steps = tuple(step if "```" in step else f"{i}. {step}" for i, step in enumerate(steps, start=1))
    return ("\n" if len(lines) > 2 else " ").join(steps)


_NUMBER = re.compile(r"^\s*\d+[.)]\s+")


def _lines(trace: str) -> list[str]:
    return [line.rstrip() for line in trace.strip().split("\n") if line.strip()]


def _numbered(lines: list[str]) -> bool:
    return len(lines) > 2 and all(map(_NUMBER.match, lines))


def holds_code(trace: str) -> bool:
    """Whether a plan hands over code: a fence, or a line that is a Python statement."""
    return (
        "```" in trace
        or re.search(r"^\s*(?:def \w+\(|for \w+ in .*:$|while .*:$|if .*:$|return \S|print\()", trace, re.MULTILINE)
        is not None
    )


def make(kind: str, steps: Steps, solution: str, rng: random.Random) -> Flawed | None:
    """One flaw of a kind, at a random place where it fits; None where there is none."""
    return next(_MAKERS[kind](kind, steps, solution, rng), None)


def _places(steps: Steps, rng: random.Random) -> list[int]:
    return rng.sample(range(len(steps)), len(steps))


def _replaced(kind: str, steps: Steps, solution: str, rng: random.Random) -> Iterator[Flawed]:
    """One word for its counterpart, in one place."""
    swaps = [pair for words in _PAIRS[kind] for a, b in [words.split("|")] for pair in ((a, b), (b, a))]
    for i in _places(steps, rng):
        for old, new in rng.sample(swaps, len(swaps)):
            found = list(re.finditer(rf"(?<![\w<>=-]){re.escape(old)}(?![\w<>=])", steps[i], re.IGNORECASE))
            if found:
                match = rng.choice(found)
                word = new.capitalize() if match[0][0].isupper() else new
                text = f"{steps[i][: match.start()]}{word}{steps[i][match.end() :]}"
                yield (*steps[:i], text, *steps[i + 1 :]), i, f"{match[0]!r} became {word!r}"


def _constant(kind: str, steps: Steps, solution: str, rng: random.Random) -> Iterator[Flawed]:
    for i in _places(steps, rng):
        for match in rng.sample(found := list(re.finditer(r"(?<![\w.])\d{1,9}(?![\w.]\w)", steps[i])), len(found)):
            value = int(match[0])
            wrong = str(rng.choice([v for v in (value - 1, value + 1, value + 2, value * 10) if v >= 0 and v != value]))
            yield (
                (*steps[:i], f"{steps[i][: match.start()]}{wrong}{steps[i][match.end() :]}", *steps[i + 1 :]),
                i,
                f"{match[0]} became {wrong}",
            )


def _edge_dropped(kind: str, steps: Steps, solution: str, rng: random.Random) -> Iterator[Flawed]:
    for i in _places(steps, rng):
        sentences = re.split(r"(?<=[.;])\s+", steps[i])
        struck = [j for j, s in enumerate(sentences) if _EDGE.search(s)]
        if struck and (len(sentences) > 1 or len(steps) > 2):
            j = rng.choice(struck)
            rest = " ".join(s for k, s in enumerate(sentences) if k != j)
            kept = (*steps[:i], *([rest] if rest else []), *steps[i + 1 :])
            yield kept, min(i, len(kept) - 1), f"left out: {sentences[j][:80]}"


def _swapped(kind: str, steps: Steps, solution: str, rng: random.Random) -> Iterator[Flawed]:
    """Neighbours of which the second names something the first names: their order carries meaning."""
    for i in _places(steps[:-1], rng):
        shared = _names(steps[i]) & _names(steps[i + 1])
        if shared:
            yield (
                (*steps[:i], steps[i + 1], steps[i], *steps[i + 2 :]),
                i,
                f"steps {i + 1} and {i + 2} swapped; both are about {min(shared)!r}",
            )


def _names(step: str) -> set[str]:
    quoted = set(re.findall(r"`([^`]+)`", step))
    return quoted | {w for w in re.findall(r"[a-z_]\w{3,}", step.lower()) if w not in _COMMON}


_COMMON = frozenset("then this that with from each every into after before when while where there which will have been them they step "
                    "using also only its than until over for the and".split())  # fmt: skip


def _dropped(kind: str, steps: Steps, solution: str, rng: random.Random) -> Iterator[Flawed]:
    for i in _places(steps, rng):
        if len(steps) > 2:
            yield (*steps[:i], *steps[i + 1 :]), min(i, len(steps) - 2), f"left out: {steps[i][:80]}"


def _premature(kind: str, steps: Steps, solution: str, rng: random.Random) -> Iterator[Flawed]:
    if len(steps) > 2:
        kept = rng.randint(max(1, len(steps) // 2), len(steps) - 1)
        yield steps[:kept], kept - 1, f"ends after step {kept} of {len(steps)}"


def _inserted(texts: tuple[str, ...]) -> Callable[[str, Steps, str, random.Random], Iterator[Flawed]]:
    def maker(kind: str, steps: Steps, solution: str, rng: random.Random) -> Iterator[Flawed]:
        i, text = rng.randint(0, len(steps) - 1), rng.choice(texts)
        yield (*steps[:i], text, *steps[i:]), i, f"added: {text}"

    return maker


def _vague(kind: str, steps: Steps, solution: str, rng: random.Random) -> Iterator[Flawed]:
    i = rng.randrange(len(steps))
    yield (*steps[:i], rng.choice(_VAGUE), *steps[i + 1 :]), i, f"says nothing of: {steps[i][:80]}"


def _duplicated(kind: str, steps: Steps, solution: str, rng: random.Random) -> Iterator[Flawed]:
    i = rng.randrange(len(steps))
    yield (*steps[: i + 1], *steps[i:]), i + 1, "said twice"


def _line_leaked(kind: str, steps: Steps, solution: str, rng: random.Random) -> Iterator[Flawed]:
    lines = [
        line.strip()
        for line in solution.split("\n")
        if len(line.strip()) >= 8 and not line.lstrip().startswith(("#", "import ", "from "))
    ]
    if lines:
        yield (*steps, f"For example: `{rng.choice(lines)}`"), len(steps), "a line of the solution"


def _program_leaked(kind: str, steps: Steps, solution: str, rng: random.Random) -> Iterator[Flawed]:
    if solution.strip():
        yield (*steps, f"```python\n{solution.strip()}\n```"), len(steps), "the whole solution"


_MAKERS: dict[str, Callable[[str, Steps, str, random.Random], Iterator[Flawed]]] = {
    "wrong_bound": _replaced, "wrong_operation": _replaced, "wrong_data_structure": _replaced, "wrong_constant": _constant,
    "edge_case_dropped": _edge_dropped, "swapped_steps": _swapped, "dropped_step": _dropped, "premature_stop": _premature,
    "vague_step": _vague, "duplicated_step": _duplicated, "irrelevant_step": _inserted(_IRRELEVANT),
    "unsupported_assumption": _inserted(_ASSUMED), "line_leaked": _line_leaked, "program_leaked": _program_leaked,
}  # fmt: skip
KINDS = tuple(_MAKERS)


def rubric_of(kind: str | None, place: str = "late") -> Rubric:
    """Labels by rule: the table's row, one less in step_coherence for an early flaw; total the mean label / 4. A sound
    plan has 4 everywhere."""
    labels = (
        dict.fromkeys(CODE_DIMENSIONS, MAX_LABEL)
        if kind is None
        else dict(zip(CODE_DIMENSIONS, TABLE[kind], strict=True))
    )
    if kind is not None and place == "early":
        labels["step_coherence"] = max(0, labels["step_coherence"] - 1)
    return Rubric(labels, round(sum(labels.values()) / (MAX_LABEL * len(labels)), 3))


def quotations_of(problem: str) -> list[str]:
    """Sentences of the statement that may open any plan, sound or flawed, so that lengths say little."""
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(problem.split()))
    return [s for s in sentences if s.endswith(".") and 20 <= len(s) <= 200]


def candidate(trace: str, quotations: list[str], flaw: tuple[str, Flawed] | None) -> Candidate:
    """A sound plan (flaw None) or a flawed one, opened by some quotations."""
    kind, (steps, line, note) = flaw if flaw else (None, (steps_of(trace), 0, ""))
    reasoning = "\n".join([*quotations, joined(steps, trace)])
    if kind is None:
        return Candidate(
            reasoning, rubric_of(None), None, {"label": "positive", "metadata": {"quotations": len(quotations)}}
        )
    place = place_of(min(line, len(steps) - 1), len(steps))
    about = {"line": line + len(quotations), "place": place, "note": note, "answer_changed": None}
    extra = {"negative_index": 0, "label": "negative", "metadata": {"quotations": len(quotations), "flaw": about}}
    return Candidate(reasoning, rubric_of(kind, place), kind, extra)
