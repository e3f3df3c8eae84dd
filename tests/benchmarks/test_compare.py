"""benchmarks/compare: seed and problem variance apart, exact tests over runs, jobs that are not repeated, a page that follows."""

import argparse
import json
import sys

import pytest

from benchmarks import pretrained
from benchmarks.compare import train_arm
from benchmarks.compare_figures import (
    ARMS,
    aggregate,
    at_equal_cost,
    by_figure,
    contrasts,
    of_outcomes,
    summary,
)
from benchmarks.compare_report import COLOURS, TITLES, detectable, draw, fault_table, holds, interval, render_markdown
from benchmarks.jobs import Job, claim, print_of, run_all
from benchmarks.results import compare_section, page
from support.eval_folders import PROBLEMS, evaluation, jsonl
from tracelift.config import load_config, to_dict
from tracelift.config import modes as rewards
from tracelift.evaluation.figures.runs import contrast, problem_variance
from tracelift.stats import welch
from tracelift.training.sft import read_rows


@pytest.fixture
def runs(tmp_path):
    evaluation(tmp_path / "start" / "eval", 10, ("direct", "planner"))
    for arm, shares in (("exec_only", (20, 22, 24)), ("tracelift", (25, 26, 30))):
        for seed, right in enumerate(shares):
            run = tmp_path / f"{arm}-{seed}"
            jsonl(
                run / "metrics.jsonl", [{"step": i + 1, "accuracy": 0.1 * (seed + 1), "uplift": 0.2} for i in range(3)]
            )
            jsonl(run / "timings.jsonl", [{"step": i + 1, "seconds": 1.0, "executor_tokens": 100} for i in range(3)])
            evaluation(run / "eval", right)
    return tmp_path


def test_aggregate_by_hand(runs):
    record = aggregate(runs, ["exec_only", "tracelift"], [0, 1, 2])
    ours = record["arms"]["tracelift"]
    assert ours["updates"] == [3, 3, 3] and ours["executor_tokens"] == [300, 300, 300]
    accuracy = ours["greedy"]["accuracy"]
    assert accuracy["seeds"] == [25 / 40, 26 / 40, 30 / 40] and accuracy["mean"] == pytest.approx(27 / 40)
    assert accuracy["sd_seeds"] == pytest.approx((7 / 1600) ** 0.5)  # squares 4 + 1 + 9 over n - 1 = 2, in 40ths
    assert accuracy["se_problems"] == pytest.approx(sum((p * (1 - p) / 39) ** 0.5 for p in accuracy["seeds"]) / 3)
    assert ours["greedy"]["uplift"]["mean"] == pytest.approx(27 / 40 - 10 / 40)
    assert ours["curves"]["accuracy"] == {"mean": [0.2] * 3, "sd": [0.1] * 3} and ours["curves"]["executor_tokens"] == [
        100,
        200,
        300,
    ]
    greedy, sampled = record["comparisons"]
    assert greedy["by_seed"] == pytest.approx([5 / 40, 4 / 40, 6 / 40]) and greedy["difference"] == pytest.approx(
        5 / 40
    )
    assert greedy["p"] == 2 / 20 == greedy["least_p"] == greedy["p_holm"], "three runs that all win can show no less"
    gaps = [1 / 3 * ((i < 25) + (i < 26) + (i < 30) - (i < 20) - (i < 22) - (i < 24)) for i in range(PROBLEMS)]
    mean = sum(gaps) / PROBLEMS
    problems = sum((g - mean) ** 2 for g in gaps) / (PROBLEMS - 1) / PROBLEMS
    assert greedy["se_problems"] == pytest.approx(problems**0.5)
    wanted = welch([20 / 40, 22 / 40, 24 / 40], [25 / 40, 26 / 40, 30 / 40], problems)
    assert (greedy["low"], greedy["high"]) == pytest.approx((wanted.low, wanted.high))
    assert greedy["figures"]["trace_validity"]["difference"] == pytest.approx(5 / 80)
    text = render_markdown({**record, "problems": PROBLEMS, "seeds": [0, 1, 2], "samples": 1})
    assert "| TraceLift | 0.675 ± 0.066 | 0.425 ± 0.066 |" in text and "| execution only | +12.5 [" in text


