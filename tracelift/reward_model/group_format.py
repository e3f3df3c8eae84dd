"""The file format of TraceLift-Groups: one JSON object a line, read strictly and written back unchanged.

A group is one problem with a pool of sound traces and a bank of flawed ones, each with a rubric: five dimensions
labelled 0-4 and a total in [0, 1] (the paper's section on Reason RM data). A sound trace that tells the reference
otherwise says how (`positive_kind`, a key of this project's). The layout is the authors' own, so their
released files pass through here and come out byte for byte: keys this project does not know are kept where they
stood, in `extra`, and a number written as `1` is not turned into `1.0`.

Two readers share one parser. `read_groups` is for training and raises at the first broken line; `scan_groups` is for
`validate` and keeps every good line beside the reasons for the others.

Left out on purpose: judging, building and splitting of data (tracelift/groups/), and any JSON other than one object a
line.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tracelift.errors import GroupError, RowsError
from tracelift.files import replaced_file, scan_rows
from tracelift.rubrics import CODE_DIMENSIONS, MATH_DIMENSIONS, MAX_LABEL, TASK_TYPES, dimensions_of

MIN_NEGATIVES = 4  # what one training step of the Reason RM draws from a group


@dataclass(frozen=True)
class Rubric:
    """`dimensions`: name → label 0-4, all five of one task type. `total`: overall quality in [0, 1]."""

    dimensions: dict[str, int]
    total: float
    keys: tuple[str, ...] = field(default=(), compare=False, repr=False)  # order in the file it came from
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return _ordered({**self.dimensions, "total": self.total, **self.extra}, self.keys)


@dataclass(frozen=True)
class Candidate:
    """One trace. `negative_kind` names its flaw and is None for a sound trace; `positive_kind` says in which way a sound
    trace tells the reference otherwise (tracelift/rubrics.py: ALTERNATIVES) and is None for the reference itself and for a
    flawed trace; `extra` holds all other keys."""

    reasoning: str
    rubric: Rubric
    negative_kind: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = field(default=(), compare=False, repr=False)
    positive_kind: str | None = None

    def to_json(self) -> dict[str, Any]:
        known: dict[str, Any] = {"reasoning": self.reasoning}
        for name in ("negative_kind", "positive_kind"):
            if getattr(self, name) is not None or name in self.keys:
                known[name] = getattr(self, name)
        return _ordered({**known, "rubric": self.rubric.to_json(), **self.extra}, self.keys)


@dataclass(frozen=True)
class Group:
    """A problem with its traces. `task_type` is "math" or "code" and decides the rubric's dimensions.

    The authors' code groups carry no `task_type` of their own (it sits in `metadata`, under finer names): it is then
    read off the rubric's dimensions and not written back. `type_text` is what the reward model's input shows.
    """

    problem_id: str
    source: str
    task_type: str
    problem: str
    reference_solution: str
    positive_pool: tuple[Candidate, ...]
    negative_bank: tuple[Candidate, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def alternatives(self) -> tuple[Candidate, ...]:
        """The sound traces that tell the reference otherwise."""
        return tuple(c for c in self.positive_pool if c.positive_kind is not None)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Sound traces first, then flawed ones."""
        return self.positive_pool + self.negative_bank

    @property
    def type_text(self) -> str:
        """The text of the `<type>` field: task_type as written, else the metadata's, else the source."""
        if "task_type" in self.extra:
            return str(self.extra["task_type"])
        if not self.keys or "task_type" in self.keys:
            return self.task_type
        return str(self.metadata.get("task_type") or self.source or "unknown")

    def to_json(self) -> dict[str, Any]:
        known: dict[str, Any] = {"problem_id": self.problem_id, "source": self.source, "task_type": self.task_type}
        known |= {"problem": self.problem, "reference_solution": self.reference_solution}
        known["positive_pool"] = [c.to_json() for c in self.positive_pool]
        known["negative_bank"] = [c.to_json() for c in self.negative_bank]
        known["metadata"] = self.metadata
        if self.keys:  # came from a file: what that file left out stays out
            known = {k: v for k, v in known.items() if k in self.keys or (k == "metadata" and v)}
        return _ordered({**known, **self.extra}, self.keys)

    def to_line(self) -> str:
        """The group as one line of JSON, newline included."""
        return json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False) + "\n"


