"""DDP and FSDP2 on real gloo ranks give one rank's loss, gradients, updates and runs; shards go to any number of ranks."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file

import models
from models.lora import LoRAConfig, attach, save_adapter, trainable
from support.equal_gradients import Case
from support.job_server import Hurt
from support.runs import assert_same_metrics
from support.tiny_job import planner_arguments

FULL = [
    asdict(Case(mode, lora, checkpointing, packed, tokens))
    for mode in ("none", "ddp", "fsdp")
    for lora in (0, 4)
    for packed in (True, False)
    for tokens in (10**6, 40)
    for checkpointing in (False, True)
    if not checkpointing or (packed and tokens == 40)
]
FULL += [
    asdict(Case(mode, lora, checkpointing, tied=tied, dtype=dtype))
    for mode in ("none", "ddp", "fsdp")
    for lora in (0, 4)
    for checkpointing in (False, True)
    for tied, dtype in ((False, "float32"), (True, "bfloat16"))
]
FULL += [
    asdict(Case("fsdp", lora, checkpointing=lora > 0, family=family))
    for lora in (0, 4)
    for family in ("smollm3", "olmo2", "granite")
]
QUICK = [
    asdict(case)
    for case in (
        Case("none", packed=False),
        Case("ddp", lora=4),
        Case("fsdp", checkpointing=True),
        Case("fsdp", lora=4),
        Case("fsdp", dtype="bfloat16"),
        Case("ddp", tied=False),
        Case("fsdp", family="olmo2"),
        Case("fsdp", lora=4, checkpointing=True, family="granite"),
    )
]


@pytest.mark.parametrize(
    ("ranks", "cases"),
    [(2, QUICK), (4, QUICK), *(pytest.param(n, FULL, marks=pytest.mark.slow) for n in (2, 4))],
    ids=["2-some", "4-some", "2", "4"],
)
def test_loss_gradients_and_update_are_those_of_one_rank(server, ranks, cases, tmp_path):
    """none, ddp, fsdp x LoRA or full x checkpointing x packed prompts x accumulation x tied head x dtype.

    fp32: the same sums in another order, 2e-6 of each gradient's norm. bf16: each product is rounded to 8 bits, and
    micro-batches add up in bf16, so 2e-2. 5 problems on 4 ranks: one rank has two, so the others idle in step.
    """
    server.done(str(tmp_path), json.dumps(cases), ranks=ranks, script="support.equal_gradients")
    found = json.loads((tmp_path / "0.json").read_text())
    assert len(found) == len(cases) and all(json.loads((tmp_path / f"{r}.json").read_text()) for r in range(ranks))
    for f in found:
        half = f["dtype"] == "bfloat16"
        assert math.isclose(*f["loss"], rel_tol=2e-3 if half else 1e-6), f
        assert f["error"] < (2e-2 if half else 2e-6) and f["names"], f
        assert math.isclose(*f["norm"], rel_tol=1e-2 if half else 1e-5), f
        # Adam's first step is ±lr whatever the gradient's size: elements with gradients near zero may differ in sign, and in
        # bf16 a whole bias may; but not many of all the weights, as those of a gradient summed wrongly would
        assert f["kept"] and (f["moved_all"] < 0.2 if half else f["moved"] < 0.01), f
        assert math.isclose(*f["merged"], rel_tol=2e-2 if half else 1e-3), f
        if f["mode"] == "fsdp":
            assert max(f["shards"].values()) < 1.3 / ranks, (f, "every matrix is sharded")
        if f["tokens"] == 40 and ranks == 2:  # on 4 ranks a rank may hold a single row
            assert f["turns"] > 1, (f, "gradients were accumulated")


# -- whole runs ------------------------------------------------------------------------------------------------------

MANY = ("--run.steps", "2", "--data.eval_problems", "0", "--grpo.epochs", "2", "--grpo.minibatches", "2", "--grpo.kl_coef", "0.1",
        "--grpo.entropy_coef", "0.01", "--optim.lr", "0.001")  # fmt: skip
LORA = ("--lora.r", "4", "--optim.lr", "0.01")
LEAN = ("--optim.checkpoint_activations", "--optim.state_dtype", "int8", "--optim.micro_tokens", "60")


def rounds(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(found, expected, tolerance=1e-4):
    assert_same_metrics(rounds(found), rounds(expected), tolerance)
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


@pytest.mark.parametrize(
    ("mode", "ranks", "extra"),
    [("ddp", 2, ()), ("fsdp", 2, ()), ("fsdp", 4, LEAN), ("ddp", 4, LORA), ("fsdp", 2, LORA)],
)
def test_a_run_is_the_same_in_every_mode(job, server, out, one_rank, mode, ranks, extra):
    server.done(*planner_arguments(job, out, *MANY, *extra, "--parallel.mode", mode), ranks=ranks)
    assert_same_run(out, one_rank(extra))
    models.load_pretrained(out / "final")
    shards = list((out / "checkpoints" / "step-000002" / "model").glob("shard-*.safetensors"))
    assert len(shards) == (ranks if mode == "fsdp" else 0)
    assert not [p for p in out.rglob("*") if p.suffix in (".pt", ".pth", ".bin", ".distcp") or p.name == ".metadata"], (
        "no pickle"
    )


def test_a_trained_adapter_starts_as_its_own_reference(job, server, out, tmp_path):
    """The bare base as reference would show as KL in the first round, before anything moved. Sharded, the same run."""
    model = models.load_pretrained(job / "planner")
    attach(model, LoRAConfig(4, 8.0), seed=1)
    for name, p in trainable(model).items():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(len(name)))
    save_adapter(model, tmp_path / "adapter")
    extra = (
        *MANY,
        "--optim.lr",
        "0.01",
        "--grpo.epochs",
        "1",
        "--grpo.minibatches",
        "1",
        "--planner.adapter",
        str(tmp_path / "adapter"),
    )
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
    text = server.done(
        *planner_arguments(job, folder, *args, "--resume", "--parallel.mode", mode_after), ranks=ranks_after
    )
    assert "going on after round 2" in text
    assert_same_run(folder, whole)


def test_a_lost_or_cut_shard_is_found_and_the_checkpoint_before_it_used(job, server, out):
    args = planner_arguments(
        job,
        out,
        "--run.steps",
        "3",
        "--run.save_every",
        "1",
        "--run.keep",
        "3",
        "--data.eval_problems",
        "0",
        "--parallel.mode",
        "fsdp",
    )
    server.done(*args, ranks=2)
    ended = rounds(out)
    shards = [sorted((out / "checkpoints" / f"step-{n:06d}" / "model").glob("shard-*")) for n in (3, 2)]
    shards[0][0].unlink()
    whole = shards[1][1].read_bytes()
    shards[1][1].write_bytes(whole[: len(whole) // 2])
    text = server.done(*args, "--resume", ranks=2)
    assert (
        "step-000003 cannot be read" in text
        and "a shard's file is missing" in text
        and "step-000002 cannot be read" in text
    )
    assert "going on after round 1" in text and rounds(out) == ended


def test_other_stages_refuse_a_mode_they_do_not_have(job, server, out):
    ended = server.run("--run.stage", "sft", "--parallel.mode", "fsdp")
    assert ended.code == 1 and "parallel.mode = 'fsdp' is for run.stage = 'planner'" in ended.message


def test_one_rank_needs_no_process_group():
    from tracelift.distributed.parallel import Parallel
    from tracelift.distributed.world import World

    model = torch.nn.Linear(2, 2)
    parallel = Parallel(model, "fsdp", World())
    assert (
        parallel.whole is parallel.policy is model
        and list(parallel.paced([1, 2], list)) == [1, 2]
        and not parallel.sharded
    )