def test_a_fault_that_a_run_did_not_show_counts_as_none_of_it():
    runs = [
        {"accuracy": 0.5, "wrong_reason_rate": 0.3, "wrong reasons: ungrounded": 0.3},
        {"accuracy": 0.7, "wrong_reason_rate": 0.1, "wrong reasons: answer leaked": 0.1},
    ]
    figures = summary(runs, [[0.5, 0.5], [0.7, 0.7]])
    assert figures["wrong reasons: ungrounded"]["seeds"] == [0.3, 0.0]
    assert figures["wrong reasons: answer leaked"]["mean"] == pytest.approx(0.05)
    other = {"sampled": {"wrong reasons: ungrounded": {"mean": 0.2, "sd_seeds": 0.1}}}
    record = {
        "start": {"sampled": {"wrong reasons: ungrounded": 0.4}},
        "arms": {"exec_only": {"sampled": figures}, "gated": other},
    }
    text = fault_table(record, ["wrong reasons: answer leaked", "wrong reasons: ungrounded"])
    assert "| reward | answer leaked | ungrounded |" in text and "| start (no training) | 0.000 | 0.400 |" in text
    assert "| gated (R x outcome) | 0.000 ± 0.000 | 0.200 ± 0.100 |" in text


def test_arms_at_equal_cost_meet_the_whole_runs_of_execution_only(runs):
    """Figures by hand, Holm over both figures and both budgets; such an arm is in no other comparison and in no curve."""
    for budget, shares in (("positions", (21, 24, 27)), ("seconds", (30, 31, 32))):
        for seed, right in enumerate(shares):
            run = runs / f"tracelift@{budget}-{seed}"
            jsonl(run / "metrics.jsonl", [{"step": 1, "accuracy": 0.1}])
            jsonl(run / "timings.jsonl", [{"step": 1, "seconds": 1.0, "executor_tokens": 100}])
            evaluation(run / "eval", right)
    arms = ["exec_only", "tracelift", "tracelift@positions", "tracelift@seconds"]
    record = aggregate(runs, arms, [0, 1, 2])
    found = {(c["budget"], c["figure"]): c for c in record["equal_cost"]}
    assert set(found) == {("positions", "accuracy"), ("seconds", "accuracy")}, "these evaluations have no other figure"
    assert found["positions", "accuracy"]["difference"] == pytest.approx(2 / 40)
    assert found["seconds", "accuracy"]["difference"] == pytest.approx(9 / 40)
    assert found["seconds", "accuracy"]["p"] == 2 / 20 and found["seconds", "accuracy"]["p_holm"] == pytest.approx(
        4 / 20
    )
    assert {c["a"] for c in record["comparisons"]} == {"exec_only"}
    text = render_markdown({**record, "problems": PROBLEMS, "seeds": [0, 1, 2], "samples": 1})
    assert "| TraceLift | CPU seconds | accuracy | +22.5 [" in text
    assert "| TraceLift, at equal executor positions |" in text
    assert draw({**record, "world": "math", "seeds": [0, 1, 2], "problems": PROBLEMS}, runs / "curves.png").exists()


def test_wrong_reasons_are_an_endpoint_at_equal_cost():
    """Both figures of every arm and budget are one family for Holm."""
    arm = lambda right, wrong: {"sampled": {"accuracy": {"seeds": right}, "wrong_reason_rate": {"seeds": wrong}}}  # noqa: E731
    arms = {
        "exec_only": arm([0.8, 0.82, 0.84], [0.4, 0.5, 0.45]),
        "gated@seconds": arm([0.81, 0.8, 0.85], [0.1, 0.2, 0.1]),
        "gated": arm([0.9, 0.9, 0.9], [0.0, 0.0, 0.0]),
    }
    found = at_equal_cost({name: {"sampled": {}} for name in arms}, arms)
    assert [(c["arm"], c["budget"], c["figure"]) for c in found] == [
        ("gated", "seconds", "accuracy"),
        ("gated", "seconds", "wrong_reason_rate"),
    ]
    assert found[1]["difference"] == pytest.approx(0.4 / 3 - 0.45)
    assert (found[1]["p"], found[1]["p_holm"]) == (2 / 20, 4 / 20)


def test_evaluations_of_other_problems_are_refused(runs):
    path = runs / "tracelift-1" / "eval" / "outcomes.json"
    path.write_text(path.read_text().replace('"problems": [0, 1', '"problems": [99, 1'))
    with pytest.raises(ValueError, match="different problems"):
        aggregate(runs, ["exec_only", "tracelift"], [0, 1, 2])


