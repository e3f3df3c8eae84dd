"""One derivation, many sound tellings: all of them true, grounded and accepted; no planted flaw is, however it is told."""

import random
import re
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from tracelift.worlds.build import math_data
from tracelift.worlds.build.math_proofreading import tagged_trace
from tracelift.worlds.math import apply_flaw, check_trace, make_problem
from tracelift.worlds.math.alternatives import sound_alternatives
from tracelift.worlds.math.derivation import join, read_sentences, same_reason, tell
from tracelift.worlds.math.flaws import FLAWS, HELD_OUT, SEEN
from tracelift.worlds.math.habits import MISCONCEPTIONS, misconceived_trace
from tracelift.worlds.math.tellings import MAKERS, derivations, retold, ways
from tracelift.worlds.math.validity import final_value

SEED = 31
PROBLEMS = [make_problem(SEED, i) for i in range(600)]


def combined(p, draw):
    """A telling in which every kind may show at once."""
    return replace(p, steps=retold(p.story, random.Random(f"{p.problem_id}:{draw}"), merged=0.5, reworded=0.5))


def check_by_reading(p, trace):
    """A reader that knows neither the derivation nor the checker: every sentence is true, its numbers are of the story, a
    half or a result stated before, and the last comes to the answer."""
    known = {int(n) for n in re.findall(r"\d+", p.text)} | {2}
    told = trace.removesuffix(".").split(". ")
    for at, sentence in enumerate(told):
        expression, _, result = sentence.partition(": ")[2].partition(" = ")
        numbers = [int(n) for n in re.findall(r"\d+", expression)]
        assert set(numbers) <= known, (p.text, trace)
        value = eval(expression)
        if at == len(told) - 1:
            assert value == p.answer and not result, (p.text, trace)
        else:
            assert value == int(result), (p.text, trace)
            known.add(int(result))


def test_every_telling_is_true_grounded_and_accepted():
    seen = Counter()
    for p in PROBLEMS:
        for kind, told in [("combined", combined(p, d)) for d in range(2)] + list(sound_alternatives(p)):
            check_by_reading(p, told.trace)
            assert check_trace(p, told.trace).valid, (kind, p.trace, told.trace)
            seen[kind] += told.trace != p.trace
    assert set(seen) == {"combined", *MAKERS} and min(seen.values()) >= 40, seen


def test_references_vary_and_spell_every_result_out():
    as_told = sum(p.steps == p.story for p in PROBLEMS)
    assert 0.05 * len(PROBLEMS) < as_told < 0.5 * len(PROBLEMS)
    assert all(len(read_sentences(p.trace)) == len(p.steps) for p in PROBLEMS)


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_kind_changes_what_it_names_and_nothing_else(kind):
    for p in PROBLEMS[:300]:
        before = read_sentences(p.trace)
        for steps in ways(kind, p.steps):
            after = tell(steps)
            if kind == "steps_reordered":
                assert sorted(map(str, after)) == sorted(map(str, before)) and after != before
            elif kind == "steps_merged":
                assert len(after) == len(before) - 1 and sum(len(s.ops) for s in after) == len(p.steps)
            elif kind == "sum_regrouped":
                assert sorted(s.label for s in after) == sorted(s.label for s in before)
                assert [s.ops for s in sorted(after, key=str)].count(("+",)) >= 2
            else:
                changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
                if not changed:  # 15 + 15
                    continue
                ((a, b),) = changed
                if kind == "terms_exchanged":
                    assert (b.label, b.ops, b.result, b.numbers) == (a.label, a.ops, a.result, a.numbers[::-1])
                elif kind == "reworded":
                    assert replace(b, label=a.label) == a and same_reason(a.label, b.label)
                else:
                    assert 2 in a.numbers and a.ops == ("*",) and b.ops == ("+",) and b.result == a.result


@pytest.mark.parametrize("kind", sorted(FLAWS))
def test_no_flaw_is_accepted_however_it_is_told(kind):
    struck = 0
    for draw in range(4):
        for p in PROBLEMS[:: 1 if kind == "times_misread" else 4]:
            told = combined(p, draw)
            flaw = apply_flaw(told, kind, random.Random(f"{draw} {p.problem_id}"))
            if flaw is not None:
                struck += 1
                assert not check_trace(p, flaw.trace).valid, (told.trace, flaw)
                assert flaw.changes_answer == (final_value(flaw.trace) != p.answer)
                assert 0 <= flaw.place <= len(read_sentences(told.trace))
    assert struck >= 150, struck


