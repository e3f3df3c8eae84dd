"""The account of one problem of one round, in words: from the planner's prompt to each token's weight.

    problem → traces → executor outputs with and without → verdicts → RM → reward → advantage → per-token loss weights

A line that begins with `!` says where the record contradicts itself. Left out: what is computed anew
(tracelift/explain/replay.py) and the command (tracelift/explain/__main__.py).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import models
from tracelift.config import Config, config_of_run
from tracelift.explain.replay import (
    ExplainError,
    Record,
    contradictions,
    grouped,
    read_round,
    replay_advantages,
    replay_counts,
    replay_reward,
    replay_rewards,
    replay_trained,
    weight_of,
    why_invalid,
)
from tracelift.rl.flat_groups import has_spread
from tracelift.rl.grpo import EPSILON, BatchCounts
from tracelift.rubrics import dimensions_of
from tracelift.tasks.prompts import BASELINE, EXECUTOR, PLANNER, load_template, render
from tracelift.verify.math import verify_math
from tracelift.verify.verdict import Verdict

_TOKENS = 400  # most tokens shown of a trace
READING = {
    "math": "How to read this: the planner wrote several traces of one problem. A frozen executor answered with each of them: "
    "once end to end (e2e), and K times with the seeds that it also answered with when it had no trace. The uplift u is the "
    "difference of those two success rates, R the Reason RM's judgement of the trace. Rewards become advantages A by "
    "comparison within the problem, and A times a weight is what each token of a trace pulls with.",
    "code": "How to read this: the planner wrote several plans of one problem. A frozen executor wrote a program from each: "
    "once end to end (exec, its hidden tests), and K times with the seeds that it also used when it had no plan. c says "
    "whether more or fewer programs passed with the plan, R is the Reason RM's judgement of it. Rewards become advantages A "
    "by comparison within the problem, and A times a weight is what each token of a plan pulls with.",
}


class Page:
    """Lines for a terminal, wrapped to its width."""

    def __init__(self, width: int) -> None:
        self.width, self.lines = width, []
        self.wrapper = textwrap.TextWrapper(
            width,
            initial_indent="  ",
            subsequent_indent="  ",
            replace_whitespace=False,
            drop_whitespace=False,
            break_on_hyphens=False,
        )

    def head(self, text: str) -> None:
        self.lines += ["", text, "-" * min(self.width, len(text))]

    def text(self, text: str) -> None:
        for line in text.split("\n"):
            self.lines += self.wrapper.wrap(line) or [""]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def explain(run: Path, step: int, problem: str, sample: int | None = None, width: int = 100) -> str:
    """The account of one problem of one round; with `sample` (1-based) of that trace alone, token by token.

    Raises ExplainError where the run did not log what is asked for, ConfigError where it is no run.
    """
    config = config_of_run(run, step)
    _, records = read_round(run, step)
    groups = grouped(records)
    at = next((i for i, g in enumerate(groups) if g[0]["problem_id"] == problem), None)
    if at is None:
        raise ExplainError(
            f"round {step} had no problem '{problem}'; it had {', '.join(g[0]['problem_id'] for g in groups)}"
        )
    group, advantage = groups[at], replay_advantages(groups, config)[at]
    trained, counts = replay_trained(groups, config)[at], replay_counts(groups, group[0]["group"], step, config)
    if sample is not None and not 1 <= sample <= len(group):
        raise ExplainError(f"'{problem}' has samples 1 to {len(group)} in round {step}, not {sample}")
    page = Page(width)
    page.lines.append(
        f"{run}, round {step}, {problem}: reward {config.reward.mode} ({config.reward.variant}), "
        f"run seed {config.run.seed}"
    )
    page.lines.append("")
    page.text(READING["code" if any("status" in r for r in group) else "math"])
    page.head("What the planner read")
    page.text(
        render(load_template(config.planner.prompt, PLANNER, ("problem",)), problem=group[0]["problem"])
        + config.planner.prefill
    )
    page.text(f"(reference: {group[0]['reference']})")
    _baseline(page, next((r for r in group if r["base_runs"]), group[0]), config)
    shown = [(j, r) for j, r in enumerate(group) if sample is None or j == sample - 1]
    for j, r in shown:
        _sample(page, j, r, advantage[j], config, whole=sample is not None)
    _group(page, group, advantage, config)
    _weights(page, shown, advantage, trained, counts, config)
    if sample is not None and trained[sample - 1]:
        _tokens(page, shown[0][1], advantage[sample - 1], counts[0], config, run)
    elif any("token_ids" in r for r in group):
        page.lines += ["", f"--sample J shows one trace token by token (1 to {len(group)})."]
    return str(page)


def _baseline(page: Page, r: Record, config: Config) -> None:
    page.head("The executor without any trace")
    page.text(
        "It read: "
        + render(load_template(config.executor.baseline_prompt, BASELINE, ("problem",)), problem=r["problem"])
    )
    if r.get("likelihoods") and r["likelihoods"][1] is not None:
        page.text(f"log p(reference) = {r['likelihoods'][1]:.3f} nats, p = {r['success_base']:.3g}: computed, not run")
        return
    if r["success_base"] is None or (not r["base_runs"] and not r["runs"]):
        page.text("not run: this reward does not ask for it, or no trace of this problem reached the executor")
        return
    for named, text, verdict in _runs(r["base_runs"], "run"):
        page.text(f"{named}: {text.strip()!r}  {verdict}")
        _check(page, f"verdict of {named} without a trace", verdict, text, r)
    if not r["base_runs"]:
        page.text("(its texts were not kept)")
    page.text(f"success_base = {r['success_base']:.3f}")


def _runs(runs: Sequence[tuple[str, str]], name: str) -> list[tuple[str, str, str]]:
    """(which, text, verdict) of an arm's runs; one line where all are alike."""
    if len(runs) > 1 and len({tuple(run) for run in runs}) == 1:
        return [(f"{name}s 1 to {len(runs)}, alike", *runs[0])]
    return [(f"{name} {k}", *run) for k, run in enumerate(runs, start=1)]


