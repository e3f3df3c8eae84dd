"""The tables of docs/kernels.md from what benchmarks/kernels.py recorded, and which goals are met.

The goals are those of docs/kernels.md; a GPU goal names the device it was set for and is judged on that one only. Left out: any measuring.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "benchmarks/results", ROOT / "docs/kernels.md"


def render(record: dict) -> str:
    """Markdown tables of one record."""
    when = f"; {record['date']}, `{record['command']}`" if "date" in record else ""
    load = f", load average {record['load_average']:.1f} on {record['cores']} cores" if "load_average" in record else ""
    lines = [
        f"Device: {record['device']}{load}; torch {record['versions']['torch']}, Triton {record['versions']['triton']}, "
        f"TRL {record['versions']['trl']}, Liger {record['versions']['liger_kernel']}; {record['time']}{when}. "
        f"Ceilings of the same run: copy {record['ceilings']['bytes'] / 1e9:.1f} GB/s, "
        + ", ".join(
            f"product {v / 1e9:,.0f} GFLOP/s in {k.split('.')[-1]}"
            for k, v in record["ceilings"].items()
            if k.startswith("FLOP")
        )
        + ".",
        "",
    ]
    for task in record["tasks"]:
        eager = row_of(task, "eager PyTorch")
        shape = f"{task['N']:,} × {task['V']:,}" + (f", H {task['H']}" if task["H"] else "")
        shape += ", with entropy" if task["H"] and task["entropy"] else ""
        lines += [
            f"**From {task['name']}, {shape}, {task['dtype']}**",
            "",
            "| | forward ms | of ceiling | + backward ms | of ceiling | × eager | peak MB | × eager | gradient error | compiled |",
            "|---" * 10 + "|",
        ]
        for r in task["rows"]:
            if r["seconds"] is None:
                lines.append(f"| {r['contender']} | – | | | | | | | {r['absent']} | |")
                continue
            lines.append(
                f"| {r['contender']} | {r['forward_seconds'] * 1e3:.1f} | {share(task, r, forward=True):.0%} | "
                f"{r['seconds'] * 1e3:.1f} | {share(task, r):.0%} | {r['seconds'] / eager['seconds']:.2f} | "
                f"{r['peak_bytes'] / 1e6:.0f} | {r['peak_bytes'] / eager['peak_bytes']:.2f} | {r['error']:.1e} | {r['variants']} |"
            )
        lines.append("")
        if task["H"]:
            rows, whole = task["row_kernel_seconds"], row_of(task, "ours, linear_loss")["seconds"]
            lines += [
                f"Row kernels alone: {rows * 1e3:.1f} ms. A policy loss fused into one sweep (4V bytes for 6V) could save a "
                f"third of that, {rows / 3 / whole:.1%} of `linear_loss`.",
                "",
            ]
    return "\n".join([*lines, *shape_lines(record), *goal_lines(record)])


def shape_lines(record: dict) -> list[str]:
    """Ours over eager PyTorch at every shape that was measured, a table for each number of threads."""
    lines = []
    for threads in sorted({s["threads"] for s in record.get("shapes", ())}):
        found = [s for s in record["shapes"] if s["threads"] == threads]
        kinds = list(dict.fromkeys((s["dtype"], s["rows"]) for s in found))
        clock = "CPU time, 1 thread" if threads == 1 else f"wall time, {threads} threads"
        lines += [
            f"**Ours over eager PyTorch, log-prob + entropy, forward + backward**: {clock}, median and quartiles of "
            f"{record['shape_rounds']} rounds; the larger of the peak memories' ratios",
            "",
            "| | " + " | ".join(f"{dtype}, {rows}" for dtype, rows in kinds) + " | memory |",
            "|---" * (len(kinds) + 2) + "|",
        ]
        for N, V in dict.fromkeys((s["N"], s["V"]) for s in found):
            here = {(s["dtype"], s["rows"]): s for s in found if (s["N"], s["V"]) == (N, V)}
            cells = [f"{s['time']:.2f} ({s['low']:.2f}–{s['high']:.2f})" for s in (here[k] for k in kinds)]
            memory = max(s["memory"] for s in here.values())
            lines.append(f"| {N:,} × {V:,} | " + " | ".join(cells) + f" | {memory:.2f} |")
        lines.append("")
    return lines


def row_of(task: dict, contender: str) -> dict:
    return next(r for r in task["rows"] if r["contender"] == contender)


def share(task: dict, row: dict, forward: bool = False) -> float:
    """Of the ceiling measured in the same run: the least bytes or FLOPs of the task over the time taken."""
    return (
        task["forward_floor" if forward else "floor"]
        / row["forward_seconds" if forward else "seconds"]
        / task["ceiling"]
    )


# -- goals ------------------------------------------------------------------------------------------------------------

Figure = Callable[[dict, dict, dict], float]  # (task, our row, eager's row) -> the figure that must not exceed the goal


def _ms(task: dict, ours: dict, eager: dict) -> float:
    return ours["seconds"] * 1e3


def _forward_ms(task: dict, ours: dict, eager: dict) -> float:
    return ours["forward_seconds"] * 1e3


def _time(task: dict, ours: dict, eager: dict) -> float:
    return ours["seconds"] / eager["seconds"]


def _memory(task: dict, ours: dict, eager: dict) -> float:
    return ours["peak_bytes"] / eager["peak_bytes"]


# (device it was set for, task, dtype, V, contender, what, figure, at most, unit)
GOALS: list[tuple[str, str, str, int, str, str, Figure, float, str]] = [
    ("CPU", "logits", "float32", 151_936, "ours", "time, forward + backward, × eager", _time, 0.6, ""),
    ("CPU", "logits", "float32", 151_936, "ours", "peak memory, × eager", _memory, 0.5, ""),
    (
        "H200",
        "logits",
        "bfloat16",
        151_936,
        "ours",
        "log-prob + entropy forward, 8,192 × 151,936",
        _forward_ms,
        0.58,
        " ms",
    ),
    ("H200", "logits", "bfloat16", 151_936, "ours", "the same, forward + backward", _ms, 1.75, " ms"),
    (
        "H100",
        "hidden",
        "bfloat16",
        131_072,
        "ours, linear_loss",
        "from hidden, H 4,096, V 131,072, 8,192 tokens",
        _ms,
        65,
        " ms",
    ),
]


def goal_lines(record: dict) -> list[str]:
    """One table row a goal whose task was measured: the figure, and met, not met, or set for another device."""
    lines = []
    for device, name, dtype, V, contender, what, figure, most, unit in GOALS:
        task = next((t for t in record["tasks"] if (t["name"], t["dtype"], t["V"]) == (name, dtype, V)), None)
        if task is None or ("CPU" in record["device"]) != (device == "CPU"):
            continue
        value = figure(task, row_of(task, contender), row_of(task, "eager PyTorch"))
        verdict = ("met" if value <= most else "**not met**") if device in record["device"] else f"set for an {device}"
        lines.append(f"| {what} | {most:g}{unit} | {value:.2f}{unit} | {verdict} |")
    for what, key, most in (("time", "time", 1.0), ("peak memory", "memory", 0.5)):
        if record.get("shapes"):
            value = max(s[key] for s in record["shapes"])
            verdict = "met" if value <= most else "**not met**"
            lines.append(f"| the largest of all shapes: {what}, × eager | {most:g} | {value:.2f} | {verdict} |")
    return ["| goal | at most | measured | |", "|---|---|---|---|", *lines, ""] if lines else []


def write_tables() -> None:
    text = DOCS.read_text()
    for kind in ("cpu", "gpu"):
        file, begin, end = RESULTS / f"kernels_{kind}.json", f"<!-- {kind} table -->", f"<!-- end of {kind} table -->"
        if file.exists():
            head, rest = text.split(begin)
            text = head + begin + "\n" + render(json.loads(file.read_text())) + end + rest.split(end)[1]
    DOCS.write_text(text)
