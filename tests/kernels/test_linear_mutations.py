"""Wrong versions of the routes from hidden states must fail the comparison with float64 that the other tests rely on.

As test_kernel_mutations.py: the source text is edited, imported as a module of its own, and put in the place of the real
one. The check is a loss of all four scores whose gradient arrives scaled, over chunks that do not divide the tokens,
with ignored ones and a reference of its own width.

Faults that the tests once let through, and what catches each (a name in quotes is a mutant below or in
test_kernel_mutations.py; all of them run each time):

| fault | caught as |
|---|---|
| the default reference head is another | "the default reference head upside down" |
| ignore_index other than −100, `linear_logprob` | "kept tokens asked of -100 alone", "ignore_index of -100 alone" |
| the same, `linear_loss` | "ignore_index of -100 alone" of LOSS |
| autocast leaves the reference out | "autocast without the reference" |
| the reference's product though KL is unused | "the reference's product where no gradient of KL" |
| a chunk's product rounded before the fp32 sum | "products rounded before their sum" |
| dW summed in bf16, both forms, which share `Gradients` | "dW summed in the weight's dtype" |
| `linear_loss` without vocab_size, without logits_dtype | "vocab_size forgotten", "logits_dtype forgotten" |
| KL below 0, both backends | "KL below 0" twice |
| a row of −inf given a gradient, both backends | "a row of −inf given a gradient" twice |
| padding of an ignored row's gradient left as it was | "padding of an ignored row's gradient left" |
| 0·inf in a sum or a gradient, both backends | "0 · inf in the gradient" twice, "a probability that underflows kept" |
| a row idle because its level cancels | "a row idle though its entropy is asked for" twice |

Three more were of a form over shards of the head's rows, which is gone; one changed nothing: that KL is infinite either way.
"""

import contextlib

import pytest
import torch

import kernels
from kernels import linear
from support.linear_oracle import close, oracle, problem
from support.mutants import mutant

