"""sharded_linear_logprob on two gloo processes, each with its own tokens and rows of the head, against float64 in one."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

import kernels

V, CUT, H, T = 301, 120, 24, 0.7  # 120 and 181 rows
TOKENS = (9, 4)  # a rank's own
USED = (("logprob", "logsumexp", "entropy", "kl"), ("logprob",))  # scores in each rank's loss: the second uses fewer


def problem(dtype=torch.float32):
    gen = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=gen).to(dtype)  # noqa: E731
    hidden, weight, ref_hidden, ref_weight = draw(sum(TOKENS), H), draw(V, H), draw(sum(TOKENS), H), draw(V, H)
    targets = torch.randint(V, (sum(TOKENS),), generator=gen)
    targets[:3] = torch.tensor([0, CUT - 1, CUT])
    targets[5] = -100
    return hidden, weight, ref_hidden, ref_weight, targets


def share(x, rank):
    return x[: TOKENS[0]] if rank == 0 else x[TOKENS[0] :]


def loss_of(scores, rank):
    """A different weight for every token and score, so that an exchanged pair would show."""
    return sum((getattr(scores, name) * torch.linspace(k + 1, k + 2 + rank, TOKENS[rank])).sum() for k, name in enumerate(USED[rank]))


def work(rank: int, address: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    results = {}
    for dtype in (torch.float32, torch.bfloat16):
        hidden, weight, ref_hidden, ref_weight, targets = problem(dtype)
        rows = slice(0, CUT) if rank == 0 else slice(CUT, V)
        for chunk in (1000, 5):
            h, w = share(hidden, rank).clone().requires_grad_(), weight[rows].clone().requires_grad_()
            s = kernels.sharded_linear_logprob(h, w, share(targets, rank), T, vocab_start=rows.start, chunk=chunk, backend="torch",
                                               ref_hidden=share(ref_hidden, rank), ref_weight=ref_weight[rows])
            loss_of(s, rank).backward()
            results |= {f"{dtype} {chunk} {name}": getattr(s, name).detach().contiguous() for name in USED[0]}
            results |= {f"{dtype} {chunk} h": h.grad, f"{dtype} {chunk} w": w.grad}
        plain = kernels.sharded_linear_logprob(share(hidden, rank), weight[rows], share(targets, rank), T, vocab_start=rows.start)
        assert plain.kl is None
        results[f"{dtype} plain"] = plain.logprob.contiguous()
    save_file(results, f"{out}/{rank}.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, (f"file://{folder}/rendezvous", str(folder)), nprocs=2)
    return [load_file(folder / f"{r}.safetensors") for r in (0, 1)]


@pytest.mark.parametrize("chunk", [1000, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_scores_and_gradients_are_those_of_the_whole_head(found, dtype, tolerance, chunk):
    """fp32: 2e-6 of each tensor's norm. bf16: logits, dz and dh are rounded to 8 bits, as in linear_logprob: 1e-2."""
    hidden, weight, ref_hidden, ref_weight, targets = (x.double() if x.is_floating_point() else x for x in problem(dtype))
    hidden.requires_grad_()
    weight.requires_grad_()
    narrow = (lambda z: z) if dtype == torch.float32 else (lambda z: z + (z.to(dtype).double() - z).detach())  # a head in bf16
    logp = (narrow(hidden @ weight.T) / T).log_softmax(-1)
    logq = (narrow(ref_hidden @ ref_weight.T) / T).log_softmax(-1)
    counts = (targets != -100).double()
    whole = kernels.TokenScores(
        logp.gather(1, targets.clamp(min=0)[:, None])[:, 0] * counts, (narrow(hidden @ weight.T) / T).logsumexp(-1) * counts,
        -(logp.exp() * logp).sum(-1) * counts, (logp.exp() * (logp - logq)).sum(-1) * counts)
    sum(loss_of(kernels.TokenScores(*(share(x, r) for x in whole)), r) for r in (0, 1)).backward()
    for rank in (0, 1):
        for name in USED[0]:
            assert torch.allclose(found[rank][f"{dtype} {chunk} {name}"].double(), share(getattr(whole, name), rank), rtol=3e-6, atol=3e-6), name
        assert torch.equal(found[rank][f"{dtype} {chunk} logprob"], found[rank][f"{dtype} plain"]) or chunk == 5
    for key, exact in (("h", hidden.grad), ("w", weight.grad)):
        have = torch.cat([f[f"{dtype} {chunk} {key}"] for f in found]).double()
        assert have.shape == exact.shape and (have - exact).norm() < tolerance * exact.norm(), key
    assert not found[0][f"{dtype} {chunk} h"][5].any(), "an ignored token gets no gradient"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"hidden \(2, 3\) and weight \(5, 4\)"):
        kernels.sharded_linear_logprob(torch.zeros(2, 3), torch.zeros(5, 4), torch.zeros(2, dtype=torch.long), vocab_start=0)
    with pytest.raises(ValueError, match="at least one token"):
        kernels.sharded_linear_logprob(torch.zeros(0, 4), torch.zeros(5, 4), torch.zeros(0, dtype=torch.long), vocab_start=0)
