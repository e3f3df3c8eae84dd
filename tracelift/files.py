"""JSON and its files: values and rows read strictly, logs that a kill may tear, files replaced in one step.

    parse_json, read_json       a text or a whole file, of whatever origin: every JSON that is read is read here
    scan_rows, read_rows        what users give: JSON lines or one JSON list, plain or gzipped, with a byte-order mark or not
    read_log, append_lines      what grows line by line, and whose last line may be torn
    replaced_file, write_text   what is whole or not there

Whatever may be wrong with such a file ends in one sentence. Left out: what a row must hold (its readers), replacing
folders (models/atomic.py), locking.
"""

from __future__ import annotations

import codecs
import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tracelift.errors import RowsError

AnyPath = str | os.PathLike[str]
_HALF = "text holds half of a surrogate pair, which is no character"
DEPTH = (
    200  # of nesting: no file of a sane origin comes near it, and what walks a value by recursion has the stack for it
)


def parse_json(data: str | bytes, anything: bool = False) -> Any:
    """The JSON value of a text. Raises ValueError in one line (json.JSONDecodeError, UnicodeDecodeError) where it is none,
    is nested deeper than DEPTH, or holds a number of thousands of digits.

    anything: NaN and Infinity are let through.
    """
    text = data.decode("utf-8-sig") if isinstance(data, bytes) else data  # -sig: some editors begin with a BOM
    try:
        value = json.loads(text, parse_constant=None if anything else _refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("[") + text.count("{") > DEPTH and _is_deep(value):
        raise ValueError("nested too deeply")
    return value


def read_json(path: AnyPath) -> Any:
    """A whole file's JSON value. Raises RowsError naming the file where it holds none, OSError as `open` does."""
    try:
        return parse_json(Path(path).read_bytes())
    except ValueError as e:
        raise RowsError(f"{path}: not JSON: {e}") from None


def as_float(value: Any) -> float | None:
    """A JSON number as a float; None for all else, true and false among it, and for what no float holds: 10**400, NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH):
        inner = (x for outer in level for x in (outer.values() if isinstance(outer, dict) else outer))
        level = [x for x in inner if isinstance(x, (dict, list))]
    return bool(level)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def scan_rows(path: AnyPath, anything: bool = False) -> Iterator[tuple[int, Any]]:
    """(line, or place in a list, from 1; its JSON value, or a RowsError that says what is wrong with it), one at a time.

    Blank lines are passed over. anything: NaN, Infinity and halves of surrogate pairs are let through. Raises RowsError
    naming a file that is damaged as a whole, a list included; FileNotFoundError as `open` does.
    """
    path, first = Path(path), True
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                text = raw.removeprefix(codecs.BOM_UTF8).lstrip()
                if first and text.startswith(b"["):
                    yield from _list(path, raw + file.read(), anything)
                elif text:
                    yield number, _row(raw.rstrip(b"\r\n"), anything)  # or an error at its end is said of line 2
                first = first and not text
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise RowsError(f"{path}: cannot be read as text: {e}") from None


def read_rows(path: AnyPath, anything: bool = False) -> Iterator[tuple[int, Any]]:
    """As `scan_rows`, but raises RowsError, naming the file and the row, at the first row that is none."""
    yield from raised(path, scan_rows(path, anything))


def raised(path: AnyPath, rows: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """`rows` of a file; raises RowsError, naming the file and the row, at the first that is an error."""
    for number, value in rows:
        if isinstance(value, RowsError):
            cause = value.__cause__
            if isinstance(cause, UnicodeDecodeError):
                raise RowsError(f"{path}: cannot be read as text: line {number}: {value}")
            raise RowsError(f"{path}:{number}: {value if cause is None else f'not a JSON line: {cause}'}")
        yield number, value


def parse_line(raw: bytes, anything: bool = False) -> Any:
    """One line's JSON value. Raises RowsError on bytes that are not UTF-8, broken JSON, NaN, or half a character."""
    try:
        value = parse_json(raw, anything)
    except UnicodeDecodeError as e:
        raise RowsError(f"not UTF-8 at byte {e.start} of the line") from e
    except json.JSONDecodeError as e:
        raise RowsError(f"broken JSON at column {e.colno}: {e.msg}") from e
    except ValueError as e:
        raise RowsError(f"JSON that cannot be read: {e}") from e
    if not anything and b"\\ud" in raw.lower() and not is_text(value):  # of escaped pairs only halves stay surrogates
        raise RowsError(_HALF)
    return value


def is_text(value: Any) -> bool:
    """Whether a JSON value's strings are text: half of a surrogate pair is no character, and no tokenizer takes it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _row(raw: bytes, anything: bool) -> Any:
    try:
        return parse_line(raw, anything)
    except RowsError as e:
        return e


def _list(path: Path, data: bytes, anything: bool) -> Iterator[tuple[int, Any]]:
    try:
        values = parse_json(data, anything)
    except UnicodeDecodeError as e:
        raise RowsError(f"{path}: cannot be read as text: {e}") from None
    except ValueError as e:
        raise RowsError(f"{path}: not JSON: {e}") from None
    for place, value in enumerate(values, start=1):
        yield place, value if anything or is_text(value) else RowsError(_HALF)


# -- logs ------------------------------------------------------------------------------------------------------------


def json_line(record: Any, ensure_ascii: bool = False) -> str:
    """A JSON value as one line, newline included. Raises ValueError on NaN and infinities, which are no JSON."""
    return json.dumps(record, ensure_ascii=ensure_ascii, allow_nan=False) + "\n"


def json_text(value: Any, indent: int | None = None) -> str:
    """A JSON file's text, newline included. Raises ValueError as `json_line` does."""
    return json.dumps(value, indent=indent, allow_nan=False) + "\n"


def without_nan(record: dict[str, Any]) -> dict[str, Any]:
    """The record with null for each figure that is not finite, and under "not_finite" what it was: {path: "nan"}."""
    bad: dict[str, str] = {}
    kept = _replaced(record, "", lambda path, x: bad.update({path: str(x)}))
    return kept | ({"not_finite": bad} if bad else {})


def spelled(record: dict[str, Any]) -> dict[str, Any]:
    """The record with "nan", "inf" and "-inf", which float() reads, for each figure that is not finite."""
    return _replaced(record, "", lambda path, x: str(x))


def _replaced(value: Any, path: str, other: Callable[[str, float], str | None]) -> Any:
    """A JSON value with other(path, figure) for each figure that is not finite; a path is written a.b.0."""
    if isinstance(value, float):
        return value if math.isfinite(value) else other(path, value)
    if isinstance(value, dict):
        return {k: _replaced(v, f"{path}.{k}" if path else k, other) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(v, f"{path}.{i}", other) for i, v in enumerate(value)]
    return value


def read_log(path: AnyPath) -> list[dict[str, Any]]:
    """JSON lines; a last line cut off by a kill is dropped. Raises RowsError naming file and line on any other damage."""
    lines = Path(path).read_bytes().split(b"\n")  # bytes: the cut may run through a character
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(parse_json(line, anything=True))
        except ValueError as e:
            if number == len(lines):  # no newline after it: the write never finished
                break
            raise RowsError(f"{path}:{number}: not a JSON line: {e}") from None
        if not isinstance(records[-1], dict):
            raise RowsError(f"{path}:{number}: not a record: a JSON object is expected")
    return records


def append_lines(path: AnyPath, lines: Iterable[str], what: str = "") -> None:
    """Add lines, each with its newline, to a file that is made with its folders if need be; on disk when this returns.

    A last line that a kill left without its newline is finished where it is whole JSON and cut off where it is not, so
    that no record is glued to it. Raises OSError naming the file and `what` it is.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            _mend(file)
            file.write("".join(lines).encode())
            _force(file)
    except OSError as e:
        raise OSError(f"{path}: could not write{what and f' {what}'} ({e})") from e


def _mend(file: IO[bytes]) -> None:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 1))
    if not end or file.read(1) == b"\n":
        return
    file.seek(0)
    data = file.read()
    start = data.rfind(b"\n") + 1
    try:
        parse_json(data[start:], anything=True)
        file.write(b"\n")
    except ValueError:
        file.truncate(start)


# -- whole files -----------------------------------------------------------------------------------------------------


@contextmanager
def replaced_file(path: AnyPath) -> Iterator[IO[str]]:
    """An open text file, beside `path`, that takes its name when the block ends well; else it is removed.

    What the block writes is on disk before the name changes, so a reader finds the old file or the new one, whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.saving")
    try:
        with open(aside, "w", encoding="utf-8", newline="\n") as file:
            yield file
            _force(file)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_text(path: AnyPath, text: str) -> None:
    """Replace a file in one step."""
    with replaced_file(path) as file:
        file.write(text)


def _force(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
