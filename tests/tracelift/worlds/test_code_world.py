"""The code world: problems read by an independent solver, programs run in the sandbox, flaws do what their record says."""

import random
import re

import pytest

from tracelift.programs import judge_many, leaks_program
from tracelift.programs.cases import StdinTest
from tracelift.rubrics import CODE_DIMENSIONS
from tracelift.worlds.build.code_proofreading import tagged_plan
from tracelift.worlds.code import (
    FLAWS,
    all_flaws,
    apply_flaw,
    check_plan,
    make_cases,
    make_problem,
    misconceived_plan,
    read_plan,
    reference_plan,
    rubric_of,
)
from tracelift.worlds.code.cases import HIDDEN, VISIBLE, near_misses
from tracelift.worlds.code.flaws import DIMENSIONS, RUBRIC, UNSEEN
from tracelift.worlds.code.language import (
    OPS,
    SIBLINGS,
    Step,
    run,
    show_value,
    write_python,
)
from tracelift.worlds.code.plans import same_results
from tracelift.worlds.code.problems import PlanProblem, Quantity, draw_input, show_input

PROBLEMS = [make_problem(7, i) for i in range(400)]

# What a person would do with each sentence; knows nothing of Op, Step or Quantity.
ACTIONS = [
    (r"add (\S+) to every number", lambda v, k: [x + k for x in v]),
    (r"multiply every number by (\S+)", lambda v, k: [x * k for x in v]),
    (r"keep only the numbers above (\S+)", lambda v, k: [x for x in v if x > k]),
    (r"drop the numbers that are below (\S+)", lambda v, k: [x for x in v if not x < k]),
    (r"keep only the numbers below (\S+)", lambda v, k: [x for x in v if x < k]),
    (r"drop the numbers that are above (\S+)", lambda v, k: [x for x in v if not x > k]),
    (r"replace every number by its remainder by (\S+)", lambda v, k: [x % k for x in v]),
    (r"keep the first (\S+) numbers", lambda v, k: v[:k]),
    (r"keep the last (\S+) numbers", lambda v, k: v[max(0, len(v) - k):]),
    (r"sort the numbers, the largest first", lambda v, k: sorted(v, reverse=True)),
    (r"sort the numbers", lambda v, k: sorted(v)),
    (r"reverse the list", lambda v, k: v[::-1]),
    (r"add them all up", lambda v, k: sum(v)),
    (r"take the largest number", lambda v, k: max(v + [0])),
    (r"count them", lambda v, k: len(v)),
    (r"turn the word around", lambda v, k: v[::-1]),
    (r"leave out the vowels", lambda v, k: re.sub("[aeiou]", "", v)),
    (r"write every letter twice", lambda v, k: re.sub("(.)", r"\1\1", v)),
    (r"keep the first (\S+) letters", lambda v, k: v[:k]),
    (r"keep the last (\S+) letters", lambda v, k: v[max(0, len(v) - k):]),
    (r"write the word (\S+) times", lambda v, k: v * k),
    (r"count the letters", lambda v, k: len(v)),
    (r"count the vowels", lambda v, k: len(re.findall("[aeiou]", v))),
    (r"add (\S+) to the number", lambda v, k: v + k),
    (r"multiply the number by (\S+)", lambda v, k: v * k),
    (r"take the remainder by (\S+)", lambda v, k: v % k),
    (r"if the number is above (\S+), subtract", lambda v, k: v - k if v > k else v),
    (r"if the number is even, halve it", lambda v, k: v // 2 if v % 2 == 0 else v),
    (r"as long as the number is above (\S+), halve it", lambda v, k: next(v >> i for i in range(64) if v >> i <= k)),
    (r"double the number (\S+) times", lambda v, k: v * 2**k),
    (r"add up the digits", lambda v, k: sum(map(int, str(v)))),
]  # fmt: skip


def solve_by_reading(text: str, stdin: str) -> str:
    """Reads the story sentence by sentence."""
    facts = {m[0]: m[1] for m in re.findall(r"Here ([pqrt]) is ([^.]+)\.", text)}

    def number(word: str) -> int:
        if word.isdigit():
            return int(word)
        said = facts[word].split()
        if len(said) == 1:
            return int(said[0])
        amount, parent = int(said[0]), number(said[-1])
        return {"more": parent + amount, "less": parent - amount, "times": parent * amount}[said[1]]

    order: list[str] = []
    for lead, action in re.findall(r"(Then|But just before that,) ([^.]+)\.", text):
        order.insert(len(order) - (lead != "Then"), action)
    value = stdin.strip()
    if "list" in text.split(".")[0]:
        value = [int(x) for x in value.split()]
    elif "number" in text.split(".")[0]:
        value = int(value)
    for action in order:
        pattern, do = next((p, f) for p, f in ACTIONS if re.match(p, action))
        argument = re.match(pattern, action)
        value = do(value, number(argument[1]) if argument.groups() else 0)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def inputs_of(p, count=16, seed=0):
    rng = random.Random(seed)
    return [draw_input(rng, p.start, tuple(s.k for s in p.steps if s.k)) for _ in range(count)]


def test_tests_agree_with_an_independent_reader_of_the_statement():
    for p in PROBLEMS:
        visible, hidden = make_cases(p)
        assert (len(visible), len(hidden)) == (VISIBLE, HIDDEN)
        for stdin, expected in (*visible, *hidden):
            assert solve_by_reading(p.text, stdin) == expected.strip(), p.text


def test_reference_programs_pass_their_own_tests_in_the_sandbox_and_bare_ones_fail():
    problems = PROBLEMS[:60]
    tests = [tuple(StdinTest(*case) for case in (*v, *h)) for v, h in map(make_cases, problems)]
    results = judge_many(list(zip([p.program for p in problems], tests, strict=True)))
    assert all(r.status == "passed" for r in results), [
        p.text for p, r in zip(problems, results, strict=True) if not r.passed
    ]
    idle = [write_python(p.start, (), p.start) for p in problems]  # read and print
    assert not any(r.passed for r in judge_many(list(zip(idle, tests, strict=True))))


def test_every_op_means_what_its_python_does():
    """Each op on its own, in this interpreter: `meaning` and `code` are written independently of each other."""
    rng = random.Random(1)
    for op in OPS.values():
        name = {"numbers": "a", "word": "s", "number": "n"}
        for _ in range(40):
            k = rng.randint(op.low, op.high) if op.has_argument else 0
            value = draw_input(rng, op.takes, (k,) if k else ())
            scope = {name[op.takes]: list(value) if isinstance(value, list) else value}
            exec(op.code.format(k=k), scope)
            assert scope[name[op.gives]] == op.meaning(value, k), (op.name, value, k)
    assert set(SIBLINGS) == set(OPS)
    assert all((OPS[o].takes, OPS[o].gives) == (op.takes, op.gives) for op in OPS.values() for o in SIBLINGS[op.name])


def test_hidden_tests_catch_near_misses():
    caught = total = 0
    for p in PROBLEMS[:150]:
        _, hidden = make_cases(p)
        values = [
            x if p.start == "word" else int(x) if p.start == "number" else [int(y) for y in x.split()]
            for x in (stdin.strip() for stdin, _ in hidden)
        ]
        for other in near_misses(p.start, p.steps):
            if any(run(other, x) != run(p.steps, x) for x in inputs_of(p, 60)):  # not an equivalent program
                total += 1
                caught += any(run(other, x) != run(p.steps, x) for x in values)
    assert caught > 0.97 * total and total > 1000


def test_same_arguments_same_problem_and_series_differ():
    assert make_problem(7, 11) == PROBLEMS[11]
    assert len({make_problem(s, i).text for s in (7, 8) for i in range(300)}) > 595


def test_plans_are_valid_survive_reading_and_hold_no_code():
    for p in PROBLEMS:
        assert check_plan(p, p.trace).valid, p.trace
        plan = read_plan(p.trace)
        assert plan == reference_plan(p) and str(plan) == p.trace and plan.program(p.start) == p.program
        assert not leaks_program(p.trace, p.program)
        assert len(p.steps) in (2, 3, 4)


@pytest.mark.parametrize("kind", sorted(FLAWS))
def test_every_flaw_is_found_and_its_consequence_is_as_recorded(kind):
    struck = 0
    for i, p in enumerate(PROBLEMS):
        flaw = apply_flaw(p, kind, random.Random(i))
        if flaw is None:
            continue
        struck += 1
        assert not check_plan(p, flaw.trace).valid, (p.text, flaw)
        plan = read_plan(flaw.trace)
        assert plan is not None
        assert flaw.changes_result == (kind not in UNSEEN)
        if kind in UNSEEN:
            assert same_results(p, plan, inputs_of(p, 20, seed=i)), "what tests cannot see must stay unseen"
        assert leaks_program(flaw.trace, p.program) == (kind in ("line_leaked", "program_leaked"))
    assert struck > 80


P = PlanProblem("x", "", "numbers", (Step("above", 10, "q"), Step("sum")), (1, 0),
                (Quantity("p", 6), Quantity("q", 10, "p", 6, 1, 4)), Quantity("t", 8, "p", 6, 1, 2))  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda t: t.replace("6 + 4 = 10", "6 + 4 = 11"), "false_arithmetic"),
        (lambda t: t.replace("q:", "t:"), "wrong_reason"),
        (lambda t: t.replace("6 + 4 = 10.", "6 + 4 = 10. q: 6 + 4 = 10."), "duplicate"),
        (lambda t: t.replace("6 + 4 = 10.", "6 + 4 = 10. t: 6 + 2 = 8."), "ungrounded"),
        (lambda t: t.replace("q: 6 + 4 = 10. ", ""), "missing_calculation"),
        (lambda t: t.replace("above q = 10", "above q = 12"), "wrong_argument"),
        (lambda t: t.replace("above q = 10", "above p = 10"), "wrong_reason"),
        (lambda t: t.replace("above q = 10", "above 10"), "wrong_reason"),
        (lambda t: t.replace("above q = 10", "from q = 10 on"), "wrong_step"),
        (lambda t: t.replace("Take the sum. ", ""), "missing_step"),
        (lambda t: t.replace("Take", "Sort up. Take"), "needless_step"),
        (
            lambda t: t.replace("Keep those above q = 10. Take the sum.", "Take the sum. Keep those above q = 10."),
            "wrong_order",
        ),
        (lambda t: t.replace("Print the number.", "Print the list."), "wrong_result"),
        (lambda t: t + " Code: n = sum(a)", "code_leaked"),
        (lambda t: t + " Trust me.", "unreadable"),
        (lambda t: "", "unreadable"),
    ],
)
def test_faults_have_names(edit, fault):
    assert P.trace == "q: 6 + 4 = 10. Keep those above q = 10. Take the sum. Print the number."
    assert check_plan(P, P.trace).valid
    assert check_plan(P, P.trace.replace("6 + 4", "4 + 6")).valid
    assert check_plan(P, edit(P.trace)).fault == fault


