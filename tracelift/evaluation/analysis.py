"""What an evaluation shows, with the uncertainty each figure has.

    greedy     one run a problem: Wilson intervals; two arms by McNemar's exact test and Bonett and Price's interval
    sampled    n runs a problem: the mean over problems of their shares, ± 1.96 standard errors *over problems*;
               unbiased pass@k; two arms by sign flips of the problems' differences and a paired bootstrap, both over
               problems, never samples. A share of some samples only (wrong reasons among the right answers) is a ratio
               of sums, its error over problems too
    several    p-values of the same question on several benchmarks are Holm-adjusted
    planning   the least true difference these problems would have shown with 80% power; None where none would

Problems with a run that could not be judged leave the figure (and both sides of a comparison), and are counted.
Left out: the variance between training seeds, which one planner cannot show (benchmarks/compare.py has it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

from tracelift.evaluation.bench import Answers, Found, Traces, WrittenTrace
from tracelift.evaluation.power import least_detectable_difference, least_detectable_mean
from tracelift.rl.metrics import Share, accuracy, trace_validity, wrong_reason_rate
from tracelift.stats import holm, mcnemar_exact, paired_bootstrap, paired_interval, pass_at_k, variance, wilson

Figure = dict[str, Any]
POWER = 0.8
FEW = 10  # problems: too few for a spread over them to be trusted alone
_Z = NormalDist().inv_cdf(0.975)


def share(found: Share) -> Figure:
    """A proportion with its Wilson interval."""
    low, high = wilson(found.hits, found.n)
    return {"value": found.value if found.n else None, "low": low, "high": high, "n": found.n}


def pooled(shares: Sequence[Share]) -> Share:
    return Share(sum(s.hits for s in shares), sum(s.n for s in shares))


def average(values: Sequence[float], bounds: tuple[float, float] | None = None) -> Figure:
    """A mean ± 1.96 standard errors over the values, one a problem; shares where `bounds` = (0, 1). No interval for a
    single value without bounds."""
    if not values:
        return {"value": None, "low": None, "high": None, "n": 0}
    if bounds == (0.0, 1.0):
        return ratio(values, [1] * len(values))
    m = math.fsum(values) / len(values)
    half = _Z * deviation(values) / math.sqrt(len(values))
    low, high = (m - half, m + half) if len(values) > 1 else (None, None)
    return {"value": m, "low": low, "high": high, "n": len(values)}


def ratio(hits: Sequence[float], sizes: Sequence[float]) -> Figure:
    """Hits of all groups over their sizes together, ± 1.96 standard errors over the groups, which are what is independent:
    the ratio estimator, linearised (Cochran, 1977, 6.3). Groups of one size give `average`'s figure.

    Groups that are few, or all alike, show less spread than there is: then it is at least Wilson's interval over groups.
    """
    n = len(sizes)
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0}
    value, size = math.fsum(hits) / math.fsum(sizes), math.fsum(sizes) / n
    half = _Z * deviation([(h - value * s) / size for h, s in zip(hits, sizes, strict=True)]) / math.sqrt(n)
    low, high = max(0.0, value - half), min(1.0, value + half)
    if n < FEW or half < 1e-9:
        whole = value * n  # of whole groups that hit: the next smaller number below, the next larger one above
        low = min(low, wilson(math.floor(whole + 1e-9), n)[0])
        high = max(high, wilson(math.ceil(whole - 1e-9), n)[1])
    return {"value": value, "low": low, "high": high, "n": n}


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for fewer than two values."""
    return math.sqrt(variance(values)) if len(values) > 1 else 0.0


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
        shares = [accuracy((right, None) for right in o) for o in known]
        figure = share(pooled(shares)) if mode == "greedy" else average([s.value for s in shares], (0.0, 1.0))
        out["accuracy" if i == 0 else f"accuracy, {rule}"] = figure
        if i == 0 and mode != "greedy":
            for k in ks:
                out[f"pass@{k}"] = average([pass_at_k(len(o), sum(o), k) for o in known], (0.0, 1.0))
    made = [a for some in answers for a in some or ()]
    out["problems"] = sum(some is not None for some in answers)
    out["unjudged"] = sum(not a.judged for a in made)
    out["executor_tokens"] = sum(a.tokens for a in made)
    return out


