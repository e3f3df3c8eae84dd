"""Packing: shared prompts give exactly what separate rows give, and only sample tokens are trained."""

import pytest
import torch

import kernels
from models import ModelConfig, Transformer
from support.random_models import FIELDS
from tracelift.training.packed_attention import Blocks, packed_attention
from tracelift.training.packing import Row, micro_batches, pack


@pytest.fixture(scope="module", params=["llama", "smollm3", "olmo2", "granite"])
def model(request) -> Transformer:
    shape = ModelConfig(50, 32, 64, 2, 4, 2, 8, 128, **FIELDS[request.param])
    return Transformer(shape).init_weights(0, std=0.3).double()


ROWS = [
    Row([5, 6, 7, 8], [[9, 10, 11], [12], [13, 14, 15, 16, 17]], [0, 1, 2]),
    Row([20, 21], [[22, 23], [24, 25, 26]], [3, 4]),
    Row([30, 31, 32, 33, 34, 35, 36], [[37, 38, 39, 40]], [5]),
]

# Enough samples of like length for blocks to be cheaper than one mask; prompts and numbers of samples are uneven still.
LIKE = [
    Row([5, 6, 7, 8, 9], [list(range(10 + i, 16 + i)) for i in range(5)], [0, 1, 2, 3, 4]),
    Row([20, 21], [[22, 23, 24, 25], [26], [27, 28, 29, 30, 31, 32, 33], [34, 35]], [5, 6, 7, 8]),
    Row([30, 31, 32, 33, 34, 35, 36], [[37, 38, 39, 40]], [9]),
]


def separate_logprobs(model: Transformer, rows: list[Row]) -> torch.Tensor:
    """The oracle: every sample on its own, no batch, no padding, log-softmax in float64."""
    out = []
    for row in rows:
        for sample in row.samples:
            ids = torch.tensor([*row.prompt, *sample])[None]
            logp = model.logits(model(ids))[0].log_softmax(-1)
            P = len(row.prompt)
            out.extend(logp[P - 1 + t, token] for t, token in enumerate(sample))
    return torch.stack(out)


def packed_logprobs(model: Transformer, rows: list[Row]) -> torch.Tensor:
    batch = pack(rows, pad_id=0)
    hidden = batch.predictors(model(batch.tokens, batch.positions, batch.attend()))
    return model.logits(hidden).log_softmax(-1).gather(-1, batch.targets[:, None])[:, 0]


