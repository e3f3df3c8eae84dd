"""Files of JSON: every kind of damage against every reader, a log torn at any byte, a file replaced or left."""

import errno
import gzip
import json
import os
from itertools import islice
from pathlib import Path

import pytest

from tracelift.errors import RowsError
from tracelift.files import (
    DEPTH,
    append_lines,
    as_float,
    json_line,
    parse_json,
    parse_line,
    read_json,
    read_log,
    read_rows,
    replaced_file,
    scan_rows,
    write_text,
)

GOOD = b'{"a": 1}'
BOM = b"\xef\xbb\xbf"
DEEP = b"[" * 100_000
TEXT = "\N{GRINNING FACE} ü \u2028"


def written(folder: Path, data: bytes, name: str = "x.jsonl") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# -- what users give -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"", []),
        (b"\n \r\n\n", []),
        (BOM + b"\n", []),
        (GOOD, [(1, {"a": 1})]),
        (GOOD + b"\n\n" + GOOD + b"\r\n", [(1, {"a": 1}), (3, {"a": 1})]),
        (BOM + GOOD + b"\n" + BOM + b"7\n", [(1, {"a": 1}), (2, 7)]),
        (GOOD + b"\n[1]", [(1, {"a": 1}), (2, [1])]),
        (b"[]", []),
        (BOM + b"\n [" + GOOD + b",\n" + GOOD + b"]\n", [(1, {"a": 1}), (2, {"a": 1})]),
        (json.dumps(TEXT).encode(), [(1, TEXT)]),
        (json.dumps([TEXT], ensure_ascii=False).encode(), [(1, TEXT)]),
    ],
)
def test_lines_and_lists_plain_and_gzipped(tmp_path, data, rows):
    for path in (written(tmp_path, data), written(tmp_path, gzip.compress(data, mtime=0), "x.jsonl.gz")):
        assert list(scan_rows(path)) == list(read_rows(str(path))) == rows


@pytest.mark.parametrize(
    ("line", "alone", "in_file"),
    [
        (b'{"a": ', "broken JSON at column 7: Expecting value", "2: not a JSON line: Expecting value: line 1 column 7"),
        (b'{"a": NaN}', "JSON that cannot be read: NaN is not JSON", "2: not a JSON line: NaN is not JSON"),
        (b"-Infinity", "JSON that cannot be read: -Infinity", "2: not a JSON line: -Infinity is not JSON"),
        (DEEP, "JSON that cannot be read: nested too deeply", "2: not a JSON line: nested too deeply"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7 of the line", " cannot be read as text: line 2: not UTF-8 at byte 7"),
        (b'"\\uD83D"', "text holds half of a surrogate pair", "2: text holds half of a surrogate pair"),
        (b'{"\\udE00": 1}', "text holds half of a surrogate pair", "2: text holds half of a surrogate pair"),
    ],
)
def test_a_damaged_line_is_named_and_the_others_are_kept(tmp_path, line, alone, in_file):
    with pytest.raises(RowsError) as error:
        parse_line(line)
    assert str(error.value).startswith(alone)
    path = written(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD)
    (_, first), (number, fault), (_, last) = scan_rows(path)
    assert first == last == {"a": 1} and number == 2 and isinstance(fault, RowsError) and str(fault).startswith(alone)
    rows = read_rows(path)
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(RowsError) as error:
        next(rows)
    assert str(error.value).startswith(f"{path}:{in_file}")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("cut.gz", gzip.compress(GOOD, mtime=0)[:-9], "cannot be read as text: Compressed file ended"),
        ("spoilt.gz", gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 9, "cannot be read as text: "),
        ("none.gz", GOOD, "cannot be read as text: Not a gzipped file"),
        ("cut.json", b"[1, 2", "not JSON: Expecting ',' delimiter"),
        ("more.json", b"[1]\n[2]", "not JSON: Extra data"),
        ("nan.json", b"[NaN]", "not JSON: NaN is not JSON"),
        ("deep.json", DEEP, "not JSON: nested too deeply"),
        ("latin.json", b'["\xfc"]', "cannot be read as text: 'utf-8' codec"),
    ],
)
def test_a_file_that_is_damaged_as_a_whole_is_named(tmp_path, name, data, said):
    path = written(tmp_path, data, name)
    for read in (scan_rows, read_rows):
        with pytest.raises(RowsError) as error:
            list(read(path))
        assert str(error.value).startswith(f"{path}: {said}")


def test_half_a_character_in_a_list_is_named_by_its_place(tmp_path):
    path = written(tmp_path, b'["a", "\\ud800"]')
    assert [number for number, value in scan_rows(path) if isinstance(value, RowsError)] == [2]
    with pytest.raises(RowsError, match="x.jsonl:2: text holds half"):
        list(read_rows(path))


def test_anything_lets_through_what_only_programs_read(tmp_path):
    for data in (b'["\\ud800", Infinity]', b'"\\ud800"\nInfinity\n'):
        assert list(read_rows(written(tmp_path, data), anything=True)) == [(1, "\ud800"), (2, float("inf"))]


def test_lines_are_read_as_they_are_asked_for(tmp_path):
    """A limit reads no further: behind it the file may even be damaged."""
    path = written(tmp_path, gzip.compress((GOOD + b"\n") * 500_000)[:-20], "x.jsonl.gz")
    assert len(list(islice(scan_rows(path), 5))) == 5
    with pytest.raises(FileNotFoundError):
        next(scan_rows(tmp_path / "nowhere"))


