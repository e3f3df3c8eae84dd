"""How a call's memory is divided before it starts: keys and values in groups of pages, and a workspace beside them.

The prefix tree says which pages there will be and how many completions read each, so every size is known up front. A
budget too small for all of it shrinks the groups, and with them the number of completions that run at once; a budget
too small for the longest single request is an error that says so.

Left out on purpose: the model's own weights, which are there before the sampler is, and the interpreter.
"""

from __future__ import annotations

from typing import Protocol

from models.transformer import Transformer
from tracelift.sampler.attention import MIN_ROWS, ROWS, padded, round_up
from tracelift.sampler.kv_cache import PAGE, PagedCache, pages_for
from tracelift.sampler.radix_tree import MAX_TOKENS, PrefixNode

LARGEST_WAVE = 2048  # tokens of one prefill: matrix products gain nothing from more


class Static(Protocol):
    """What planning asks of tracelift.sampler.cuda_graphs.StaticDecoder."""

    def width(self, leaves: list[tuple[PrefixNode, int]]) -> int:
        """Pages in the page table of a row."""
        ...

    def cache_of(self, groups: list[tuple[int, int]], most: int) -> PagedCache:
        """A cache of at most `most` pages whose memory outlives the call."""
        ...


def cost(node: PrefixNode) -> int:
    """Tokens a node counts for in a wave: its own, and as many as the keys gathered for it weigh."""
    return len(node.tokens) + 2 * ROWS


def fresh_pages(node: PrefixNode) -> int:
    """Pages a node allocates: those of its own tokens, a page it begins in the middle of among them."""
    return pages_for(node.end) - node.start // PAGE


def page_bytes(model: Transformer) -> int:
    """Keys and values of one page in all layers."""
    c = model.config
    return 2 * c.num_layers * PAGE * c.num_kv_heads * c.head_dim * model.dtype.itemsize


def workspace(
    model: Transformer, batch: int, wave: int, longest: int, truncates: bool, gathered: int = 0
) -> tuple[int, int]:
    """Bytes beside keys and values, from above: of a prefill of `wave` tokens, and of `batch` rows of logits.

    longest: tokens of the longest prompt, which bounds the prefill's mask. gathered: positions whose keys and values
    are laid out anew for each row in every step (cuda_graphs.py).
    """
    c, size, rows = model.config, model.dtype.itemsize, padded(batch)
    tokens = padded(wave) + 2 * rows  # decoding has a row's activations, and partial results of its pages
    prefill = tokens * (8 * c.hidden_size + 4 * c.intermediate_size + 8 * c.num_heads * c.head_dim + 2 * longest) * size
    # Logits, fp32 scores, probabilities, one temporary and the running sum in float64; sorting about doubles that.
    logits = rows * c.vocab_size * (size + 20) * (2 if truncates else 1)
    return prefill, logits + rows * gathered * (2 * c.num_kv_heads * c.head_dim + c.num_heads) * size


def wave_of(model: Transformer, tokens: int, longest: int, memory_bytes: int, beside: int) -> tuple[int, int]:
    """Tokens of one prefill when nothing is decoded, and the workspace in bytes, `beside` included.

    The wave is halved while the workspace would take more than half of the budget.
    """
    wave = max(MAX_TOKENS, min(LARGEST_WAVE, tokens))
    while (work := workspace(model, 0, wave, longest, False)[0] + beside) > memory_bytes // 2 and wave > MAX_TOKENS:
        wave = max(MAX_TOKENS, wave // 2)
    return wave, work


def plan(
    model: Transformer,
    nodes: list[PrefixNode],
    leaves: list[tuple[PrefixNode, int]],
    truncates: bool,
    memory_bytes: int,
    max_batch: int,
    static: Static | None = None,
) -> tuple[PagedCache, int, int]:
    """Allocate the cache; returns it, the number of completions that may run at once, and of tokens in one prefill.

    leaves: for each completion the node its prompt ends in, and the pages its generated tokens may need; truncates:
    whether any is drawn with top-k, top-p or min-p; static: decode by page tables, which need one group for all prompts.
    Sets the nodes' `group`. Raises ValueError if the longest request does not fit into `memory_bytes`.
    """
    longest = max(n.end for n in nodes)
    wave, batch = max(MAX_TOKENS, min(LARGEST_WAVE, sum(cost(n) for n in nodes))), min(max_batch, len(leaves))
    gathered = PAGE * static.width(leaves) if static else 0
    while sum(work := workspace(model, batch, wave, longest, truncates, gathered)) > memory_bytes // 2:
        if wave > MAX_TOKENS and (work[0] >= work[1] or batch <= ROWS):
            wave = max(MAX_TOKENS, wave // 2)
        elif batch > ROWS:
            batch //= 2
        else:
            break
    # Readers per page of each group: as few as give a product MIN_ROWS rows, four times that, ..., the whole batch.
    seats = [-(-MIN_ROWS * model.config.num_kv_heads // model.config.num_heads)]
    if static:
        seats = [round_up(batch, ROWS)]
    while seats[-1] < batch:
        seats.append(min(4 * seats[-1], round_up(batch, ROWS)))
    least, wanted = [0] * (1 + len(seats)), [0] * (1 + len(seats))
    for node in nodes:
        node.group = 1 + next(i for i, m in enumerate(seats) if m >= min(node.samples, batch))
        wanted[node.group] += fresh_pages(node)
    for leaf in {node for node, _ in leaves}:
        path = [0] * len(least)
        for node in leaf.path():
            path[node.group] += fresh_pages(node)
        least = [max(a, b) for a, b in zip(least, path, strict=True)]
    generated = sorted(pages for _, pages in leaves)
    least[0], wanted[0] = generated[-1] + 1, sum(generated[-batch:]) + 1  # and one page for rows without a sequence
    page = page_bytes(model)
    capacity = divide((memory_bytes - sum(work)) // page, least, wanted)
    if capacity is None:
        raise ValueError(
            f"memory_bytes={memory_bytes:,} is too small: the longest request needs {sum(least) * page:,} bytes of "
            f"keys and values, and a batch of {batch} another {sum(work):,} of workspace; "
            f"raise memory_bytes, or shorten the prompt or max_new_tokens"
        )
    groups = [(1, capacity[0]), *zip(seats, capacity[1:], strict=True)]
    if static is None:
        return PagedCache(model.config, groups, model.dtype, model.device), batch, wave
    return static.cache_of(groups, (memory_bytes - sum(work)) // page), batch, wave


def divide(total: int, least: list[int], wanted: list[int]) -> list[int] | None:
    """Split `total` pages: each group at least `least[i]`, at most `wanted[i]`; None if even the least do not fit."""
    if sum(least) > total:
        return None
    spare, desire = total - sum(least), sum(wanted) - sum(least)
    if desire <= spare:
        return list(wanted)
    return [low + spare * (want - low) // desire for low, want in zip(least, wanted, strict=True)]
