"""Plots of the report as HTML that flows: legible at any width, since labels are text and only bars are scaled.

    intervals   a dot with its interval a row, on an axis that holds 0
    stacked     parts of a share a row, with a legend
    histogram   shares of values in [0, 1] by bin, two outcomes side by side

Colours are names of page.html's style. Left out: interaction, beyond a title on each mark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

BINS = 10
PARTS = 6  # colours of a stacked bar; the rest is one part


class Row(NamedTuple):
    label: str
    value: float
    low: float
    high: float
    colour: str = "other"


def intervals(rows: Sequence[Row], least: float = 0.0, most: float = 0.0, digits: int = 3) -> str:
    """Dots with error bars, on an axis from at most `least` to at least `most` that holds all of them, and 0."""
    finite = [r for r in rows if all(map(math.isfinite, r[1:4]))]
    if not finite:
        return ""
    ticks = axis([least, most, 0.0, *(v for r in finite for v in r[1:4])])
    low, span = ticks[0], ticks[-1] - ticks[0]

    def at(value: float) -> str:
        return f"{100 * (value - low) / span:.2f}%"

    grid = "".join(f'<i class="{"zero" if t == 0 else "grid"}" style="left:{at(t)}"></i>' for t in ticks)
    lines = []
    for r in finite:
        told = f"{r.value:.{digits}f} [{r.low:.{digits}f}, {r.high:.{digits}f}]"
        width = f"{100 * (r.high - r.low) / span:.2f}%"
        marks = f'<i class="span {r.colour}" style="left:{at(r.low)};width:{width}"></i>'
        marks += f'<i class="dot {r.colour}" style="left:{at(r.value)}"></i>'
        lines.append(
            _line(r.label, f'<span class="track" title="{escape(f"{r.label}: {told}")}">{grid}{marks}</span>', told)
        )
    marks = "".join(f'<b style="left:{at(t)}">{_number(t)}</b>' for t in ticks)
    return _plot([*lines, _line("", f'<span class="track scale">{marks}</span>', "")])


def stacked(rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """Bars from 0 to the largest sum, or to 0.1. rows: (label, [(part, share), …]); parts in one order of colours."""
    weight: dict[str, float] = {}
    for _, parts in rows:
        for name, share in parts:
            weight[name] = weight.get(name, 0.0) + share
    names = sorted(weight, key=lambda name: -weight[name])
    colours = {name: f"part{min(i, PARTS - 1)}" for i, name in enumerate(names)}
    top = axis([0.0, 0.1, *(math.fsum(s for _, s in parts) for _, parts in rows)])
    lines = []
    for label, parts in rows:
        bars, left = "", 0.0
        for name, share in sorted(parts, key=lambda part: names.index(part[0])):
            title = escape(f"{name}: {share:.3f}")
            bars += f'<i class="bar {colours[name]}" style="left:{100 * left / top[-1]:.2f}%;width:{100 * share / top[-1]:.2f}%" title="{title}"></i>'
            left += share
        lines.append(_line(label, f'<span class="track">{bars}</span>', f"{left:.3f}"))
    marks = "".join(f'<b style="left:{100 * t / top[-1]:.2f}%">{_number(t)}</b>' for t in top)
    legend = "".join(f'<span><i class="key {colours[n]}"></i>{escape(n.replace("_", " "))}</span>' for n in names)
    scale = _line("", f'<span class="track scale">{marks}</span>', "")
    return _plot([*lines, scale]) + f'<p class="legend">{legend}</p>'


def histogram(groups: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """Shares of values in [0, 1] by tenth, each group's of its own number. groups: (label, colour, values); NaN is in none."""
    groups = [(label, colour, [v for v in values if math.isfinite(v)]) for label, colour, values in groups]
    shares = []
    for _, _, values in groups:
        counts = [0] * BINS
        for v in values:
            counts[min(BINS - 1, max(0, int(v * BINS)))] += 1
        shares.append([c / max(1, len(values)) for c in counts])
    top = max((s for row in shares for s in row), default=0.0) or 1.0
    columns = []
    for i in range(BINS):
        bars = ""
        for (label, colour, _), row in zip(groups, shares, strict=True):
            title = escape(f"{label}, {i / BINS:.1f} to {(i + 1) / BINS:.1f}: {row[i]:.1%}")
            bars += f'<i class="{colour}" style="height:{100 * row[i] / top:.1f}%" title="{title}"></i>'
        columns.append(f"<div>{bars}</div>")
    ticks = "".join(f"<b>{i / BINS:.1f}</b>" for i in range(BINS))
    legend = "".join(
        f'<span><i class="key {colour}"></i>{escape(label)} ({len(values)})</span>' for label, colour, values in groups
    )
    return (
        f'<div class="histogram" role="img"><div class="columns">{"".join(columns)}</div><div class="bins">{ticks}</div></div>'
        f'<p class="legend">{legend}<span>tallest column: {top:.0%}</span></p>'
    )


def axis(values: Sequence[float]) -> list[float]:
    """Ticks at round numbers around all values: at most seven, steps of 1, 2 or 5 times a power of ten, 0 among them where the
    values have both signs or hold it."""
    low, high = min(values), max(values)
    rough = max(high - low, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def _number(value: float) -> str:
    return f"{value:.10f}".rstrip("0").rstrip(".") or "0"


def _line(label: str, track: str, told: str) -> str:
    return f'<div class="line"><span class="name">{escape(label)}</span>{track}<span class="num">{escape(told)}</span></div>'


def _plot(lines: Sequence[str]) -> str:
    return f'<div class="plot" role="img">{"".join(lines)}</div>'
