"""From finished runs to figures: per-seed values, their spread, paired tests, learning curves, a table.

Two sources of chance are kept apart. `sd_seeds` is the standard deviation of a figure over training seeds;
`se_problems` its standard error over the evaluation's problems, averaged over seeds. Arms are compared seed by seed
and problem by problem:

    sign flip     exact two-sided p over the 2^n signs of the per-seed differences; with n = 5 it cannot go below 0.0625
    interval      95%, bootstrap that resamples seeds and problems both
    problems      p of the paired bootstrap over problems, for these very planners (says nothing about other seeds)

Left out: curves at equal executor tokens between updates (one panel shows accuracy against tokens).
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracelift.runs import read_jsonl
from tracelift.stats import holm, paired_bootstrap
from tracelift.twostage.analysis import deviation

ARMS = ("exec_only", "tracelift", "rm_only", "uplift_only", "product_only")
MATCHED = "exec_only_matched"
MODES = ("greedy", "sampled")
CURVES = ("accuracy", "uplift", "trace_validity", "wrong_reason_rate", "rm_score", "trace_tokens")
RESAMPLES = 4000
TITLES = {"exec_only": "execution only", "tracelift": "TraceLift", "rm_only": "RM only", "uplift_only": "uplift only",
          "product_only": "R x uplift only", MATCHED: "execution only, TraceLift's executor tokens"}  # fmt: skip
COLOURS = {
    "exec_only": "#8d99ae",
    "tracelift": "#1f6f8b",
    "rm_only": "#edae49",
    "uplift_only": "#2e933c",
    "product_only": "#d1495b",
    MATCHED: "#555b6e",
}


def tokens_of(run: Path) -> int:
    """Executor tokens of a whole training run."""
    return sum(r.get("executor_tokens", 0) for r in read_jsonl(run / "timings.jsonl"))


def read_eval(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(results, outcomes) of an evaluation on one benchmark."""
    results = json.loads((folder / "results.json").read_text())
    outcomes = json.loads((folder / "outcomes.json").read_text())
    (name,) = outcomes
    return results["benchmarks"][name], outcomes[name]


def means(strings: Sequence[str]) -> list[float | None]:
    """Each problem's share of right samples; None where one was not judged."""
    return [None if "-" in s else s.count("1") / len(s) for s in strings]


def one_seed(results: dict[str, Any], mode: str, direct: float) -> dict[str, float]:
    """The figures of one planner in one mode."""
    (traces,) = results["traces"].values()
    arm, about = results["arms"]["planner"][mode], traces[mode]
    out = {"accuracy": arm["accuracy"]["value"], "uplift": arm["accuracy"]["value"] - direct}
    for key, name in (("trace_validity", "trace validity"), ("wrong_reason_rate", "wrong-reason rate"),
                      ("rm_score", "RM score"),
                      ("trace_tokens", "trace tokens"), ("answer_stated", "answer stated"),
                      ("answer_stated_unsupported", "answer stated unsupported"),
                      ("format_failures", "format failures")):  # fmt: skip
        if name in about:
            out[key] = about[name]["value"]
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
    scores: dict[str, dict[str, list[list[float | None]]]] = {}  # arm → mode → seed → problem
    for arm in arms:
        runs = [folder / f"{arm}-{seed}" for seed in seeds]
        evals = [read_eval(run / "eval") for run in runs]
        for _, outcomes in evals:
            if outcomes["problems"] != start_outcomes["problems"]:
                raise ValueError(f"{folder}: evaluations of different problems; remove its eval folders and run again")
        scores[arm] = {mode: [means(o["arms"]["planner"][mode]) for _, o in evals] for mode in MODES}
        record["arms"][arm] = {
            "updates": [len(read_jsonl(run / "metrics.jsonl")) for run in runs],
            "executor_tokens": [tokens_of(run) for run in runs],
            "train_seconds": [round(sum(r["seconds"] for r in read_jsonl(run / "timings.jsonl")), 1) for run in runs],
            **{mode: summary([one_seed(r, mode, direct[mode]) for r, _ in evals], scores[arm][mode]) for mode in MODES},
            "curves": curves(runs),
        }
    record["comparisons"] = comparisons(scores, record["arms"])
    return record


def summary(per_seed: list[dict[str, float]], scores: list[list[float | None]]) -> dict[str, Any]:
    """mean, sd over seeds and each seed's value of every figure; the problems' share of accuracy's error beside it."""
    names = [n for n in per_seed[0] if all(n in s for s in per_seed)]
    out: dict[str, Any] = {}
    for name in names:
        values = [round(s[name], 6) for s in per_seed]
        out[name] = {"mean": sum(values) / len(values), "sd_seeds": deviation(values), "seeds": values}
    errors = [deviation(known) / math.sqrt(len(known)) for s in scores if (known := [v for v in s if v is not None])]
    out["accuracy"]["se_problems"] = sum(errors) / len(errors)
    return out


