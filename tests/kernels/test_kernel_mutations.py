"""Every wrong kernel seen in public, written into ours, must fail the comparison that the other tests rely on.

Each mutation edits the source text of a backend, imports the result as a module of its own, and runs the check of
score_oracle.py with it. A mutation whose text is no longer found fails too: it would test nothing.
"""

import os
import warnings
from pathlib import Path

import pytest
import torch

import kernels
from kernels import ops, reference
from support.mutants import mutant
from support.score_oracle import check, noisy, rows

TORCH = {
    "nothing": ("", ""),
    "zero gradient": ("    p.scatter_(1, y, exact.mul_(inv_t)[:, None])", "    p.zero_()"),
    "zeroed non-target gradient": ("    p.scatter_(1, y, exact", "    p.zero_().scatter_(1, y, exact"),
    "dropped entropy gradient": (
        "    if g_h is not None:\n        touched",
        "    g_h = None\n    if g_h is not None:\n        touched",
    ),
    "phantom column": ("    log_s = log_sum(e, dead)", "    log_s = torch.log(log_sum(e, dead).exp() + (-top).exp())"),
    "ignored incoming gradient": (
        "    g_lp, g_lse, g_h, g_kl = incoming",
        "    g_lp, g_lse, g_h, g_kl = (g if g is None else g * 0 + 1 for g in incoming)",
    ),
    "off-by-one target": ("    n, y = len(x), y[:, None]", "    n, y = len(x), (y[:, None] + 1) % x.shape[-1]"),
    "off-by-one target forward": ("d.gather(-1, y[:, None])", "d.gather(-1, (y[:, None] + 1) % x.shape[-1])"),
    "temperature applied twice": (
        "    top, dead = row_max(x, dtype)\n",
        "    top, dead = row_max(x, dtype)\n    inv_t = inv_t * inv_t\n",
    ),
    "temperature twice backward": (
        "scratch, inv_t, first = Scratch(logits, vocab, zero.dtype), 1.0 / temperature, 0",
        "scratch, inv_t, first = Scratch(logits, vocab, zero.dtype), temperature**-2, 0",
    ),
    "temperature forgotten in the chain rule": ("p.mul_(factor.mul_(inv_t))", "p.mul_(factor)"),
    "KL the other way round": (
        "    kl = (cross / s - (log_s - ref_log_s))",
        "    cross = weighted(torch.exp(ref_d), -d, product)\n    kl = (cross / ref_log_s.exp() - (ref_log_s - log_s))",
    ),
    "max started at 0": ("    return top.masked_fill_(dead, 0), dead", "    return top.clamp_min_(0), dead"),
    "entropy without its mean": ("level = level - g_h * stats.entropy", "level = level"),
    "KL without its mean": ("level = level - g_kl * stats.kl", "level = level - 0 * stats.kl"),
    "swapped outputs' gradients": ("    g_lp, g_lse, g_h, g_kl = incoming", "    g_lse, g_lp, g_h, g_kl = incoming"),
    "log instead of log1p": ("return rest.log1p_()", "return (rest + 1).log_()"),
    "1 − p by subtraction": ("g_lp * torch.expm1(logp_y)", "g_lp * (logp_y.exp() - 1)"),
    "division before the maximum": (
        "    torch.sub(x, top[:, None], out=out)\n    return out if inv_temperature == 1.0 "
        "else out.mul_(inv_temperature)",
        "    top = top[:, None] * inv_temperature\n    return torch.sub(x * inv_temperature, top, out=out)",
    ),
}

