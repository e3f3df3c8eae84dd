"""Values and gradients of logprob_kl against float64, over vocabularies, dtypes, temperatures and kinds of rows."""

from functools import partial

import pytest
import torch

import kernels
from support.score_oracle import KINDS, check, exact_scores, noisy, rows


def scorer(backend, **options):
    return lambda x, y, r, t: kernels.logprob_kl(x, y, r, t, backend=backend, **options)


def pick_targets(x, seed=3):
    """Mostly likely tokens, as sampling gives them: every other row its best, the rest drawn at random."""
    random = torch.randint(x.shape[-1], (len(x),), generator=torch.Generator().manual_seed(seed))
    return torch.where(torch.arange(len(x)) % 2 == 0, x.float().argmax(-1), random)


LARGE = [129_920, 151_936, 262_144]


@pytest.mark.parametrize("V", [1, 2, 127, 128, 32_000, *LARGE])
def test_fp32_matches_float64_at_every_vocabulary(where, V):
    backend, device = where
    if backend == "triton" and device == "cpu" and V in LARGE:
        pytest.skip("a minute each under the interpreter: see the slow test")
    at_vocabulary(backend, device, V)


@pytest.mark.slow
@pytest.mark.parametrize("V", LARGE)
def test_fp32_matches_float64_at_large_vocabularies_under_the_interpreter(V):
    at_vocabulary("triton", "cpu", V)


def at_vocabulary(backend, device, V):
    x = rows(KINDS, V, seed=V)
    check(scorer(backend), x, pick_targets(x), noisy(x), temperature=0.7, device=device)


@pytest.mark.parametrize(("V", "temperature"), [(2, 0.1), (1000, 3.0), (5000, 1.0), (5000, 0.1)])
def test_without_a_reference_and_over_temperatures(where, temperature, V):
    backend, device = where
    x = rows(KINDS, V, seed=V + 1)
    check(scorer(backend), x, pick_targets(x), None, temperature, device=device)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("V", [128, 32_000])
def test_half_precision_costs_only_the_rounding_of_its_own_tensors(where, dtype, V):
    backend, device = where
    x = rows(KINDS, V, dtype=dtype, seed=V)
    check(
        scorer(backend),
        x,
        pick_targets(x),
        noisy(x),
        temperature=0.7,
        device=device,
        interpreted=where == ("triton", "cpu"),
    )


def test_targets_that_are_certain_keep_their_digits(where):
    """p = 1 − 1e-9: log p and 1 − p are far below the resolution of fp32 at 1, where log_softmax says 0."""
    backend, device = where
    x = torch.full((3, 300), -21.0)
    x[:, 7] = 0
    x[1, 200] = -15
    y = torch.tensor([7, 7, 200])
    check(scorer(backend), x, y, None, device=device)
    exact = exact_scores(x, y)[0]
    assert 0 > exact[0][0] > -1e-6 and torch.log_softmax(x, -1)[0, 7] > 0.9 * exact[0][0]
    assert exact[2][0] < 1e-4


def test_policy_far_from_its_reference(where):
    backend, device = where
    x, r = rows(("model",) * 4, 3000, seed=1), rows(("model", "flat", "peaked", "huge"), 3000, seed=2)
    check(scorer(backend), x, pick_targets(x), r, device=device)


def test_kl_of_equal_distributions_is_zero_and_of_near_ones_is_resolved(where):
    backend, device = where
    x = rows(("model",) * 8, 4000)
    y = torch.zeros(8, dtype=torch.long)
    same = kernels.logprob_kl(x.to(device), y.to(device), x.to(device).clone(), backend=backend)
    assert bool((same.kl < 3e-7).all())
    shifted = kernels.logprob_kl(x.to(device), y.to(device), x.to(device) + 16, backend=backend)
    assert bool((shifted.kl.abs() < 1e-6).all())
    near = noisy(x, 0.01)
    have = kernels.logprob_kl(x.to(device), y.to(device), near.to(device), backend=backend).kl.cpu().double()
    want = exact_scores(x, y, near)[0][3]
    assert bool((want > 1e-6).all()) and bool(((have - want).abs() < 3e-7).all())


