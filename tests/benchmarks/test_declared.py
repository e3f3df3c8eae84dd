"""The declared comparison: blocks of models, one family of eight tests a world, rates chosen by right answers alone."""

import json
import math
import statistics

import pytest

from benchmarks import declared, rates
from benchmarks.jobs import asset_words
from benchmarks.readme import readme_parts, verdict
from benchmarks.results import filled, section
from tracelift.config import load_config
from tracelift.stats import permutation_blocks, welch_blocks

SEEDS = {
    "exec_only": ([0.60, 0.62, 0.61], [0.70, 0.71, 0.74]),
    "tracelift@positions": ([0.58, 0.63, 0.60], [0.69, 0.70, 0.72]),
    "tracelift@seconds": ([0.59, 0.61, 0.60], [0.71, 0.72, 0.75]),
    "gated@positions": ([0.66, 0.67, 0.69], [0.76, 0.78, 0.79]),
    "gated@seconds": ([0.65, 0.68, 0.66], [0.77, 0.75, 0.78]),
}


def record(block):
    """A comparison's file of one asset seed; wrong reasons are 0.9 less accuracy."""
    arms = {
        name: {
            "sampled": {"accuracy": {"seeds": both[block]}, "wrong_reason_rate": {"seeds": [0.9 - v for v in both[block]]}},
            "updates": [10, 12, 14],
            "costs": [{"executor_computed_positions": 1000.0 * (block + 1), "cpu_s": 50.0}] * 3,
        }
        for name, both in SEEDS.items()
    }  # fmt: skip
    alike = [
        {"budget": b, "arm": a, "figure": f, "se_problems": 0.01 * (block + 1)}
        for b in ("positions", "seconds") for a in ("tracelift", "gated") for f in ("accuracy", "wrong_reason_rate")
    ]  # fmt: skip
    return {"arms": arms, "equal_cost": alike, "seeds": [0, 1, 2], "problems": 500, "rates": {}, "versions": {},
            "start": {"sampled": {"accuracy": 0.3, "wrong_reason_rate": 0.6}}}  # fmt: skip


def test_endpoints_by_hand():
    found = declared.endpoints([record(0), record(1)])
    assert len(found) == 8, "two arms, two budgets, two figures"
    by = {(c["budget"], c["arm"], c["figure"]): c for c in found}
    gated = by["positions", "gated", "accuracy"]
    blocks = [(SEEDS["exec_only"][i], SEEDS["gated@positions"][i]) for i in (0, 1)]
    assert gated["p"] == permutation_blocks(blocks) == 2 / 400, (
        "all above all in both blocks: the least of 20 · 20 ways"
    )
    w = welch_blocks(blocks, (0.01**2 + 0.02**2) / 4)
    assert (gated["difference"], gated["low"], gated["high"]) == pytest.approx((w.difference, w.low, w.high))
    assert gated["by_asset_seed"] == pytest.approx([0.19 / 3, 0.18 / 3])
    assert gated["mean"] == pytest.approx([3.98 / 6, 4.35 / 6])
    wrong = by["positions", "gated", "wrong_reason_rate"]
    assert wrong["difference"] == pytest.approx(-gated["difference"]) and wrong["p"] == gated["p"]
    ranked = sorted(c["p"] for c in found)
    assert by["positions", "gated", "accuracy"]["p_holm"] == pytest.approx(8 * ranked[0]), "one family of eight"
    assert all(c["p_holm"] >= c["p"] for c in found)


def test_one_asset_seed_alone_is_the_plain_test():
    (first, *_) = declared.endpoints([record(0)])
    assert first["p"] == permutation_blocks([(SEEDS["exec_only"][0], SEEDS["tracelift@positions"][0])])


def test_costs_and_the_page():
    records = [record(0), record(1)]
    (first, *_) = declared.rows(records)
    assert first.pop("accuracy") == pytest.approx(
        {"mean": 3.98 / 6, "sd": statistics.stdev(sum(SEEDS["exec_only"], []))}
    )
    assert first.pop("wrong_reason_rate")["mean"] == pytest.approx(0.9 - 3.98 / 6)
    assert first == {"arm": "exec_only", "updates": 12, "positions": 1500, "seconds": 50}
    world = {
        "asset_seeds": [0, 1],
        "seeds": [0, 1, 2],
        "problems": 500,
        "endpoints": declared.endpoints(records),
        "rows": declared.rows(records),
    }
    text = declared.render_declared({"worlds": {"math": world}})
    assert "| gated (R x outcome) | executor positions | accuracy | 0.663 | 0.725 | +6.2 [" in text
    assert "asset seeds 0 and 1" in text and "| execution only | 12 | 1,500 | 50 |" in text


