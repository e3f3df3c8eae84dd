"""Every wrong kernel seen in public, written into ours, must fail the comparison that the other tests rely on.

Each mutation edits the source text of a backend, imports the result as a module of its own, and runs the check of
score_oracle.py with it. A mutation whose text is no longer found fails too: it would test nothing.
"""

import importlib
import os
import warnings
from pathlib import Path

import pytest
import torch

import kernels
from kernels import ops, reference
from support.mutants import mutant
from support.score_oracle import check, exact_scores, noisy, rows

TORCH = {
    "nothing": ("", ""),
    "zero gradient": (
        "    e.scatter_(1, y, exact.mul_(inv_t))",
        "    e.zero_()",
    ),
    "zeroed non-target gradient": (
        "    e.scatter_(1, y, exact",
        "    e.zero_().scatter_(1, y, exact",
    ),
    "dropped entropy gradient": (
        "    g_lp, g_lse, g_h, g_kl = incoming",
        "    g_lp, g_lse, g_h, g_kl = *incoming[:2], None, incoming[3]",
    ),
    "phantom column": (
        "    log_s, s = rest.log1p()",
        "    rest = rest + (-top * inv_t).exp()\n    log_s, s = rest.log1p()",
    ),
    "ignored incoming gradient": (
        "    g_lp, g_lse, g_h, g_kl = incoming",
        "    g_lp, g_lse, g_h, g_kl = (g if g is None else g * 0 + 1 for g in incoming)",
    ),
    "off-by-one target": (
        "    e.scatter_(1, y, exact",
        "    e.scatter_(1, (y + 1) % x.shape[-1], exact",
    ),
    "off-by-one target forward": (
        "top, d_y = row_max(x), x.gather(1, y)",
        "top, d_y = row_max(x), x.gather(1, (y + 1) % x.shape[-1])",
    ),
    "temperature applied twice": (
        "    top, d_y = row_max(x), x.gather(1, y)\n",
        "    top, d_y, inv_t = row_max(x), x.gather(1, y), inv_t * inv_t\n",
    ),
    "temperature twice backward": (
        "    logp_y = log_prob_at(x, y, terms",
        "    inv_t = inv_t * inv_t\n    logp_y = log_prob_at(x, y, terms",
    ),
    "a temperature a row taken from the first rows": (
        "scaling.of(at)",
        "scaling.of(slice(len(targets[at])))",
    ),
    "the largest forgotten where it is not the target": (
        "        if len(at):\n",
        "        if len(at) == len(e):\n",
    ),
    "the target left out of the sum": (
        "torch.expm1(d_y).add_(",
        "torch.zeros_like(d_y).add_(",
    ),
    "cap's slope forgotten": (
        "        e.mul_(slope)",
        "        pass",
    ),
    "cap's slope at the target forgotten": (
        "        e.mul_(slope)",
        "        e.mul_(slope.scatter_(1, y, 1))",
    ),
    "cap's slope by subtraction": (
        "out.copy_(x).div_(softcap).cosh_().square_().reciprocal_()",
        "out.copy_(x).div_(softcap).tanh_().square_().neg_().add_(1)",
    ),
    "a reference without the cap": (
        "raised(ref, scaling.softcap, product)",
        "raised(ref, 0.0, product)",
    ),
    "a masked token capped": ("if bool(endless.any()) else out", "if False else out"),
    "a reference of −inf alone": (".masked_fill(endless, 0)  # −inf where", "  # −inf where"),
    "a finite mask of the reference taken at its word": (
        ".clamp_min_(NO_REFERENCE).masked_fill_(raw",
        ".masked_fill_(raw",
    ),
    "temperature forgotten in the chain rule": (
        ".mul_(scaling.inverse)  # 1 / (s·T)",
        "",
    ),
    "KL the other way round": (
        "    cross = weighted(e, torch.sub(d, product, out=d), product)\n",
        "    d, product, e, v = product.clone(), d.clone(), v.clone(), e.clone()\n    cross = weighted(e, torch.sub(d, product, out=d), product)\n",
    ),
    "max started at 0": (
        ".clamp_min_(torch.finfo(x.dtype).min)",
        ".clamp_min_(0)",
    ),
    "entropy without its mean": (
        "level = torch.addcmul(level, g_h, stats.entropy, value=-1)",
        "level = level",
    ),
    "KL without its mean": (
        "own = g_kl * stats.kl",
        "own = 0 * stats.kl",
    ),
    "swapped outputs' gradients": (
        "    g_lp, g_lse, g_h, g_kl = incoming",
        "    g_lse, g_lp, g_h, g_kl = incoming",
    ),
    "log instead of log1p": (
        "rest.log1p(), rest.add_(1)",
        "(rest + 1).log(), rest.add_(1)",
    ),
    "1 − p by subtraction": (
        "g_lp * logp_y.expm1_()",
        "g_lp * (logp_y.exp() - 1)",
    ),
    "KL below 0": (
        ".clamp_min_(0), top",
        ", top",
    ),
    "0 · inf in the gradient": (
        "        factor.masked_fill_(e == 0, 0)",
        "        factor",
    ),
    "a row of −inf given a gradient": (
        '& (table["log_s"] != torch.inf)',
        "",
    ),
    "a row idle though its entropy is asked for": (
        "for g in incoming if g is not None]",
        "for g in incoming if g is not None][:1]",
    ),
    "division before the maximum": (
        "    torch.sub(x, top, out=out)\n    return out if isinstance(inv_t, float) and inv_t == 1.0 else out.mul_(inv_t)",
        "    return torch.sub(x * inv_t, top * inv_t, out=out)",
    ),
}

