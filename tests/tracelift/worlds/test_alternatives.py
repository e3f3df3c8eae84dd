"""Sound traces of the demo worlds told otherwise: true, grounded, of the same end, and in the pool only where the world agrees."""

import random
import re
from collections import Counter

import pytest

from tracelift.rubrics import ALTERNATIVES
from tracelift.worlds.build import code_data, math_data
from tracelift.worlds.code import alternatives as code_alternatives
from tracelift.worlds.code import apply_flaw as apply_plan_flaw
from tracelift.worlds.code import check_plan, read_plan, reference_plan
from tracelift.worlds.code import make_problem as code_problem
from tracelift.worlds.math import alternatives as math_alternatives
from tracelift.worlds.math import check_trace
from tracelift.worlds.math import make_problem as math_problem

SEED = 31
MATH = [math_problem(SEED, i) for i in range(400)]
CODE = [code_problem(SEED, i) for i in range(200)]
SENTENCE = re.compile(r"(\w+): (\d+) ([-+*/]) (\d+)(?: = (\d+))?\.")
COMPUTE = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": lambda a, b: a / b}


def text_of(told):
    return told.trace if hasattr(told, "trace") else str(told)


def told(module, problems):
    return [(p, kind, text_of(t)) for p in problems for kind, t in module.all_alternatives(p)]


def test_math_alternatives_are_true_and_grounded_and_lead_to_the_answer():
    """By a reader that knows neither the derivation nor the checker: every operand is of the story, a half or a result."""
    for p, kind, trace in told(math_alternatives, MATH):
        sentences = SENTENCE.findall(trace)
        assert " ".join(m[0] for m in SENTENCE.finditer(trace)) == trace
        known = {int(n) for n in re.findall(r"\d+", p.text)} | {2}
        for _, a, op, b, result in sentences[:-1]:
            assert {int(a), int(b)} <= known and COMPUTE[op](int(a), int(b)) == int(result), (kind, trace)
            known.add(int(result))
        _, a, op, b, result = sentences[-1]
        assert {int(a), int(b)} <= known and COMPUTE[op](int(a), int(b)) == p.answer and not result, (kind, trace)
        reference = SENTENCE.findall(p.trace)
        assert sorted(s[0] for s in sentences) == sorted(s[0] for s in reference), "every step keeps its reason"
        assert trace != p.trace
        if kind == "steps_reordered":
            assert sorted(sentences) == sorted(reference)
        elif kind == "terms_exchanged":
            ((before, after),) = [(a, b) for a, b in zip(reference, sentences, strict=True) if a != b]
            assert after == (before[0], before[3], before[2], before[1], before[4]) and before[2] in "+*"


def test_math_every_kind_is_found_and_the_worlds_truth_decides():
    made, sound = Counter(kind for _, kind, _ in told(math_alternatives, MATH)), Counter()
    for p in MATH:
        kept = list(math_alternatives.sound_alternatives(p))
        assert kept == [(k, t) for k, t in math_alternatives.all_alternatives(p) if check_trace(p, t.trace).valid]
        sound.update(kind for kind, _ in kept)
    assert (
        set(made) == {"terms_exchanged", "steps_reordered", "sum_regrouped", "product_as_sum"}
        and min(made.values()) >= 20
    )
    assert sound == {kind: made[kind] for kind in ("terms_exchanged", "steps_reordered")}, (
        "today the world rejects the others"
    )


def test_code_alternatives_are_true_and_follow_to_the_same_program():
    made, sound = Counter(), Counter()
    for p, kind, trace in told(code_alternatives, CODE):
        plan, reference = read_plan(trace), read_plan(p.trace)
        assert plan.program(p.start) == p.program and all(c.true for c in plan.calculations) and trace != p.trace
        changed = [(a, b) for a, b in zip(reference.calculations, plan.calculations, strict=True) if a != b]
        ((before, after),) = changed
        assert (before.name, before.value) == (after.name, after.value)
        assert {before.left, before.right} == {after.left, after.right, *([2] if kind == "product_as_sum" else [])}
        made[kind] += 1
        sound[kind] += check_plan(p, trace).valid
    for p in CODE:
        kept = list(code_alternatives.sound_alternatives(p))
        assert kept == [(k, t) for k, t in code_alternatives.all_alternatives(p) if check_plan(p, str(t)).valid]
    assert min(made.values()) >= 20 and +sound == {"terms_exchanged": made["terms_exchanged"]}


