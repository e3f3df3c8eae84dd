"""What an evaluation shows, with the uncertainty each figure has.

    greedy     one run a problem: shares
    votes      maj@k, where answers can be told apart (votes.py)
    sampled    n runs a problem: the mean over problems of their shares, its error over problems, never samples;
               unbiased pass@k. A share of some samples only (wrong reasons among the right answers) is a ratio of sums
    runs       several planners a side: the run is the unit (runs.py)
    several    p-values of the same question on several benchmarks are Holm-adjusted
    planning   the least true difference these problems would have shown with 80% power; None where none would

Every interval is that of tracelift/stats/figures.py. Problems with a run that could not be judged leave the figure (and both sides of a comparison), and are counted.
Left out: the variance between training seeds, which one planner cannot show (runs.py has it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tracelift.evaluation.bench import Answers, Found, Traces, WrittenTrace
from tracelift.evaluation.figures.power import least_detectable_difference, least_detectable_mean
from tracelift.evaluation.figures.votes import VOTING, majority
from tracelift.evaluation.spending import Spent
from tracelift.evaluation.verdicts import RULES
from tracelift.rl.metrics import accuracy, trace_validity, wrong_reason_rate, wrong_reasons_by_fault
from tracelift.stats import pass_at_k
from tracelift.stats.figures import SHARE, Figure, adjust, average, difference, ratio

POWER = 0.8
LABELS = (0.0, 4.0)  # of a rubric dimension


def outcomes(answers: Answers, rule: str) -> list[list[bool] | None]:
    """Per problem, whether each sample passes under `rule`; None where the problem has no run or an unjudged one."""
    return [
        [a.passes(rule) for a in some] if some is not None and all(a.judged for a in some) else None for some in answers
    ]


def letters(problem_ids: Sequence[str], found: Found, rule: str) -> dict[str, Any]:
    """Each problem's outcomes in a string, one letter a sample: 1 right, 0 wrong, - not run or not judged. Likewise
    whether the planner's traces are valid. Enough to compare this evaluation with any other of the same problems."""

    def string(values: Sequence[bool | None]) -> str:
        return "".join("-" if v is None else "01"[v] for v in values)

    arms = {
        label: {mode: [string(o or [None]) for o in outcomes(answers, rule)] for mode, answers in modes.items()}
        for label, modes in found.arms.items()
    }
    valid = {
        label: {mode: [string([w.facts.valid for w in some]) for some in traces] for mode, traces in modes.items()}
        for label, modes in found.traces.items()
    }
    return {"problems": list(problem_ids), "rule": rule, "arms": arms, "valid": valid}


def arm_figures(answers: Answers, kind: str, mode: str, ks: Sequence[int], spent: Spent | None = None) -> Figure:
    """Accuracy by the headline rule of the kind of problem (with the others beside it), pass@k and maj@k, errors, cost."""
    rules = RULES[kind]
    out: Figure = {}
    for i, rule in enumerate(rules):
        known = [o for o in outcomes(answers, rule) if o is not None]
        shares = [s for o in known if (s := accuracy((right, None) for right in o).value) is not None]
        out["accuracy" if i == 0 else f"accuracy, {rule}"] = average(shares, SHARE)
        if i == 0 and mode != "greedy":
            for k in ks:
                out[f"pass@{k}"] = average([pass_at_k(len(o), sum(o), k) for o in known], SHARE)
            judged = [some for some in answers if some is not None and all(a.judged for a in some)]
            for k in ks if kind in VOTING else ():
                if k > 2:  # of one or two, the vote is a draw of one
                    out[f"maj@{k}"] = average([majority(some, rule, kind, k) for some in judged], SHARE)
    made = [a for some in answers for a in some or ()]
    out["problems"] = sum(some is not None for some in answers)
    out["unjudged"] = sum(not a.judged for a in made)
    out["cost"] = spent
    return out


def trace_figures(
    traces: Traces, answers: Answers | None, rule: str, dimensions: Sequence[str], spent: Spent | None = None
) -> Figure:
    """What can be said of a planner's traces. `answers`: the planner arm's, for the wrong-reason rate (over right
    samples). spent: what writing them took."""
    out: Figure = {}

    def by_problem(name: str, value: Callable[[WrittenTrace], float | None], bounds: tuple[float, float]) -> None:
        """The mean over problems of means over samples; samples for which `value` is None do not count."""
        known = [[float(v) for w in some if (v := value(w)) is not None] for some in traces]
        if means := [sum(values) / len(values) for values in known if values]:
            out[name] = average(means, bounds)

    validity = [trace_validity((None, w.facts.valid) for w in some) for some in traces]
    if known := [share for s in validity if (share := s.value) is not None]:
        out["trace validity"] = average(known, SHARE)
    if answers is not None:
        out |= _wrong_reasons(traces, outcomes(answers, rule))
    by_problem("RM score", lambda w: w.score.total if w.score else None, SHARE)
    for d, name in enumerate(dimensions):
        by_problem(f"RM {name}", lambda w, d=d: w.score.dimensions[d] if w.score else None, LABELS)
    by_problem("answer stated", lambda w: w.facts.stated, SHARE)
    by_problem("answer stated unsupported", lambda w: w.facts.unsupported, SHARE)
    by_problem("format failures", lambda w: w.trace is None, SHARE)
    by_problem("cut at the token limit", lambda w: w.finish_reason == "length", SHARE)
    by_problem("trace tokens", lambda w: w.tokens, (0.0, math.inf))
    out["unscored"] = sum(w.rm_error is not None for some in traces for w in some)
    out["cost"] = spent
    return out