LINEAR = {
    "nothing": ("", ""),
    "dh not put back in its place": ("dh = dh.new_zeros(n, dh.shape[1]).index_copy_(0, kept, dh)",
                                     "dh = torch.cat([dh, dh.new_zeros(n - len(dh), dh.shape[1])])"),
    "dW of the last chunk alone": ("        total.addmm_(a, b)\n", "        torch.mm(a, b, out=total)\n"),
    "h of the first chunk in dW": ("accumulate(self.dw, dz.t(), self.h[chunk])", "accumulate(self.dw, dz.t(), self.h[: len(dz)])"),
    "targets of the first chunk": ("head.logits(chunk),\n                chosen[chunk]", "head.logits(chunk),\n                chosen[: len(chosen[chunk])]"),
    "the reference's logits from the policy's states": ("Head(ref_hidden, ref_weight,", "Head(hidden[:, :-5].contiguous(), ref_weight,"),
    "ignored incoming gradient": ("[None if g is None else g[chunk] for g in incoming]",
                                  "[None if g is None else g[chunk] * 0 + 1 for g in incoming]"),
    "temperature forgotten backward": ("scaling.of(chunk),\n            ignore_index", "Scaling(),\n            ignore_index"),
    "ignore_index of -100 alone": ("take(targets, kept)\n    scaling", "take(targets, kept)\n    ignore_index = -100\n    kept = None\n    chosen = targets.clamp(min=0)\n    scaling"),
    "kept tokens asked of -100 alone": ("(targets != ignore_index).nonzero()", "(targets != -100).nonzero()"),
    "autocast that rounds the logits": ("logits_dtype or hidden.dtype", "logits_dtype or given[0].dtype"),
    "products rounded before their sum": ("total.addmm_(a.to(total.dtype), b.to(total.dtype))", "total.add_(torch.mm(a, b).to(total.dtype))"),
    "bias forgotten": ("cpu_linear.linear(h, self.weight, self.bias)", "cpu_linear.linear(h, self.weight)"),
    "the reference's bias from the policy": ("Head(ref_hidden, ref_weight, ref_bias,", "Head(ref_hidden, ref_weight, bias,"),
    "db of the last chunk alone": ("self.db += dz.sum(", "self.db[:] = dz.sum("),
    "db summed in the weight's dtype": ("weight.new_zeros(len(weight), dtype=wide)", "weight.new_zeros(len(weight))"),
    "temperatures of the first chunk": ("scaling.of(chunk)", "scaling.of(slice(len(chosen[chunk])))"),
    "temperatures of ignored tokens kept": ("take(row_inverse, kept)", "row_inverse"),
    "dW summed in the weight's dtype": ("weight.new_zeros(weight.shape, dtype=wide)", "weight.new_zeros(weight.shape)"),
    "the reference's product where no gradient of KL": ("take(ref_hidden if g_kl is not None else None, kept)", "take(ref_hidden, kept)"),
}  # fmt: skip
ARGUMENTS = {  # of both forms
    "the default reference head upside down": ("ref_weight = weight.detach()", "ref_weight = weight.detach().flip(0)"),
    "autocast of float64": ("x is None or x.dtype == torch.float64", "x is None"),
    "autocast without the reference": ("map(autocast, (bias, ref_hidden, ref_weight, ref_bias))", "(bias, ref_hidden, ref_weight, ref_bias)"),
}  # fmt: skip
LOSS = {
    "nothing": ("", ""),
    "ignored incoming gradient": ("g.mul_(g_loss.to(g.dtype))", "g"),
    "data of the first chunk": ("[d[chunk] for d in data]", "[d[: len(d[chunk])] for d in data]"),
    "data of ignored tokens kept": ("[take(d, kept) for d in data]", "[d[: len(y)] for d in data]"),
    "loss of the last chunk alone": ("total += value", "total = value"),
    "scores not put back in their place": ("out.index_copy_(0, kept, torch.cat(pieces)) if kept is not None else out.copy_(torch.cat(pieces))",
                                           "out[: sum(map(len, pieces))] = torch.cat(pieces)"),
    "dh not put back in its place": ("sums.finished(len(hidden), kept)", "sums.finished(len(hidden), None if kept is None else kept.flip(0))"),
    "temperatures of the first chunk": ("part = scaling.of(chunk)", "part = scaling.of(slice(chunk.stop - chunk.start))"),
    "temperatures of ignored tokens kept": ("scaling if kept is None else scaling.of(kept)", "scaling"),
    "vocab_size forgotten": ("ref_weight, ref_bias, vocab_size, ignore_index)", "ref_weight, ref_bias, None, ignore_index)"),
    "ignore_index of -100 alone": ("kept_rows(rest.targets, ignore_index)", "kept_rows(rest.targets, -100)"),
    "logits_dtype forgotten": ("logits_dtype or hidden.dtype", "hidden.dtype"),
    "fp16 let through": ("torch.float16 in (given.hidden.dtype", "torch.float64 in (given.hidden.dtype"),
    "parameters of the loss let through": ("        refuse_others(value, leaves)\n", ""),
    "a gradient in the wrong place": ("(*grads, None)[:4]", "(grads[1], grads[0], *grads[2:], None)[:4]"),
}  # fmt: skip


def verify(score) -> None:
    """score(h, w, b, y, t, rh, rw, rb, weights) -> (loss, scores) against the float64 oracle, for which a bias is one more column
    of the head; each token has its temperature, and the loss is scaled by 3 on its way back."""
    h, w, rh, rw, y, weights = problem()
    gen = torch.Generator().manual_seed(4)
    b, rb, t, one = (
        torch.randn(len(w), generator=gen),
        torch.randn(len(w), generator=gen),
        0.5 + torch.rand(y.shape, generator=gen),
        torch.ones(*y.shape, 1),
    )
    columns = [torch.cat([a, c], -1) for a, c in ((h, one), (w, b[:, None]), (rh, one), (rw, rb[:, None]))]
    exact, dh, dw = oracle(*columns[:2], y, weights, t[..., None].double(), *columns[2:])
    h, w, b = h.requires_grad_(), w.requires_grad_(), b.requires_grad_()
    loss, s = score(h, w, b, y, t, rh, rw, rb, weights)
    kept = y != -100
    for name, want in exact.items():
        close(getattr(s, name)[kept], want, 3e-6)
    close(loss[None], sum((exact[n] * g.double()[kept]).sum() for n, g in zip(exact, weights, strict=True))[None], 1e-5)
    (3 * loss).backward()
    for have, want in ((h.grad, dh[..., :-1]), (w.grad, dw[:, :-1]), (b.grad, dw[:, -1])):
        close(have, 3 * want, 1e-5)