def test_misconceptions_of_both_sorts():
    wrong = hidden = 0
    for i, p in enumerate(PROBLEMS):
        trace = misconceived_plan(p, random.Random(i))
        right = same_results(p, read_plan(trace), inputs_of(p))
        wrong += not right
        hidden += right and not check_plan(p, trace).valid
    assert 0.3 < wrong / len(PROBLEMS) < 0.7 and hidden / len(PROBLEMS) > 0.2
    assert all(misconceived_plan(p, random.Random(0), strength=0.0) == p.trace for p in PROBLEMS)


def test_rubric_table_is_complete_and_leaks_cost_where_they_should():
    assert DIMENSIONS == CODE_DIMENSIONS
    assert set(RUBRIC) == {None, *FLAWS}
    assert rubric_of(None)[1] == 1.0 and all(rubric_of(k)[1] < 1.0 for k in FLAWS)
    leaking = {k for k in FLAWS if rubric_of(k)[0]["non_leakage"] < 4}
    assert leaking == {"line_leaked", "program_leaked"}


def test_inputs_and_outputs_are_one_line_each():
    for p in PROBLEMS[:100]:
        for x in inputs_of(p, 3):
            assert show_input(x).count("\n") == 1 and "\n" not in show_value(run(p.steps, x))
    assert len(list(all_flaws(PROBLEMS[0], random.Random(0)))) >= 8


