"""The random numbers and the laws they are turned into: Random123's known answers, exact probabilities, G-tests."""

import math

import numpy as np
import pytest
import torch

from tracelift.sampler import SamplingParams
from tracelift.sampler.sampling import (
    RowPlan,
    invert,
    philox,
    prompt_key,
    seed_words,
    select,
    stream_id,
    truncate,
    uniforms,
)

DRAWS = 20_000


def test_philox_gives_random123s_known_answers():
    """kat_vectors of the Random123 distribution, philox4x32-10."""
    ones, digits = [0xFFFFFFFF] * 4, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    known = [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (ones, ones[:2], [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (digits, [0xA4093822, 0x299F31D0], [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ]
    for counter, key, words in known:
        assert philox(torch.tensor(counter), torch.tensor(key)).tolist() == words


def numbers(streams, count, seed=0, first=0):
    n = len(streams)
    return uniforms(torch.tensor(streams), torch.tensor([seed_words(seed)] * n), torch.full((n,), first), count).numpy()


def test_a_uniform_number_depends_on_its_name_alone():
    a, b = stream_id((1, 2), 0), stream_id((1, 2), 1)
    assert numbers([a, b], 100)[1].tolist() == numbers([b], 100)[0].tolist()
    assert numbers([a], 100)[0, 60:].tolist() == numbers([a], 40, first=60)[0].tolist()
    # (1,) + sample 2 against () + sample 12: a join without separators would confuse them
    names = [stream_id(k, s) for k in ((), (1,), (12,), (1, 2), (2, 1), (-1,)) for s in (0, 1, 2, 12)]
    assert len(set(names)) == len(names)


def test_prompt_keys_tell_tokens_and_occurrences_apart():
    assert prompt_key((1, 2), 0) == prompt_key((1, 2), 0)
    assert len({prompt_key(p, i) for p in ((1, 2), (12,), (2, 1)) for i in (0, 1)}) == 6


def test_uniform_numbers_are_uniform_and_uncorrelated():
    u = numbers([stream_id((i,), 0) for i in range(400)], 100, seed=2**64 - 1)
    assert u.min() >= 0 and u.max() < 1
    counts = np.histogram(u, bins=50, range=(0, 1))[0]
    expected = u.size / 50
    assert ((counts - expected) ** 2 / expected).sum() < chi2_limit(49)
    for other in (u[:, 1:], np.roll(u, 1, axis=0)[:, 1:]):  # neighbours in position, and in stream
        assert abs(np.corrcoef(u[:, :-1].ravel(), other.ravel())[0, 1]) < 5 / math.sqrt(u.size)


def chi2_limit(df: int, z: float = 4.0) -> float:
    """The chi-square quantile at z normal deviations (Wilson & Hilferty): about 3 in 100,000 runs exceed z = 4."""
    return df * (1 - 2 / (9 * df) + z * math.sqrt(2 / (9 * df))) ** 3


def exact_law(logits: list[float], p: SamplingParams) -> list[float]:
    """The law by definition: plain Python, in float64, token by token."""
    if p.greedy:
        return [1.0 if i == logits.index(max(logits)) else 0.0 for i in range(len(logits))]
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if p.top_k:
        order = order[: p.top_k]
    mass = {i: math.exp((logits[i] - max(logits)) / p.temperature) for i in order}
    total = sum(mass.values())
    kept, reached = [], 0.0
    for i in order:
        if reached >= p.top_p * (1 - 1e-12) and p.top_p < 1:
            break
        kept.append(i)
        reached += mass[i] / total
    kept = [i for i in kept if mass[i] >= p.min_p * mass[order[0]]]
    norm = sum(mass[i] for i in kept)
    return [mass[i] / norm if i in kept else 0.0 for i in range(len(logits))]


OPTIONS = [
    dict(),
    dict(temperature=0.5),
    dict(temperature=2.5),
    dict(top_k=1),
    dict(top_k=5),
    dict(top_p=0.7),
    dict(top_p=1e-9),
    dict(min_p=0.2),
    dict(temperature=0.7, top_k=9, top_p=0.9, min_p=0.05),
    dict(temperature=0),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_frequencies_pass_a_g_test_against_the_exact_law(options):
    p = SamplingParams(**options)
    logits = (torch.randn(24, generator=torch.Generator().manual_seed(3)) * 1.5).tolist()
    logits[7] = logits[11] = 1.25  # a tie in the middle
    logits[3] = -math.inf
    law = exact_law(logits, p)
    u = torch.from_numpy(numbers([stream_id((9,), 0)], DRAWS)[0])
    rows = torch.tensor(logits).expand(DRAWS, -1)
    tokens, logprob, sampled = select(rows, RowPlan.of([p] * DRAWS, rows.device), u)
    counts = torch.bincount(tokens, minlength=24).tolist()
    assert all(n == 0 for n, prob in zip(counts, law, strict=True) if prob == 0), "a truncated token was drawn"
    seen = [(n, prob) for n, prob in zip(counts, law, strict=True) if prob > 0]
    g = 2 * sum(n * math.log(n / (DRAWS * prob)) for n, prob in seen if n)
    assert len(seen) == 1 or g < chi2_limit(len(seen) - 1)
    # both log-probabilities, of every token that came up
    whole = exact_law(logits, SamplingParams(temperature=p.score_temperature))
    for token in set(tokens.tolist()):
        at = int((tokens == token).nonzero()[0])
        assert logprob[at].item() == pytest.approx(math.log(whole[token]), abs=2e-6)
        assert sampled[at].item() == pytest.approx(math.log(law[token]), abs=2e-6)


def test_rows_of_one_batch_follow_their_own_parameters():
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(1)).expand(len(OPTIONS), -1)
    params = [SamplingParams(**o) for o in OPTIONS]
    u = torch.linspace(0.05, 0.95, len(OPTIONS), dtype=torch.float64)
    together = select(logits, RowPlan.of(params, logits.device), u)
    for i, p in enumerate(params):
        alone = select(logits[i : i + 1], RowPlan.of([p], logits.device), u[i : i + 1])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i : i + 1], b, rtol=0, atol=1e-6)


def kept(scores, **options):
    p = SamplingParams(**options)
    limits = RowPlan.of([p], torch.device("cpu")).truncation
    return truncate(torch.tensor([scores]), *limits)[0].nonzero()[:, 0].tolist()


def test_ties_go_to_the_lower_id():
    assert kept([0.0, 1.0, 1.0, 1.0], top_k=2) == [1, 2]
    assert kept([1.0, 1.0, 1.0, 1.0], top_p=0.5) == [0, 1]  # two of four equal tokens reach exactly one half
    assert kept([1.0, 1.0, 1.0, 1.0], top_p=0.51) == [0, 1, 2]
    assert kept([0.0, 5.0, 5.0], min_p=0.999) == [1, 2]
    assert kept([0.0, 5.0], top_k=10) == [0, 1]  # more than there are
    greedy = RowPlan.of([SamplingParams(temperature=0)], torch.device("cpu"))
    assert select(torch.tensor([[0.0, 3.0, 3.0]]), greedy, torch.tensor([0.99]))[0].item() == 1


def test_the_last_step_of_the_distribution_function_is_never_passed():
    prob = torch.zeros(1, 1000)
    prob[0, [5, 700]] = 1 / 3
    for u, token in ((0.0, 5), (0.4999999, 5), (0.5, 700), (1 - 2.0**-52, 700)):
        assert invert(prob, torch.tensor([u], dtype=torch.float64)).item() == token


@pytest.mark.parametrize(
    "field, value",
    [
        ("n", 0),
        ("max_new_tokens", 0),
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 1.0),
        ("seed", -1),
        ("seed", 2**64),
        ("stop", ("",)),
        ("n", True),
    ],
)
def test_bad_parameters_are_named(field, value):
    with pytest.raises(ValueError, match=field):
        SamplingParams(**{field: value})


@pytest.mark.parametrize("V", [1, 255, 256, 257, 1000, 32_000])
def test_blocks_of_tokens_are_drawn_as_single_steps_would_be(V):
    """u at the middles of N equal intervals: each token is drawn N·p times, give or take the two ends of its interval."""
    N, gen = 50_000, torch.Generator().manual_seed(V)
    prob = torch.softmax(4 * torch.randn(1, V, generator=gen), -1)
    prob[:, torch.rand(V, generator=gen) < 0.3] = 0.0
    prob[:, -1] = max(float(prob[:, -1]), 1e-9)  # something at the very end, and zeros right before it
    prob[:, V // 2 : -1] = 0.0
    u = (torch.arange(N, dtype=torch.float64) + 0.5) / N
    drawn = torch.cat([invert(prob.expand(len(part), -1), part) for part in u.split(2_000)])
    count = torch.bincount(drawn, minlength=V)
    share = prob[0].double() / prob[0].double().sum()
    assert ((count - N * share).abs() <= 1 + 1e-6 * N).all()
    assert (count[prob[0] == 0] == 0).all() and (drawn.diff() >= 0).all()


def test_the_ends_of_the_unit_interval_draw_tokens_that_exist():
    """Zeros before the first and after the last possible token, in blocks of their own and within one."""
    prob = torch.zeros(4, 700)
    prob[:, [300, 301, 520]] = torch.tensor([1e-30, 1.0, 1e-12])
    u = torch.tensor([0.0, 1e-300, 1 - 2.0**-52, 0.5], dtype=torch.float64)
    assert invert(prob, u).tolist() == [300, 300, 520, 301]
