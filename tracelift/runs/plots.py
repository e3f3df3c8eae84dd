"""The curves of a run: rewards, results on the training problems, and the state of the optimisation.

Reads metrics.jsonl, writes curves.png. Curves that lie on each other stay visible: the first is wide and solid, each later
one narrower and dashed, drawn over it. Left out: interactive plots; the JSON lines are there for those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracelift.files import read_log

Records = Sequence[Mapping[str, Any]]
PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("accuracy and uplift", ("accuracy", "success_with", "success_base", "uplift")),
    ("reasons", ("rm_score", "trace_validity", "wrong_reason_rate", "leak_rate")),
    ("reward", ("reward", "reward_std", "zero_spread")),
    ("policy", ("entropy", "kl", "kl_old", "fresh_ratio_deviation")),
    ("optimizer", ("grad_norm", "clip_low", "clip_high")),
    ("traces", ("trace_tokens",)),
    ("parts of the Reason RM's loss", ("ce", "huber", "rank")),
    (
        "held-out ranking",
        ("dev/pair_accuracy", "dev/group_accuracy", "dev/alternative_pair_accuracy", "dev/sound_group_accuracy"),
    ),
    ("held-out error of the total", ("dev/mae", "dev/rmse")),
)
FROM_DATA = (
    "policy",
    "traces",
    "parts of the Reason RM's loss",
)  # the other panels' axes hold 0: shares, errors and norms
COLOURS = ("#1f6f8b", "#d1495b", "#8d99ae", "#2e933c", "#edae49")
STYLES = (  # of a panel's first, second, … curve: width in points, dashes, size of its dots
    (2.8, "solid", 12.0),
    (2.2, (0, (4, 3)), 8.6),
    (1.8, (0, (2, 2.5)), 5.6),
    (1.4, (0, (1.2, 2)), 3.2),
)
FEW = 3  # points that would make no line


def pyplot() -> Any:
    """matplotlib.pyplot without a display, imported by whoever draws: it takes a second, and most processes draw nothing."""
    import matplotlib

    matplotlib.use("Agg")  # before pyplot is imported
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw_curves(folder: Path) -> Path | None:
    """Draw curves.png in a run folder; None where nothing that could be drawn was logged yet."""
    records = read_log(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    figure = curves(records)
    if figure is None:
        return None
    figure.suptitle(folder.name, fontsize=10, x=0.01, ha="left")
    figure.tight_layout()
    path = folder / "curves.png"
    figure.savefig(path, dpi=110)
    pyplot().close(figure)
    return path


def curves(records: Records) -> Any:
    """A matplotlib figure with a panel for each of PANELS of which something was logged; None where nothing was."""
    panels = [(title, [k for k in keys if any(r.get(k) is not None for r in records)]) for title, keys in PANELS]
    panels = [(title, keys) for title, keys in panels if keys]
    if not panels:
        return None
    columns = 3
    rows = -(-len(panels) // columns)
    figure, axes = pyplot().subplots(rows, columns, figsize=(4.6 * columns, 3.1 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (title, keys) in zip(axes.flat, panels, strict=False):
        for n, key in enumerate(keys):
            _curve(axis, key, n, [(r["step"], r[key]) for r in records if r.get(key) is not None])  # null: not finite
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("round", fontsize=8)
        _rounds(axis, records[0]["step"], records[-1]["step"])
        if title not in FROM_DATA:
            axis.axhline(0, color="black", linewidth=0.6, zorder=1)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    return figure


def _curve(axis: Any, key: str, n: int, points: list[tuple[int, float]]) -> None:
    width, dashes, dot = STYLES[n % len(STYLES)]
    name = key.removeprefix("dev/").replace("_", " ")
    label = f"{name} (0 throughout)" if all(y == 0 for _, y in points) else name
    dots = {"marker": "o", "markersize": dot, "markeredgewidth": 0} if len(points) <= FEW else {}
    look = {"color": COLOURS[n % len(COLOURS)], "linewidth": width, "linestyle": dashes, "dash_capstyle": "butt"}
    axis.plot(*zip(*points, strict=True), label=label, zorder=2 + 0.1 * n, **look, **dots)


def _rounds(axis: Any, first: int, last: int) -> None:
    """Ticks at whole rounds, also where there are one or two."""
    from matplotlib.ticker import MaxNLocator

    axis.set_xlim(first - 0.02 * (last - first) - 0.5, last + 0.02 * (last - first) + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
