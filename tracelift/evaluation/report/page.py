"""The evaluation as one HTML file: what was found in sentences, the arms, plots, tables, every problem by a click, settings.

The file holds its data, style and script and loads nothing. What models wrote enters as JSON in which `<` is escaped and no
number is NaN, and reaches the page as text only, under a content policy that forbids loading anything. The layout is
page.html. Left out: sorting and charts of the user's choosing; results.json and samples.jsonl are there for those.
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
from tracelift.evaluation.report.findings import findings
from tracelift.files import without_nan
from tracelift.tasks.benchmarks import Benchmark

_TEMPLATE = Path(__file__).with_name("page.html")
MADE = (  # of results.json, in the order in which the page shows it
    "command", "source", "versions", "hardware", "seed", "ranks", "systems", "executor", "reward_model", "problems",
    "problems_trained_on", "config_sha256", "config",
)  # fmt: skip
ARMS = {
    "direct": "The executor reads the problem alone: what it can do by itself.",
    "planner": "It reads the problem and the planner's trace. Minus direct: the uplift.",
    "reference": "It reads the problem and the data's own solution: what a good trace is worth.",
    "foreign": "It reads the planner's trace of another problem: what the form of a trace does without its content.",
}


def render_page(
    title: str,
    results: dict[str, Any],
    benchmarks: Sequence[Benchmark],
    found: dict[str, Found],
    dimensions: Sequence[str],
    most_samples: int = 0,
) -> str:
    """The page. results: what results.json holds; found: benchmark name → what arms.evaluate() found.

    most_samples: of each problem and arm that can be read in full, 0 for all; of the others the outcome is kept, so that
    shares and filters are over all of them.
    """
    modes = list(dict.fromkeys(m for f in found.values() for m in f.modes))
    data = {
        "modes": modes,
        "dimensions": list(dimensions),
        "benchmarks": [{"name": b.name, "problems": _problems(b, found[b.name], most_samples)} for b in benchmarks],
    }
    made = {key: results[key] for key in MADE if key in results}
    fields = {
        "TITLE": escape(title),
        "SUBTITLE": escape("; ".join(f"{b.name}: {len(b.problems)} problems" for b in benchmarks)),
        "FOUND": "".join(
            f"<h3>{escape(heading)}</h3><ul>{''.join(f'<li>{escape(s)}</li>' for s in said)}</ul>"
            for heading, said in findings({"systems": {}, **results})
        ),
        "ARMS": "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in _arms_shown(found).items()),
        "CHARTS": _charts(results, found),
        "TABLES": _tables(results),
        "COMMAND": escape(" ".join(results.get("command", []))),
        "MADE": escape(json.dumps(without_nan(made), indent=2, ensure_ascii=False)),
        "DATA": json.dumps(without_nan(data), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
    }
    # One pass: what a field holds is not searched for further fields. Halves of surrogate pairs are no characters.
    page = re.sub(r"@([A-Z]+)@", lambda m: fields[m[1]], _TEMPLATE.read_text(encoding="utf-8"))
    return page.encode("utf-8", "replace").decode()


def _arms_shown(found: dict[str, Found]) -> dict[str, str]:
    there = {label.partition(" ")[0] for f in found.values() for label in f.arms}
    return {name: text for name, text in ARMS.items() if name in there}


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
        facts = written.facts
        out |= {"valid": facts.valid, "fault": facts.fault, "step": facts.step, "leaked": facts.stated, "rm": rm}
        if answer.given is None:
            out["text"] = written.text
        if written.rm_error:
            out["unscored"] = written.rm_error
    return out


def _outcome(sample: dict[str, Any]) -> dict[str, Any]:
    """What the page's shares and filters need of a sample that is not shown."""
    out = {k: sample[k] for k in ("verdict", "valid") if k in sample} | {"left_out": True}
    return out | ({"given": None} if sample["given"] is None else {})


def colour_of(label: str, labels: Sequence[str]) -> str:
    """An arm's colour; the second planner has one of its own."""
    arm = label.partition(" ")[0]
    same = [other for other in labels if other.partition(" ")[0] == arm]
    return arm + ("2" if arm in ("planner", "foreign") and same.index(label) % 2 else "")


