"""The curves of a run: ticks at whole rounds, no curve hidden by another, and 0 on every axis of shares."""

import pytest

from tracelift.files import append_lines, json_line
from tracelift.runs.plots import COLOURS, FROM_DATA, PANELS, STYLES, curves, draw_curves, pyplot


@pytest.fixture
def drawn():
    figures = []

    def draw(records):
        figures.append(curves(records))
        return {axis.get_title(loc="left"): axis for axis in figures[-1].axes if axis.get_title(loc="left")}

    yield draw
    for figure in figures:
        pyplot().close(figure)


def logged(rounds, value=lambda key, step: 0.5, first=1):
    return [
        {"step": s} | {key: value(key, s) for _, keys in PANELS for key in keys} for s in range(first, first + rounds)
    ]


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 5, 7, 12, 40, 600])
def test_ticks_are_whole_rounds(drawn, rounds):
    for axis in drawn(logged(rounds)).values():
        low, high = axis.get_xlim()
        shown = [t for t in axis.get_xticks() if low <= t <= high]
        assert shown and all(float(t).is_integer() for t in shown) and len(shown) <= 8
        assert low < 1 and rounds < high


def test_shares_and_errors_have_their_zero(drawn):
    """Where all values are high, and where one is below zero."""
    for value in (0.93, 0.97), (-0.4, 0.2):
        for title, axis in drawn(logged(5, lambda key, step, v=value: v[step % 2])).items():
            low, high = axis.get_ylim()
            assert title in FROM_DATA or low <= 0 <= high, title
            assert low < min(value) and high > max(value), title


@pytest.mark.parametrize("rounds", [1, 2, 30])
def test_equal_curves_are_all_seen(drawn, rounds):
    """Every curve of a panel leaves pixels of its colour, also where all of them are one line."""
    import numpy as np
    from matplotlib.colors import to_rgb

    axes = drawn(logged(rounds, lambda key, step: 0.5))
    for axis in axes.values():
        axis.get_legend().remove()
    canvas = next(iter(axes.values())).figure.canvas
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    height = pixels.shape[0]
    for title, keys in PANELS:
        box = axes[title].get_window_extent()
        inside = pixels[height - int(box.y1) : height - int(box.y0), int(box.x0) : int(box.x1)]
        for colour in COLOURS[: len(keys)]:
            near = np.abs(inside - np.array(to_rgb(colour))).max(axis=2) < 0.06
            assert near.sum() >= 4, (title, colour)


def test_looks_differ_and_flat_zeros_are_named(drawn):
    axes = drawn(logged(6, lambda key, step: 0.0 if key in ("clip_low", "clip_high", "leak_rate") else 0.1 * step))
    for title, keys in PANELS:
        lines = [line for line in axes[title].get_lines() if line.get_color() != "black"]
        looks = {(line.get_linewidth(), str(line._unscaled_dash_pattern)) for line in lines}
        assert len(lines) == len(looks) == len(keys)
        named = {text.get_text() for text in axes[title].get_legend().get_texts()}
        assert {n for n in named if "0 throughout" in n} == {
            f"{k.replace('_', ' ')} (0 throughout)" for k in keys if k in ("clip_low", "clip_high", "leak_rate")
        }
    assert max(len(keys) for _, keys in PANELS) <= len(STYLES) <= len(COLOURS)


def test_a_run_with_gaps_and_one_with_nothing_to_draw(tmp_path):
    assert draw_curves(tmp_path) is None
    append_lines(tmp_path / "metrics.jsonl", [json_line({"step": 1, "lr": 0.1, "kl": None})])
    assert draw_curves(tmp_path) is None
    append_lines(tmp_path / "metrics.jsonl", [json_line({"step": 2, "loss": 1, "dev/mae": 0.2, "accuracy": None})])
    assert draw_curves(tmp_path) == tmp_path / "curves.png" and (tmp_path / "curves.png").stat().st_size > 5_000
