"""What the code world's models learn from: nothing of the held-out kinds for the judge, several tellings and programs for all.

What a held-out kind looks like is decided here by reading a plan beside its problem, not by asking how it was made.
"""

import random
import re
from collections import Counter

import pytest

from tracelift.tasks.prompts import BASELINE
from tracelift.worlds.build import __main__ as recipe
from tracelift.worlds.build import code_data as data
from tracelift.worlds.build.tokenizer import train_tokenizer
from tracelift.worlds.code import FLAWS, HELD_OUT, check_plan, habits, make_problem, misconceived_plan, read_plan
from tracelift.worlds.code.flaws import SEEN
from tracelift.worlds.code.language import write_python

SERIES = recipe.SERIES["code"]


def sorts_in_vain(p, plan):
    pairs = zip(plan.steps, plan.steps[1:], strict=False)
    return any(a.op in ("sort_up", "sort_down") and b.op in ("sum", "count", "largest") for a, b in pairs)


def works_out_the_unused(p, plan):
    u = p.unused
    values = {c.name: c.value for c in plan.calculations} | {q.name: q.value for q in p.quantities[:1]}
    sums = [] if u is None else [sorted((u.offset, parent)) for parent in (u.parent_value, values.get(u.parent, 0))]
    return any(c.name == u.name and c.op == "+" and sorted((c.left, c.right)) in sums for c in plan.calculations if u)


def takes_the_other_end(p, plan):
    said, asked = (Counter(s.op for s in steps) for steps in (plan.steps, p.steps))
    swaps = (("last", "first"), ("end", "start"), ("first", "last"), ("start", "end"))
    return any(said[true] < asked[true] and said[other] > asked[other] for true, other in swaps)


def takes_less_as_more(p, plan):
    values = {c.name: c.value for c in plan.calculations} | {q.name: q.value for q in p.quantities[:1]}
    less = [q for q in p.quantities if q.offset < 0]
    return any(
        c.name == q.name and c.op == "+" and {c.left, c.right} == {values.get(q.parent), -q.offset}
        for q in less
        for c in plan.calculations
    )


LOOKS = {
    "needless_sort": sorts_in_vain,
    "irrelevant_step": works_out_the_unused,
    "end_misread": takes_the_other_end,
    "less_misread": takes_less_as_more,
}


def looks(p, text):
    plan = read_plan(text)
    return {kind for kind, look in LOOKS.items() if plan is not None and look(p, plan)}


def problem_of(group):
    _, series, index = group.problem_id.split("-")
    return make_problem(int(series), int(index))


def test_a_held_out_kind_looks_like_itself_and_a_seen_one_like_none():
    """On groups of all kinds, as the judge is evaluated with."""
    found = Counter()
    for group in data.make_groups(SERIES["dev"], 400, 20, tuple(FLAWS)):
        p = problem_of(group)
        for c in group.positive_pool:
            assert not looks(p, c.reasoning)
        for c in group.negative_bank:
            kinds = looks(p, c.reasoning)
            assert kinds == ({c.negative_kind} & set(HELD_OUT)), (c.negative_kind, p.text, c.reasoning)
            found[c.negative_kind] += 1
    assert set(LOOKS) == set(HELD_OUT) and set(found) == set(FLAWS) == {*SEEN, *HELD_OUT}
    assert min(found.values()) >= 25


def test_the_judge_learns_from_no_held_out_kind():
    """Its groups, and the plans that its proofreader tags."""
    kinds, negatives = Counter(), 0
    for group in data.make_groups(SERIES["groups"], 400):
        p = problem_of(group)
        assert len(group.positive_pool) >= 2 and len(group.negative_bank) >= 4
        kinds.update(c.negative_kind for c in group.negative_bank)
        for c in (*group.positive_pool, *group.negative_bank):
            assert not looks(p, c.reasoning)
    assert set(kinds) == set(SEEN)
    for i, row in enumerate(data.proofread_rows(400, SERIES["proofread"])):
        p = make_problem(SERIES["proofread"], i)
        for pieces in row["completions"]:
            text = "".join(t for t, *_ in pieces).removesuffix("\n</reasoning>")
            negatives += not check_plan(p, text).valid
            assert not looks(p, text), (p.text, text)
    assert negatives > 700