def test_a_telling_of_one_problem_is_not_one_of_another():
    """The check reads the story: a checker that accepts every true trace accepts these."""
    others = [(p, q.trace) for p, q in zip(PROBLEMS, PROBLEMS[1:], strict=False) if p.answer != q.answer]
    assert not any(check_trace(p, trace).valid for p, trace in others)


def test_a_step_told_inline_counts_once():
    p = next(p for p in PROBLEMS if [s.kind for s in p.story] == ["packs", "gain", "loss"])
    (n, m), start, less = (p.story[0].left, p.story[0].right), p.story[1].left, p.story[2].right
    total = start + n * m
    merged = f"More: {start} + {n} * {m} = {total}. Left: {total} - {less}."
    assert check_trace(p, merged).valid
    assert check_trace(p, f"Bags: {n} * {m} = {n * m}. {merged}").fault == "duplicate"
    assert check_trace(p, f"Left: {start} + {n} * {m} - {less}.").fault == "unreadable", "three numbers at most"
    assert check_trace(p, f"Bags: {n} * {m} = {n * m}. Left: {start} + {n * m} - {less}.").valid
    assert check_trace(p, f"Left: {total} - {less}.").fault == "missing_step"
    assert check_trace(p, merged[:-1] + f" = {p.answer}.").fault == "answer_leaked"


def test_derivations_grow_from_the_story_alone():
    for p in PROBLEMS[:200]:
        found = derivations(p.story)
        assert found[0] == p.story and len(set(found)) == len(found) <= 32
        assert all(check_trace(p, join(tell(steps))).valid for steps in found)


def test_half_of_the_habits_are_of_kinds_that_the_reason_rm_never_meets():
    """Each habit alone, by the fault it leaves and the flaw that leaves the same trace."""
    made = defaultdict(set)
    for p in PROBLEMS[:150]:
        for habit in MISCONCEPTIONS:
            made[habit] |= kinds_of_habit(p, habit)
    assert all(made.values()), made
    held_out = [habit for habit, kinds in made.items() if kinds <= set(HELD_OUT)]
    assert sorted(held_out) == ["distractor", "half", "loss", "times"] and len(held_out) * 2 >= len(MISCONCEPTIONS)


def kinds_of_habit(p, habit):
    """The kinds of flaw that strike as a habit does, where it shows alone."""
    rng = random.Random(f"{habit}{p.problem_id}")
    only = {h: float(h == habit) for h in MISCONCEPTIONS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tracelift.worlds.math.habits.MISCONCEPTIONS", only)
        patch.setattr("tracelift.worlds.math.habits.retold", lambda *_: p.steps)
        trace = misconceived_trace(p, rng)
    kinds = set()
    for kind in FLAWS:
        for draw in range(12):
            flaw = apply_flaw(p, kind, random.Random(draw))
            if flaw is not None and flaw.trace == trace:
                kinds.add(kind)
    return kinds


def test_training_rows_hold_no_held_out_kind():
    groups = list(math_data.make_groups(SEED, 300))
    kinds = Counter(c.negative_kind for g in groups for c in g.negative_bank)
    assert set(kinds) == set(SEEN) and min(kinds.values()) > 20
    told = {c.positive_kind for g in groups for c in g.positive_pool}
    assert told == {None, *MAKERS}
    every = Counter(c.negative_kind for i in range(100) for c in math_data.demo_group(i, SEED, 20).negative_bank)
    assert set(every) == set(FLAWS)


def test_proofreading_rows_hold_no_held_out_kind():
    """Labels are of the step at hand or of one that comes later; nothing is about the distractor; no half is misread."""
    for i, p in enumerate(PROBLEMS):
        text = "".join(piece[0] for piece in tagged_trace(p, random.Random(i))[:-1])
        labels = {s.label for s in p.story}
        for sentence in re.findall(r"(\w+): ([^=.]*)", text):
            assert any(same_reason(sentence[0], label) for label in labels), text
            if same_reason(sentence[0], "Half") and sentence[1].count(" ") == 2:
                assert "/" in sentence[1], text
            if same_reason(sentence[0], "Times") and not any(
                2 in (s.left, s.right) for s in p.story if s.kind == "times"
            ):
                assert "*" in sentence[1], text
