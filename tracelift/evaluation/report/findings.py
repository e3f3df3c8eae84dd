"""What an evaluation found, in sentences: which arm is better, by how much, at what cost, and what it could not have shown.

Every sentence follows from results.json by a rule: a difference is called shown where its p, adjusted, is at most 0.05, and
nothing is said of the others but what would have been seen. Left out: reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracelift.evaluation.table import COSTS, asked_of, p_text
from tracelift.rl.held_out import WRONG_REASONS

Results = Mapping[str, Any]
SHOWN = 0.05
ALL_OF = {"planner": "the planners' traces", "foreign": "the planners' traces of another problem"}
GIVEN = {
    "direct": "no trace",
    "planner": "the planner's trace",
    "reference": "the reference's trace",
    "foreign": "the planner's trace of another problem",
}


def findings(results: Results) -> list[tuple[str, list[str]]]:
    """(heading, sentences): sets of runs first, then each benchmark and mode. Of more than two planners the comparisons of
    single arms are left to tables and plots."""
    out, many = [], len(results["systems"]) > 2
    for name, bench in results["benchmarks"].items():
        for mode in dict.fromkeys(m for arm in bench["arms"].values() for m in arm):
            said = [_answers(bench, mode, many)]
            asked = [] if many else sorted(asked_of(dict(results), name, mode), key=_of_one_planner)
            said += map(_difference, asked)
            said += [_reasons(label, modes[mode], results) for label, modes in bench["traces"].items() if mode in modes]
            said += [_limits(asked), _cost(bench, mode, many), *_left_out(bench, mode)]
            if longer := results.get("problems", {}).get(name, {}).get("left_out"):
                said.append(f"{_many(longer, 'problem')} longer than planner.max_problem_chars left out.")
            for label, n in (results.get("problems_trained_on", {}).get(name) or {}).items():
                if n:
                    said.append(
                        f"{_many(n, 'of these problems', '')} stand in {label}'s training file: memory is part of this."
                    )
            out.append((f"{name}, {mode}", [s for s in said if s]))
    if results.get("run_comparisons"):
        out.insert(0, ("The run as the unit", [_runs(c) for c in results["run_comparisons"]]))
    else:
        alone = "Each planner is one training run: nothing here speaks of another training seed."
        out = [(heading, [*said, alone] if i == len(out) - 1 else said) for i, (heading, said) in enumerate(out)]
    return out


def given_to(label: str) -> str:
    """What the executor reads in an arm, in words; with two planners the label names whose trace it is."""
    arm, _, planner = label.partition(" ")
    words = GIVEN.get(arm, label)
    return words.replace("the planner's", f"{planner}'s") if planner else words


def _reads(label: str, many: bool) -> str:
    """`given_to`; of many planners alike."""
    return ALL_OF.get(label.partition(" ")[0], given_to(label)) if many else given_to(label)


def _answers(bench: Results, mode: str, many: bool) -> str:
    found = {label: modes[mode]["accuracy"] for label, modes in bench["arms"].items() if mode in modes}
    most = max(f["n"] for f in found.values())
    parts = []
    for label, f in found.items():
        if f["value"] is not None and not (many and label.startswith("foreign")):
            fewer = f" (of {f['n']} problems)" if f["n"] < most else ""
            parts.append(f"{_share(f)} with {given_to(label)}{fewer}")
    return f"Of {_many(most, 'problem')} the executor answers {_listed(parts)}." if parts else ""


def _of_one_planner(c: Results) -> bool:
    """False for the comparison of two planners, which comes first."""
    return not all(c[side].startswith("planner ") for side in "ab")


def _difference(c: Results) -> str:
    found = f"{100 * c['difference']:+.1f} points [{100 * c['low']:+.1f}, {100 * c['high']:+.1f}], "
    found += f"{_p(c)} ({c['test'].removesuffix(' over problems')}, {_many(c['n'], 'problem')})"
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
    parts = [(v["value"], k.removeprefix(WRONG_REASONS)) for k, v in f.items() if k.startswith(WRONG_REASONS)]
    if rate["value"] and parts:
        shares = [f"{fault.replace('_', ' ')} {100 * v / rate['value']:.0f}%" for v, fault in _greatest(parts)]
        said += f" ({'of these ' if len(parts) > 1 else ''}{_listed(shares)})"
    return said + "."


def _greatest(parts: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """At most three that are not 0."""
    return [(v, name) for v, name in sorted(parts, key=lambda part: -part[0]) if v][:3]


def _limits(asked: Sequence[Results]) -> str:
    if not asked:
        return ""
    seen = [c["least_detectable"] for c in asked]
    known = [100 * v for v in seen if v is not None]
    if not known:
        return "So few problems show no difference four times in five, whatever it is."
    span = f"{min(known):.1f}" if max(known) - min(known) < 0.05 else f"{min(known):.1f} to {max(known):.1f}"
    said = f"A true difference of {span} points would have been found four times in five; smaller ones may be missed."
    unnamed = [f"{given_to(c['b'])} against {given_to(c['a'])}" for c in asked if c["least_detectable"] is None]
    return f"{said} No such size can be named for {_listed(unnamed)}." if unnamed else said


def _cost(bench: Results, mode: str, many: bool) -> str:
    """What each arm and each planner's traces took, all in one unit: the finest that is known of all of them. Of many planners
    together."""
    made = [(f"with {_reads(label, many)}", m[mode].get("cost")) for label, m in bench["arms"].items() if mode in m]
    for label, modes in bench["traces"].items():
        if mode in modes:
            made.append(("to write the traces" if many else f"to write {label}'s traces", modes[mode].get("cost")))
    spent = [(what, cost) for what, cost in made if cost]
    units = (unit for unit in ("computed", "generated") if all(cost[unit] is not None for _, cost in spent))
    unit = next(units, None)
    if not spent or unit is None:
        return ""
    sums: dict[str, int] = {}
    for what, cost in spent:
        sums[what] = sums.get(what, 0) + cost[unit]
    return f"Cost in {COSTS[unit]}: {_listed([f'{n:,} {what}' for what, n in sums.items()])}."


def _left_out(bench: Results, mode: str) -> list[str]:
    """What no figure counts: problems an arm has nothing for, runs without a verdict, traces without a score."""
    said = []
    for label, modes in bench["arms"].items():
        f = modes.get(mode, {"unattempted": 0, "unjudged": 0})
        if f["unattempted"]:
            lacking = given_to(label)
            said.append(
                f"{lacking[0].upper()}{lacking[1:]} is missing for {_many(f['unattempted'], 'problem')}, left out of that arm."
            )
        if f["unjudged"]:
            lost = _many(f["problems"] - f["accuracy"]["n"], "problem")
            said.append(
                f"{_many(f['unjudged'], 'run')} with {given_to(label)} could not be judged: {lost} left out of that arm."
            )
    for label, modes in bench["traces"].items():
        if n := modes.get(mode, {}).get("unscored", 0):
            whose = "its problem is" if n == 1 else "their problems are"
            said.append(f"{_many(n, 'trace')} of {label} could not be scored: {whose} in no figure of the Reason RM.")
    return said


def _runs(c: Results) -> str:
    verdict = "A difference is shown in" if c["p_holm"] <= SHOWN else "No difference is shown in"
    what = f"{c['figure'].replace('_', ' ')} ({c['benchmark']}, {c['mode']})"
    b, a = (f"{100 * sum(c[k]) / len(c[k]):.1f}% over {_many(len(c[k]), 'run')}" for k in ("runs_b", "runs_a"))
    span = f" [{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]" if "low" in c else ""
    told = f"{b} against {a}, {100 * c['difference']:+.1f} points{span}, exact {_p(c)}"
    return f"{verdict} {what}: {told}; so many runs cannot show less than {p_text(c['least_p'])}."


def _p(c: Results) -> str:
    adjusted = f", {p_text(c['p_holm'])} with Holm's adjustment" if c["p_holm"] != c["p"] else ""
    return f"p = {p_text(c['p'])}{adjusted}"


def _many(n: int, what: str, more: str = "s") -> str:
    return f"{n:,} {what}{more if n != 1 else ''}"


def _share(f: Results) -> str:
    span = f" [{100 * f['low']:.1f}, {100 * f['high']:.1f}]" if f.get("low") is not None else ""
    return f"{100 * f['value']:.1f}%{span}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
