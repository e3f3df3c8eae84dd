"""Rows of a JSON file, one object a line or one list, plain or gzipped, with a byte-order mark or without.

Whatever may be wrong with such a file ends in one sentence that names it. Left out: reading as a stream; benchmark files
fit in memory.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class RowsError(ValueError):
    """A file that holds no rows: says file and line, or file and place in its list."""


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
