"""The operators as PyTorch's own machinery sees them: opcheck, torch.compile, autocast, CUDA graphs, recompilation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kernels
from kernels import linear, ops

ROOT = Path(__file__).parents[2]


def inputs(dtype=torch.float32, device="cpu", N=5, V=40):
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(N, V, generator=gen).to(dtype).to(device).requires_grad_()
    r = torch.randn(N, V, generator=gen).to(dtype).to(device)
    return x, torch.randint(V, (N,), generator=gen).to(device), r


# temperature and soft cap, and the temperatures of 5 rows in their place
SCALINGS = {"plain": (None, 0.7, 0.0), "rows, capped": (torch.tensor([0.5, 1.0, 2.0, 1.3, 0.7]).reciprocal(), 1.0, 4.0)}


@pytest.mark.parametrize(("with_ref", "scaling"), [(False, "plain"), (True, "rows, capped")])
def test_opcheck_of_the_row_operators(where, with_ref, scaling):
    backend, device = where
    x, y, r = inputs(device=device)
    scaled = [v.to(device) if isinstance(v, torch.Tensor) else v for v in SCALINGS[scaling]]
    args = (x, y, r if with_ref else None, *scaled, -100, 40, backend, False)
    torch.library.opcheck(ops.score_rows, args)
    stats = [s.detach() for s in ops.score_rows(*args)]
    one = torch.ones(5, device=device)
    incoming = (one, None, one, one if with_ref else None)
    grad = torch.empty_like(x)
    torch.library.opcheck(
        ops.score_rows_backward, (grad, x.detach(), y, args[2], stats, *incoming, *scaled, -100, 40, backend)
    )


@pytest.mark.parametrize("whole", [False, True])
def test_opcheck_of_the_linear_operators(where, whole):
    """Plain, and with everything an operator may be given."""
    backend, device = where
    gen = torch.Generator().manual_seed(0)
    h, w = (torch.randn(n, 8, generator=gen).to(device).requires_grad_() for n in (5, 40))
    b = torch.randn(40, generator=gen).to(device).requires_grad_() if whole else None
    y = torch.tensor([0, 5, -100, 39, 7], device=device)
    ref = [t.detach() * 0.9 for t in (h, w, b)] if b is not None else [None] * 3
    scaled = [
        v.to(device) if isinstance(v, torch.Tensor) else v for v in SCALINGS["rows, capped" if whole else "plain"]
    ]
    given = (h, w, b, y, *ref, scaled[0])
    rest = (*scaled[1:], -100, backend, torch.float32, 4)
    torch.library.opcheck(linear.linear_score_rows, (*given, *rest))
    stats = [s.detach() for s in linear.linear_score_rows(*given, *rest)]
    one = torch.ones(5, device=device)
    needed = [True, True, whole]
    given = [t if t is None else t.detach() for t in given]
    incoming = (one, None, one, one if whole else None)
    torch.library.opcheck(linear.linear_score_rows_backward, (needed, *given, stats, *incoming, *rest))


def test_the_operator_and_the_direct_route_agree(where):
    backend, device = where
    x, y, r = inputs(device=device)
    args = (x, y, r, None, 0.7, 0.0, -100, 40, backend, False)
    direct, operator = ops.ScoreRows.apply(*args), ops.score_rows(*args)
    assert all(torch.equal(a, b) for a, b in zip(direct, operator, strict=True))
    grads = [torch.autograd.grad(sum(v.sum() for v in out[:4]), x)[0] for out in (direct, operator)]
    assert torch.equal(*grads)


def test_the_interpreter_patched_once_a_launch_computes_the_same(monkeypatch):
    """tests/support/interpreter.py against Triton's own way; and its launches leave the language as they found it."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton runs compiled here; set TRITON_INTERPRET=1 for the interpreter")
    from triton import language
    from triton.runtime import interpreter

    def scores_and_gradient():
        x, y, r = inputs(V=300)
        s = kernels.logprob_kl(x, y, r, 0.7, backend="triton")
        return (*s, *torch.autograd.grad(sum(v.sum() for v in s), x))

    once = scores_and_gradient()
    assert not interpreter._patch_lang.launch.scopes and language.core.is_builtin(language.core.load)
    monkeypatch.setattr(interpreter, "_patch_lang", interpreter._patch_lang.every_call)
    assert all(torch.equal(a, b) for a, b in zip(once, scores_and_gradient(), strict=True))