def _sample(page: Page, j: int, r: Record, advantage: float, config: Config, whole: bool) -> None:
    """One trace's account; `whole`: with all that the executor read."""
    page.head(f"Trace {j + 1}: reward {_number(r['reward'])}, advantage {advantage:+.3f}")
    if r["trace"] is None:
        page.text(r["text"])
        page.text(
            f"no complete <reasoning> block ({r['finish_reason']}): the executor was not called; "
            f"reward.format_reward = {config.reward.format_reward}"
        )
        return
    page.text(r["trace"])
    notes = [
        ""
        if r["valid"] is None
        else "every step true and grounded"
        if r["valid"]
        else f"NOT valid: {why_invalid(r, config) or 'not a true and grounded derivation'}",
        "states the answer" if r["leaked"] else "",
        "without the steps that yield it" if r["leaked_unsupported"] else "",
    ]
    page.text("[" + "; ".join([f"{r['tokens']} tokens", *filter(None, notes)]) + "]")
    if r["error"] is not None:
        page.text(f"left its group, no reward: {r['error']}")
        return
    if whole:
        template = load_template(config.executor.prompt, EXECUTOR, ("problem", "trace"))
        page.text("The executor read: " + render(template, problem=r["problem"], trace=r["trace"]))
    page.text(
        f"executor, end to end: {(r['artifact'] or '').strip()!r}  {r['e2e']}"
        + (f"  ({r['detail']})" if r.get("detail") else "")
    )
    _check(page, "end-to-end verdict", r["e2e"], r["artifact"] or "", r)
    for named, text, verdict in _runs(list(zip(r["runs"], r["verdicts"], strict=True)), "repeat"):
        page.text(f"executor, {named}: {text.strip()!r}  {verdict}")
        _check(page, f"verdict of {named}", verdict, text, r)
    if r["runs"] and r["success_base"] is None:
        page.text(f"success_with = {r['success_with']:.3f}")
    elif r["runs"]:
        page.text(
            f"uplift u = success_with - success_base = {r['success_with']:.3f} - {r['success_base']:.3f} "
            f"= {r['uplift']:+.3f}"
        )
    if r.get("likelihoods") and r["likelihoods"][1] is None:
        nats = config.executor.likelihood_nats
        page.text(
            f"success_with = 1 + log p(reference | trace) / {nats:g} nats = 1 + {r['likelihoods'][0]:.3f} / {nats:g}, within [0, 1]"
        )
    elif r.get("likelihoods"):
        with_trace, without = r["likelihoods"]
        page.text(
            f"likelihood uplift u = (log p(reference | trace) - log p(reference)) / {config.executor.likelihood_nats:g} nats "
            f"= ({with_trace:.3f} - {without:.3f}) / {config.executor.likelihood_nats:g} = {r['uplift']:+.3f}, clipped to [-1, 1]"
        )
    if r["rm_total"] is not None:
        names = dimensions_of("code" if "status" in r else "math")
        labels = ", ".join(f"{n} {v:.2f}" for n, v in zip(names, r["rm_dimensions"], strict=False))
        page.text(
            f"Reason RM R = {r['rm_total']:.3f}"
            + (
                f" = 0.5 x derived {r['rm_derived']:.3f} + 0.5 x head {r['rm_head']:.3f}"
                if r["rm_head"] is not None
                else ""
            )
            + f"   (rubric labels, 0 to 4: {labels})"
        )
    _formula(page, r, config)
    for line in contradictions(r, config):
        page.text(f"! {line}")