TRITON = {
    "nothing": ("", ""),
    "zero gradient": ("    return p * factor\n", "    return p * 0\n"),
    "zeroed non-target gradient": (
        "tl.where(column == y_column, at_target, dz)",
        "tl.where(column == y_column, at_target, dz * 0)",
    ),
    "dropped entropy gradient": (
        "torch.stack([g_lp, level, -g_h, *rows])",
        "torch.stack([g_lp, level, 0 * g_h, *rows])",
    ),
    "phantom column": (
        "        x = logit(x_next, cap, CAPPED)\n",
        "        x = tl.where(column < end, logit(x_next, cap, CAPPED), 0.0)\n",
    ),
    "ignored incoming gradient": (
        "(zero if g is None else g for g in incoming)",
        "(zero if g is None else zero + 1 for g in incoming)",
    ),
    "off-by-one target": ("column == y_column,", "column == y_column + 1,"),
    "off-by-one target forward": ("tl.where(inside, y, 0))", "tl.where(inside, (y + 1) % vocab, 0))"),
    "temperature applied twice": (
        "                vocab,\n                scaling.inverse,",
        "                vocab,\n                scaling.inverse**2,",
    ),
    "temperature twice backward": (
        "grad.shape[-1],\n            scaling.inverse,",
        "grad.shape[-1],\n            scaling.inverse**2,",
    ),
    "temperature forgotten in the chain rule": ("    level *= inv_t\n    slope *= inv_t * LN2", "    slope *= LN2"),
    "KL the other way round": (
        "    scale = inv_t * LOG2E  # logits to bits",
        "    x_row, r_row = r_row, x_row\n    scale = inv_t * LOG2E",
    ),
    "a temperature a row taken from the first row": (
        "        inv_t = tl.load(inv_t + row)\n",
        "        inv_t = tl.load(inv_t)\n",
    ),
    "cap's slope forgotten": ("            dz *= cap_slope(x, cap)\n", "            dz *= 1.0\n"),
    "cap's slope at the target forgotten": ("        at_target *= cap_slope(x_y, cap)\n", "        at_target *= 1.0\n"),
    "a reference without the cap": (
        "            r = logit(r_next, cap, CAPPED)\n",
        "            r = r_next.to(tl.float32)\n",
    ),
    "the target not capped": ("(logit(x_y, cap, CAPPED) - m)", "(x_y - m)"),
    "the maximum's lane read again without the cap": (
        "own, end), cap, CAPPED)",
        "own, end), cap, False)",
    ),
    "the excluded logit without the cap": ("WIDTH, WHOLE), cap, CAPPED)", "WIDTH, WHOLE), cap, False)"),
    "max started at 0": ("    m = tl.full((LANES,), LOWEST, tl.float32)", "    m = tl.full((LANES,), 0.0, tl.float32)"),
    "entropy without its mean": ("g_lse - g_lp - g_h * stats.entropy", "g_lse - g_lp"),
    "KL without its mean": ("level = level - g_kl * stats.kl", "level = level - 0 * stats.kl"),
    "swapped outputs' gradients": ("g_lp, g_lse, g_h, g_kl = (zero", "g_lse, g_lp, g_h, g_kl = (zero"),
    "log instead of log1p": ("    return tl.where(r < 0.5, series, tl.log(1.0 + r))", "    return tl.log(1.0 + r)"),
    "1 − p by subtraction": ("    return tl.where(x > -0.5, near, 1.0 - tl.exp(x))", "    return 1.0 - tl.exp(x)"),
    "division before the maximum": (
        "logprob = (x_y - m_safe) * inv_t - log_s",
        "logprob = x_y * inv_t - m_safe * inv_t - log_s",
    ),
    "sums not moved to a new maximum": ("sum_e = factor * sum_e + lane_sum(e)", "sum_e = sum_e + lane_sum(e)"),
    "entropy not moved to a new maximum": ("sum_ed = factor * (sum_ed + shift * sum_e)", "sum_ed = factor * sum_ed"),
    "KL not moved to a new maximum": (
        "sum_ec = factor * (sum_ec + (shift - shift_ref) * sum_e)",
        "sum_ec = factor * (sum_ec - shift_ref * sum_e)",
    ),
    "KL not moved to a new reference maximum": (
        "sum_ec = factor * (sum_ec + (shift - shift_ref) * sum_e)",
        "sum_ec = factor * (sum_ec + shift * sum_e)",
    ),
    "lanes not moved to the row's maximum": (
        "tl.where(lane == owner, 0.0, factor * sum_e)",
        "tl.where(lane == owner, 0.0, sum_e)",
    ),
    "entropy of the lanes not moved to the row's maximum": (
        "tl.sum(factor * (sum_ed + shift * sum_e), 0) / s",
        "tl.sum(factor * sum_ed, 0) / s",
    ),
    "KL of the lanes not moved to the row's maxima": (
        "tl.sum(factor * (sum_ec + (shift - shift_ref) * sum_e), 0) / s",
        "tl.sum(factor * (sum_ec + shift * sum_e), 0) / s",
    ),
    "the maximum's lane summed with its maximum": (
        "beside = tl.where(lane == owner, 0.0, factor * sum_e)",
        "beside = tl.where(lane == owner, factor * sum_e - 1.0, factor * sum_e)",
    ),
    "the maximum's lane not read again": ("beside += lane_sum(", "beside += 0 * lane_sum("),
    "ties of the maximum forgotten": ("(tl.sum(maxima, 0) - 1.0)", "0 * tl.sum(maxima, 0)"),
    "first block only": (
        "    for _ in range(0, end, DEPTH * LANES * WIDTH):\n        x = logit(x_next",
        "    for _ in range(0, 1, DEPTH * LANES * WIDTH):\n        x = logit(x_next",
    ),
    "a reference's zero not looked for": ("if tl.min(least_ref, 0) == -INF:", "if tl.min(least_ref, 0) == INF:"),
    "a probability that underflows kept": (">= LEAST) & (kl == kl)", ">= -2000.0) & (kl == kl)"),
    "0 · inf in the gradient": ("return tl.where(p > 0, p * factor, p)", "return p * factor"),
    "padding of an ignored row's gradient left": (
        "zero_columns(g_row, 0, columns, LANES)",
        "zero_columns(g_row, 0, vocab, LANES)",
    ),
    "a row of −inf given a gradient": ("(y == ignore_index) | (log_s == INF) | still", "(y == ignore_index) | still"),
    "a row idle though its entropy is asked for": (" & (slope == 0) & (tilt == 0)", ""),
    "a move of the reference's maximum cut short": (
        "tl.maximum((old - new) * scale, NO_REF_BITS)",
        "tl.maximum((old - new) * scale, NO_BITS)",
    ),
    "KL below 0": ("kl = tl.where(kl < 0, 0.0, kl)", "kl = kl"),
    "a +inf of the reference unseen": (
        'tl.where(top == INF, float("nan"), rest)',
        "rest",
    ),
}


