"""Uplift by likelihood: from the reference's spellings through executor and reward, with cases made by hand."""

import dataclasses
import json
import math

import pytest
import torch

import models
import train
from models import ModelConfig, Transformer
from support.tiny_job import planner_arguments
from tracelift.config import Config, load_config
from tracelift.errors import ConfigError
from tracelift.executor.backend import Likelihood, Reply, ScoreRequest
from tracelift.executor.baselines import BaselineCache
from tracelift.executor.executor import Executor, ExecutorSettings
from tracelift.executor.judge import Judgement, TaskJudge
from tracelift.executor.likelihood import spellings
from tracelift.executor.local import LocalBackend
from tracelift.explain.prose import explain
from tracelift.files import read_log
from tracelift.programs import CodeProblem, StdinTest
from tracelift.rl.metrics import group_metrics
from tracelift.rl.rollout import reward_of
from tracelift.rl.sample import Sample
from tracelift.sampler import Completion, Sampler, SamplingParams
from tracelift.tasks.task import Task
from tracelift.verify.verdict import Verdict

SETTINGS = ExecutorSettings("{problem}|{trace}|", "{problem}|", uplift="likelihood", nats=2.0, temperature=0.5)
ONE, TWO = Task("p1", "one?", "1"), Task("p2", "two?", "2")
CODE = Task(
    "c1", "print", "print(3)", "code", code=CodeProblem("c1", "print", (StdinTest("", "3"),), solution="print(3)")
)


class Scripted:
    """Completes with "1"; scores by a table of prompt → log-prob, or an error."""

    fingerprint = "weights"

    def __init__(self, table):
        self.table, self.completed, self.scored = table, [], []

    def complete(self, requests, progress=None):
        self.completed.append(list(requests))
        return [Reply("1", 2) for _ in requests]

    def score(self, requests):
        self.scored.append(list(requests))
        found = [self.table[r.prompt] for r in requests]
        return [Likelihood(-math.inf, x) if isinstance(x, str) else Likelihood(x) for x in found]


TABLE = {
    "one?|good|": math.log(0.9),
    "one?|bad|": math.log(0.05),
    "one?|": math.log(0.3),
    "two?|good|": -4.0,
    "two?|": -9.0,
}


# ---- the reference's spellings ----


def test_spellings_of_numbers_and_programs():
    assert spellings(Task("a", "?", "12 - 5 = <<12-5=7>>7\n#### 7"), ()) == ("7", " 7")
    assert spellings(Task("a", "?", "-3.5"), ("\n",)) == ("-3.5", " -3.5")
    assert spellings(dataclasses.replace(CODE, reference="x = 1\nprint(x)\n\n"), ()) == (
        "x = 1\nprint(x)",
        "x = 1\nprint(x)\n",
    )
    assert spellings(CODE, ("\n",)) == ("print(3)",), "a spelling that a stop string would cut is no event of its own"


def test_no_reference_is_refused_by_name():
    with pytest.raises(ValueError, match="c9: executor.uplift = 'likelihood' needs a reference program"):
        spellings(dataclasses.replace(CODE, problem_id="c9", reference=" \n"), ())
    with pytest.raises(ValueError, match="c1: executor.stop .* would cut"):
        spellings(dataclasses.replace(CODE, reference="x = 1\nprint(x)"), ("\n",))


# ---- the executor ----


def test_both_arms_in_one_pass_equal_traces_once_and_only_the_end_to_end_run_is_sampled():
    backend = Scripted(TABLE)
    items = [(ONE, "good"), (ONE, "bad"), (ONE, "good"), (TWO, "good")]
    good, bad, again, two = Executor(backend, SETTINGS).evaluate(items)
    assert len(backend.completed) == 1 and len(backend.completed[0]) == 3, "no repeats, no sampled baseline"
    (asked,) = backend.scored
    assert sorted(r.prompt for r in asked) == sorted(TABLE)
    assert asked[0] == ScoreRequest("one?|good|", ("1", " 1"), 0.5, ("\n",))
    assert good == again
    assert (good.success_with, good.success_base) == pytest.approx((0.9, 0.3))
    assert good.uplift == pytest.approx(math.log(3) / 2) and bad.uplift == pytest.approx(math.log(1 / 6) / 2)
    assert (two.logprobs, two.uplift, two.e2e) == ((-4.0, -9.0), 2.5, Verdict.FAIL)


