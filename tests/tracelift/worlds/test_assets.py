"""The embedded models are what the demos need them to be: an executor that a sound trace helps, a planner with something
to learn, a Reason RM that knows sound from flawed on problems it never saw. Thresholds leave room for the sample's size."""

from pathlib import Path

import pytest
import torch

from tracelift.build import (
    build_executor,
    build_planner,
    build_sampler,
    build_scorer,
    load_tasks,
)
from tracelift.config import load_config
from tracelift.evaluation.rm import evaluate_rm
from tracelift.executor.executor import RunItem
from tracelift.rl.rollout import PlannerPrompt, sample_traces
from tracelift.sampler import SamplingParams
from tracelift.verify.verdict import Verdict
from tracelift.worlds.build import code_data, math_data

UNSEEN = 777_001  # a series of problems that no stage of `make assets` and no config draws from
WORLDS = {"math": ("configs/math-demo.toml", math_data, 200), "code": ("configs/code-demo.toml", code_data, 40)}
CPU = torch.device("cpu")


@pytest.fixture(params=sorted(WORLDS))
def world(request):
    config, data, count = WORLDS[request.param]
    loaded = load_config(config, ["--data.seed", str(UNSEEN), "--executor.temperature", "0"])
    tasks = load_tasks(loaded.data.source, UNSEEN, say=lambda _: None).first(count)
    return request.param, loaded, data, tasks


def passed(verdicts):
    return sum(v is Verdict.PASS for v in verdicts) / len(verdicts)


def test_files_are_small_and_only_safetensors():
    for folder in Path("assets").glob("*/*"):
        assert sum(f.stat().st_size for f in folder.iterdir()) <= 4 * 2**20, folder
        assert {f.suffix for f in folder.iterdir()} <= {".json", ".safetensors"}, folder


def test_the_executor_needs_a_trace_and_follows_a_sound_one(world):
    _, config, _, tasks = world
    executor = build_executor(config, CPU, None)
    with_trace = passed([o.e2e for o in executor.evaluate([(t, t.truth.trace) for t in tasks], need_repeats=False)])
    without = passed([run.judgement.verdict for (run,) in executor.run([RunItem(t, None, (0,)) for t in tasks])])
    assert with_trace >= 0.9 and without <= 0.4, (with_trace, without)


def test_the_planner_starts_with_something_to_learn(world):
    _, config, _, tasks = world
    planner, tokenizer = build_planner(config, CPU)
    sampler, prompt = build_sampler(planner, tokenizer, config), PlannerPrompt(config, tokenizer)
    params = SamplingParams(n=1, max_new_tokens=config.planner.max_new_tokens, temperature=0.0, seed=0)
    traces = [
        g[0].trace for g in sample_traces(sampler, prompt, tasks, params, [(i,) for i in range(len(tasks))], 2000)
    ]
    formed = [(t, z) for t, z in zip(tasks, traces, strict=True) if z is not None]
    assert len(formed) >= 0.95 * len(tasks)
    outcomes = build_executor(config, CPU, None).evaluate(formed, need_repeats=False)
    right = [(t, z) for (t, z), o in zip(formed, outcomes, strict=True) if o.e2e is Verdict.PASS]
    assert 0.2 * len(tasks) <= len(right) <= 0.65 * len(tasks), len(right)
    valid = sum(t.check(z).valid for t, z in right)
    assert valid <= 0.7 * len(right), (valid, len(right))  # right answers for wrong reasons, which outcomes cannot see


def test_the_reason_rm_ranks_unseen_traces_however_they_are_told(world):
    """Flaws of the kinds that it was trained on; those of the held-out kinds are measured (docs/reward-model.md), not promised."""
    name, config, data, _ = world
    scorer = build_scorer(config, CPU)
    assert set(scorer.flaw_kinds) == set(data.SEEN)
    groups = list(data.make_groups(UNSEEN, 60, negatives=12, kinds=tuple(data.FLAWS)))
    found = evaluate_rm(scorer, groups, scorer.flaw_kinds)
    never = found["never met"]
    assert set(never["kinds"]) == set(data.FLAWS) - set(data.SEEN)
    assert never["pair accuracy, others"]["value"] >= 0.95, found
    assert never["alternatives, others"]["value"] >= 0.93, found
    seen = {kind: v["pair accuracy"]["value"] for kind, v in found["per kind"].items() if kind in data.SEEN}
    assert min(seen.values()) >= {"math": 0.7, "code": 0.65}[name], seen
