"""The curves of a run: rewards, results on the training problems, and the state of the optimisation.

Reads metrics.jsonl, writes curves.png. Left out: interactive plots; the JSON lines are there for those.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tracelift.files import read_log

PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("accuracy and uplift", ("accuracy", "success_with", "success_base", "uplift")),
    ("reasons", ("rm_score", "trace_validity", "wrong_reason_rate", "leak_rate")),
    ("reward", ("reward", "reward_std", "zero_spread")),
    ("policy", ("entropy", "kl", "kl_old", "fresh_ratio_deviation")),
    ("optimizer", ("grad_norm", "clip_low", "clip_high")),
    ("traces", ("trace_tokens",)),
    ("parts of the Reason RM's loss", ("ce", "huber", "rank")),
    ("held-out ranking", ("dev/pair_accuracy", "dev/group_accuracy")),
    ("held-out error of the total", ("dev/mae", "dev/rmse")),
)
COLOURS = ("#1f6f8b", "#d1495b", "#8d99ae", "#2e933c", "#edae49")


def pyplot() -> Any:
    """matplotlib.pyplot without a display, imported by whoever draws: it takes a second, and most processes draw nothing."""
    import matplotlib

    matplotlib.use("Agg")  # before pyplot is imported
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw_curves(folder: Path) -> Path | None:
    """Draw curves.png in a run folder; None where nothing was logged yet."""
    records = read_log(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    if not records:
        return None
    panels = [(title, [k for k in keys if any(k in r for r in records)]) for title, keys in PANELS]
    panels = [(title, keys) for title, keys in panels if keys]
    columns = 3
    rows = -(-len(panels) // columns)
    plt = pyplot()
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.1 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (title, keys) in zip(axes.flat, panels, strict=False):
        for key, colour in zip(keys, COLOURS, strict=False):
            points = [(r["step"], r[key]) for r in records if r.get(key) is not None]  # null: not finite
            axis.plot(*zip(*points, strict=True), label=key.replace("_", " "), color=colour, linewidth=1.6)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("round", fontsize=8)
        axis.locator_params(axis="x", integer=True)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    figure.suptitle(folder.name, fontsize=10, x=0.01, ha="left")
    figure.tight_layout()
    path = folder / "curves.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