def compiled_agrees(function, args, leaves, **options):
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, **options)
    want = function(*args)
    want_grads = torch.autograd.grad(want, leaves)
    have = compiled(*args)
    have_grads = torch.autograd.grad(have, leaves)
    assert torch.allclose(have, want, rtol=1e-6)
    for a, b in zip(have_grads, want_grads, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-8)


def loss_from_logits(x, y, r):
    s = kernels.logprob_kl(x * 2, y, r, 0.7)
    return (s.logprob.exp() - 0.1 * s.entropy + s.kl).sum()


def loss_from_hidden(h, w, y):
    s = kernels.linear_logprob(h * 2, w, y, 0.7)
    return (s.logprob.exp() - 0.1 * s.entropy).sum()


def test_torch_compile_keeps_one_graph_and_the_same_gradient():
    """aot_eager traces forward and backward through the fake implementations without needing a C++ compiler."""
    x, y, r = inputs()
    compiled_agrees(loss_from_logits, (x, y, r), (x,), backend="aot_eager")
    h, w = torch.randn(5, 8, requires_grad=True), torch.randn(40, 8, requires_grad=True)
    compiled_agrees(loss_from_hidden, (h, w, y), (h, w), backend="aot_eager")
    t, b = torch.linspace(0.5, 2, 5), torch.randn(40, requires_grad=True)
    rows = lambda x, t: kernels.logprob_kl(x * 2, y, r, t, softcap=3.0).kl.sum()  # noqa: E731
    compiled_agrees(rows, (x, t), (x,), backend="aot_eager")
    head = lambda h, b, t: kernels.linear_logprob(h * 2, w, y, t, bias=b, softcap=3.0).entropy.sum()  # noqa: E731
    compiled_agrees(head, (h, b, t), (h, b), backend="aot_eager")


def test_torch_compile_does_not_recompile_for_a_new_length():
    torch._dynamo.reset()
    seen = []

    def count(graph, _):
        seen.append(graph)
        return graph.forward

    compiled = torch.compile(lambda x, y: kernels.logprob_kl(x, y).logprob.sum(), dynamic=True, backend=count)
    for N in (5, 9, 17, 33):
        x, y, _ = inputs(N=N)
        assert torch.allclose(compiled(x, y), kernels.logprob_kl(x, y).logprob.sum())
    assert len(seen) == 1


def test_autocast_casts_the_product_and_nothing_after_it():
    gen = torch.Generator().manual_seed(0)
    h, w, y = torch.randn(5, 8, generator=gen), torch.randn(40, 8, generator=gen).requires_grad_(), torch.arange(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s = kernels.linear_logprob(h, w, y)
        logits = torch.nn.functional.linear(h, w)
        from_logits = kernels.logprob_kl(logits, y)
    want = kernels.logprob_kl(torch.nn.functional.linear(h.bfloat16(), w.bfloat16()), y)
    assert logits.dtype == torch.bfloat16 and s.logprob.dtype == torch.float32
    assert torch.equal(from_logits.logprob, want.logprob)
    # The states were fp32, so the product of bf16 keeps its fp32 accumulator where F.linear would round it.
    by_hand = kernels.linear_logprob(h.bfloat16(), w.bfloat16(), y, logits_dtype=torch.float32)
    assert torch.equal(s.logprob, by_hand.logprob)
    assert not torch.equal(s.logprob, kernels.linear_logprob(h, w, y).logprob)
    s.logprob.sum().backward()
    assert w.grad.dtype == torch.float32


def token_loss(s, g):
    return (s.logprob * g - 0.1 * s.entropy).sum()


def test_linear_loss_is_one_break_in_a_compiled_graph_and_gives_the_same_gradient():
    torch._dynamo.reset()
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    h, w, y = torch.randn(40, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True), torch.arange(40)
    g = torch.linspace(-1, 1, 40)
    step = lambda h, w: 2 * kernels.linear_loss(h * 2, w, y, token_loss, g, chunk=16)[0]  # noqa: E731
    want = torch.autograd.grad(step(h, w), (h, w))
    have = torch.autograd.grad(torch.compile(step, backend=count)(h, w), (h, w))
    assert len(graphs) == 2  # before and after
    assert all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(have, want, strict=True))