def trace_figures(traces: Traces, answers: Answers | None, rule: str, dimensions: Sequence[str]) -> Figure:
    """What can be said of a planner's traces. `answers`: the planner arm's, for the wrong-reason rate (over right
    samples)."""
    out: Figure = {}

    def by_problem(name: str, value: Callable[[WrittenTrace], float | None]) -> None:
        """The mean over problems of means over samples; samples for which `value` is None do not count."""
        known = [[float(v) for w in some if (v := value(w)) is not None] for some in traces]
        if means := [sum(values) / len(values) for values in known if values]:
            out[name] = average(means)

    def share_by_problem(name: str, shares: Sequence[Share], single: bool) -> None:
        """Likewise of what is so or not; `single`: a problem has but one sample."""
        if known := [s for s in shares if s.n]:
            out[name] = share(pooled(known)) if single else average([s.value for s in known], (0.0, 1.0))

    def flag(name: str, value: Callable[[WrittenTrace], bool | None]) -> None:
        told = [[v for w in some if (v := value(w)) is not None] for some in traces]
        share_by_problem(name, [Share.of(values) for values in told], single)

    single = all(len(some) == 1 for some in traces)
    share_by_problem("trace validity", [trace_validity((None, w.facts.valid) for w in some) for some in traces], single)
    if answers is not None:
        right = outcomes(answers, rule)
        wrong = [
            wrong_reason_rate((passed, w.facts.valid) for passed, w in zip(o, some, strict=True))
            for o, some in zip(right, traces, strict=True)
            if o is not None
        ]
        wrong = [s for s in wrong if s.n]
        if wrong and all(s.n == 1 for s in wrong):
            out["wrong-reason rate"] = share(pooled(wrong))
        elif wrong:
            out["wrong-reason rate"] = ratio([s.hits for s in wrong], [s.n for s in wrong])
    by_problem("RM score", lambda w: w.score.total if w.score else None)
    for d, name in enumerate(dimensions):
        by_problem(f"RM {name}", lambda w, d=d: w.score.dimensions[d] if w.score else None)
    flag("answer stated", lambda w: w.facts.stated)
    flag("answer stated unsupported", lambda w: w.facts.unsupported)
    flag("format failures", lambda w: w.trace is None)
    flag("cut at the token limit", lambda w: w.finish_reason == "length")
    by_problem("trace tokens", lambda w: w.tokens)
    out["unscored"] = sum(w.rm_error is not None for some in traces for w in some)
    out["planner_tokens"] = sum(w.tokens for some in traces for w in some)
    return out


def compare(a: Answers, b: Answers, rule: str, mode: str, resamples: int) -> Figure | None:
    """b − a on the problems both have judged: difference with interval, p, and what could have been seen (None: nothing).
    None without any. The interval holds zero where p > 0.05."""
    pairs = [
        (x, y) for x, y in zip(outcomes(a, rule), outcomes(b, rule), strict=True) if x is not None and y is not None
    ]
    if not pairs:
        return None
    means = [(sum(x) / len(x), sum(y) / len(y)) for x, y in pairs]
    n = len(pairs)
    if mode == "greedy":
        lost, gained = sum(x > y for x, y in means), sum(y > x for x, y in means)
        low, high = paired_interval(gained, lost, n)
        return {
            "n": n,
            "difference": (gained - lost) / n,
            "low": low,
            "high": high,
            "test": "McNemar exact",
            "p": mcnemar_exact(lost, gained),
            "gained": gained,
            "lost": lost,
            "least_detectable": least_detectable_difference(n, (lost + gained) / n, POWER),
        }
    boot = paired_bootstrap([x for x, _ in means], [y for _, y in means], resamples=resamples)
    return {
        "n": n,
        "difference": boot.difference,
        "low": boot.low,
        "high": boot.high,
        "test": "sign flips over problems",
        "p": boot.p,
        "least_detectable": least_detectable_mean([y - x for x, y in means], POWER),
    }


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
                figure = compare(found.arms[a][mode], found.arms[b][mode], headline, mode, resamples)
                if figure is not None:
                    comparisons.append({"benchmark": name, "mode": mode, "a": a, "b": b, **figure})
    comparisons.sort(key=lambda c: (list(results).index(c["benchmark"]), c["mode"]))
    families = {(c["a"], c["b"], c["mode"]) for c in comparisons}
    for family in families:
        members = [c for c in comparisons if (c["a"], c["b"], c["mode"]) == family]
        for c, p in zip(members, holm([c["p"] for c in members]), strict=True):
            c["p_holm"] = p
    return {"benchmarks": benchmarks, "comparisons": comparisons}