TRITON = {
    "nothing": ("", ""),
    "zero gradient": ("dz = tl.where(column == y, at_target, p * factor)", "dz = p * 0"),
    "zeroed non-target gradient": (
        "tl.where(column == y, at_target, p * factor)",
        "tl.where(column == y, at_target, p * 0)",
    ),
    "dropped entropy gradient": (
        "torch.stack([g_lp, level, -g_h, *rows])",
        "torch.stack([g_lp, level, 0 * g_h, *rows])",
    ),
    "phantom column": (
        "x_next = tl.load(x_row + column, mask=column < vocab, other=-INF)\n        counted",
        "x_next = tl.load(x_row + column, mask=column < vocab, other=0.0)\n        counted",
    ),
    "ignored incoming gradient": (
        "(zero if g is None else g for g in incoming)",
        "(zero if g is None else zero + 1 for g in incoming)",
    ),
    "off-by-one target": ("column == y,", "column == y + 1,"),
    "off-by-one target forward": ("tl.where(inside, y, 0)).to", "tl.where(inside, (y + 1) % vocab, 0)).to"),
    "temperature applied twice": (
        "                vocab,\n                1.0 / temperature,",
        "                vocab,\n                1.0 / temperature**2,",
    ),
    "temperature twice backward": (
        "grad.shape[-1],\n            1.0 / temperature,",
        "grad.shape[-1],\n            1.0 / temperature**2,",
    ),
    "temperature forgotten in the chain rule": ("    level *= inv_t\n    slope *= inv_t * LN2", "    slope *= LN2"),
    "KL the other way round": (
        "        m_ref = -INF\n        more_ref",
        "        x_row, r_row = r_row, x_row\n        m_ref = -INF\n        more_ref",
    ),
    "max started at 0": ("    m = -INF\n", "    m = 0.0\n"),
    "entropy without its mean": ("g_lse - g_lp - g_h * stats.entropy", "g_lse - g_lp"),
    "KL without its mean": ("level = level - g_kl * stats.kl", "level = level - 0 * stats.kl"),
    "swapped outputs' gradients": ("g_lp, g_lse, g_h, g_kl = (zero", "g_lse, g_lp, g_h, g_kl = (zero"),
    "log instead of log1p": ("    return tl.where(r < 0.5, series, tl.log(1.0 + r))", "    return tl.log(1.0 + r)"),
    "1 − p by subtraction": ("    return tl.where(x > -0.5, near, 1.0 - tl.exp(x))", "    return 1.0 - tl.exp(x)"),
    "division before the maximum": (
        "bits = (counted - finite(m)) * scale",
        "bits = counted * scale - finite(m) * scale",
    ),
    "sums not moved to a new maximum": ("            sum_e *= decay\n", ""),
    "entropy not moved to a new maximum": ("decay * (sum_ed + shift * sum_e)", "decay * sum_ed"),
    "KL not moved to a new maximum": ("decay * (sum_ec + shift * sum_e)", "decay * sum_ec"),
    "KL not moved to a new reference maximum": ("                sum_ec -= shift * sum_e\n", ""),
    "first block only": ("for _ in range(0, vocab, BLOCK):", "for _ in range(0, 1, BLOCK):"),
}


def verify(backend: str) -> None:
    """A small batch of every kind of row, with reference, temperature and padded columns, in fp32."""
    V, kinds = 300, ("flat", "model", "peaked", "negative", "huge", "tied")
    x = rows(kinds, V, seed=3)
    x[1] = x[1].sort().values  # every block brings a new maximum
    y = torch.tensor([0, 7, 150, 299, 3, 8])
    limited = lambda x, y, r, t: kernels.logprob_kl(x, y, r, t, vocab_size=V, backend=backend)  # noqa: E731
    pad = lambda t: torch.cat([t, torch.full((len(t), 20), 3.0)], 1)  # noqa: E731

    def score(x, y, r, t):
        return limited(pad(x), y, None if r is None else pad(r), t)

    ref = noisy(x, 0.5)
    ref[2] = ref[2].sort().values
    check(score, x, y, ref, 0.7)
    check(score, x, y, None, 0.7)


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
    from kernels import triton_rows

    launched = TRITON[name][0] in Path(triton_rows.__file__).read_text()
    edits = [TRITON[name], ("", "")] if launched else [("", ""), TRITON[name]]
    wrong, programs = (
        mutant(name, f"kernels.triton_{part}", edit, tmp_path)
        for part, edit in zip(("rows", "kernels"), edits, strict=True)
    )
    wrong.forward_kernel, wrong.backward_kernel = programs.forward_kernel, programs.backward_kernel
    wrong.MAX_BLOCK = wrong.MAX_BLOCK_REF = 128  # three blocks a row
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
