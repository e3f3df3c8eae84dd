"""The evaluation as one HTML file: plots, the table, and every problem's trace, artifact, verdict and RM scores by a
click.

The file holds its data, style and script and loads nothing. What models wrote enters as JSON in which `<` is escaped
and reaches the page as text only, under a content policy that forbids loading anything. The layout is page.html.
Left out: sorting and charts of the user's choosing; results.json is there for those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from tracelift.evaluation import charts, table
from tracelift.evaluation.records import Record
from tracelift.tasks.benchmarks import Benchmark

_TEMPLATE = Path(__file__).with_name("page.html")


def render_page(
    title: str,
    results: dict[str, Any],
    benchmarks: Sequence[Benchmark],
    found: dict[str, Record],
    dimensions: Sequence[str],
    most_samples: int = 0,
) -> str:
    """The page. results: analyse()'s, with command and versions; found: benchmark name → arms.evaluate()'s record.

    most_samples: of each problem and arm that can be read in full, 0 for all; of the others the outcome is kept, so that
    shares and filters are over all of them.
    """
    modes = list(dict.fromkeys(m for f in found.values() for arm in f["arms"].values() for m in arm))
    data = {
        "modes": modes,
        "dimensions": list(dimensions),
        "benchmarks": [{"name": b.name, "problems": _problems(b, found[b.name], most_samples)} for b in benchmarks],
    }
    made = {
        k: results[k] for k in ("command", "versions", "systems", "executor", "reward_model", "seed") if k in results
    }
    fields = {
        "TITLE": escape(title),
        "SUBTITLE": escape("; ".join(f"{b.name}: {len(b.problems)} problems" for b in benchmarks)),
        "CHARTS": _charts(results, found),
        "TABLE": escape(table.render(results)),
        "MADE": escape(json.dumps(made, indent=2)),
        "DATA": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
    }
    # One pass: what a field holds is not searched for further fields.
    return re.sub(r"@([A-Z]+)@", lambda m: fields[m[1]], _TEMPLATE.read_text(encoding="utf-8"))


def _problems(benchmark: Benchmark, found: Record, most: int) -> list[dict[str, Any]]:
    out = []
    for i, p in enumerate(benchmark.problems):
        arms: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for label, modes in found["arms"].items():
            for mode, runs in modes.items():
                if runs[i] is not None:
                    own = _own_traces(found, label, mode, i)
                    samples = [
                        _sample(s, given, own[j] if own else None)
                        for j, (s, given) in enumerate(zip(runs[i]["samples"], runs[i]["given"], strict=True))
                    ]
                    shown = most or len(samples)
                    arms.setdefault(label, {})[mode] = samples[:shown] + [_outcome(s) for s in samples[shown:]]
        out.append({"id": p.problem_id, "problem": p.task.problem, "reference": p.task.reference, "arms": arms})
    return out


def _own_traces(found: Record, label: str, mode: str, i: int) -> list[Record] | None:
    """The facts about the traces an arm was given, where they are the planner's for this very problem."""
    name, _, planner = label.partition(" ")
    if name != "planner":
        return None
    return found["traces"][planner or next(iter(found["traces"]))][mode][i]["samples"]


def _sample(run: Record, given: str | None, facts: Record | None) -> dict[str, Any]:
    verdicts = run["verdicts"]
    out = {
        "given": given,
        "artifact": run["artifact"],
        "verdict": next(iter(verdicts.values()), "ERROR"),
        "detail": run["detail"],
    }
    if len(verdicts) > 1:
        out["verdicts"] = verdicts
    if facts is not None:
        out |= {"valid": facts["valid"], "leaked": facts["leaked"], "rm": facts["rm"]}
        if given is None:
            out["text"] = facts["text"]
        if facts["rm_error"]:
            out["unscored"] = facts["rm_error"]
    return out


def _outcome(sample: dict[str, Any]) -> dict[str, Any]:
    """What the page's shares and filters need of a sample that is not shown."""
    out = {k: sample[k] for k in ("verdict", "valid") if k in sample} | {"left_out": True}
    return out | ({"given": None} if sample["given"] is None else {})


def _charts(results: dict[str, Any], found: dict[str, Record]) -> str:
    parts = []
    for name, bench in results["benchmarks"].items():
        for mode in dict.fromkeys(m for arm in bench["arms"].values() for m in arm):
            rows = [
                (label, f["value"], f["low"], f["high"])
                for label, modes in bench["arms"].items()
                if mode in modes and (f := modes[mode]["accuracy"])["value"] is not None
            ]
            parts += [
                f"<h2>{escape(name)}, {mode}</h2><h3>Accuracy ({escape(bench['rules'][0])}), 95% intervals</h3>",
                charts.intervals(rows, 0.0, 1.0),
            ]
            asked = [c for c in results["comparisons"] if c["benchmark"] == name and c["mode"] == mode]
            if asked:
                points = [
                    (f"{c['b']} - {c['a']}", 100 * c["difference"], 100 * c["low"], 100 * c["high"]) for c in asked
                ]
                most = max(5.0, *(abs(v) for row in points for v in row[1:]))
                parts += [
                    "<h3>Differences in points, paired by problem</h3>",
                    charts.intervals(points, -most, most, zero=True),
                ]
            parts.append(_rm_chart(found[name], mode, bench["rules"][0]))
    return "\n".join(parts)


def _rm_chart(found: Record, mode: str, rule: str) -> str:
    """RM scores of traces whose answer came out right and wrong."""
    right: list[float] = []
    wrong: list[float] = []
    for label, modes in found["arms"].items():
        if label.split(" ")[0] != "planner" or mode not in modes:
            continue
        for i, run in enumerate(modes[mode]):
            for s, facts in zip(run["samples"] if run else [], _own_traces(found, label, mode, i) or [], strict=False):
                if facts["rm"] and s["verdicts"]:
                    (right if s["verdicts"][rule] == "PASS" else wrong).append(facts["rm"]["total"])
    if not right and not wrong:
        return ""
    drawn = charts.histogram([("right answer", "#1f6f8b", right), ("wrong answer", "#d1495b", wrong)])
    return "<h3>Reason RM score of the planner's traces</h3>" + drawn
