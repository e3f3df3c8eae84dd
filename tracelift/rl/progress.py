"""What a person who waits sees of each round: one line, whose labels are explained once, and what to do where no trace is one.

Left out: what is logged (tracelift/rl/metrics.py), the evaluation before and after (tracelift/rl/report.py).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

SHOWN = (  # label, key of the metric, what it is where the label alone does not say it
    ("reward", "reward", ""),
    ("acc", "accuracy", "the share of right answers with the trace"),
    ("uplift", "uplift", "how much more often than without it"),
    ("rm", "rm_score", "the Reason RM's score"),
    ("valid", "trace_validity", "the share of traces whose every step is true and grounded"),
    ("wrong-reason", "wrong_reason_rate", "the share of right answers whose trace is not valid"),
    ("flat", "zero_spread", "the share of problems whose traces all earn the same, so that they teach nothing"),
    ("ent", "entropy", "the planner's entropy in nats a token"),
    ("|g|", "grad_norm", "the norm of the gradient before clipping"),
)
WHERE_ANY = (  # shown where above 0
    ("format", "format_failures", "the share of replies without one complete reasoning block"),
    ("errors", "verdict_errors", "the share of the others whose executor call, verdict or RM score failed"),
)

SUMMARISED = (  # of a run without held-out problems, in its summary
    "reward", "accuracy", "success_with", "success_base", "uplift", "rm_score", "trace_validity", "wrong_reason_rate",
    "format_failures", "verdict_errors", "zero_spread", "trace_tokens",
)  # fmt: skip


def explain_labels() -> str:
    """What the labels mean, and what to watch."""
    always, at_times = ("; ".join(f"{label}: {what}" for label, _, what in each if what) for each in (SHOWN, WHERE_ANY))
    return (
        textwrap.fill(f"A line a round. {always}. Where there are any, {at_times}.", 120) + "\n"
        "A loss near zero is normal: advantages are centred within each group, so on fresh rollouts, where every "
        "ratio is 1, their sum vanishes while its gradient does not. Watch reward and |g|."
    )


def progress_line(metrics: Mapping[str, float | None]) -> str:
    """The figures of a round that are known; shares of what went wrong only where it did."""
    values = [(label, metrics.get(key)) for label, key, _ in SHOWN]
    values += [(label, metrics.get(key) or None) for label, key, _ in WHERE_ANY]
    return "  ".join(f"{label} {value:.2f}" for label, value in values if value is not None)


def no_trace_at_all(step: int, metrics: Mapping[str, float | None]) -> str | None:
    """What to do, where every reply of 0-based round `step` is a format failure; None where some are none."""
    if metrics.get("format_failures") != 1:
        return None
    cut = metrics.get("truncated") or 0.0
    return (
        f"round {step + 1}: no reply is one complete <reasoning> block, so the executor was not asked and nothing is "
        "learned. Start replies inside the block with planner.prefill = '<reasoning>' and end them with "
        "planner.stop = ['</reasoning>'], show examples in a prompt file (planner.prompt, as in configs/gsm8k.toml), or "
        "train the planner to write it first (run.stage = 'sft')"
        + (f"; {cut:.0%} of the replies were cut at planner.max_new_tokens" if cut else "")
        + ". samples.jsonl has what it wrote."
    )
