"""sharded_logprob_kl on two gloo processes against the whole vocabulary in one, float64 oracle included."""

import itertools
import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

import kernels
from kernels.sharded import merge_norm
from support.interpreter import patch_once_a_launch
from support.score_oracle import (
    KINDS,
    NAMES,
    check,
    exact_gradients,
    exact_scores,
    noisy,
    rows,
)

V, CUT = 301, 120  # shards of 120 and 181 columns, the second padded to 190


def batch():
    """Rows of every kind; then −inf all over shard 0, all over shard 1, all over, and all but one column."""
    x = rows((*KINDS, "model", "model", "model", "model"), V, seed=11)
    x[6, :CUT], x[7, CUT:], x[8], x[9] = (-torch.inf,) * 4
    x[9, 200] = 3.0
    y = torch.tensor([0, 119, 150, 300, 120, 200, 250, 7, 30, 200, -100])
    x = torch.cat([x, x[:1]])  # the last is ignored
    return x, y, noisy(x, 0.3)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """(folder, backends): what two ranks found, right shards and wrong ones, in two processes started once."""
    out = tmp_path_factory.mktemp("ranks")
    backends = ["torch", "triton"] if os.environ.get("TRITON_INTERPRET") == "1" else ["torch"]
    mp.spawn(work, (f"file://{out}/rendezvous", str(out), backends), nprocs=2)
    return out, backends


def work(rank: int, address: str, out: str, backends: list[str]) -> None:
    wait = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2, timeout=wait)
    if "triton" in backends:
        patch_once_a_launch()
    score(rank, out, backends)
    refuse(rank, out)
    dist.destroy_process_group()


def score(rank: int, out: str, backends: list[str]) -> None:
    x, y, ref = batch()
    start, stop = ((0, CUT), (CUT, V))[rank]
    cut = lambda t: torch.nn.functional.pad(t[:, start:stop], (0, 9 * rank), value=50.0)  # noqa: E731
    shard = cut(x).requires_grad_()
    results = {}
    for backend in backends:
        for name, reference in ((f"{backend} ref", cut(ref)), (f"{backend} plain", None)):
            s = kernels.sharded_logprob_kl(
                shard, y, reference, 0.7, vocab_start=start, shard_vocab_size=stop - start, backend=backend
            )
            for k, v in enumerate(s):
                if v is not None:
                    weights = torch.linspace(0.5, 2, len(y))
                    grad = torch.autograd.grad((v * weights)[v.isfinite()].sum(), shard, retain_graph=True)[0]
                    results[f"{name} {k}"], results[f"{name} {k} gradient"] = v.detach(), grad
    save_file(results, f"{out}/{rank}.safetensors")


def test_two_ranks_give_what_one_gives(ranks):
    out, backends = ranks
    left, right = (load_file(out / f"{r}.safetensors") for r in (0, 1))
    x, y, ref = batch()
    weights, still = torch.linspace(0.5, 2, len(y)), torch.tensor([8, 10])  # a row of −inf, an ignored row
    for backend, (name, reference) in itertools.product(backends, (("ref", ref), ("plain", None))):
        whole = kernels.logprob_kl(x, y, reference, 0.7, backend="torch")
        _, logp, logq = exact_scores(x, y.clamp(min=0), reference, 0.7)
        grads, sizes = exact_gradients(logp, logq, y.clamp(min=0), 0.7)
        for k, field in enumerate(NAMES[: 3 if reference is None else 4]):
            key = f"{backend} {name} {k}"
            have = left[key]
            assert torch.equal(have, right[key]), "ranks must agree bitwise"
            assert torch.allclose(have, whole[k], rtol=2e-6, atol=1e-6), (name, field, have, whole[k])
            grad = torch.cat([left[f"{key} gradient"], right[f"{key} gradient"]], 1)
            assert bool((grad[:, V:] == 0).all()), "padding of the last shard got a gradient"
            assert bool((grad[still] == 0).all()), "a row without probability, or ignored, got a gradient"
            error = (grad[:, :V].double() - weights[:, None] * grads[field]).abs().index_fill(0, still, 0)
            slack = (2e-5 * weights[:, None] * sizes[field] + 1e-36).index_fill(0, still, 1)
            assert bool((error <= slack).all()), (name, field, (error / slack).amax(-1))


