"""benchmarks/study: cells, what is compared with what, and tables that follow from the evaluations."""

import pytest

from benchmarks.study import CELLS, EXECUTORS, REFERENCE, TRANSFERRED, chosen_cells, slug, transfers
from benchmarks.study_figures import collect, render_study
from support.eval_folders import evaluation, jsonl
from tracelift.config import load_config


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.id)
def test_every_cell_is_a_run_that_the_config_knows(cell):
    words = [word for key, value in cell.options.items() for word in (f"--{key}", value)]
    config = load_config("configs/math-demo.toml", words)
    assert config.run.stage == "planner" and (cell.executor == "strong" or cell.executor in EXECUTORS)


def test_cells_are_named_apart_and_asked_about():
    ids = [c.id for c in CELLS]
    assert len({slug(i) for i in ids}) == len(ids) and REFERENCE in ids and set(TRANSFERRED) <= set(ids)
    asked = {c.id: c.against for c in CELLS if c.against}
    assert set(asked.values()) <= set(ids) and asked["executor.weak tracelift"] == "executor.weak exec_only"
    assert asked["noise.K 8"] == REFERENCE and asked["noise.T 2.0 K 8"] == "noise.T 2.0 K 3"
    by_id = {c.id: c.options for c in CELLS}
    for b, a in asked.items():
        if b.startswith("noise.T"):
            assert by_id[a]["executor.temperature"] == by_id[b]["executor.temperature"], "like with like"
    assert {c.id for c in chosen_cells(["blind.to duplicate", "long.*"])} >= {"rm.oracle", "noise.gated", REFERENCE}
    assert len(chosen_cells(["nothing"])) == 2, "the reference, and what it is asked against"
    made = {c.id: c.executor for c in CELLS}
    moved = transfers({"weak", "strong"})
    assert moved and all(made[cell] != executor for cell, executor in moved), "only executors it never saw"


def test_figures_and_tables_follow_from_the_evaluations(tmp_path):
    for executor, right in (("strong", 4), ("weak", 2)):
        evaluation(tmp_path / "start" / executor, right, ("direct", "planner", "reference"))
    cells = [
        ("executor", "strong exec_only", "strong", "a", {}),
        ("executor", "strong tracelift", "strong", "b", {}),
        ("rm", "oracle", "strong", "c", {"reward_model.path": "oracle"}),
    ]
    for folder, shares in (("a", (10, 12)), ("b", (20, 24)), ("c", (30, 34))):
        for seed, right in enumerate(shares):
            run = tmp_path / folder / str(seed)
            jsonl(run / "timings.jsonl", [{"step": 1, "seconds": 2.0, "executor_tokens": 50}] * 2)
            evaluation(run / "eval", right)
    for seed, right in enumerate((8, 10)):
        evaluation(tmp_path / "b" / str(seed) / "with-weak", right)
    asked = [("executor.strong exec_only", REFERENCE), (REFERENCE, "rm.oracle"), (REFERENCE, "noise.gated")]
    record = collect(tmp_path, cells, [0, 1], [(REFERENCE, "weak")], {REFERENCE: "b"}, asked)
    assert record["executors"]["weak"] == {"direct": 2 / 40, "planner": 2 / 40, "reference": 2 / 40}
    assert record["cells"][1]["greedy"]["accuracy"]["mean"] == 22 / 40 and record["cells"][1]["executor_tokens"] == 100
    assert [(c["a"], c["b"]) for c in record["contrasts"]] == [
        ("executor.strong exec_only", REFERENCE),
        (REFERENCE, "rm.oracle"),
    ]
    assert record["contrasts"][1]["greedy"]["accuracy"]["difference"] == pytest.approx(10 / 40)
    assert record["contrasts"][1]["greedy"]["accuracy"]["p"] == 2 / 6
    (moved,) = record["transfer"]
    assert moved["greedy"]["accuracy"]["mean"] == 9 / 40 and moved["greedy"]["uplift"]["mean"] == pytest.approx(7 / 40)
    text = render_study(record)
    assert "| oracle minus strong tracelift | +25.0 [" in text and "| strong tracelift | weak | 0.225 ± " in text
    assert "**Runs behind" not in text, "an axis without cells is left out"
