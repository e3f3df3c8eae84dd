"""The fields of a row, whatever an export did to them: texts, lists, nulls, JSON inside of texts.

A field that says how to judge and that is not understood here (a checker, another language, files instead of standard
input) is an error: to ignore it would be to judge by another rule than the row's own. Left out: what the tests are
(assertions.py, pairs.py), and that a time limit holds: it is read, and the run's own limits judge.
"""

from __future__ import annotations

import ast
import base64
import json
import math
import pickletools
import re
import zlib
from typing import Any

from tracelift.programs.cases import ProblemError

PROGRAM_TYPES = ("stdin", "stdin_stdout", "stdio", "standard_input")
FUNCTION_TYPES = ("functional", "function", "function_call", "call_based")
_LANGUAGES = ("python", "python3", "py", "py3", "en", "english")  # the last two are said of the statement
_MODES = ("stdio", "stdin", "stdout", "standard", "stdin_stdout")
_USUAL_CHECKERS = ("none", "default", "exact", "diff")
_CHECKERS = (
    "checker", "custom_checker", "generated_checker", "checker_code", "special_judge", "spj", "grader", "comparator",
    "interactor", "interactive", "is_interactive", "interaction_format", "input_file", "output_file",
)  # fmt: skip
_DEEPEST = 200  # levels of nested JSON: what is compared and sent must be walked, and Python's own stack is finite
_MOST_UNPACKED = 512 << 20
_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "milliseconds": 1e-3}
_TEXT_OPCODES = {"PROTO", "FRAME", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "MEMOIZE", "BINPUT", "LONG_BINPUT"}


def absent(value: object) -> bool:
    """Nulls, and what exports write for them."""
    return value is None or value in ("", [], {}) or (isinstance(value, float) and math.isnan(value))


def text_field(row: dict[str, Any], where: str, *names: str) -> str:
    """The first of `names` that holds a text, "" where none does. Raises ProblemError on one that holds anything else."""
    for name in names:
        value = row.get(name)
        if not absent(value) and not isinstance(value, str):
            raise ProblemError(f"{where}: key '{name}' holds a {type(value).__name__}, not a text")
        if isinstance(value, str) and value.strip():
            return value
    return ""


def text_list(row: dict[str, Any], where: str, name: str) -> list[str]:
    """A list of texts, also as JSON; [] for null. Raises ProblemError on anything else."""
    value = nested(row.get(name), where, name)
    if absent(value):
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ProblemError(f"{where}: key '{name}' must be a list of texts")
    return value


def nested(value: Any, where: str, name: str) -> Any:
    """`value`, or what it holds as a text: JSON, a Python literal, or LiveCodeBench's packed private tests.

    Raises ProblemError on a text that holds none of them, and on what is nested too deeply.
    """
    read = _value_of(value.strip(), where, name) if isinstance(value, str) and value.strip() else value
    if too_deep(read):
        raise ProblemError(f"{where}: key '{name}' is nested more than {_DEEPEST} levels deep")
    return read if read is value else _plain(read, where, name)


def _plain(value: Any, where: str, name: str) -> Any:
    """A Python literal as JSON would have it: tuples become lists, and sets and bytes are refused."""
    if isinstance(value, (list, tuple)):
        return [_plain(item, where, name) for item in value]
    if isinstance(value, dict) and all(key is None or isinstance(key, (str, int, float)) for key in value):
        return {key: _plain(item, where, name) for key, item in value.items()}
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ProblemError(f"{where}: key '{name}' holds a {type(value).__name__}, which is not JSON")


def _value_of(text: str, where: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    inner = _unpacked(text) if re.fullmatch(r"[A-Za-z0-9+/]{16,}=*", text) else None
    try:
        return ast.literal_eval(text) if inner is None else json.loads(inner)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ProblemError(f"{where}: key '{name}' is a text that is not JSON: {said}") from None


def _unpacked(text: str) -> str | None:
    """A text that was pickled, compressed and written in base 64; None where it is no such thing.

    Its opcodes are read, and no pickle is loaded: one that does anything but hold a single text is refused.
    """
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b64decode(text), _MOST_UNPACKED)
        found = [(op.name, value) for op, value, _ in pickletools.genops(data)] if stream.eof else []
    except (ValueError, zlib.error):
        return None
    texts = [value for name, value in found if "UNICODE" in name and isinstance(value, str)]
    plain = found[-1:] == [("STOP", None)] and all(name in _TEXT_OPCODES for name, _ in found[:-1])
    return texts[0] if plain and len(texts) == 1 else None


def too_deep(value: Any) -> bool:
    """Whether lists and objects are nested more than `_DEEPEST` levels deep."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for item in level
            if isinstance(item, (list, tuple, dict))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


def check_judging(row: dict[str, Any], where: str) -> None:
    """Raises ProblemError on a field of `row` that says how to judge, in a way that is not known here."""
    for name in _CHECKERS:
        value = row.get(name)
        if not absent(value) and value is not False and str(value).lower() not in _USUAL_CHECKERS:
            raise ProblemError(f"{where}: key '{name}' asks for another judge than a comparison of standard output")
    for names, known in (
        (("language", "lang", "programming_language"), _LANGUAGES),
        (("input_mode", "output_mode", "io_mode"), _MODES),
        (("testtype", "test_type"), PROGRAM_TYPES + FUNCTION_TYPES),
    ):
        for name in names:
            value = row.get(name)
            if not absent(value) and str(value).strip().lower() not in known:
                raise ProblemError(f"{where}: key '{name}' is {str(value)[:40]!r}; known are {', '.join(known)}")


def time_limit(row: dict[str, Any], where: str) -> float | None:
    """A problem's own limit in seconds: a number, a text such as "2.0 seconds", or {seconds, nanos}. None without one.

    Raises ProblemError on one that cannot be read.
    """
    value = row.get("time_limit")
    if absent(value):
        return None
    seconds = math.nan
    if isinstance(value, dict):
        parts = [value.get("seconds") or 0, value.get("nanos") or 0]
        if all(isinstance(part, (int, float)) and abs(part) < 1e12 for part in parts):
            seconds = parts[0] + parts[1] / 1e9
    elif isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-z]*)\s*", value.lower())
        unit = _UNITS.get(match[2]) if match else None
        seconds = float(match[1]) * unit if match and unit else math.nan
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12:
        seconds = float(value)
    if not seconds > 0:
        raise ProblemError(f"{where}: key 'time_limit' cannot be read as seconds: {str(value)[:60]!r}")
    return seconds
