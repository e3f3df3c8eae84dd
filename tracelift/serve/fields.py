"""Fields of a JSON request, checked: the right type, within bounds, none unknown. What is wrong becomes one sentence.

Left out: nested schemas; each endpoint reads its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from tracelift.config.key import Range
from tracelift.files import as_float


class Refused(Exception):
    """A request that is not served: HTTP status, a sentence for whoever sent it, and the field at fault."""

    def __init__(self, status: int, message: str, field: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.retry_after = status, message, field, retry_after


def bad(field: str, message: str) -> Refused:
    return Refused(400, f"{field} {message}", field)


def refuse_unknown(body: Mapping[str, Any], known: Collection[str], where: str = "") -> None:
    for key in body:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
            raise Refused(400, f"{where}unknown field {key[:60]!r}{hint}", key[:60])


def whole(body: Mapping[str, Any], field: str, default: int, low: int, high: int) -> int:
    """An integer in low … high; null and absence mean the default."""
    value = body.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise bad(field, f"must be an integer from {low} to {high}, got {_shown(value)}")
    return value


def real(body: Mapping[str, Any], field: str, default: float, allowed: Range) -> float:
    """A number of the range; null and absence mean the default."""
    value = body.get(field)
    if value is None:
        return default
    number = as_float(value)
    if number is None or number not in allowed:
        raise bad(field, f"must be a number, {allowed}, got {_shown(value)}")
    return number


def flag(body: Mapping[str, Any], field: str, default: bool = False) -> bool:
    """True or false; null and absence mean the default."""
    value = body.get(field)
    if value is not None and not isinstance(value, bool):
        raise bad(field, f"must be true or false, got {_shown(value)}")
    return default if value is None else value


def text(body: Mapping[str, Any], field: str, where: str = "", default: str | None = None) -> str:
    """A string; required where no default is given."""
    value = body.get(field, default)
    if not isinstance(value, str):
        raise Refused(400, f"{where}{field} must be text, got {_shown(value) if field in body else 'nothing'}", field)
    return value


def _shown(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:60]}… ({type(value).__name__})"
