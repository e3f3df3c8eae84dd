"""The TraceLift-Groups file format: the authors' layout survives a round trip, and broken lines say what is wrong."""

import copy
import hashlib
import json

import pytest

from tracelift.groups import (
    CODE_DIMENSIONS,
    MATH_DIMENSIONS,
    Candidate,
    Group,
    GroupError,
    Rubric,
    read_groups,
    scan_groups,
    split_of,
    write_groups,
)


def rubric(names=MATH_DIMENSIONS, label=2, total=0.45):
    return {**{name: label for name in names}, "total": total}


def math_group(problem_id="math_gsm8k_000017"):
    """The keys, in the order the authors' own builder writes them."""
    negative = {
        "reasoning": "Half of 48 is 26.",
        "negative_kind": "calculation_slip",
        "negative_index": 0,
        "label": "negative",
        "rubric": rubric(),
        "rubric_label": "weak",
        "rubric_score_raw": 4.5,
        "rubric_reason": "48/2 is 24 – “not” 26",
        "raw_reason_length": 17,
        "clean_reason_length": 17,
        "metadata": {"judge_meta": {}, "source_row_index": 3, "parent_source_row_index": 17},
    }
    return {
        "problem_id": problem_id,
        "source": "gsm8k",
        "task_type": "math",
        "problem": "Natalia sold clips to 48 friends…",
        "reference_solution": "72",
        "positive_pool": [
            {
                "reasoning": "48/2 = 24\n24+48 = 72",
                "label": "positive",
                "rubric": {**{name: 4 for name in MATH_DIMENSIONS}, "total": 1.0},
                "rubric_label": "positive",
                "rubric_score_raw": 10.0,
            }
        ],
        "negative_bank": [negative | {"negative_index": i, "rubric": rubric()} for i in range(4)],
        "metadata": {"source_dataset": "gsm8k", "source_row_index": 17, "negative_count": 4},
    }


def code_group():
    """The authors' code groups have no task_type of their own, and judges may rate a total as a whole number."""
    group = math_group("code_000004")
    del group["task_type"]
    group["metadata"] = {"task_type": "competitive", "source_dataset": None}
    for candidate in group["positive_pool"] + group["negative_bank"]:
        candidate["rubric"] = rubric(CODE_DIMENSIONS, 4, 1)
    return group


def lines(*objects):
    return "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects)


def test_the_authors_files_come_out_byte_for_byte(tmp_path):
    odd = math_group("odd")
    odd = {"zeta": [1, {"b": None}], **dict(reversed(list(odd.items())))}  # unknown key, unusual order
    odd["positive_pool"][0]["rubric"] = {"total": 0.9, "note": "x", **{n: 3 for n in reversed(MATH_DIMENSIONS)}}
    odd["positive_pool"][0]["negative_kind"] = None
    text = lines(math_group(), code_group(), odd)
    source, copy_ = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    source.write_text(text, encoding="utf-8")
    groups = read_groups(source)
    assert write_groups(copy_, groups) == 3
    assert copy_.read_bytes() == source.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_fields_mean_what_they_say(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines(math_group(), code_group()), encoding="utf-8")
    math, code = read_groups(path)
    assert (math.task_type, math.type_text, code.task_type, code.type_text) == ("math", "math", "code", "competitive")
    assert math.positive_pool[0].negative_kind is None and math.positive_pool[0].rubric.total == 1.0
    negative = math.negative_bank[2]
    assert negative.negative_kind == "calculation_slip" and negative.extra["negative_index"] == 2
    assert "rubric" not in negative.extra and "negative_kind" not in negative.extra
    assert negative.rubric.dimensions == {name: 2 for name in MATH_DIMENSIONS}
    assert tuple(code.positive_pool[0].rubric.dimensions) == CODE_DIMENSIONS
    assert math.candidates[0] is math.positive_pool[0] and len(math.candidates) == 5


