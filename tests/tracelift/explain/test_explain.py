"""tracelift.explain: what it tells is what training did, and it notices a record that does not add up."""

import json
import re
import shutil

import pytest
import torch

import train
from support.tiny_job import planner_arguments
from tracelift.config import config_of_run, modes
from tracelift.explain import replay as module
from tracelift.explain.__main__ import main
from tracelift.explain.prose import explain
from tracelift.explain.replay import (
    ExplainError,
    grouped,
    read_round,
    replay_advantages,
    replay_counts,
    replay_trained,
)

MORE = ("--grpo.minibatches", "2", "--grpo.epochs", "2", "--data.eval_problems", "0")
LEFT_OUT = {  # how the loss may leave traces out
    "nothing": (),
    "flat groups dropped": ("--grpo.flat_groups", "drop"),
    "flat groups resampled": ("--grpo.flat_groups", "resample", "--grpo.resample_rounds", "1"),
    "cut traces masked": ("--grpo.mask_truncated", "true", "--planner.max_new_tokens", "8"),
}


def spied(job, folder, *extra):
    """A run with two minibatches and two epochs, and what the loss really got: every (advantage, weight, sequence) call."""
    seen: list[dict] = []
    real = train.policy_loss

    def spy(logprob, old, advantage, weight, sequence, config, **rest):
        seen.append({"advantage": advantage.tolist(), "weight": weight.tolist(), "old": old.tolist()})
        return real(logprob, old, advantage, weight, sequence, config, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "policy_loss", spy)
        assert train.main(planner_arguments(job, folder, *MORE, *extra)) == 0
    return folder, seen


@pytest.fixture(scope="module")
def spied_run(job, tmp_path_factory):
    return spied(job, tmp_path_factory.mktemp("explained") / "run")


@pytest.mark.parametrize("uplift", ["sampled", "likelihood"])
@pytest.mark.parametrize("mode", modes.MODES)
def test_every_reward_follows_from_its_record_which_holds_null_for_what_was_not_asked(job, tmp_path, mode, uplift):
    """One round: each logged reward is the formula of docs/method.md, by hand, and the account has nothing to complain of."""
    extra = ("--run.steps", "1", "--data.eval_problems", "0", "--reward.mode", mode, "--executor.uplift", uplift)
    assert train.main(planner_arguments(job, tmp_path / "run", *extra)) == 0
    config, groups = config_of_run(tmp_path / "run"), grouped(read_round(tmp_path / "run", 1)[1])
    needs = modes.MODES[mode]
    ran = [r for group in groups for r in group if r["trace"] is not None]
    assert ran
    for r in ran:
        assert (r["success_with"] is not None) == needs.repeats and (r["success_base"] is not None) == needs.baseline
        e2e, R, u, s = float(r["e2e"] == "PASS"), r["rm_total"] or 0.0, r["uplift"], r["success_with"]
        if uplift == "likelihood" and needs.repeats:
            s, u = max(0.0, 1 + r["likelihoods"][0]), None if u is None else min(1.0, max(-1.0, u))
        u, s = u or 0.0, s or 0.0
        wanted = {
            "tracelift": 0.5 * e2e + 0.5 * R * u,
            "exec_only": e2e,
            "rm_only": R,
            "uplift_only": u,
            "product_only": R * u,
            "gated": R * e2e,
            "additive": 0.5 * e2e + 0.5 * R,
            "graded": R * s,
        }[mode]
        assert r["reward"] == pytest.approx(wanted, abs=1e-9)
        assert module.replay_reward(r, config) == pytest.approx(r["reward"], abs=1e-9)
        assert module.contradictions(r, config) == []
    for group in groups:
        told = explain(tmp_path / "run", 1, group[0]["problem_id"])
        assert "\n! " not in told and "None" not in told


