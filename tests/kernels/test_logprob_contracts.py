"""What logprob_kl promises beside its numbers: layouts, masks, determinism, inputs left alone, errors that say what."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kernels
from support.score_oracle import KINDS, check, noisy, rows

ROOT = Path(__file__).parents[2]


def batch(B=3, T=4, V=1000, seed=0):
    x = rows(KINDS * 2, V, seed=seed).view(B, T, V)
    y = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
    return x, y


def loss_of(s, weights):
    return sum((v * w).sum() for v, w in zip(s, weights, strict=True) if v is not None)


def weights_for(y, seed=9):
    gen = torch.Generator().manual_seed(seed)
    return [torch.randn(y.shape, generator=gen).to(y.device) for _ in range(4)]


def run(x, y, ref=None, temperature=0.7, backend="auto", **options):
    """Scores and the gradient of a loss that uses all of them."""
    leaf = x.detach().requires_grad_() if x.is_leaf else x
    s = kernels.logprob_kl(leaf, y, ref, temperature, backend=backend, **options)
    (grad,) = torch.autograd.grad(loss_of(s, weights_for(y)), leaf)
    return s, grad


def same(a, b):
    return all(torch.equal(u, v) for u, v in zip(a, b, strict=True) if u is not None)


VIEWS = {
    "shifted": lambda x: x[:, :-1],  # the usual next-token slice: two strides
    "batch strided": lambda x: x[::2],
    "columns cut": lambda x: x[..., 3:900],  # rows start misaligned, row stride > V
    "transposed batch": lambda x: x.transpose(0, 1),
    "columns strided": lambda x: x[..., ::2],
    "four dimensions": lambda x: x.view(3, 2, 2, -1)[:, :, :1].transpose(0, 1),
    "expanded": lambda x: x[:1].expand(3, -1, -1),
    "column-major": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
}


@pytest.mark.parametrize("view", VIEWS)
def test_any_strides_give_what_contiguous_rows_give(where, view):
    backend, device = where
    x = VIEWS[view](batch()[0].to(device))
    y = torch.randint(x.shape[-1], x.shape[:-1], generator=torch.Generator().manual_seed(1)).to(device)
    ref = VIEWS[view](noisy(batch()[0]).to(device))
    have = run(x, y, ref, backend=backend)
    want = run(x.contiguous(), y, ref.contiguous(), backend=backend)
    assert same(have[0], want[0]) and torch.equal(have[1], want[1])
    assert have[0].logprob.shape == y.shape and have[1].shape == x.shape
    mixed = run(x, y, ref.contiguous(), backend=backend)
    assert same(mixed[0], want[0])


def test_gradient_reaches_the_tensor_behind_a_view(where):
    backend, device = where
    x, y = batch()
    leaf, y = x.to(device).clone().requires_grad_(), y.to(device)
    kernels.logprob_kl(leaf[:, :-1], y[:, 1:], backend=backend).logprob.sum().backward()
    assert bool((leaf.grad[:, -1] == 0).all())
    flat = x[:, :-1].reshape(-1, 1000)
    check(
        lambda x, y, r, t: kernels.logprob_kl(x, y, r, t, backend=backend),
        flat,
        y[:, 1:].cpu().reshape(-1),
        device=device,
    )


def test_misaligned_and_narrow_targets(where):
    """targets[:, 1:] starts 8 bytes past a 16-byte boundary; one public kernel is miscompiled for it."""
    backend, device = where
    x, y = batch()
    x, y = x.to(device), y.to(device)
    padded = torch.cat([y.new_zeros(1), y.reshape(-1)])[1:].view(y.shape)
    assert padded.data_ptr() % 16 == 8
    want = kernels.logprob_kl(x, y, backend=backend)
    assert same(kernels.logprob_kl(x, padded, backend=backend), want)
    assert same(kernels.logprob_kl(x, y.int(), backend=backend), want)
    strided = torch.stack([y, y], -1)[..., 0]
    assert same(kernels.logprob_kl(x, strided, backend=backend), want)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (0,), (2, 0), (2, 3, 2)])
def test_any_leading_shape_down_to_one_row_and_none(where, shape):
    backend, device = where
    x = torch.randn(*shape, 50, device=device)
    y = torch.zeros(shape, dtype=torch.long, device=device)
    s, grad = run(x, y, x.clone(), backend=backend)
    assert all(v.shape == shape for v in s) and grad.shape == x.shape
    assert kernels.logprob_kl(x, y, backend=backend).kl is None


@pytest.mark.parametrize("ignore_index", [-100, -1, 7])
def test_ignored_rows_score_zero_and_get_no_gradient(where, ignore_index):
    backend, device = where
    x, y = batch()
    skip = torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    ref = noisy(x)
    want, want_grad = run(x.to(device), y.to(device), ref.to(device), backend=backend, ignore_index=-5)
    holes, bad_ref = x.clone(), ref.clone()
    holes[skip], bad_ref[skip] = torch.nan, torch.nan
    y = y.masked_fill(y == ignore_index, 8).masked_fill(skip, ignore_index).to(device)
    have, grad = run(holes.to(device), y, bad_ref.to(device), backend=backend, ignore_index=ignore_index)
    assert all(bool((v[skip] == 0).all()) for v in have) and bool((grad[skip] == 0).all())
    assert same([v[~skip] for v in have], [v[~skip] for v in want]) and torch.equal(grad[~skip], want_grad[~skip])


def test_rows_without_an_incoming_gradient_get_zero(where):
    """Groups whose rewards are all equal have advantage 0: most of a batch late in training."""
    backend, device = where
    x, y = rows(("flat",) * 12, 300).view(3, 4, 300), batch(V=300)[1]
    leaf, y = x.to(device).requires_grad_(), y.to(device)
    s = kernels.logprob_kl(leaf, y, backend=backend)
    use = torch.zeros(y.shape, device=device)
    use[1] = 1
    (s.logprob * use).sum().backward()
    assert bool((leaf.grad[[0, 2]] == 0).all()) and bool((leaf.grad[1] != 0).all())


UNREAD = """
import ctypes, mmap, torch, kernels
V, page = 1024, mmap.PAGESIZE
memory = mmap.mmap(-1, 6 * V * 4 + page)
x = torch.frombuffer(memory, dtype=torch.float32, count=6 * V).view(6, V)
x.copy_(torch.randn(6, V))
y = torch.tensor([3, -100, 5, -100, 7, 9])
def protect(flags):  # row 1 and row 3 become memory that kills the process when read
    for row in (1, 3):
        address = ctypes.c_void_p(x.data_ptr() + row * V * 4)
        assert ctypes.CDLL(None).mprotect(address, V * 4, flags) == 0