def curves(runs: Sequence[Path]) -> dict[str, Any]:
    """Per round, mean and sd over seeds of what training logged, and executor tokens so far (mean)."""
    logs = [read_jsonl(run / "metrics.jsonl") for run in runs]
    timings = [read_jsonl(run / "timings.jsonl") for run in runs]
    rounds = min(len(log) for log in logs)
    spent = [list(itertools.accumulate(r.get("executor_tokens", 0) for r in t)) for t in timings]
    out: dict[str, Any] = {"executor_tokens": [round(sum(s[i] for s in spent) / len(spent)) for i in range(rounds)]}
    for name in CURVES:
        if all(name in r for log in logs for r in log[:rounds]):
            columns = [[log[i][name] for log in logs] for i in range(rounds)]
            out[name] = {
                "mean": [round(sum(c) / len(c), 5) for c in columns],
                "sd": [round(deviation(c), 5) for c in columns],
            }
    return out


def comparisons(scores: dict[str, dict[str, list[list[float | None]]]], arms: dict[str, Any]) -> list[dict[str, Any]]:
    """TraceLift against every other arm: accuracy by seed and problem, other figures by seed. Holm over the arms."""
    if "tracelift" not in scores:
        return []
    found = []
    for mode in MODES:
        for other in (a for a in scores if a != "tracelift"):
            a, b = scores[other][mode], scores["tracelift"][mode]
            by_seed = [s["accuracy"] for s in (_pair(arms, other, mode, i) for i in range(len(a)))]
            low, high = two_way_bootstrap(a, b)
            both = [
                (x, y) for x, y in zip(_over_seeds(a), _over_seeds(b), strict=True) if x is not None and y is not None
            ]
            boot = paired_bootstrap([x for x, _ in both], [y for _, y in both], resamples=RESAMPLES)
            found.append(
                {
                    "mode": mode,
                    "a": other,
                    "b": "tracelift",
                    "difference": sum(by_seed) / len(by_seed),
                    "low": low,
                    "high": high,
                    "by_seed": by_seed,
                    "sd_seeds": deviation(by_seed),
                    "p_sign_flip": sign_flip(by_seed),
                    "p_problems": boot.p,
                    "least_p_sign_flip": 2.0 ** (1 - len(by_seed)),
                    "figures": _others(arms, other, mode, len(a)),
                }
            )
        family = [c for c in found if c["mode"] == mode]
        for c, p in zip(family, holm([c["p_sign_flip"] for c in family]), strict=True):
            c["p_sign_flip_holm"] = p
    return found


def _pair(arms: dict[str, Any], other: str, mode: str, i: int) -> dict[str, float]:
    """TraceLift's figures minus another arm's, of seed number i."""
    ours, theirs = arms["tracelift"][mode], arms[other][mode]
    return {name: ours[name]["seeds"][i] - theirs[name]["seeds"][i] for name in ours if name in theirs}


def _others(arms: dict[str, Any], other: str, mode: str, seeds: int) -> dict[str, Any]:
    differences = [_pair(arms, other, mode, i) for i in range(seeds)]
    out = {}
    for name in differences[0]:
        if name in ("trace_validity", "wrong_reason_rate", "answer_stated", "trace_tokens"):
            values = [d[name] for d in differences]
            out[name] = {
                "difference": sum(values) / seeds,
                "sd_seeds": deviation(values),
                "p_sign_flip": sign_flip(values),
            }
    return out


def _over_seeds(scores: list[list[float | None]]) -> list[float | None]:
    return [
        None if any(v is None for v in column) else sum(column) / len(column) for column in zip(*scores, strict=True)
    ]


def sign_flip(differences: Sequence[float]) -> float:
    """Exact two-sided p that paired differences are symmetric about zero, over all 2^n sign patterns."""
    observed = abs(math.fsum(differences))
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    return sum(
        abs(math.fsum(s * d for s, d in zip(signs, differences, strict=True))) >= observed - 1e-12 for signs in patterns
    ) / len(patterns)


