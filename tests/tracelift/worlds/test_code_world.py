"""The code world: problems read by an independent solver, programs run in the sandbox, flaws do what their record says."""

import random
import re
from collections import Counter

import pytest

from tracelift.programs import judge_many, leaks_program
from tracelift.programs.cases import StdinTest
from tracelift.rubrics import CODE_DIMENSIONS
from tracelift.worlds.code import (
    FLAWS,
    all_flaws,
    apply_flaw,
    check_plan,
    make_cases,
    make_problem,
    misconceived_plan,
    read_plan,
    retold,
    rubric_of,
)
from tracelift.worlds.code.cases import HIDDEN, VISIBLE, near_misses
from tracelift.worlds.code.flaws import DIMENSIONS, RUBRIC, SEEN, UNTESTED, same_results
from tracelift.worlds.code.language import (
    OPS,
    PRINTS,
    READS,
    SIBLINGS,
    Step,
    run,
    show_value,
    write_python,
)
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


def test_reference_programs_and_others_pass_their_own_tests_in_the_sandbox_and_bare_ones_fail():
    problems = PROBLEMS[:60]
    tests = [tuple(StdinTest(*case) for case in (*v, *h)) for v, h in map(make_cases, problems)]
    others = [p.plan.program(p.start, random.Random(i)) for i, p in enumerate(problems)]
    assert sum(other != p.program for other, p in zip(others, problems, strict=True)) > 30
    for programs in ([p.program for p in problems], others):
        results = judge_many(list(zip(programs, tests, strict=True)))
        assert all(r.status == "passed" for r in results), [
            text for text, r in zip(programs, results, strict=True) if not r.passed
        ]
    idle = [write_python(p.start, (), p.start) for p in problems]  # read and print
    assert not any(r.passed for r in judge_many(list(zip(idle, tests, strict=True))))


NAME = {"numbers": "a", "word": "s", "number": "n"}


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_op_means_what_each_way_to_code_it_does(name):
    """Each op on its own, in this interpreter: `meaning` and `codes` are written independently of each other."""
    rng, op = random.Random(1), OPS[name]
    for code in op.codes:
        for _ in range(40):
            k = rng.randint(op.low, op.high) if op.has_argument else 0
            value = draw_input(rng, op.takes, (k,) if k else ())
            value = value[: rng.randint(0, len(value))] if isinstance(value, list) else value
            scope = {NAME[op.takes]: list(value) if isinstance(value, list) else value}
            exec(code.format(k=k), scope)
            assert scope[NAME[op.gives]] == op.meaning(value, k), (code, value, k)
    assert len(set(op.codes)) == len(op.codes)
    assert all((OPS[o].takes, OPS[o].gives) == (op.takes, op.gives) for o in SIBLINGS[name])


def test_every_way_to_read_and_to_print_does_the_same():
    rng = random.Random(2)
    for kind in READS:
        for read, printed in ((r, w) for r in READS[kind][1] for w in PRINTS[kind][1]):
            value, out = draw_input(rng, kind), []
            scope = {
                "input": lambda v=value: show_input(v).rstrip("\n"),
                "print": lambda *a, o=out: o.extend(map(str, a)),
            }
            exec(f"{read}\n{printed}", scope)
            assert scope[NAME[kind]] == value and " ".join(out) == show_value(value)
    assert set(SIBLINGS) == set(OPS)


def test_programs_written_any_way_give_the_reference_results():
    """Whole programs, in this interpreter."""
    ways = set()
    for i, p in enumerate(PROBLEMS):
        program = p.plan.program(p.start, random.Random(i))
        ways.add(program == p.program)
        for x in inputs_of(p, 3):
            out = []
            exec(program, {"input": lambda x=x: show_input(x)[:-1], "print": lambda *a, o=out: o.extend(map(str, a))})
            assert " ".join(out) == show_value(run(p.steps, x)), program
    assert ways == {True, False}


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
    texts = [make_problem(s, i).text for s in (7, 8) for i in range(300)]
    assert len(set(texts)) > 0.97 * len(texts), "only the shortest, with one step and no constant, come up again"


def test_plans_are_valid_survive_reading_and_hold_no_code():
    for p in PROBLEMS:
        assert check_plan(p, p.trace).valid, p.trace
        plan = read_plan(p.trace)
        assert plan == p.reference and str(plan) == p.trace and plan.program(p.start) == p.program
        assert not leaks_program(p.trace, p.program)


def test_problems_differ_in_how_much_there_is_to_work_out():
    calculated = Counter(sum(q.parent is not None for q in p.quantities) for p in PROBLEMS)
    assert set(calculated) == {0, 1, 2} and min(calculated.values()) > len(PROBLEMS) / 6
    easy = [p for p in PROBLEMS if not any(q.parent for q in p.quantities)]
    assert {len(p.steps) for p in easy} == {1, 2, 3} and {len(p.steps) for p in PROBLEMS} == {1, 2, 3, 4}
    assert any(p.quantities for p in easy) and any(not p.quantities for p in easy)