def _charts(results: dict[str, Any], found: dict[str, Found]) -> str:
    parts = []
    for name, bench in results["benchmarks"].items():
        labels = list(bench["arms"])
        for mode in dict.fromkeys(m for arm in bench["arms"].values() for m in arm):
            rows = [
                charts.Row(label, f["value"], f["low"], f["high"], colour_of(label, labels))
                for label, modes in bench["arms"].items()
                if mode in modes and (f := modes[mode]["accuracy"])["value"] is not None
            ]
            parts += [
                f"<h3>{escape(name)}, {mode}</h3><h4>Accuracy ({escape(bench['rules'][0])}), 95% intervals</h4>",
                charts.intervals(rows, 0.0, 1.0),
            ]
            if asked := table.asked_of(results, name, mode):
                points = [
                    charts.Row(
                        f"{c['b']} - {c['a']}",
                        100 * c["difference"],
                        100 * c["low"],
                        100 * c["high"],
                        colour_of(c["b"], labels),
                    )
                    for c in asked
                ]
                parts += [
                    "<h4>Differences in points, paired by problem</h4>",
                    charts.intervals(points, -5.0, 5.0, digits=1),
                ]
            parts += [_faults(bench, mode), _rm_charts(found[name], mode, bench["rules"][0])]
    return "\n".join(parts)


def _faults(bench: dict[str, Any], mode: str) -> str:
    """Wrong reasons among each planner's right answers, by fault."""
    rows = []
    for label, modes in bench["traces"].items():
        figures = modes.get(mode, {})
        if figures.get("wrong-reason rate") is not None:
            parts = [(k.partition(": ")[2], f["value"]) for k, f in figures.items() if k.startswith("wrong reasons: ")]
            rows.append((label, parts))
    if not rows:
        return ""
    return "<h4>Right answers on a trace that is not valid, by fault: share of right answers</h4>" + charts.stacked(
        rows
    )


def _rm_charts(found: Found, mode: str, rule: str) -> str:
    """Of each planner by itself: RM scores of traces whose answer came out right and wrong."""
    parts = []
    for label, modes in found.arms.items():
        own = found.traces_of(label)
        if mode not in modes or mode not in own:
            continue
        right: list[float] = []
        wrong: list[float] = []
        for some, written in zip(modes[mode], own[mode], strict=True):
            for answer, w in zip(some, written, strict=True) if some else ():
                if w.score and answer.judged:
                    (right if answer.passes(rule) else wrong).append(w.score.total)
        if right or wrong:
            drawn = charts.histogram([("right answer", "good", right), ("wrong answer", "bad", wrong)])
            parts.append(f"<h4>Reason RM score of the traces of {escape(label)}</h4>{drawn}")
    return "".join(parts)


def _tables(results: dict[str, Any]) -> str:
    parts = []
    for name, bench in results["benchmarks"].items():
        for mode in dict.fromkeys(m for arm in bench["arms"].values() for m in arm):
            parts.append(f"<h3>{escape(name)}, {mode}, 95% intervals</h3>")
            rows = [table.arm_rows(bench, mode)]
            if any(mode in t for t in bench["traces"].values()):
                rows.append(table.trace_rows(bench, mode))
            asked = table.asked_of(results, name, mode)
            parts += map(html_table, [*rows, *([table.comparison_rows(asked)] if asked else [])])
            if any(c["least_detectable"] is None for c in asked):
                parts.append(f'<p class="muted">{table.UNSEEN}</p>')
            if cost := table.cost_rows(bench, mode):
                parts.append(html_table(cost))
    if asked := results.get("run_comparisons"):
        parts += ["<h3>Sets of runs</h3>", html_table(table.run_rows(asked)), f'<p class="muted">{table.LEAST_P}</p>']
    return "\n".join(parts)


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first the heading, as a table that scrolls by itself where it is wide."""
    head = "".join(f"<th>{escape(c)}</th>" for c in rows[0])
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(c)}</td>' for c in rest)}</tr>"
        for first, *rest in rows[1:]
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