def test_autocast_of_linear_loss_is_that_of_linear_logprob():
    gen = torch.Generator().manual_seed(0)
    h, w = (torch.randn(n, 8, generator=gen).requires_grad_() for n in (40, 50))
    g, y = torch.linspace(-1, 1, 40), torch.arange(40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, s = kernels.linear_loss(h, w, y, token_loss, g, chunk=16)
        long = kernels.linear_logprob(h, w, y, chunk=16)
    assert s.logprob.dtype == loss.dtype == torch.float32 and torch.equal(s.logprob, long.logprob)
    short_grads, long_grads = (torch.autograd.grad(x, (h, w)) for x in (loss, token_loss(long, g)))
    for a, b in zip(short_grads, long_grads, strict=True):
        assert a.dtype == torch.float32 and torch.allclose(a, b, rtol=2e-2, atol=2e-2)


KEYS = """
import json, sys, types, torch
from contextlib import nullcontext
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature
from kernels import triton_rows
from kernels.reference import Scaling

class Recorder:
    def __init__(self, kernel):
        self.kernel, self.keys = kernel, set()
        target = make_backend(GPUTarget("cuda", 90, 32))
        self.bind = create_function_from_signature(kernel.signature, kernel.params, target)
    def __getitem__(self, grid):
        assert len(grid) == 1
        def launch(*args, **options):
            bound, specialization, options = self.bind(*args, **options)
            self.keys.add(str(specialization) + str({k: v for k, v in options.items() if k != "debug"}))
        return launch

triton_rows.forward_kernel, triton_rows.backward_kernel = forward, backward = (
    Recorder(triton_rows.forward_kernel), Recorder(triton_rows.backward_kernel))
counts = {}
for V in (512, 500, 501):  # divisible by 16, by 4, odd
    forward.keys.clear(); backward.keys.clear()
    for B, T in ((1, 1), (1, 7), (2, 8), (3, 5), (4, 16), (5, 31), (2, 64)):
        for temperature in (0.5, 0.7, 1.0, 2.0):
            whole = torch.zeros(B, T + 1, V, dtype=torch.bfloat16)
            x, y = whole[:, :-1], torch.zeros(B, T + 1, dtype=torch.long)[:, 1:].reshape(-1)
            stats = triton_rows.forward(x, y, None, Scaling(temperature), -100, V)
            grad = torch.empty(B, T, V, dtype=torch.bfloat16)
            triton_rows.backward(grad, x, y, None, stats, (stats.entropy, None, None, None), Scaling(temperature), -100, V)
    counts[V] = [len(forward.keys), len(backward.keys)]
print(json.dumps(counts))
"""


def test_one_compiled_variant_serves_every_length_and_temperature():
    """Triton's own specialisation key, computed without a GPU for what would have been launched."""
    env = {**os.environ, "TRITON_INTERPRET": "0"}
    result = subprocess.run([sys.executable, "-c", KEYS], cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == '{"512": [1, 1], "500": [1, 1], "501": [1, 1]}'


@pytest.mark.gpu
def test_compiled_on_a_gpu():
    x, y, r = inputs(device="cuda")
    compiled_agrees(loss_from_logits, (x, y, r), (x,))
    h, w = (torch.randn(n, 8, device="cuda", requires_grad=True) for n in (5, 40))
    compiled_agrees(loss_from_hidden, (h, w, y), (h, w))


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    x, y, r = inputs(device="cuda", N=64, V=5000)
    h, w = (torch.randn(n, 32, device="cuda", requires_grad=True) for n in (64, 5000))
    ones = torch.ones(64, device="cuda")

    def step():
        s, t = kernels.logprob_kl(x, y, r), kernels.linear_logprob(h, w, y)
        fused, _ = kernels.linear_loss(h, w, y, token_loss, ones)
        loss = s.logprob.sum() + s.kl.sum() + t.entropy.sum() + fused
        return (loss.detach(), *torch.autograd.grad(loss, (x, h, w)))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x += 1.5 * torch.randn_like(x)
        y.copy_(y.flip(0))
    graph.replay()
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(captured, step(), strict=True))


@pytest.mark.gpu
def test_lengths_on_a_gpu_share_one_compiled_variant():
    from kernels import triton_rows

    def variants():
        return sum(len(caches[0]) for caches in triton_rows.forward_kernel.device_caches.values())

    before = None
    for T in (1, 7, 8, 33, 64):
        x = torch.randn(3, T + 1, 1000, device="cuda", dtype=torch.bfloat16)
        kernels.logprob_kl(x[:, :-1], torch.zeros(3, T, dtype=torch.long, device="cuda"), temperature=0.5 + T / 10)
        before = variants() if before is None else before
    assert variants() == before