def test_more_problems_never_stand_in_for_more_runs():
    """Two runs a side that disagree stay uncertain however many problems each was measured on; problems that differ
    widen the interval although the runs agree."""
    few, many = ([[float(i % 2 == 0) for i in range(n)] for _ in range(2)] for n in (20, 2000))
    sure = [contrast([0.2, 0.6], [0.5, 0.9], problem_variance(s, s)) for s in (few, many)]
    assert sure[0]["low"] == sure[1]["low"] < 0 < sure[0]["high"] and sure[0]["p"] == sure[1]["p"] > 0.3
    still, moved = [[0.0] * 40] * 2, [[float(i % 2) for i in range(40)]] * 2
    assert problem_variance(still, moved) == pytest.approx(0.25 * 40 / 39 / 40)
    wide = contrast([0.0, 0.0], [0.5, 0.5], problem_variance(still, moved))
    assert wide["low"] < 0.5 < wide["high"] and problem_variance(still, [[0.5] * 40] * 2) == 0
    assert problem_variance([[0.0, None, 1.0]], [[1.0, 1.0, 1.0]]) == pytest.approx(0.25), (
        "what a run left unjudged does not count"
    )


def test_validity_and_wrong_reasons_are_told_by_problem():
    """Their means are the figures; a rate over right samples varies as a jackknife over problems says."""
    letters = {
        "arms": {"planner": {"greedy": ["11", "10", "01", "00", "1-"]}},
        "valid": {"p": {"greedy": ["10", "01", "11", "0-", "1-"]}},
    }
    found = of_outcomes(letters, "greedy")
    assert found["accuracy"] == [1, 0.5, 0.5, 0, None] and found["trace_validity"] == [0.5, 0.5, 1, 0, 1]
    wrong, right = [1, 1, 0, 0, 0], [2, 1, 1, 0, 1]  # right samples on an invalid trace, and right samples
    rate = sum(wrong) / sum(right)
    assert sum(found["wrong_reason_rate"]) / 5 == pytest.approx(rate)
    assert found["wrong_reason_rate"] == pytest.approx(
        [rate + (w - rate * r) / (sum(right) / 5) for w, r in zip(wrong, right, strict=True)]
    )
    wrong, right = ([i % k == 0 for i in range(300)] for k in (6, 2))
    big = {
        "arms": {"planner": {"greedy": ["01"[r] for r in right]}},
        "valid": {"p": {"greedy": ["10"[w] for w in wrong]}},
    }
    values = of_outcomes(big, "greedy")["wrong_reason_rate"]
    left = [(sum(wrong) - w) / (sum(right) - r) for w, r in zip(wrong, right, strict=True)]
    jackknife = 299 / 300 * sum((x - sum(left) / 300) ** 2 for x in left)
    assert problem_variance([[0.0] * 300], [values]) == pytest.approx(jackknife, rel=0.02)
    del big["valid"]
    assert list(of_outcomes(big, "greedy")) == ["accuracy"], "an evaluation that did not keep them"
    seeds = by_figure([letters, letters], "greedy")
    sides = {n: {"seeds": [0.5, 0.5]} for n in ("accuracy", "trace_validity", "trace_tokens")}
    made = contrasts(
        sides, sides, seeds, {**seeds, "trace_validity": [[0.0] * 5] * 2}, ("trace_validity", "trace_tokens")
    )
    assert made["trace_validity"]["se_problems"] > 0 == made["trace_tokens"]["se_problems"]


def test_no_interval_where_the_runs_do_not_differ():
    """Two seeds that agree are not certainty, and the page says which intervals are for other problems too."""
    same, apart = contrast([0.0, 0.0], [0.0, 0.0]), contrast([0.1, 0.2], [0.2, 0.4])
    assert (
        interval(same, 1, 3) == "+0.000 [-]"
        and detectable(same) == "-"
        and interval(apart, 1, 3).startswith("+0.150 [-")
    )
    known = contrast([0.1, 0.2], [0.2, 0.4], 0.01)
    told = holds(
        [{"accuracy": known, "trace_validity": apart, "wrong_reason_rate": same}],
        ("trace_validity", "wrong_reason_rate"),
    )
    assert "those of trace validity and wrong reason rate for other seeds on the same problems. [-] stands" in told
    told = holds(
        [{"accuracy": known, "trace_validity": known, "answer_stated": apart}], ("trace_validity", "answer_stated")
    )
    assert told.endswith("other problems, those of answer stated for other seeds on the same problems.")


def test_an_arm_differs_from_tracelift_in_what_it_is_named_for(tmp_path):
    args = argparse.Namespace(
        out=tmp_path, config="configs/math-demo.toml", planner="p", overrides=[], equal=[], rates={}
    )

    def trained(arm):
        words = train_arm(arm, 1, args).command[2:]
        return to_dict(load_config(words[0], words[1:]))

    plain = trained("tracelift")
    found = {}
    for arm in ARMS:
        mine = trained(arm)
        mine["run"]["out"] = plain["run"]["out"]
        found[arm] = {f"{s}.{k}": v for s in mine for k, v in mine[s].items() if v != plain[s][k]}
        assert arm in TITLES and arm in COLOURS
    modes = {arm: {"reward.mode": arm} for arm in rewards.MODES if arm != "tracelift"}
    assert found == modes | {
        "tracelift": {},
        "drop": {"grpo.flat_groups": "drop"},
        "resample": {"grpo.flat_groups": "resample"},
        "mask_truncated": {"grpo.mask_truncated": True},
    }


