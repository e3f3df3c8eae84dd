"""Plain Python values as JSON lines, between two processes that do not trust each other.

Carried: None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, range, and instances of their
subclasses *as* the plain type (a namedtuple arrives as the tuple it equals). An iterator arrives as an iterator over
the same values; anything else becomes a handle: a number and a type's name. So what arrives is always data: it has no
`__eq__` of its own, and decoding runs no code of the sender.

Left out on purpose: identity and aliasing (two references to one list arrive as two lists), and pickle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

SCALARS = {"int", "bytes", "complex", "range"}  # kinds whose body is not made of further values
BIG = 1 << 64  # larger integers travel in base 16, which is linear to read; JSON's base 10 is not


class Unplain(TypeError):
    """The value, or something in it, cannot be sent."""


def encode(value: object, handle: Callable[[Any], dict] | None = None) -> Any:
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
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [encode(v, handle) for v in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(k, handle), encode(v, handle)] for k, v in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if handle is None:
        raise Unplain(f"a {type(value).__name__} is not a plain value")
    return handle(value)


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
        if kind == "int":
            return int(body, 16)
        if kind in ("tuple", "set", "frozenset"):
            make = {"tuple": tuple, "set": set, "frozenset": frozenset}[kind]
            return make(decode(v, remote) for v in body)
        if kind == "dict":
            return {decode(k, remote): decode(v, remote) for k, v in body}
        if kind == "bytes":
            return bytes.fromhex(body)
        if kind == "complex":
            return complex(*body)
        if kind == "range":
            return range(*body)
        if kind == "iterator":
            return iter([decode(v, remote) for v in body])
    except (TypeError, ValueError, OverflowError) as error:
        raise Unplain(f"not a plain {kind}: {error}") from None
    raise Unplain(f"no such kind of value: {str(kind)[:40]}")


def size(item: object) -> int:
    """How many values an encoded item holds. Equal values have equal sizes (1.0, 1 and 1+0j alike), so a reader can
    refuse to build, and to hash, more than it expects."""
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
        if kind in ("tuple", "set", "frozenset", "dict") and isinstance(body, list):
            return {kind: [[0, 0]] if kind == "dict" else [0]} if body else {kind: []}
    return item


def line(message: dict) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
