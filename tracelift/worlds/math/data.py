"""Training data of the math demo's models: what each stage of tracelift/worlds/build.py learns from.

An executor answers what the trace's last step says, also where a flaw of sort A led it astray: it follows guidance, it
does not audit it. With nothing to follow it must work the problem out in one forward pass, which it cannot.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tracelift.groups.format import Group
from tracelift.prompts import BASELINE, EXECUTOR
from tracelift.reason_rm import rm_text
from tracelift.worlds.math import MathProblem, apply_flaw, make_problem, misconceived_trace, rubric_of
from tracelift.worlds.math.flaws import FLAWS, LABELS, all_flaws, slipped
from tracelift.worlds.math.problems import compute, resolve
from tracelift.worlds.math.validity import final_value
from tracelift.worlds.rows import Row, flawed, planner_row, sound
from tracelift.worlds.tokenizer import WORDS

PIECES, VOCABULARY = WORDS, 512
SERIES = {"base": 101, "planner": 102, "executor": 103, "groups": 104, "tokenizer": 105, "dev": 106, "proofread": 107}  # problem seeds


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
    """Traces in which every word and digit is tagged: + where it is what the story and the steps so far call for, else -.

    What the Reason RM is fine-tuned from. One verdict on a whole trace says too little about which digit was wrong (with
    it alone slips and miscopied numbers stayed at chance after 2,000 rounds), and so did one mark a sentence.
    """
    frame = "</problem>\n<reasoning>\n"
    for i in range(count):
        p, rng = make_problem(SERIES["proofread"], i), random.Random(f"proofread:{i}")
        prompt, _ = rm_text("math", p.text, "", "math").split(frame)
        pieces = None
        while pieces is None:  # a corruption that leaves the world's numbers is drawn again
            pieces = _corrupted(p, rng)
        yield {"prompt": prompt + frame, "completion": pieces}


def _corrupted(p: MathProblem, rng: random.Random) -> list[tuple[str, str]] | None:
    """(text, tag) pieces of a trace where each sentence may be wrong on its own; None where a value leaves the world.

    Later sentences go on from what earlier ones state, so a slip that is carried through is tagged once.
    """
    pieces: list[tuple[str, str]] = []
    stated: list[int] = []
    last = len(p.steps) - 1
    for j, step in enumerate(p.steps):
        true = [resolve(step.left, stated), resolve(step.right, stated)]
        label, op, operands, what = step.label, step.op, list(true), rng.random()
        if what < 0.14:
            side = rng.randrange(2)
            operands[side] = slipped(rng, operands[side])
        elif what < 0.21:
            label = rng.choice([x for x in LABELS if x != label])
        elif what < 0.28:
            op = rng.choice([o for o in "+-*" if o != op])
        value = compute(operands[0], op, operands[1])
        if value is None or value == 0:
            return None
        claimed = slipped(rng, value) if j < last and rng.random() < 0.25 else value
        stated.append(claimed)
        pieces += [(" " * (j > 0) + label + ":", _tag(label == step.label)), *_digits(operands[0], true[0]),
                   (f" {op}", _tag(op == step.op)), *_digits(operands[1], true[1])]  # fmt: skip
        if j < last:
            pieces += [(" =", _tag(True)), *_digits(claimed, value)]
        elif rng.random() < 0.15:  # the last result is the executor's to give
            pieces += [(" =", _tag(False)), *[(text, _tag(False)) for text, _ in _digits(value, value)]]
        pieces.append((".", _tag(True)))
    return pieces


def _tag(right: bool) -> str:
    return " +" if right else " -"


def _digits(written: int, true: int) -> list[tuple[str, str]]:
    """A number digit by digit, each tagged by whether it stands in the true number at its place."""
    a, b = str(written), str(true)
    return [(" " * (k == 0) + digit, _tag(len(a) == len(b) and digit == b[k])) for k, digit in enumerate(a)]


def make_group(p: MathProblem, rng: random.Random, negatives: int) -> Group:
    """One flaw of each of `negatives` kinds, drawn per group so that over many groups every kind is as frequent as it fits."""
    return Group(problem_id=p.problem_id, source="demo:math", task_type="math", problem=p.text, reference_solution=p.trace,
                 positive_pool=sound(p.trace, rubric_of),
                 negative_bank=flawed(all_flaws(p, rng), rubric_of, negatives, "place", "changes_answer"),
                 metadata={"answer": p.answer})  # fmt: skip


def make_groups(series: int, count: int, negatives: int = 6) -> Iterator[Group]:
    for i in range(count):
        yield make_group(make_problem(series, i), random.Random(f"groups:{series}:{i}"), negatives)


def tokenizer_corpus() -> Iterator[str]:
    for i in range(4000):
        p, rng = make_problem(SERIES["tokenizer"], i), random.Random(i)
        trace = misconceived_trace(p, rng)
        yield EXECUTOR["demo"].format(problem=p.text, trace=trace) + f" {p.answer}"
        yield rm_text("math", p.text, trace).replace("<", " ").replace(">", " ")
