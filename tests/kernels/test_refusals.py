"""What the kernels refuse, because the answer would be wrong without a word; and that they take what is right beside it."""

import pytest
import torch

import kernels


def row(*values):
    return torch.tensor([values])


Y = torch.tensor([0])


def inplace(logits, ref=None):
    return kernels.logprob_kl(logits, Y.expand(logits.shape[:-1]), ref, inplace_grad=True)


def base():
    return torch.randn(6, 40, generator=torch.Generator().manual_seed(0))


def test_an_inplace_gradient_over_the_references_memory_is_refused():
    logits = base().requires_grad_() * 1
    for ref in (logits.detach(), logits.detach()[:, :], logits.detach().view(-1).view(6, 40)):
        with pytest.raises(ValueError, match="share memory"):
            inplace(logits, ref)
    whole = torch.randn(12, 40, requires_grad=True) * 1
    inplace(whole[:6], whole.detach()[6:])  # one storage, no byte in common
    with pytest.raises(ValueError, match="share memory"):
        inplace(whole[:6], whole.detach()[5:11])
    other = inplace(logits, logits.detach().clone())
    (grad,) = torch.autograd.grad(other.kl.sum() + other.logprob.sum(), logits)
    plain = logits.detach().clone() if grad.data_ptr() != logits.data_ptr() else base()
    want = kernels.logprob_kl(leaf := plain.requires_grad_(), Y.expand(6), plain.detach().clone())
    assert torch.equal(grad, torch.autograd.grad(want.kl.sum() + want.logprob.sum(), leaf)[0])


def test_an_inplace_gradient_over_overlapping_rows_or_a_leaf_is_refused():
    long = torch.randn(60, requires_grad=True) * 1
    for view in (
        long.unfold(0, 40, 1),
        long.unfold(0, 40, 5),
        long[:40].expand(3, 40),
        long.as_strided((2, 2, 20), (10, 30, 1)),
    ):
        with pytest.raises(ValueError, match="overlapping"):
            inplace(view)
    for view in (long.unfold(0, 20, 20), long.view(3, 20)[::2], long.view(3, 2, 10).transpose(0, 1), long[None, :50]):
        inplace(view)
    with pytest.raises(ValueError, match="leaf"):
        inplace(base().requires_grad_())
    inplace(base())  # no gradient will be written


@pytest.mark.parametrize(
    "temperature", [torch.tensor(0.7, requires_grad=True), torch.nn.Parameter(torch.tensor([0.7]))]
)
def test_a_temperature_that_is_learned_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature requires grad"):
        kernels.logprob_kl(base(), Y.expand(6), temperature=temperature)
    with torch.no_grad():
        kernels.logprob_kl(base(), Y.expand(6), temperature=temperature)
    assert torch.equal(
        kernels.logprob_kl(base(), Y.expand(6), temperature=temperature.detach()).logprob,
        kernels.logprob_kl(base(), Y.expand(6), temperature=float(temperature)).logprob,
    )


def heads(dtype=torch.float32):
    gen = torch.Generator().manual_seed(1)
    return [torch.randn(n, 8, generator=gen).to(dtype).requires_grad_() for n in (6, 40)]


def test_a_loss_whose_other_parameters_would_get_no_gradient_is_refused():
    h, w = heads()
    coefficient = torch.tensor(0.1, requires_grad=True)
    weights = torch.ones(6, requires_grad=True)
    for loss in (
        lambda s: (coefficient * s.logprob).sum(),
        lambda s: (s.entropy / coefficient.exp()).sum() + s.logprob.sum(),
    ):
        with pytest.raises(ValueError, match=r"shape \(\) that requires grad"):
            kernels.linear_loss(h, w, Y.expand(6), loss)
        with torch.no_grad():
            kernels.linear_loss(h, w, Y.expand(6), loss)
    with pytest.raises(ValueError, match="data.0. requires grad"):
        kernels.linear_loss(h, w, Y.expand(6), lambda s, g: (s.logprob * g).sum(), weights)
    held = lambda s, g: (s.logprob * coefficient.detach() * g).sum()  # noqa: E731
    kernels.linear_loss(h, w, Y.expand(6), held, weights.detach())[0].backward()
    assert h.grad.abs().sum() > 0


def test_fp16_is_refused_where_its_gradient_would_be_rounded_away():
    """Loss 1e-7 scaled by 32,768: rounded before the scale, 62% of dh were zeros and the rest 44% off."""
    h, w = heads(torch.float16)
    loss = lambda s: 1e-7 * s.logprob.sum()  # noqa: E731
    with pytest.raises(TypeError, match="bfloat16, or linear_logprob"):
        kernels.linear_loss(h, w, Y.expand(6), loss)
    with pytest.raises(TypeError, match="fp16"):
        kernels.linear_loss(*heads(), Y.expand(6), loss, logits_dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.float16), pytest.raises(TypeError, match="fp16"):
        kernels.linear_loss(*heads(), Y.expand(6), loss)
    with torch.no_grad():
        kernels.linear_loss(h, w, Y.expand(6), loss)
    (32_768 * loss(kernels.linear_logprob(h, w, Y.expand(6)))).backward()  # what it names instead holds
    wide = [t.detach().double().requires_grad_() for t in (h, w)]
    (32_768 * loss(kernels.linear_logprob(*wide, Y.expand(6)))).backward()
    for have, want in zip((h, w), wide, strict=True):
        assert (have.grad - want.grad).abs().max() < 5e-3 * want.grad.abs().max()


def test_bf16_keeps_a_gradient_whose_loss_is_scaled_afterwards():
    h, w = heads(torch.bfloat16)
    loss, _ = kernels.linear_loss(h, w, Y.expand(6), lambda s: 1e-7 * s.logprob.sum())
    (65_536 * loss).backward()
    wide = [t.detach().double().requires_grad_() for t in (h, w)]
    (65_536e-7 * kernels.linear_logprob(*wide, Y.expand(6)).logprob.sum()).backward()
    for have, want in zip((h, w), wide, strict=True):
        assert (have.grad - want.grad).abs().max() < 3e-2 * want.grad.abs().max()


def test_autocast_leaves_float64_alone():
    h, w = heads(torch.float64)
    want = kernels.linear_logprob(h, w, Y.expand(6)).logprob
    with torch.autocast("cpu", dtype=torch.bfloat16):
        have = kernels.linear_logprob(h, w, Y.expand(6)).logprob
        fused = kernels.linear_loss(h, w, Y.expand(6), lambda s: s.logprob.sum())[1].logprob
        assert torch.nn.functional.linear(h, w).dtype == torch.float64  # as which it should be
    assert have.dtype == torch.float64 and torch.equal(have, want) and torch.equal(fused, want)