def test_a_graded_reward_scores_no_baseline_and_counts_nats_from_certainty():
    backend = Scripted(TABLE)
    good, bad = Executor(backend, SETTINGS).evaluate([(ONE, "good"), (ONE, "bad")], need_baseline=False)
    assert [r.prompt for (asked,) in [backend.scored] for r in asked] == ["one?|good|", "one?|bad|"]
    for o in (good, bad):
        assert o.logprobs[1] is None and o.success_base is o.uplift is None
        assert o.success_with == pytest.approx(math.exp(o.logprobs[0]))
        assert o.closeness == pytest.approx(max(0.0, 1 + o.logprobs[0] / SETTINGS.nats))
    far = dataclasses.replace(bad, logprobs=(-50.0, None))
    assert far.closeness == 0.0 and dataclasses.replace(bad, logprobs=(0.0, None)).closeness == 1.0


def test_baselines_are_scored_once_across_steps_and_restarts_and_apart_from_sampled_ones(tmp_path):
    path, first, second = tmp_path / "b.jsonl", Scripted(TABLE), Scripted({"one?|bad|": -3.0})
    executor = Executor(first, SETTINGS, BaselineCache(path))
    before = executor.evaluate([(ONE, "good")])[0]
    assert executor.evaluate([(ONE, "good")])[0] == before and [len(c) for c in first.scored] == [2, 1]
    after = Executor(second, SETTINGS, BaselineCache(path)).evaluate([(ONE, "bad")])[0]
    assert after.logprobs == (-3.0, TABLE["one?|"])
    assert json.loads(path.read_text())["logprob"] == TABLE["one?|"]
    sampled = Executor(first, dataclasses.replace(SETTINGS, uplift="sampled"))
    keys = {
        executor.baseline_key(ONE),
        executor.baseline_key(dataclasses.replace(ONE, reference="3")),
        sampled.baseline_key(ONE),
    }
    warmer = Executor(first, dataclasses.replace(SETTINGS, temperature=0.7))
    assert len(keys | {warmer.baseline_key(ONE)}) == 4
    assert executor.baseline_key(ONE) == Executor(first, dataclasses.replace(SETTINGS, repeats=9, seed=4)).baseline_key(
        ONE
    )


def test_a_likelihood_that_failed_is_an_error_of_its_sample_and_is_not_cached(tmp_path):
    path = tmp_path / "b.jsonl"
    table = TABLE | {"one?|bad|": "too long", "two?|": "too long"}
    good, bad, two = Executor(Scripted(table), SETTINGS, BaselineCache(path)).evaluate(
        [(ONE, "good"), (ONE, "bad"), (TWO, "good")]
    )
    assert (good.error, bad.error, two.error) == (None, "too long", "too long")
    assert bad.logprobs is None and len(path.read_text().splitlines()) == 1


def test_a_backend_that_cannot_score_is_refused():
    class Server:
        fingerprint = "x"

        def complete(self, requests, progress=None):
            return []

    with pytest.raises(ValueError, match="executor.uplift = 'likelihood' needs .* log-probabilities"):
        Executor(Server(), SETTINGS)
    for bad, said in ((["--executor.url", "http://h:1"], "server"), (["--reward.variant", "paper"], "corrected")):
        with pytest.raises(ConfigError, match=said):
            load_config(None, ["--executor.uplift", "likelihood", *bad])
    with pytest.raises(ConfigError, match="likelihood_nats must be between 0.001 and 1000"):
        load_config(None, ["--executor.likelihood_nats", "0"])


def test_outcome_only_modes_score_nothing():
    backend = Scripted(TABLE)
    assert (
        Executor(backend, SETTINGS).evaluate([(ONE, "good")], need_repeats=False, need_baseline=False)[0].logprobs
        is None
        and not backend.scored
    )


# ---- reward and metrics ----


def graded(task, trace, table, **changes):
    config = Config()
    config.reward.mode = "uplift_only"
    for key, value in changes.items():
        setattr(config.reward, key, value)
    judge = (
        TaskJudge()
        if task.code is None
        else lambda items, full: [Judgement(Verdict.FAIL, "failed_test") for _ in items]
    )
    (outcome,) = Executor(Scripted(table), SETTINGS, judge=judge).evaluate([(task, trace)])
    sample = Sample(task, [1], Completion([2], [0.0], [0.0]), "", trace, outcome)
    sample.reward = reward_of(sample, config)
    return sample


