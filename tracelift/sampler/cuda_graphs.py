"""Decoding with static shapes: one step over buffers that never move, so that a CUDA graph records it once.

    u = Philox(seed, request, position) → token from the hidden state → its key and value → the next hidden state

Small batches on a GPU wait for the host: hundreds of kernels a step, microseconds each. Here the whole step, the draw
included, is tensor operations on the device; it ends rows by itself (end token, limit), and the host only replays it,
reads 3·B numbers and composes batches as it always does (scheduler.py). The same step runs eagerly on a CPU, where tests
compare its tokens with the paged engine's.

Rows come in buckets of 2ⁿ and 3·2ⁿ, and so do the pages a row reads. A row's keys are gathered by its page table and
attended to by one scaled_dot_product_attention; a page that several rows read is stored once and, on a GPU, found in
the L2 cache by all but the first. Memory and graphs stay with the Sampler, keys and values do not: pages are zeroed at
every call. Weights updated in place need no new graph; weights that moved drop them all.

Left out: a Triton attention kernel that reads pages where they lie, and speculative or multi-step replay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.transformer import Attend, Transformer
from tracelift.sampler.attention import ROWS, round_up
from tracelift.sampler.kv_cache import MASKED, PAGE, PagedCache, pages_for
from tracelift.sampler.radix_tree import PrefixNode
from tracelift.sampler.sampling import RowPlan, seed_words, select, uniforms
from tracelift.sampler.scheduler import Schedule
from tracelift.sampler.sequence import SCRATCH, Sequence


def bucket(n: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, 24, … that is not below n."""
    power = 1 << max(0, n - 1).bit_length()
    return 3 * power // 4 if power >= 4 and n <= 3 * power // 4 else power