def test_flaws_are_found_in_every_telling_and_their_consequences_are_as_recorded():
    """More than 5,000 of them."""
    struck, in_merged = Counter(), Counter()
    for i in range(2 * len(PROBLEMS)):
        p = PROBLEMS[i] if i < len(PROBLEMS) else make_problem(7, i)
        rng = random.Random(i)
        told = retold(p.plan, rng, merged=0.5)
        for kind in FLAWS:
            flaw = apply_flaw(p, kind, rng, told)
            if flaw is None:
                continue
            struck[kind] += 1
            in_merged[kind] += bool(told.merged)
            assert not check_plan(p, flaw.trace).valid, (p.text, flaw)
            plan = read_plan(flaw.trace)
            assert plan is not None and str(plan) == flaw.trace
            assert flaw.changes_result == (kind not in UNTESTED)
            if kind in UNTESTED:
                assert same_results(p, plan, inputs_of(p, 20, seed=i)), "what tests cannot see must stay unseen"
            assert leaks_program(flaw.trace, p.program) == (kind in ("line_leaked", "program_leaked")), flaw
    assert set(struck) == set(FLAWS) == set(in_merged) and struck.total() >= 5000
    assert min(struck.values()) >= 60 and min(in_merged.values()) >= 10, (struck, in_merged)


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
    told = str(P.plan)
    assert told == "q: 6 + 4 = 10. Keep those above q = 10. Take the sum. Print the number."
    assert check_plan(P, told).valid
    assert check_plan(P, edit(told)).fault == fault


R = PlanProblem("x", "", "number", (Step("add", 12, "q"), Step("multiply", 12, "q")), (0, 1),
                (Quantity("p", 6), Quantity("q", 12, "p", 6, 2)), Quantity("t", 8, "p", 6, 1, 2))  # fmt: skip


@pytest.mark.parametrize(
    ("problem", "text", "fault", "step"),
    [
        (P, "Keep those above q = 6 + 4. Take the sum. Print the number.", None, None),
        (P, "Keep those over q = 4 + 6. Sum them up. Output the number.", None, None),
        (P, "Keep those above q = 6 + 5. Take the sum. Print the number.", "ungrounded", 0),
        (P, "Keep those above q = 6 - 4. Take the sum. Print the number.", "ungrounded", 0),
        (P, "Keep those above q = 4 - 6. Take the sum. Print the number.", "unreadable", None),
        (P, "Keep those above t = 6 + 4. Take the sum. Print the number.", "wrong_reason", 0),
        (P, "Keep those above p = 6 + 2. Take the sum. Print the number.", "ungrounded", 0),
        (P, "Keep those above 6 + 4. Take the sum. Print the number.", "unreadable", None),
        (P, "q: 6 + 4 = 10. Keep those above q = 6 + 4. Take the sum. Print the number.", "duplicate", 1),
        (P, "Take the sum. Keep those above q = 6 + 4. Print the number.", "wrong_order", 0),
        (P, "Keep those above q = 10. Take the sum. Print the number.", "missing_calculation", 0),
        (R, "q: 6 + 6 = 12. Add q = 12. Multiply by q = 12. Print the number.", None, None),
        (R, "q: 6 * 2 = 12. Add q = 12. Multiply by q = 12. Print the number.", None, None),
        (R, "q: 2 + 2 = 4. Add q = 12. Multiply by q = 12. Print the number.", "ungrounded", 0),
        (R, "Add q = 2 * 6. Multiply by q = 12. Print the number.", "missing_calculation", 0),
        (R, "Add q = 2 * 6. Multiply by q = 2 * 6. Print the number.", "missing_calculation", 0),
        (R, "Add q = 12. Multiply by q = 2 * 6. Print the number.", "missing_calculation", 0),
    ],
)
def test_merged_calculations_have_the_faults_of_told_ones(problem, text, fault, step):
    validity = check_plan(problem, text)
    assert (validity.fault, validity.step) == (fault, step)


def test_a_flaw_that_leaves_a_sound_plan_is_none():
    """2 times 2 misread as 2 more than 2 is 2 + 2."""
    quantities = (Quantity("p", 2), Quantity("q", 4, "p", 2, 2))
    p = PlanProblem("x", "", "number", (Step("add", 4, "q"),), (0,), quantities)
    struck = {str(FLAWS["relation_misread"](p, retold(p.plan, random.Random(i)), random.Random(i))) for i in range(20)}
    assert any(check_plan(p, text).valid for text in struck)
    assert all(apply_flaw(p, "relation_misread", random.Random(i)) is None for i in range(20))


def test_misconceptions_of_both_sorts():
    wrong = hidden = 0
    for i, p in enumerate(PROBLEMS):
        trace = misconceived_plan(p, random.Random(i))
        right = same_results(p, read_plan(trace), inputs_of(p))
        wrong += not right
        hidden += right and not check_plan(p, trace).valid
    assert 0.3 < wrong / len(PROBLEMS) < 0.7 and hidden / len(PROBLEMS) > 0.2
    assert all(
        check_plan(p, misconceived_plan(p, random.Random(i), strength=0.0)).valid for i, p in enumerate(PROBLEMS)
    )


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
    assert all(len(list(all_flaws(p, random.Random(0), (), SEEN))) >= 4 for p in PROBLEMS)
