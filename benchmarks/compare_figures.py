"""From finished runs to figures: per-seed values, their spread, tests between rewards, learning curves.

The unit is the training run. Two sources of chance are kept apart: `sd_seeds` is the standard deviation of a figure
over training seeds, `se_problems` the standard error that the evaluation's problems give it. Rewards are compared by

    permutation   exact two-sided p over all ways to deal the runs out between the two rewards, problems as they are;
                  5 runs against 5 cannot show less than 2/252. Runs of one seed meet the same training problems, which
                  makes the test a little cautious, never bold. Holm over the rewards compared with TraceLift
    interval      95%, Welch's t over runs, widened by the variance of the difference over problems: it is meant to hold
                  for other seeds and other problems. No run is split into problems to make more of it. Figures that
                  the evaluations do not keep by problem (answer stated, trace tokens) have `se_problems` 0: their
                  intervals are for other seeds on the same problems

Left out: words and pictures (benchmarks/compare_report.py).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.budgets import BUDGETS
from tracelift.config import modes
from tracelift.evaluation.figures.runs import contrast, per_problem, problem_variance
from tracelift.files import read_log
from tracelift.runs.summary import run_cost
from tracelift.stats.figures import adjust, deviation

REWARDS = ("exec_only", "tracelift", "rm_only", "uplift_only", "product_only")
ARMS: dict[str, dict[str, str]] = {mode: {"reward.mode": mode} for mode in modes.MODES} | {
    "drop": {"reward.mode": "tracelift", "grpo.flat_groups": "drop"},
    "resample": {"reward.mode": "tracelift", "grpo.flat_groups": "resample"},
    "mask_truncated": {"reward.mode": "tracelift", "grpo.mask_truncated": "true"},
}  # what an arm sets, as train.py's flags; TraceLift itself counts flat groups and trains cut traces
MODES = ("greedy", "sampled")
CURVES = ("accuracy", "uplift", "trace_validity", "wrong_reason_rate", "rm_score", "trace_tokens", "leak_rate")
SPENT = {"executor_tokens": "executor_tokens", **BUDGETS}  # what a curve is drawn by: the figure of timings.jsonl
Scores = dict[str, list[list[float | None]]]  # figure → seed → problem
FAULT = "wrong reasons: "  # the shares by fault, as evaluation names them
SECONDARY = ("trace_validity", "wrong_reason_rate", "answer_stated", "trace_tokens")


def tokens_of(run: Path) -> int:
    """Executor tokens generated in a whole training run."""
    return sum(r.get("executor_tokens", 0) for r in read_log(run / "timings.jsonl"))


def read_eval(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(results, outcomes) of an evaluation on one benchmark."""
    results = json.loads((folder / "results.json").read_text())
    outcomes = json.loads((folder / "outcomes.json").read_text())
    (name,) = outcomes
    return results["benchmarks"][name], outcomes[name]


def of_outcomes(outcomes: dict[str, Any], mode: str) -> dict[str, list[float | None]]:
    """`per_problem` of one planner's evaluation, so far as its validity is kept."""
    (valid,) = (v[mode] for v in outcomes["valid"].values()) if "valid" in outcomes else (None,)
    return per_problem(outcomes["arms"]["planner"][mode], valid)


def by_figure(letters: Sequence[dict[str, Any]], mode: str) -> Scores:
    """The same of several seeds: figure → seed → problem, of the figures that every seed has."""
    seeds = [of_outcomes(o, mode) for o in letters]
    return {name: [s[name] for s in seeds] for name in seeds[0] if all(name in s for s in seeds)}


def one_seed(results: dict[str, Any], mode: str, direct: float) -> dict[str, float]:
    """The figures of one planner in one mode."""
    (traces,) = results["traces"].values()
    arm, about = results["arms"]["planner"][mode], traces[mode]
    out = {"accuracy": arm["accuracy"]["value"], "uplift": arm["accuracy"]["value"] - direct}
    for key, name in (
        ("trace_validity", "trace validity"),
        ("wrong_reason_rate", "wrong-reason rate"),
        ("rm_score", "RM score"),
        ("trace_tokens", "trace tokens"),
        ("answer_stated", "answer stated"),
        ("answer_stated_unsupported", "answer stated unsupported"),
        ("format_failures", "format failures"),
    ):
        if name in about:
            out[key] = about[name]["value"]
    out |= {key: value["value"] for key, value in about.items() if key.startswith(FAULT)}
    for key, value in arm.items():
        if key.startswith("pass@") and key != "pass@1":
            out[key] = value["value"]
    return out


