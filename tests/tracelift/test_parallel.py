"""DDP and FSDP2 on real gloo ranks give one rank's loss, gradients, updates and runs; shards go to any number of ranks."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from job_server import Hurt
from safetensors.torch import load_file
from tiny_job import planner_arguments

import models
from models.lora import LoRAConfig, attach, save_adapter, trainable

SCRIPT = """
import copy, itertools, json, sys
import torch
import kernels
from models import ModelConfig, Transformer
from models.lora import LoRAConfig, attach
from tracelift.config import Optim
from tracelift.distributed import World, join, leave
from tracelift.packing import Row, micro_batches, pack
from tracelift.parallel import Parallel
from tracelift.recompute import recompute_blocks
from tracelift.training import Learner

world, out = join("cpu"), sys.argv[1]
shape = ModelConfig(211, 32, 48, 3, 4, 2, 8, 256, tied_head=True, qkv_bias=True, family="qwen2")
gen = torch.Generator().manual_seed(0)
draw = lambda n: torch.randint(211, (n,), generator=gen).tolist()
rows = [Row(draw(5 + i % 3), [draw(4 + (i + j) % 5) for j in range(3)], [3 * i + j for j in range(3)]) for i in range(5)]
separate = [Row(r.prompt, [s], [i]) for r in rows for s, i in zip(r.samples, r.sequence_ids)]
total = sum(len(s) for r in rows for s in r.samples)

def loss_of(model, micro):
    b = pack(micro, 0)
    hidden = b.predictors(model(b.tokens, b.positions, b.attend()))
    return -kernels.linear_logprob(hidden, model.head_weight, b.targets).logprob.sum() / total

def build(lora, tied, dtype):
    config = shape if tied else ModelConfig(**(vars(shape) | {"tied_head": False}))
    model = Transformer(config).init_weights(0, std=0.1).to(dtype)
    if lora:
        attach(model, LoRAConfig(4, 8.0), seed=1)
        noise = torch.Generator().manual_seed(2)
        for name, p in model.named_parameters():
            if name.endswith("lora_b"):
                p.data.normal_(std=0.05, generator=noise)
    return model

def full(x):
    return x.full_tensor() if hasattr(x, "full_tensor") else x

found = {}
for mode, lora, checkpointing, packed, tokens in itertools.product(
        ("none", "ddp", "fsdp"), (0, 4), (False, True), (True, False), (10**6, 40)):
    if checkpointing and not (packed and tokens == 40):
        continue  # recomputed where the rest is hardest
    for tied, dtype in ((True, torch.float32), (False, torch.float32), (True, torch.bfloat16)):
        if (not tied or dtype == torch.bfloat16) and not (packed and tokens == 40):
            continue
        alone = build(lora, tied, dtype)
        expected = loss_of(alone, rows)  # everything in one batch, in one process
        expected.backward()
        model = build(lora, tied, dtype)
        parallel = Parallel(model, mode, world)
        learner = Learner(model, Optim(lr=0.01, warmup=0, state_dtype="int8" if packed else "float32",
                                       checkpoint_activations=checkpointing), 10, world, parallel)
        loss, turns = 0.0, 0
        for micro in parallel.paced(micro_batches(world.share(rows if packed else separate), tokens)):
            turns += 1
            piece = loss_of(parallel.policy, micro or [Row([0], [[0]], [0])]) * (1 if micro else 0)
            piece.backward()
            loss += piece.item()
        if mode == "none":
            world.sum_gradients(learner.names)
        wide = lambda x: x.detach().double()
        error = max((((wide(full(p.grad)) - wide(q.grad)).norm() / wide(q.grad).norm()).item(), name)
                    for (name, p), q in zip(model.named_parameters(), alone.parameters()) if p.requires_grad)
        if mode == "none":
            parallel.sum_gradients = lambda names: None  # done above
        norm = torch.cat([q.grad.flatten().float() for q in alone.parameters() if q.grad is not None]).norm().item()
        single = Learner(alone, Optim(lr=0.01, warmup=0, state_dtype="int8" if packed else "float32"), 10, World())
        metrics, alone_metrics = learner.update(0), single.update(0)
        parallel.gather()
        moved = max((wide(p) - wide(q)).norm().item() / (0.01 * q.numel() ** 0.5)
                    for p, q in zip(parallel.whole.parameters(), alone.parameters()))
        kept = all(p.shape == q.shape for p, q in zip(parallel.whole.parameters(), alone.parameters()))
        found[f"{mode} lora={lora} ckpt={checkpointing} packed={packed} tokens={tokens} tied={tied} {dtype}"] = {
            "loss": [sum(world.gather(loss)), expected.item()], "error": error[0], "where": error[1], "turns": turns, "moved": moved,
            "norm": [metrics["grad_norm"], alone_metrics["grad_norm"]], "kept": kept,
            "shards": [p.to_local().numel() / p.numel() for p in model.parameters() if hasattr(p, "to_local") and p.dim() > 1]}
