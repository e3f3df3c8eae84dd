"""Attention of a batch over shared pages: every page is read once, whatever the number of its readers.

For a query q and a set of keys cut into pages, softmax attention is exactly

    out = Σ_p w_p · out_p,    w_p = exp(lse_p − logsumexp_p' lse_p'),

where out_p and lse_p are attention and log-sum-exp over page p alone: the identity behind FlashAttention (Dao et al.,
2022) and cascade inference. Decoding computes (out_p, lse_p) once per *page* for all its readers together, as one
matrix product, and then merges per reader. A prompt of S tokens read by n completions costs S reads, not n·S.

The same request gives the same bits in any batch (fp32 on a CPU) because each number is a reduction of fixed length
and order: pages have fixed boundaries, matrix products have a multiple of ROWS rows (a BLAS kernel sums alike for any
such count), and key blocks stay short enough not to be split. Left out on purpose: a Triton decode kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tracelift.sampler.kv_cache import MASKED, PAGE, PagedCache
from tracelift.sampler.radix_tree import PrefixNode

ROWS = 8  # row counts of matrix products are padded to a multiple of this
MIN_ROWS = 4  # ... and of the small products over one page to at least this: BLAS sums one to three rows differently
BLOCK = 4 * PAGE  # keys per step of prefill attention; BLAS splits reductions of 200 and more


def round_up(x: int, multiple: int) -> int:
    return -(-x // multiple) * multiple


def padded(rows: int) -> int:
    """Rows of a product: a multiple of ROWS, above 128 of an eighth of the octave.

    oneDNN keeps about 0.6 MB for every pair of row count and weight shape it has met, for as long as the process lives
    (docs/sampler.md). So there are 48 counts up to 2,048 and not 256, for 4% of padding.
    """
    return round_up(rows, max(ROWS, 1 << max(0, rows.bit_length() - 4)))


def partial_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over one set of keys, and the log-sum-exp of its scores, which lets several sets be merged.

    q (N,H,T,E), k and v (N,G,S,E) with H a multiple of G, mask additive and broadcastable to (N,1,T,S)
    → out (N,H,T,E) in q's dtype, lse (N,H,T) fp32.
    """
    if q.device.type == "cpu":
        mask = mask.expand(q.shape[0], -1, q.shape[2], -1)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, attn_mask=mask)
    N, H, T, E = q.shape
    G = k.shape[1]
    folded = q.unflatten(1, (G, H // G)).flatten(2, 3)  # (N,G,R·T,E): query heads of one key head are rows
    scores = (folded @ k.transpose(-1, -2)).float().mul_(E**-0.5).unflatten(2, (H // G, T)) + mask[:, :, None].float()
    lse = scores.logsumexp(-1)
    out = (scores - lse[..., None]).exp().to(v.dtype).flatten(2, 3) @ v
    return out.unflatten(2, (H // G, T)).flatten(1, 2), lse.flatten(1, 2)


@dataclass
class PageView:
    """One group of pages as decoding sees it."""

    first: int
    last: int
    seats: int  # M, the most readers a page of the group can have
    readers: Tensor  # (P·M,) int64 rows of the batch; empty seats repeat row 0
    mask: Tensor  # (P,1,1,PAGE), a view of the cache's mask: a written position shows up at once


class DecodeAttention:
    """`attend` for one new token in each row of a batch, whose rows read the given pages."""

    def __init__(self, cache: PagedCache, rows: list[list[int]], batch: int) -> None:
        """rows[i]: pages of row i in the order of positions, none for a row without a sequence; batch ≥ len(rows)."""
        self.cache = cache
        longest = max(map(len, rows))
        table = np.full((batch, longest), -1, dtype=np.int64)
        for i, pages in enumerate(rows):
            table[i, : len(pages)] = pages
        row, column = np.nonzero(table >= 0)  # rows ascend, so readers of a page are ordered by row
        page = table[row, column]
        order = np.argsort(page, kind="stable")
        row, column, page = row[order], column[order], page[order]
        seat = np.arange(len(page)) - np.searchsorted(page, page)  # how many earlier rows read the same page
        where = np.zeros((batch, longest), dtype=np.int64)  # place of (row, column) among all partial results
        device, offset = cache.keys.device, 0
        self.views: list[PageView] = []
        for group in cache.groups:
            inside = (page >= group.first) & (page < group.first + group.capacity)
            if not inside.any():
                continue
            first, last, M = group.first, int(page[inside].max()) + 1, group.readers
            readers = np.zeros((last - first, M), dtype=np.int64)
            readers[page[inside] - first, seat[inside]] = row[inside]
            where[row[inside], column[inside]] = offset + (page[inside] - first) * M + seat[inside]
            offset += readers.size
            mask = cache.mask[first:last, None, None, :]
            self.views.append(PageView(first, last, M, torch.from_numpy(readers.reshape(-1)).to(device), mask))
        absent = table < 0
        where[absent] = np.broadcast_to(where[:, :1], where.shape)[absent]  # something finite to give weight zero
        absent[:, 0] = False  # a row that reads nothing gets some other row's result: finite, and used by nobody
        self.where = torch.from_numpy(where.reshape(-1)).to(device)
        self.absent = torch.from_numpy(np.where(absent, -np.inf, 0.0).astype(np.float32)).to(device)[:, :, None]
        self.page, self.place = None, None

    def write_at(self, page: Tensor, place: Tensor) -> None:
        """Where the coming token's key and value go: (B,) pages and (B,) places in them."""
        self.page, self.place = page, place
        self.cache.mask[page, place] = 0.0

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # q (B,1,H,E), k and v (B,1,G,E) -> (B,1,H,E)
        B, _, H, E = q.shape
        G = k.shape[2]
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.page, :, self.place] = k[:, 0]
        values[self.page, :, self.place] = v[:, 0]
        q, outs, lses = q[:, 0], [], []
        for view in self.views:
            at, P = slice(view.first, view.last), view.last - view.first
            asked = q.index_select(0, view.readers)  # (P·M,H,E)
            # Readers and the query heads of one key head are the rows of one product: (P,G,M·R,E).
            asked = asked.view(P, view.seats, G, H // G, E).transpose(1, 2).flatten(2, 3)
            out, lse = partial_attention(asked, keys[at], values[at], view.mask)
            out = out.unflatten(2, (view.seats, H // G)).transpose(1, 2)  # (P,M,G,R,E)
            lse = lse.unflatten(2, (view.seats, H // G)).transpose(1, 2)
            outs.append(out.reshape(-1, H, E))
            lses.append(lse.reshape(-1, H))
        L = self.absent.shape[1]
        lse = torch.cat(lses).index_select(0, self.where).view(B, L, H)
        out = torch.cat(outs).index_select(0, self.where).view(B, L, H, E)
        weight = torch.softmax(lse.float() + self.absent, dim=1).to(out.dtype)
        return (out * weight[..., None]).sum(1, keepdim=True)


class PrefillAttention:
    """`attend` for the tokens of several tree nodes, packed end to end in one row.

    Linear layers see (1, ΣT) tokens without padding. Attention pads, within sets of nodes of similar size.
    """

    def __init__(self, cache: PagedCache, nodes: list[PrefixNode]) -> None:
        """The nodes' pages are allocated, and those they share with their parents written."""
        self.cache = cache
        device = cache.keys.device
        page, place, sets = [], [], {}
        offset = 0
        for node in nodes:
            position = np.arange(node.start, node.end)
            page.append(np.asarray(node.pages)[position // PAGE])
            place.append(position % PAGE)
            # Powers of two in tokens and in pages: padding at most quadruples a node, and costs attention only.
            kind = (len(node.tokens).bit_length(), len(node.pages).bit_length())
            sets.setdefault(kind, []).append((node, offset))
            offset += len(node.tokens)
        self.tokens = offset
        self.page, self.place = (torch.from_numpy(np.concatenate(x)).to(device) for x in (page, place))
        cache.mask[self.page, self.place] = 0.0
        self.sets = [self._layout(members, device) for members in sets.values()]

    def _layout(
        self, members: list[tuple[PrefixNode, int]], device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        T = round_up(max(len(n.tokens) for n, _ in members), 2 * ROWS)
        S = round_up(max(n.end for n, _ in members), PAGE)
        take = np.zeros((len(members), T), dtype=np.int64)  # packed index of each padded query
        position = np.zeros((len(members), T), dtype=np.int64)
        pages = np.zeros((len(members), S // PAGE), dtype=np.int64)
        for i, (node, offset) in enumerate(members):
            t = len(node.tokens)
            take[i, :t] = np.arange(offset, offset + t)
            position[i, :t] = np.arange(node.start, node.end)
            pages[i, : len(node.pages)] = node.pages
        real = np.concatenate([np.arange(len(n.tokens)) + i * T for i, (n, _) in enumerate(members)])
        goal = np.concatenate([np.arange(len(n.tokens)) + offset for n, offset in members])
        hidden = np.arange(S)[None, None, :] > position[:, :, None]  # causal; pages never written lie in the future
        mask = torch.zeros(hidden.shape, dtype=self.cache.keys.dtype, device=device)
        mask.masked_fill_(torch.from_numpy(hidden).to(device), MASKED)
        take_, pages_, real_, goal_ = (torch.from_numpy(x).to(device) for x in (take, pages, real, goal))
        return take_, pages_, mask[:, None], torch.stack((real_, goal_))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # q (1,W,H,E), k and v (1,W,G,E) -> (1,W,H,E)
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.page, :, self.place] = k[0, : self.tokens]
        values[self.page, :, self.place] = v[0, : self.tokens]
        result = torch.empty_like(q[0])
        result[self.tokens :] = 0.0
        for take, pages, mask, (real, goal) in self.sets:
            asked = q[0][take].transpose(1, 2)  # (N,H,T,E)
            out, lse = None, None
            for at in range(0, pages.shape[1], BLOCK // PAGE):
                block = pages[:, at : at + BLOCK // PAGE]
                k_block, v_block = (x[block].transpose(1, 2).flatten(2, 3) for x in (keys, values))  # (N,G,S,E)
                here = mask[..., at * PAGE : at * PAGE + k_block.shape[2]]
                new, new_lse = partial_attention(asked, k_block, v_block, here)
                if out is None or lse is None:
                    out, lse = new, new_lse
                else:
                    total = torch.logaddexp(lse, new_lse)
                    out = out * (lse - total).exp()[..., None].to(out.dtype)
                    out = out + new * (new_lse - total).exp()[..., None].to(out.dtype)
                    lse = total
            assert out is not None, "nodes have pages"
            result[goal] = out.transpose(1, 2).flatten(0, 1)[real]
        return result[None]
