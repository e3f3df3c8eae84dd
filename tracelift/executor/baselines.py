"""Baselines of problems, measured once: in memory, and on disk as JSON lines that survive restarts.

Left out: what a baseline depends on (`Executor.baseline_key`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracelift.files import append_lines, json_line, read_log


@dataclass(frozen=True)
class Baseline:
    successes: float
    repeats: int
    error: str | None = None
    runs: tuple[tuple[str, str], ...] = field(default=(), compare=False)  # (text, verdict's name), for people to read
    logprob: float | None = None  # of the reference, where uplift is by likelihood


class BaselineCache:
    """Baselines on disk, one JSON line each; a last line cut off by a kill is ignored. `path = None` keeps them in memory."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known: dict[str, Baseline] = {}
        if path is not None and path.exists():
            records = read_log(path)
            try:
                self._known = {
                    r["key"]: Baseline(
                        r["successes"], r["repeats"], None, tuple(map(tuple, r.get("runs", ()))), r.get("logprob")
                    )
                    for r in records
                }
            except (KeyError, TypeError):
                raise ValueError(f"{path}: is not a baseline cache; give executor.cache another file") from None

    def get(self, key: str) -> Baseline | None:
        return self._known.get(key)

    def put(self, found: Mapping[str, Baseline]) -> None:
        """Add baselines by key, on disk when this returns. Raises OSError naming the file if it cannot."""
        self._known.update(found)
        if self.path is None or not found:
            return
        lines = (json_line(_record(key, value), ensure_ascii=True) for key, value in found.items())
        append_lines(self.path, lines, "the baseline cache")

    def __len__(self) -> int:
        return len(self._known)


def _record(key: str, value: Baseline) -> dict[str, Any]:
    record = {"key": key, "successes": value.successes, "repeats": value.repeats, "runs": value.runs}
    return record if value.logprob is None else record | {"logprob": value.logprob}
