"""Learning rate, the guarded update, optimizer state through a file, and stopping on request."""

import dataclasses
import math
import os
import signal

import pytest
import torch
from torch import nn

from tracelift.config.schema import OptimConfig
from tracelift.distributed.world import World
from tracelift.errors import TrainingError
from tracelift.runs.checkpoints import optimizer_tensors, restore_optimizer
from tracelift.runs.folder import RunFolder
from tracelift.runs.signals import StopSignal
from tracelift.training.learner import Learner, learning_rate

PLAIN = OptimConfig(lr=1.0, warmup=4, schedule="constant")


def test_warm_up_is_linear_and_ends_at_the_peak():
    assert [learning_rate(PLAIN, step, 10) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert learning_rate(dataclasses.replace(PLAIN, warmup=0), 0, 10) == 1.0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_fall_from_the_peak_towards_a_tenth(schedule):
    config = dataclasses.replace(PLAIN, schedule=schedule)
    rates = [learning_rate(config, step, 104) for step in range(4, 105)]
    assert rates[0] == 1.0 and math.isclose(rates[-1], 0.1) and rates == sorted(rates, reverse=True)
    assert math.isclose(rates[50], 0.55)  # halfway down, for both
    quarter = {"linear": 1 - 0.9 * 0.25, "cosine": 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2}[schedule]
    assert math.isclose(rates[25], quarter)


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))


def backward(model, step):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
    model(x).square().mean().backward()


def learner(model, **changes):
    return Learner(model, dataclasses.replace(OptimConfig(lr=0.1, warmup=0, max_grad_norm=1e9), **changes), 10, World())


def test_the_update_is_adamw_with_decay_on_matrices_only():
    mine, other = small(), small()
    a = learner(mine, weight_decay=0.5, beta1=0.8, beta2=0.9, max_grad_norm=0.3)
    matrices = [p for p in other.parameters() if p.dim() == 2]
    vectors = [p for p in other.parameters() if p.dim() == 1]
    b = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.5}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.1,
        betas=(0.8, 0.9),
        fused=False,
    )
    for step in range(4):
        backward(mine, step)
        backward(other, step)
        grads = torch.cat([p.grad.flatten() for p in other.parameters()])
        norm = grads.norm().item()
        for p in other.parameters():
            p.grad *= min(1.0, 0.3 / (norm + 1e-6))
        b.step()
        b.zero_grad()
        found = a.update(step)
        assert math.isclose(found["grad_norm"], norm, rel_tol=1e-5) and found["lr"] == 0.1
        assert all(p.grad is None for p in mine.parameters())
    for p, q in zip(mine.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def poison(model):
    backward(model, 0)
    next(model.parameters()).grad[0, 0] = math.nan


def test_a_gradient_that_is_not_finite_stops_the_run_with_the_weights_as_they_were():
    model = small()
    trainer = learner(model)
    backward(model, 0)
    trainer.update(0)
    before = [p.detach().clone() for p in model.parameters()]
    poison(model)
    with pytest.raises(TrainingError, match=r"round 2: the gradient is not finite \(norm nan\).*optim.lr"):
        trainer.update(1)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_or_is_skipped_and_counted():
    model, twin = small(), small()
    skipping, plain = learner(model, on_nan="skip"), learner(twin)
    for step in range(3):
        poison(model)
        found = skipping.update(step)
        assert found["updates_skipped"] == step + 1 and math.isnan(found["grad_norm"])
    backward(model, 7)
    backward(twin, 7)
    skipping.update(3)
    plain.update(3)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q), "skipped rounds leave no trace in the optimizer"


def test_no_gradient_is_a_zero_gradient():
    """On several ranks a missing gradient is summed as zero, so momentum moves the weights: one rank must do the same."""
    model, twin = small(), small()
    a, b = learner(model), learner(twin)
    for m, trainer in ((model, a), (twin, b)):
        backward(m, 0)
        trainer.update(0)
    for p in twin.parameters():
        p.grad = torch.zeros_like(p)
    a.update(1)
    b.update(1)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


def test_optimizer_state_goes_through_a_checkpoint_bit_for_bit(tmp_path):
    model = small()
    trainer = learner(model, on_nan="skip")
    for step in range(3):
        backward(model, step)
        trainer.update(step)
    poison(model)
    trainer.update(3)

    def write(folder):
        from safetensors.torch import save_file

        folder.mkdir()
        save_file(dict(model.state_dict()), str(folder / "w.safetensors"))

    def read(folder):
        from safetensors.torch import load_file

        fresh = small(99)
        fresh.load_state_dict(load_file(str(folder / "w.safetensors")))
        return fresh

    run = RunFolder(tmp_path)
    trainer.save(run, 4, 2, write)
    other = small(5)
    resumed = learner(other)
    assert resumed.resume(run, read, print) == 4 and resumed.skipped == 1
    for step in range(4, 7):
        for m, t in ((model, trainer), (other, resumed)):
            backward(m, step)
            t.update(step)
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name
    for key, value in optimizer_tensors(trainer.optimizer, trainer.names).items():
        assert torch.equal(value, optimizer_tensors(resumed.optimizer, resumed.names)[key]), key


def test_a_checkpoint_of_another_model_is_refused_in_words(tmp_path):
    model = small()
    trainer = learner(model)
    trainer.save(RunFolder(tmp_path), 1, 2, lambda folder: folder.mkdir())
    said = []
    with pytest.raises(ValueError, match="none of its 1 checkpoints"):
        trainer.resume(RunFolder(tmp_path), lambda folder: nn.Sequential(nn.Linear(5, 4)), said.append)
    assert "'0.weight' is [4, 5], this model's [4, 3]" in said[0]
    with pytest.raises(ValueError, match="optimizer state holds 'ghost'"):
        restore_optimizer(trainer.optimizer, trainer.names, {"ghost.step": torch.tensor(1.0)})


def test_nothing_to_resume_is_round_zero(tmp_path):
    assert learner(small()).resume(RunFolder(tmp_path), lambda folder: None, print) == 0


def test_a_frozen_model_cannot_be_trained():
    with pytest.raises(TrainingError, match="no trainable parameter"):
        learner(small().requires_grad_(False))


@pytest.fixture
def handlers():
    kept = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_is_noted_and_the_second_ctrl_c_is_meant(handlers, number):
    stop = StopSignal()
    assert not stop.seen
    os.kill(os.getpid(), number)
    assert stop.seen
    os.kill(os.getpid(), signal.SIGTERM)  # a second SIGTERM (torchrun sends some) changes nothing
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    stop.close()


@pytest.mark.parametrize("what", ["weight", "exp_avg"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_never_saved(tmp_path, what, value):
    model = small()
    mine = learner(model)
    backward(model, 0)
    mine.update(0)
    run = RunFolder(tmp_path)
    mine.save(run, 1, 2, lambda folder: folder.mkdir())
    tensor = model[2].weight.data if what == "weight" else mine.optimizer.state[model[2].weight]["exp_avg"]
    tensor[0, 1] = value
    with pytest.raises(TrainingError, match=rf"round 2: .*{what}.* 2\.weight is not finite, so nothing of it is saved"):
        mine.save(run, 2, 2, lambda folder: folder.mkdir())
    assert [p.name for p in run.checkpoints()] == ["step-000001"]