def test_a_finer_task_type_is_kept_and_written_back(tmp_path):
    group = math_group() | {"task_type": "grade_school"}
    path = tmp_path / "a.jsonl"
    path.write_text(lines(group), encoding="utf-8")
    (read,) = read_groups(path)
    assert (read.task_type, read.type_text) == ("math", "grade_school")
    assert read.to_line() == lines(group)


def test_groups_made_in_memory_write_every_key_and_read_back_equal(tmp_path):
    good = Candidate("2+2 = 4", Rubric({n: 4 for n in MATH_DIMENSIONS}, 1.0))
    low = Rubric({n: 1 for n in MATH_DIMENSIONS}, 0.2)
    bad = [Candidate(f"2+2 = {i}", low, "slip", {"at": i}) for i in range(5, 9)]
    group = Group("p1", "own", "math", "What is 2+2?", "4", (good,), tuple(bad), {"k": 1}, {"tests": ""})
    path = tmp_path / "g.jsonl"
    write_groups(path, [group])
    assert read_groups(path) == [group]
    wanted = ["problem_id", "source", "task_type", "problem", "reference_solution", "positive_pool", "negative_bank"]
    assert list(json.loads(path.read_text())) == wanted + ["metadata", "tests"]
    assert "negative_kind" not in json.loads(path.read_text())["positive_pool"][0]


def test_an_alternative_says_how_it_tells_the_reference_and_others_say_nothing(tmp_path):
    group = math_group()
    (reference,) = group["positive_pool"]
    group["positive_pool"].append(
        {**reference, "reasoning": "48/2 = 24\n48+24 = 72", "positive_kind": "terms_exchanged"}
    )
    group["positive_pool"].append({"positive_kind": None, **reference, "reasoning": "Quoted.\n48/2 = 24\n24+48 = 72"})
    path = tmp_path / "g.jsonl"
    path.write_text(lines(group), encoding="utf-8")
    (read,) = read_groups(path)
    assert read.to_line() == lines(group), "byte for byte, with the key and without, and where it is null"
    assert [c.positive_kind for c in read.candidates] == [None, "terms_exchanged", *[None] * 5]
    assert read.alternatives == (read.positive_pool[1],) and "positive_kind" not in read.alternatives[0].extra
    made = Candidate("a", read.positive_pool[0].rubric, positive_kind="reworded")
    assert list(made.to_json()) == ["reasoning", "positive_kind", "rubric"] and made.negative_kind is None


def broken(edit):
    group = copy.deepcopy(math_group())
    edit(group)
    return lines(group)


