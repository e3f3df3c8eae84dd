"""Negatives that the demo planner writes: whatever is kept is wrong by the world's own account, which the filter never sees."""

from fractions import Fraction
from pathlib import Path

import pytest

from tracelift.groups import GroupError, read_groups, write_groups
from tracelift.groups.__main__ import main
from tracelift.groups.generate import answer_of, conclusion, flawed
from tracelift.worlds.build.code_data import make_groups as code_groups
from tracelift.worlds.build.math_data import make_groups
from tracelift.worlds.math.problems import make_problem
from tracelift.worlds.math.validity import check_trace

PLANNER = Path(__file__).parents[3] / "assets" / "math" / "planner"


def test_what_the_demo_planner_writes(tmp_path, capsys):
    series, count = 7_001, 24
    write_groups(tmp_path / "in.jsonl", make_groups(series, count))
    options = [
        "--generate-with",
        str(PLANNER),
        "--prompt",
        "demo",
        "--max-new-tokens",
        "96",
        "--samples",
        "4",
        "--most",
        "2",
        "--quiet",
    ]
    for name in ("a", "b"):
        assert main(["generate", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / name), *options]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert "kept: generated_" in capsys.readouterr().out
    before, after = read_groups(tmp_path / "in.jsonl"), read_groups(tmp_path / "a")
    kept = 0
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        assert (
            new.positive_pool == old.positive_pool and new.negative_bank[: len(old.negative_bank)] == old.negative_bank
        )
        added = new.negative_bank[len(old.negative_bank) :]
        assert len(added) <= 2
        for candidate in added:
            kept += 1
            validity = check_trace(make_problem(series, i), candidate.reasoning)
            assert not validity.valid, candidate.reasoning
            slip = candidate.negative_kind == "generated_slip"
            assert slip or candidate.extra["metadata"]["flaw"]["answer_changed"]
            assert 0 < candidate.rubric.total < 0.8
    assert kept > 10  # the demo's planner starts with misconceptions


@pytest.mark.parametrize(
    "trace, expected",
    [
        ("3 + 4 = 7\n7 * 2 = 14", "may be sound"),
        ("3 + 4 = 7\nThat makes 7 * 2.", "may be sound"),
        ("10 / 3 = 3.33 and 7 * 2 = 14", "may be sound"),
        ("3 + 4 = 8\n8 * 2 = 16", ("generated_slip", "early", True)),
        ("3 + 4 = 7\n7 + 0 = 7\n7 * 2 = 15, no, 7 * 2 = 14", ("generated_slip", "late", False)),
        ("3 + 4 = 7\n7 + 2 = 9", ("generated_wrong_result", "middle", True)),
        ("Think hard.", "leads to no number"),
        ("The answer is 14.", "announces the answer"),
    ],
)
def test_only_a_known_flaw_counts(trace, expected):
    made = flawed(trace, "14")
    if isinstance(expected, str):
        assert made == expected
    else:
        flaw = made.extra["metadata"]["flaw"]
        assert (made.negative_kind, flaw["place"], flaw["answer_changed"]) == expected


def test_the_conclusion_is_what_is_left_to_the_reader():
    assert conclusion("A: 2 + 3 = 5. Left: 19 - 5.") == 14
    assert conclusion("A: 2 + 3 = 5.") == 5
    assert conclusion("It costs $3.50 * 4.") == Fraction(14)
    assert conclusion("nothing") is None


def test_groups_of_plans_are_refused(tmp_path, capsys):
    (group,) = code_groups(7_002, 1)
    with pytest.raises(GroupError, match="code group"):
        answer_of(group)
    write_groups(tmp_path / "code.jsonl", [group])
    assert (
        main(
            [
                "generate",
                str(tmp_path / "code.jsonl"),
                "--generate-with",
                str(PLANNER),
                "--out",
                str(tmp_path / "x"),
                "--quiet",
            ]
        )
        == 1
    )
    assert "what is wrong with a written plan is not known" in capsys.readouterr().err and not (tmp_path / "x").exists()
