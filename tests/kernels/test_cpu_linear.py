"""kernels.cpu_linear against float64, and its gradients against autograd's own."""

import pytest
import torch
import torch.nn.functional as F

from kernels.cpu_linear import linear, packed


def inputs(rows: tuple[int, ...], K: int, N: int, bias: bool, seed: int = 0):
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(*rows, K, generator=gen)
    weight = torch.randn(N, K, generator=gen)
    return x, weight, torch.randn(N, generator=gen) if bias else None


@pytest.mark.parametrize("rows", [(1,), (3,), (17,), (2, 5), (1, 40), ()])
@pytest.mark.parametrize("shape", [(64, 96), (33, 7), (576, 100)])
@pytest.mark.parametrize("bias", [False, True])
def test_matches_float64(rows, shape, bias):
    x, weight, b = inputs(rows, *shape, bias)
    exact = F.linear(x.double(), weight.double(), None if b is None else b.double())
    got = linear(x, weight, b)
    assert got.dtype == torch.float32 and got.shape == exact.shape
    # fp32 sums of K products: far below what bf16 (4e-3) or TF32 (5e-4) inside would leave
    assert (got - exact).abs().max() <= 4e-6 * exact.abs().max().clamp(min=1.0)


@pytest.mark.parametrize("rows", [(1,), (9,), (2, 5)])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_match_float64(rows, bias):
    x, weight, b = inputs(rows, 48, 31, bias)
    leaves = [t.requires_grad_() for t in (x, weight, b) if t is not None]
    wide = [t.detach().double().requires_grad_() for t in leaves]
    pick = torch.randn(*rows, 31, generator=torch.Generator().manual_seed(1))
    (linear(*leaves) * pick).sum().backward()
    (F.linear(*wide) * pick.double()).sum().backward()
    for leaf, exact in zip(leaves, wide, strict=True):
        torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_a_frozen_weight_gets_no_gradient_and_strided_inputs_work():
    x, weight, _ = inputs((6,), 32, 16, False)
    x.requires_grad_()
    odd = x.t().contiguous().t()  # column-major view of the same numbers
    linear(odd, weight).sum().backward()
    assert weight.grad is None
    torch.testing.assert_close(x.grad, weight.sum(0).expand_as(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_torchs_own(dtype):
    x, weight, _ = inputs((4,), 16, 8, False)
    assert torch.equal(linear(x.to(dtype), weight.to(dtype)), F.linear(x.to(dtype), weight.to(dtype)))


def test_an_update_in_place_takes_effect_at_once():
    x, weight, _ = inputs((4,), 16, 8, False)
    before = linear(x, weight)
    with torch.no_grad():
        weight.mul_(2)
    assert torch.equal(linear(x, weight), 2 * before)


def test_empty_batches():
    _, weight, _ = inputs((1,), 16, 8, False)
    assert linear(torch.zeros(0, 16), weight).shape == (0, 8)


@pytest.mark.parametrize("shape", [(64, 96), (33, 257), (256, 4000)])
def test_a_packed_weight_gives_the_same_bits_in_any_batch(shape):
    x, weight, _ = inputs((64,), *shape, False)
    whole, project = linear(x, weight), packed(weight)
    for rows in (8, 16, 24, 64):  # the sampler's batches are multiples of 8
        assert torch.equal(project(x[:rows]), whole[:rows])
    assert project(x[:0]).shape == (0, shape[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_packing_leaves_other_dtypes_to_torch(dtype):
    x, weight, _ = inputs((4,), 16, 8, False)
    assert torch.equal(packed(weight.to(dtype))(x.to(dtype)), F.linear(x.to(dtype), weight.to(dtype)))