def aggregate(folder: Path, arms: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Everything compare-WORLD.json says about the runs in `folder`."""
    start, start_outcomes = read_eval(folder / "start" / "eval")
    direct = {mode: start["arms"]["direct"][mode]["accuracy"]["value"] for mode in MODES}
    record: dict[str, Any] = {
        "start": {mode: one_seed(start, mode, direct[mode]) for mode in MODES},
        "controls": {
            arm: {mode: start["arms"][arm][mode]["accuracy"] for mode in MODES}
            for arm in start["arms"]
            if arm != "planner"
        },
        "arms": {},
    }
    scores: dict[str, dict[str, Scores]] = {}  # arm → mode → …
    for arm in arms:
        runs = [folder / f"{arm}-{seed}" for seed in seeds]
        evals = [read_eval(run / "eval") for run in runs]
        for _, outcomes in evals:
            if outcomes["problems"] != start_outcomes["problems"]:
                raise ValueError(f"{folder}: evaluations of different problems; remove its eval folders and run again")
        scores[arm] = {mode: by_figure([o for _, o in evals], mode) for mode in MODES}
        record["arms"][arm] = {
            "updates": [len(read_log(run / "metrics.jsonl")) for run in runs],
            "executor_tokens": [tokens_of(run) for run in runs],
            "costs": [run_cost(run) for run in runs],
            "train_seconds": [round(sum(r["seconds"] for r in read_log(run / "timings.jsonl")), 1) for run in runs],
            **{
                mode: summary([one_seed(r, mode, direct[mode]) for r, _ in evals], scores[arm][mode]["accuracy"])
                for mode in MODES
            },
            "curves": curves(runs),
        }
    record["comparisons"] = comparisons(scores, record["arms"])
    record["equal_cost"] = at_equal_cost(scores, record["arms"])
    return record


def summary(per_seed: list[dict[str, float]], scores: list[list[float | None]]) -> dict[str, Any]:
    """mean, sd over seeds and each seed's value of every figure; the problems' share of accuracy's error beside it."""
    faults = dict.fromkeys(
        sorted({n for s in per_seed for n in s if n.startswith(FAULT)}), 0.0
    )  # one that did not occur
    per_seed = [{**faults, **s} for s in per_seed]
    names = [n for n in per_seed[0] if all(n in s for s in per_seed)]
    out: dict[str, Any] = {}
    for name in names:
        values = [round(s[name], 6) for s in per_seed]
        out[name] = {"mean": sum(values) / len(values), "sd_seeds": deviation(values), "seeds": values}
    errors = [deviation(known) / math.sqrt(len(known)) for s in scores if (known := [v for v in s if v is not None])]
    out["accuracy"]["se_problems"] = sum(errors) / len(errors)
    return out


def curves(runs: Sequence[Path]) -> dict[str, Any]:
    """Per round, mean and sd over seeds of what training logged, and what it had cost so far (mean)."""
    logs = [read_log(run / "metrics.jsonl") for run in runs]
    timings = [read_log(run / "timings.jsonl") for run in runs]
    rounds = min(len(log) for log in logs)
    out: dict[str, Any] = {}
    for name, figure in SPENT.items():
        if all(r.get(figure) is not None for t in timings for r in t):
            so_far = [list(itertools.accumulate(r[figure] for r in t)) for t in timings]
            out[name] = [round(sum(s[i] for s in so_far) / len(so_far), 1) for i in range(rounds)]
    for name in CURVES:
        if all(name in r for log in logs for r in log[:rounds]):
            columns = [
                [x for log in logs if (x := log[i][name]) is not None] for i in range(rounds)
            ]  # None: of nothing
            out[name] = {
                "mean": [round(sum(c) / len(c), 5) if c else None for c in columns],
                "sd": [round(deviation(c), 5) if c else None for c in columns],
            }
    return out


def comparisons(scores: dict[str, dict[str, Scores]], arms: dict[str, Any]) -> list[dict[str, Any]]:
    """TraceLift against every other arm: accuracy with its test, other figures beside it. Holm over the arms."""
    if "tracelift" not in scores:
        return []
    found = []
    for mode in MODES:
        ours = arms["tracelift"][mode]
        for other in (a for a in scores if a != "tracelift" and "@" not in a):
            figures = contrasts(arms[other][mode], ours, scores[other][mode], scores["tracelift"][mode], SECONDARY)
            found.append({"mode": mode, "a": other, "b": "tracelift", **figures.pop("accuracy"), "figures": figures})
    adjust(found, "mode")
    return found


def at_equal_cost(scores: dict[str, dict[str, Scores]], arms: dict[str, Any]) -> list[dict[str, Any]]:
    """Every arm as it stood at exec_only's cost (ARM@BUDGET) against exec_only's whole runs: sampled accuracy and sampled
    wrong-reason rate. Holm over all of them."""
    found = []
    for name in (a for a in scores if "@" in a):
        arm, _, budget = name.partition("@")
        a, b = scores["exec_only"]["sampled"], scores[name]["sampled"]
        figures = contrasts(arms["exec_only"]["sampled"], arms[name]["sampled"], a, b, ["wrong_reason_rate"])
        found += [{"family": "all", "budget": budget, "arm": arm, "figure": f, **c} for f, c in figures.items()]
    adjust(found, "family")
    return found


def contrasts(
    theirs: dict[str, Any], ours: dict[str, Any], a: Scores, b: Scores, also: Sequence[str]
) -> dict[str, Any]:
    """`contrast` of accuracy and of the figures `also` that both sides have, with the problems' variance where known."""
    return {
        name: contrast(
            theirs[name]["seeds"],
            ours[name]["seeds"],
            problem_variance(a[name], b[name]) if name in a and name in b else 0.0,
        )
        for name in ("accuracy", *also)
        if name in theirs and name in ours
    }
