"""Teacher forcing: the log-probability of given continuations, with every shared beginning computed once.

    log p(y | x) = Σ_t log p(y_t | x, y_<t)        and, where `ends` are given,  + log Σ_e∈ends p(e | x, y)

A single forward pass over the prefix tree of all texts: an instruction once, a problem once for all its traces, a trace
once for all spellings of an answer. No draw is made, so there is no sampling noise; the scores are those of
`kernels.linear_logprob`, which the trainer uses too, and no row of logits outlives its chunk.

The budget in bytes holds as for sampling: texts that do not fit together are scored in parts, each sharing within
itself. Left out: anything about who asks (tracelift/executor/likelihood.py) and truncated distributions, under which most
references have probability zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kernels import linear_logprob
from kernels.cpu_linear import linear
from kernels.linear import chunk_rows
from models.transformer import Transformer
from tracelift.sampler import radix_tree as trie
from tracelift.sampler.attention import padded
from tracelift.sampler.budget import fresh_pages, page_bytes, wave_of
from tracelift.sampler.kv_cache import PagedCache
from tracelift.sampler.prefill import prefill
from tracelift.sampler.radix_tree import PrefixNode

Text = tuple[tuple[int, ...], tuple[int, ...]]  # (prompt, continuation)
Count = Callable[[int], None]  # is told the positions that a pass ran through the model


class Beside(NamedTuple):
    """A token's log-probability, and the most likely token in its place with its own."""

    logprob: float
    best: int
    best_logprob: float


def score(
    model: Transformer,
    texts: Sequence[Text],
    ends: Sequence[int],
    temperature: float,
    memory_bytes: int,
    count: Count | None = None,
) -> list[list[float]]:
    """For each text the log-probabilities of its continuation's tokens under softmax(logits / temperature), in nats;
    with `ends` one more, that any of these tokens follows. Equal texts are scored once.

    Raises ValueError where a single text does not fit into `memory_bytes`.
    """
    found = _score(model, texts, ends, temperature, memory_bytes, False, count)
    return [[logprob for (logprob,) in values] for values in found]


def score_beside_best(
    model: Transformer, texts: Sequence[Text], memory_bytes: int, count: Count | None = None
) -> list[list[Beside]]:
    """As `score` at temperature 1, and with each token the most likely one in its place, ties to the lower id."""
    found = _score(model, texts, (), 1.0, memory_bytes, True, count)
    return [[Beside(logprob, int(best), at_best) for logprob, at_best, best in values] for values in found]


