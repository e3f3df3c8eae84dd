"""A file of figures as text, whatever it holds: its command and plain values in sentences, its rows as tables.

What benchmarks/results.py shows of measurements that have no words of their own. Left out: what the figures mean.
"""

from __future__ import annotations

from typing import Any


def machine(versions: dict[str, str]) -> str:
    return "Made with " + ", ".join(f"{name} {value}" for name, value in versions.items()) + "."


def facts(record: dict[str, Any], made_by: str) -> list[str]:
    """The command, the machine and the plain values of a record; what it does not name is said to be missing."""
    command = record.get("command", f"python -m benchmarks.{made_by}")
    parts = [f"`{command if isinstance(command, str) else ' '.join(command)}`"]
    if isinstance(record.get("versions"), dict):
        parts.append(machine(record["versions"]))
    elif not {"python", "torch", "triton"} & record.keys():
        parts.append("Versions and machine were not recorded with these figures.")
    plain = {k: v for k, v in record.items() if isinstance(v, (str, int, float, bool)) and k != "command"}
    plain |= {
        k: ", ".join(map(str, v))
        for k, v in record.items()
        if isinstance(v, list) and v and all(isinstance(x, (str, int, float)) for x in v) and k != "command"
    }
    if plain:
        parts.append("; ".join(f"{k.replace('_', ' ')}: {_cell(v)}" for k, v in plain.items()))
    return parts


def tables(record: dict[str, Any]) -> list[str]:
    """Lists of rows, and dicts of rows, as tables; a row that holds rows of its own becomes a table under its name."""
    out = []
    for key, value in record.items():
        if key == "versions" or not value:
            continue
        if isinstance(value, dict):
            rows = value if all(isinstance(v, dict) for v in value.values()) else {key: value}
            named = [{key.replace("_", " "): name, **row} for name, row in rows.items()]
        elif isinstance(value, list) and all(isinstance(v, dict) for v in value):
            named = value
        else:
            continue
        nested = [
            k for k in named[0] if isinstance(named[0][k], list) and all(isinstance(v, dict) for v in named[0][k])
        ]
        if nested:
            for row in named:
                told = ", ".join(f"{k.replace('_', ' ')} {_cell(v)}" for k, v in row.items() if k not in nested)
                out += [f"**{told}**", *(_table(row[k]) for k in nested if row.get(k))]
        else:
            out.append(_table(named))
    return out


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(k for row in rows for k in row))
    lines = ["| " + " | ".join(c.replace("_", " ") for c in columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for row in rows)])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_cell(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(v) for v in value)
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