@pytest.mark.parametrize(("rows", "blocks"), [(ROWS, False), (LIKE, True)])
def test_packed_rows_equal_separate_rows_with_gradients(model, rows, blocks):
    assert isinstance(packed_attention(pack(rows, pad_id=0).owner), Blocks) == blocks
    weights = torch.linspace(0.5, 2.0, sum(len(s) for r in rows for s in r.samples), dtype=torch.float64)
    grads = []
    for score in (packed_logprobs, separate_logprobs):
        model.zero_grad()
        logp = score(model, rows)
        (logp * weights).sum().backward()
        grads.append((logp.detach(), [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(grads[0][0], grads[1][0], rtol=1e-10, atol=1e-12)
    for a, b in zip(grads[0][1], grads[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_and_one_mask_are_the_same_attention(dtype):
    """Against sums in float64; query heads share key heads, and what padding holds reaches nobody."""
    batch = pack(LIKE, pad_id=0)
    (B, L), gen = batch.owner.shape, torch.Generator().manual_seed(0)
    q, k, v = (torch.randint(-2, 3, (B, L, h, 8), generator=gen).to(dtype) for h in (4, 2, 2))
    padding = (batch.owner < 0)[..., None, None]
    causal = torch.ones(L, L, dtype=torch.bool).tril()
    visible = causal & ((batch.owner[:, None] == 0) | (batch.owner[:, None] == batch.owner[:, :, None]))
    scores = torch.einsum("bihe,bjhe->bhij", q.double(), k.double().repeat_interleave(2, 2)) / 8**0.5
    share = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1)
    expected = torch.einsum("bhij,bjhe->bihe", share, v.double().repeat_interleave(2, 2))
    spoiled = [x.masked_fill(padding, 1e4) for x in (q, k, v)]
    found = packed_attention(batch.owner)(0, *spoiled)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(
        found.double().masked_fill(padding, 0), expected.masked_fill(padding, 0), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("rows", [ROWS[:1], LIKE[:1]])
def test_a_sibling_that_could_be_seen_would_change_the_answer(model, rows):
    """The mutation this layout invites: plain causal attention over the whole row."""
    batch = pack(rows, pad_id=0)
    leaky = batch.predictors(model(batch.tokens, batch.positions))
    right = batch.predictors(model(batch.tokens, batch.positions, batch.attend()))
    assert (leaky - right).abs().max() > 1e-3


def test_padding_is_never_scored_and_the_end_token_always_is():
    end = pad = 0  # the case that breaks masks built by comparing with pad
    batch = pack([Row([1, 2], [[3, 4, end], [5, end]], [7, 8]), Row([1], [[6, end]], [9])], pad_id=pad)
    assert batch.targets.tolist() == [3, 4, 0, 5, 0, 6, 0]
    assert batch.sequence.tolist() == [7, 7, 7, 8, 8, 9, 9]
    owners = batch.owner.flatten()[batch.place]
    assert (owners >= 0).all() and owners[batch.source].tolist() == [0, 1, 1, 0, 2, 0, 1]


def test_rows_of_any_length_are_packed_end_to_end_and_blind_to_each_other(model):
    """No position is padding, and other neighbours change no number beyond the rounding of a product of another size."""
    neighbours = [Row([7] * 40, [[9] * 30, [8] * 3], [90, 91]), Row([3], [[4, 5]], [92])]
    for rows in (ROWS, [ROWS[1], *neighbours, ROWS[0], *ROWS[2:]]):
        batch = pack(rows, pad_id=0)
        assert batch.tokens.shape == batch.positions.shape == (1, sum(row.length for row in rows))
        assert batch.owner.numel() > batch.tokens.numel(), "rows of unequal length: as rectangles they would be padded"
        torch.testing.assert_close(packed_logprobs(model, rows), separate_logprobs(model, rows), rtol=1e-10, atol=1e-12)


def test_one_sample_rows_take_the_maskless_path_to_the_same_numbers(model):
    rows = [Row(ROWS[0].prompt, [ROWS[0].samples[2]], [0]), ROWS[2]]
    torch.testing.assert_close(packed_logprobs(model, rows), separate_logprobs(model, rows), rtol=1e-10, atol=1e-12)


def test_kernels_score_what_the_oracle_scores(model):
    batch = pack(ROWS, pad_id=0)
    hidden = batch.predictors(model(batch.tokens, batch.positions, batch.attend())).float()
    scores = kernels.linear_logprob(hidden, model.head_weight.float(), batch.targets, temperature=0.7)
    expected = (model.logits(hidden.double()) / 0.7).log_softmax(-1).gather(-1, batch.targets[:, None])[:, 0]
    torch.testing.assert_close(scores.logprob.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 9, 14, 30, 1000])
def test_micro_batches_keep_every_sample_once_within_budget(budget):
    seen = []
    for batch in micro_batches(ROWS, budget):
        width = max(r.length for r in batch)
        assert width * len(batch) <= budget or (len(batch) == 1 and len(batch[0].samples) == 1)
        for row in batch:
            seen.extend(zip(row.sequence_ids, map(tuple, row.samples), strict=True))
    assert sorted(seen) == sorted((i, tuple(s)) for r in ROWS for i, s in zip(r.sequence_ids, r.samples, strict=True))


def test_empty_samples_are_refused():
    with pytest.raises(ValueError, match="non-empty"):
        pack([Row([1], [[]], [0])], pad_id=0)


def test_targets_choose_what_is_asked_and_where(model):
    whole = Row([5, 6, 7], [[9, 10, 11, 12]], [0])
    partly = Row([5, 6, 7], [[9, 10, 11, 12]], [0], [[(1, 10), (3, 12)]])
    assert pack([partly], pad_id=0).targets.tolist() == [10, 12]
    torch.testing.assert_close(packed_logprobs(model, [partly]), packed_logprobs(model, [whole])[[1, 3]])
    tagged = Row([5, 6, 7], [[9, 10, 11, 12]], [0], [[(2, 40), (0, 41)]])  # after 5 6 7 9 10, and after the prompt
    expected = [
        model.logits(model(torch.tensor([ids])))[0, -1].log_softmax(-1)[tag]
        for ids, tag in (([5, 6, 7, 9, 10], 40), ([5, 6, 7], 41))
    ]
    torch.testing.assert_close(packed_logprobs(model, [tagged]), torch.stack(expected))