leave()
json.dump(found, open(f"{out}/{world.rank}.json", "w"))
"""


def torchrun(ranks, folder):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    common = os.environ | {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                           "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}  # fmt: skip
    jobs = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], env=common | {"RANK": str(r), "LOCAL_RANK": str(r)})
            for r in range(ranks)]  # fmt: skip
    try:
        assert [job.wait(400) for job in jobs] == [0] * ranks
    finally:
        for job in jobs:
            job.kill()
    return json.loads((folder / "0.json").read_text())


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])  # 4 on 2 cores take minutes
def test_loss_gradients_and_update_are_those_of_one_rank(ranks, tmp_path):
    """none, ddp, fsdp x LoRA or full x checkpointing x packed prompts x accumulation x tied head x dtype.

    fp32: the same sums in another order, 2e-6 of each gradient's norm. bf16: each product is rounded to 8 bits, and
    micro-batches add up in bf16, so 2e-2. 5 problems on 4 ranks: one rank has two, so the others idle in step.
    """
    found = torchrun(ranks, tmp_path)
    assert len(found) == 54
    for name, f in found.items():
        half = "bfloat16" in name
        assert math.isclose(*f["loss"], rel_tol=2e-3 if half else 1e-6), (name, f)
        assert f["error"] < (2e-2 if half else 2e-6), (name, f)
        assert math.isclose(*f["norm"], rel_tol=1e-2 if half else 1e-5), (name, f)
        # Adam's first step is ±lr whatever the gradient's size: elements with gradients near zero may differ in sign
        assert f["kept"] and f["moved"] < (0.2 if half else 0.01), (name, f)
        if name.startswith("fsdp"):
            assert max(f["shards"]) < 1.3 / ranks, (name, "every matrix is sharded")
        if "tokens=40" in name and ranks == 2:  # on 4 ranks a rank may hold a single row
            assert f["turns"] > 1, (name, "gradients were accumulated")


# -- whole runs ------------------------------------------------------------------------------------------------------

MANY = ("--run.steps", "2", "--data.eval_problems", "0", "--grpo.epochs", "2", "--grpo.minibatches", "2", "--grpo.kl_coef", "0.1",
        "--grpo.entropy_coef", "0.01", "--optim.lr", "0.001")  # fmt: skip
LORA = ("--lora.r", "4", "--optim.lr", "0.01")
LEAN = ("--optim.checkpoint_activations", "--optim.state_dtype", "int8", "--optim.micro_tokens", "60")


def rounds(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(found, expected, tolerance=1e-4):
    for a, b in zip(rounds(found), rounds(expected), strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if not key.startswith(("fresh_ratio", "kl_old")):  # rounding itself
                assert math.isclose(a[key], b[key], rel_tol=tolerance, abs_tol=1e-5), (a["step"], key, a[key], b[key])
    p, q = (load_file(str(folder / "final" / "model.safetensors")) for folder in (found, expected))
    assert p.keys() == q.keys()
    for name in p:
        assert (p[name] - q[name]).abs().max() < 2e-3, name


@pytest.fixture(scope="module")
def one_rank(job, server, tmp_path_factory):
    made = {}

    def run(extra):
        if extra not in made:
            made[extra] = tmp_path_factory.mktemp("one") / "run"
            server.done(*planner_arguments(job, made[extra], *MANY, *extra))
        return made[extra]

    return run


@pytest.mark.parametrize(("mode", "ranks", "extra"), [("ddp", 2, ()), ("fsdp", 2, ()), ("fsdp", 4, LEAN), ("ddp", 4, LORA), ("fsdp", 2, LORA)])
def test_a_run_is_the_same_in_every_mode(job, server, out, one_rank, mode, ranks, extra):
    server.done(*planner_arguments(job, out, *MANY, *extra, "--parallel.mode", mode), ranks=ranks)
    assert_same_run(out, one_rank(extra))
    models.load_pretrained(out / "final")
    shards = list((out / "checkpoints" / "step-000002" / "model").glob("shard-*.safetensors"))
    assert len(shards) == (ranks if mode == "fsdp" else 0)
    assert not [p for p in out.rglob("*") if p.suffix in (".pt", ".pth", ".bin", ".distcp") or p.name == ".metadata"], "no pickle"


def test_a_trained_adapter_starts_as_its_own_reference(job, server, out, tmp_path):
    """The bare base as reference would show as KL in the first round, before anything moved. Sharded, the same run."""
    model = models.load_pretrained(job / "planner")
    attach(model, LoRAConfig(4, 8.0), seed=1)
    for name, p in trainable(model).items():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(len(name)))
    save_adapter(model, tmp_path / "adapter")
    extra = (*MANY, "--optim.lr", "0.01", "--grpo.epochs", "1", "--grpo.minibatches", "1", "--planner.adapter", str(tmp_path / "adapter"))
    folders = [out / name for name in ("none", "fsdp")]
    for folder, ranks in zip(folders, (1, 2), strict=True):
        server.done(*planner_arguments(job, folder, *extra, "--parallel.mode", folder.name), ranks=ranks)
    first, second = rounds(folders[0])
    assert abs(first["kl"]) < 1e-9 and second["kl"] > 1e-6, (first["kl"], second["kl"])
    assert_same_run(folders[1], folders[0])


WAYS = [(("fsdp", 2), ("fsdp", 4)), (("fsdp", 4), ("none", 1)), (("none", 1), ("fsdp", 2)), (("ddp", 2), ("fsdp", 2))]


@pytest.mark.parametrize(("before", "after"), WAYS)
def test_resuming_on_other_ranks_in_another_mode(job, server, out, before, after):
    """Three rounds with a checkpoint each, killed in the third; what goes on must end where one rank alone does."""
    args = ("--run.steps", "3", "--run.save_every", "1", "--data.eval_problems", "0", "--optim.state_dtype", "int8")
    whole = out / "whole"
    server.done(*planner_arguments(job, whole, *args))
    folder = out / "moved"
    (mode, ranks), (mode_after, ranks_after) = before, after
    hurt = Hurt("kill", "train:update_policy", 3)
    ended = server.start(*planner_arguments(job, folder, *args, "--parallel.mode", mode), hurt=hurt, ranks=ranks)
    assert all(e.code != 0 for e in ended)
    text = server.done(*planner_arguments(job, folder, *args, "--resume", "--parallel.mode", mode_after), ranks=ranks_after)
    assert "going on after round 2" in text
    assert_same_run(folder, whole)


def test_a_lost_or_cut_shard_is_found_and_the_checkpoint_before_it_used(job, server, out):
    args = planner_arguments(job, out, "--run.steps", "3", "--run.save_every", "1", "--run.keep", "3", "--data.eval_problems", "0",
                             "--parallel.mode", "fsdp")  # fmt: skip
    server.done(*args, ranks=2)
    ended = rounds(out)
    shards = [sorted((out / "checkpoints" / f"step-{n:06d}" / "model").glob("shard-*")) for n in (3, 2)]
    shards[0][0].unlink()
    whole = shards[1][1].read_bytes()
    shards[1][1].write_bytes(whole[: len(whole) // 2])
    text = server.done(*args, "--resume", ranks=2)
    assert "step-000003 cannot be read" in text and "a shard's file is missing" in text and "step-000002 cannot be read" in text
    assert "going on after round 1" in text and rounds(out) == ended


def test_other_stages_refuse_a_mode_they_do_not_have(job, server, out):
    ended = server.run("--run.stage", "sft", "--parallel.mode", "fsdp")
    assert ended.code == 1 and "parallel.mode = 'fsdp' is for run.stage = 'planner'" in ended.message


def test_one_rank_needs_no_process_group():
    from tracelift.distributed import World
    from tracelift.parallel import Parallel

    model = torch.nn.Linear(2, 2)
    parallel = Parallel(model, "fsdp", World())
    assert parallel.whole is parallel.policy is model and list(parallel.paced([1, 2])) == [1, 2] and not parallel.sharded