@pytest.mark.parametrize("data", [math_data, code_data], ids=["math", "code"])
def test_groups_of_the_demos(data):
    """Each alternative has the reference's rubric; what the committed models learn from has none."""
    plain = list(data.make_groups(SEED, 40))
    groups = [data.demo_group(i, SEED, 6, alternatives=True) for i in range(40)]
    assert all(
        g.positive_pool[0] == p.positive_pool[0] and len(p.positive_pool) == 1
        for g, p in zip(groups, plain, strict=True)
    )
    alternatives = [c for g in groups for c in g.alternatives]
    assert len(alternatives) > 20 and {c.positive_kind for c in alternatives} <= set(ALTERNATIVES)
    assert all(c.rubric == plain[0].positive_pool[0].rubric for c in alternatives)
    for g in groups:
        sound, flawed = [c.reasoning for c in g.positive_pool], {c.reasoning for c in g.negative_bank}
        assert len(set(sound)) == len(sound) and not flawed & set(sound)


@pytest.mark.parametrize("world", ["math", "code"])
def test_flaws_strike_every_telling_and_are_flaws_in_each(world):
    """Without this another order of terms would be a mark that nothing but sound traces carry."""
    data, problem, check = {
        "math": (math_data, math_problem, check_trace),
        "code": (code_data, code_problem, check_plan),
    }[world]
    wording, kinds = {"sound": Counter(), "flawed": Counter()}, Counter()
    for i in range(250):
        p, group = problem(SEED, i), data.demo_group(i, SEED, 20, alternatives=True)
        if not group.alternatives:
            continue
        assert all(not check(p, c.reasoning).valid for c in group.negative_bank), group.problem_id
        wording["sound"].update(c.positive_kind or "reference" for c in group.positive_pool)
        wording["flawed"].update(c.extra.get("told", "reference") for c in group.negative_bank)
        kinds.update(c.negative_kind for c in group.negative_bank if "told" in c.extra)
    shares = [{k: n / sum(of.values()) for k, n in of.items()} for of in wording.values()]
    assert shares[0].keys() == shares[1].keys() and all(abs(shares[0][k] - shares[1][k]) < 0.04 for k in shares[0])
    assert set(kinds) == set(data.FLAWS)


def test_an_exchange_stays_where_a_flaw_strikes_elsewhere():
    """Also where a flaw works the numbers out anew."""
    seen = Counter()
    for p in CODE:
        for _, plan in code_alternatives.sound_alternatives(p):
            for kind in ("slip_carried", "relation_misread", "slip_not_carried", "step_dropped"):
                flaw = apply_plan_flaw(p, kind, random.Random(f"{p.problem_id} {kind}"), plan)
                exchanged = [
                    i
                    for i, (a, b) in enumerate(zip(plan.calculations, reference_plan(p).calculations, strict=True))
                    if a != b
                ]
                if flaw is not None:
                    said = read_plan(flaw.trace).calculations[exchanged[0]]
                    told = plan.calculations[exchanged[0]]
                    if said.op == told.op and len(plan.calculations) > 1:
                        seen[kind] += 1
                        true = reference_plan(p).calculations[exchanged[0]]
                        assert said.right == true.left or said.left == told.left, (told, said)
    assert min(seen.values()) > 20 and len(seen) == 4


def test_draws_are_keyed_by_the_problem():
    again = [list(math_alternatives.all_alternatives(p)) for p in reversed(MATH[:50])]
    assert again[::-1] == [list(math_alternatives.all_alternatives(p)) for p in MATH[:50]]
    places = {
        next(i for i, (a, b) in enumerate(zip(SENTENCE.findall(p.trace), SENTENCE.findall(t), strict=True)) if a != b)
        for p, kind, t in told(math_alternatives, MATH)
        if kind == "terms_exchanged"
    }
    assert places >= {0, 1, 2}, "not always the first place that fits"
