"""What the sampler shares and what it holds: the prefix tree, pages and their merge, the memory budget."""

import itertools
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.config import ModelConfig
from models.transformer import Transformer
from support import ROOT
from tracelift.sampler import Sampler, SamplingParams
from tracelift.sampler import radix_tree as trie
from tracelift.sampler.attention import DecodeAttention, padded, partial_attention
from tracelift.sampler.budget import divide, page_bytes
from tracelift.sampler.kv_cache import MASKED, PAGE, PagedCache


def words(seed, count, depth):
    """Prompts over two letters: many nested and shared beginnings, one inside another."""
    draw = random.Random(seed)
    return sorted({tuple(draw.randrange(2) for _ in range(draw.randint(1, depth))) for _ in range(count)})


@pytest.mark.parametrize("seed", range(5))
def test_the_tree_spells_its_prompts(seed):
    prompts = words(seed, 60, 40) + [tuple([7] * 3000), tuple([7] * 2500)]
    random.Random(seed).shuffle(prompts)
    counts = [random.Random(seed + i).randint(1, 4) for i in range(len(prompts))]
    nodes = trie.build(prompts, counts)
    ends = {n.prompt: n for n in nodes if n.prompt is not None}
    assert sorted(ends) == list(range(len(prompts)))
    for i, node in ends.items():
        assert sum((n.tokens for n in node.path()), ()) == prompts[i]
        assert all(a.end == b.start for a, b in itertools.pairwise(node.path()))
    for at, node in enumerate(nodes):
        assert 0 < len(node.tokens) <= trie.MAX_TOKENS
        assert node.parent is None or nodes.index(node.parent) < at
        below = [i for i, leaf in ends.items() if node in leaf.path()]
        assert node.samples == sum(counts[i] for i in below)


def test_a_split_pays_or_is_not_made():
    long, short = tuple(range(100)), (5, 6)
    assert len(trie.build([long + (1,), long + (2,)], [1, 1])) == 3
    assert len(trie.build([short + (1,), short + (2,)], [1, 1])) == 2  # two common tokens are computed twice
    assert len(trie.build([long, long + (2,)], [1, 1])) == 2
    many = [(1, 2) + (i,) * 5 for i in range(3, 40)]
    assert len(trie.build(many, [1] * len(many))) == 1 + len(many)  # ... but not 37 times


def test_partial_attention_merges_to_exact_softmax_attention():
    """Random readers of random pages, against float64 softmax over each row's own keys laid end to end."""
    config = ModelConfig(10, 64, 64, 1, 4, 2, 16, 512)
    cache = PagedCache(config, [(1, 6), (2, 5), (8, 4)], torch.float32, torch.device("cpu"))
    gen = torch.Generator().manual_seed(0)
    for store in (cache.keys, cache.values):
        store.normal_(generator=gen)
    own, pair, all_ = cache.allocate(0, 5), cache.allocate(1, 4), cache.allocate(2, 2)
    rows = [[*all_, pair[0], own[0]], [*all_, pair[0], own[1], own[2]], [all_[0], pair[3], own[3]], [own[4]], []]
    filled = {p: int(torch.randint(1, PAGE, (1,), generator=gen)) for p in own + pair} | {p: PAGE for p in all_}
    for page, n in filled.items():
        cache.mask[page, :n] = 0.0
    attend = DecodeAttention(cache, rows, 8)
    page = torch.tensor([r[-1] if r else cache.groups[0].first + 5 for r in rows] + [cache.groups[0].first + 5] * 3)
    place = torch.tensor([filled[r[-1]] if r else 0 for r in rows] + [0] * 3)
    attend.write_at(page, place)
    q, k, v = (torch.randn(8, 1, n, 16, generator=gen) for n in (4, 2, 2))
    out = attend(0, q, k, v)
    assert out.isfinite().all()
    for i, pages in enumerate(rows):
        if not pages:
            continue
        length = [filled[p] + (j == len(pages) - 1) for j, p in enumerate(pages)]
        keys, values = (
            torch.cat([s[0, p, :, :n] for p, n in zip(pages, length, strict=True)], 1).double().repeat_interleave(2, 0)
            for s in (cache.keys, cache.values)
        )
        scores = (keys @ q[i, 0].double()[:, :, None])[..., 0] / 4.0
        exact = (scores.softmax(-1)[..., None] * values).sum(1)
        assert (out[i, 0] - exact).abs().max() < 2e-6
        assert torch.equal(keys[::2, -1].float(), k[i, 0]), "the new key is the last one read"


def test_partial_attention_on_other_devices_is_the_same_function():
    """The plain formula, which a GPU uses, beside the CPU's fused one."""
    gen = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(3, h, n, 16, generator=gen) for h, n in ((6, 5), (2, 9), (2, 9)))
    mask = torch.where(torch.rand(3, 1, 5, 9, generator=gen) < 0.4, MASKED, 0.0)
    mask[1, 0, 2] = MASKED  # a row that sees nothing stays finite, and its log-sum-exp tells that it weighs nothing
    out, lse = partial_attention(q, k, v, mask)
    plain, plain_lse = (t.to(torch.float32) for t in _formula(q.double(), k.double(), v.double(), mask.double()))
    seen = mask.amax(-1)[:, 0] == 0
    torch.testing.assert_close(out.transpose(1, 2)[seen], plain.transpose(1, 2)[seen])
    torch.testing.assert_close(lse.transpose(1, 2)[seen], plain_lse.transpose(1, 2)[seen])
    assert out.isfinite().all() and (lse.transpose(1, 2)[~seen] < -1e29).all()