def _wrong_reasons(traces: Traces, right: Sequence[list[bool] | None]) -> Figure:
    """The wrong-reason rate over right samples, and its parts by fault, the greatest first; nothing where no truth is
    known. right: of each problem's samples, None where one was not judged."""
    rows = [
        [(passed, w.facts.valid, w.facts.fault) for passed, w in zip(o, some, strict=True)]
        for o, some in zip(right, traces, strict=True)
        if o is not None
    ]
    rates = [wrong_reason_rate((passed, valid) for passed, valid, _ in row) for row in rows]
    rows, rates = [r for r, s in zip(rows, rates, strict=True) if s.n], [s for s in rates if s.n]
    if not rates:
        return {}
    sizes, parts = [s.n for s in rates], [wrong_reasons_by_fault(row) for row in rows]
    out: Figure = {"wrong-reason rate": ratio([s.hits for s in rates], sizes)}
    for fault in wrong_reasons_by_fault(sample for row in rows for sample in row):
        out[f"wrong reasons: {fault}"] = ratio([p[fault].hits if fault in p else 0 for p in parts], sizes)
    return out


def compare(a: Answers, b: Answers, rule: str, resamples: int) -> Figure | None:
    """b − a on the problems both have judged: difference with interval, p, and what could have been seen (None: nothing).
    None without any problem. The interval holds zero where p > 0.05, and only there."""
    pairs = [
        (x, y) for x, y in zip(outcomes(a, rule), outcomes(b, rule), strict=True) if x is not None and y is not None
    ]
    if not pairs:
        return None
    means = [(sum(x) / len(x), sum(y) / len(y)) for x, y in pairs]
    figure = difference([x for x, _ in means], [y for _, y in means], resamples)
    if "gained" in figure:
        seen = (figure["gained"] + figure["lost"]) / figure["n"]
        return figure | {"least_detectable": least_detectable_difference(figure["n"], seen, POWER)}
    return figure | {"least_detectable": least_detectable_mean([y - x for x, y in means], POWER)}


def questions(labels: Sequence[str]) -> list[tuple[str, str]]:
    """(a, b) of every comparison b − a that the arms at hand can answer."""
    planners = [label for label in labels if label.split(" ")[0] == "planner"]
    pairs = [("direct", p) for p in planners]
    pairs += [(p.replace("planner", "foreign", 1), p) for p in planners]
    pairs += [(p, "reference") for p in planners]
    pairs += [(planners[1], planners[0])] if len(planners) == 2 else []
    return [(a, b) for a, b in pairs if a in labels and b in labels]


def analyse(
    results: dict[str, Found], kinds: dict[str, str], ks: Sequence[int], resamples: int, dimensions: Sequence[str] = ()
) -> Figure:
    """Figures of every benchmark and the comparisons between arms. results: benchmark name → what was found; kinds: → the
    kind of its problems (tracelift/evaluation/verdicts.py)."""
    benchmarks: Figure = {}
    comparisons: list[Figure] = []
    for name, found in results.items():
        rules = RULES[kinds[name]]
        headline = rules[0]
        arms = {
            label: {
                mode: arm_figures(runs, kinds[name], mode, ks, found.arm_costs.get(label, {}).get(mode))
                for mode, runs in modes.items()
            }
            for label, modes in found.arms.items()
        }
        traces = {}
        for label, modes in found.traces.items():
            own = found.arms.get("planner" if len(found.traces) == 1 else f"planner {label}", {})
            spent = found.trace_costs.get(label, {})
            traces[label] = {
                mode: trace_figures(t, own.get(mode), headline, dimensions, spent.get(mode))
                for mode, t in modes.items()
            }
        benchmarks[name] = {"rules": list(rules), "arms": arms, "traces": traces}
        for a, b in questions(list(found.arms)):
            for mode in found.arms[a].keys() & found.arms[b].keys():
                figure = compare(found.arms[a][mode], found.arms[b][mode], headline, resamples)
                if figure is not None:
                    comparisons.append({"benchmark": name, "mode": mode, "a": a, "b": b, **figure})
    comparisons.sort(key=lambda c: (list(results).index(c["benchmark"]), c["mode"]))
    adjust(comparisons, "a", "b", "mode")
    return {"benchmarks": benchmarks, "comparisons": comparisons}