def verify_options(score, fused, accumulate) -> None:
    """What the options mean: of linear_logprob and linear_loss, each called as themselves."""
    h, w, rh, rw, y, weights = problem()
    total = lambda s, *g: sum(((1 + v) * g[0]).sum() for v in s if v is not None) if g else s.logprob.sum()  # noqa: E731
    # The reference's head is by default the policy's.
    half = (0.5 * h).contiguous()
    shared, given = (score(h, w, y, ref_hidden=half, ref_weight=x).kl for x in (None, w))
    assert torch.equal(shared, given) and bool((shared[y != -100] > 0).any())
    # Any value may mark the ignored; tokens that are marked otherwise are tokens.
    for mark in (-1, 7, 300):
        z = torch.where(y == -100, mark, torch.where(y == mark, 8, y))
        same = torch.where(z == mark, -100, z)
        assert torch.equal(score(h, w, z, ignore_index=mark).logprob, score(h, w, same).logprob)
        loss, scores = fused(h, w, z, total, weights[0], ignore_index=mark)
        want, _ = fused(h, w, same, total, weights[0])
        assert torch.equal(loss, want) and bool((scores.logprob[z == mark] == 0).all())
    # Rows of the head from vocab_size on do not exist.
    short = y.clamp(max=199)
    big = torch.cat([w[:200], 50 * w[200:]]).requires_grad_()
    loss, scores = fused(h, big, short, total, weights[0], vocab_size=200)
    close(scores.logprob, score(h, w[:200].contiguous(), short).logprob.double(), 1e-6)
    loss.backward()
    assert bool((big.grad[200:] == 0).all()) and bool((big.grad[:200] != 0).any())
    # Logits of a wider dtype than hidden are nearer the truth, in both.
    narrow, weight = (t.bfloat16() for t in (2 * h, w))
    truth = score(narrow.double(), weight.double(), y).logprob
    wide = score(narrow, weight, y, logits_dtype=torch.float32).logprob
    assert (wide - truth).abs().max() < 1e-4 < (score(narrow, weight, y).logprob - truth).abs().max()
    assert torch.equal(fused(narrow, weight, y, total, logits_dtype=torch.float32)[1].logprob, wide)
    # Autocast takes all four and leaves float64 alone; the product keeps the dtype that the states had before.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = score(h, w, y, ref_hidden=rh, ref_weight=rw)
        double = score(h.double(), w.double(), y.clamp(min=0)).logprob
        _, fused_cast = fused(h, w, y, total, ref_hidden=rh, ref_weight=rw)
    narrow, weight, ref, ref_weight = (t.bfloat16() for t in (h, w, rh, rw))
    by_hand = score(narrow, weight, y, ref_hidden=ref, ref_weight=ref_weight, logits_dtype=torch.float32)
    for have in (cast, fused_cast):
        assert all(torch.equal(a, b) for a, b in zip(have, by_hand, strict=True))
    assert torch.equal(double, score(h.double(), w.double(), y.clamp(min=0)).logprob)
    # 300 chunks of one token each: a sum in bf16 stops growing at 256 equal terms. One chunk: so does one of its product.
    N, V = 300, 16
    exact = torch.full((V, 8), -N / V).index_fill_(0, torch.tensor([0]), N - N / V)
    for chunk in (1, N):
        for route in ("score", "fused"):
            ones, zeros = torch.ones(N, 8).bfloat16(), torch.zeros(V, 8).bfloat16().requires_grad_()
            first = torch.zeros(N, dtype=torch.long)
            if route == "score":
                score(ones, zeros, first, chunk=chunk).logprob.sum().backward()
            else:
                fused(ones, zeros, first, total, chunk=chunk)[0].backward()
            assert torch.allclose(zeros.grad.float(), exact, rtol=2.0**-8)
    ones, zeros, b = (
        torch.ones(N, 8).bfloat16(),
        torch.zeros(V, 8).bfloat16(),
        torch.zeros(V).bfloat16().requires_grad_(),
    )
    score(ones, zeros, torch.zeros(N, dtype=torch.long), bias=b, chunk=1).logprob.sum().backward()
    assert torch.allclose(b.grad.float(), exact[:, 0], rtol=2.0**-8)
    gen = torch.Generator().manual_seed(3)  # unlike terms, where rounding a product before it is added shows
    a, b = (torch.randn(*shape, generator=gen).bfloat16() for shape in ((V, 64), (64, 8)))
    out = torch.zeros(V, 8)
    accumulate(out, a, b)
    close(out, a.double() @ b.double(), 1e-6)
    # What the loss may not depend on, and where its gradient would not hold.
    extra = torch.ones((), requires_grad=True)
    hidden, weight = h.clone().requires_grad_(), w.clone().requires_grad_()
    for call in (
        lambda: fused(hidden, weight, y, lambda s: extra * s.logprob.sum()),
        lambda: fused(hidden.half(), weight.half(), y, total),
    ):
        try:
            call()
        except (ValueError, TypeError):
            continue
        raise AssertionError("not refused")