def _check(page: Page, what: str, logged: str, text: str, r: Record) -> None:
    if "status" not in r and logged != Verdict.ERROR.name and verify_math(text, r["reference"]).name != logged:
        page.text(
            f"! the {what} was logged as {logged}; today's verifier says {verify_math(text, r['reference']).name}"
        )


def _formula(page: Page, r: Record, config: Config) -> None:
    """The reward spelt out, from its logged parts."""
    p = r["parts"]
    if p is None:
        return
    penalty = p.get("leak_penalty", config.reward.leak_penalty if r["leaked"] else 0.0)
    R, u, c = p["reason_score"], p["uplift"], p.get("coefficient")
    if "e2e" in p:
        full = f"0.5 x e2e {p['e2e']:g} + 0.5 x R {R:.3f} x u {u:+.3f}"
        e2e, rubric = f"e2e {p['e2e']:g}", "0.5 x "
    else:
        full = f"exec {p['exec_reward']:.3f} + {config.reward.code_weight:g} x R {R:.3f} x c {c:+.3f}"
        e2e, rubric = f"exec {p['exec_reward']:.3f}", f"{config.reward.code_weight:g} x "
    told = {
        "tracelift": full,
        "exec_only": e2e,
        "rm_only": f"R {R:.3f}",
        "uplift_only": f"u {u:+.3f}",
        "product_only": f"R {R:.3f} x {'u' if c is None else 'c'} {u if c is None else c:+.3f}",
        "gated": f"R {R:.3f} x {e2e}" + (" less the least exec" if "e2e" not in p else ""),
        "additive": f"{'0.5 x ' if 'e2e' in p else ''}{e2e} + {rubric}R {R:.3f}",
        "graded": f"R {R:.3f} x success_with {p['success_with']:.3f}",
    }[config.reward.mode]
    page.text(f"reward = {told}{f' - leak penalty {penalty:g}' if penalty else ''} = {_number(r['reward'])}")
    again = replay_reward(r, config)
    logged = r["reward"]
    if again is not None and logged is not None and not math.isclose(again, logged, rel_tol=1e-6, abs_tol=1e-9):
        page.text(f"! replayed from the counts it is {again:.6f}")


def _group(page: Page, group: Sequence[Record], advantage: Sequence[float], config: Config) -> None:
    page.head("From rewards to advantages, within this problem's group")
    kept = [r["reward"] for r in group if r["error"] is None and r["reward"] is not None]
    if len(kept) < 2:
        page.text("fewer than two traces have a reward: all advantages are 0")
        return
    mean = sum(kept) / len(kept)
    std = math.sqrt(sum((x - mean) ** 2 for x in kept) / (len(kept) - 1))
    page.text(
        f"mean {mean:.4f}, standard deviation {std:.4f} over {len(kept)} traces; A = (r - mean)"
        + (f" / (std + {EPSILON:g})" if config.grpo.advantage_scale == "std" else "")
    )
    known = replay_rewards([group])
    if not has_spread(known.reward, known.valid).item():
        page.text("all rewards are equal: all advantages are 0, this group moves nothing")
    top = max(abs(a) for a in advantage) or 1.0
    for j, (r, a) in enumerate(zip(group, advantage, strict=True), start=1):
        bar = ("+" if a > 0 else "-") * round(20 * abs(a) / top)
        page.text(f"trace {j}: r {_number(r['reward']):>8}  A {a:+.3f} {bar}")