@pytest.mark.parametrize("left_out", LEFT_OUT)
def test_weights_and_advantages_are_those_the_loss_received(left_out, spied_run, job, tmp_path):
    """Each trained token's w·A, from the record alone, is found in what train.py handed to the loss, token for token; and
    the round's metrics are over the tokens of the same record."""
    folder, seen = spied(job, tmp_path / "run", *LEFT_OUT[left_out]) if LEFT_OUT[left_out] else spied_run
    config = config_of_run(folder)
    given = sorted(
        (round(o, 4), round(w * a, 9))
        for call in seen
        for a, w, o in zip(call["advantage"], call["weight"], call["old"], strict=True)
    )
    told, untold = [], 0
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for step in range(1, 5):
        groups = grouped(read_round(folder, step)[1])
        advantages, trained = replay_advantages(groups, config), replay_trained(groups, config)
        before = len(told)
        for i, group in enumerate(groups):
            untold += len(group) - sum(trained[i])
            for counts in replay_counts(groups, group[0]["group"], step, config):
                for j, r in enumerate(group):
                    if advantages[i][j] != 0 and trained[i][j]:
                        w = module.weight_of(r, counts, config)
                        told += [(x, round(w * advantages[i][j], 9)) for x in r["logprobs"]]
        records, m = [r for g in groups for r in g], metrics[step - 1]
        assert m["tokens_computed"] == m["tokens_moving"] == (len(told) - before) / 2, "of two passes"
        assert m["tokens_sampled"] == sum(r["tokens"] for r in records)
        logprobs = [x for r in records for x in r["logprobs"]]
        assert m["entropy"] == pytest.approx(-sum(logprobs) / len(logprobs), abs=1e-4)
    assert len(told) == len(given) > 100
    assert torch.allclose(torch.tensor(sorted(told)), torch.tensor(given), rtol=1e-4, atol=2e-4)
    products = [sorted(p for _, p in pairs) for pairs in (told, given)]
    assert torch.allclose(torch.tensor(products[0]), torch.tensor(products[1]), rtol=1e-4, atol=1e-8)
    assert (untold > 0) == (left_out != "nothing")
    assert (sum(m["groups_replaced"] for m in metrics) > 0) == (left_out == "flat groups resampled")


def test_a_trace_that_was_left_out_is_said_to_be(job, tmp_path):
    folder, _ = spied(job, tmp_path / "run", *LEFT_OUT["flat groups dropped"], *LEFT_OUT["cut traces masked"])
    config = config_of_run(folder)
    said = set()
    for step in range(1, 5):
        groups = grouped(read_round(folder, step)[1])
        for group, trained in zip(groups, replay_trained(groups, config), strict=True):
            for j, (r, kept) in enumerate(zip(group, trained, strict=True)):
                page = " ".join(explain(folder, step, r["problem_id"], j + 1).split())
                assert ("not trained, not counted" in page) == (not kept) == ("Token by token" not in page)
                said |= {why for why in ("cut by the token limit", "equal rewards, flat_groups = drop") if why in page}
    assert len(said) == 2, "both reasons were met"


def test_every_sample_of_every_round_can_be_explained(spied_run):
    folder, _ = spied_run
    for step in range(1, 5):
        groups = grouped(read_round(folder, step)[1])
        assert len(groups) == 6 and all(len(g) == 4 for g in groups)
        for group in groups:
            page = explain(folder, step, group[0]["problem_id"], sample=4)
            assert not [line for line in page.splitlines() if line.strip().startswith("!")], page
            assert f"reward {group[3]['reward']:.4f}" in page
            if group[3]["trace"] is not None:
                assert group[3]["trace"] in page and repr(group[3]["artifact"].strip()) in page


def test_without_and_with_are_both_shown(spied_run):
    folder, _ = spied_run
    record = next(r for r in read_round(folder, 1)[1] if r["trace"] is not None)
    page = explain(folder, 1, record["problem_id"])
    assert len(record["base_runs"]) == 3 and len(record["runs"]) == len(record["verdicts"]) == 3
    heads = ("without any trace\n", "Trace 1:", "From rewards to advantages", "From advantages to token weights")
    places = [page.index(head) for head in heads]
    assert places == sorted(places) and page.index("How to read this") < places[0]
    runs = [tuple(run) for run in record["base_runs"]]
    named = ["runs 1 to 3, alike"] if len(set(runs)) == 1 else [f"run {k}" for k in (1, 2, 3)]
    for name, (text, verdict) in zip(named, runs, strict=False):
        assert f"{name}: {text.strip()!r}  {verdict}" in page
    whole = explain(folder, 1, record["problem_id"], record["sample"] + 1, width=1000)
    assert f"Guidance: {record['trace']}" in whole and "Guidance:" not in page, "what the executor read, on request"