class StaticStep:
    """B rows that read L pages each. Calling it draws a token for every row and computes what follows."""

    def __init__(self, model: Transformer, cache: PagedCache, rows: int, pages: int, truncates: bool, ends: Tensor):
        """ends: (n,) ids of the end tokens, on the model's device."""
        self.model, self.keys, self.values, self.ends = model, cache.keys, cache.values, ends

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=model.device)

        self.hidden = zeros(rows, model.config.hidden_size, dtype=model.dtype)
        self.table = zeros(rows, pages)  # the prompt's pages, then the row's own; SCRATCH behind them
        self.prompt, self.own = zeros(rows), zeros(rows)  # tokens of the prompt; the slot where generated tokens begin
        self.count, self.limit = zeros(rows), zeros(rows)  # tokens drawn, and when to stop
        self.live = zeros(rows, dtype=torch.bool)
        self.streams, self.seeds = zeros(rows, 3), zeros(rows, 2)
        self.temperature = zeros(rows, 1, dtype=torch.float32)
        self.top_k, self.top_p, self.min_p = zeros(rows), *(zeros(rows, dtype=torch.float64) for _ in range(2))
        self.greedy = zeros(rows, dtype=torch.bool)
        truncation = (self.top_k, self.top_p, self.min_p) if truncates else None
        self.plan = RowPlan(self.temperature, truncation, self.greedy, groups=None)
        self.out = zeros(3, rows, dtype=torch.float64)  # the answer: token, log-prob, log-prob of the truncated law
        self.temperature.fill_(1)
        self.replay: Callable[[], None] = self

    def load(self, rows: list[Sequence], count: np.ndarray, hidden: Tensor) -> None:
        """Take over a batch: its sequences, how many tokens each has drawn, and the hidden states (≥ len(rows), D)."""
        B, spare = len(rows), len(self.live) - len(rows)
        table = np.full(self.table.shape, SCRATCH, dtype=np.int64)
        for i, s in enumerate(rows):
            table[i, : len(s.node.pages) + len(s.pages)] = s.node.pages + s.pages
        params = [s.params for s in rows]
        for buffer, values, empty in (
            (self.prompt, [s.node.end for s in rows], 0),
            (self.own, [PAGE * len(s.node.pages) for s in rows], 0),
            (self.count, count.tolist(), 0),
            (self.limit, [p.max_new_tokens for p in params], 0),
            (self.live, [True] * B, False),
            (self.streams, [s.stream for s in rows], (0, 0, 0)),
            (self.seeds, [seed_words(p.seed) for p in params], (0, 0)),
            (self.temperature, [(p.score_temperature,) for p in params], (1.0,)),
            (self.top_k, [p.top_k or 2**62 for p in params], 2**62),
            (self.top_p, [p.top_p for p in params], 1.0),
            (self.min_p, [p.min_p for p in params], 0.0),
            (self.greedy, [p.greedy for p in params], False),
        ):
            buffer.copy_(torch.tensor(values + [empty] * spare, dtype=buffer.dtype))
        self.table.copy_(torch.from_numpy(table))
        self.hidden.zero_()
        self.hidden[:B] = hidden[:B]

    def __call__(self) -> None:
        """One step. Writes `out`, `hidden`, `count` and `live`; nothing in it has a shape that depends on a value."""
        B, L = self.table.shape
        u = uniforms(self.streams, self.seeds, self.count, 1)[:, 0]
        token, *scores = select(self.model.logits(self.hidden), self.plan, u)
        self.out.copy_(torch.stack([x.double() for x in (token, *scores)]))
        place = self.count.clone()  # of this token among the row's own
        self.count += self.live
        self.live &= (self.count < self.limit) & ~(token[:, None] == self.ends).any(1)
        slot = (self.own + place).clamp(max=L * PAGE - 1)
        page = self.table.gather(1, (slot // PAGE)[:, None])[:, 0].masked_fill(~self.live, SCRATCH)
        at = torch.arange(L * PAGE, device=slot.device)
        seen = (at < self.prompt[:, None]) | ((at >= self.own[:, None]) & (at <= slot[:, None]))  # (B,S)
        mask = torch.zeros(seen.shape, dtype=self.hidden.dtype, device=slot.device).masked_fill_(~seen, MASKED)
        attend = self._attention(page, place % PAGE, mask[:, None, None])
        positions = (self.prompt + place).masked_fill(~self.live, 0)
        self.hidden.copy_(self.model(token[:, None], positions[:, None], attend)[:, 0])

    def _attention(self, page: Tensor, place: Tensor, mask: Tensor) -> Attend:
        """`attend` for one token a row: page and place (B,) where it goes, mask (B,1,1,S) of what it sees."""
        (B, L), pages = self.table.shape, self.table.reshape(-1)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            # q (B,1,H,E), k and v (B,1,G,E) -> (B,1,H,E)
            H, G, E = q.shape[2], k.shape[2], k.shape[3]
            read = []
            for store, new in ((self.keys[layer], k), (self.values[layer], v)):
                store[page, :, place] = new[:, 0]
                rows = store.transpose(0, 1).index_select(1, pages)  # (G,B·L,PAGE,E)
                read.append(rows.view(G, B, L * PAGE, E).transpose(0, 1))
            asked = q[:, 0].unflatten(1, (G, H // G))  # (B,G,R,E): query heads of one key head are rows of one product
            return F.scaled_dot_product_attention(asked, *read, attn_mask=mask).reshape(B, 1, H, E)

        return attend


class StaticDecoder:
    """What outlives a call: the memory of the pages, and a recorded step for each shape that occurred."""

    def __init__(self, model: Transformer) -> None:
        self.model, self.cache = model, None
        self.steps: dict[tuple, StaticStep] = {}
        self.weights: tuple[int, ...] = ()
        self.pool = None  # the graphs' common memory: no two of them run at once

    def width(self, leaves: list[tuple[PrefixNode, int]]) -> int:
        """Pages in the table of a row, the most that any of these sequences reads."""
        return bucket(max(pages_for(node.end) + own for node, own in leaves))

    def cache_of(self, groups: list[tuple[int, int]], most: int) -> PagedCache:
        """A cache with these groups, in the memory of the last one where that is large enough."""
        total = sum(capacity for _, capacity in groups)
        spare = min(bucket(total), most) - total  # later calls that need a little more find it
        cache = PagedCache(self.model.config, groups, self.model.dtype, self.model.device, self.cache, spare)
        weights = tuple(p.data_ptr() for p in self.model.parameters())
        if self.cache is None or cache.keys is not self.cache.keys or weights != self.weights:
            self.steps.clear()
        self.cache, self.weights = cache, weights
        return cache

    def step(self, rows: int, pages: int, truncates: bool, ends: np.ndarray) -> StaticStep:
        """The step for these shapes; a shape met for the first time is recorded, on a GPU."""
        shape = (rows, pages, truncates, tuple(ends.tolist()))
        if shape not in self.steps:
            assert self.cache is not None, "the schedule makes its cache first"
            found = StaticStep(
                self.model, self.cache, rows, pages, truncates, torch.tensor(ends, device=self.model.device)
            )
            if self.model.device.type == "cuda":
                found.replay = self._record(found)
            self.steps[shape] = found
        return self.steps[shape]

    def _record(self, step: StaticStep) -> Callable[[], None]:
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries make their handles and Triton its kernels; no row is live
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            step()
        return graph.replay


class StaticSchedule(Schedule):
    """Continuous batching with static steps: the same queue, admission and bookkeeping, another way to the next token."""

    def __init__(self, decoder: StaticDecoder, *call: Any) -> None:
        """call: the arguments of `Schedule`."""
        self.decoder = self.static = decoder
        super().__init__(*call)

    def _compose(self, kept: list[int], admitted: list[Sequence]) -> None:
        for s in admitted:
            s.pages = self.cache.allocate(0, s.reserved)  # all it will ever write: a page table may not grow later
        super()._compose(kept, admitted)
        if self.rows:
            rows = min(bucket(max(ROWS, len(self.rows))), round_up(self.batch, ROWS))
            pages = self.static.width([(s.node, len(s.pages)) for s in self.rows])
            self.step = self.static.step(rows, pages, self.truncates, self.eos_ids)
            self.step.load(self.rows, self.count, self.hidden)

    def _next(self, live: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.step.replay()
        self.hidden = self.step.hidden
        tokens, logprob, sampled = self.step.out[:, : len(self.rows)].cpu().numpy()
        return tokens.astype(np.int64), logprob, sampled

    def _decode(self) -> None:
        """The step has done it. Rows that a stop string ended run on unread until the batch is composed anew."""
