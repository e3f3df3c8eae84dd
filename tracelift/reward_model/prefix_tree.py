"""What several sequences have in common is computed once: a group's traces as a prefix tree, laid out in one row.

A flawed trace is the sound one up to its flaw, so the traces of a group share their problem and then, in twos and threes,
their first steps. A row holds each node of that tree once, parents before children; every token continues its parent's
positions and attends to its ancestors and its own node, never to a sibling. The hidden state at a sequence's end is that
of the whole sequence run alone (tests/tracelift/reward_model/test_prefix_tree.py). On the groups of GSM8K this is 457 tokens a group in
training (1 + 4 traces) where sharing only what all traces have in common leaves 591 and no sharing 966; 730, 1,207 and 2,085
for whole groups in evaluation.

For models that read a sequence's last hidden state: the Reason RM. Left out: block-sparse attention kernels; the mask is
dense, which suits rows of a few thousand tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from models.transformer import Attend, causal_attention
from tracelift.sampler.radix_tree import PrefixNode, build
from tracelift.training.packed_attention import masked_attention


@dataclass(frozen=True)
class Tree:
    """Token sequences of one row; `ids` name them in the whole batch. Raises ValueError where one is empty."""

    sequences: tuple[tuple[int, ...], ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not all(self.sequences):
            raise ValueError("a sequence without tokens has no last hidden state")

    @cached_property
    def distinct(self) -> list[tuple[int, ...]]:
        return list(dict.fromkeys(self.sequences))

    @cached_property
    def nodes(self) -> list[PrefixNode]:
        """Parents before children. Each root starts at position 0, so sequences need not share anything."""
        return build(self.distinct, [1] * len(self.distinct))

    @property
    def length(self) -> int:
        return sum(len(node.tokens) for node in self.nodes)

    def halves(self) -> list[Tree]:
        """Two trees with half of the sequences each, which repeat what they had in common; itself where it has only one."""
        if len(self.sequences) == 1:
            return [self]
        cut = len(self.sequences) // 2
        return [Tree(self.sequences[part], self.ids[part]) for part in (slice(cut), slice(cut, None))]


@dataclass(frozen=True)
class TreeBatch:
    """Trees as tensors: B rows of L positions, S sequences in all."""

    tokens: Tensor  # (B, L) int64, right-padded
    positions: Tensor  # (B, L) int64: rotary positions
    node: Tensor  # (B, L) int64: the node a token belongs to; padding has one of its own
    ancestors: Tensor  # (B, n, n) bool: [b, i, j] says that node j is node i or above it
    ends: Tensor  # (S,) int64 into B·L: each sequence's last token
    ids: Tensor  # (S,) int64

    def attend(self) -> Attend:
        """The attention function of this layout, for `Backbone.forward`."""
        B, L = self.tokens.shape
        if bool((self.positions == torch.arange(L, device=self.positions.device)).all()):
            return causal_attention  # one chain a row: plain causal attention is the same and needs no mask
        rows = torch.arange(B, device=self.node.device)[:, None, None]
        related = self.ancestors[rows, self.node[:, :, None], self.node[:, None, :]]  # (B, L query, L key)
        return masked_attention(related & torch.ones(L, L, dtype=torch.bool, device=self.node.device).tril())

    def last(self, hidden: Tensor) -> Tensor:  # (B, L, D) -> (S, D)
        return hidden.flatten(0, 1).index_select(0, self.ends)


def trees(sequences: Sequence[Sequence[int]], group: Sequence[int]) -> list[Tree]:
    """One tree a group, in the order of the groups' first members; ids are places in `sequences`."""
    members: dict[int, list[int]] = {}
    for i, g in enumerate(group):
        members.setdefault(g, []).append(i)
    return [Tree(tuple(tuple(sequences[i]) for i in ids), tuple(ids)) for ids in members.values()]


def pack_trees(batch: Sequence[Tree], pad_id: int, device: torch.device | str = "cpu") -> TreeBatch:
    """Lay trees out as one batch; `ends` and `ids` in the order of trees and of sequences within them."""
    B, L = len(batch), max(tree.length for tree in batch)
    n = max(len(tree.nodes) for tree in batch) + 1
    tokens = torch.full((B, L), pad_id, dtype=torch.int64)
    positions = torch.arange(L).repeat(B, 1)
    node = torch.full((B, L), n - 1, dtype=torch.int64)
    ancestors = torch.eye(n, dtype=torch.bool).repeat(B, 1, 1)  # padding sees padding: no row of the softmax is empty
    ends: list[int] = []
    ids: list[int] = []
    for b, tree in enumerate(batch):
        index = {id(each): i for i, each in enumerate(tree.nodes)}
        at, end_of = 0, {}
        for i, each in enumerate(tree.nodes):
            after = at + len(each.tokens)
            tokens[b, at:after] = torch.tensor(each.tokens)
            positions[b, at:after] = torch.arange(each.start, each.end)
            node[b, at:after] = i
            if each.parent is not None:
                ancestors[b, i] |= ancestors[b, index[id(each.parent)]]
            if each.prompt is not None:
                end_of[tree.distinct[each.prompt]] = b * L + after - 1
            at = after
        ends += [end_of[sequence] for sequence in tree.sequences]
        ids += tree.ids
    flat = (torch.tensor(x, dtype=torch.int64) for x in (ends, ids))
    return TreeBatch(*(x.to(device) for x in (tokens, positions, node, ancestors, *flat)))