def verify(backend: str) -> None:
    """A small batch of every kind of row, with reference, temperature and padded columns, in fp32."""
    V, kinds = 300, ("flat", "model", "peaked", "negative", "huge", "tied")
    x = rows(kinds, V, seed=3)
    x[1] = x[1].sort().values  # every block brings a new maximum
    y = torch.tensor([0, 7, 150, 298, 3, 8])
    pad = lambda t: torch.cat([t, torch.full((len(t), 20), 3.0)], 1)  # noqa: E731

    def score(x, y, r, t):
        vocab = x.shape[-1]
        return kernels.logprob_kl(pad(x), y, None if r is None else pad(r), t, vocab_size=vocab, backend=backend)

    ref = noisy(x, 0.5)
    ref[2] = ref[2].sort().values
    check(score, x, y, ref, 0.7)
    check(score, x[:, :299], y, None, 0.7)  # an odd vocabulary: Triton's lanes take other columns
    check_scalings(backend)
    check_limits(backend)


def check_scalings(backend: str) -> None:
    """A soft cap and a temperature a row, where the cap bends little, much, and to its end."""
    x = torch.stack([torch.linspace(a, b, 80) for a, b in ((-0.01, 0.02), (-3, 9), (-12, 45), (0, 5), (5, -5))])
    x[3:] = rows(("model", "peaked"), 80, seed=5)
    y, t = torch.tensor([3, 79, 70, 7, 6]), torch.tensor([0.5, 2.0, 0.7, 1.0, 1.5], dtype=torch.float64)
    score = lambda x, y, r, t: kernels.logprob_kl(x, y, r, t, softcap=6.0, backend=backend)  # noqa: E731
    check(score, x, y, noisy(x, 0.3), t, softcap=6.0)
    # A row's temperature is its own where rows before it are left out, and where they have no gradient.
    leaf = x.clone().requires_grad_()
    one, two = score(leaf, y, None, t), score(leaf, y.masked_fill(y == 79, -100), None, t)
    assert torch.equal(one.logprob[2:], two.logprob[2:])
    whole, rest = (torch.autograd.grad(s.entropy[k:].sum(), leaf)[0][2:] for s, k in ((one, 0), (two, 2)))
    assert torch.allclose(whole, rest, rtol=1e-5, atol=1e-7)
    # −inf is no small logit: no token, and for the reference a token that the policy must not choose.
    r = x.clone()
    x[0, 9] = r[0, 9] = r[1, 9] = -torch.inf
    s = score(x, y, r, t)
    assert s.kl[0] == 0 and s.kl[1] == torch.inf
    far = x[1:2].clone()  # without the cap a token of no probability, with it one of 2e-6
    far[0, 9] = -1e4
    assert score(far, y[1:2], r[1:2], t[1:2]).kl == torch.inf


