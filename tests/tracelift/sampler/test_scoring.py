"""Teacher forcing through the prefix tree, against a full float64 forward pass and laws that can be summed by hand."""

import copy
import itertools
import math
import random

import pytest
import torch

from models.config import ModelConfig
from models.lora import LoRAConfig, attach, merge_and_unload
from models.transformer import Transformer
from support.random_models import FIELDS
from tracelift.sampler import Sampler, SamplingParams

VOCAB = 61


def tiny(seed=0, **options) -> Transformer:
    shape = dict(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8
    )
    return Transformer(ModelConfig(**{**shape, "max_positions": 900, "norm_eps": 1e-5, **options})).init_weights(
        seed, std=0.3
    )


@pytest.fixture(scope="module")
def model():
    return tiny()


def nested(seed=0):
    """Instruction → problems → traces → answers; repeats, one token long ones, one long text, strangers."""
    draw = random.Random(seed)

    def ids(low, high):
        return [draw.randrange(3, VOCAB) for _ in range(draw.randint(low, high))]

    instruction, prompts, answers = ids(41, 41), [], []
    for _ in range(3):
        problem, answer = instruction + ids(20, 60), ids(1, 5)
        for prompt in [problem] + [problem + ids(1, 70) for _ in range(3)]:
            prompts += [prompt, prompt]
            answers += [answer, [7] + answer]
    return prompts + [[5], ids(600, 600), prompts[0]], answers + [[6, 6], ids(40, 40), answers[0]]


def exact(model, prompt, answer, ends, temperature):
    """log-probs by one float64 forward pass over the text alone."""
    with torch.no_grad():
        scores = model.logits(model(torch.tensor([prompt + answer])))[0].double() / temperature
    law = scores[len(prompt) - 1 :].log_softmax(-1)
    values = [law[t, token].item() for t, token in enumerate(answer)]
    return values + ([law[len(answer), sorted(ends)].logsumexp(0).item()] if ends else [])


@pytest.mark.parametrize(
    "options", [FIELDS[name] for name in ("llama", "qwen3", "granite")], ids=lambda o: o.get("family")
)
@pytest.mark.parametrize("ends, temperature", [((), 1.0), ((2,), 0.5), ((2, 9, 4), 1.7)])
def test_scores_equal_one_full_forward_pass_in_float64(options, ends, temperature):
    model = tiny(3, **options)
    prompts, answers = nested()
    got = Sampler(model, (), 0).score(prompts, answers, ends, temperature)
    wide = copy.deepcopy(model).double()
    for prompt, answer, values in zip(prompts, answers, got, strict=True):
        want = exact(wide, prompt, answer, ends, temperature)
        assert len(values) == len(want)
        assert values == pytest.approx(want, abs=1e-4)
    exactly = Sampler(wide, (), 0).score(prompts, answers, ends, temperature)
    for prompt, answer, values in zip(prompts, answers, exactly, strict=True):
        assert values == pytest.approx(exact(wide, prompt, answer, ends, temperature), abs=1e-9)


def test_company_order_and_budget_do_not_matter(model):
    prompts, answers = nested()
    together = Sampler(model, (), 0).score(prompts, answers, (2,))
    alone = [Sampler(model, (), 0).score([p], [a], (2,))[0] for p, a in zip(prompts, answers, strict=True)]
    assert together == alone  # the same bits, as for sampling
    tight = Sampler(model, (), 0, memory_bytes=9 * 2**20)
    assert tight.score(prompts[::-1], answers[::-1], (2,)) == together[::-1]


def test_a_small_budget_scores_in_parts_and_one_too_small_says_so(model, monkeypatch):
    from tracelift.sampler import scoring as module

    made, real = [], module._parts
    monkeypatch.setattr(module, "_parts", lambda *a: made.append(real(*a)) or made[-1])
    monkeypatch.setattr(module, "_head_bytes", lambda model: 0)  # a chunk of logits is megabytes whatever the model
    prompts, answers = nested()
    want = Sampler(model, (), 0).score(prompts, answers)
    assert Sampler(model, (), 0, memory_bytes=2_220_000).score(prompts, answers) == want
    assert len(made[0]) == 1 and len(made[-1]) > 1  # halves are appended before the whole
    with pytest.raises(ValueError, match="too small to score a text of"):
        Sampler(model, (), 0, memory_bytes=1_500_000).score(prompts, answers)


