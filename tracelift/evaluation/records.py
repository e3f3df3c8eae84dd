"""Finished work on disk, one JSON line a record, found again by a key made of everything the record depends on.

A record of other weights, another prompt, seed or rule has another key, so it is never mistaken for this
evaluation's; an interrupted evaluation goes on where it stopped, and a second one that shares work with the first
does not repeat it. Every rank appends to a file of its own and reads all of them. Left out: deleting records that
nothing asks for anymore.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracelift.files import append_lines, json_line, read_log

Record = dict[str, Any]


def key_of(*parts: Any) -> str:
    """A name for work that depends on exactly `parts` (JSON values)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class Records:
    def __init__(self, folder: Path, rank: int = 0) -> None:
        """Reads every records file in `folder`. Raises ValueError naming file and line where one is damaged inside."""
        self.path = folder / f"records.{rank}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Record] = {}
        for path in sorted(folder.glob("records.*.jsonl")):
            for number, record in enumerate(read_log(path), start=1):
                if not isinstance(record, dict) or "key" not in record:
                    raise ValueError(f"{path}:{number}: not a record of an evaluation; give eval.out another folder")
                self._known[record["key"]] = record

    def get(self, key: str) -> Record | None:
        return self._known.get(key)

    def add(self, records: Sequence[Record]) -> None:
        """Keep records, each with its "key"; they are on disk when this returns."""
        if records:
            append_lines(self.path, map(json_line, records))
            self.hold(records)

    def hold(self, records: Sequence[Record]) -> None:
        """Keep records for this process only: work that went wrong, which the next evaluation tries again."""
        self._known.update({r["key"]: r for r in records})

    def __len__(self) -> int:
        return len(self._known)
