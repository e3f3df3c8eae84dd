"""Two sets of training runs of one arm each, compared with the run as the unit: eval.py's several runs, benchmarks/compare.

What a run is worth on each problem comes from its outcomes (one letter a sample); a set's figure is the mean over its runs.
p is exact over all ways to deal the runs out, the interval is Welch's over the runs, widened by the variance of the
difference over problems, so that it speaks of other problems too. Left out: one run against another, which
analysis.compare does problem by problem.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tracelift.stats import permutation_exact, welch
from tracelift.stats.figures import deviation

Values = list[float | None]  # a figure's value on each problem, None where it has none
FIGURES = ("accuracy", "trace_validity", "wrong_reason_rate")


def means(strings: Sequence[str]) -> Values:
    """Each problem's share of right samples; None where one was not judged."""
    return [None if "-" in s else s.count("1") / len(s) for s in strings]


def per_problem(right: Sequence[str], valid: Sequence[str] | None) -> dict[str, Values]:
    """Figure → its value on each problem, of one run's outcomes (analysis.letters).

    The wrong-reason rate is a ratio of counts that both vary over problems, so its values are the linearised ones
    (Cochran, 1977, 6.3): their mean is the rate, their spread that of the rate.
    """
    out = {"accuracy": means(right)}
    if valid is None:
        return out
    if any(set(s) - {"-"} for s in valid):
        out["trace_validity"] = [means([s.replace("-", "")])[0] if set(s) - {"-"} else None for s in valid]
    pairs = [
        [v for r, v in zip(rs, vs, strict=False) if r == "1" and v != "-"] for rs, vs in zip(right, valid, strict=True)
    ]
    if hits := sum(map(len, pairs)):
        rate = sum(p.count("0") for p in pairs) / hits
        out["wrong_reason_rate"] = [rate + (p.count("0") - rate * len(p)) * len(pairs) / hits for p in pairs]
    return out


def contrast(a: Sequence[float], b: Sequence[float], problems: float = 0.0) -> dict[str, Any]:
    """b − a over training runs: difference, 95% interval, exact p, the least p and the least difference that so many
    runs could have shown. problems: the variance of the difference over the evaluation's problems."""
    by_seed = [y - x for x, y in zip(a, b, strict=False)]
    out = {
        "difference": math.fsum(b) / len(b) - math.fsum(a) / len(a),
        "by_seed": by_seed,
        "p": permutation_exact(a, b),
        "least_p": (1 + (len(a) == len(b))) / math.comb(len(a) + len(b), len(a)),
        "se_problems": math.sqrt(problems),
    }
    if min(len(a), len(b)) < 2:
        return out
    w = welch(a, b, problems)
    return out | {"low": w.low, "high": w.high, "least_detectable": w.least_detectable}


def problem_variance(a: Sequence[Values], b: Sequence[Values]) -> float:
    """Variance of mean(b) − mean(a) over the draw of problems: of each problem's difference of means over runs, over
    their number. a, b: run → problem → score; problems that any run left unjudged do not count."""
    pairs = zip(_over_runs(a), _over_runs(b), strict=True)
    gaps = [y - x for x, y in pairs if x is not None and y is not None]
    return deviation(gaps) ** 2 / len(gaps) if gaps else 0.0


def _over_runs(scores: Sequence[Values]) -> Values:
    return [
        None if any(v is None for v in column) else sum(column) / len(column) for column in zip(*scores, strict=True)
    ]


def compare_runs(letters: Mapping[str, Any], a: Sequence[str], b: Sequence[str]) -> list[dict[str, Any]]:
    """b − a of two sets of planners, by label, on one benchmark: one record a mode and figure that every run has, with
    each run's own value. letters: analysis.letters of the benchmark."""
    out = []
    for mode in letters["arms"][f"planner {a[0]}"]:
        sides = [
            [per_problem(letters["arms"][f"planner {r}"][mode], letters["valid"].get(r, {}).get(mode)) for r in side]
            for side in (a, b)
        ]
        for name in FIGURES:
            if not all(name in run for side in sides for run in side):
                continue
            known = [[[v for v in run[name] if v is not None] for run in side] for side in sides]
            if not all(values for side in known for values in side):
                continue
            rates = [[math.fsum(values) / len(values) for values in side] for side in known]
            spread = problem_variance(*([run[name] for run in side] for side in sides))
            figures = {"mode": mode, "figure": name, "runs_a": rates[0], "runs_b": rates[1]}
            out.append(figures | contrast(*rates, problems=spread))
    return out
