"""docs/results.md from the committed figures: `python -m benchmarks.results`. Nothing in it is written by hand.

Every benchmarks/results/*.json becomes a section: comparisons of rewards as tables, curves and tests, every other
file as the tables it holds. Each section names the command, seeds, versions and machine its figures come from.
`--check` writes nothing and fails where the page is not what the figures say. Left out: prose and opinion.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.compare_report import render_markdown

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Results

Made by `python -m benchmarks.results` from the figures in benchmarks/results/, each measured by the command named in
its section. Intervals are 95%. No figure here can be compared with the paper's, whose tables could not be had.
"""


def section(path: Path) -> str:
    record = json.loads(path.read_text())
    if "comparisons" in record and "arms" in record:
        return compare_section(path, record)
    title = path.stem.replace("_", " ").replace("-", " ")
    return f"## {title[0].upper()}{title[1:]}\n\n" + "\n\n".join([*_facts(record), *_tables(record)])


def compare_section(path: Path, record: dict[str, Any]) -> str:
    picture = path.with_suffix(".png")
    image = f"![learning curves](../{picture.relative_to(ROOT).as_posix()})\n\n" if picture.exists() else ""
    made = (
        f"`{record['command']}`, config {record['config']}, training seeds "
        f"{', '.join(map(str, record['seeds']))}, evaluation seed "
        f"{record['eval_seed']}. {machine(record['versions'])}"
    )
    reproduce = (
        f"One row again: `python train.py {record['config']} --run.seed 0 --data.seed 1000 "
        "--data.eval_problems 0 --run.threads 1 "
        f"--run.out runs/row{''.join(' ' + w for w in record['overrides'])}`, "
        f"then `python eval.py --run runs/row --run.seed "
        f"{record['eval_seed']} --eval.benchmarks demo:{record['world']} --eval.limit {record['problems']} "
        f"--eval.samples {record['samples']}`."
    )
    return (
        f"## The reward compared, {record['world']} demo\n\n{image}{render_markdown(record)}\n\n{made}\n\n{reproduce}"
    )


def machine(versions: dict[str, str]) -> str:
    return "Made with " + ", ".join(f"{name} {value}" for name, value in versions.items()) + "."


def _facts(record: dict[str, Any]) -> list[str]:
    """The command and the plain values of a record."""
    parts = []
    if "command" in record:
        command = record["command"]
        parts.append(f"`{command if isinstance(command, str) else ' '.join(command)}`")
    if isinstance(record.get("versions"), dict):
        parts.append(machine(record["versions"]))
    plain = {k: v for k, v in record.items() if isinstance(v, (str, int, float, bool)) and k != "command"}
    plain |= {
        k: ", ".join(map(str, v))
        for k, v in record.items()
        if isinstance(v, list) and v and all(isinstance(x, (str, int, float)) for x in v) and k != "command"
    }
    if plain:
        parts.append("; ".join(f"{k.replace('_', ' ')}: {_cell(v)}" for k, v in plain.items()))
    return parts


def _tables(record: dict[str, Any]) -> list[str]:
    """Lists of rows, and dicts of rows, as tables."""
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
        columns = list(dict.fromkeys(k for row in named for k in row))
        lines = ["| " + " | ".join(c.replace("_", " ") for c in columns) + " |", "|" + "---|" * len(columns)]
        out.append(
            "\n".join([*lines, *("| " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for row in named)])
        )
    return out


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_cell(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(v) for v in value)
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def page(folder: Path) -> str:
    """The whole text: comparisons first, then the other measurements by name."""
    paths = sorted(folder.glob("*.json"), key=lambda p: (not p.stem.startswith("compare"), p.stem))
    return HEAD + "\n" + "\n\n".join(section(p) for p in paths) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results.md")
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    args = parser.parse_args()
    text = page(ROOT / "benchmarks" / "results")
    if args.check:
        current = args.out.exists() and args.out.read_text() == text
        print(
            f"{args.out}: "
            + ("up to date" if current else "not what benchmarks/results/ says; run python -m benchmarks.results")
        )
        return 0 if current else 1
    args.out.write_text(text)
    print(
        f"{args.out}: {text.count(chr(10))} lines from "
        f"{len(list((ROOT / 'benchmarks' / 'results').glob('*.json')))} files"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