BROKEN = {
    "no rubric": (lambda g: g["negative_bank"][1].pop("rubric"), "negative_bank[1].rubric is missing"),
    "no dimension": (
        lambda g: g["negative_bank"][0]["rubric"].pop("answer_support"),
        "negative_bank[0].rubric lacks answer_support",
    ),
    "label 5": (
        lambda g: g["negative_bank"][3]["rubric"].update(answer_support=5),
        "negative_bank[3].rubric.answer_support is 5, expected a whole number from 0 to 4",
    ),
    "label true": (lambda g: g["positive_pool"][0]["rubric"].update(step_coherence=True), "step_coherence is True"),
    "label 2.0": (lambda g: g["positive_pool"][0]["rubric"].update(step_coherence=2.0), "step_coherence is 2.0"),
    "total 7": (lambda g: g["positive_pool"][0]["rubric"].update(total=7), "positive_pool[0].rubric.total is 7"),
    "no total": (lambda g: g["positive_pool"][0]["rubric"].pop("total"), "rubric.total is missing"),
    "three negatives": (lambda g: g["negative_bank"].pop(), "negative_bank holds 3 traces, at least 4 needed"),
    "no positives": (lambda g: g.update(positive_pool=[]), "positive_pool holds 0 traces, at least 1 needed"),
    "pool missing": (lambda g: g.pop("negative_bank"), "negative_bank is missing"),
    "pool an object": (lambda g: g.update(negative_bank={}), "negative_bank is an object, expected a list"),
    "empty trace": (lambda g: g["negative_bank"][2].update(reasoning=" \n"), "negative_bank[2].reasoning is empty"),
    "no kind": (lambda g: g["negative_bank"][2].pop("negative_kind"), "negative_bank[2].negative_kind is missing"),
    "flawed positive": (
        lambda g: g["positive_pool"][0].update(negative_kind="slip"),
        "positive_pool[0].negative_kind is 'slip'",
    ),
    "told in a number": (
        lambda g: g["positive_pool"][0].update(positive_kind=1),
        "positive_kind is a number, expected text",
    ),
    "told without a name": (
        lambda g: g["positive_pool"][0].update(positive_kind=""),
        "positive_pool[0].positive_kind is empty",
    ),
    "sound negative": (
        lambda g: g["negative_bank"][1].update(positive_kind="reworded"),
        "negative_bank[1].positive_kind is 'reworded', but a trace of the negative bank is not sound",
    ),
    "no id": (lambda g: g.pop("problem_id"), "problem_id is missing"),
    "id a number": (lambda g: g.update(problem_id=3), "problem_id is a number, expected text"),
    "metadata a list": (lambda g: g.update(metadata=[]), "metadata is a list, expected an object"),
    "code dimensions": (
        lambda g: g["negative_bank"][0].update(rubric=rubric(CODE_DIMENSIONS)),
        "negative_bank[0].rubric holds dimensions that are not those of a math group",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_named(tmp_path, name):
    edit, reason = BROKEN[name]
    path = tmp_path / "bad.jsonl"
    path.write_text(lines(math_group("first")) + "\n" + broken(edit), encoding="utf-8")
    with pytest.raises(GroupError) as error:
        read_groups(path)
    assert reason in str(error.value) and f"{path}, line 3:" in str(error.value)


def test_scanning_keeps_every_good_line(tmp_path):
    path = tmp_path / "mixed.jsonl"
    halves = '{"problem_id": "\\ud83d"}\n'
    deep = b"[" * 200_000 + b"\n"
    data = b"\xef\xbb\xbf" + lines(math_group("a")).encode() + b'{"problem_id": "b",\n' + b"\xff\xfe{}\n" + b"[1]\n"
    data += b'{"x": NaN}\n' + halves.encode() + deep + b"\n" + lines(math_group("a"), math_group("c")).encode().rstrip()
    path.write_bytes(data)
    good, bad = scan_groups(path)
    assert [g.problem_id for g in good] == ["a", "c"]
    reasons = dict(bad)
    assert list(reasons) == [2, 3, 4, 5, 6, 7, 9]
    expected = {2: "broken JSON at column", 3: "not UTF-8 at byte 0", 4: "a list, expected an object", 5: "NaN"}
    expected |= {6: "surrogate", 7: "cannot be read", 9: "'a' stands on line 1 too"}
    for line, words in expected.items():
        assert words in reasons[line], (line, reasons[line])


def test_an_empty_file_and_a_missing_one(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(GroupError, match="holds no group"):
        read_groups(tmp_path / "empty.jsonl")
    with pytest.raises(FileNotFoundError):
        read_groups(tmp_path / "none.jsonl")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "g.jsonl"
    path.write_text(lines(math_group()), encoding="utf-8")
    old = path.read_bytes()

    def failing():
        yield read_groups(path)[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_groups(path, failing())
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["g.jsonl"]


def test_split_is_a_function_of_seed_and_id_alone():
    ids = [f"p{i}" for i in range(20_000)]
    dev = {i for i in ids if split_of(18, i, 0.1) == "dev"}
    assert abs(len(dev) - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    assert {i for i in ids if split_of(18, i, 0.2) == "dev"} > dev  # growing the share moves no problem back
    assert {i for i in ids if split_of(19, i, 0.1) == "dev"} != dev
    assert split_of(0, "x", 0.0) == "train" and split_of(0, "x", 1.0) == "dev"
    # The order is that of the authors' hash: sha256 of seed, a zero byte, the id.
    rank = sorted(ids, key=lambda i: hashlib.sha256(f"18\0{i}".encode()).hexdigest())
    assert set(rank[: len(dev)]) == dev
    with pytest.raises(ValueError, match="dev_fraction"):
        split_of(0, "x", 1.5)