def _ordered(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """`values` in the order of `keys`, whatever `keys` does not name after them."""
    return {k: values[k] for k in keys if k in values} | {k: v for k, v in values.items() if k not in keys}


# ----------------------------------------------------------------------------------------------------------- parsing


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise GroupError(f"{where} is {_named(value)}, expected an object")
    return value


def _text(obj: dict[str, Any], key: str, where: str, allow_empty: bool = False) -> str:
    if key not in obj:
        raise GroupError(f"{where}{key} is missing")
    value = obj[key]
    if not isinstance(value, str):
        raise GroupError(f"{where}{key} is {_named(value)}, expected text")
    if not allow_empty and not value.strip():
        raise GroupError(f"{where}{key} is empty")
    return value


def _named(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def parse_rubric(value: Any, where: str = "rubric") -> Rubric:
    """A rubric from its JSON object. Raises GroupError on a missing dimension, a label outside 0-4 or a bad total."""
    obj = _object(value, where)
    wanted = next((d for d in (MATH_DIMENSIONS, CODE_DIMENSIONS) if set(d) <= obj.keys()), None)
    if wanted is None:
        likely = max((MATH_DIMENSIONS, CODE_DIMENSIONS), key=lambda d: len(set(d) & obj.keys()))
        missing = [name for name in likely if name not in obj]
        raise GroupError(f"{where} lacks {', '.join(missing)}")
    dimensions: dict[str, int] = {}
    for name in wanted:
        label = obj[name]
        if type(label) is not int or not 0 <= label <= MAX_LABEL:
            raise GroupError(f"{where}.{name} is {label!r}, expected a whole number from 0 to {MAX_LABEL}")
        dimensions[name] = label
    if "total" not in obj:
        raise GroupError(f"{where}.total is missing")
    total = obj["total"]
    if type(total) not in (int, float) or not math.isfinite(total) or not 0 <= total <= 1:
        raise GroupError(f"{where}.total is {total!r}, expected a number from 0 to 1")
    extra = {k: v for k, v in obj.items() if k not in dimensions and k != "total"}
    return Rubric(dimensions, total, tuple(obj), extra)


def parse_candidate(value: Any, where: str, negative: bool) -> Candidate:
    """One trace from its JSON object; `negative` says which of the two pools it stands in."""
    obj = _object(value, where)
    reasoning = _text(obj, "reasoning", f"{where}.")
    flaw = _text(obj, "negative_kind", f"{where}.") if negative else obj.get("negative_kind")
    if not negative and flaw is not None:
        raise GroupError(f"{where}.negative_kind is {flaw!r}, but a trace of the positive pool has no flaw")
    told = obj.get("positive_kind")
    if negative and told is not None:
        raise GroupError(f"{where}.positive_kind is {told!r}, but a trace of the negative bank is not sound")
    if told is not None:
        told = _text(obj, "positive_kind", f"{where}.")
    if "rubric" not in obj:
        raise GroupError(f"{where}.rubric is missing")
    extra = {k: v for k, v in obj.items() if k not in ("reasoning", "negative_kind", "positive_kind", "rubric")}
    return Candidate(reasoning, parse_rubric(obj["rubric"], f"{where}.rubric"), flaw, extra, tuple(obj), told)


def parse_group(value: Any, min_negatives: int = MIN_NEGATIVES) -> Group:
    """A group from its JSON object. Raises GroupError naming the offending key."""
    obj = _object(value, "the line")
    pools: list[tuple[Candidate, ...]] = []
    for key, least, negative in (("positive_pool", 1, False), ("negative_bank", min_negatives, True)):
        items = obj.get(key)
        if not isinstance(items, list):
            raise GroupError(f"{key} is {'missing' if key not in obj else _named(items)}, expected a list of traces")
        if len(items) < least:
            raise GroupError(f"{key} holds {len(items)} trace{'s' * (len(items) != 1)}, at least {least} needed")
        pools.append(tuple(parse_candidate(item, f"{key}[{i}]", negative) for i, item in enumerate(items)))

    extra = {k: v for k, v in obj.items() if k not in _GROUP_KEYS}
    task_type = obj.get("task_type")
    if task_type not in TASK_TYPES:
        if task_type is not None:
            extra["task_type"] = task_type
        names = set(pools[0][0].rubric.dimensions)
        task_type = "math" if names == set(MATH_DIMENSIONS) else "code"
    for key, pool in zip(("positive_pool", "negative_bank"), pools, strict=True):
        for i, candidate in enumerate(pool):
            if set(candidate.rubric.dimensions) != set(dimensions_of(task_type)):
                raise GroupError(f"{key}[{i}].rubric holds dimensions that are not those of a {task_type} group")

    metadata = _object(obj.get("metadata", {}), "metadata")
    return Group(
        problem_id=_text(obj, "problem_id", ""),
        source=_text(obj, "source", "", allow_empty=True),
        task_type=task_type,
        problem=_text(obj, "problem", ""),
        reference_solution=_text(obj, "reference_solution", ""),
        positive_pool=pools[0],
        negative_bank=pools[1],
        metadata=metadata,
        extra=extra,
        keys=tuple(obj),
    )


_GROUP_KEYS = frozenset(
    ("problem_id", "source", "task_type", "problem", "reference_solution", "positive_pool", "negative_bank", "metadata")
)


def iter_groups(path: str | os.PathLike[str], min_negatives: int = MIN_NEGATIVES) -> Iterator[tuple[int, Group | str]]:
    """(line number, the group, or the reason why there is none) for each line that is not blank, one at a time."""
    first_seen: dict[str, int] = {}
    for number, row in scan_rows(path):
        if isinstance(row, RowsError):
            yield number, str(row)
            continue
        try:
            group = parse_group(row, min_negatives)
        except GroupError as error:
            yield number, str(error)
            continue
        earlier = first_seen.setdefault(group.problem_id, number)
        yield number, group if earlier == number else f"problem_id {group.problem_id!r} stands on line {earlier} too"


def read_groups(path: str | os.PathLike[str], min_negatives: int = MIN_NEGATIVES) -> list[Group]:
    """All groups of a JSONL file. Raises GroupError with file and line at the first broken one, and on an empty file.

    Raises FileNotFoundError as `open` does.
    """
    groups: list[Group] = []
    for number, item in iter_groups(path, min_negatives):
        if isinstance(item, str):
            raise GroupError(f"{path}, line {number}: {item} (`python -m tracelift.groups validate` lists all)")
        groups.append(item)
    if not groups:
        raise GroupError(f"{path} holds no group: expected one JSON object a line")
    return groups


def scan_groups(
    path: str | os.PathLike[str], min_negatives: int = MIN_NEGATIVES
) -> tuple[list[Group], list[tuple[int, str]]]:
    """(the good groups, [(line number, reason)] of the broken lines): nothing raised, nothing good lost."""
    good: list[Group] = []
    bad: list[tuple[int, str]] = []
    for number, item in iter_groups(path, min_negatives):
        if isinstance(item, str):
            bad.append((number, item))
        else:
            good.append(item)
    return good, bad


def write_groups(path: str | os.PathLike[str], groups: Iterable[Group]) -> int:
    """Write one group a line, so that a reader never sees half a file. Returns how many."""
    count = 0
    with replaced_file(path) as file:
        for group in groups:
            file.write(group.to_line())
            count += 1
    return count


def split_of(seed: int, problem_id: str, dev_fraction: float) -> str:
    """The side, "dev" or "train", by a hash of (seed, problem_id): the same problem always falls on the same side.

    The hash is the one the authors order their groups by; they cut at a rank, this cuts at a fraction of its range,
    so that a problem's side does not depend on which other problems are there.
    """
    if not 0 <= dev_fraction <= 1:
        raise ValueError(f"dev_fraction is {dev_fraction}, expected a share from 0 to 1")
    digest = hashlib.sha256(f"{seed}\0{problem_id}".encode()).digest()
    return "dev" if int.from_bytes(digest[:8], "big") < dev_fraction * 2**64 else "train"
