"""What stands between a head's product and the softmax: soft cap, logit scale, bias, a temperature a row, z-loss.

Values and gradients are judged by float64 definitions (support/score_oracle.py) and finite differences; a bias by the same
head with one more hidden column of ones, which needs no oracle of its own.
"""

import pytest
import torch

import kernels
from support.linear_oracle import close, oracle, problem
from support.score_oracle import KINDS, check, noisy, rows

T = torch.tensor([0.3, 0.7, 1.0, 1.5, 3.0, 0.9], dtype=torch.float64)


def scorer(backend, **options):
    return lambda x, y, r, t: kernels.logprob_kl(x, y, r, t, backend=backend, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("softcap", [5.0, 30.0])
def test_capped_logits_match_float64(where, softcap, dtype):
    backend, device = where
    x, y = rows(KINDS, 500, dtype=dtype, seed=7), torch.arange(6) * 80
    options = {"softcap": softcap, "device": device, "interpreted": where == ("triton", "cpu")}
    check(scorer(backend, softcap=softcap), x, y, noisy(x), 0.7, **options)


def test_a_cap_far_above_the_logits_keeps_their_digits(where):
    """1 − 2/(1 + e^2u) is off by 6e-8 whatever u is: by 6e-6 for logits near 0 under a cap of 100."""
    backend, device = where
    x = 0.01 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    check(scorer(backend, softcap=100.0), x, torch.arange(20) % 2, None, device=device, softcap=100.0)


def test_the_slope_has_its_digits_where_the_cap_holds(where):
    """At x = 8c it is 4e-7, which 1 − tanh² in fp32 knows to one digit."""
    backend, device = where
    x = torch.linspace(-40, 40, 161).repeat(3, 1)
    check(scorer(backend, softcap=5.0), x, torch.tensor([0, 80, 160]), None, device=device, softcap=5.0)


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_temperature_a_row_is_that_row_at_that_temperature(where, softcap):
    """Scores bit for bit, whatever is scored beside it, gradients to their rounding; and what float64 says."""
    backend, device = where
    x, y = rows(KINDS, 300, seed=3), torch.arange(6) * 50
    score = scorer(backend, softcap=softcap)
    check(score, x, y, noisy(x), T, device=device, softcap=softcap)
    there = [t.to(device) for t in (x, y, noisy(x))]
    together = score(there[0].requires_grad_(), *there[1:], T.to(device))
    grad = torch.autograd.grad(sum(v.sum() for v in together), there[0])[0]
    for i, t in enumerate(T.tolist()):
        row = there[0].detach()[i : i + 1].requires_grad_()
        alone = score(row, there[1][i : i + 1], there[2][i : i + 1], t)
        off = 1e-6 if where == ("triton", "cpu") else 0.0  # the interpreter multiplies by one 1/T in float64
        assert all(
            torch.allclose(a[i : i + 1], b, rtol=off, atol=off / 10) for a, b in zip(together, alone, strict=True)
        )
        own = torch.autograd.grad(sum(v.sum() for v in alone), row)[0][0]
        assert (grad[i] - own).abs().max() <= 3e-6 * own.abs().max()


def test_temperatures_have_the_shape_of_the_targets_and_those_of_ignored_rows_are_not_read(where):
    backend, device = where
    x, y = rows(KINDS, 100).view(2, 3, 100).to(device), torch.tensor([[3, -100, 5], [7, -100, 9]], device=device)
    t = T.float().view(2, 3).to(device)
    want = kernels.logprob_kl(x, y, None, t, backend=backend)
    for odd in (0.0, float("nan"), -1.0):
        have = kernels.logprob_kl(x, y, None, torch.where(y == -100, odd, t), backend=backend)
        assert all(torch.equal(a, b) for a, b in zip(want[:3], have[:3], strict=True))
    strided = torch.stack([t, t], -1)[..., 0]
    assert torch.equal(kernels.logprob_kl(x, y, None, strided, backend=backend).logprob, want.logprob)


def test_gradcheck():
    """float64 and finite differences, of all four outputs at once."""
    gen = torch.Generator().manual_seed(0)
    x, r = (4 * torch.randn(5, 7, dtype=torch.float64, generator=gen) for _ in range(2))
    y, t = torch.tensor([0, 3, 6, 2, -100]), T[:5]
    score = lambda x: tuple(kernels.logprob_kl(x, y, r, t, softcap=3.0))  # noqa: E731
    assert torch.autograd.gradcheck(score, (x.requires_grad_(),))
    h, w, b = (torch.randn(*n, dtype=torch.float64, generator=gen).requires_grad_() for n in ((5, 4), (7, 4), (7,)))
    ref = {"ref_hidden": h.detach().flip(0), "ref_weight": w.detach().flip(0), "ref_bias": b.detach().flip(0)}
    head = lambda h, w, b: tuple(kernels.linear_logprob(h, w, y, t, bias=b, softcap=3.0, chunk=2, **ref))  # noqa: E731
    assert torch.autograd.gradcheck(head, (h, w, b))
    square = lambda s: sum(v.square().sum() for v in s)  # noqa: E731
    options = {
        "bias": b,
        "softcap": 3.0,
        "chunk": 2,
        **ref,
    }  # linear_loss hands its gradient out once: too seldom for gradcheck
    losses = (kernels.linear_loss(h, w, y, square, temperature=t, **options)[0], square(head(h, w, b)))
    for a, c in zip(*(torch.autograd.grad(loss, (h, w, b)) for loss in losses), strict=True):
        close(a, c, 1e-13)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_cap_hides_no_broken_row(where, bad):
    """tanh would make the cap of +inf, a logit like any other."""
    backend, device = where
    x, y = rows(("model",) * 3, 300).to(device), torch.tensor([1, 2, 3], device=device)
    x[1, 200] = bad
    s = kernels.logprob_kl(x, y, x.flip(0), softcap=5.0, backend=backend)
    assert s.logprob.isnan().tolist() == s.entropy.isnan().tolist() == [False, True, False]


def test_a_masked_token_stays_masked_under_a_cap(where):
    """tanh would make −c of −inf: a token of e^−c. A row of −inf alone is still empty."""
    backend, device = where
    x, y = rows(KINDS, 300, seed=2), torch.tensor([0, 1, 2, 3, 4, 5])
    cut = x.clone()
    cut[:, 200:] = -torch.inf
    leaf = cut.to(device).requires_grad_()
    s = kernels.logprob_kl(leaf, y.to(device), softcap=2.0, backend=backend)
    want = kernels.logprob_kl(x[:, :200].to(device).contiguous(), y.to(device), softcap=2.0, backend=backend)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(s[:3], want[:3], strict=True))
    (grad,) = torch.autograd.grad(s.logprob.sum() + s.entropy.sum(), leaf)
    assert bool((grad[:, 200:] == 0).all()) and bool(grad.isfinite().all())
    empty = kernels.logprob_kl(torch.full_like(leaf, -torch.inf), y.to(device), softcap=2.0, backend=backend)
    assert bool((empty.logprob == -torch.inf).all()) and bool((empty.entropy == 0).all())