def tampered(folder, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("checkpoints"))
    records = [json.loads(line) for line in (copy / "samples.jsonl").read_text().splitlines()]
    at = next(i for i, r in enumerate(records) if r["trace"] is not None and r["runs"])
    change(records[at])
    (copy / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return explain(copy, records[at]["step"], records[at]["problem_id"], records[at]["sample"] + 1)


def test_a_reward_that_does_not_follow_is_marked(spied_run, tmp_path):
    page = tampered(spied_run[0], tmp_path, lambda r: r.update(reward=r["reward"] + 0.25))
    assert re.search(r"! replayed from the counts it is", page)


def test_a_verdict_that_does_not_follow_is_marked(spied_run, tmp_path):
    flip = {"PASS": "FAIL", "FAIL": "PASS"}
    page = tampered(spied_run[0], tmp_path, lambda r: r.update(verdicts=[flip[r["verdicts"][0]], *r["verdicts"][1:]]))
    assert "! the verdict of repeat 1 was logged as" in page


@pytest.mark.parametrize(
    ("mark", "change"),
    {
        "uplift was logged as": lambda r: r.update(uplift=r["uplift"] + 0.2),
        "success_base was logged as": lambda r: r.update(
            base_runs=[["", "PASS"], ["", "FAIL"], ["", "FAIL"], ["", "FAIL"]]
        ),
        "success_with was logged as": lambda r: r.update(success_with=0.125),
        "the reward's R was logged as": lambda r: r["parts"].update(reason_score=r["parts"]["reason_score"] + 0.1),
        "rm_total was logged as": lambda r: r.update(rm_derived=r["rm_derived"] + 0.1),
        "leaked was logged as": lambda r: r.update(leaked=not r["leaked"]),
    }.items(),
)
def test_whatever_no_longer_follows_is_marked(spied_run, tmp_path, mark, change):
    page = " ".join(tampered(spied_run[0], tmp_path, change).split())
    assert f"! {mark}" in page


def test_a_changed_validity_is_marked():
    from tracelift.config import Config
    from tracelift.worlds.math import make_problem

    p = make_problem(1000, 33)
    record = {
        "problem_id": p.problem_id,
        "problem": p.text,
        "reference": str(p.answer),
        "trace": p.trace,
        "error": None,
        "verdicts": [],
        "base_runs": [],
        "success_with": None,
        "success_base": None,
        "rm_total": None,
        "rm_head": None,
        "parts": None,
        "leaked_unsupported": False,
    }
    leaked = module.leaks_answer(p.trace, str(p.answer), p.text).stated
    assert module.contradictions({**record, "valid": True, "leaked": leaked}, Config()) == []
    assert module.contradictions({**record, "valid": False, "leaked": leaked}, Config()) == [
        "valid was logged as false; the rest of the record gives true"
    ]


def test_what_is_not_there_is_said(spied_run, capsys, tmp_path):
    folder, _ = spied_run
    with pytest.raises(ExplainError, match="no round 9; there are 1 to 4"):
        explain(folder, 9, "p1")
    with pytest.raises(ExplainError, match="had no problem 'zzz'; it had p"):
        explain(folder, 1, "zzz")
    problem = read_round(folder, 1)[1][0]["problem_id"]
    with pytest.raises(ExplainError, match="samples 1 to 4 in round 1, not 5"):
        explain(folder, 1, problem, 5)
    assert main([str(folder)]) == 0 and "rounds 1 to 4" in capsys.readouterr().out
    assert main([str(folder), "--step", "2"]) == 0 and "spread" in capsys.readouterr().out
    assert main([str(tmp_path), "--step", "2"]) == 1 and "no samples.jsonl" in capsys.readouterr().err


def test_the_first_fault_of_a_demo_trace_is_named():
    """From the problem's id alone the world's own record is found again; another series' problem is not judged by it."""
    from tracelift.config import Config
    from tracelift.worlds.math import make_problem

    config = Config()
    p = make_problem(config.data.seed, 33)
    record = {"problem_id": p.problem_id, "problem": p.text, "trace": p.trace}
    assert module.why_invalid(record, config) == ""
    first, *rest = p.trace.split(". ")
    twice = ". ".join([first, first, *rest])
    assert module.why_invalid({**record, "trace": twice}, config) == "duplicate in sentence 2"
    assert module.why_invalid({**record, "trace": "Well."}, config) == "unreadable"
    assert module.why_invalid({**record, "problem": "Another story.", "trace": twice}, config) == ""
    config.data.source = "problems.jsonl"
    assert module.why_invalid({**record, "trace": twice}, config) == ""
