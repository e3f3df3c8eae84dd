"""The sampler against transformers' `generate`, one full forward pass, and itself in other company."""

import copy
import math
import random

import pytest
import torch

import models
from models.lora import LoRAConfig, attach, merge_and_unload
from support.random_models import FIELDS
from support.tiny_models import VOCAB, family_tree, tiny
from tracelift.sampler import Sampler, SamplingParams
from tracelift.sampler.scheduler import DRAWS


@pytest.fixture(scope="module")
def model():
    return tiny()


PARAMS = SamplingParams(n=3, max_new_tokens=40, seed=11)


# ---- against other implementations ----


@pytest.mark.parametrize("family", FIELDS)
def test_greedy_equals_transformers_generate(family, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = tiny(seed=5, **FIELDS[family])
    models.save_pretrained(ours, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    theirs.generation_config.eos_token_id, theirs.generation_config.pad_token_id = 2, 0
    prompts = family_tree()[:9]
    answers = Sampler(ours, {2}, 0).generate(prompts, SamplingParams(max_new_tokens=24, temperature=0))
    for prompt, (answer,) in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        out = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        assert answer.tokens == out[0, len(prompt) :].tolist()


def test_frequencies_of_a_whole_generation_match_the_models_own_probabilities(model):
    """Two tokens deep: exact joint law from full forward passes, thousands of samples of one shared prompt."""
    prompt, n = [7, 9, 11], 4000
    p = SamplingParams(n=n, max_new_tokens=2, temperature=0.8, top_k=3, seed=1)
    (answers,) = Sampler(model, (), 0).generate([prompt], p)
    counts: dict[tuple[int, ...], int] = {}
    for a in answers:
        counts[tuple(a.tokens)] = counts.get(tuple(a.tokens), 0) + 1

    def top3(ids):
        with torch.no_grad():
            scores = model.logits(model(torch.tensor([ids])))[0, -1].double() / 0.8
        best = scores.topk(3)
        return dict(zip(best.indices.tolist(), best.values.softmax(0).tolist(), strict=True))

    law = {(a, b): pa * pb for a, pa in top3(prompt).items() for b, pb in top3(prompt + [a]).items()}
    assert set(counts) <= set(law)
    g = 2 * sum(k * math.log(k / (n * law[t])) for t, k in counts.items())
    assert g < 37.3  # chi-square with 8 degrees of freedom, 1 in 100,000


@pytest.mark.parametrize(
    "options", [dict(), dict(temperature=0.6), dict(top_p=0.8, temperature=1.3), dict(temperature=0)]
)
def test_log_probabilities_equal_those_of_one_full_forward_pass(model, options):
    prompts = family_tree()
    p = SamplingParams(n=2, max_new_tokens=70, seed=3, **options)
    answers = Sampler(model, {2}, 0).generate(prompts, p, keep_logits=True)
    wide = copy.deepcopy(model).double()
    for prompt, group in zip(prompts, answers, strict=True):
        for a in group:
            with torch.no_grad():
                exact = wide.logits(wide(torch.tensor([prompt + a.tokens])))[0, len(prompt) - 1 : -1]
            assert (a.logits - exact).abs().max() < 2e-4 * exact.abs().max()
            scores = (exact / p.score_temperature).log_softmax(-1)
            want = scores.gather(1, torch.tensor(a.tokens)[:, None])[:, 0]
            got = torch.tensor(a.logprobs, dtype=torch.float64)
            assert (got - want).abs().max() < 2e-4
            if p.greedy:
                assert a.sampled_logprobs == [0.0] * len(a.tokens)
                assert all(a.logits.argmax(-1) == torch.tensor(a.tokens))
            elif not p.truncates:
                assert a.sampled_logprobs == a.logprobs
            else:
                assert all(s >= w for s, w in zip(a.sampled_logprobs, a.logprobs, strict=True))
                mass = [math.exp(w - s) for s, w in zip(a.sampled_logprobs, a.logprobs, strict=True)]
                assert all(0.8 - 1e-5 <= m <= 1 + 1e-5 for m in mass)  # what top-p 0.8 must at least have kept


# ---- the same request in other company ----


def test_every_request_alone_gives_the_same_bits(model):
    """Tokens and log-probabilities, in fp32: shared against unshared prefixes, other batch sizes, other pages."""
    prompts = family_tree()
    together = Sampler(model, {2}, 0).generate(prompts, PARAMS)
    assert len({len(a.tokens) for group in together for a in group}) > 3, "lengths should be uneven"
    for prompt, group in zip(prompts, together, strict=True):
        assert Sampler(model, {2}, 0).generate([prompt], PARAMS) == [group]


@pytest.mark.parametrize("max_batch", [1, 5, 12])
def test_order_subset_and_batch_size_do_not_matter(model, max_batch):
    prompts = family_tree()
    together = Sampler(model, {2}, 0).generate(prompts, PARAMS)
    some = list(range(len(prompts)))
    random.Random(max_batch).shuffle(some)
    some = some[: 2 + max_batch]
    again = Sampler(model, {2}, 0, max_batch=max_batch).generate([prompts[i] for i in some], PARAMS)
    assert again == [together[i] for i in some]


def test_fewer_samples_are_the_first_of_more_and_longer_ones_continue_shorter_ones(model):
    prompt = family_tree()[1]
    long = DRAWS + 30  # past one refill of uniform numbers, and past two pages
    sampler = Sampler(model, (), 0)
    (five,) = sampler.generate([prompt], SamplingParams(n=5, max_new_tokens=long, seed=2))
    (two,) = sampler.generate([prompt], SamplingParams(n=2, max_new_tokens=long, seed=2))
    (short,) = sampler.generate([prompt], SamplingParams(n=5, max_new_tokens=20, seed=2))
    assert two == five[:2]
    assert [a.tokens for a in short] == [a.tokens[:20] for a in five]
    assert len({tuple(a.tokens) for a in five}) == 5


def test_keys_name_the_draws(model):
    sampler, a, b = Sampler(model, (), 0), [5, 6, 7], [8, 9]
    p = SamplingParams(max_new_tokens=12)
    twice = sampler.generate([a, a, b], p)
    assert twice[0] != twice[1], "repetitions in one list are drawn independently"
    assert twice == sampler.generate([a, a, b], p) and twice[2] == sampler.generate([b], p)[0]
    assert sampler.generate([a, a], p, keys=[(1,), (1,)])[0] == sampler.generate([b, a], p, keys=[(2,), (1,)])[1]
    assert sampler.generate([a], p, keys=[(1,)]) != sampler.generate([a], p, keys=[(2,)])
    assert sampler.generate([a], p) != sampler.generate([a], SamplingParams(max_new_tokens=12, seed=1))


def test_each_prompt_may_have_its_own_parameters(model):
    prompts = family_tree()[:4]
    each = [
        SamplingParams(max_new_tokens=7, temperature=0),
        SamplingParams(max_new_tokens=30, temperature=0.5, seed=4, n=2),
        SamplingParams(max_new_tokens=1),
        SamplingParams(max_new_tokens=33, top_k=3),
    ]
    together = Sampler(model, {2}, 0).generate(prompts, each)
    alone = [Sampler(model, {2}, 0).generate([x], p)[0] for x, p in zip(prompts, each, strict=True)]
    # A sort for one row's top-k must not touch another row's draw.
    assert [[a.tokens for a in g] for g in together] == [[a.tokens for a in g] for g in alone]


# ---- work and memory ----


def test_every_prompt_token_is_computed_once_and_no_token_after_the_end(model):
    prompts = family_tree()
    seen = []
    handle = model.model.embed_tokens.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    try:
        answers = Sampler(model, {2}, 0).generate(prompts, PARAMS)
    finally:
        handle.remove()
    prefilled = sum(shape[1] for shape in seen if shape[0] == 1)
    decoded = sum(shape[0] for shape in seen if shape[0] > 1)
    distinct = len({tuple(p[:i]) for p in prompts for i in range(1, len(p) + 1)})
    assert (
        distinct <= prefilled <= 1.125 * distinct + 16 + 8 * 4
    )  # short shared runs are not split off; rows are padded
    drawn = sum(len(a.tokens) - 1 for group in answers for a in group)
    assert decoded <= 1.3 * drawn + 8 * 40  # finished rows leave by eighths, and batches are padded to 8


def test_progress_counts_completions(model):
    calls = []
    Sampler(model, (), 0).generate(
        [[5], [6]], SamplingParams(n=2, max_new_tokens=3), progress=lambda *x: calls.append(x)
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


# ---- ends ----


def test_the_end_token_is_part_of_the_completion(model):
    free = Sampler(model, (), 0).generate([[5, 6]], SamplingParams(max_new_tokens=30, seed=1))[0][0]
    assert (free.finish_reason, len(free.tokens)) == ("length", 30)
    end = free.tokens[10]
    first = free.tokens.index(end)
    stopped = Sampler(model, {end, 1}, 0).generate([[5, 6]], SamplingParams(max_new_tokens=30, seed=1))[0][0]
    assert stopped.finish_reason == "stop" and stopped.stop_string is None
    assert stopped.tokens == free.tokens[: first + 1] and len(stopped.logprobs) == first + 1


def test_stop_strings_end_a_completion_also_across_tokens(model):
    def decode(ids, **_):
        return "".join(chr(97 + i % 26) for i in ids)

    free = Sampler(model, (), 0).generate([[5, 6]], SamplingParams(max_new_tokens=40, seed=1))[0][0]
    text = decode(free.tokens)
    stop = text[12:15]
    at = text.find(stop)
    sampler = Sampler(model, (), 0, decode=decode)
    got = sampler.generate([[5, 6]], SamplingParams(max_new_tokens=40, seed=1, stop=("#", stop)))[0][0]
    assert (got.finish_reason, got.stop_string) == ("stop", stop)
    assert got.tokens == free.tokens[: at + 3]
    never = sampler.generate([[5, 6]], SamplingParams(max_new_tokens=40, seed=1, stop=("#",)))[0][0]
    assert never == free
    with pytest.raises(ValueError, match="decode"):
        Sampler(model, (), 0).generate([[5]], SamplingParams(stop=("x",)))


# ---- weights ----


def test_changed_weights_take_effect_at_once():
    model = tiny(seed=3)
    sampler, prompts, p = Sampler(model, (), 0), family_tree()[:5], SamplingParams(max_new_tokens=10)
    before = sampler.generate(prompts, p)
    with torch.no_grad():
        for w in model.parameters():
            w.add_(torch.randn(w.shape, generator=torch.Generator().manual_seed(w.numel())) * 0.05)
    after = sampler.generate(prompts, p)
    assert after != before and after == Sampler(copy.deepcopy(model), (), 0).generate(prompts, p)


def test_lora_is_merged_for_the_call_and_undone_after():
    model = attach(tiny(seed=3), LoRAConfig(r=4), seed=1)
    for name, w in model.named_parameters():
        if "lora_b" in name:
            w.data.normal_(generator=torch.Generator().manual_seed(2)).mul_(0.1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    prompts, p = family_tree()[:5], SamplingParams(max_new_tokens=10)
    got = Sampler(model, (), 0).generate(prompts, p)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert got == Sampler(merge_and_unload(copy.deepcopy(model)), (), 0).generate(prompts, p)


# ---- errors ----


def test_bad_calls_say_what_is_wrong(model):
    sampler, p = Sampler(model, {2}, 0), SamplingParams(max_new_tokens=4)
    assert sampler.generate([], p) == []
    for prompts, match in (([[5], []], r"prompts\[1\] is empty"), ([[VOCAB]], "outside"), ([[-1]], "outside")):
        with pytest.raises(ValueError, match=match):
            sampler.generate(prompts, p)
    with pytest.raises(ValueError, match="1536 positions"):
        sampler.generate([[5] * 1533], p)
    with pytest.raises(ValueError, match="2 SamplingParams for 1"):
        sampler.generate([[5]], [p, p])
    with pytest.raises(ValueError, match="2 keys for 1"):
        sampler.generate([[5]], p, keys=[(1,), (2,)])
    with pytest.raises(ValueError, match="memory_bytes=1,000 is too small"):
        Sampler(model, {2}, 0, memory_bytes=1000).generate([[5]], p)
    with pytest.raises(ValueError, match="eos_ids"):
        Sampler(model, {VOCAB}, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_run(dtype):
    model = tiny(seed=1).to(dtype)
    answers = Sampler(model, {2}, 0).generate(family_tree()[:6], PARAMS)
    assert all(math.isfinite(x) for group in answers for a in group for x in a.logprobs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_full_forward_pass():
    model = tiny(seed=5).cuda()
    prompts = family_tree()
    for prompt, group in zip(prompts, Sampler(model, {2}, 0).generate(prompts, PARAMS), strict=True):
        for a in group:
            with torch.no_grad():
                scores = model.logits(model(torch.tensor([prompt + a.tokens]).cuda()))[0, len(prompt) - 1 : -1]
            want = scores.log_softmax(-1).cpu().gather(1, torch.tensor(a.tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(a.logprobs), want, rtol=0, atol=1e-3)