def check_limits(backend: str) -> None:
    """Rows with −inf and +inf, whose answers are in no float64 formula but in the page on kernels."""
    far, nothing = -0.7 * 110, -torch.inf  # at temperature 0.7 e^-110, which is 0 in fp32
    flat = torch.linspace(-1, 1, 300)
    x, r = flat.repeat(7, 1), (flat * 0.9).repeat(7, 1)
    r[0, 9] = nothing  # the reference rules out what the policy can do: KL is +inf and gives no gradient
    x[1, 9], r[1, 9] = far, nothing  # ... can do with a probability that is 0 in fp32, whether seen first or last
    x[2, 290], r[2, 290] = far, nothing
    x[3, 9] = r[3, 9] = nothing  # neither can
    r[4, 9] = torch.inf  # no distribution
    x[5], r[5] = torch.linspace(-3, 3, 300) ** 3, torch.linspace(-3, 3, 300) ** 3 + 16  # equal: 0 but for rounding
    r[6] = nothing  # rules out everything
    y, without = torch.zeros(7, dtype=torch.long), x.masked_fill(r == nothing, nothing)
    want = exact_scores(without[1:4], y[1:4], r[1:4], 0.7)[0][3]
    x.requires_grad_()
    kl = limits = kernels.logprob_kl(x, y, r, 0.7, backend=backend).kl
    assert kl[0] == kl[6] == torch.inf and kl[4].isnan() and bool(((kl[1:4] - want).abs() < 1e-6).all())
    assert 0 <= kl[5] < 2e-6
    check_zeros(backend)
    masked = (flat * 0.9).repeat(2, 1)
    masked[0, 8:12] = -1e9  # a piece of one lane: its reference maximum moves by all of 1e9
    masked[1, 8:12] = torch.finfo(torch.float32).min  # log q no lower than -1e25, though this over T is -inf in fp32
    want = exact_scores(flat.repeat(2, 1), y[:2], masked.double().clamp(min=-0.7e25), 0.7)[0][3]
    kl = kernels.logprob_kl(flat.repeat(2, 1), y[:2], masked, 0.7, backend=backend).kl
    assert torch.allclose(kl.double(), want, rtol=1e-5)
    z = rows(("model",) * 16, 300)  # equal but for a constant: rounding may not take it below 0
    kl = kernels.logprob_kl(z, y.new_zeros(16), z + torch.linspace(1, 9, 16)[:, None], backend=backend).kl
    assert bool((kl >= 0).all()) and bool((kl < 3e-6).all())
    there = [0, 1, 2, 3, 5, 6]
    (grad,) = torch.autograd.grad((1e20 * limits)[there].sum(), x)
    assert bool(grad[there].isfinite().all()) and bool((grad[[0, 6]] == 0).all())
    assert grad[1, 9] == 0 and grad[2, 290] == 0 and grad[3, 9] == 0


