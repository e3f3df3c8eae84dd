"""Sharing, merging and summing over two real gloo ranks, and what a world of one does instead."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.ports import quiet_port
from tracelift.distributed.world import World, join, pick_device, set_threads

SCRIPT = """
import json, sys, torch
from tracelift.distributed.world import join, leave
world = join("cpu")
out = {"place": [world.rank, world.size, world.local_rank, world.local_size, world.is_main]}
for n in (0, 1, 2, 5):
    mine = world.share([(i, str(i)) for i in range(n)])
    out[f"share{n}"] = [i for i, _ in mine]
    out[f"merge{n}"] = [i for i, _ in world.merge(mine)]
out["gather"] = world.gather({"rank": world.rank})
out["any"] = [world.any(False), world.any(world.rank == 1)]
a, b, frozen = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
half = torch.nn.Parameter(torch.zeros(2, 1, dtype=torch.bfloat16))
frozen.requires_grad_(False)
a.grad = torch.tensor([1.0, 2.0]) * (world.rank + 1)
if world.rank == 0:
    b.grad = torch.tensor([5.0, 7.0])
half.grad = torch.tensor([[256.0], [1.0]], dtype=torch.bfloat16) if world.rank == 0 else torch.tensor([[2.0], [1.0]], dtype=torch.bfloat16)
world.sum_gradients([a, b, frozen, half])
out["sums"] = [a.grad.tolist(), b.grad.tolist(), half.grad.flatten().tolist(), str(half.grad.dtype), frozen.grad is None]
world.barrier()
leave()
with open(sys.argv[1] + f"/{world.rank}.json", "w") as f:
    json.dump(out, f)
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    common = os.environ | {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(quiet_port()),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder)], env=common | {"RANK": str(r), "LOCAL_RANK": str(r)}
        )
        for r in range(2)
    ]
    try:
        assert [job.wait(120) for job in jobs] == [0, 0]
    finally:
        for job in jobs:
            job.kill()
    return [json.loads((folder / f"{r}.json").read_text()) for r in range(2)]


def test_every_item_has_one_rank_and_merging_undoes_sharing(ranks):
    for n in (0, 1, 2, 5):
        shares = [r[f"share{n}"] for r in ranks]
        assert sorted(shares[0] + shares[1]) == list(range(n)) and len(shares[0]) - len(shares[1]) in (0, 1)
        assert [r[f"merge{n}"] for r in ranks] == [list(range(n))] * 2


def test_places_and_gathering(ranks):
    assert [r["place"] for r in ranks] == [[0, 2, 0, 2, True], [1, 2, 1, 2, False]]
    assert all(r["gather"] == [{"rank": 0}, {"rank": 1}] for r in ranks)
    assert all(r["any"] == [False, True] for r in ranks)


def test_gradients_are_summed_in_fp32_and_missing_ones_are_zero(ranks):
    """256 + 2 and 1 + 1 in bf16: the sum is rounded once, at the end. A mean would show as half of everything."""
    assert all(r["sums"] == [[3.0, 6.0], [5.0, 7.0], [258.0, 2.0], "torch.bfloat16", True] for r in ranks)


def test_a_world_of_one_needs_no_process_group(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    world = join("cpu")
    assert world == World() and world.is_main and world.share([1, 2, 3]) == world.merge([1, 2, 3]) == [1, 2, 3]
    assert world.gather("x") == ["x"] and world.any(True) and not world.any(False)
    p = torch.nn.Parameter(torch.zeros(1))
    world.sum_gradients([p])
    world.barrier()
    assert not torch.distributed.is_initialized()


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="'gpu' is none of auto, cpu, cuda, cuda:N"):
        pick_device("gpu")
    with pytest.raises(ValueError, match="is GPU 99, but this PyTorch sees"):
        pick_device("cuda:99")
    if not torch.cuda.is_available():
        assert pick_device("auto") == torch.device("cpu")
        with pytest.raises(ValueError, match="run.device = 'cuda' is GPU 0, .* use cpu"):
            pick_device("cuda")


def test_threads(monkeypatch):
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert set_threads(World(), 0) == 1 and set_threads(World(), 2) == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setattr(os, "cpu_count", lambda: 8)
        assert set_threads(World(local_size=4), 0) == 2 and set_threads(World(local_size=16), 0) == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
