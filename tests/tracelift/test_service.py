"""Executor and Reason RM on ranks of their own: the same run as in one process, ended cleanly whichever side ends first."""

import json

import pytest
from job_server import Hurt
from test_planner_loop import assert_same_metrics
from tiny_job import planner_arguments

from tracelift.config import ConfigError, load_config
from tracelift.distributed import join
from tracelift.memory import planner_plan

RUN = ("--run.steps", "2", "--run.save_every", "1")


def rounds(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(job, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    server.done(*planner_arguments(job, folder, *RUN))
    return folder


@pytest.mark.parametrize(("ranks", "serving", "extra"), [(2, 1, ()), (4, 2, ("--parallel.mode", "fsdp"))])
def test_a_run_is_the_same_whoever_holds_the_executor(job, server, alone, out, ranks, serving, extra):
    """One planner rank must write the very bytes of a run alone; two in shards, the same within rounding."""
    ended = server.start(*planner_arguments(job, out, *RUN, "--executor.ranks", str(serving), *extra), ranks=ranks)
    assert [e.code for e in ended] == [0] * ranks, ended
    assert f"executor and Reason RM are on the last {serving} ranks" in ended[0].text
    assert not any(e.text for e in ended[ranks - serving :]), "a serving rank has nothing to say"
    if ranks - serving == 1:
        for name in ("metrics.jsonl", "samples.jsonl", "baseline_cache.0.jsonl", "summary.json", "final/model.safetensors"):
            assert (out / name).read_bytes() == (alone / name).read_bytes(), name
    else:
        assert_same_metrics(rounds(out), rounds(alone))
        assert not list(out.glob(f"baseline_cache.{ranks - serving}.jsonl"))


def test_serving_ranks_answer_until_a_stopped_round_is_finished(job, server, out):
    """SIGTERM reaches every rank, as from torchrun: the round still needs its executor."""
    hurt = Hurt("term", "tracelift.service:_take", 3)
    ended = server.start(*planner_arguments(job, out, *RUN, "--executor.ranks", "1"), hurt=hurt, ranks=2)
    assert [e.code for e in ended] == [143, 143] and "stopped on request after round 1" in ended[0].text, ended


@pytest.mark.parametrize("rank", [0, 1])
def test_a_dead_rank_on_either_side_ends_the_other(job, server, out, rank):
    hurt = Hurt("kill", "tracelift.service:_take", 3, rank=rank)
    ended = server.start(*planner_arguments(job, out, *RUN, "--executor.ranks", "1"), hurt=hurt, ranks=2)
    assert ended[rank].code == -9 and ended[1 - rank].code == 2 and "lost another rank" in ended[1 - rank].message, ended


def test_what_fails_over_there_is_said_here(job, server, out):
    hurt = Hurt("full", "tracelift.reason_rm:LocalScorer.score", 2, rank=1)
    ended = server.start(*planner_arguments(job, out, *RUN, "--executor.ranks", "1"), hurt=hurt, ranks=2)
    assert ended[0].code == 2 and "executor rank 1: OSError: [Errno 28] No space left on device" in ended[0].message, ended
    assert ended[1].code == 0


def test_settings_that_contradict_each_other_are_refused(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="executor.ranks = 1 leaves none of this job's 1 to train"):
        join("cpu", serving=1)
    with pytest.raises(ConfigError, match="executor.url names a server already"):
        load_config(None, ["--executor.ranks", "1", "--executor.url", "http://host:1"])
    with pytest.raises(ConfigError, match="'sft' asks no executor"):
        load_config(None, ["--executor.ranks", "1", "--run.stage", "sft"])


def test_a_device_of_its_own_is_named_in_the_plan_and_checked(job, server, out):
    """On a CPU both devices are the same; that a GPU which is not there is refused shows that the key is read."""
    plan = planner_plan(load_config(None, ["--executor.device", "cuda:1", "--reward_model.device", "cpu"]))
    assert "executor weights" not in plan.always and "Reason RM weights" not in plan.always
    assert any("the executor is on cuda:1" in note for note in plan.notes) and any("the Reason RM is on cpu" in note for note in plan.notes)
    for key in ("executor", "reward_model"):
        ended = server.run(*planner_arguments(job, out, *RUN, f"--{key}.device", "cuda:77"))
        assert ended.code == 1 and f"{key}.device = 'cuda:77' is GPU 77, but this PyTorch sees" in ended.message