def check_zeros(backend: str) -> None:
    """Which gradients are 0, in memory that held something else before, and one that only looks like it."""
    x = torch.linspace(-1, 1, 4 * 300).sin().view(4, 300)
    x[2] = -torch.inf
    x.requires_grad_()
    logits = x * 1
    s = kernels.logprob_kl(logits, torch.tensor([5, -100, 7, 9]), vocab_size=290, inplace_grad=True, backend=backend)
    # In row 3 the sum of what comes in for p alone cancels: g_lse − g_H·H = 0.
    at = torch.tensor([1.0, 1.0, 1.0, 0.0])
    level = torch.tensor([0.0, 0.0, 0.0, 1.0])
    torch.autograd.backward((s.logprob, s.entropy, s.logsumexp), (at, level, level * s.entropy.detach()))
    grad = logits.detach()
    assert bool((grad[[1, 2]] == 0).all()) and bool((grad[:, 290:] == 0).all()) and torch.equal(x.grad, grad)
    assert bool((grad[0, :290] != 0).all()) and grad[3].abs().max() > 1e-4


@pytest.mark.parametrize("name", TORCH)
def test_the_pytorch_backend_mutated_is_caught(name, monkeypatch, tmp_path):
    wrong = mutant(name, "kernels.reference", TORCH[name], tmp_path)
    monkeypatch.setattr(ops, "implementation", lambda backend: wrong)
    if name == "nothing":
        verify("torch")
    else:
        with pytest.raises(AssertionError):
            verify("torch")


@pytest.mark.parametrize("name", TRITON)
def test_the_triton_backend_mutated_is_caught(name, monkeypatch, tmp_path):
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton runs compiled here; set TRITON_INTERPRET=1 for the interpreter")
    parts = [importlib.import_module(f"kernels.triton_{part}") for part in ("rows", "forward", "backward")]
    edited = next(part for part in parts if TRITON[name][0] in Path(part.__file__).read_text())
    wrong, forward, backward = (
        mutant(name, part.__name__, TRITON[name] if part is edited else ("", ""), tmp_path) for part in parts
    )
    wrong.forward_kernel, wrong.backward_kernel = forward.forward_kernel, backward.backward_kernel
    wrong.MAX_LANES = 32  # two to three rounds of pieces
    monkeypatch.setattr(ops, "implementation", lambda backend: wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about the infinities that mutants make
        if name == "nothing":
            verify("triton")
        else:
            with pytest.raises(AssertionError):
                verify("triton")


def test_the_issue_asks_for_these():
    """The list of the project's issue on kernels, word for word, is covered by both backends."""
    asked = {
        "zero gradient",
        "zeroed non-target gradient",
        "dropped entropy gradient",
        "phantom column",
        "ignored incoming gradient",
        "off-by-one target",
        "temperature applied twice",
        "KL the other way round",
        "max started at 0",
    }
    assert asked <= set(TORCH) and asked <= set(TRITON)
    assert reference.CHUNK_ELEMENTS > 300