def test_a_logit_scale_is_a_temperature(where):
    """Granite divides its logits by 8: softmax(z/8/T) is the softmax at temperature 8T; under a cap c, with the cap 8c."""
    backend, device = where
    x, y = rows(KINDS, 500, seed=6), (torch.arange(6) * 9).to(device)
    ref, s = noisy(x).to(device), 0.125
    for cap in (None, 3.0):
        leaves = [x.clone().to(device).requires_grad_() for _ in range(2)]
        have = kernels.logprob_kl(leaves[0], y, ref, 0.7 / s, softcap=None if cap is None else cap / s, backend=backend)
        want = kernels.logprob_kl(leaves[1] * s, y, ref * s, 0.7, softcap=cap, backend=backend)
        for a, b in zip(have, want, strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
            g = [torch.autograd.grad(v.sum(), z, retain_graph=True)[0] for v, z in zip((a, b), leaves, strict=True)]
            assert torch.allclose(*g, rtol=1e-4, atol=1e-7)


def test_a_z_loss_is_a_loss_on_an_output(where):
    backend, device = where
    x, y = rows(("flat", "model", "peaked"), 500, seed=6), torch.tensor([1, 2, 3])
    leaf, wide = x.clone().to(device).requires_grad_(), x.double().requires_grad_()
    (1e-4 * kernels.logprob_kl(leaf, y.to(device), backend=backend).logsumexp.square().sum()).backward()
    (1e-4 * wide.logsumexp(-1).square().sum()).backward()
    assert torch.allclose(leaf.grad.cpu().double(), wide.grad, rtol=1e-5, atol=1e-12)


# -- from hidden states ----------------------------------------------------------------------------------------------------


def biased(dtype=torch.float32, N=13):
    """problem() with the biases of both heads, and the same heads with the bias as one more column of the weight."""
    h, w, rh, rw, y, weights = problem(N=N, dtype=dtype)
    gen = torch.Generator().manual_seed(9)
    b, rb = (2 * torch.randn(len(w), generator=gen).to(dtype) for _ in range(2))
    one = torch.ones(*h.shape[:-1], 1, dtype=dtype)
    column = [torch.cat([a, c], -1) for a, c in ((h, one), (w, b[:, None]), (rh, one), (rw, rb[:, None]))]
    return h, w, rh, rw, b, rb, y, weights, column


@pytest.mark.parametrize("fused", [False, True])
def test_a_bias_is_one_more_column_of_the_head(where, fused):
    backend, device = where
    h, w, rh, rw, b, rb, y, weights, (h1, w1, rh1, rw1) = biased()
    exact, dh, dw = oracle(h1, w1, y, weights, 0.7, rh1, rw1)
    h, w, b = (t.to(device).requires_grad_() for t in (h, w, b))
    options = {"ref_hidden": rh, "ref_weight": rw, "ref_bias": rb}
    options = {k: v.to(device) for k, v in options.items()} | {"bias": b, "chunk": 10, "backend": backend}
    total = lambda s, *g: sum((v * k).sum() for v, k in zip(s, g, strict=True))  # noqa: E731
    there, y_there = [g.to(device) for g in weights], y.to(device)
    if fused:
        loss, s = kernels.linear_loss(h, w, y_there, total, *there, temperature=0.7, **options)
    else:
        s = kernels.linear_logprob(h, w, y_there, 0.7, **options)
        loss = total(s, *there)
    for name, want in exact.items():
        close(getattr(s, name).cpu()[y != -100], want, 3e-6)
    loss.backward()
    for have, want in ((h.grad, dh[..., :-1]), (w.grad, dw[:, :-1]), (b.grad, dw[:, -1])):
        close(have, want, 1e-5)


def test_the_sum_for_the_bias_is_wide_and_alone_where_alone_it_is_trained():
    """1,000 tokens of one kind in bf16: a sum in bf16 stops growing at 256 equal terms."""
    N, V = 1000, 16
    h, w = torch.ones(N, 8, dtype=torch.bfloat16), torch.zeros(V, 8, dtype=torch.bfloat16)
    b = torch.zeros(V, dtype=torch.bfloat16, requires_grad=True)
    s = kernels.linear_logprob(h, w, torch.zeros(N, dtype=torch.long), bias=b, chunk=64)
    s.logprob.sum().backward()
    exact = torch.full((V,), -N / V).index_fill_(0, torch.tensor([0]), N - N / V)
    assert torch.allclose(b.grad.float(), exact, rtol=2.0**-8) and w.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_forms_from_hidden_states_score_what_their_logits_score(where, dtype):
    """Cap, bias and a temperature a row, over chunks, ignored rows and a padded head: as `logprob_kl` of the same logits."""
    backend, device = where
    h, w, rh, rw, b, rb, y, weights, _ = biased(dtype, N=4)
    y, t = y.clamp(max=249), (0.5 + torch.rand(y.shape, generator=torch.Generator().manual_seed(1))).double()
    h, w, rh, rw, b, rb, y, t = (v.to(device) for v in (h, w, rh, rw, b, rb, y, t))
    weights = [g.to(device) for g in weights]
    total = lambda s, *g: sum((v * k).sum() for v, k in zip(s, g, strict=True))  # noqa: E731
    leaves = [[v.clone().requires_grad_() for v in (h, w, b)] for _ in range(3)]
    head = {"ref_hidden": rh, "ref_weight": rw, "ref_bias": rb, "softcap": 3.0, "vocab_size": 250, "chunk": 5}
    wide = {"logits_dtype": torch.float32, "backend": backend}
    fused, scores = kernels.linear_loss(
        *leaves[0][:2], y, total, *weights, temperature=t, bias=leaves[0][2], **head, **wide
    )
    s = kernels.linear_logprob(*leaves[1][:2], y, t, bias=leaves[1][2], **head, **wide)
    one, two, three = (v.float() for v in leaves[2])
    logits, ref_logits = one @ two.t() + three, rh.float() @ rw.float().t() + rb.float()
    want = kernels.logprob_kl(logits, y, ref_logits, t, softcap=3.0, vocab_size=250, backend=backend)
    for a, b_, c in zip(s, scores, want, strict=True):
        assert torch.equal(a, b_) and torch.allclose(a, c, rtol=1e-5, atol=2e-6)
    loss = [fused, total(s, *weights), total(want, *weights)]
    grads = [torch.autograd.grad(v, leaf) for v, leaf in zip(loss, leaves, strict=True)]
    for a, b_, c in zip(*grads, strict=True):
        scale = c.abs().max()
        rounding = 2e-5 if dtype == torch.float32 else 2e-2
        assert (a - c).abs().max() < rounding * scale and (b_ - c).abs().max() < rounding * scale


def test_the_logits_of_a_head_with_bias_are_rounded_once():
    """As torch's own linear layer rounds them; adding the bias to a rounded product would round twice."""
    gen = torch.Generator().manual_seed(0)
    h, w, b = (torch.randn(*n, generator=gen).bfloat16() for n in ((33, 64), (50, 64), (50,)))
    y = torch.arange(33)
    have = kernels.linear_logprob(h, w, y, bias=b).logprob
    assert torch.equal(have, kernels.logprob_kl(torch.nn.functional.linear(h, w, b), y).logprob)


def test_the_reference_has_the_policys_bias_with_the_policys_head():
    h, w, rh, rw, b, rb, y, *_ = biased()
    shared = kernels.linear_logprob(h, w, y, bias=b, ref_hidden=0.5 * h).kl
    assert torch.equal(shared, kernels.linear_logprob(h, w, y, bias=b, ref_hidden=0.5 * h, ref_weight=w, ref_bias=b).kl)
    bare = kernels.linear_logprob(h, w, y, bias=b, ref_hidden=rh, ref_weight=rw).kl
    assert torch.equal(bare, kernels.linear_logprob(h, w, y, bias=b, ref_hidden=rh, ref_weight=rw, ref_bias=0 * b).kl)


X, Y = torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.long)
H, W = torch.zeros(2, 3, 4), torch.zeros(5, 4)
REFUSED = {
    "no cap is None": (lambda: kernels.logprob_kl(X, Y, softcap=0.0), "softcap=0.0: must be positive"),
    "a learned cap": (lambda: kernels.logprob_kl(X, Y, softcap=torch.tensor(5.0, requires_grad=True)), "softcap requires grad"),
    "cap of infinity": (lambda: kernels.logprob_kl(X, Y, softcap=float("inf")), "softcap=inf"),
    "temperatures of other rows": (lambda: kernels.logprob_kl(X, Y, None, torch.ones(3, 2)), r"\(3, 2\), targets \(2, 3\)"),
    "a row at zero": (lambda: kernels.logprob_kl(X, Y, None, torch.tensor([[1, 1, 1], [1, 0.0, 1]])), "temperature=0.0 at flat position 4"),
    "learned temperatures": (lambda: kernels.logprob_kl(X, Y, None, torch.ones(2, 3, requires_grad=True)), "temperature requires grad"),
    "bias of another shape": (lambda: kernels.linear_logprob(H, W, Y, bias=torch.zeros(4)), r"bias is torch.float32 \(4,\): it must be torch.float32 \(5,\)"),
    "bias of another dtype": (lambda: kernels.linear_logprob(H, W, Y, bias=torch.zeros(5).half()), "bias is torch.float16"),
    "a reference's bias alone": (lambda: kernels.linear_logprob(H, W, Y, ref_bias=torch.zeros(5)), "without ref_hidden"),
    "a reference's bias of another shape": (lambda: kernels.linear_logprob(H, W, Y, ref_hidden=H, ref_bias=torch.zeros(6)), "ref_bias is"),
    "a reference's bias that learns": (lambda: kernels.linear_logprob(H, W, Y, ref_hidden=H, ref_bias=torch.zeros(5, requires_grad=True)), "detach them"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_errors_say_what_and_where(case):
    call, text = REFUSED[case]
    with pytest.raises(ValueError, match=text):
        call()
