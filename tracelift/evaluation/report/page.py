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

from tracelift.evaluation import table
from tracelift.evaluation.bench import Answer, Found, WrittenTrace
from tracelift.evaluation.report import charts
from tracelift.tasks.benchmarks import Benchmark

_TEMPLATE = Path(__file__).with_name("page.html")


def render_page(
    title: str,
    results: dict[str, Any],
    benchmarks: Sequence[Benchmark],
    found: dict[str, Found],
    dimensions: Sequence[str],
    most_samples: int = 0,
) -> str:
    """The page. results: analyse()'s, with command and versions; found: benchmark name → what arms.evaluate() found.

    most_samples: of each problem and arm that can be read in full, 0 for all; of the others the outcome is kept, so that
    shares and filters are over all of them.
    """
    modes = list(dict.fromkeys(m for f in found.values() for m in f.modes))
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


def _problems(benchmark: Benchmark, found: Found, most: int) -> list[dict[str, Any]]:
    out = []
    for i, p in enumerate(benchmark.problems):
        arms: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for label, modes in found.arms.items():
            own = found.traces_of(label)
            for mode, answers in modes.items():
                if (some := answers[i]) is not None:
                    written = own[mode][i] if own else [None] * len(some)
                    samples = [_sample(answer, w) for answer, w in zip(some, written, strict=True)]
                    shown = most or len(samples)
                    arms.setdefault(label, {})[mode] = samples[:shown] + [_outcome(s) for s in samples[shown:]]
        out.append({"id": p.problem_id, "problem": p.task.problem, "reference": p.task.reference, "arms": arms})
    return out


def _sample(answer: Answer, written: WrittenTrace | None) -> dict[str, Any]:
    """One run, with what is known of the trace it read, where that is the planner's for this very problem."""
    verdicts = {rule: verdict.name for rule, verdict in answer.verdicts.items()}
    out = {
        "given": answer.given,
        "artifact": answer.artifact,
        "verdict": next(iter(verdicts.values()), "ERROR"),
        "detail": answer.detail,
    }
    if len(verdicts) > 1:
        out["verdicts"] = verdicts
    if written is not None:
        rm = {"total": written.score.total, "dimensions": written.score.dimensions} if written.score else None
        out |= {"valid": written.facts.valid, "leaked": written.facts.stated, "rm": rm}
        if answer.given is None:
            out["text"] = written.text
        if written.rm_error:
            out["unscored"] = written.rm_error
    return out


def _outcome(sample: dict[str, Any]) -> dict[str, Any]:
    """What the page's shares and filters need of a sample that is not shown."""
    out = {k: sample[k] for k in ("verdict", "valid") if k in sample} | {"left_out": True}
    return out | ({"given": None} if sample["given"] is None else {})


def _charts(results: dict[str, Any], found: dict[str, Found]) -> str:
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


def _rm_chart(found: Found, mode: str, rule: str) -> str:
    """RM scores of traces whose answer came out right and wrong."""
    right: list[float] = []
    wrong: list[float] = []
    for label, modes in found.arms.items():
        own = found.traces_of(label)
        if mode not in modes or mode not in own:
            continue
        for some, written in zip(modes[mode], own[mode], strict=True):
            for answer, w in zip(some, written, strict=True) if some else ():
                if w.score and answer.verdicts:
                    (right if answer.passes(rule) else wrong).append(w.score.total)
    if not right and not wrong:
        return ""
    drawn = charts.histogram([("right answer", "#1f6f8b", right), ("wrong answer", "#d1495b", wrong)])
    return "<h3>Reason RM score of the planner's traces</h3>" + drawn