def test_at_least_half_of_the_habits_are_of_held_out_kinds(monkeypatch):
    """A habit is of a held-out kind where every plan that it alone makes unsound looks like that kind."""
    held_out, names = set(), tuple(habits.MISCONCEPTIONS)
    for habit in names:
        monkeypatch.setattr(habits, "MISCONCEPTIONS", {name: float(name == habit) for name in names})
        seen = Counter()
        for i in range(300):
            p = make_problem(63, i)
            text = misconceived_plan(p, random.Random(i))
            if not check_plan(p, text).valid:
                seen.update(looks(p, text) or {"seen"})
        assert seen.total() >= 20, habit
        if set(seen) <= set(HELD_OUT):
            held_out |= {(habit, kind) for kind in seen}
    assert {kind for _, kind in held_out} == set(HELD_OUT) and 2 * len(held_out) >= len(names)


def test_executor_rows_ask_for_what_the_plan_says_in_several_programs():
    """Mostly every result stated and the usual words; a fifth of the rows has no plan."""
    rows = list(data.executor_rows(2000, SERIES["executor"]))
    seen = Counter()
    for i, row in enumerate(rows):
        p = make_problem(SERIES["executor"], i)
        if row["prompt"] == BASELINE["demo-code"].format(problem=p.text):
            seen["without"] += 1
            usual, steps = p.program, p.steps
        else:
            plan = read_plan(re.search(r"Guidance: (.*)\nProgram:", row["prompt"], re.DOTALL)[1])
            usual, steps = write_python(p.start, plan.steps, plan.end), plan.steps
            seen["merged"] += bool(plan.merged)
            seen["sentences"] += len(plan.steps) + 1
            seen["reworded"] += sum(s.wording > 0 for s in plan.steps) + (plan.end_wording > 0)
            seen["sound"] += check_plan(p, str(plan)).valid
        seen["usual"] += row["completion"] == usual
        assert {str(s.k) for s in steps if s.k} <= set(re.findall(r"\d+", row["completion"]))
    assert 0.17 < seen["without"] / len(rows) < 0.23
    assert 0.02 < seen["reworded"] / seen["sentences"] < 0.08
    assert 0.15 < seen["merged"] / (len(rows) - seen["without"]) < 0.35 and 0.35 < seen["sound"] / len(rows) < 0.65
    assert 0.1 < seen["usual"] / len(rows) < 0.6


@pytest.mark.parametrize("rows", [data.base_rows, data.planner_rows])
def test_base_and_planner_learn_from_many_tellings(rows):
    texts = [row["prompt"] + row["completion"] for row in rows(600, 7)]
    merged = sum(bool(re.search(r"[a-z] = \d+ [-+*] ", text)) for text in texts)
    assert merged > 60 and sum("Output the" in text for text in texts) > 60
    assert sum(bool(re.search(r"[a-z]: \d+ ", text)) for text in texts) > 200


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(data.tokenizer_corpus(SERIES["tokenizer"]), data.VOCABULARY, data.PIECES)


def test_a_program_is_about_twenty_tokens(tokenizer):
    lengths = [len(tokenizer.encode(row["completion"]).ids) for row in data.executor_rows(300, SERIES["executor"])]
    assert 12 < sum(lengths) / len(lengths) < 22 and max(lengths) < 48


def test_a_tagged_plan_is_read_in_the_pieces_that_are_tagged(tokenizer):
    """The proofreader learns on pieces, the judge reads whole plans: both must see the same tokens."""
    ids = lambda text: tokenizer.encode(text).ids  # noqa: E731
    for row in data.proofread_rows(200, SERIES["proofread"]):
        lengths = len(ids(row["prompt"]))
        for pieces in row["completions"]:
            assert [i for piece in pieces for i in ids(piece[0])] == ids("".join(piece[0] for piece in pieces))
            lengths += sum(len(ids(piece[0])) for piece in pieces)
        assert lengths < 400, "of 512 positions"