def _weights(
    page: Page,
    shown: Sequence[tuple[int, Record]],
    advantage: Sequence[float],
    trained: Sequence[bool],
    counts: Sequence[BatchCounts],
    config: Config,
) -> None:
    page.head(f"From advantages to token weights (aggregate = {config.grpo.aggregate})")
    c = counts[0]
    page.text(
        "nothing in the batch is trained"
        if not c.tokens
        else {
            "token": f"every trained token of the batch weighs w = 1 / {c.tokens} (tokens in the batch)",
            "sequence": f"a token weighs w = 1 / (its trace's length x {c.sequences} traces in the batch)",
            "constant": f"a token weighs w = 1 / ({c.sequences} traces x {c.max_new_tokens} max_new_tokens)",
        }[config.grpo.aggregate]
    )
    for j, r in shown:
        if r["error"] is None and not trained[j]:
            cut = config.grpo.mask_truncated and r["finish_reason"] == "length"
            why = "cut by the token limit" if cut else f"equal rewards, flat_groups = {config.grpo.flat_groups}"
            page.text(f"trace {j + 1}: not trained, not counted: {why}")
        elif r["error"] is None:
            w = weight_of(r, c, config)
            page.text(
                f"trace {j + 1}: {r['tokens']} tokens x w {w:.3e} x A {advantage[j]:+.3f} = "
                f"{r['tokens'] * w * advantage[j]:+.3e} of the objective"
            )
    if len({(x.tokens, x.sequences) for x in counts}) > 1:
        page.text(
            f"(pass 1 of {len(counts)}; other passes shuffle the minibatches: "
            f"{', '.join(str(x.tokens) for x in counts)} tokens)"
        )


def _tokens(page: Page, r: Record, advantage: float, counts: BatchCounts, config: Config, run: Path) -> None:
    """Each trained token: its probability when sampled, and how hard the first update pulls at its logit."""
    page.head("Token by token")
    if "token_ids" not in r:
        page.text("not logged (run.log_tokens = false)")
        return
    show = _decoder(config, run)
    w = weight_of(r, counts, config)
    page.text(
        "p: probability when sampled. pull = w x A x (1 - p) / temperature: what the first update's ascent direction is "
        "at this token's own logit; a token that was certain anyway is hardly moved."
    )
    pulls = [w * advantage * (1 - math.exp(x)) / config.planner.temperature for x in r["logprobs"]]
    top = max((abs(x) for x in pulls), default=0.0) or 1.0
    for i, (token, logprob, pull) in enumerate(zip(r["token_ids"], r["logprobs"], pulls, strict=True)):
        if i == _TOKENS:
            page.text(f"… {len(pulls) - _TOKENS} more")
            break
        bar = ("+" if pull > 0 else "-") * round(24 * abs(pull) / top)
        page.lines.append(
            f"  {i + 1:4d}  {show(token):<18} p {math.exp(logprob):6.3f}  w A {w * advantage:+.2e}  "
            f"pull {pull:+.2e} {bar}"
        )


def _decoder(config: Config, run: Path) -> Callable[[int], str]:
    """Token id → its text, by the run's own tokenizer or the starting planner's; the bare id where neither is there
    any more."""
    for folder in (run / "final", Path(config.planner.path)):
        if (folder / "tokenizer.json").exists() or (folder / "tokenizer.model").exists():
            tokenizer = models.load_tokenizer(folder)
            return lambda token: repr(tokenizer.decode([token]))[1:-1] or f"<{token}>"
    return lambda token: f"<{token}>"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
