"""Training batches without waste: a group's prompt is computed once, its samples follow it, padding is never scored.

GRPO scores G samples of one prompt. Laid out naively that is G copies of the prompt; here a row is

    prompt | sample 0 | sample 1 | ... | sample G−1

where every sample continues the prompt's positions and attends to the prompt and to itself, never to a sibling. The
result is exactly that of G separate rows (tests/tracelift/test_packing.py), for P + ΣS instead of G·P + ΣS tokens.
Supervised rows are the same thing with one sample.

What is scored leaves the rectangular world at once: the trained tokens of a batch are flat lists (N,), each naming the
row position that predicts it and the sequence it belongs to. This is the one place that decides which tokens are
trained: every token of a sample, its end-of-sequence token included, unless the row
says otherwise; prompt and padding never.

How such a row attends is tracelift/packed_attention.py's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.transformer import Attend
from tracelift.packed_attention import packed_attention

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

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(len(s) - 1 for s in self.samples)  # a sample's last token predicts nothing


@dataclass(frozen=True)
class PackedBatch:
    """Rows as tensors. B rows of L positions; N trained tokens, in the order of rows, samples, tokens."""

    tokens: Tensor  # (B, L) int64
    positions: Tensor  # (B, L) int64: rotary positions, each sample continuing its prompt's
    owner: Tensor  # (B, L) int64: 0 prompt, 1 + sample index, −1 padding
    source: Tensor  # (N,) int64 into B·L: the position whose hidden state predicts the token
    targets: Tensor  # (N,) int64
    sequence: Tensor  # (N,) int64: global sequence id

    def attend(self) -> Attend:
        """The attention function of this layout, for `Transformer.forward`."""
        return packed_attention(self.owner)

    def predictors(self, hidden: Tensor) -> Tensor:  # (B, L, D) -> (N, D)
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
            scored = list(enumerate(sample)) if row.targets is None else row.targets[s]
            source.extend(b * L + (at + k - 1 if k else P - 1) for k, _ in scored)
            targets.extend(token for _, token in scored)
            sequence.extend([sequence_id] * len(scored))
            at += n
    flat = (torch.tensor(x, dtype=torch.int64) for x in (source, targets, sequence))
    return PackedBatch(*(x.to(device) for x in (tokens, positions, owner, *flat)))


def share_prefixes(sequences: Sequence[Sequence[int]], group: Sequence[int], pad_id: int) -> list[Row]:
    """Whole sequences as rows, those of one group sharing their longest common prefix; ids are places in `sequences`.

    For models that read a sequence's last hidden state (the Reason RM): each sample gets one closing `pad_id`, which is
    never fed to the model, so that the last real token is the one that would predict it (see `last_hidden`).
    """
    members: dict[int, list[int]] = {}
    for i, g in enumerate(group):
        members.setdefault(g, []).append(i)
    rows = []
    for ids in members.values():
        first, *others = (sequences[i] for i in ids)
        common = min(len(sequences[i]) for i in ids)
        for other in others:
            common = next((t for t in range(common) if first[t] != other[t]), common)
        if common == 0:
            raise ValueError("sequences of one group must share at least their first token")
        rows.append(Row(first[:common], [[*sequences[i][common:], pad_id] for i in ids], ids))
    return rows


def last_hidden(batch: PackedBatch, hidden: Tensor) -> tuple[Tensor, Tensor]:  # (B, L, D) -> (S,) int64, (S, D)
    """Each sequence's id, and the hidden state at its last predicting position."""
    ends = torch.ones_like(batch.sequence, dtype=torch.bool)
    ends[:-1] = batch.sequence[1:] != batch.sequence[:-1]
    return batch.sequence[ends], hidden.flatten(0, 1).index_select(0, batch.source[ends])


def micro_batches(rows: Iterable[Row], max_tokens: int) -> Iterator[list[Row]]:
    """Split rows into batches of at most `max_tokens` positions, padding included; rows of like length go together.

    A single row longer than the budget is split by its samples (each part repeats the prompt) down to one sample,
    which passes whatever its length.
    """
    small: list[Row] = []
    for row in rows:
        small.extend(_split(row, max_tokens))
    batch: list[Row] = []
    for row in sorted(small, key=lambda r: r.length, reverse=True):  # the longest first: an overflow shows at once
        if batch and batch[0].length * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _split(row: Row, max_tokens: int) -> list[Row]:
    if row.length <= max_tokens or len(row.samples) == 1:
        return [row]
    half = len(row.samples) // 2
    parts = [Row(row.prompt, row.samples[cut], row.sequence_ids[cut], row.targets[cut] if row.targets else None)
             for cut in (slice(half), slice(half, None))]  # fmt: skip
    return [piece for part in parts for piece in _split(part, max_tokens)]
