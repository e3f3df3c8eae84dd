"""JSON files of a model: read strictly, and every complaint names the file and the key.

Left out: what the keys mean (models/hf_config.py and the other readers).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# The largest values read: beyond them a config.json is a mistake, and building what it describes takes minutes or overflows.
_MOST = {
    "size": 2**24, "num_hidden_layers": 2**10, "num_attention_heads": 2**14, "num_key_value_heads": 2**14, "head_dim": 2**14,
    "max_position_embeddings": 2**31, "original_max_position_embeddings": 2**31, "max_window_layers": 2**31,
}  # fmt: skip
DEPTH = 100  # of nesting, in any JSON file of a model


class CheckpointError(ValueError):
    """A checkpoint on disk that cannot be read faithfully; the message names file, key and remedy."""


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file. Raises FileNotFoundError, or CheckpointError naming line and column."""
    return parse_object(path.read_bytes(), str(path))


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """One JSON object, nested no deeper than DEPTH. Raises CheckpointError naming `where`, line and column."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as e:
        raise CheckpointError(f"{where}: not valid JSON at line {e.lineno}, column {e.colno}: {e.msg}") from None
    except UnicodeDecodeError as e:
        raise CheckpointError(f"{where}: not UTF-8 text at byte {e.start}; is this the right file?") from None
    except (ValueError, RecursionError) as e:  # a number of thousands of digits, or thousands of brackets
        raise CheckpointError(f"{where}: not valid JSON: {e}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected a JSON object, found {type(value).__name__}")
    level: list[Any] = [value]
    for _ in range(DEPTH):
        inner = (x for outer in level for x in (outer.values() if isinstance(outer, dict) else outer))
        level = [x for x in inner if isinstance(x, (dict, list))]
    if level:
        raise CheckpointError(f"{where}: nested more than {DEPTH} deep; is this the right file?")
    return value


class Reader:
    """Typed look-ups in one config.json, so that every complaint names the file and the key."""

    def __init__(self, raw: dict[str, Any], where: str) -> None:
        self.raw, self.where = raw, where

    def refuse(self, key: str, why: str) -> CheckpointError:
        return CheckpointError(f'{self.where}: "{key}": {json.dumps(self.raw.get(key))[:200]} is not supported: {why}')

    def number(
        self, key: str, default: float | None, integer: bool = True, raw: dict[str, Any] | None = None, least: int = 1
    ) -> Any:
        """A positive number under `key`; an integer may be bound by another `least`."""
        raw = self.raw if raw is None else raw
        value = raw.get(key)
        if value is None:
            if default is None:
                raise CheckpointError(f'{self.where}: key "{key}" is missing')
            return default
        kind = int if integer else (int, float)
        most = _MOST.get(key, _MOST["size"]) if integer else 1e30
        enough = not isinstance(value, bool) and isinstance(value, kind) and (value >= least if integer else value > 0)
        if not enough or not value <= most:
            whole = "a positive integer" if least == 1 else f"an integer of at least {least}"
            wanted = whole if integer else "a positive number"
            wanted += f" of at most {most:,}" if enough else ""
            raise CheckpointError(f'{self.where}: "{key}" must be {wanted}, found {json.dumps(value)[:60]}')
        return int(value) if integer else float(value)

    def flag(self, key: str, default: bool = False, raw: dict[str, Any] | None = None) -> bool:
        value = (self.raw if raw is None else raw).get(key)
        if value not in (None, True, False):
            raise CheckpointError(f'{self.where}: "{key}" must be true or false, found {json.dumps(value)}')
        return default if value is None else bool(value)
