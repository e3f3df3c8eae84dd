"""Building, deduplication, the shortcut report and the command line of TraceLift-Groups."""

import json
import os
import random
import re
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from support.group_seeds import SEEDS
from tracelift.errors import GroupError
from tracelift.groups.__main__ import main
from tracelift.groups.alternatives import MAKERS
from tracelift.groups.build import Settings, build, build_group
from tracelift.groups.dedup import NearDuplicates, words_of
from tracelift.groups.flaws.wording import statements
from tracelift.groups.seeds import Seed, read_seeds
from tracelift.groups.shortcuts import markdown, shortcut_report
from tracelift.groups.show import show_group
from tracelift.reward_model.group_format import (
    Candidate,
    Group,
    Rubric,
    read_groups,
    scan_groups,
)
from tracelift.rubrics import MATH_DIMENSIONS

FILES = ("train.jsonl", "dev.jsonl", "summary.json", "dropped.jsonl")


def write_seeds(path, seeds=SEEDS):
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in seeds), encoding="utf-8")
    return path


def bytes_of(folder):
    return [(folder / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    summary = build(write_seeds(folder / "seeds.jsonl"), folder / "out", Settings(dev=0.3), workers=1)
    return folder, summary


# ---------------------------------------------------------------------------------------------------------- building


def test_same_seed_same_bytes_in_parallel_or_not(built, tmp_path):
    folder, _ = built
    for workers in (1, 3):
        out = tmp_path / str(workers)
        build(folder / "seeds.jsonl", out, Settings(dev=0.3), workers=workers)
        assert bytes_of(out) == bytes_of(folder / "out")
        assert sorted(p.name for p in out.iterdir()) == sorted(FILES)  # nothing half-written is left
    build(folder / "seeds.jsonl", tmp_path / "other", Settings(dev=0.3, seed=19), workers=1)
    assert bytes_of(tmp_path / "other")[0] != bytes_of(folder / "out")[0]


def test_a_group_does_not_depend_on_its_neighbours(built, tmp_path):
    folder, _ = built
    build(write_seeds(tmp_path / "few.jsonl", SEEDS[:4]), tmp_path / "out", Settings(dev=0.3), workers=1)
    few = {g.problem_id: g for name in FILES[:2] for g in scan_groups(tmp_path / "out" / name)[0]}
    many = {g.problem_id: g for name in FILES[:2] for g in scan_groups(folder / "out" / name)[0]}
    assert len(few) == 4 and all(many[name] == group for name, group in few.items())


def test_groups_are_whole_and_the_summary_counts_them(built):
    folder, summary = built
    train, dev = (read_groups(folder / "out" / name) for name in FILES[:2])
    assert (len(train), len(dev)) == (summary["groups"]["train"], summary["groups"]["dev"])
    assert len(train) + len(dev) == summary["read"] == len(SEEDS)
    assert not {g.problem_id for g in train} & {g.problem_id for g in dev}
    negatives = [c for g in train + dev for c in g.negative_bank]
    assert len(negatives) == summary["negatives"] == sum(k["count"] for k in summary["kinds"].values())
    assert sum(summary["places"].values()) == len(negatives)
    for name in MATH_DIMENSIONS:
        assert sum(summary["labels_of_negatives"][name].values()) == len(negatives)
    assert summary["references"] == {"yields its answer in a step": len(SEEDS)}
    assert json.loads((folder / "out" / "summary.json").read_text()) == summary


def test_what_stands_in_a_group(built):
    folder, _ = built
    for group in read_groups(folder / "out" / "train.jsonl"):
        row = group.metadata["source_row_index"]
        question, answer = SEEDS[row]
        assert group.problem_id == f"math_gsm8k_{row:06d}" and group.problem == question
        assert group.reference_solution == group.metadata["answer"] == answer.rpartition("#### ")[2]
        reference = group.positive_pool[0].reasoning
        assert "<<" not in reference and "####" not in reference and reference.count("=") == answer.count("<<")
        quotations = statements(question)
        pool = group.positive_pool
        for n, positive in enumerate(pool[: len(pool) - len(group.alternatives)]):
            assert positive.reasoning == "\n".join((*quotations[:n], reference)) and positive.rubric.total == 1.0
        for told in group.alternatives:
            opening = told.extra["metadata"]["quotations"]
            assert told.reasoning.split("\n")[:opening] == quotations[:opening] and told.rubric == pool[0].rubric
        assert 4 <= len(group.negative_bank) <= 8
        assert len({c.reasoning for c in group.candidates}) == len(group.candidates)
        assert len({c.negative_kind for c in group.negative_bank}) == len(group.negative_bank)
        for n, negative in enumerate(group.negative_bank):
            flaw, opening = negative.extra["metadata"]["flaw"], negative.extra["metadata"]["quotations"]
            lines = negative.reasoning.split("\n")
            assert negative.extra["negative_index"] == n and negative.rubric.total < 1
            assert lines[:opening] == quotations[:opening] and opening <= flaw["line"] < len(lines)
            assert flaw["answer_changed"] == (flaw["final_answer"] != group.reference_solution)
            assert not re.search("answer is", negative.reasoning)


def test_alternatives_join_the_pool(built, tmp_path):
    folder, summary = built
    plain = build(folder / "seeds.jsonl", tmp_path, Settings(dev=0.3, alternatives=False), workers=1)
    kinds = Counter()
    for name in FILES[:2]:
        for with_them, without in zip(read_groups(folder / "out" / name), read_groups(tmp_path / name), strict=True):
            told = with_them.alternatives
            assert told and not without.alternatives
            assert (
                with_them.positive_pool[: -len(told)] == without.positive_pool and with_them.problem == without.problem
            )
            assert len({c.positive_kind for c in told}) == len(told)
            kinds.update(c.positive_kind for c in told)
    assert kinds == {kind: facts["count"] for kind, facts in summary["alternatives"].items()} and set(kinds) == set(
        MAKERS
    )
    assert all(facts["count"] + facts["no_place"] == len(SEEDS) for facts in summary["alternatives"].values())
    assert plain["alternatives"] == {}


def test_no_way_of_telling_is_a_mark_of_soundness():
    """A flaw strikes the alternatives as often as they are sound traces of a group, and says which it struck."""
    sound, flawed, texts = Counter(), Counter(), 0
    for number in range(12):
        for row, (question, answer) in enumerate(SEEDS):
            line = build_group(Seed(row, question, answer), Settings(seed=number)).line
            group = json.loads(line)
            for c in group["positive_pool"]:
                sound[c.get("positive_kind", "reference")] += 1 / len(group["positive_pool"])
            for c in group["negative_bank"]:
                told = c["metadata"]["flaw"].get("told", "reference")
                flawed[told] += 1 / len(group["negative_bank"])
                brackets = told == "sum_regrouped" and c["negative_kind"] == "slip_repaired"
                texts += brackets
                assert not brackets or re.search(r"\+ ?\(", c["reasoning"])
    assert sound.keys() == flawed.keys() and texts > 3
    for kind in sound:
        assert abs(sound[kind] - flawed[kind]) / (12 * len(SEEDS)) < 0.05, (kind, sound, flawed)


def test_alternatives_open_with_quotations_as_often_as_any_trace():
    """Or a quotation would be a mark of the reference and of flaws."""
    told, references = [], []
    for number in range(12):
        for row, (question, answer) in enumerate(SEEDS):
            pool = json.loads(build_group(Seed(row, question, answer), Settings(seed=number)).line)["positive_pool"]
            for c in pool:
                (told if "positive_kind" in c else references).append(c["metadata"]["quotations"])
    assert len(told) > 300 and abs(statistics.fmean(told) - statistics.fmean(references)) < 0.15


def test_bad_seeds_are_counted_and_the_good_ones_kept(tmp_path):
    path = write_seeds(tmp_path / "seeds.jsonl", SEEDS[:3])
    near = SEEDS[0][0].replace("48", "52"), SEEDS[0][1]
    with path.open("a", encoding="utf-8") as file:
        file.write('{"question": "x"}\n\n{"question": \n')
        file.write(json.dumps({"question": near[0], "answer": near[1]}) + "\n")  # the same story, another number
        file.write(json.dumps({"question": "Who has 3 and 4?", "answer": "3 + 4 = 7. 7 - 1 = 6"}) + "\n")
        file.write(json.dumps({"question": "Let x + 3 = 5.", "answer": "2 + 3 = 9\n9 - 3 = 6\n#### 6"}) + "\n")
    summary = build(path, tmp_path / "out", Settings(), workers=2)
    assert sum(summary["groups"].values()) == 3 and summary["read"] == 8
    listed = [json.loads(line) for line in (tmp_path / "out" / summary["dropped_seeds_file"]).read_text().splitlines()]
    assert listed == [
        {"problem_id": "math_gsm8k_000003", "reason": "broken line", "detail": "answer is missing or no text"},
        {"problem_id": "math_gsm8k_000005", "reason": "broken line", "detail": listed[1]["detail"]},
        {"problem_id": "math_gsm8k_000006", "reason": "problem seen before", "detail": "line 7 repeats line 1, similarity 1.000"},
        {"problem_id": "math_gsm8k_000007", "reason": "no #### answer line", "detail": "3 + 4 = 7. 7 - 1 = 6"},
        {"problem_id": "math_gsm8k_000008", "reason": "trace not understood: a calculation is not right", "detail": "2 + 3 = 9"},
    ]  # fmt: skip
    assert "broken JSON" in listed[1]["detail"]
    assert [b["line"] for b in summary["broken_lines"]] == [4, 6]
    assert summary["broken_lines"][0]["reason"] == "answer is missing or no text"
    assert [(r["line"], r["repeats"]) for r in summary["repeated_problems"]] == [(7, 1)]
    assert summary["dropped"] == {"no #### answer line": 1, "trace not understood: a calculation is not right": 1}


def test_every_seed_is_a_group_or_a_line_with_its_reason(tmp_path):
    """Whatever the reason, and the counts of the summary are those of the file."""
    seeds = [
        *SEEDS,
        ("x" * 2600, "1 + 1 = 2\n#### 2"),
        ("Ann has 3 and 4.", "The answer is 7: 3 + 4 = 7, 7 * 1 = 7\n#### 7"),
    ]
    summary = build(
        write_seeds(tmp_path / "seeds.jsonl", seeds),
        tmp_path / "out",
        Settings(min_negatives=8, max_trace=130),
        workers=1,
    )
    listed = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert Counter(row["reason"] for row in listed) == summary["dropped"]
    assert {"problem too long", "reference announces its answer", "trace too long", "too few negatives"} <= set(
        summary["dropped"]
    )
    built = [g.problem_id for name in FILES[:2] for g in scan_groups(tmp_path / "out" / name)[0]]
    rows = [row["problem_id"] for row in listed]
    assert sorted(built + rows) == [f"math_gsm8k_{i:06d}" for i in range(len(seeds))] and rows == sorted(rows)
    assert all(row["detail"] and len(row["detail"]) <= 200 for row in listed)


def test_results_below_zero_are_no_reason_to_drop_a_seed(built):
    folder, _ = built
    below = {i for i, (_, answer) in enumerate(SEEDS) if re.search(r"= (?:\$|-|<<[^>]*>>)*-", answer)}
    groups = [g for name in FILES[:2] for g in read_groups(folder / "out" / name)]
    assert len(below) == 2 and below <= {g.metadata["source_row_index"] for g in groups}


def test_limits(tmp_path):
    path = write_seeds(tmp_path / "seeds.jsonl")
    summary = build(path, tmp_path / "a", Settings(max_trace=150, min_negatives=2), workers=1)
    kept = [g for name in FILES[:2] for g in scan_groups(tmp_path / "a" / name, 2)[0]]
    assert summary["dropped"]["trace too long"] and kept
    assert max(len(c.reasoning) for g in kept for c in g.candidates) <= 150
    assert sum(build(path, tmp_path / "b", Settings(), workers=1, limit=3)["groups"].values()) == 3
    assert build(path, tmp_path / "c", Settings(negatives=4), workers=1)["negatives"] == 4 * len(SEEDS)
    with pytest.raises(GroupError, match="no group could be built"):
        build(path, tmp_path / "d", Settings(max_problem=10), workers=1)
    assert not list((tmp_path / "d").iterdir())


def test_seed_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text('\n{"problem": " p ", "solution": "s"}\n[]\n', encoding="utf-8")
    (first, seed), (second, reason) = read_seeds(path)
    assert (first, seed.row, seed.problem, seed.answer) == (2, 1, "p", "s") and (second, reason) == (
        3,
        "the line is no object",
    )


# ----------------------------------------------------------------------------------------------------- deduplication


def test_near_duplicates_agree_with_exact_jaccard():
    rng = random.Random(0)
    words = [f"word{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(8)]
    texts = []
    for _ in range(150):
        base = rng.choice(texts).split() if texts and rng.random() < 0.5 else rng.choices(words, k=40)
        for _ in range(rng.choice((0, 0, 1, 2, 6))):
            base[rng.randrange(len(base))] = rng.choice(words)
        texts.append(" ".join(base))

    def grams(text):
        w = words_of(text)
        return {w[i : i + 3] for i in range(len(w) - 2)}

    finder, kept = NearDuplicates(0.85), []
    found = missed = 0
    for i, text in enumerate(texts):
        best = max((len(grams(text) & g) / len(grams(text) | g) for _, g in kept), default=0.0)
        answer = finder.seen(str(i), text)
        if answer is not None:
            found += 1
            assert answer[1] >= 0.85 and best >= 0.85
        else:
            missed += best >= 0.85
            kept.append((i, grams(text)))
    assert found > 30 and missed <= 1


def test_numbers_do_not_tell_problems_apart():
    finder = NearDuplicates()
    assert finder.seen("a", SEEDS[0][0]) is None
    assert finder.seen("b", SEEDS[0][0].upper().replace("36", "37")) == ("a", 1.0)
    assert finder.seen("c", SEEDS[1][0]) is None


# ------------------------------------------------------------------------------------------------------- the report


def made_up(n, sound, flawed):
    rubric = Rubric({name: 2 for name in MATH_DIMENSIONS}, 0.5)
    rng = random.Random(n)
    return [
        Group(f"p{i}", "s", "math", "q", "1", (Candidate(sound(rng), rubric),), (Candidate(flawed(rng), rubric, "k"),))
        for i in range(n)
    ]


def text(rng, words):
    return " ".join(rng.choice(("sun", "moon", "star", "sky")) for _ in range(words))


def test_the_report_finds_a_length_shortcut_and_nothing_where_there_is_none():
    longer = made_up(300, lambda r: text(r, 12), lambda r: text(r, r.choice((9, 10, 11))))
    (row, total) = shortcut_report(longer[:200], longer[200:])
    assert row.kind == "k" and total.kind == "all kinds" and row.pairs == total.pairs == 100
    assert row.length > 0.9 and row.length_rule > 0.9
    same = made_up(600, lambda r: text(r, r.choice((9, 12))), lambda r: text(r, r.choice((9, 12))))
    (row, _) = shortcut_report(same[:400], same[400:])
    assert 0.36 < row.length < 0.64 and 0.36 < row.length_rule < 0.64 and 0.36 < row.words < 0.64


def test_the_report_finds_a_word_that_only_flawed_traces_carry():
    groups = made_up(300, lambda r: text(r, 10), lambda r: text(r, 9) + " perhaps")
    (row, _) = shortcut_report(groups[:200], groups[200:])
    assert row.words > 0.95 and "| k | 100 |" in markdown([row])
    shifted = made_up(200, lambda r: "3 + 4 = 7", lambda r: "3 + 4 = 8")
    assert shortcut_report(shifted[:100], shifted[100:])[0].words == 0.5  # digits are masked: reading them is the RM's


def test_report_needs_both_sides(built):
    with pytest.raises(ValueError, match="both sides"):
        shortcut_report([], read_groups(built[0] / "out" / "train.jsonl"))


# --------------------------------------------------------------------------------------------------- the command line


def run(*arguments):
    command = [sys.executable, "-m", "tracelift.groups", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])


def test_the_command_line_from_end_to_end(tmp_path):
    seeds = write_seeds(tmp_path / "seeds.jsonl")
    made = run("build", "--seeds", seeds, "--domain", "math", "--out", tmp_path / "out", "--dev", "0.3", "--workers", 2)
    assert made.returncode == 0, made.stderr
    counts = r"\d+ training and \d+ dev groups with \d+ flawed traces and \d+ sound ones told otherwise"
    assert re.match(counts, made.stdout) and "dropped" not in made.stdout
    checked = run("validate", tmp_path / "out" / "train.jsonl", tmp_path / "out" / "dev.jsonl")
    assert checked.returncode == 0 and "0 broken lines" in checked.stdout
    assert re.search(r"\d  sound, told otherwise: terms_exchanged", checked.stdout)
    shown = run("show", tmp_path / "out" / "train.jsonl", "--width", "120")
    assert shown.returncode == 0 and "flawed trace 0" in shown.stdout and "sound trace 0" in shown.stdout
    assert re.search(r"sound trace \d: terms_exchanged", shown.stdout)


def test_validate_names_each_broken_line_and_keeps_the_good(built, tmp_path, capsys):
    good = (built[0] / "out" / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path / "mixed.jsonl"
    path.write_text(good[0] + "{\n" + good[1] + good[0], encoding="utf-8")
    assert main(["validate", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"{path}, line 2: broken JSON" in out and "line 4: problem_id" in out and "2 good groups, 2 broken" in out
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert main(["validate", str(empty)]) == 1


def test_show_marks_the_flaw(built, capsys):
    path = built[0] / "out" / "train.jsonl"
    group = read_groups(path)[0]
    assert main(["show", str(path), "--problem", group.problem_id, "--color"]) == 0
    out = capsys.readouterr().out
    for negative in group.negative_bank:
        assert negative.negative_kind in out and negative.extra["metadata"]["flaw"]["note"].split(";")[0] in out
    assert "\033[1;31m" in out and ">" in out
    only = show_group(group, kind=group.negative_bank[0].negative_kind)
    assert only.count("flawed trace") == 1 and "\033" not in only
    assert main(["show", str(path), "--problem", "nowhere"]) == 1
    assert "holds no good group 'nowhere'" in capsys.readouterr().err


def test_dropped_seeds_are_told_by_reason_with_the_place_of_the_list(tmp_path, capsys):
    seeds = write_seeds(
        tmp_path / "seeds.jsonl", [*SEEDS[:4], SEEDS[0], ("Ann has 3 and 4.", "3 + 4 = 8\n8 - 1 = 7\n#### 7")]
    )
    options = ["--out", str(tmp_path / "o"), "--quiet", "--workers", "1", "--no-alternatives"]
    assert main(["build", "--seeds", str(seeds), *options]) == 0
    out = capsys.readouterr().out
    assert (
        "dropped 1: trace not understood: a calculation is not right" in out
        and "dropped 1: problems seen before" in out
    )
    assert f"each dropped seed with its reason: {tmp_path / 'o' / 'dropped.jsonl'}" in out
    assert "and 0 sound ones told otherwise" in out


def test_clear_errors(tmp_path, capsys):
    assert main(["build", "--seeds", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "o"), "--quiet"]) == 1
    assert "none.jsonl" in capsys.readouterr().err
    seeds = write_seeds(tmp_path / "seeds.jsonl", SEEDS[:1])
    for option, value, message in (("--dev", "1.5", "dev is 1.5"), ("--negatives", "2", "negatives is 2")):
        assert main(["build", "--seeds", str(seeds), "--out", str(tmp_path / "o"), "--quiet", option, value]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["build"])
    assert stop.value.code == 2


@pytest.mark.skipif("TRACELIFT_DATA" not in os.environ, reason="needs GSM8K: set TRACELIFT_DATA")
def test_gsm8k_builds_without_a_length_shortcut(tmp_path):
    seeds = Path(os.environ["TRACELIFT_DATA"]) / "gsm8k" / "train.jsonl"
    summary = build(seeds, tmp_path, Settings(dev=0.4), workers=2, limit=1000)
    assert sum(summary["groups"].values()) > 780 and summary["broken_lines_count"] == 0
    rows = {row.kind: row for row in shortcut_report(*(read_groups(tmp_path / name) for name in FILES[:2]))}
    assert len(rows) == 17 and max(rows["all kinds"].length, rows["all kinds"].length_rule) <= 0.65
