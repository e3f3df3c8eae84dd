"""Wrong versions of the routes from hidden states must fail the comparison with float64 that the other tests rely on.

As test_kernel_mutations.py: the source text is edited, imported as a module of its own, and put in the place of the real
one. The check is a loss of all four scores whose gradient arrives scaled, over chunks that do not divide the tokens,
with ignored ones and a reference of its own width.
"""

import pytest

from support.linear_oracle import close, oracle, problem
from support.mutants import mutant

LINEAR = {
    "nothing": ("", ""),
    "dh not put back in its place": ("dh = torch.zeros_like(hidden).index_copy_(0, kept, dh)",
                                     "dh = torch.cat([dh, dh.new_zeros(len(hidden) - len(dh), dh.shape[1])])"),
    "dW of the last chunk alone": ("        total.addmm_(a, b)\n", "        torch.mm(a, b, out=total)\n"),
    "h of the first chunk in dW": ("spread(logits, h[chunk], weight,", "spread(logits, h[: len(logits)], weight,"),
    "targets of the first chunk": ("head.logits(chunk),\n                chosen[chunk]", "head.logits(chunk),\n                chosen[: len(chosen[chunk])]"),
    "the reference's logits from the policy's states": ("Head(ref_hidden, ref_weight, rows, logits_dtype)",
                                                        "Head(hidden[:, :-5].contiguous(), ref_weight, rows, logits_dtype)"),
    "ignored incoming gradient": ("[None if g is None else g[chunk] for g in incoming]",
                                  "[None if g is None else g[chunk] * 0 + 1 for g in incoming]"),
    "temperature forgotten backward": ("g[chunk] for g in incoming],\n            temperature",
                                       "g[chunk] for g in incoming],\n            1.0"),
}  # fmt: skip
LOSS = {
    "nothing": ("", ""),
    "ignored incoming gradient": ("g.mul_(g_loss.to(g.dtype))", "g"),
    "data of the first chunk": ("[d[chunk] for d in data]", "[d[: len(d[chunk])] for d in data]"),
    "data of ignored tokens kept": ("data = [take(d, kept) for d in data]", "data = [d[: len(y)] for d in data]"),
    "loss of the last chunk alone": ("total += value", "total = value"),
    "scores not put back in their place": ("out.index_copy_(0, kept, torch.cat(pieces)) if kept is not None else out.copy_(torch.cat(pieces))",
                                           "out[: sum(map(len, pieces))] = torch.cat(pieces)"),
    "dh not put back in its place": ("dh = torch.zeros_like(hidden).index_copy_(0, kept, dh)",
                                     "dh = torch.cat([dh, dh.new_zeros(len(hidden) - len(dh), dh.shape[1])])"),
    "a gradient in the wrong place": ("(*grads, None)[:4]", "(grads[1], grads[0], *grads[2:], None)[:4]"),
}  # fmt: skip


def verify(score) -> None:
    """score(h, w, y, rh, rw, weights) -> (loss, scores) against the float64 oracle, the loss scaled by 3 on its way back."""
    h, w, rh, rw, y, weights = problem()
    h, w = h.requires_grad_(), w.requires_grad_()
    loss, s = score(h, w, y, rh, rw, weights)
    exact, dh, dw = oracle(h, w, y, weights, 0.7, rh, rw)
    kept = y != -100
    for name, want in exact.items():
        close(getattr(s, name)[kept], want, 3e-6)
    close(loss[None], sum((exact[n] * g.double()[kept]).sum() for n, g in zip(exact, weights, strict=True))[None], 1e-5)
    (3 * loss).backward()
    close(h.grad, 3 * dh, 1e-5)
    close(w.grad, 3 * dw, 1e-5)


@pytest.mark.parametrize("name", LINEAR)
def test_linear_logprob_mutated_is_caught(name, tmp_path):
    wrong = mutant(name, "kernels.linear", LINEAR[name], tmp_path)

    def score(h, w, y, rh, rw, weights):
        s = wrong.linear_logprob(h, w, y, 0.7, ref_hidden=rh, ref_weight=rw, chunk=10)
        return sum((v * g).sum() for v, g in zip(s, weights, strict=True)), s

    if name == "nothing":
        verify(score)
    else:
        with pytest.raises(AssertionError):
            verify(score)


@pytest.mark.parametrize("name", LOSS)
def test_linear_loss_mutated_is_caught(name, tmp_path):
    wrong = mutant(name, "kernels.linear_loss", LOSS[name], tmp_path)
    combine = lambda s, *weights: sum((v * g).sum() for v, g in zip(s, weights, strict=True))  # noqa: E731

    def score(h, w, y, rh, rw, weights):
        return wrong.linear_loss(h, w, y, combine, *weights, temperature=0.7, ref_hidden=rh, ref_weight=rw, chunk=10)

    if name == "nothing":
        verify(score)
    else:
        with pytest.raises(AssertionError):
            verify(score)


def test_the_check_runs_over_chunks_that_do_not_divide_the_tokens():
    y = problem()[4]
    assert (y != -100).sum() % 10 != 0 and (y == -100).any()
