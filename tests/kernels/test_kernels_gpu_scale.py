"""What only a GPU can show: sizes beyond 2³¹ elements and 65,535 rows, peak memory, and the scores of real shapes."""

import pytest
import torch

import kernels

pytestmark = pytest.mark.gpu


def rows_of(x, index):
    return x[index].double()


def test_offsets_beyond_two_to_the_31():
    """16,384 rows × 151,936 columns = 2.5e9 elements: 32-bit offsets wrap near row 14,134."""
    N, V = 16_384, 151_936
    x = torch.empty(N, V, device="cuda", dtype=torch.bfloat16)
    for part in x.split(1024):
        part.normal_()
    y = torch.randint(V, (N,), device="cuda")
    leaf = x.requires_grad_()
    s = kernels.logprob_kl(leaf, y)
    (grad,) = torch.autograd.grad(s.logprob.sum(), leaf)
    for i in (0, 14_133, 14_134, 14_135, N - 1):
        want = rows_of(x.detach(), i).log_softmax(-1)
        assert abs(s.logprob[i].item() - want[y[i]].item()) < 1e-5 * abs(want[y[i]].item())
        exact = -want.exp()
        exact[y[i]] += 1
        assert torch.allclose(grad[i].double(), exact, rtol=2.0**-8 * 1.01, atol=1e-12)


@pytest.mark.parametrize("N", [65_535, 65_536, 200_001])
def test_more_rows_than_a_second_grid_dimension_holds(N):
    x = torch.randn(N, 257, device="cuda", requires_grad=True)
    y = torch.randint(257, (N,), device="cuda")
    s = kernels.logprob_kl(x, y)
    s.logprob.sum().backward()
    want = torch.log_softmax(x.detach().double(), -1).gather(1, y[:, None])[:, 0]
    assert torch.allclose(s.logprob.double(), want, rtol=1e-6, atol=1e-6)
    assert torch.allclose(x.grad.sum(-1), torch.zeros(N, device="cuda"), atol=1e-5)


def test_targets_outside_the_vocabulary_answer_nan_and_read_nothing_else():
    x = torch.randn(4, 100, device="cuda")
    s = kernels.logprob_kl(x, torch.tensor([5, 100, -7, 10**12], device="cuda"))
    assert s.logprob.isnan().tolist() == [False, True, True, True] and bool(s.entropy.isfinite().all())


def test_linear_logprob_keeps_to_its_chunk():
    N, H, V, chunk = 8192, 1024, 131_072, 1024
    h = torch.randn(N, H, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    w = (0.02 * torch.randn(V, H, device="cuda", dtype=torch.bfloat16)).requires_grad_()
    y = torch.randint(V, (N,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kernels.linear_logprob(h, w, y, chunk=chunk).logprob.sum().backward()
    peak = torch.cuda.max_memory_allocated() - before
    chunk_bytes, gradients = 2 * chunk * V, 2 * h.numel() + (4 + 2) * w.numel()
    assert peak < chunk_bytes + gradients + 64 * 2**20


def test_inplace_gradient_allocates_no_second_matrix():
    x = torch.randn(512, 151_936, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    logits = x * 1
    s = kernels.logprob_kl(logits, torch.zeros(512, dtype=torch.long, device="cuda"), inplace_grad=True)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.autograd.grad(s.logprob.sum(), logits)
    assert torch.cuda.max_memory_allocated() - before < logits.nbytes // 4