@pytest.mark.parametrize("name", [*LINEAR, *ARGUMENTS])
def test_linear_logprob_mutated_is_caught(name, tmp_path):
    wrong = mutant(name, "kernels.linear", LINEAR.get(name, ("", "")), tmp_path)
    if name in ARGUMENTS:
        wrong.check_linear = mutant(name, "kernels.logits", ARGUMENTS[name], tmp_path).check_linear

    def score(h, w, b, y, t, rh, rw, rb, weights):
        s = wrong.linear_logprob(h, w, y, t, bias=b, ref_hidden=rh, ref_weight=rw, ref_bias=rb, chunk=10)
        return sum((v * g).sum() for v, g in zip(s, weights, strict=True)), s

    with contextlib.nullcontext() if name == "nothing" else pytest.raises((AssertionError, IndexError, RuntimeError)):
        verify(score)
        verify_options(wrong.linear_logprob, kernels.linear_loss, wrong.accumulate)
        verify_costs(wrong)


def verify_costs(module) -> None:
    """Ignored tokens cost no product; nor does the reference in a backward pass without a gradient for kl."""
    h, w, rh, rw, y, _ = problem()
    h.requires_grad_()
    z = torch.where(y == -100, 7, torch.where(y == 7, 8, y))
    formed, real = [], module.Head.logits
    module.Head.logits = lambda self, rows: (formed.append(len(self.hidden)), real(self, rows))[1]
    try:
        module.linear_logprob(h, w, z, ref_hidden=rh, ref_weight=rw, ignore_index=7).logprob.sum().backward()
    finally:
        module.Head.logits = real
    assert formed == 3 * [int((y != -100).sum())]  # policy and reference forward, policy backward


@pytest.mark.parametrize("name", LOSS)
def test_linear_loss_mutated_is_caught(name, tmp_path):
    wrong = mutant(name, "kernels.linear_loss", LOSS[name], tmp_path)
    combine = lambda s, *weights: sum((v * g).sum() for v, g in zip(s, weights, strict=True))  # noqa: E731

    def score(h, w, b, y, t, rh, rw, rb, weights):
        ref = {"ref_hidden": rh, "ref_weight": rw, "ref_bias": rb}
        return wrong.linear_loss(h, w, y, combine, *weights, temperature=t, bias=b, chunk=10, **ref)

    with contextlib.nullcontext() if name == "nothing" else pytest.raises((AssertionError, IndexError, RuntimeError)):
        verify(score)
        verify_options(kernels.linear_logprob, wrong.linear_loss, linear.accumulate)


def test_the_check_runs_over_chunks_that_do_not_divide_the_tokens():
    y = problem()[4]
    assert (y != -100).sum() % 10 != 0 and (y == -100).any()