leaf = x.requires_grad_()
protect(0)
for backend in ("torch", "triton"):
    s = kernels.logprob_kl(leaf, y, backend=backend)
    (grad,) = torch.autograd.grad(s.logprob.sum() + s.entropy.sum(), leaf)
    assert bool((grad[[1, 3]] == 0).all()) and bool((grad[[0, 2]] != 0).all())
    print(backend, "survived", flush=True)
print(float(x.detach()[1, 0]))
"""


def test_ignored_rows_are_not_read():
    """Their pages are unmapped from reading: a single load would end the process. That it would is checked too."""
    if V_IS_NOT_WHOLE_PAGES:
        pytest.skip("pages larger than a row of this test")
    env = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run([sys.executable, "-c", UNREAD], cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.stdout.splitlines()[-2:] == ["torch survived", "triton survived"], result.stderr
    assert result.returncode < 0, "reading the protected page should have killed the process"


V_IS_NOT_WHOLE_PAGES = 4096 % os.sysconf("SC_PAGESIZE") != 0


@pytest.mark.parametrize("columns", [1000, 2100])
def test_padded_columns_have_no_probability_and_no_gradient(where, columns):
    """verl's padded head added exp(0) a column: log-probs of +123. Here the padding holds the largest logits."""
    backend, device = where
    x = torch.cat([rows(KINDS, 900), torch.full((6, columns - 900), 1e4)], 1)
    y = torch.arange(6) * 100
    limited = lambda x, y, r, t: kernels.logprob_kl(x, y, r, t, vocab_size=900, backend=backend)  # noqa: E731
    leaf = x.clone().to(device).requires_grad_()
    s = limited(leaf, y.to(device), noisy(x).to(device), 0.7)
    grad = torch.autograd.grad(loss_of(s, weights_for(y.to(device))), leaf)[0]
    assert bool((grad[:, 900:] == 0).all())
    cut = x[:, :900].contiguous().to(device)
    want, want_grad = run(cut, y.to(device), noisy(x)[:, :900].contiguous().to(device), backend=backend)
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in zip(s, want, strict=True))
    assert torch.allclose(grad[:, :900], want_grad, rtol=1e-5, atol=1e-9)


