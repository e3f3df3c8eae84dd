"""Which prompts share which tokens: a compressed prefix tree (radix tree) over the prompts of one call.

Every node is a run of tokens that some set of prompts has in common, so a node is prefilled once however many
completions lie below it: an instruction at the root, a problem under it, a trace under that. A node is split off only
where sharing saves work: a lone common begin-of-text token is cheaper computed twice than made a node of its own.

Left out on purpose: sharing between calls. Weights may have moved in between, and a frozen executor's instruction is a
few percent of a call's prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from tracelift.sampler.kv_cache import PAGE

MIN_SAVED = 16  # tokens of prefill a split has to save
MAX_TOKENS = 256  # a longer run of tokens is a chain of nodes, which bounds the prefill's activations


@dataclass(eq=False)
class PrefixNode:
    """Tokens at positions start .. end−1 of every prompt below."""

    tokens: tuple[int, ...]
    start: int
    parent: PrefixNode | None
    prompt: int | None = None  # index of the distinct prompt that ends here
    samples: int = 0  # completions below this node that are not finished
    pages: list[int] = field(default_factory=list)  # of keys and values of positions 0 .. end−1; none: not resident
    own: list[int] = field(default_factory=list)  # those of them that this node allocated
    group: int = 0  # pool of the pages it owns, chosen by the number of their readers
    hidden: Tensor | None = None  # (D,) final hidden state of the last token, where a prompt ends

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    def settle(self, own: list[int]) -> None:
        """Make the node resident: `own` new pages, after the full ones that its parent's prompt lies in."""
        self.own, self.pages = own, (self.parent.pages[: self.start // PAGE] if self.parent else []) + own

    def path(self) -> list[PrefixNode]:
        """From the root to this node."""
        nodes: list[PrefixNode] = [self]
        while nodes[-1].parent is not None:
            nodes.append(nodes[-1].parent)
        return nodes[::-1]


def build(prompts: Sequence[tuple[int, ...]], counts: Sequence[int]) -> list[PrefixNode]:
    """The nodes of the tree over distinct, non-empty prompts, parents before children, siblings next to each other.

    counts[i] is the number of completions of prompts[i].
    """
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    nodes: list[PrefixNode] = []
    todo: list[tuple[int, int, int, PrefixNode | None]] = [(0, len(order), 0, None)]
    while todo:  # a stack instead of recursion: prompts that extend one another may nest deeply
        low, high, start, parent = todo.pop()
        if low == high:
            continue
        first, last = prompts[order[low]], prompts[order[high - 1]]
        shared = _common_prefix(first, last, start)  # of all in between too, for they are sorted
        if high - low == 1 or (shared - start) * (high - low - 1) >= MIN_SAVED:
            for at in range(start, shared, MAX_TOKENS):
                parent = PrefixNode(first[at : min(at + MAX_TOKENS, shared)], at, parent)
                nodes.append(parent)
            start = shared
            if len(first) == shared:  # the shortest sorts first, and prompts are distinct
                assert parent is not None, "a prompt has at least one token"
                parent.prompt = order[low]
                for node in parent.path():
                    node.samples += counts[order[low]]
                low += 1
        groups: list[tuple[int, int, int, PrefixNode | None]] = []
        while low < high:
            branch = prompts[order[low]][shared : shared + 1]
            after = low + 1
            while after < high and prompts[order[after]][shared : shared + 1] == branch:
                after += 1
            groups.append((low, after, start, parent))
            low = after
        todo.extend(reversed(groups))
    return nodes


def _common_prefix(a: tuple[int, ...], b: tuple[int, ...], start: int) -> int:
    limit = min(len(a), len(b))
    at = start
    while at < limit and a[at] == b[at]:
        at += 1
    return at
