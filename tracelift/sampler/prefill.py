"""Running tree nodes through the model: each once, parents before children, in waves that a workspace bounds.

Both ways into the sampler come through here: prompts that are to be continued (scheduler.py) and texts that are only
scored (scoring.py). Left out: attention itself (attention.py) and who owns the pages.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from models.transformer import Transformer
from tracelift.sampler.attention import PrefillAttention, padded
from tracelift.sampler.budget import cost
from tracelift.sampler.kv_cache import PAGE, PagedCache
from tracelift.sampler.radix_tree import PrefixNode


def prefill(
    model: Transformer, cache: PagedCache, nodes: list[PrefixNode], wave: int
) -> Iterator[tuple[list[PrefixNode], Tensor]]:
    """Write the keys and values of settled nodes, parents first; yields (some nodes, their hidden states (ΣT, D)).

    wave: tokens that one pass may cost (memory.cost). A node's parent is in `nodes` before it, or resident already.
    """
    for some in _waves(nodes, wave):
        yield some, _run(model, cache, some)


def _run(model: Transformer, cache: PagedCache, nodes: list[PrefixNode]) -> Tensor:
    total = sum(len(n.tokens) for n in nodes)
    split = [(n, n.parent) for n in nodes if n.start % PAGE and n.parent is not None]
    if split:  # these begin inside a page: copy its head from the parent
        old, new = [parent.pages[n.start // PAGE] for n, parent in split], [n.own[0] for n, _ in split]
        for store in (cache.keys, cache.values):
            store[:, new] = store[:, old]
        cache.mask[new] = cache.mask[old]
    tokens, positions = np.zeros((2, 1, padded(total)), dtype=np.int64)
    tokens[0, :total] = np.concatenate([n.tokens for n in nodes])
    positions[0, :total] = np.concatenate([np.arange(n.start, n.end) for n in nodes])
    device = cache.keys.device
    at = (torch.from_numpy(x).to(device) for x in (tokens, positions))
    return model(*at, PrefillAttention(cache, nodes))[0, :total]


def _waves(nodes: list[PrefixNode], limit: int) -> Iterator[list[PrefixNode]]:
    """Parents before children, each wave within the workspace."""
    level: dict[PrefixNode | None, int] = {}
    for node in nodes:  # parents come first; one that is resident already counts as level −1
        level[node] = level.get(node.parent, -1) + 1
    for depth in range(max(level.values(), default=-1) + 1):
        wave: list[PrefixNode] = []
        for node in (n for n in nodes if level[n] == depth):
            if wave and sum(map(cost, wave)) + cost(node) > limit:
                yield wave
                wave = []
            wave.append(node)
        if wave:
            yield wave
