"""Whole rounds on a device: one fused update, bf16, and FSDP on one rank, where a GPU is there on it too.

The CPU's plain fp32 run is the oracle: draws are keyed, so another device or FSDP on one rank makes the same round.
"""

import json
import math

import pytest

from support.runs import assert_same_metrics
from support.tiny_job import planner_arguments

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def rounds(server, job, folder, *words):
    short = ("--run.steps", "2", "--run.save_every", "2", "--data.eval_problems", "0")
    server.done(*planner_arguments(job, folder, *short, *words))
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(job, server, tmp_path_factory):
    return rounds(server, job, tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("words", [(), ("--parallel.mode", "fsdp")], ids=["plain", "fsdp"])
def test_a_round_is_the_same_on_every_device(job, server, plain, out, device, words):
    found = rounds(server, job, out, "--run.device", device, *words)
    assert plain[0]["grad_norm"] > 0
    assert_same_metrics(found[:1], plain[:1], tolerance=1e-3)
    assert all(math.isfinite(m["loss"]) for m in found)


@pytest.mark.parametrize("device", DEVICES)
def test_a_round_in_bf16_trains(job, server, plain, out, device):
    found = rounds(server, job, out, "--run.device", device, "--run.dtype", "bfloat16")
    assert [m["step"] for m in found] == [1, 2] and all(m["grad_norm"] > 0 for m in found)
    # The start of every ratio is 1 but for rounding: sampler and trainer compute the same policy in the same dtype.
    assert all(m["fresh_ratio_deviation_max"] < 0.1 for m in found)