def test_proofreading_tags_agree_with_the_checker():
    """A plan whose every word is tagged + is valid, and no other is; two pieces of code that share nothing but the world."""
    clean = 0
    for i, p in enumerate(PROBLEMS):
        *pieces, (closing, verdict) = tagged_plan(p, random.Random(i))
        text, right = "".join(t for t, *_ in pieces), all(tag == " +" for _, tag, *_ in pieces)
        assert check_plan(p, text).valid == right == (verdict == " +"), (p.text, pieces)
        assert closing == "\n</reasoning>"
        clean += right
    assert len(PROBLEMS) / 10 < clean < len(PROBLEMS) / 2


def test_proofreading_says_what_is_meant():
    """Up to the first wrong word, what is meant spells the reference plan; the word meant there continues it."""
    for i, p in enumerate(PROBLEMS):
        *pieces, _ = tagged_plan(p, random.Random(i))
        spelled = ""
        for text, tag, *meant in pieces:
            assert tag == " -" or meant
            if meant:
                assert p.trace.startswith(spelled + meant[0]), (p.trace, pieces)
            if tag == " -":
                assert not p.trace.startswith(spelled + text + ("." if text[-1].isdigit() else "")), (p.trace, pieces)
                break
            assert text == meant[0]
            spelled += text
        else:
            assert spelled == p.trace
