"""Plain Python values as JSON lines, between two processes that do not trust each other.

Carried: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, Fraction, Decimal, deque,
Counter, OrderedDict, the views of a dict, dates and times without a zone; and instances of their subclasses *as* that
type (a namedtuple arrives as the tuple it equals). An iterator arrives as an iterator over the same values; anything else
becomes a handle: a number and a type's name. So what arrives is always data: it compares as the standard library's types
do, has no `__eq__` of its own, and decoding runs no code of the sender.

Left out on purpose: identity and aliasing (two references to one list arrive as two lists), and pickle.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

BIG = 1 << 64  # larger integers travel in base 16, which is linear to read; JSON's base 10 is not
LONG = 1 << 14  # digits of a Decimal, bytes of a Fraction's parts: their arithmetic is not linear


class Unplain(TypeError):
    """The value, or something in it, cannot be sent."""


# kind → the type it stands for, subclasses before their bases, and how to make one of decoded values or pairs.
SEQUENCES: dict[str, tuple[type, Callable[[list], Any]]] = {
    "tuple": (tuple, tuple),
    "set": (set, set),
    "frozenset": (frozenset, frozenset),
    "deque": (deque, deque),
    "keys": (type({}.keys()), lambda values: dict.fromkeys(values).keys()),
    "values": (type({}.values()), lambda values: dict(enumerate(values)).values()),
}
PAIRS: dict[str, tuple[type, Callable[[dict], Any]]] = {
    "counter": (Counter, Counter),
    "ordered": (OrderedDict, OrderedDict),
    "dict": (dict, dict),
    "items": (type({}.items()), lambda pairs: pairs.items()),
}
SCALARS = {
    "int",
    "bytes",
    "bytearray",
    "complex",
    "range",
    "fraction",
    "decimal",
    "datetime",
    "date",
    "time",
    "timedelta",
}

MUTABLE = (list, dict, set, bytearray, deque)


def encode(value: Any, handle: Callable[[Any], dict] | None = None) -> Any:
    """value → something json can write. `handle` says what to send for other objects; without it they raise Unplain."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        value = int(value)
        return value if -BIG < value < BIG else {"int": hex(value)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return [encode(v, handle) for v in value]
    for kind, (standard, _) in SEQUENCES.items():
        if isinstance(value, standard):
            return {kind: [encode(v, handle) for v in value]}
    for kind, (standard, _) in PAIRS.items():
        if isinstance(value, standard):
            pairs = value.items() if isinstance(value, dict) else value
            return {kind: [[encode(k, handle), encode(v, handle)] for k, v in pairs]}
    scalar = _encode_scalar(value)
    if scalar is not None:
        return scalar
    if handle is None:
        raise Unplain(f"a {type(value).__name__} is not a plain value")
    return handle(value)


def _encode_scalar(value: object) -> dict | None:
    if isinstance(value, (bytes, bytearray)):
        return {"bytes" if isinstance(value, bytes) else "bytearray": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, Fraction):
        return {"fraction": [hex(value.numerator), hex(value.denominator)]}
    if isinstance(value, Decimal):
        return {"decimal": Decimal.__str__(value)}
    if isinstance(value, timedelta):
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, (datetime, time)) and value.tzinfo:
        return None  # a zone is an object of its own
    if isinstance(value, datetime):
        return {"datetime": datetime.isoformat(value)}
    if isinstance(value, time):
        return {"time": time.isoformat(value)}
    if isinstance(value, date):
        return {"date": date.isoformat(value)}
    return None


def decode(item: object, remote: Callable[[dict], Any] | None = None) -> Any:
    """The inverse. `remote` says what a handle becomes. Raises Unplain on anything not written by `encode`."""
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    if isinstance(item, list):
        return [decode(v, remote) for v in item]
    if isinstance(item, dict) and "handle" in item and remote is not None:
        return remote(item)
    if not isinstance(item, dict) or len(item) != 1:
        raise Unplain(f"not a plain value: {str(item)[:80]}")
    ((kind, body),) = item.items()
    try:
        if kind in SEQUENCES:
            return SEQUENCES[kind][1]([decode(v, remote) for v in body])
        if kind in PAIRS:
            return PAIRS[kind][1]({decode(k, remote): decode(v, remote) for k, v in body})
        if kind == "iterator":
            return iter([decode(v, remote) for v in body])
        if kind in SCALARS:
            return _decode_scalar(kind, body)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise Unplain(f"not a plain {kind}: {error}") from None
    raise Unplain(f"no such kind of value: {str(kind)[:40]}")


def _decode_scalar(kind: str, body: Any) -> Any:
    if kind == "int":
        return int(body, 16)
    if kind in ("bytes", "bytearray"):
        return {"bytes": bytes, "bytearray": bytearray}[kind].fromhex(body)
    if kind == "complex":
        return complex(*body)
    if kind == "range":
        return range(*body)
    if kind == "timedelta":
        return timedelta(*body)
    if len(body) > LONG or (kind == "fraction" and max(map(len, body)) > LONG):
        raise ValueError("it is too long")
    if kind == "fraction":
        return Fraction(*(int(part, 16) for part in body))
    if kind == "decimal":
        return Decimal(body)
    return {"datetime": datetime, "date": date, "time": time}[kind].fromisoformat(body)


def size(item: object) -> int:
    """How many values an encoded item holds. Values that equal a literal have its size (1.0, 1 and 1+0j alike), so a
    reader can refuse to build, and to hash, more than it expects."""
    if isinstance(item, dict):
        item = next(iter(item.values()), None) if SCALARS.isdisjoint(item) else None
        return size(item)
    return 1 + sum(map(size, item)) if isinstance(item, list) else 1


def hollow(item: object) -> object:
    """An item as true or as false as the given one, without what it holds: a set of a million values with one hash
    takes hours to build, and nobody has to build it to know that it is not empty."""
    if isinstance(item, list):
        return [0] if item else []
    if isinstance(item, dict) and len(item) == 1:
        ((kind, body),) = item.items()
        if isinstance(body, list) and (kind in SEQUENCES or kind in PAIRS):
            return {kind: ([[0, 0]] if kind in PAIRS else [0]) if body else []}
    return item


def line(message: dict) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def fits(data: bytes, memory_bytes: int) -> bool:
    """Whether a process of that much memory could read this line at all: the text, its values and the interpreter. Where
    it could not, the one who wrote the line is at fault."""
    return 4 * len(data) <= memory_bytes
