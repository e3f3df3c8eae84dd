"""Prefix trees: the last hidden state of every sequence is that of the sequence alone, and its gradient too."""

import random

import pytest
import torch

from models import ModelConfig, Transformer
from support.random_models import FIELDS
from tracelift.reward_model.prefix_tree import Tree, pack_trees, trees
from tracelift.training.packing import micro_batches


@pytest.fixture(scope="module", params=["llama", "smollm3", "olmo2", "granite"])
def model(request) -> Transformer:
    shape = ModelConfig(50, 32, 64, 2, 4, 2, 8, 1024, **FIELDS[request.param])
    return Transformer(shape).init_weights(0, std=0.3).double()


def branching(seed: int, count: int, start: list[int]) -> list[list[int]]:
    """Sequences that leave one another at random places, some equal, some the beginning of another."""
    rng = random.Random(seed)
    out = [start + [rng.randrange(1, 50) for _ in range(60)]]
    while len(out) < count:
        whole = rng.choice(out)
        kept = whole[: rng.randrange(len(start), len(whole) + 1)]
        out.append(kept + [rng.randrange(1, 50) for _ in range(rng.choice((0, 1, 20, 40)))])
    return out


def packed(model: Transformer, rows: list[Tree]) -> dict[int, torch.Tensor]:
    batch = pack_trees(rows, pad_id=0)
    hidden = batch.last(model(batch.tokens, batch.positions, batch.attend()))
    return dict(zip(batch.ids.tolist(), hidden, strict=True))


def test_last_hidden_states_are_those_of_whole_sequences(model):
    deep = branching(1, 9, list(range(1, 31)))
    long = branching(2, 4, [7] * 300)  # a common run longer than a node may be
    sequences = [*deep, *long, [5, 6], [5, 7, 8], [3]]
    group = [0] * len(deep) + [1] * len(long) + [2, 2, 3]
    rows = trees(sequences, group)
    assert rows[0].length < 0.7 * sum(map(len, set(map(tuple, deep))))  # and not by sharing the beginning alone
    beginning = next(t for t in range(99) if len({tuple(s[: t + 1]) for s in deep}) > 1)
    assert rows[0].length < beginning + sum(len(s) - beginning for s in deep)
    found = packed(model, rows)
    assert sorted(found) == list(range(len(sequences)))
    for i, h in found.items():
        torch.testing.assert_close(h, model(torch.tensor([sequences[i]]))[0, -1], rtol=1e-9, atol=1e-11)


def test_gradients_are_those_of_whole_sequences(model):
    sequences = branching(3, 6, list(range(1, 25)))
    weights = torch.randn(6, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grads = []
    for hidden in (
        torch.stack([h for _, h in sorted(packed(model, trees(sequences, [0] * 6)).items())]),
        torch.stack([model(torch.tensor([s]))[0, -1] for s in sequences]),
    ):
        model.zero_grad()
        (hidden * weights).sum().backward()
        grads.append([p.grad.clone() for p in model.model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_siblings_do_not_see_each_other(model):
    """Changing one sequence after the branch changes that one alone."""
    sequences = branching(4, 5, list(range(1, 25)))
    before = packed(model, trees(sequences, [0] * 5))
    sequences[2] = [*sequences[2][:24], 49, 48, 47]
    after = packed(model, trees(sequences, [0] * 5))
    for i in (0, 1, 3, 4):
        torch.testing.assert_close(before[i], after[i], rtol=1e-9, atol=1e-11)
    assert (before[2] - after[2]).abs().max() > 1e-3


def test_a_chain_takes_the_maskless_path_to_the_same_numbers(model):
    chain = [list(range(1, 30)), list(range(1, 20))]
    batch = pack_trees(trees([*chain, [9] * 8], [0, 0, 1]), pad_id=0)
    assert batch.attend().__name__ == "causal_attention"
    for i, h in packed(model, trees(chain, [0, 0])).items():
        torch.testing.assert_close(h, model(torch.tensor([chain[i]]))[0, -1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("budget", [1, 120, 300, 5000])
def test_micro_batches_keep_every_sequence_once_within_budget(budget):
    sequences = branching(5, 12, list(range(1, 31)))
    rows = trees(sequences, [i // 4 for i in range(12)])
    seen = []
    for batch in micro_batches(rows, budget):
        width = max(tree.length for tree in batch)
        assert width * len(batch) <= budget or (len(batch) == 1 and len(batch[0].sequences) == 1)
        seen += [pair for tree in batch for pair in zip(tree.ids, tree.sequences, strict=True)]
    assert sorted(seen) == [(i, tuple(s)) for i, s in enumerate(sequences)]


def test_a_sequence_without_tokens_is_refused():
    with pytest.raises(ValueError, match="without tokens"):
        Tree(((1, 2), ()), (0, 1))
