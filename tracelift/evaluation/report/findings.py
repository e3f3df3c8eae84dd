"""What an evaluation found, in sentences: which arm is better, by how much, at what cost, and what it could not have shown.

Every sentence follows from results.json by a rule: a difference is called shown where its p, adjusted, is at most 0.05, and
nothing is said of the others but what would have been seen. Left out: reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracelift.evaluation.table import asked_of, p_text

Results = Mapping[str, Any]
SHOWN = 0.05
GIVEN = {
    "direct": "no trace",
    "planner": "the planner's trace",
    "reference": "the reference's trace",
    "foreign": "the planner's trace of another problem",
}


def findings(results: Results) -> list[tuple[str, list[str]]]:
    """(heading, sentences) of each benchmark and mode; sets of runs last."""
    out = []
    for name, bench in results["benchmarks"].items():
        for mode in dict.fromkeys(m for arm in bench["arms"].values() for m in arm):
            said = [_answers(bench, mode)]
            asked = sorted(asked_of(dict(results), name, mode), key=_of_one_planner)
            said += map(_difference, asked)
            said += [_reasons(label, modes[mode], results) for label, modes in bench["traces"].items() if mode in modes]
            said += [_limits(asked), _cost(bench, mode), _unjudged(bench, mode)]
            if shared := results.get("problems_trained_on", {}).get(name):
                said.append(f"{shared} of these problems stand in the planner's training file: memory is part of this.")
            out.append((f"{name}, {mode}", [s for s in said if s]))
    if results.get("run_comparisons"):
        out.append(("The run as the unit", [_runs(c) for c in results["run_comparisons"]]))
    else:
        alone = "Each planner is one training run: nothing here speaks of another training seed."
        out = [(heading, [*said, alone] if i == len(out) - 1 else said) for i, (heading, said) in enumerate(out)]
    return out


def given_to(label: str) -> str:
    """What the executor reads in an arm, in words; with two planners the label names whose trace it is."""
    arm, _, planner = label.partition(" ")
    words = GIVEN.get(arm, label)
    return words.replace("the planner's", f"{planner}'s") if planner else words


def _answers(bench: Results, mode: str) -> str:
    parts = []
    for label, modes in bench["arms"].items():
        f = modes[mode]["accuracy"] if mode in modes else {"value": None}
        if f["value"] is not None:
            parts.append(f"{_share(f)} with {given_to(label)}")
    problems = max(modes[mode]["problems"] for modes in bench["arms"].values() if mode in modes)
    return f"Of {problems} problems the executor answers " + _listed(parts) + "." if parts else ""


def _of_one_planner(c: Results) -> bool:
    """False for the comparison of two planners, which comes first."""
    return not all(c[side].startswith("planner ") for side in "ab")


def _difference(c: Results) -> str:
    found = f"{100 * c['difference']:+.1f} points [{100 * c['low']:+.1f}, {100 * c['high']:+.1f}], "
    found += f"p = {p_text(c['p_holm'])} ({c['test']}, {c['n']} problems)"
    a, b = (given_to(c[side]) for side in "ab")
    if c["p_holm"] > SHOWN:
        return f"No difference is shown between {b} and {a}: {found}."
    return f"{'More' if c['difference'] > 0 else 'Fewer'} right answers with {b} than with {a}: {found}."


def _reasons(label: str, f: Results, results: Results) -> str:
    rate = f.get("wrong-reason rate")
    if rate is None or rate["value"] is None:
        return ""
    whose = f"{label}'s" if len(results["systems"]) > 1 else "the planner's"
    said = f"Of right answers with {whose} trace {_share(rate)} rest on a trace that is not valid"
    parts = [(k.partition(": ")[2], v["value"]) for k, v in f.items() if k.startswith("wrong reasons: ")]
    if rate["value"] and parts:
        shares = [f"{fault.replace('_', ' ')} {100 * v / rate['value']:.0f}%" for fault, v in parts[:3]]
        said += f" ({'of these ' if len(parts) > 1 else ''}{_listed(shares)})"
    return said + "."


def _limits(asked: Sequence[Results]) -> str:
    if not asked:
        return ""
    seen = [c["least_detectable"] for c in asked]
    known = [100 * v for v in seen if v is not None]
    if not known:
        return "So few problems show no difference four times in five, whatever it is."
    span = f"{min(known):.1f}" if max(known) - min(known) < 0.05 else f"{min(known):.1f} to {max(known):.1f}"
    return f"A true difference of {span} points would have been found four times in five; smaller ones may be missed."


def _cost(bench: Results, mode: str) -> str:
    parts = []
    for label in bench["arms"]:
        cost = bench["arms"][label].get(mode, {}).get("cost")
        if cost and cost["calls"]:
            computed = cost["computed"]
            tokens = f"{computed:,} positions computed" if computed is not None else f"{cost['generated']:,} tokens"
            parts.append(f"{tokens} in {cost['calls']:,} calls with {given_to(label)}")
    for label, modes in bench["traces"].items():
        cost = modes.get(mode, {}).get("cost")
        if cost and cost["computed"]:
            parts.append(f"{cost['computed']:,} for writing {label}'s traces")
    return f"Cost: {_listed(parts)}." if parts else ""


def _unjudged(bench: Results, mode: str) -> str:
    lost = sum(modes[mode]["unjudged"] for modes in bench["arms"].values() if mode in modes)
    unscored = sum(modes[mode]["unscored"] for modes in bench["traces"].values() if mode in modes)
    said = [f"{lost} runs could not be judged"] * (lost > 0) + [f"{unscored} traces could not be scored"] * (
        unscored > 0
    )
    return f"Left out of every figure: {_listed(said)}." if said else ""


def _runs(c: Results) -> str:
    sides = f"{len(c['runs_b'])} runs against {len(c['runs_a'])}"
    span = f" [{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]" if "low" in c else ""
    told = f"{c['figure'].replace('_', ' ')} differs by {100 * c['difference']:+.1f} points{span}, exact p = {p_text(c['p_holm'])}"
    limit = f"; so many runs cannot show less than {p_text(c['least_p'])}"
    verdict = "shown" if c["p_holm"] <= SHOWN else "not shown"
    return f"{c['benchmark']}, {c['mode']}, {sides}: {told}{limit}: {verdict}."


def _share(f: Results) -> str:
    span = f" [{100 * f['low']:.1f}, {100 * f['high']:.1f}]" if f.get("low") is not None else ""
    return f"{100 * f['value']:.1f}%{span}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
