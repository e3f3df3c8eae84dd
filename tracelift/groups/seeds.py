"""Seed problems for groups, read from JSONL or drawn from a demo world: broken lines and near-duplicates are named.

Left out on purpose: what becomes of a seed (build.py), how likeness is measured (dedup.py).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tracelift.errors import GroupError, RowsError
from tracelift.files import scan_rows
from tracelift.groups.dedup import NearDuplicates

DEMOS = {"demo:math": "math", "demo:code": "code"}  # endless series of the worlds' problems, and their task types


@dataclass(frozen=True)
class Seed:
    """`answer`: GSM8K's solution and answer, or a program where one is given. `trace`: a code seed's reference plan.
    A problem of a demo world has its row alone, and `problem` names the world."""

    row: int
    problem: str
    answer: str
    trace: str = ""


@dataclass(frozen=True)
class NoSeed:
    """A line that is no seed: where it stands (from 0), why, what about it, and how alike an earlier problem is."""

    row: int
    reason: str
    detail: str
    repeats: int = 0  # line of the earlier problem, from 1
    similarity: float = 0.0


BROKEN, REPEATED = "broken line", "problem seen before"


def read_seeds(path: str | os.PathLike[str], domain: str = "math") -> Iterator[tuple[int, Seed | str]]:
    """(line number, seed or what is wrong with the line) of a JSON-lines file with `question` and `answer` a line; of code seeds
    with `problem`, `trace` and perhaps `solution`. DEMOS are endless series of a world's problems."""
    if str(path) in DEMOS:
        yield from ((row + 1, Seed(row, str(path), "")) for row in itertools.count())
    for number, row in scan_rows(path):
        try:
            yield number, _seed(row, number - 1, domain)
        except (GroupError, RowsError) as error:
            yield number, str(error)


def _seed(row: Any, place: int, domain: str) -> Seed:
    if isinstance(row, RowsError):
        raise row
    if not isinstance(row, dict):
        raise GroupError("the line is no object")
    problem, answer = row.get("question", row.get("problem")), row.get("answer", row.get("solution"))
    trace = next((row[key] for key in ("trace", "reasoning", "plan") if key in row), None)
    if domain == "code":
        answer = "" if row.get("solution") is None else row["solution"]
        needed = (("problem", problem), ("trace", trace))
    else:
        needed = (("question", problem), ("answer", answer))
    texts = {key: _text(key, value) for key, value in needed}
    if not isinstance(answer, str):
        raise GroupError("solution is no text")
    return Seed(place, next(iter(texts.values())), answer.strip(), texts.get("trace", ""))


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise GroupError(f"{key} is missing or no text")
    return value.strip()


def fresh_seeds(path: str | os.PathLike[str], limit: int | None, domain: str) -> Iterator[Seed | NoSeed]:
    """Seeds to work on, and in their places the broken lines and near-duplicates of an earlier problem."""
    known = NearDuplicates()
    for number, seed in itertools.islice(read_seeds(path, domain), limit):
        if isinstance(seed, str):
            yield NoSeed(number - 1, BROKEN, seed)
        elif str(path) not in DEMOS and (twin := known.seen(str(number), seed.problem)):
            detail = f"line {number} repeats line {twin[0]}, similarity {twin[1]:.3f}"
            yield NoSeed(number - 1, REPEATED, detail, int(twin[0]), twin[1])
        else:
            yield seed