def test_gradcheck_of_all_four_outputs():
    """float64 exists in the PyTorch backend so that finite differences can judge it."""
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(5, 7, dtype=torch.float64, generator=gen, requires_grad=True)
    r = torch.randn(5, 7, dtype=torch.float64, generator=gen)
    y = torch.tensor([0, 3, 6, 2, -100])
    for vocab in (None, 7):
        score = partial(kernels.logprob_kl, targets=y, ref_logits=r, temperature=0.7, vocab_size=vocab)
        assert torch.autograd.gradcheck(lambda x, score=score: tuple(score(x)), (x,))
    s = kernels.logprob_kl(x, y, r, 0.7)
    assert s.logprob.dtype == torch.float64


@pytest.mark.parametrize("case", ["first block", "middle block", "last block", "all but one", "every other", "target"])
def test_logits_of_minus_infinity(where, case):
    """V = 2900 is three of Triton's blocks; a public kernel gives NaN where the first is all −inf."""
    backend, device = where
    x = rows(("model", "negative", "tied"), 2900)
    r = noisy(x)
    y = torch.tensor([2600, 1100, 100])
    cut = {
        "first block": slice(0, 1024),
        "middle block": slice(1024, 2048),
        "last block": slice(2048, None),
        "every other": slice(0, None, 2),
        "all but one": slice(None),
        "target": slice(0, 0),
    }[case]
    keep = x.gather(1, y[:, None]), r.gather(1, y[:, None])
    x[:, cut], r[:, cut] = -torch.inf, -torch.inf
    if case == "target":
        x.scatter_(1, y[:, None], -torch.inf)
        have = kernels.logprob_kl(x.to(device), y.to(device), backend=backend)
        assert bool((have.logprob == -torch.inf).all()) and bool(have.entropy.isfinite().all())
        leaf = x.clone().to(device).requires_grad_()
        kernels.logprob_kl(leaf, y.to(device), backend=backend).logprob.sum().backward()
        want = torch.zeros_like(x).scatter(1, y[:, None], 1) - x.softmax(-1)
        assert torch.allclose(leaf.grad.cpu(), want, rtol=1e-4, atol=1e-9)
        return
    x.scatter_(1, y[:, None], keep[0])
    r.scatter_(1, y[:, None], keep[1])
    check(scorer(backend), x, y, r, 0.7, device=device)


def test_a_row_of_minus_infinity_alone(where):
    backend, device = where
    x = rows(("model",) * 3, 5000)
    x[1] = -torch.inf
    leaf, r = x.clone().to(device).requires_grad_(), noisy(x).to(device)
    s = kernels.logprob_kl(leaf, torch.tensor([1, 2, 3], device=device), r, backend=backend)
    assert s.logprob[1] == s.logsumexp[1] == -torch.inf and s.entropy[1] == 0 and s.kl[1] == 0
    sum(v[v.isfinite()].sum() for v in s).backward()
    assert bool((leaf.grad[1] == 0).all()) and bool(leaf.grad.isfinite().all()) and bool((leaf.grad[0] != 0).any())


def test_kl_is_infinite_where_the_reference_excludes_what_the_policy_does(where):
    backend, device = where
    x, r = rows(("model",) * 2, 5000), rows(("model",) * 2, 5000, seed=4)
    r[0, 4999] = -torch.inf
    leaf = x.clone().to(device).requires_grad_()
    s = kernels.logprob_kl(leaf, torch.tensor([1, 2], device=device), r.to(device), backend=backend)
    assert s.kl[0] == torch.inf and s.kl[1].isfinite()
    s.kl.sum().backward()
    assert bool((leaf.grad[0] == 0).all()) and bool((leaf.grad[1] != 0).any()) and bool(leaf.grad.isfinite().all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_plus_infinity_stay_in_their_row_and_show(where, bad):
    backend, device = where
    x = rows(("model",) * 3, 5000).to(device)
    y = torch.tensor([1, 2, 3], device=device)
    clean = kernels.logprob_kl(x, y, x.flip(1), backend=backend)
    ref = x.flip(1)
    x[1, 4500] = bad
    dirty = kernels.logprob_kl(x, y, ref, backend=backend)
    assert dirty.logprob[1].isnan() and dirty.entropy[1].isnan()
    for a, b in zip(clean, dirty, strict=True):
        assert a[0] == b[0] and a[2] == b[2]