def test_the_reward_takes_the_likelihood_uplift_and_clips_it():
    assert graded(ONE, "good", TABLE).reward == pytest.approx(math.log(3) / 2)
    assert graded(TWO, "good", TABLE).reward == 1.0
    code = {"print|good|": -1.0, "print|": -2.0}
    sample = graded(CODE, "good", code)
    assert sample.reward == pytest.approx(0.5) and sample.parts.coefficient == pytest.approx(0.5)


def test_metrics_count_nats_before_the_clip():
    metrics = group_metrics([[graded(ONE, "good", TABLE)], [graded(TWO, "good", TABLE)]], ())
    assert metrics["likelihood_uplift"] == pytest.approx((math.log(3) + 5) / 2)
    assert metrics["likelihood_clipped"] == 0.5
    assert metrics["success_with"] == pytest.approx((0.9 + math.exp(-4)) / 2)


# ---- a real model ----


def test_spellings_add_up_and_the_end_counts(job):
    """Against sampling with the job's own executor and tokenizer: how often the text is the reference, and then ends."""
    tokenizer = models.load_tokenizer(job / "executor")
    model = models.load_pretrained(job / "executor", dtype=torch.float32)
    backend = LocalBackend(model, tokenizer)
    prompt, n = "What is 2 + 2?\nGuidance: 2 + 2 = 5\nAnswer:", 1500
    sampler = Sampler(model, tokenizer.eos_ids, tokenizer.pad_id, decode=tokenizer.decode)
    (drawn,) = sampler.generate(
        [tokenizer.encode(prompt)], SamplingParams(n=n, max_new_tokens=6, temperature=1.5, stop=("\n",))
    )

    def text(c):
        return (
            tokenizer.decode([t for t in c.tokens if t not in tokenizer.eos_ids]).split("\n")[0]
            if c.finish_reason == "stop"
            else None
        )

    ways = ("5", " 5")
    share = sum(text(c) in ways for c in drawn) / n
    both, *each = backend.score([ScoreRequest(prompt, w, 1.5, ("\n",)) for w in (ways, ways[:1], ways[1:])])
    p = math.exp(both.logprob)
    assert p == pytest.approx(sum(math.exp(e.logprob) for e in each), rel=1e-6)
    assert 0.02 < p < 0.98 and abs(share - p) < 4.5 * math.sqrt(p * (1 - p) / n)
    assert all(tokenizer.decode([i]).startswith("\n") or i in tokenizer.eos_ids for i in backend._ends_at(("\n",)))
    too_long = backend.score([ScoreRequest(prompt * 9, ways)])[0]
    assert "positions" in too_long.error


def test_bad_weights_are_an_error(job):
    tokenizer = models.load_tokenizer(job / "executor")
    c = models.load_pretrained(job / "executor").config
    broken = Transformer(ModelConfig(**dataclasses.asdict(c))).init_weights(0)
    broken.model.norm.weight.data.fill_(math.nan)
    assert (
        "not finite"
        in LocalBackend(broken, tokenizer).score([ScoreRequest("What is 1 + 1?\nAnswer:", ("2",))])[0].error
    )


def test_a_training_run_by_likelihood(job, out, capsys):
    arguments = planner_arguments(
        job, out, "--executor.uplift", "likelihood", "--executor.likelihood_nats", "3", "--run.steps", "2"
    )
    assert train.main(arguments) == 0
    rows, samples = read_log(out / "metrics.jsonl"), read_log(out / "samples.jsonl")
    assert all({"likelihood_uplift", "likelihood_clipped", "uplift"} <= set(row) for row in rows)
    ran = [s for s in samples if s["likelihoods"]]
    assert ran and all(not s["runs"] for s in ran)
    for s in ran:
        with_trace, without = s["likelihoods"]
        assert s["uplift"] == pytest.approx((with_trace - without) / 3)
        assert s["parts"]["uplift"] == pytest.approx(max(-1, min(1, s["uplift"])))
    cached = read_log(out / "baseline_cache.0.jsonl")
    assert {s["success_base"] for s in ran} <= {r["successes"] for r in cached if r.get("logprob") is not None}
    summary = json.loads((out / "summary.json").read_text())
    assert 0 <= summary["sampled"]["after"]["baseline accuracy"]["value"] <= 1
    capsys.readouterr()
    text = explain(out, ran[0]["step"], ran[0]["problem_id"])
    assert "likelihood uplift u = " in text and "replayed from the counts" not in text