# -- logs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"", []),
        (GOOD + b"\n\n" + GOOD + b"\n", [{"a": 1}] * 2),
        (GOOD, [{"a": 1}]),
        (GOOD + b'\n{"b', [{"a": 1}]),
        (GOOD + b'\n{"\xc3', [{"a": 1}]),
        (b'{"a": Infinity}\n', [{"a": float("inf")}]),
    ],
)
def test_a_log_loses_at_most_its_torn_last_line(tmp_path, data, records):
    assert read_log(written(tmp_path, data)) == records


@pytest.mark.parametrize("line", [b"broken", b'{"a": "\xff"}', b'{"a": 1}{"a": 1}', b"{"])
def test_damage_inside_a_log_is_named(tmp_path, line):
    for end in (b"\n", b"\n" + GOOD, b"\n" + GOOD + b"\n"):
        with pytest.raises(ValueError, match=r"x.jsonl:2: not a JSON line"):
            read_log(written(tmp_path, GOOD + b"\n" + line + end))


def test_appended_lines_are_whole_whatever_byte_a_kill_came_at(tmp_path):
    """Also inside a character of several bytes."""
    path = tmp_path / "made" / "x.jsonl"
    append_lines(path, [json_line({"n": 1, "text": TEXT})])
    first = path.read_bytes()
    append_lines(path, map(json_line, [{"n": 2}, {"n": 3, "text": TEXT}]))
    whole = path.read_bytes()
    assert whole.decode().split("\n")[:2] == [f'{{"n": 1, "text": "{TEXT}"}}', '{"n": 2}']
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        kept = read_log(path)
        append_lines(path, [json_line({"n": 4})])
        assert read_log(path) == [*kept, {"n": 4}] and path.read_bytes().endswith(
            b'\n{"n": 4}\n'[end < len(first) - 1 :]
        )
    append_lines(path, [])
    assert path.read_bytes() == whole + b'{"n": 4}\n'


def test_a_log_that_cannot_be_written_says_which(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/x.jsonl: could not write the cache \(.*exists"):
        append_lines(tmp_path / "file" / "x.jsonl", ["1\n"], "the cache")


# -- whole files -----------------------------------------------------------------------------------------------------


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_write_text_replaces_or_leaves(tmp_path, monkeypatch, call):
    path = tmp_path / "made" / "x.json"
    write_text(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, no_space)
        with pytest.raises(OSError):
            write_text(path, "new, much longer")
    assert path.read_text() == "old" and os.listdir(path.parent) == ["x.json"]
    path.with_name(".x.json.saving").write_text("what a killed run left behind, longer than the new text")
    write_text(path, "new\n")
    assert path.read_bytes() == b"new\n" and os.listdir(path.parent) == ["x.json"]


def test_a_file_keeps_its_content_until_the_new_one_is_whole(tmp_path):
    path = written(tmp_path, b"old")
    with replaced_file(path) as file:
        file.write("ne")
        assert path.read_text() == "old"
        file.write("w")
    assert path.read_text() == "new"
    with pytest.raises(KeyboardInterrupt), replaced_file(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["x.jsonl"]


# -- any JSON --------------------------------------------------------------------------------------------------------


def nested(depth: int, kind: str) -> str:
    """A value of exactly that many levels."""
    opened, closed = {"list": ("[", "]"), "object": ('{"a":', "}"), "both": ('[{"a":', "}]")}[kind]
    levels = depth // 2 if kind == "both" else depth
    return opened * levels + ("[]" if kind == "list" else "1") + closed * levels


@pytest.mark.parametrize("kind", ["list", "object", "both"])
def test_nesting_is_bounded_and_brackets_are_not(kind):
    deepest = DEPTH - (kind == "list")
    parse_json(nested(deepest, kind))
    for depth in (deepest + 2, 900, 100_000):
        with pytest.raises(ValueError, match="^nested too deeply$"):
            parse_json(nested(depth, kind))
    wide = "[" + ",".join([nested(9, "list"), '"' + "[{" * 500 + '"'] * 200) + "]"
    assert len(parse_json(wide)) == 400, "many brackets, few levels"
    assert parse_json('"' + "[" * 1000 + '"') == "[" * 1000


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (-2.5, -2.5), (0, 0.0), (10**400, None), (-(10**400), None), (float("nan"), None), (float("inf"), None),
     (True, None), (False, None), ("1", None), (None, None), ([1], None), (2**70, 2.0**70)],
)  # fmt: skip
def test_a_number_is_one_that_a_float_holds(value, number):
    found = as_float(value)
    assert found == number and type(found) is type(number)


@pytest.mark.parametrize("data", [DEEP, b"", b"{", b"\xff", b"NaN", b"9" * 5000])
def test_a_file_that_holds_no_json_is_named(tmp_path, data):
    with pytest.raises(RowsError, match=r"x\.json: not JSON: ") as error:
        read_json(written(tmp_path, data, "x.json"))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert read_json(written(tmp_path, BOM + GOOD, "y.json")) == {"a": 1}


@pytest.mark.parametrize("line", [b"[1]", b"5", b'"a"', b"null", DEEP])
def test_a_log_holds_records_and_nothing_else(tmp_path, line):
    path = written(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    with pytest.raises(RowsError, match=r"x\.jsonl:2: not a"):
        read_log(path)
