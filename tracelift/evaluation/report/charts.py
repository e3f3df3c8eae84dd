"""Plots as inline SVG, drawn by hand so that a report is one file that needs nothing else.

Three: accuracy of each arm, differences between arms, and the RM's scores of right and wrong answers' traces.
Left out: interaction, beyond a title on each mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

COLOURS = {"direct": "#8d99ae", "planner": "#1f6f8b", "reference": "#2e933c", "foreign": "#d1495b"}
_ROW, _WIDTH, _PLOT = 26, 720, 490
_LABELS = (190, 500)  # pixels of room for labels: at least, at most
_SLIM, _BROAD = frozenset("iljtfrI.,:;'!|()[]- "), frozenset("mwMW@%")


def intervals(
    rows: Sequence[tuple[str, float, float, float]], low: float, high: float, zero: bool = False, unit: str = ""
) -> str:
    """Dots with error bars. rows: (label, value, low, high); the axis runs from `low` to `high`.

    The picture grows with its longest label; one that is too long even so loses its middle and has it in its title.
    """
    left = 20 + min(max([_LABELS[0], *(width_of(label) for label, *_ in rows)]), _LABELS[1])
    height, right = _ROW * len(rows) + 34, left + _PLOT
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) / span * (right - left)

    parts = [_open(height, right + 20)]
    for i in range(6):
        tick = low + span * i / 5
        parts.append(f'<line x1="{x(tick):.1f}" y1="4" x2="{x(tick):.1f}" y2="{height - 26}" class="grid"/>')
        parts.append(
            f'<text x="{x(tick):.1f}" y="{height - 10}" class="tick" text-anchor="middle">{tick:.3g}{unit}</text>'
        )
    if zero:
        parts.append(f'<line x1="{x(0):.1f}" y1="4" x2="{x(0):.1f}" y2="{height - 26}" class="zero"/>')
    for i, (label, value, a, b) in enumerate(rows):
        y, colour = 18 + _ROW * i, COLOURS.get(label.split(" ")[0], "#444")
        short = fitted(label)
        whole = f"<title>{escape(label)}</title>" if short != label else ""
        parts.append(f'<text x="{left - 10}" y="{y + 4}" class="label" text-anchor="end">{escape(short)}{whole}</text>')
        parts.append(f'<line x1="{x(a):.1f}" y1="{y}" x2="{x(b):.1f}" y2="{y}" stroke="{colour}" stroke-width="2.5"/>')
        title = f"{label}: {value:.3g}{unit} [{a:.3g}, {b:.3g}]"
        parts.append(
            f'<circle cx="{x(value):.1f}" cy="{y}" r="4.5" fill="{colour}"><title>{escape(title)}</title></circle>'
        )
    return "".join([*parts, "</svg>"])


def histogram(groups: Sequence[tuple[str, str, Sequence[float]]], bins: int = 20) -> str:
    """Shares of values in [0, 1] by bin, one outline per group. groups: (label, colour, values)."""
    height, bottom, right = 190, 150, _WIDTH - 20
    counts = [[0] * bins for _ in groups]
    for row, (_, _, values) in zip(counts, groups, strict=True):
        for v in values:
            row[min(bins - 1, max(0, int(v * bins)))] += 1
    shares = [[c / max(1, sum(row)) for c in row] for row in counts]
    top = max((s for row in shares for s in row), default=0) or 1.0
    width = (right - 40) / bins
    parts = [_open(height)]
    for (label, colour, values), row in zip(groups, shares, strict=True):
        points = [f"40,{bottom}"]
        for i, s in enumerate(row):
            y = bottom - s / top * (bottom - 14)
            points += [f"{40 + i * width:.1f},{y:.1f}", f"{40 + (i + 1) * width:.1f},{y:.1f}"]
        points.append(f"{right},{bottom}")
        title = escape(f"{label}: {len(values)} traces")
        parts.append(
            f'<polygon points="{" ".join(points)}" fill="{colour}" fill-opacity=".25" '
            f'stroke="{colour}"><title>{title}</title></polygon>'
        )
    for i in range(6):
        parts.append(
            f'<text x="{40 + (right - 40) * i / 5:.1f}" y="{bottom + 16}" class="tick" '
            f'text-anchor="middle">{i / 5:.1f}</text>'
        )
    for i, (label, colour, values) in enumerate(groups):
        parts.append(f'<rect x="{60 + 240 * i}" y="{bottom + 25}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{75 + 240 * i}" y="{bottom + 34}" class="label">{escape(label)} ({len(values)})</text>')
    return "".join([*parts, "</svg>"])


def width_of(text: str) -> int:
    """Pixels that `text` takes at 12 px at most: counted for a wide face, because the reader's is not known."""
    return round(sum(5 if c in _SLIM else 12 if c in _BROAD else 9.3 if c.isupper() else 7.6 for c in text))


def fitted(label: str) -> str:
    """The label, or its two ends with … between where it is wider than there is room."""
    kept = len(label)
    short = label
    while width_of(short) > _LABELS[1]:
        kept -= 1
        short = f"{label[: (kept + 1) // 2]}…{label[len(label) - kept // 2 :]}"
    return short


def _open(height: int, width: int = _WIDTH) -> str:
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" xmlns="http://www.w3.org/2000/svg">'
