"""Packed training batches: a group's prompt is computed once, its samples follow it, padding is never scored.

GRPO scores G samples of one prompt. Laid out naively that is G copies of the prompt; here a row is

    prompt | sample 0 | sample 1 | ... | sample G−1

where every sample continues the prompt's positions and attends to the prompt and to itself, never to a sibling. The
result is exactly that of G separate rows (tests/tracelift/training/test_packing.py), for P + ΣS instead of G·P + ΣS tokens.
Supervised rows are the same thing with one sample.

Rows of unequal length are not padded: their tokens go through embedding, projections and MLPs end to end, and only
attention lays them out as rectangles, in which no row sees another.

What is scored is flat: the trained tokens of a batch are flat lists (N,), each naming the
row position that predicts it and the sequence it belongs to. `Row.trained` is the one place that decides which they are.

How such a row attends is tracelift/training/packed_attention.py's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from models.transformer import Attend
from tracelift.training.packed_attention import packed_attention

_PADDING = -1


@dataclass(frozen=True)
class Row:
    """A prompt and the samples that continue it; `sequence_ids` name each sample in the global batch.

    `targets`, where given, lists for each sample what is scored: (k, token) asks for `token` after the sample's first k
    tokens. Without it every token is asked for where it stands: (k, sample[k]).
    """

    prompt: Sequence[int]
    samples: Sequence[Sequence[int]]
    sequence_ids: Sequence[int]
    targets: Sequence[Sequence[tuple[int, int]]] | None = None

    def trained(self, s: int) -> Sequence[tuple[int, int]]:
        """The mask: (k, token) for each trained token of sample `s`. All of a sample are, the end-of-sequence token that
        ended it included, unless `targets` says otherwise; prompt and padding never."""
        return list(enumerate(self.samples[s])) if self.targets is None else self.targets[s]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(len(s) - 1 for s in self.samples)  # a sample's last token predicts nothing

    def halves(self) -> list[Row]:
        """Two rows with half of the samples each; itself where it has only one."""
        if len(self.samples) == 1:
            return [self]
        half = len(self.samples) // 2
        return [
            Row(self.prompt, self.samples[cut], self.sequence_ids[cut], self.targets[cut] if self.targets else None)
            for cut in (slice(half), slice(half, None))
        ]


@dataclass(frozen=True)
class PackedBatch:
    """Rows as tensors. M tokens of all rows, end to end without padding; N trained ones, in the order of rows, samples,
    tokens. Only attention sees B rows of L positions."""

    tokens: Tensor  # (1, M) int64
    positions: Tensor  # (1, M) int64: rotary positions, each sample continuing its prompt's
    owner: Tensor  # (B, L) int64: 0 prompt, 1 + sample index, −1 padding
    place: Tensor  # (M,) int64 into B·L: where each token stands in its row
    source: Tensor  # (N,) int64 into M: the token whose hidden state predicts the trained one
    targets: Tensor  # (N,) int64
    sequence: Tensor  # (N,) int64: global sequence id

    def attend(self) -> Attend:
        """The attention function of this layout, for `Transformer.forward`: each row is blind to the others."""
        rows, (B, L), place = packed_attention(self.owner), self.owner.shape, self.place

        def spread(x: Tensor) -> Tensor:  # (1,M,*,E) -> (B,L,*,E), zeros in padding, which no token attends to
            if len(place) == B * L:
                return x.view(B, L, *x.shape[2:])
            return x.new_zeros(B * L, *x.shape[2:]).index_copy(0, place, x[0]).view(B, L, *x.shape[2:])

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (1,M,H,E), (1,M,G,E) -> (1,M,H,E)
            out = rows(layer, spread(q), spread(k), spread(v)).flatten(0, 1)
            return (out if len(place) == B * L else out.index_select(0, place))[None]

        return attend

    def predictors(self, hidden: Tensor) -> Tensor:  # (1, M, D) -> (N, D)
        """The hidden states that predict each trained token."""
        return hidden.flatten(0, 1).index_select(0, self.source)


def pack(rows: Sequence[Row], pad_id: int, device: torch.device | str = "cpu") -> PackedBatch:
    """Lay rows out as one batch. Raises ValueError on an empty prompt or sample: nothing would predict its first token."""
    B, L = len(rows), max(row.length for row in rows)
    tokens = torch.full((B, L), pad_id, dtype=torch.int64)
    positions = torch.zeros((B, L), dtype=torch.int64)
    owner = torch.full((B, L), _PADDING, dtype=torch.int64)
    source: list[int] = []
    targets: list[int] = []
    sequence: list[int] = []
    for b, row in enumerate(rows):
        P = len(row.prompt)
        if P == 0 or any(len(s) == 0 for s in row.samples):
            raise ValueError("a training row needs a non-empty prompt and non-empty samples")
        tokens[b, :P] = torch.tensor(row.prompt)
        positions[b, :P] = torch.arange(P)
        owner[b, :P] = 0
        at = P
        for s, (sample, sequence_id) in enumerate(zip(row.samples, row.sequence_ids, strict=True)):
            n = len(sample) - 1
            tokens[b, at : at + n] = torch.tensor(sample[:-1], dtype=torch.int64)
            positions[b, at : at + n] = torch.arange(P, P + n)
            owner[b, at : at + n] = s + 1
            scored = row.trained(s)
            source.extend(b * L + (at + k - 1 if k else P - 1) for k, _ in scored)
            targets.extend(token for _, token in scored)
            sequence.extend([sequence_id] * len(scored))
            at += n
    place = (owner.flatten() != _PADDING).nonzero()[:, 0]
    number = torch.zeros(B * L, dtype=torch.int64).index_copy(
        0, place, torch.arange(len(place))
    )  # of each position's token
    packed = (
        tokens.flatten()[place][None],
        positions.flatten()[place][None],
        owner,
        place,
        number[torch.tensor(source)],
    )
    flat = (torch.tensor(x, dtype=torch.int64) for x in (targets, sequence))
    return PackedBatch(*(x.to(device) for x in (*packed, *flat)))


class Splittable(Protocol):
    """A row of a batch that can be computed in parts."""

    @property
    def length(self) -> int: ...

    def halves(self: T) -> list[T]: ...


T = TypeVar("T", bound=Splittable)


def micro_batches(rows: Iterable[T], max_tokens: int) -> Iterator[list[T]]:
    """Split rows into batches of at most `max_tokens` positions, padding included; rows of like length go together.

    A single row longer than the budget is split by its samples (each part repeats the prompt) down to one sample,
    which passes whatever its length.
    """
    small: list[T] = []
    for row in rows:
        small.extend(_split(row, max_tokens))
    batch: list[T] = []
    for row in sorted(small, key=lambda r: r.length, reverse=True):  # the longest first: an overflow shows at once
        if batch and batch[0].length * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _split(row: T, max_tokens: int) -> list[T]:
    if row.length <= max_tokens or len(parts := row.halves()) == 1:
        return [row]
    return [piece for part in parts for piece in _split(part, max_tokens)]
