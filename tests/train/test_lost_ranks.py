"""A rank that dies or hangs at any point takes the whole job with it, each survivor with one clear sentence; it resumes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.job_server import ROOT, Hurt
from support.runs import assert_same_metrics
from support.tiny_job import planner_arguments
from tracelift.config import load_config
from tracelift.errors import ConfigError
from tracelift.runs.folder import choose_folder

SHORT = ("--run.steps", "2", "--run.save_every", "1", "--data.eval_problems", "0")
MOMENTS = {  # where rank 1 is when it is killed, and the mode
    "loading the planner": ("none", Hurt("kill", "train:build_policy", rank=1)),
    "about to sample": ("none", Hurt("kill", "tracelift.rl.policy:sample_traces", 2, rank=1)),
    "grading, while others wait for its groups": ("none", Hurt("kill", "tracelift.rl.rollout:grade", 1, rank=1)),
    "adding up gradients": ("none", Hurt("kill", "tracelift.distributed.world:World.sum_gradients", 1, rank=1)),
    "in a backward pass that is a collective": ("fsdp", Hurt("kill", "train:policy_loss", 2, "after", rank=1)),
    "writing its shard": ("fsdp", Hurt("kill", "tracelift.training.learner:write_sharded", 1, rank=1)),
}


def rounds(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_others_end_with_a_sentence(job, server, out, moment):
    mode, hurt = MOMENTS[moment]
    survivor, dead = server.start(*planner_arguments(job, out, *SHORT, "--parallel.mode", mode), hurt=hurt, ranks=2)
    assert dead.code == -9 and survivor.code == 2, (survivor, dead)
    assert "rank 0 of 2 lost another rank" in survivor.message and "--resume goes on" in survivor.message


def test_a_rank_that_hangs_is_given_up_after_the_timeout(job, server, out):
    """Its connections stay open, so only the clock tells; it sleeps four times as long as the others wait."""
    hurt = Hurt("hang", "tracelift.rl.rollout:grade", 1, rank=1)
    survivor, _ = server.start(*planner_arguments(job, out, *SHORT, "--parallel.timeout_s", "3"), hurt=hurt, ranks=2)
    assert survivor.code == 2 and "silent for parallel.timeout_s = 3 s" in survivor.message


@pytest.mark.parametrize(
    ("at", "call"), [("tracelift.rl.rollout:grade", 2), ("tracelift.distributed.world:World.sum_gradients", 1)]
)
def test_a_stop_request_ends_the_wait_for_a_rank_that_hangs(job, server, out, at, call):
    """parallel.timeout_s is far off: what ends both is run.stop_s after SIGTERM, whatever they wait in. The first whose time
    is up may be lost to the other, which was stopped all the same."""
    args = planner_arguments(job, out, *SHORT, "--parallel.timeout_s", "500", "--run.stop_s", "2")
    ended = server.start(*args, hurt=Hurt("stuck", at, call, rank=1), ranks=2)
    assert [one.code for one in ended] == [143, 143], ended
    assert all("asked to stop, but the round was not finished" in one.message for one in ended), ended
    assert any("2 s later (run.stop_s)" in one.message for one in ended), ended


WRAPPED = """
import os, sys
sys.path.insert(0, {tests!r})
from support import job_server
import train
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    if os.environ["RANK"] == "1":
        job_server.apply(job_server.Hurt("kill", "train:update_policy", 2))
train.end(train.main(sys.argv[1:]))
"""


def test_torchrun_ends_the_job_restarts_it_and_the_run_is_the_same(job, server, out, tmp_path):
    """Two ranks under the real torchrun, rank 1 killed in round 2 of 3; the same command goes on by itself."""
    steps = ("--run.steps", "3", "--run.save_every", "1")
    server.done(*planner_arguments(job, tmp_path / "alone", *steps))
    script = tmp_path / "wrapped.py"
    script.write_text(WRAPPED.format(tests=str(ROOT / "tests")))
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "--max-restarts=1",
        str(script),
        *planner_arguments(job, out, *steps),
    ]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rank 0 of 2 lost another rank" in done.stderr
    assert re.search(r"exitcode: (-9|2)\b", done.stderr), "torchrun names whichever of the two it finds first"
    assert "going on after round 1" in done.stdout and done.stdout.count("run folder") == 2, "one rank speaks, twice"
    assert_same_metrics(rounds(out), rounds(tmp_path / "alone"))
    before = [
        json.loads((folder / "eval_before.json").read_text())["sampled"]["correct"]
        for folder in (out, tmp_path / "alone")
    ]
    assert before[0] == before[1], "evaluation draws the same numbers on two ranks as on one"


def test_a_restarted_job_without_a_named_folder_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(ConfigError, match="give it --run.out"):
        choose_folder(load_config(None, []), None)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert choose_folder(load_config(None, []), None).parent == Path("runs")
