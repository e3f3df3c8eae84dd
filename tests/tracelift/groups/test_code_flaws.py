"""Groups of code seeds: each kind spoils what it says and nothing else, and the command builds valid files from both sources."""

import json
import random

import pytest

from tracelift.groups import read_groups
from tracelift.groups.__main__ import main
from tracelift.groups.flaws.code import (
    CODE_DIMENSIONS,
    KINDS,
    TABLE,
    holds_code,
    joined,
    make,
    rubric_of,
    steps_of,
)
from tracelift.worlds.build import code_data, math_data

PROBLEM = (
    "Given a list of integers and a limit, print the sum of the distinct values that are at most the limit. "
    "The first line holds n and the limit. The second line holds n integers. The list may be empty."
)
TRACE = """1. Read `n` and `limit`, then the list of `values`.
2. If the list is empty, print 0 and stop.
3. Put the `values` into a set so that each is counted once.
4. Keep those of the set that are at most `limit` and add them up into `total`.
5. Divide nothing; print `total` as the last line, after 2 checks."""
SOLUTION = "import sys\nn, limit = map(int, input().split())\nvalues = set(map(int, input().split()))\nprint(sum(v for v in values if v <= limit))"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_strikes_one_place_and_says_where(kind):
    steps = steps_of(TRACE)
    for seed in range(20):
        made = make(kind, steps, SOLUTION, random.Random(seed))
        assert made is not None
        after, line, note = made
        assert after != steps and note and 0 <= line < len(after)
        if len(after) == len(steps) and kind != "swapped_steps":
            assert [a == b for a, b in zip(after, steps, strict=True)].count(False) == 1 and after[line] != steps[line]
        if kind == "swapped_steps":
            assert sorted(after) == sorted(steps) and after[line] == steps[line + 1]
        if kind in ("dropped_step", "edge_case_dropped"):
            assert len(after) == len(steps) - 1
        if kind == "edge_case_dropped":
            assert "empty" not in "".join(after)
        if kind == "premature_stop":
            assert after == steps[: len(after)] and len(after) >= len(steps) // 2
        assert holds_code("\n".join(after)) == (kind == "program_leaked")


def test_what_does_not_fit_is_not_made():
    steps = steps_of("Look at the words.\nThink of them.\nSay one.")
    rng = random.Random(0)
    for kind in (
        "wrong_bound",
        "wrong_constant",
        "edge_case_dropped",
        "wrong_data_structure",
        "swapped_steps",
        "line_leaked",
        "program_leaked",
    ):
        assert make(kind, steps, "", rng) is None, kind


def test_numbers_of_steps_are_laid_out_anew():
    """Neither constants to get wrong nor a gap that tells what is missing."""
    assert steps_of("1. Read them.\n2) Add them.\n3. Print them.") == ("Read them.", "Add them.", "Print them.")
    assert joined(("Read them.", "Print them."), TRACE) == "1. Read them.\n2. Print them."
    assert joined(steps_of(TRACE), TRACE) == TRACE
    assert steps_of("Read. Add the two. Print.") == ("Read.", "Add the two.", "Print.")
    assert joined(("Read.", "Print."), "Read. Add the two. Print.") == "Read. Print."


def test_labels_cover_every_kind_and_leaks_cost_leakage_alone_where_they_should():
    assert set(TABLE) == set(KINDS)
    assert rubric_of(None).total == 1.0
    for kind in KINDS:
        rubric = rubric_of(kind)
        assert tuple(rubric.dimensions) == CODE_DIMENSIONS and rubric.total < 0.9
        assert (rubric.dimensions["non_leakage"] < 4) == kind.endswith("_leaked")
    assert (
        rubric_of("wrong_bound", "early").dimensions["step_coherence"]
        == rubric_of("wrong_bound").dimensions["step_coherence"] - 1
    )


def seeds(path, count=30):
    rows = [
        {
            "problem": f"{PROBLEM} Case {i} of {i * 37 % 101}: {'odd' if i % 2 else 'even'} {'x' * (i % 7)}.",
            "trace": TRACE,
            "solution": SOLUTION,
        }
        for i in range(count)
    ]
    rows[3] = {"problem": "No plan."}
    rows[4] = rows[5] | {"trace": "```python\nprint(1)\n```\nThat is it.\nDone."}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_builds_from_seeds_alike_in_parallel_or_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "tracelift.groups.seeds.NearDuplicates", type("None_", (), {"seen": lambda *_: None})
    )  # these seeds are alike
    path = seeds(tmp_path / "seeds.jsonl")
    for workers in ("1", "2"):
        assert (
            main(
                [
                    "build",
                    "--seeds",
                    str(path),
                    "--domain",
                    "code",
                    "--out",
                    str(tmp_path / workers),
                    "--workers",
                    workers,
                    "--quiet",
                    "--dev",
                    "0.3",
                ]
            )
            == 0
        )
    for name in ("train.jsonl", "dev.jsonl", "summary.json", "dropped.jsonl"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    summary = json.loads((tmp_path / "1" / "summary.json").read_text())
    assert summary["broken_lines"] == [{"line": 4, "reason": "trace is missing or no text"}]
    assert summary["dropped"] == {"reference holds code": 1} and len(summary["kinds"]) == len(KINDS)
    groups = read_groups(tmp_path / "1" / "train.jsonl")
    for group in groups:
        assert (
            group.task_type == "code"
            and group.problem_id.startswith("code_seeds_")
            and group.reference_solution == SOLUTION
        )
        assert all(tuple(c.rubric.dimensions) == CODE_DIMENSIONS for c in group.candidates)
        assert all(c.extra["metadata"]["flaw"]["answer_changed"] is None for c in group.negative_bank)
    assert main(["validate", str(tmp_path / "1" / "train.jsonl")]) == 0
    capsys.readouterr()
    assert main(["show", str(tmp_path / "1" / "train.jsonl"), "--no-color"]) == 0
    assert "what it does to the result is not known" in capsys.readouterr().out


@pytest.mark.parametrize("world", ["math", "code"])
def test_the_command_builds_from_the_demo_worlds(tmp_path, world):
    """Whose flaws are exact: what each does to the result is known. Without alternatives the groups are those of ever."""
    options = ["--limit", "12", "--workers", "1", "--quiet", "--dev", "0.3", "--seed", "990"]
    pools = {}
    for flag in ("--alternatives", "--no-alternatives"):
        assert main(["build", "--seeds", f"demo:{world}", "--out", str(tmp_path / flag), *options, flag]) == 0
        pools[flag] = [g for side in ("train", "dev") for g in read_groups(tmp_path / flag / f"{side}.jsonl")]
    groups, without = pools.values()
    assert len(groups) == 12 and {(g.task_type, g.source) for g in groups} == {(world, f"demo:{world}")}
    changes = {"math": "changes_answer", "code": "changes_result"}[world]
    assert {c.extra[changes] for g in groups for c in g.negative_bank} == {True, False}
    assert any(g.alternatives for g in groups)
    data = {"math": math_data, "code": code_data}[world]
    assert sorted(without, key=lambda g: g.problem_id) == sorted(
        data.make_groups(990, 12, 8), key=lambda g: g.problem_id
    )
    summary = json.loads((tmp_path / "--alternatives" / "summary.json").read_text())
    assert sum(k["count"] for k in summary["alternatives"].values()) == sum(len(g.alternatives) for g in groups)
