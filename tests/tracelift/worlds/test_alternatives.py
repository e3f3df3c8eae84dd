"""Sound traces of the demo worlds told otherwise: true, grounded, of the same end, and in the pool only where the world agrees."""

import random
import re
from collections import Counter

import pytest

from tracelift.rubrics import ALTERNATIVES
from tracelift.worlds.build import code_data, math_data
from tracelift.worlds.code import alternatives as code_alternatives
from tracelift.worlds.code import apply_flaw as apply_plan_flaw
from tracelift.worlds.code import check_plan, read_plan
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
    return [(p, kind, text_of(t)) for p in problems for kind, t in module.sound_alternatives(p)]


@pytest.mark.parametrize("data", [math_data, code_data], ids=["math", "code"])
def test_groups_of_the_demos(data):
    """Each alternative has the reference's rubric; without alternatives the reference stands alone."""
    plain = [data.demo_group(i, SEED, 6, alternatives=False) for i in range(40)]
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
        for told, plan in code_alternatives.sound_alternatives(p):
            if told != "terms_exchanged":
                continue
            pairs = enumerate(zip(plan.calculations, p.reference.calculations, strict=True))
            (at,) = [i for i, (a, b) in pairs if a != b]
            for kind in ("slip_carried", "relation_misread", "less_misread", "slip_not_carried", "step_dropped"):
                flaw = apply_plan_flaw(p, kind, random.Random(f"{p.problem_id} {kind}"), plan)
                if flaw is None:
                    continue
                said, sound, other = read_plan(flaw.trace).calculations[at], plan.calculations[at], p.reference
                if said.op == sound.op and len(plan.calculations) > 1:
                    seen[kind] += 1
                    kept = other.calculations[at].left  # told first by the reference, so second here
                    assert said.right == kept or said.left == sound.left, (sound, said)
    assert min(seen.values()) > 10 and len(seen) == 5


def test_draws_are_keyed_by_the_problem():
    again = [list(math_alternatives.sound_alternatives(p)) for p in reversed(MATH[:50])]
    assert again[::-1] == [list(math_alternatives.sound_alternatives(p)) for p in MATH[:50]]
    places = {
        next(i for i, (a, b) in enumerate(zip(SENTENCE.findall(p.trace), SENTENCE.findall(t), strict=True)) if a != b)
        for p, kind, t in told(math_alternatives, MATH)
        if kind == "terms_exchanged"
    }
    assert places >= {0, 1, 2}, "not always the first place that fits"
