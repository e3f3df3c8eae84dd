"""Static shapes against the paged engine: the same tokens, whatever is shared, truncated, stopped, short of memory or reused."""

import math

import pytest
import torch

from models.lora import LoRAConfig, attach
from support.random_models import FIELDS
from support.tiny_models import family_tree, tiny
from tracelift.sampler import Sampler, SamplingParams
from tracelift.sampler.cuda_graphs import StaticDecoder, bucket

PARAMS = SamplingParams(n=2, max_new_tokens=36, seed=11)


def both(model, prompts, params, ends=(2,), **options):
    """(static, paged) answers."""
    return [Sampler(model, ends, 0, static=static, **options).generate(prompts, params) for static in (True, False)]


def same(static, paged):
    assert [[(a.tokens, a.finish_reason, a.stop_string) for a in g] for g in static] == [
        [(a.tokens, a.finish_reason, a.stop_string) for a in g] for g in paged
    ]
    for a, b in ((a, b) for g, h in zip(static, paged, strict=True) for a, b in zip(g, h, strict=True)):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert a.sampled_logprobs == pytest.approx(b.sampled_logprobs, abs=1e-4)


@pytest.mark.parametrize("family", FIELDS)
def test_the_same_tokens_as_the_paged_engine(family):
    same(*both(tiny(seed=5, **FIELDS[family]), family_tree(), PARAMS))


def test_each_row_its_own_parameters():
    prompts = family_tree()[:8]
    each = [
        SamplingParams(max_new_tokens=7, temperature=0),
        SamplingParams(max_new_tokens=33, temperature=0.5, seed=4, n=2),
        SamplingParams(max_new_tokens=1),
        SamplingParams(max_new_tokens=34, top_k=3, seed=2**64 - 1),
        SamplingParams(max_new_tokens=65, top_p=0.7),
        SamplingParams(max_new_tokens=20, min_p=0.2, temperature=1.5),
        SamplingParams(max_new_tokens=32, top_k=9, top_p=0.9, min_p=0.05, temperature=0.8),
        SamplingParams(max_new_tokens=2),
    ]
    same(*both(tiny(), prompts, each))


def test_stop_strings_no_end_token_and_many_end_tokens():
    model, prompts = tiny(), family_tree()[:6]
    p = SamplingParams(n=2, max_new_tokens=50, seed=1, stop=("ab", "q"))
    for ends in ((), (2, 3, 9, 40)):
        same(*both(model, prompts, p, ends, decode=lambda ids, **_: "".join(chr(97 + i % 26) for i in ids)))


@pytest.mark.parametrize("options", [dict(max_batch=5), dict(memory_bytes=3 * 2**20)], ids=str)
def test_small_batches_and_small_budgets(options):
    same(*both(tiny(), family_tree()[::2], SamplingParams(n=3, max_new_tokens=10, seed=11), **options))


def test_memory_and_steps_are_used_again_and_nothing_of_an_earlier_call_is_read():
    model, prompts = tiny(), family_tree()
    sampler, fresh = Sampler(model, {2}, 0, static=True), Sampler(model, {2}, 0, static=False)
    sampler.generate(prompts, PARAMS)
    store, steps = sampler._decoder.cache.keys, dict(sampler._decoder.steps)
    with torch.inference_mode():
        store.fill_(math.nan)  # what weights that had overflowed would have left behind
    same(sampler.generate(prompts, PARAMS), fresh.generate(prompts, PARAMS))
    assert sampler._decoder.cache.keys is store and sampler._decoder.steps == steps and steps
    few = SamplingParams(max_new_tokens=5)
    same(sampler.generate(prompts[:2], few), fresh.generate(prompts[:2], few))
    assert sampler._decoder.cache.keys is store
    longer = SamplingParams(n=6, max_new_tokens=90, seed=3)
    same(sampler.generate(prompts, longer), fresh.generate(prompts, longer))
    assert sampler._decoder.cache.keys is not store and not set(map(id, steps.values())) & set(
        map(id, sampler._decoder.steps.values())
    )


def test_changed_weights_take_effect_at_once():
    model, prompts = attach(tiny(seed=3), LoRAConfig(r=4), seed=1), family_tree()[:5]
    sampler = Sampler(model, (), 0, static=True)
    before = sampler.generate(prompts, PARAMS)
    with torch.no_grad():
        for name, w in model.named_parameters():
            if "lora_b" in name:
                w.normal_(generator=torch.Generator().manual_seed(2)).mul_(0.1)
    after = sampler.generate(prompts, PARAMS)
    assert after != before
    same(after, Sampler(model, (), 0, static=False).generate(prompts, PARAMS))
    model.model.norm.weight.data = model.model.norm.weight.data * 1.5  # elsewhere in memory
    same(sampler.generate(prompts, PARAMS), Sampler(model, (), 0, static=False).generate(prompts, PARAMS))


def test_buckets():
    assert [bucket(n) for n in range(1, 18)] == [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16, 24]
    assert all(n <= bucket(n) <= 1.5 * n for n in range(1, 3000))


def test_the_switch():
    sampler = Sampler(tiny(), {2}, 0)
    sampler.generate([[5]], SamplingParams(max_new_tokens=3))
    assert sampler._decoder.cache is None, "not on a CPU unless asked for"
    asked = Sampler(tiny(), {2}, 0, static=True)
    assert asked.generate([[5]], SamplingParams(max_new_tokens=3), keep_logits=True)[0][0].logits is not None
    assert asked._decoder.cache is None, "a step's logits are not kept there"


def test_too_small_a_budget_says_so():
    with pytest.raises(ValueError, match="longest request needs"):
        Sampler(tiny(), (), 0, static=True, memory_bytes=400_000).generate(family_tree(), PARAMS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recorded_graphs_replay_the_eager_step(dtype, monkeypatch):
    model, prompts = tiny(seed=5).to("cuda", dtype), family_tree()
    recorded = Sampler(model, {2}, 0)
    first, second = recorded.generate(prompts, PARAMS), recorded.generate(prompts, PARAMS)
    assert recorded._decoder.steps and all(s.replay is not s for s in recorded._decoder.steps.values())
    same(first, second)
    monkeypatch.setattr(StaticDecoder, "_record", lambda self, step: step)
    same(first, Sampler(model, {2}, 0).generate(prompts, PARAMS))
    if dtype is torch.float32:
        same(first, Sampler(model, {2}, 0, static=False).generate(prompts, PARAMS))
    with torch.no_grad():
        model.model.norm.weight.mul_(1.2)
    assert recorded.generate(prompts, PARAMS) != first