def test_bitwise_repeatable_and_indifferent_to_the_order_of_rows(where):
    backend, device = where
    x = rows(KINDS * 2, 1500, seed=8).to(device)
    ref, y = noisy(x.cpu()).to(device), torch.arange(12, device=device) * 7
    s, grad = run(x, y, ref, backend=backend)
    again, grad_again = run(x, y, ref, backend=backend)
    assert same(s, again) and torch.equal(grad, grad_again)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).to(device)
    leaf = x[order].requires_grad_()
    moved = kernels.logprob_kl(leaf, y[order], ref[order], 0.7, backend=backend)
    assert same(moved, [v[order] for v in s])
    weights = [w[order] for w in weights_for(y)]
    assert torch.equal(torch.autograd.grad(loss_of(moved, weights), leaf)[0], grad[order])
    for i in (0, 5, 11):  # and to how many others are scored beside it
        alone = kernels.logprob_kl(x[i : i + 1], y[i : i + 1], ref[i : i + 1], 0.7, backend=backend)
        assert same(alone, [v[i : i + 1] for v in s])


def test_inputs_are_left_alone(where):
    backend, device = where
    x, y = batch()
    x, y, ref = x.to(device), y.to(device), noisy(x).to(device)
    copies = [t.clone() for t in (x, y, ref)]
    versions = [t._version for t in (x, y, ref)]
    run(x, y, ref, backend=backend)
    assert same((x, y, ref), copies) and versions == [t._version for t in (x, y, ref)]


@pytest.mark.parametrize("view", ["whole", "shifted", "four dimensions"])
def test_inplace_gradient_is_the_gradient_and_lies_in_the_logits(where, view):
    backend, device = where
    cut = VIEWS.get(view, lambda x: x)
    x = batch()[0].to(device)
    y = torch.zeros(cut(x).shape[:-1], dtype=torch.long, device=device)
    want = run(cut(x).contiguous(), y, backend=backend)[1]
    base = x.clone().requires_grad_()
    logits = cut(base * 1.0)
    s = kernels.logprob_kl(logits, y, temperature=0.7, inplace_grad=True, backend=backend)
    assert torch.equal(logits.detach(), cut(x))  # not before the backward pass
    loss_of(s, weights_for(y)).backward()
    assert torch.equal(logits.detach(), want)
    assert torch.equal(cut(base.grad), want)


def test_inplace_gradient_makes_autograd_object_where_logits_are_still_needed(where):
    backend, device = where
    x, y = batch()
    base = x.to(device).clone().requires_grad_()
    logits = base * 1.0
    other = logits.square().sum()  # saved the logits for its own backward
    s = kernels.logprob_kl(logits, y.to(device), inplace_grad=True, backend=backend)
    version = logits._version
    s.logprob.sum().backward(retain_graph=True)
    assert logits._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        s.logprob.sum().backward()