def two_way_bootstrap(
    a: list[list[float | None]], b: list[list[float | None]], resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95% interval of mean(b) − mean(a) over seeds × problems, both resampled."""
    gaps = [
        [y - x for x, y in zip(row_a, row_b, strict=True) if x is not None and y is not None]
        for row_a, row_b in zip(a, b, strict=True)
    ]
    width = min(map(len, gaps))
    rng, draws = random.Random(0), []
    for _ in range(resamples):
        columns = rng.choices(range(width), k=width)
        rows = rng.choices(gaps, k=len(gaps))
        sums = {id(row): sum(map(row.__getitem__, columns)) for row in rows}
        draws.append(sum(sums[id(row)] for row in rows) / (width * len(rows)))
    draws.sort()
    return draws[int(0.025 * resamples)], draws[int(0.975 * resamples)]


# -- for people ------------------------------------------------------------------------------------------------------

COLUMNS = (
    ("accuracy", "accuracy"),
    ("uplift", "uplift"),
    ("trace_validity", "trace validity"),
    ("wrong_reason_rate", "wrong-reason rate"),
    ("rm_score", "RM score"),
    ("trace_tokens", "trace tokens"),
    ("answer_stated", "answer stated"),
)


def render_markdown(record: dict[str, Any]) -> str:
    """One table a mode, and the comparisons in sentences."""
    parts = []
    for mode in MODES:
        present = [(k, t) for k, t in COLUMNS if k in record["start"][mode]]
        lines = [
            f"**{mode}**, {record['problems']} fresh problems, mean ± sd over {len(record['seeds'])} training seeds",
            "",
            "| reward | " + " | ".join(t for _, t in present) + " | updates | executor tokens |",
            "|" + "---|" * (len(present) + 3),
        ]
        lines.append(
            "| start (no training) | "
            + " | ".join(number(record["start"][mode].get(k), k) for k, _ in present)
            + " | 0 | 0 |"
        )
        for arm, f in record["arms"].items():
            cells = [
                f"{number(f[mode][k]['mean'], k)} ± {number(f[mode][k]['sd_seeds'], k)}" if k in f[mode] else "-"
                for k, _ in present
            ]
            updates, tokens = (
                sum(f["updates"]) / len(f["updates"]),
                sum(f["executor_tokens"]) / len(f["executor_tokens"]),
            )
            lines.append(f"| {TITLES[arm]} | " + " | ".join(cells) + f" | {updates:.0f} | {tokens:,.0f} |")
        parts.append("\n".join(lines))
        told = ", ".join(f"{arm} {f[mode]['value']:.3f}" for arm, f in record["controls"].items())
        parts.append(f"Controls, with the starting planner: {told}.")
        for c in (c for c in record["comparisons"] if c["mode"] == mode):
            parts.append(
                f"- TraceLift minus {TITLES[c['a']]}: {100 * c['difference']:+.1f} points of accuracy "
                f"[{100 * c['low']:+.1f}, {100 * c['high']:+.1f}], "
                f"by seed {', '.join(f'{100 * d:+.1f}' for d in c['by_seed'])}; "
                f"exact sign-flip p = {c['p_sign_flip']:.3g} (Holm {c['p_sign_flip_holm']:.3g}; "
                f"{len(c['by_seed'])} seeds cannot show "
                f"less than {c['least_p_sign_flip']:.3g})"
                + "".join(
                    f"; {n.replace('_', ' ')} {v['difference']:+.3f} (p = {v['p_sign_flip']:.3g})"
                    for n, v in c["figures"].items()
                )
            )
    return "\n\n".join(parts)


def number(value: float | None, key: str) -> str:
    return "-" if value is None else f"{value:.1f}" if key == "trace_tokens" else f"{value:.3f}"


def draw(record: dict[str, Any], path: Path) -> Path:
    """Learning curves, mean and a band of one sd over seeds, and accuracy against executor tokens."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [n for n in CURVES if any(n in f["curves"] for f in record["arms"].values())]
    figure, axes = plt.subplots(
        -(-(len(names) + 1) // 3), 3, figsize=(14, 3.4 * -(-(len(names) + 1) // 3)), squeeze=False
    )
    for axis in axes.flat[len(names) + 1 :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, [*names, "tokens"], strict=False):
        for arm, f in record["arms"].items():
            key = "accuracy" if name == "tokens" else name
            if key not in f["curves"]:
                continue
            mean, sd = f["curves"][key]["mean"], f["curves"][key]["sd"]
            x = (
                [t / 1000 for t in f["curves"]["executor_tokens"]]
                if name == "tokens"
                else list(range(1, len(mean) + 1))
            )
            axis.plot(x, mean, color=COLOURS[arm], label=TITLES[arm], linewidth=1.5)
            axis.fill_between(
                x,
                [m - s for m, s in zip(mean, sd)],
                [m + s for m, s in zip(mean, sd)],
                color=COLOURS[arm],
                alpha=0.15,
                linewidth=0,
            )
        axis.set_title(
            "accuracy by executor tokens" if name == "tokens" else name.replace("_", " "), fontsize=10, loc="left"
        )
        axis.set_xlabel("executor tokens, thousands" if name == "tokens" else "round", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes.flat[0].legend(fontsize=7, frameon=False)
    figure.suptitle(
        f"{record['world']} demo, on the training rollouts (temperature 1), {len(record['seeds'])} seeds",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
