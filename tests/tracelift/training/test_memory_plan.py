"""The memory plan against measured peaks, recomputed blocks against plain ones, and what the plan says and refuses."""

import copy
import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import kernels
from models import ModelConfig, Transformer
from models.lora import PROJECTIONS, LoRAConfig, attach, trainable
from support.random_models import FIELDS
from support.tiny_job import planner_arguments
from tracelift.config import load_config
from tracelift.training.memory_plan import (
    Shape,
    activation_bytes,
    logits_bytes,
    main,
    optimizer_bytes,
    planner_plan,
    say_memory_plan,
)
from tracelift.training.optimizer import adamw
from tracelift.training.packing import Row, pack
from tracelift.training.recompute import recompute_blocks

SHAPE = ModelConfig(1000, 128, 352, 6, 4, 2, 32, 2048, qkv_bias=True, family="qwen2")
FACTOR = 1.35  # the measured peak lies within this factor of the plan, either way


class Peak(TorchDispatchMode):
    """Most bytes ever alive at once in tensors that were made inside."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.most = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(out):
            if isinstance(x, torch.Tensor) and (storage := x.untyped_storage())._cdata not in self.alive:
                key = storage._cdata
                self.alive[key] = storage.nbytes()
                self.now += self.alive[key]
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.forget, key)
        return out

    def forget(self, key):
        self.now -= self.alive.pop(key)


def build(dtype=torch.float32, rank=0, checkpointing=False, shape=SHAPE):
    model = Transformer(shape).init_weights(0, std=0.05).to(dtype)
    if rank:
        attach(model, LoRAConfig(rank, 16.0), seed=1)
        for name, p in trainable(model).items():  # B starts at zero, and A would get no gradient
            if name.endswith("lora_b"):
                torch.nn.init.normal_(p, std=0.02, generator=torch.Generator().manual_seed(2))
    if checkpointing:
        recompute_blocks(model)
    return model


def batch(samples=4, rows=2):
    gen = torch.Generator().manual_seed(3)
    ids = torch.randint(1000, (rows, 64 * (samples + 1)), generator=gen).tolist()
    return pack(
        [Row(r[:64], [r[64 * s : 64 * (s + 1)] for s in range(1, samples + 1)], list(range(samples))) for r in ids], 0
    )


def backward(model, b):
    hidden = b.predictors(model(b.tokens, b.positions, b.attend()))
    loss = -kernels.linear_logprob(hidden, model.head_weight, b.targets).logprob.mean()
    loss.backward()
    return loss.item()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("dtype", "rank"), [(torch.float32, 0), (torch.bfloat16, 0), (torch.float32, 8), (torch.bfloat16, 8)]
)
@pytest.mark.parametrize("family", ["qwen2", "olmo2"])
def test_the_planned_bytes_of_an_update_are_those_measured(dtype, rank, checkpointing, family):
    config = replace(SHAPE, **{"qkv_bias": False, **FIELDS[family]})
    model, b = build(dtype, rank, checkpointing, config), batch()
    with Peak() as peak:
        backward(model, b)
    shape = Shape.of(config, rank, PROJECTIONS)
    trained = shape.lora * 4 if rank else shape.total * dtype.itemsize
    planned = (
        trained
        + logits_bytes(config, "cpu", dtype.itemsize, not rank, b.tokens.numel())
        + activation_bytes(
            shape,
            b.tokens.numel(),
            b.owner.shape[1],
            dtype.itemsize,
            checkpointing=checkpointing,
            lora=bool(rank),
            rank=rank,
            adapters=7,
        )
    )
    assert planned / FACTOR < peak.most < planned * FACTOR, (planned, peak.most)


@pytest.mark.parametrize("rank", [0, 8])
def test_parameter_counts_are_exact(rank):
    model, shape = build(rank=rank), Shape.of(SHAPE, rank, PROJECTIONS)
    assert shape.total + shape.lora == sum(p.numel() for p in model.parameters())
    assert (shape.lora if rank else shape.total) == sum(p.numel() for p in trainable(model).values())


@pytest.mark.parametrize("state", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_optimizer_bytes_are_those_allocated(dtype, state):
    model = build(getattr(torch, dtype))
    params = list(model.parameters())
    optimizer = adamw(
        [p for p in params if p.dim() > 1], [p for p in params if p.dim() < 2], 1e-3, (0.9, 0.95), 0.0, state, True
    )
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    held = sum(t.nbytes for s in optimizer.state.values() for k, t in s.items() if k != "step")
    shape = Shape.of(SHAPE)
    config = load_config(None, ["--optim.state_dtype", state])
    planned = optimizer_bytes(shape, shape.total, shape.vectors, getattr(torch, dtype).itemsize, config)
    assert (
        abs(planned - held) < 0.03 * held
    )  # a block of columns ends with its row: more scales than one in 256 where rows are short


# -- recomputed blocks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize("samples", [1, 4])
def test_recomputed_blocks_give_the_same_gradients_in_less_memory(rank, samples):
    plain, lean, b = build(rank=rank), build(rank=rank, checkpointing=True), batch(samples)
    peaks, losses = [], []
    for model in (plain, lean):
        with Peak() as peak:
            losses.append(backward(model, b))
        peaks.append(peak.most)
    assert losses[0] == losses[1]
    for (name, p), q in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None) and (p.grad is None or torch.equal(p.grad, q.grad)), name
    assert peaks[1] < 0.75 * peaks[0]


def test_with_dropout_the_second_forward_drops_the_same():
    b, grads = batch(), []
    for checkpointing in (False, True):
        model = Transformer(SHAPE).init_weights(0, std=0.05)
        attach(model, LoRAConfig(8, 16.0, dropout=0.3), seed=1)
        if checkpointing:
            recompute_blocks(model)
        torch.manual_seed(4)
        backward(model.train(), b)
        grads.append([p.grad for p in trainable(model).values()])
    assert all(torch.equal(p, q) for p, q in zip(*grads, strict=True))


def test_copies_of_a_recomputing_model_use_their_own_weights():
    model, b = build(checkpointing=True), batch()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(1.5)
    with torch.no_grad():
        assert not torch.equal(model(b.tokens), twin(b.tokens))
    assert recompute_blocks(model) == 6 and set(model.state_dict()) == set(build().state_dict())


# -- the plan --------------------------------------------------------------------------------------------------------


def plan(*words, ranks=1, shape=SHAPE):
    return planner_plan(load_config(None, list(words)), "cpu", ranks, shape)


def test_switches_lower_what_they_should():
    base = plan()
    assert plan("--optim.state_dtype", "int8").always["optimizer states"] < 0.3 * base.always["optimizer states"]
    assert plan("--run.dtype", "bfloat16").always["planner weights"] * 2 == base.always["planner weights"]
    assert sum(plan("--optim.checkpoint_activations").updating.values()) < 0.5 * sum(base.updating.values())
    assert plan("--lora.r", "8").updating["gradients"] < 0.2 * base.updating["gradients"]
    assert plan("--grpo.kl_coef", "0.1").always["KL reference"] == base.always["planner weights"]
    assert "KL reference" not in plan("--grpo.kl_coef", "0.1", "--lora.r", "8").always
    fsdp = plan("--parallel.mode", "fsdp", ranks=4)
    assert fsdp.always["planner weights, 1/4 of them"] * 4 == base.always["planner weights"]
    remote = plan("--executor.url", "http://somewhere:1")
    assert "executor weights" not in remote.always and "remote" in remote.notes[0]


def test_what_will_not_fit_is_said_with_what_helps(monkeypatch):
    said = []
    monkeypatch.setattr("tracelift.training.memory_plan.available_bytes", lambda device, ranks: 1 << 20)
    say_memory_plan(load_config(None), torch.device("cpu"), 1, 1, said.append)
    assert "will not fit" in said[1] and "executor.memory_mb halved" in said[1]


def test_the_command_prints_a_plan_and_refuses_in_one_line(capsys):
    assert main(["--ranks", "2", "--parallel.mode", "fsdp"]) == 0
    assert "peak" in (text := capsys.readouterr().out) and "1/2 of them" in text
    for argv, message in (
        (["--ranks"], "--ranks needs a number"),
        (["--planner.path", "/nowhere"], "no such folder"),
        (["--run.stage", "sft"], "planner stage only"),
    ):
        assert main(argv) == 1 and message in capsys.readouterr().err


def test_a_device_of_its_own_is_named_in_the_plan_and_checked(job, server, out):
    """On a CPU both devices are the same; that a GPU which is not there is refused shows that the key is read."""
    plan = planner_plan(load_config(None, ["--executor.device", "cuda:1", "--reward_model.device", "cpu"]))
    assert "executor weights" not in plan.always and "Reason RM weights" not in plan.always
    assert any("the executor is on cuda:1" in note for note in plan.notes) and any(
        "the Reason RM is on cpu" in note for note in plan.notes
    )
    for key in ("executor", "reward_model"):
        ended = server.run(*planner_arguments(job, out, f"--{key}.device", "cuda:77"))
        assert ended.code == 1 and f"{key}.device = 'cuda:77' is GPU 77, but this PyTorch sees" in ended.message