def test_shared_beginnings_are_computed_once(model):
    prompts, answers = nested()
    seen = []
    handle = model.model.embed_tokens.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    try:
        Sampler(model, (), 0).score(prompts, answers, (2,))
    finally:
        handle.remove()
    texts = [tuple(p + a) for p, a in zip(prompts, answers, strict=True)]
    distinct = len({t[:i] for t in texts for i in range(1, len(t) + 1)})
    assert distinct <= sum(seen) <= distinct + 16 * 14 + 8 * len(seen)  # short shared runs are not split off
    assert sum(map(len, texts)) > 3 * sum(seen) / 2


def test_all_answers_and_no_answer_add_up_to_one():
    """Every text over the alphabet that ends within three tokens, and every one that does not."""
    model, ends = tiny(4, vocab_size=6), (1, 4)
    open_ = [t for t in range(6) if t not in ends]
    ended = [list(a) for n in (1, 2) for a in itertools.product(open_, repeat=n)]
    unended = [list(a) for a in itertools.product(open_, repeat=3)]
    sampler, prompt = Sampler(model, (), 0), [3, 2, 5]
    whole = sum(math.exp(math.fsum(v)) for v in sampler.score([prompt] * len(ended), ended, ends, 0.8))
    whole += sum(math.exp(math.fsum(v)) for v in sampler.score([prompt] * len(unended), unended, (), 0.8))
    at_once = sum(math.exp(v[0]) for v in sampler.score([prompt] * 2, [[e] for e in ends], (), 0.8))
    assert whole + at_once == pytest.approx(1, abs=1e-6)


def test_likelihood_is_the_frequency_of_what_is_sampled(model):
    """The distribution scored is the distribution sampled: temperature, end tokens and all."""
    prompt, n, temperature = [7, 9, 11], 3000, 0.4
    end = Sampler(model, (), 0).generate([prompt], SamplingParams(max_new_tokens=2, temperature=0))[0][0].tokens[1]
    p = SamplingParams(n=n, max_new_tokens=3, temperature=temperature, seed=3)
    (drawn,) = Sampler(model, {end}, 0).generate([prompt], p)
    answers = [a.tokens[:-1] for a in drawn if a.finish_reason == "stop" and len(a.tokens) > 1]
    common = max(answers, key=answers.count)
    share, (values,) = answers.count(common) / n, Sampler(model, (), 0).score([prompt], [common], [end], temperature)
    likelihood = math.exp(math.fsum(values))
    assert 0.02 < likelihood < 0.98, "an event that is neither rare nor certain"
    assert abs(share - likelihood) < 4.5 * math.sqrt(likelihood * (1 - likelihood) / n)


def test_lora_counts_and_changed_weights_take_effect_at_once():
    model = attach(tiny(5), LoRAConfig(r=4), seed=1)
    for name, w in model.named_parameters():
        if "lora_b" in name:
            w.data.normal_(generator=torch.Generator().manual_seed(2)).mul_(0.2)
    sampler, prompts, answers = Sampler(model, (), 0), [[5, 6, 7]] * 2, [[8], [9, 10]]
    before = sampler.score(prompts, answers)
    merged = merge_and_unload(copy.deepcopy(model))
    assert before == Sampler(merged, (), 0).score(prompts, answers) != Sampler(tiny(5), (), 0).score(prompts, answers)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1.1)
    assert sampler.score(prompts, answers) != before


def test_bad_calls_say_what_is_wrong(model):
    score = Sampler(model, (), 0).score
    assert score([], []) == []
    for arguments, said in [
        (([[5]], []), "0 continuations for 1"),
        (([[]], [[5]]), "at least one token"),
        (([[5]], [[]]), "at least one token"),
        (([[5]], [[VOCAB]]), "outside"),
        (([[5]], [[6]], [VOCAB]), "outside"),
        (([[5] * 890], [[6] * 20]), "900 positions"),
        (([[5]], [[6]], (), 0.0), "temperature=0.0"),
    ]:
        with pytest.raises(ValueError, match=said):
            score(*arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_scores_the_same(model):
    prompts, answers = nested()
    want = Sampler(model, (), 0).score(prompts, answers, (2,))
    got = Sampler(copy.deepcopy(model).cuda(), (), 0).score(prompts, answers, (2,))
    for a, b in zip(got, want, strict=True):
        assert a == pytest.approx(b, abs=1e-3)
