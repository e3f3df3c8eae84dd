"""The misconceptions of the demo's untrained planner: systematic, so that training has something to mend.

A habit is the planner's most likely behaviour where its probability is above one half: greedy decoding shows it every
time, while sampling still finds the right step often enough to learn from. The first four are of sort A (the answer goes
wrong), the others of sort B (the answer does not show it). Several may show in one trace. Half of them are of kinds that the
demo's Reason RM never meets (HELD_OUT of flaws.py), marked *.

Beside its habits the planner tells a step inline where it can, two times in three: sound, and less help to its executor.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tracelift.worlds.math.derivation import evaluate, join, sentence_of, tell
from tracelift.worlds.math.flaws import MISREAD, beside_the_point
from tracelift.worlds.math.problems import MathProblem
from tracelift.worlds.math.tellings import retold

MISCONCEPTIONS: dict[str, float] = {
    "fewer": 0.50,  # "5 fewer than" read as "5 more than"                                   (A)
    "daily": 0.50,  # "2 a day for 3 days" taken as 2 + 3                                     (A)
    "half": 0.50,  # "half of" taken as "2 less"                                              (A) *
    "times": 0.50,  # "3 times as many" taken as "3 more"                                     (A) *
    "packs": 0.60,  # 3 bags of 4 written as 3 + 4 = 12: right number, wrong operator         (B)
    "distractor": 0.60,  # a step about a number nobody asked for                             (B) *
    "loss": 0.55,  # a right subtraction under the wrong reason                               (B) *
    "leak": 0.20,  # the last result written out                                              (B)
}
MERGED = 0.65
_WRONG_OPERATOR = {"fewer": "+", "daily": "+", **MISREAD}


def misconceived_trace(problem: MathProblem, rng: random.Random, strength: float = 1.0, merged: float = MERGED) -> str:
    """A trace as the untrained demo planner would write it. strength scales the probability of every habit, 0 gives a sound
    trace; merged is that of telling a step inline."""
    steps = retold(problem.story, rng, merged)
    for i, step in enumerate(steps):
        kind = step.kind
        if kind in _WRONG_OPERATOR and step.op != "+" and rng.random() < MISCONCEPTIONS[kind] * strength:
            changed = (*steps[:i], replace(step, op=_WRONG_OPERATOR[kind]), *steps[i + 1 :])
            steps = changed if evaluate(changed) is not None else steps
    told = tell(steps)
    if told is None:
        raise ValueError(f"{problem.problem_id}: derivation leaves the world")
    for i, step in enumerate(steps):
        at = sentence_of(steps, i)
        sentence = told[at]
        plain = sentence.result is not None and sentence.ops == ("*",)
        if step.kind == "packs" and plain and rng.random() < MISCONCEPTIONS["packs"] * strength:
            told[at] = replace(sentence, ops=("+",))
        if step.kind == "loss" and rng.random() < MISCONCEPTIONS["loss"] * strength:
            told[at] = replace(told[at], label="More")
    if rng.random() < MISCONCEPTIONS["leak"] * strength:
        told[-1] = replace(told[-1], result=told[-1].value)
    if problem.distractor and rng.random() < MISCONCEPTIONS["distractor"] * strength:
        beside = beside_the_point(problem.distractor, told[0].numbers[0])
        told = [beside, *told] if beside else told
    return join(told)