def _score(
    model: Transformer,
    texts: Sequence[Text],
    ends: Sequence[int],
    temperature: float,
    memory_bytes: int,
    best: bool,
    count: Count | None,
) -> list[list[list[float]]]:
    """Per text and token a row of figures: the log-probability and, with `best`, the greatest one and its token."""
    # What is fed: all but the token that is only predicted. Where an end is predicted, that is all of the text.
    distinct = list(dict.fromkeys(texts))
    feeds = {text: text[0] + text[1] if ends else (text[0] + text[1])[:-1] for text in distinct}
    order = sorted(set(feeds.values()))
    wave, work = wave_of(model, sum(map(len, order)), max(map(len, order)), memory_bytes, _head_bytes(model))
    pages = (memory_bytes - work) // page_bytes(model)
    parts = _parts(order, pages, memory_bytes)
    most = max(sum(map(fresh_pages, nodes)) for _, nodes in parts)
    cache = PagedCache(model.config, [(1, most)], model.dtype, model.device)
    last = torch.tensor(list(ends), dtype=torch.int64, device=model.device)
    found: dict[Text, list[list[float]]] = {}
    for some, nodes in parts:
        leaf = {some[node.prompt]: node for node in nodes if node.prompt is not None}
        asked: dict[PrefixNode, list[tuple[int, Text, int]]] = defaultdict(
            list
        )  # (position in the text, text, its target)
        for text in (t for t in distinct if feeds[t] in leaf):
            whole = text[0] + text[1]
            for node in leaf[feeds[text]].path():
                for at in range(max(node.start, len(text[0]) - 1), node.end):
                    asked[node].append((at, text, whole[at + 1] if at + 1 < len(whole) else -1))
        for node in nodes:
            node.settle(cache.allocate(0, fresh_pages(node)))
        scored: dict[Text, dict[int, list[float]]] = defaultdict(dict)
        for run, hidden in prefill(model, cache, nodes, wave):
            rows: list[int] = []
            targets: list[int] = []
            who: list[tuple[Text, int]] = []
            offset = 0
            for node in run:
                for at, text, target in asked[node]:
                    rows.append(offset + at - node.start)
                    who.append((text, at))
                    targets.append(target)
                offset += len(node.tokens)
            if count is not None:
                count(offset)
            if rows:
                spare = padded(len(rows)) - len(rows)  # a BLAS sums alike for all such row counts (attention.py)
                rows, targets = rows + rows[:1] * spare, targets + targets[:1] * spare
                asked_rows = hidden[rows]
                values = _logprobs(model, asked_rows, torch.tensor(targets, device=model.device), last, temperature)
                figures = [values.double(), *(_best(model, asked_rows) if best else ())]
                values = torch.stack(figures, dim=1)  # ids are exact in float64
                for (text, at), value in zip(who, values.tolist(), strict=False):
                    scored[text][at] = value
        for text, values in scored.items():
            found[text] = [values[at] for at in sorted(values)]
        for node in nodes:
            cache.release(0, node.own)
    return [found[text] for text in texts]


def _logprobs(model: Transformer, hidden: Tensor, targets: Tensor, ends: Tensor, temperature: float) -> Tensor:
    """hidden (N,D), targets (N,) with −1 for "any of `ends`" → (N,) log-probabilities, at least fp32."""
    ending, weight = targets < 0, model.head_weight
    scores = linear_logprob(hidden, weight, targets.masked_fill(ending, 0), temperature)
    if not len(ends):
        return scores.logprob
    # The columns of the ends alone; their denominator is known. All rows, so that their number stays a multiple of ROWS.
    z = linear(hidden, weight[ends]).to(scores.logprob.dtype) / temperature
    return torch.where(ending, z.logsumexp(-1) - scores.logsumexp, scores.logprob)


def _best(model: Transformer, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """hidden (N,D) → the greatest log-probability and its token, both (N,) float64; chunk by chunk of the rows."""
    weight = model.head_weight
    parts = []
    for rows in hidden.split(max(1, chunk_rows(weight, weight.shape[0]))):
        z = linear(rows, weight).float()
        top = z.max(-1)
        parts.append(torch.stack([(top.values - z.logsumexp(-1)).double(), top.indices.double()]))
    logprob, token = torch.cat(parts, dim=1)
    return logprob, token


def _head_bytes(model: Transformer) -> int:
    """Of one chunk of logits and its row statistics: what linear_logprob holds besides its inputs."""
    weight = model.head_weight
    return chunk_rows(weight, weight.shape[0]) * weight.shape[0] * (weight.dtype.itemsize + 8)


def _parts(
    feeds: list[tuple[int, ...]], pages: int, memory_bytes: int
) -> list[tuple[list[tuple[int, ...]], list[PrefixNode]]]:
    """Neighbours in sorted order, as many as fit: halves until they do."""
    nodes = trie.build(feeds, [1] * len(feeds))
    need = sum(map(fresh_pages, nodes))
    if need <= pages:
        return [(feeds, nodes)]
    if len(feeds) == 1:
        raise ValueError(
            f"memory_bytes={memory_bytes:,} is too small to score a text of {len(feeds[0])} tokens: its keys and values "
            f"need {need} pages, and {max(0, pages)} fit beside the workspace"
        )
    half = len(feeds) // 2
    return _parts(feeds[:half], pages, memory_bytes) + _parts(feeds[half:], pages, memory_bytes)
