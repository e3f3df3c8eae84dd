"""Rows of a JSON file, one object a line or one list, plain or gzipped, with a byte-order mark or without.

Whatever may be wrong with such a file ends in one sentence that names it. Left out: reading as a stream; benchmark files
fit in memory.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tracelift.errors import GroupError, RowsError


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, or place in the list, from 1; JSON value). Raises RowsError; FileNotFoundError as `open` does."""
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as e:
        raise RowsError(f"{path}: cannot be read as text: {e}") from None
    if text.lstrip().startswith("["):
        yield from enumerate(_value(text, f"{path}: not JSON"), start=1)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _value(line, f"{path}:{number}: not a JSON line")


def _value(text: str, wrong: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise RowsError(f"{wrong}: nested too deeply") from None
    except ValueError as e:
        raise RowsError(f"{wrong}: {e}") from None


def is_text(value: Any) -> bool:
    """Whether a JSON value's strings are text: half of a surrogate pair is no character, and no tokenizer takes it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_json_line(raw: bytes) -> Any:
    """One line's JSON value. Raises GroupError on bytes that are not UTF-8, broken JSON, NaN, or half a character."""
    try:
        text = raw.decode("utf-8-sig")  # -sig: some editors start a file with a byte-order mark
        value = json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise GroupError(f"not UTF-8 at byte {error.start} of the line") from error
    except json.JSONDecodeError as error:
        raise GroupError(f"broken JSON at column {error.colno}: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise GroupError(f"JSON that cannot be read: {error}") from error
    if "\\ud" in text.lower():  # an escaped surrogate: whole pairs decode to one character, halves cannot be written
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise GroupError("text holds half of a surrogate pair, which is no character") from error
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """JSON lines; a last line cut off by a kill is dropped. Raises ValueError naming file and line on any other damage."""
    lines = path.read_bytes().split(b"\n")  # bytes: the cut may run through a character
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except ValueError as e:
            if number == len(lines):  # no newline after it: the write never finished
                break
            raise ValueError(f"{path}:{number}: not a JSON line: {e}") from None
    return records


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step."""
    aside = path.with_name(f".{path.name}.saving")
    aside.write_text(text, encoding="utf-8")
    _fsync(aside)
    os.replace(aside, path)


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