LAYOUTS = {  # (start, stop, columns that count) of each rank, and what every rank is told
    "an empty shard": (((0, 120, None), (120, 301, 0)), "0 columns"),
    "a shard of no columns": (((0, 301, None), (301, 301, None)), "0 columns"),
    "shards that overlap": (((0, 150, None), (120, 301, None)), "end to end"),
    "a gap": (((0, 100, None), (120, 301, None)), "end to end"),
    "both the same": (((0, 120, None), (0, 120, None)), "end to end"),
}


def refuse(rank: int, out: str) -> None:
    """In a group of its own: layouts that ranks agreed on in a group are not asked for again there."""
    x, y, _ = batch()
    group = dist.new_group(timeout=timedelta(seconds=60))
    told = {}
    for name, (shards, _) in LAYOUTS.items():
        start, stop, size = shards[rank]
        try:
            kernels.sharded_logprob_kl(x[:, start:stop], y, vocab_start=start, shard_vocab_size=size, group=group)
        except ValueError as error:
            told[name] = str(error)
    Path(out, f"{rank}.json").write_text(json.dumps(told))


def test_a_wrong_shard_is_an_error_on_every_rank_and_leaves_none_waiting(ranks):
    out, _ = ranks
    for rank in (0, 1):
        told = json.loads((out / f"{rank}.json").read_text())
        assert set(told) == set(LAYOUTS)
    first = json.loads((out / "1.json").read_text())
    assert all(part in first[name] for name, (_, part) in LAYOUTS.items())


def test_one_rank_is_the_whole(tmp_path):
    """World size 1: the merge must be the identity, judged element by element by the float64 oracle."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        x = rows(KINDS, V, seed=2)
        y = torch.arange(len(KINDS)) * 50
        score = lambda x, y, r, t: kernels.sharded_logprob_kl(x, y, r, t, vocab_start=0)  # noqa: E731
        check(score, x, y, noisy(x), 0.7)
        capped = lambda x, y, r, t: kernels.sharded_logprob_kl(x, y, r, t, vocab_start=0, softcap=5.0)  # noqa: E731
        check(capped, x, y, noisy(x), torch.linspace(0.5, 2, len(x)).double(), softcap=5.0)
        with pytest.raises(IndexError, match="target 301 at flat position 0"):
            kernels.sharded_logprob_kl(x, y + 301, vocab_start=0)
        with pytest.raises(ValueError, match=r"rank 0 holds columns \[5, 306\), expected from 0 on"):
            kernels.sharded_logprob_kl(x, y, vocab_start=5)
    finally:
        dist.destroy_process_group()


def test_merge_of_many_shards_has_the_digits_of_one():
    x = rows(KINDS, 1024, seed=4)
    tops, sums = [], []
    for part in x.split(128, dim=-1):
        tops.append(part.amax(-1))
        sums.append((part - tops[-1][:, None]).double().exp().sum(-1).log().float())
    ones = torch.ones(len(x))
    each = merge_norm(torch.stack(tops), torch.stack(sums), ones)
    m, log_s, log_w = merge_norm(torch.stack(tops), torch.stack(sums), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(each, (m, log_s, log_w), strict=True))
    lse = exact_scores(x, torch.zeros(len(x), dtype=torch.long))[0][1]
    assert torch.allclose((m + log_s).double(), lse, rtol=3e-7, atol=1e-6)
    assert torch.allclose(log_w.exp().sum(0), torch.ones(len(x)), atol=1e-6)
