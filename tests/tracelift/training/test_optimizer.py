"""AdamW with compact states: the arithmetic of torch's, rounding that is right on average, and nothing that drifts."""

import pytest
import torch
from torch import nn

from tracelift.training.optimizer import (
    BLOCK,
    CompactAdamW,
    adamw,
    from_8bit,
    hashed_uniform,
    to_8bit,
    to_bf16,
)


def noise(x, salt=0):
    return hashed_uniform(0, x.numel(), salt, x.device).view_as(x)


def test_noise_is_uniform_keyed_by_place_and_the_same_in_pieces():
    u = hashed_uniform(0, 100_000, 7, torch.device("cpu"))
    counts = torch.histc(u, 50, 0, 1)
    assert ((counts - 2000) ** 2 / 2000).sum() < 90  # chi-square, 49 degrees of freedom, p = 0.0003
    assert torch.equal(u[1234:2000], hashed_uniform(1234, 766, 7, torch.device("cpu")))
    other = hashed_uniform(0, 100_000, 8, torch.device("cpu"))
    assert (
        abs(torch.corrcoef(torch.stack((u, other)))[0, 1]) < 0.015
        and abs(torch.corrcoef(torch.stack((u[1:], u[:-1])))[0, 1]) < 0.015
    )


def test_bf16_rounding_takes_a_neighbour_and_is_right_on_average():
    x = torch.tensor([1.001, -1.001, 3e-30, 256.9, 0.0]).repeat(20_000, 1)
    y = to_bf16(x, noise(x)).float()
    assert ((y - x).abs() <= x.abs() * 2**-7).all() and (y[:, 4] == 0).all()
    assert torch.allclose(y.double().mean(0), x[0].double(), rtol=2e-4)
    odd = torch.tensor([float("inf"), float("-inf"), float("nan")])
    assert (
        to_bf16(odd, torch.full((3,), 0.99)).tolist()[:2] == [float("inf"), float("-inf")]
        and to_bf16(odd, odd * 0)[2].isnan()
    )


@pytest.mark.parametrize("signed", [True, False])
def test_8bit_rounding_takes_a_neighbouring_code_and_is_right_on_average(signed):
    gen = torch.Generator().manual_seed(0)
    row = torch.randn(1, BLOCK + 44, generator=gen) * torch.logspace(-3, 0, BLOCK + 44)  # the last block is not full
    x = (row if signed else row.square()).repeat(4000, 1)
    codes, scale = to_8bit(x, noise(x), signed)
    assert codes.dtype == (torch.int8 if signed else torch.uint8) and scale.shape == (4000, 2)
    y = from_8bit(codes, scale)
    top = x[:1].abs().max().item()
    power, levels = (2, 127) if signed else (4, 255)
    spacing = power * (x.abs() / top) ** (1 - 1 / power) / levels * top + power**power * top / levels**power
    assert ((y - x).abs() <= 1.3 * spacing).all()
    error = (y.double().mean(0) - x[0].double()).abs()
    kept = codes.float().abs().mean(0) > 1.5  # below that v is held up to the lowest code, on purpose
    assert (error < 5 * spacing[0] / 4000**0.5)[kept].all()
    assert torch.equal(
        from_8bit(*to_8bit(torch.zeros(2, 300), noise(torch.zeros(2, 300)), signed)), torch.zeros(2, 300)
    )


def test_a_positive_denominator_never_becomes_zero():
    x = torch.tensor([[1.0, 1e-20, 1e-12, 0.0]])
    y = from_8bit(*to_8bit(x, torch.full_like(x, 0.999), signed=False))
    assert (y[0, :3] > 0).all() and y[0, 3] == 0


def pair(dtype=torch.float32, **changes):
    torch.manual_seed(0)
    w, b = torch.randn(20, 300), torch.randn(7)
    ours = [nn.Parameter(x.clone().to(dtype)) for x in (w, b)]
    theirs = [nn.Parameter(x.clone().to(dtype).float()) for x in (w, b)]
    groups = [{"params": ours[:1], "weight_decay": 0.1}, {"params": ours[1:], "weight_decay": 0.0}]
    a = CompactAdamW(groups, 0.01, (0.9, 0.95), **changes)
    reference = torch.optim.AdamW(
        [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.95),
    )
    return ours, theirs, a, reference


def train(ours, theirs, a, reference, steps=60):
    """Steps on the gradients of a noisy quadratic; returns how far each side went and how far they are apart."""
    start = [p.detach().clone() for p in theirs]
    gen = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p, q in zip(ours, theirs, strict=True):
            g = q.detach() + torch.randn(q.shape, generator=gen) * torch.logspace(-4, 0, q.shape[-1])
            p.grad, q.grad = g.to(p.dtype), g.clone()
        a.step()
        reference.step()
    moved = torch.cat([(q - s).flatten() for q, s in zip(theirs, start, strict=True)]).norm()
    apart = torch.cat([(p.float() - q).flatten() for p, q in zip(ours, theirs, strict=True)]).norm()
    return (apart / moved).item()


def test_with_fp32_states_it_is_torchs_adamw():
    assert train(*pair()) < 1e-6


@pytest.mark.parametrize(("state", "tolerance"), [("bfloat16", 0.01), ("int8", 0.05)])
def test_compact_states_follow_it_closely(state, tolerance):
    assert train(*pair(state_dtype=state)) < tolerance


@pytest.mark.parametrize("master", [True, False])
def test_bf16_weights_do_not_lose_small_updates(master):
    """lr 1e-5 on weights near 1: bf16's spacing there is 1/128, so rounding to nearest would never move."""
    p = nn.Parameter(torch.ones(64, 512, dtype=torch.bfloat16))
    optimizer = CompactAdamW([p], 1e-5, (0.9, 0.95), master_weights=master)
    for _ in range(100):
        p.grad = torch.ones_like(p)
        optimizer.step()
    wide = optimizer.state[p]["master"] if master else p.float()
    assert abs((1 - wide.mean()).item() - 1e-3) < (5e-6 if master else 2e-4)


def test_bytes_between_steps():
    sizes = {}
    for state in ("float32", "bfloat16", "int8"):
        p = nn.Parameter(torch.zeros(64, 1024))
        optimizer = CompactAdamW([p], 0.1, (0.9, 0.95), state_dtype=state)
        p.grad = torch.ones_like(p)
        optimizer.step()
        sizes[state] = (
            sum(t.numel() * t.element_size() for k, t in optimizer.state[p].items() if k != "step") / p.numel()
        )
    assert sizes == {"float32": 8, "bfloat16": 4, "int8": 2 + 8 / BLOCK}


def test_torchs_own_is_used_where_nothing_is_compact():
    p = nn.Parameter(torch.zeros(2, 2))
    assert type(adamw([p], [], 0.1, (0.9, 0.95), 0.0, "float32", True)) is torch.optim.AdamW
    assert type(adamw([p], [], 0.1, (0.9, 0.95), 0.0, "int8", True)) is CompactAdamW
    half = nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16))
    assert type(adamw([half], [], 0.1, (0.9, 0.95), 0.0, "float32", True)) is CompactAdamW
