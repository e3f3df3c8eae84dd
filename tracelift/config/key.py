"""What stands beside a key's default: its meaning, the range of a number, and whether a resumed run may change it.

Left out: the keys themselves (schema.py, stages.py), and rules that bind several keys (check.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

Later = Literal["no", "yes", "grows", "moves"]
# What --resume may do to a key: nothing; anything; raise it; give another address of what stays the same.


@dataclass(frozen=True)
class Range:
    """The finite numbers from `low` to `high`; `above`, `below`: without the bound itself; `zero`: and 0. NaN is in no range."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    zero: bool = False

    def __contains__(self, x: float) -> bool:
        if self.zero and x == 0:
            return True
        high_enough = x > self.low if self.above else x >= self.low
        low_enough = x < self.high if self.below else x <= self.high
        return math.isfinite(x) and high_enough and low_enough

    def words(self, x: float) -> str:
        """What x should have been."""
        return f"finite and {self}" if not math.isfinite(x) else str(self)

    def __str__(self) -> str:
        if self.zero:
            return f"0 or {replace(self, zero=False)}"
        if self.high == math.inf:
            return f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        if self.above or self.below:
            return f"{'above' if self.above else 'at least'} {self.low:g} and {'below' if self.below else 'at most'} {self.high:g}"
        return f"between {self.low:g} and {self.high:g}"


ABOVE_0 = Range(0, above=True)
FROM_0 = Range(0)
FROM_1 = Range(1)
SHARE = Range(0, 1)
SEED = Range(0, 2**62)
THREADS = Range(0, 4096)
RATE = Range(0, 100, above=True)
WEIGHT = Range(0, 1e6)  # of a term of the loss or reward
SIGNED = Range(-1e6, 1e6)
WARM = Range(1e-3, 1e3)  # a temperature: below, fp32 logits divided by it overflow or are greedy in all but name
WARM_OR_GREEDY = Range(1e-3, 1e3, zero=True)
NATS = Range(1e-3, 1e3)  # beyond, every likelihood uplift is clipped, or every group is flat
DECAY = Range(0, 1, below=True)
SECONDS = Range(0, 1e8, above=True)  # three years; the system's own clocks take no infinity
PATIENCE = Range(0, 1e8)


def opt(default: Any, help: str, numbers: Range | None = None, later: Later = "no") -> Any:
    """A dataclass field. `numbers`: the range of its value, or of each in its list; `later`: see `Later`."""
    about = {"help": help, "range": numbers, "later": later}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=about)
    return field(default=default, metadata=about)


class Key(NamedTuple):
    """A key of a config as it stands."""

    name: str  # section.key
    value: Any
    about: Mapping[str, Any]  # help, range, later: as `opt` was told


def keys_of(config: Any) -> Iterator[Key]:
    """Every key, section by section, in the order of the schema."""
    for section in fields(config):
        values = getattr(config, section.name)
        for f in fields(values):
            yield Key(f"{section.name}.{f.name}", getattr(values, f.name), f.metadata)


def value_of(config: Any, name: str) -> Any:
    """The value of "section.key"."""
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)