def test_runs_of_other_models_are_not_mixed_in(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    out, setup = tmp_path / "runs", {"problems": 1000, "overrides": [], "planner": print_of(model)}
    claim(out, setup)
    claim(out, setup)
    (model / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(SystemExit, match="another setup(.|\n)*planner"):
        claim(out, {**setup, "planner": print_of(model)})


def test_jobs_are_done_once_and_failures_are_named(tmp_path):
    def job(name, code):
        return Job(name, [sys.executable, "-c", code], tmp_path / f"{name}.log", tmp_path / f"{name}.done")

    def mark(name):
        return job(name, f"import sys; open({str(tmp_path / (name + '.done'))!r}, 'a').write('x'); print('told')")

    jobs = [mark("a"), mark("b")]
    run_all(jobs, 2)
    run_all(jobs, 2)
    assert (tmp_path / "a.done").read_text() == "x" and "told" in (tmp_path / "a.log").read_text()
    with pytest.raises(SystemExit, match="c ended with 3; its log: .*c.log"):
        run_all([job("c", "raise SystemExit(3)"), mark("d")], 1)
    assert (tmp_path / "d.done").exists(), "one failure does not stop the others"


def test_the_section_of_the_page_names_command_seeds_and_machine(runs, tmp_path):
    record = {
        **aggregate(runs, ["exec_only", "tracelift"], [0, 1, 2]),
        "command": "python -m benchmarks.compare",
        "versions": {"torch": "9"},
        "world": "math",
        "config": "c.toml",
        "overrides": [],
        "seeds": [0, 1, 2],
        "eval_seed": 5,
        "problems": PROBLEMS,
        "samples": 1,
    }
    text = compare_section(tmp_path / "compare-math.json", record)
    for told in (
        "`python -m benchmarks.compare`",
        "training seeds 0, 1, 2",
        "torch 9",
        "evaluation seed 5",
        "python eval.py --run",
    ):
        assert told in text


def test_the_page_has_comparisons_first_and_plain_files_as_the_tables_they_hold(runs, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    record = {
        **aggregate(runs, ["exec_only", "tracelift"], [0, 1, 2]),
        "command": "c",
        "versions": {},
        "world": "math",
        "config": "c.toml",
        "overrides": [],
        "seeds": [0, 1, 2],
        "eval_seed": 5,
        "problems": PROBLEMS,
        "samples": 1,
    }
    (folder / "compare-math.json").write_text(json.dumps(record))
    (folder / "bench.json").write_text(
        json.dumps({"tasks": [{"name": "a", "rows": [{"who": "ours", "s": 1.5}]}], "cores": 2})
    )
    told = page(folder)
    assert told.index("The reward compared") < told.index("## Bench") and "**name a**\n\n| who | s |" in told
    assert "Versions and machine were not recorded" in told and "`python -m benchmarks.bench`" in told


def test_the_pretrained_models_go_on_from_where_their_sft_was(tmp_path, monkeypatch):
    fresh = pretrained.stage("planner", tmp_path / "base", tmp_path)
    assert "configs/smollm2-planner.toml" in fresh.command and "--run.resume" not in fresh.command
    jsonl(tmp_path / "planner" / "metrics.jsonl", [{"step": 1}])
    again = pretrained.stage("planner", tmp_path / "base", tmp_path)
    assert (
        again.command == [*fresh.command, "--run.resume"]
        and "--sft.dev" in pretrained.stage("executor", tmp_path, tmp_path).command
    )
    monkeypatch.setattr(sys, "argv", ["pretrained", "--base", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="no model folder"):
        pretrained.main()


def test_a_pretrained_section_names_its_models_and_every_sft_row_is_learnable(runs, tmp_path):
    record = {
        **aggregate(runs, ["exec_only", "tracelift"], [0, 1, 2]),
        "world": "math",
        "config": "c",
        "overrides": [],
        "seeds": [0, 1, 2],
        "eval_seed": 1,
        "problems": 40,
        "samples": 2,
        "command": "x",
        "versions": {},
        "about": pretrained.ABOUT,
    }
    assert compare_section(tmp_path / "compare-smollm2.json", record).startswith(
        f"## The reward compared, {pretrained.ABOUT}\n"
    )
    pretrained.write_data(tmp_path)
    assert [len(read_rows(tmp_path / f"{name}.jsonl")) for name in ("planner", "executor", "dev")] == [4000, 6000, 100]
