"""What an evaluation shows, with the uncertainty each figure has.

    greedy     one run a problem: shares
    sampled    n runs a problem: the mean over problems of their shares, its error over problems, never samples;
               unbiased pass@k. A share of some samples only (wrong reasons among the right answers) is a ratio of sums
    several    p-values of the same question on several benchmarks are Holm-adjusted
    planning   the least true difference these problems would have shown with 80% power; None where none would

Every interval is that of tracelift/stats/figures.py. Problems with a run that could not be judged leave the figure (and both sides of a comparison), and are counted.
Left out: the variance between training seeds, which one planner cannot show (benchmarks/compare.py has it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tracelift.evaluation.bench import Answers, Found, Traces, WrittenTrace
from tracelift.evaluation.power import least_detectable_difference, least_detectable_mean
from tracelift.rl.metrics import accuracy, trace_validity, wrong_reason_rate
from tracelift.stats import holm, pass_at_k
from tracelift.stats.figures import SHARE, Figure, average, difference, ratio

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


def arm_figures(answers: Answers, rules: Sequence[str], mode: str, ks: Sequence[int]) -> Figure:
    """Accuracy by the headline rule (with the others beside it), pass@k, errors, tokens."""
    out: Figure = {}
    for i, rule in enumerate(rules):
        known = [o for o in outcomes(answers, rule) if o is not None]
        shares = [s for o in known if (s := accuracy((right, None) for right in o).value) is not None]
        out["accuracy" if i == 0 else f"accuracy, {rule}"] = average(shares, SHARE)
        if i == 0 and mode != "greedy":
            for k in ks:
                out[f"pass@{k}"] = average([pass_at_k(len(o), sum(o), k) for o in known], SHARE)
    made = [a for some in answers for a in some or ()]
    out["problems"] = sum(some is not None for some in answers)
    out["unjudged"] = sum(not a.judged for a in made)
    out["executor_tokens"] = sum(a.tokens for a in made)
    return out


def trace_figures(traces: Traces, answers: Answers | None, rule: str, dimensions: Sequence[str]) -> Figure:
    """What can be said of a planner's traces. `answers`: the planner arm's, for the wrong-reason rate (over right
    samples)."""
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
        right = outcomes(answers, rule)
        wrong = [
            wrong_reason_rate((passed, w.facts.valid) for passed, w in zip(o, some, strict=True))
            for o, some in zip(right, traces, strict=True)
            if o is not None
        ]
        if wrong := [s for s in wrong if s.n]:
            out["wrong-reason rate"] = ratio([s.hits for s in wrong], [s.n for s in wrong])
    by_problem("RM score", lambda w: w.score.total if w.score else None, SHARE)
    for d, name in enumerate(dimensions):
        by_problem(f"RM {name}", lambda w, d=d: w.score.dimensions[d] if w.score else None, LABELS)
    by_problem("answer stated", lambda w: w.facts.stated, SHARE)
    by_problem("answer stated unsupported", lambda w: w.facts.unsupported, SHARE)
    by_problem("format failures", lambda w: w.trace is None, SHARE)
    by_problem("cut at the token limit", lambda w: w.finish_reason == "length", SHARE)
    by_problem("trace tokens", lambda w: w.tokens, (0.0, math.inf))
    out["unscored"] = sum(w.rm_error is not None for some in traces for w in some)
    out["planner_tokens"] = sum(w.tokens for some in traces for w in some)
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
    results: dict[str, Found],
    rules: dict[str, Sequence[str]],
    ks: Sequence[int],
    resamples: int,
    dimensions: Sequence[str] = (),
) -> Figure:
    """Figures of every benchmark and the comparisons between arms. results: benchmark name → what was found."""
    benchmarks: Figure = {}
    comparisons: list[Figure] = []
    for name, found in results.items():
        headline = rules[name][0]
        arms = {
            label: {mode: arm_figures(runs, rules[name], mode, ks) for mode, runs in modes.items()}
            for label, modes in found.arms.items()
        }
        traces = {}
        for label, modes in found.traces.items():
            own = found.arms.get("planner" if len(found.traces) == 1 else f"planner {label}", {})
            traces[label] = {mode: trace_figures(t, own.get(mode), headline, dimensions) for mode, t in modes.items()}
        benchmarks[name] = {"rules": list(rules[name]), "arms": arms, "traces": traces}
        for a, b in questions(list(found.arms)):
            for mode in found.arms[a].keys() & found.arms[b].keys():
                figure = compare(found.arms[a][mode], found.arms[b][mode], headline, resamples)
                if figure is not None:
                    comparisons.append({"benchmark": name, "mode": mode, "a": a, "b": b, **figure})
    comparisons.sort(key=lambda c: (list(results).index(c["benchmark"]), c["mode"]))
    families = {(c["a"], c["b"], c["mode"]) for c in comparisons}
    for family in families:
        members = [c for c in comparisons if (c["a"], c["b"], c["mode"]) == family]
        for c, p in zip(members, holm([c["p"] for c in members]), strict=True):
            c["p_holm"] = p
    return {"benchmarks": benchmarks, "comparisons": comparisons}
