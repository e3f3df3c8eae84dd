"""linear_logprob and linear_loss against float64 autograd of materialised logits, and what they promise of memory."""

import pytest
import torch

import kernels
from kernels import linear, ops
from support.linear_oracle import NAMES, close, oracle, problem
from support.score_oracle import exact_scores


@pytest.mark.parametrize("with_ref", [False, True])
@pytest.mark.parametrize("chunk", [1, 10, 1000])
def test_scores_and_gradients_match_float64(where, chunk, with_ref):
    backend, device = where
    h, w, rh, rw, y, weights = problem()
    h, w, y_there = h.to(device).requires_grad_(), w.to(device).requires_grad_(), y.to(device)
    ref = {"ref_hidden": rh.to(device), "ref_weight": rw.to(device)} if with_ref else {}
    s = kernels.linear_logprob(h, w, y_there, 0.7, chunk=chunk, backend=backend, **ref)
    kept = y != -100
    scores, dh, dw = oracle(h, w, y, weights, 0.7, *((rh, rw) if with_ref else ()))
    for name, want in scores.items():
        have = getattr(s, name)
        assert have.shape == y.shape and have.dtype == torch.float32 and bool((have[~kept] == 0).all())
        close(have.cpu()[kept], want, 3e-6)
    assert (s.kl is None) == (not with_ref)
    sum((v * g.to(device)).sum() for v, g in zip(s, weights, strict=True) if v is not None).backward()
    close(h.grad, dh, 1e-5)
    close(w.grad, dw, 1e-5)
    assert bool((h.grad[y_there == -100] == 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_each_output_alone(where, name):
    backend, device = where
    h, w, rh, rw, y, weights = problem(seed=1)
    h, w = h.to(device).requires_grad_(), w.to(device).requires_grad_()
    s = kernels.linear_logprob(
        h, w, y.to(device), 1.3, chunk=16, ref_hidden=rh.to(device), ref_weight=rw.to(device), backend=backend
    )
    (getattr(s, name) * weights[NAMES.index(name)].to(device)).sum().backward()
    _, dh, dw = oracle(h, w, y, weights, 1.3, rh, rw, names=(name,))
    close(h.grad, dh, 1e-5)
    close(w.grad, dw, 1e-5)


def test_gradcheck():
    h, w, rh, rw, y, _ = problem(N=3, H=6, V=7, dtype=torch.float64)
    y[0, 1] = -100
    h, w = (t.double().requires_grad_() for t in (h, w))
    ref = {"ref_hidden": rh, "ref_weight": rw}
    score = lambda h, w: tuple(kernels.linear_logprob(h, w, y.clamp(max=6), 0.7, chunk=2, **ref))  # noqa: E731
    assert torch.autograd.gradcheck(score, (h, w))


def test_agrees_bitwise_with_scores_of_the_same_logits(where):
    """Sampler (logits of one position) and trainer (hidden states of many) must call a fresh token equally likely."""
    backend, device = where
    h, w, *_, y, _ = problem(dtype=torch.bfloat16)
    h, w, y = h.to(device), w.to(device), y.to(device)
    chunked = kernels.linear_logprob(h, w, y, 0.7, chunk=37, backend=backend)
    whole = kernels.logprob_kl(torch.nn.functional.linear(h, w), y, temperature=0.7, backend=backend)
    ratio = (chunked.logprob - whole.logprob).exp()
    assert bool(((ratio - 1).abs() < 1e-2).all())  # the product may round differently for another number of rows
    flat = h.reshape(-1, h.shape[-1])[:37]
    exact = kernels.logprob_kl(torch.mm(flat, w.t()), y.reshape(-1)[:37], temperature=0.7, backend=backend)
    alone = kernels.linear_logprob(flat, w, y.reshape(-1)[:37].clone(), 0.7, chunk=37, backend=backend)
    kept = y.reshape(-1)[:37] != -100
    if bool(kept.all()):
        assert torch.equal(alone.logprob, exact.logprob)


@pytest.mark.parametrize("frozen", ["head", "body", "both"])
def test_frozen_parts_get_no_gradient_and_cost_no_product(where, frozen, monkeypatch):
    backend, device = where
    h, w, *_, y, weights = problem()
    h, w = h.to(device), w.to(device)
    h.requires_grad_(frozen == "head")
    w.requires_grad_(frozen == "body")
    sums, real = [], linear.accumulate
    monkeypatch.setattr(linear, "accumulate", lambda *a: (sums.append(1), real(*a)))
    s = kernels.linear_logprob(h, w, y.to(device), chunk=40, backend=backend)
    assert s.logprob.requires_grad == (frozen != "both")
    if frozen == "both":
        return
    s.logprob.sum().backward()
    assert (h.grad is None) == (frozen == "body") and (w.grad is None) == (frozen == "head")
    assert bool(sums) == (frozen == "body")


def test_weight_gradient_is_summed_wide():
    """400 chunks of one token each, bf16: a sum in bf16 stops growing at 256 equal terms."""
    N, H, V = 400, 8, 16
    h, w = torch.ones(N, H, dtype=torch.bfloat16), torch.zeros(V, H, dtype=torch.bfloat16, requires_grad=True)
    y = torch.zeros(N, dtype=torch.long)
    kernels.linear_logprob(h, w, y, chunk=1).logprob.sum().backward()
    exact = torch.full((V, H), -N / V).index_fill_(0, torch.tensor([0]), N - N / V)
    assert torch.allclose(w.grad.float(), exact, rtol=2.0**-8)


def test_wide_logits_are_nearer_the_truth_than_rounded_ones():
    h, w, *_, y, _ = problem(dtype=torch.bfloat16, scale=2.0, H=64)
    y = y.clamp(min=0)
    want = exact_scores((h.double() @ w.double().t()).flatten(0, 1), y.flatten())[0][0].view(y.shape)
    narrow = kernels.linear_logprob(h, w, y).logprob.double()
    wide = kernels.linear_logprob(h, w, y, logits_dtype=torch.float32).logprob.double()
    assert (wide - want).abs().max() < 1e-4 < (narrow - want).abs().max()


def test_padded_rows_of_the_head(where):
    backend, device = where
    h, w, rh, rw, y, weights = problem()
    y = y.clamp(max=199)
    h, w = h.to(device).requires_grad_(), (100 * w).to(device).requires_grad_()
    with torch.no_grad():
        w[:200] /= 100
    s = kernels.linear_logprob(h, w, y.to(device), vocab_size=200, chunk=16, backend=backend)
    (s.logprob * weights[0].to(device)).sum().backward()
    _, dh, dw = oracle(h, w[:200], y, weights, 1.0, names=("logprob",))
    close(h.grad, dh, 1e-5)
    close(w.grad[:200], dw, 1e-5)
    assert bool((w.grad[200:] == 0).all())


def ppo(s, advantage, old):
    ratio = (s.logprob - old).exp()
    surrogate = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    return (surrogate - 0.01 * s.entropy + (0 if s.kl is None else 0.1 * s.kl)).sum() / 100


@pytest.mark.parametrize("with_ref", [False, True])
def test_the_loss_in_the_forward_pass_is_the_loss_and_has_its_gradient(where, with_ref):
    """6VH and 8VH are two routes to one gradient, here of a clipped policy loss with entropy and KL terms."""
    backend, device = where
    h, w, rh, rw, y, weights = problem()
    y = y.to(device)
    ref = {"ref_hidden": rh.to(device), "ref_weight": rw.to(device)} if with_ref else {}
    advantage, old = weights[0].to(device), (weights[1] * 0.3 - 6).to(device)
    grads = []
    for fused in (True, False):
        h_leaf, w_leaf = (t.clone().to(device).requires_grad_() for t in (h, w))
        if fused:
            loss, s = kernels.linear_loss(h_leaf, w_leaf, y, ppo, advantage, old, chunk=13, backend=backend, **ref)
            assert not s.logprob.requires_grad
        else:
            t = kernels.linear_logprob(h_leaf, w_leaf, y, chunk=13, backend=backend, **ref)
            assert all(torch.equal(a, b.detach()) for a, b in zip(s, t, strict=True) if a is not None)
            kept = y != -100
            t = kernels.TokenScores(*(None if v is None else v[kept] for v in t))
            loss = ppo(t, advantage[kept], old[kept])
        (3 * loss).backward()
        grads.append((loss.detach(), h_leaf.grad, w_leaf.grad))
    assert torch.allclose(grads[0][0], grads[1][0], rtol=1e-5)
    close(grads[0][1], grads[1][1], 3e-6)
    close(grads[0][2], grads[1][2], 3e-6)


def test_linear_loss_forms_each_chunk_of_logits_once_and_linear_logprob_twice(monkeypatch):
    formed, real = [], linear.Head.logits
    monkeypatch.setattr(linear.Head, "logits", lambda self, rows: (formed.append(rows), real(self, rows))[1])
    h, w, *_, y, weights = problem(N=37)
    h.requires_grad_()
    kernels.linear_loss(h, w, y, ppo, weights[0], weights[1], chunk=35)[0].backward()
    assert len(formed) == 3  # 105 tokens count
    formed.clear()
    kernels.linear_logprob(h, w, y, chunk=35).logprob.sum().backward()
    assert len(formed) == 6


def test_without_gradients_linear_loss_costs_what_scoring_costs(monkeypatch):
    def forbidden(*_):
        raise AssertionError("a product of the backward pass")

    h, w, *_, y, weights = problem()
    h, w = h.requires_grad_(), w.requires_grad_()
    wanted, _ = kernels.linear_loss(h, w, y, ppo, weights[0], weights[1], chunk=35)
    monkeypatch.setattr(linear.Gradients, "add", forbidden)
    with torch.no_grad():
        loss, _ = kernels.linear_loss(h, w, y, ppo, weights[0], weights[1], chunk=35)
    assert torch.equal(loss, wanted) and not loss.requires_grad


def test_the_gradient_of_linear_loss_is_handed_out_once():
    h, w, *_, y, weights = problem()
    h.requires_grad_()
    loss, _ = kernels.linear_loss(h, w, y, ppo, weights[0], weights[1])
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_no_buffer_beyond_a_chunk(monkeypatch):
    """Every tensor that PyTorch allocates is seen; none may have more than chunk × V numbers (here dW has fewer)."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in known:
                    largest[0] = max(largest[0], t.untyped_storage().nbytes() // 4)
            return out

    N, H, V, chunk = 400, 4, 2000, 16
    h, w = torch.randn(N, H, requires_grad=True), torch.randn(V, H, requires_grad=True)
    y = torch.randint(V, (N,))
    known = {h.data_ptr(), w.data_ptr(), y.data_ptr()}
    monkeypatch.setattr("kernels.reference.CHUNK_ELEMENTS", chunk * V)
    with Watch():
        kernels.linear_logprob(h, w, y, chunk=chunk).entropy.sum().backward()
    assert largest[0] == chunk * V  # and the watch does see the chunk


def test_edges():
    h, w, *_ = problem(N=4)
    none = torch.full((3, 4), -100)
    h, w = h[:, :4].requires_grad_(), w.requires_grad_()
    s = kernels.linear_logprob(h, w, none)
    s.entropy.sum().backward()
    assert bool((s.logprob == 0).all()) and bool((h.grad == 0).all()) and bool((w.grad == 0).all())
    empty = kernels.linear_logprob(h[:, :0], w, none[:, :0])
    assert empty.logprob.shape == (3, 0)
    loss, _ = kernels.linear_loss(h, w, none, ppo, none.float(), none.float())
    loss.backward()
    assert loss == 0
    loss, s = kernels.linear_loss(h, w, none.clamp(min=0), lambda s: (0 * s.logprob.detach()).sum())
    loss.backward()
    assert bool((h.grad == 0).all())


def test_errors_say_what():
    h, w, rh, rw, y, _ = problem()
    calls = {
        "must be": lambda: kernels.linear_logprob(h, w[:, :3], y),
        "cast one of them": lambda: kernels.linear_logprob(h, w.half(), y),
        "without ref_hidden": lambda: kernels.linear_logprob(h, w, y, ref_weight=rw),
        "leading shape": lambda: kernels.linear_logprob(h, w, y, ref_hidden=rh[:2], ref_weight=rw),
        "detach": lambda: kernels.linear_logprob(h, w, y, ref_hidden=rh.clone().requires_grad_(), ref_weight=rw),
        "outside the vocabulary": lambda: kernels.linear_logprob(h, w, y + 300),
        "one value a token": lambda: kernels.linear_loss(h, w, y, ppo, y[:2].float()),
        "scalar": lambda: kernels.linear_loss(h, w, y, lambda s: s.logprob),
    }
    for text, call in calls.items():
        with pytest.raises((ValueError, TypeError, IndexError), match=text):
            call()


def test_the_backend_that_was_asked_for_is_the_one_that_runs(monkeypatch):
    asked, real = [], ops.implementation
    monkeypatch.setattr(ops, "implementation", lambda backend: (asked.append(backend), real("torch"))[1])
    h, w, *_, y, _ = problem()
    kernels.linear_logprob(h, w, y, backend="triton")
    kernels.linear_logprob(h, w, y)
    assert set(asked[: len(asked) // 2]) == {"triton"} and asked[-1] == "torch"
