"""Where keys and values live: fixed pages of one tensor, handed out under a budget in bytes.

A page holds PAGE consecutive positions of one sequence, and pages begin at multiples of PAGE counted from the start of
the prompt (generated tokens count from their own start). A node of the prefix tree that begins inside a page copies
that page's head from its parent and goes on from there; everything else is stored once. So the page boundaries of a
request depend on the request alone, which is what makes its sums, and its tokens, independent of the other requests.

Pages with about the same number of readers sit next to each other (a *group*), so that attention runs over a group as
one batched operation on a view of the tensor, without gathering keys.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import torch

from models.config import ModelConfig

PAGE = 32  # positions per page
MASKED = -1e30  # finite, so a row that sees nothing in a page is a number of zero weight and not NaN


def pages_for(positions: int) -> int:
    return -(-positions // PAGE)


@dataclass
class PageGroup:
    """A contiguous range of pages, each read by at most `readers` completions."""

    readers: int
    first: int
    capacity: int

    def __post_init__(self) -> None:
        self.free = list(range(self.first, self.first + self.capacity))  # a heap: low pages first keeps `high` low
        self.used: set[int] = set()

    @property
    def high(self) -> int:
        """One past the highest page in use."""
        return max(self.used) + 1 if self.used else self.first


class PagedCache:
    """Keys and values of all layers, `keys[layer]` (P, G, PAGE, E), and the additive mask of unwritten positions."""

    def __init__(
        self,
        config: ModelConfig,
        groups: list[tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
        store: PagedCache | None = None,
        spare: int = 0,
    ) -> None:
        """groups: (readers, capacity in pages) of each group; group 0 holds generated tokens, one reader each.

        store: an earlier cache whose memory to take over, emptied, where it is large enough. spare: pages beyond the
        groups, for later caches that take over this one's memory.
        """
        self.groups: list[PageGroup] = []
        total = 0
        for readers, capacity in groups:
            self.groups.append(PageGroup(readers, total, capacity))
            total += capacity
        if (
            store is not None
            and store.keys.shape[1] >= total
            and store.keys.dtype == dtype
            and store.keys.device == device
        ):
            self.keys, self.values, self.mask = store.keys.zero_(), store.values.zero_(), store.mask.fill_(MASKED)
            return
        total += spare
        shape = (config.num_layers, total, config.num_kv_heads, PAGE, config.head_dim)
        # zeros, not empty: masked positions have weight 0, but 0 · NaN of stray memory would still be NaN.
        self.keys, self.values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        self.mask = torch.full((total, PAGE), MASKED, dtype=dtype, device=device)

    def allocate(self, group: int, count: int) -> list[int]:
        pool = self.groups[group]
        pages = [heapq.heappop(pool.free) for _ in range(count)]
        pool.used.update(pages)
        if pages:
            self.mask[pages] = MASKED
        return pages

    def release(self, group: int, pages: list[int]) -> None:
        pool = self.groups[group]
        for page in pages:
            heapq.heappush(pool.free, page)
        pool.used.difference_update(pages)