def test_only_the_used_outputs_cost_their_inputs(where):
    """Without a gradient for kl the backward pass does not ask for the reference: changing it then goes unseen."""
    backend, device = where
    x, y = batch()
    leaf, ref = x.to(device).clone().requires_grad_(), noisy(x).to(device)
    s = kernels.logprob_kl(leaf, y.to(device), ref, backend=backend)
    gradient = lambda loss: torch.autograd.grad(loss, leaf, retain_graph=True)[0]  # noqa: E731
    plain, with_kl = gradient(s.logprob.sum() + s.entropy.sum()), gradient(s.kl.sum())
    ref.data.zero_()  # behind autograd's back
    assert torch.equal(gradient(s.logprob.sum() + s.entropy.sum()), plain)
    assert not torch.allclose(gradient(s.kl.sum()), with_kl)


def test_gradients_arrive_without_memory_behind_them(where):
    """sum() sends back an expanded scalar; a kernel that takes its pointer for N numbers reads beyond it."""
    backend, device = where
    x, y = batch()
    one, two = (x.to(device).clone().requires_grad_() for _ in range(2))
    kernels.logprob_kl(one, y.to(device), backend=backend).logprob.sum().backward()
    ones = torch.ones(y.shape, device=device)
    (kernels.logprob_kl(two, y.to(device), backend=backend).logprob * ones).sum().backward()
    assert torch.equal(one.grad, two.grad)


def test_double_backward_is_refused():
    leaf = torch.randn(3, 5, requires_grad=True)
    s = kernels.logprob_kl(leaf, torch.tensor([0, 1, 2]))
    (grad,) = torch.autograd.grad(s.logprob.sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


X, Y = torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.long)
ERRORS = {
    "no columns": (lambda: kernels.logprob_kl(torch.zeros(2, 0), Y[:, 0]), ValueError, "vocabulary"),
    "integer logits": (lambda: kernels.logprob_kl(X.long(), Y), TypeError, "floating point"),
    "target shape": (lambda: kernels.logprob_kl(X, Y[:, :2]), ValueError, r"\(2, 2\)"),
    "float targets": (lambda: kernels.logprob_kl(X, Y.float()), TypeError, "token ids"),
    "target too large": (lambda: kernels.logprob_kl(X, Y + 5), IndexError, "target 5 at flat position 0"),
    "negative target": (lambda: kernels.logprob_kl(X, Y - 1), IndexError, "target -1"),
    "target in the padding": (lambda: kernels.logprob_kl(X, Y + 4, vocab_size=4), IndexError, "vocabulary of 4"),
    "reference shape": (lambda: kernels.logprob_kl(X, Y, X[..., :4]), ValueError, "ref_logits"),
    "reference with grad": (lambda: kernels.logprob_kl(X, Y, X.clone().requires_grad_()), ValueError, "detach"),
    "temperature zero": (lambda: kernels.logprob_kl(X, Y, temperature=0), ValueError, "temperature=0"),
    "temperature nan": (lambda: kernels.logprob_kl(X, Y, temperature=float("nan")), ValueError, "positive"),
    "vocabulary": (lambda: kernels.logprob_kl(X, Y, vocab_size=6), ValueError, "vocab_size=6"),
    "backend": (lambda: kernels.logprob_kl(X, Y, backend="cuda"), ValueError, "'triton'"),
    "float64 in Triton": (lambda: kernels.logprob_kl(X.double(), Y, backend="triton"), TypeError, "float64"),
    "in place on expanded": (
        lambda: kernels.logprob_kl(X[:1].expand(2, 3, 5), Y, inplace_grad=True),
        ValueError,
        "expanded",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_and_where(case):
    call, kind, text = ERRORS[case]
    with pytest.raises(kind, match=text):
        call()
