"""HumanEval as published: canonical solutions pass 164 of 164, and a wrong one is caught exactly as often as by the
tests' own logic, run natively (program, test and call of check() in one file)."""

from __future__ import annotations

import ast
import gzip
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tracelift.programs import judge_many, load_problems
from tracelift.sandbox import Limits, SandboxError, Status, default_sandbox

FILE = Path(os.environ.get("TRACELIFT_DATA", "")) / "human_eval" / "HumanEval.jsonl.gz"
pytestmark = pytest.mark.skipif(
    not os.environ.get("TRACELIFT_DATA") or not FILE.exists(), reason="TRACELIFT_DATA has no HumanEval"
)

SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod:
    ast.FloorDiv, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq:
    ast.Eq, ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


@pytest.fixture(scope="module")
def problems():
    try:
        default_sandbox()
    except SandboxError as error:
        pytest.skip(str(error))
    return load_problems(FILE)


def read_rows():
    with gzip.open(FILE, "rt") as file:
        return [json.loads(line) for line in file]


def test_the_canonical_solutions_pass(problems):
    results = judge_many([(p.solution, p.hidden) for p in problems], limits=Limits(cpu_seconds=10, wall_seconds=60))
    assert Counter(r.status for r in results) == {"passed": 164}, [
        (p.problem_id, r.summary()) for p, r in zip(problems, results, strict=True) if not r.passed
    ]


def test_models_answer_in_several_forms(problems):
    """A continuation of the prompt, the function again in a fence, or a whole file: the same program to us."""
    rows = read_rows()
    jobs = []
    for p, row in list(zip(problems, rows, strict=True))[::8]:
        body = row["canonical_solution"]
        tree = ast.parse(p.solution)
        alone = ast.unparse(next(n for n in tree.body if getattr(n, "name", None) == p.entry_point))
        for text in (
            body,
            body + "\n\nNow we test it:\n",
            f"Here it is:\n```python\n{alone}\n```\nDone.",
            f"```python\n{p.solution}",
            alone,
        ):
            jobs.append((p.program(text), p.hidden))
    results = judge_many(jobs, limits=Limits(cpu_seconds=10, wall_seconds=60))
    assert all(r.passed for r in results), [r.summary() for r in results if not r.passed]


def mutate(source: str, entry: str, rng: random.Random) -> str | None:
    """One operator or constant of the function changed; None where it has none."""
    tree = ast.parse(source)
    function = next(n for n in tree.body if getattr(n, "name", None) == entry)
    sites = []
    for node in (n for statement in function.body[1:] for n in ast.walk(statement)):
        if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPS:
            sites.append((node, "op"))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            sites.append((node, "ops"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, (int, str)):
            sites.append((node, "value"))
    if not sites:
        return None
    node, what = rng.choice(sites)
    if what == "op":
        node.op = SWAPS[type(node.op)]()
    elif what == "ops":
        node.ops[0] = SWAPS[type(node.ops[0])]()
    else:
        v = node.value
        node.value = not v if isinstance(v, bool) else v + 1 if isinstance(v, int) else v + "x"
    return ast.unparse(tree)


def test_mutants_are_caught_as_often_as_natively(problems):
    rng, limits = random.Random(5), Limits(cpu_seconds=1.5, wall_seconds=30)
    rows = read_rows()
    mutants = [(p, row, mutate(p.solution, p.entry_point, rng)) for p, row in zip(problems, rows, strict=True)]
    mutants = [(p, row, m) for p, row, m in mutants if m is not None]
    ours = judge_many([(m, p.hidden) for p, _, m in mutants], limits=limits)
    files = [f"{m}\n{row['test']}\ncheck({p.entry_point})\n" for p, row, m in mutants]
    native = default_sandbox().run_many([(f, "") for f in files], limits)
    assert len(mutants) > 140 and all(r.status != "error" for r in ours)
    differ = [
        (p.problem_id, r.summary(), n.stderr[-200:])
        for (p, _, _), r, n in zip(mutants, ours, native, strict=True)
        if r.passed != (n.status is Status.OK)
    ]
    assert not differ
    caught = sum(not r.passed for r in ours)
    assert 0.8 < caught / len(mutants) < 1.0  # some mutants are no faults; a judge that passed all or none would show


@pytest.mark.parametrize(
    "exploit", ["", "pass", "import sys\nsys.exit(0)", "import os\nos._exit(0)", "{stub}    return ANY\n"]
)
def test_no_problem_falls_for(problems, exploit):
    always = (
        "\nclass ANY:\n    __eq__ = __lt__ = __gt__ = __le__ = lambda s, o: True\n"
        "    __abs__ = __sub__ = __rsub__ = lambda s, *o: s\n"
    )
    programs = [exploit.format(stub=p.stub).replace("ANY", "ANY()") for p in problems[::4]]
    programs = [
        (text + always if "ANY" in text else text, p.hidden) for text, p in zip(programs, problems[::4], strict=True)
    ]
    results = judge_many(programs)
    # `assert candidate(x)` holds for any object, natively too: such a test may pass, but no problem may.
    assert not any(r.passed for r in results) and all(r.status != "error" for r in results)