def test_the_readme_says_more_or_less_only_where_the_adjusted_p_does(tmp_path):
    """And the text stands between the markers; a marker that went missing is an error."""
    records = [record(0), record(1)]
    worlds = {
        "math": {
            "asset_seeds": [0, 1],
            "seeds": [0, 1, 2],
            "problems": 500,
            "endpoints": declared.endpoints(records),
            "rows": declared.rows(records),
            "least_p": 2 / 400,
            "start": {"accuracy": 0.3, "wrong_reason_rate": 0.6},
        }
    }
    (tmp_path / "declared.json").write_text(json.dumps({"worlds": worlds}))
    parts = readme_parts(tmp_path)
    empty = (
        "x\n<!-- picture:begin -->\nold\n<!-- picture:end -->\n<!-- results:begin -->\nold\n<!-- results:end -->\ny\n"
    )
    text = filled(empty, parts)
    flat = " ".join(text.split())
    assert "\nold\n" not in text and filled(text, parts) == text
    assert "| math | start | 0.300 | 0.600 | 0 | |" in text and "| math | execution only | 0.663 ± " in text
    assert "gated (R x outcome): math: at equal executor positions more (+6.2 [" in flat
    assert "TraceLift: math: at equal executor positions no difference shown (-1.0 [" in flat
    assert "asset seeds 0 and 1" in flat and "cannot show less than math 0.04." in flat
    (c,) = [
        c
        for c in worlds["math"]["endpoints"]
        if (c["budget"], c["arm"], c["figure"]) == ("seconds", "gated", "accuracy")
    ]
    assert verdict(c | {"p_holm": 0.06}).startswith("more by its interval (")
    assert verdict(c | {"p_holm": 0.06, "low": -0.01}).startswith("no difference shown (")
    with pytest.raises(ValueError, match="results:begin"):
        filled("<!-- picture:begin -->\n\n<!-- picture:end -->", parts)


def test_the_command_takes_what_is_there_and_refuses_comparisons_of_different_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(declared, "ROOT", tmp_path)
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["declared"])
    with pytest.raises(SystemExit, match="no comparison with --equal"):
        declared.main()
    (folder / "compare-math.json").write_text(json.dumps(record(0)))
    (folder / "compare-code.json").write_text(json.dumps(record(0) | {"equal_cost": []}))
    declared.main()
    found = json.loads((folder / "declared.json").read_text())
    assert list(found["worlds"]) == ["math"] and found["worlds"]["math"]["asset_seeds"] == [0]
    assert "## What the reward buys at equal cost" in section(folder / "declared.json")
    (folder / "compare-math-1.json").write_text(json.dumps(record(1) | {"problems": 400}))
    with pytest.raises(SystemExit, match="differ in seeds, problems"):
        declared.main()
    (folder / "compare-math-1.json").write_text(json.dumps(record(1)))
    declared.main()
    assert json.loads((folder / "declared.json").read_text())["worlds"]["math"]["asset_seeds"] == [0, 1]


def test_a_rate_is_chosen_by_the_accuracy_of_the_last_quarter(tmp_path):
    rows = [{"accuracy": a, "wrong_reason_rate": 0.0} for a in (0.9, 0.9, 0.9, 0.1, 0.2, 0.3, 0.4, 0.6)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert rates.score(tmp_path) == pytest.approx(0.5)
    scores = {"a": {"4e-4": [0.5, 0.7], "1e-4": [0.6, 0.6]}, "b": {"1e-4": [0.1, 0.9], "4e-4": [0.8, 0.4]}}
    assert rates.choose(scores) == {"a": 1e-4, "b": 4e-4}, "the smaller of equals; the higher mean"
    assert "| a | 0.600 | **0.600** |" in rates.render({"scores": scores, "chosen": rates.choose(scores)})


def test_models_of_another_asset_seed_are_where_the_build_leaves_them():
    assert asset_words("math", 0) == []
    config = load_config("configs/math-demo.toml", asset_words("math", 1))
    assert config.executor.path == "runs/assets-math-1/out/executor"
    assert (
        config.reward_model.path == "runs/assets-math-1/out/reward_model"
        and config.planner.path == "assets/math/planner"
    )
    config = load_config("configs/math-demo.toml", asset_words("math", 1, "planner"))
    assert config.planner.path == "runs/assets-math-1/out/planner" and math.isfinite(config.optim.lr)