def _formula(q, k, v, mask):
    k, v = (t.repeat_interleave(3, 1) for t in (k, v))
    scores = q @ k.transpose(-1, -2) / 4.0 + mask
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


@pytest.mark.parametrize("seed", range(20))
def test_dividing_the_budget(seed):
    draw = random.Random(seed)
    least = [draw.randint(0, 9) for _ in range(4)]
    wanted = [x + draw.randint(0, 50) for x in least]
    total = draw.randint(0, 150)
    got = divide(total, least, wanted)
    assert (got is None) == (sum(least) > total)
    if got is not None:
        assert all(a <= b <= c for a, b, c in zip(least, got, wanted, strict=True)) and sum(got) <= total
        assert got == wanted or sum(got) >= total - 4  # a short budget is used up


CONFIG = ModelConfig(97, 64, 96, 4, 8, 8, 32, 1536, norm_eps=1e-5)
BUDGET = 24 * 2**20


def hostile() -> tuple[list[list[int]], list[SamplingParams]]:
    """One long prompt, one long answer, and a crowd of short ones."""
    draw = random.Random(1)
    prompts = [[draw.randrange(4, 97) for _ in range(n)] for n in [1100, 5] + [draw.randint(3, 40) for _ in range(80)]]
    each = [SamplingParams(max_new_tokens=4), SamplingParams(max_new_tokens=120)]
    return prompts, each + [SamplingParams(max_new_tokens=draw.randint(1, 40)) for _ in prompts[2:]]


def test_a_small_budget_changes_nothing_but_the_batch():
    model = Transformer(CONFIG).init_weights(0, std=0.2)
    prompts, each = hostile()
    pages = sum(
        math.ceil(len(p) / PAGE) + math.ceil(e.max_new_tokens / PAGE) for p, e in zip(prompts, each, strict=True)
    )
    assert pages * page_bytes(model) > 2 * BUDGET, "the mix should not fit at once"
    tight = Sampler(model, {2}, 0, memory_bytes=BUDGET).generate(prompts, each)
    assert tight == Sampler(model, {2}, 0, memory_bytes=2**30).generate(prompts, each)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's resettable high-water mark")
def test_the_process_stays_under_the_budget():
    """Peak resident memory of a child process over what it held with the model loaded, cold and warm.

    A cold process pays three things once that no budget of ours can bound: pages of the libraries' code, read from their
    files; what oneDNN keeps for each pair of row count and weight shape (0.6 MB on an AVX-512 machine); and glibc's free
    lists. The first is told apart by the kernel, the second is counted, the third gets a tenth of the budget.
    """
    here = Path(__file__).resolve()
    code = f"""
import json, os, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}, {str(here.parent)!r}]
import torch
torch.set_num_threads(1)
from test_budget import CONFIG, BUDGET, hostile
from models import transformer
from tracelift.sampler import Sampler
model = transformer.Transformer(CONFIG).init_weights(0, std=0.2)
met, real = set(), transformer.linear
def counting(x, weight, bias=None):
    met.add((x.numel() // x.shape[-1], *weight.shape))
    return real(x, weight, bias)
transformer.linear = counting
def status(name):
    return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name + ":"))
def peak():  # bytes above what was resident, file pages left out
    open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts anew from what is resident now
    before, files = status("VmHWM"), status("RssFile")
    sampler.generate(prompts, each)
    return status("VmHWM") - before - (status("RssFile") - files)
prompts, each = hostile()
sampler = Sampler(model, (), 0, memory_bytes=BUDGET)
cold = peak()
print(json.dumps(dict(cold=cold, met=len(met), warm=[peak(), peak()])))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert max(found["warm"]) < BUDGET, found
    assert found["met"] < 60 and found["cold"] < 1.1 * BUDGET + found["met"] * 700_000, found


def test_products_come_in_few_row_counts():
    """oneDNN never forgets one: 48 counts up to a prefill's 2,048 rows, each a multiple of 8, at most an eighth too many."""
    counts = [padded(n) for n in range(1, 2049)]
    assert len(set(counts)) == 48 and max(counts) == 2048
    assert all(n <= p < n + 8 or n > 128 and n <= p < 1.125 * n for n, p in zip(range(1, 2049), counts, strict=True))
    assert all(p % 8 == 0 and padded(p) == p for p in counts)


def test_every_product_has_one_of_these_row_counts():
    model = Transformer(CONFIG).init_weights(0, std=0.2)
    seen, (prompts, each) = set(), hostile()
    handle = model.model.embed_tokens.register_forward_pre_hook(lambda _, args: seen.add(args[0].numel()))
    sampler = Sampler(model, (), 0, memory_bytes=BUDGET)
    sampler.generate(prompts[:30], each[:30])
    sampler.score(prompts[:30], [[5, 6, 7]] * 30, (2,))
    handle.remove()
    assert len(seen) > 4 and all(padded(n) == n for n in seen)


def test_a_budget_below_the_longest_request_says_how_much_is_missing():
    model = Transformer(CONFIG).init_weights(0)
    prompts, each = hostile()
    need = math.ceil(1104 / PAGE) * page_bytes(model)
    with pytest.raises(ValueError, match="longest request needs"):
        Sampler(model, (), 0, memory_bytes=need).generate(prompts, each)
