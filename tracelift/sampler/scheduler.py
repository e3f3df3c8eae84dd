"""Continuous batching: a queue of completions, a batch that finished ones leave and waiting ones enter.

The queue holds completions in the order of the prefix tree, so completions that share a prompt run together and a node
of the tree lives from its first reader's entry to its last one's end. Admission reserves every page a completion can
ever need: what is admitted can finish, and the budget in bytes holds by construction. When nothing is running, the
nodes still resident are ancestors of the queue's head (depth-first order), and each group of pages is at least as
large as the longest single request needs, so the queue cannot get stuck.

Left out on purpose: preemption; reservation makes it unnecessary, at the price of a smaller batch when memory is short.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from kernels.cpu_linear import packed
from models.transformer import Transformer
from tracelift.sampler.attention import DecodeAttention, padded
from tracelift.sampler.budget import Static, fresh_pages, plan
from tracelift.sampler.kv_cache import PAGE
from tracelift.sampler.params import Completion
from tracelift.sampler.prefill import prefill
from tracelift.sampler.radix_tree import PrefixNode
from tracelift.sampler.sampling import RowPlan, seed_words, select, uniforms
from tracelift.sampler.sequence import Sequence

DRAWS = 64  # uniform numbers made at a time for one completion


def project(model: Transformer, steps: int, memory_bytes: int) -> tuple[Callable[[Tensor], Tensor], int]:
    """`model.logits` for many small batches, and the bytes it takes: on a CPU a packed copy of the head pays for itself
    after some steps, where the budget has room for it."""
    head = model.head_weight
    if head.device.type != "cpu" or head.dtype != torch.float32 or steps < 16 or head.nbytes > memory_bytes // 8:
        return model.logits, 0
    return packed(head), head.nbytes


class Schedule:
    """Runs sequences to their ends. One object serves one call of `Sampler.generate`."""

    decoder: Static | None = None  # set in cuda_graphs.StaticSchedule

    def __init__(
        self,
        model: Transformer,
        nodes: list[PrefixNode],
        sequences: list[Sequence],
        eos_ids: frozenset[int],
        find_stop: Callable[[tuple[int, ...], list[int], tuple[str, ...]], str | None],
        memory_bytes: int,
        max_batch: int,
        keep_logits: bool = False,
    ) -> None:
        """nodes: the prefix tree; sequences: in the tree's order; find_stop: the stop string that tokens complete
        after a prompt."""
        self.model, self.device = model, model.device
        self.eos_ids, self.find_stop, self.keep_logits = np.array(sorted(eos_ids), np.int64), find_stop, keep_logits
        self.queue = deque(sequences)
        leaves, self.truncates = [(s.node, s.reserved) for s in sequences], any(s.params.truncates for s in sequences)
        longest = max(s.params.max_new_tokens for s in sequences)
        self.project, copied = project(model, longest, memory_bytes)
        self.cache, self.batch, self.wave = plan(
            model, nodes, leaves, self.truncates, memory_bytes - copied, max_batch, self.decoder
        )
        self.cache.allocate(0, 1)  # SCRATCH
        self.reserved = 0  # pages of generated tokens promised to admitted sequences
        self.prefilled = 0  # prompt tokens run through the model
        self.free_slots = list(range(self.batch))[::-1]
        self.tokens = np.zeros((self.batch, longest), dtype=np.int64)
        self.logprobs = np.zeros((2, self.batch, longest), dtype=np.float32)  # of the whole law, of the truncated one
        self.draws = np.zeros((self.batch, DRAWS))
        self.rows: list[Sequence] = []
        self.count = np.zeros(0, dtype=np.int64)
        self.hidden = torch.zeros((0, model.config.hidden_size), dtype=model.dtype, device=self.device)
        self._compose([], [])

    def run(self) -> Iterator[tuple[Sequence, Completion]]:
        """Yield every sequence as it finishes, with what became of it."""
        while self.queue or self.live.any():
            finished = len(self.rows) - int(self.live.sum())
            if self.queue and 4 * finished >= len(self.rows):  # entering by quarters keeps prefills large
                self._compose(self._retire(), self._admit())
            elif 8 * finished >= len(self.rows):
                self._compose(self._retire(), [])
            yield from self._draw()
            if self.live.any():
                self._decode()

    # ---- entering and leaving ----

    def _retire(self) -> list[int]:
        """Free what finished rows held; the indices of the others."""
        for s, live in zip(self.rows, self.live, strict=True):
            if live:
                continue
            self.cache.release(0, s.pages)
            self.free_slots.append(s.slot)
            self.reserved -= s.reserved
            for node in s.node.path():
                node.samples -= 1
                if node.samples == 0:
                    self.cache.release(node.group, node.own)
                    node.pages, node.own, node.hidden = [], [], None
        return [i for i, live in enumerate(self.live) if live]

    def _admit(self) -> list[Sequence]:
        """Take from the queue what fits, and prefill the tree nodes that are not resident yet."""
        admitted: list[Sequence] = []
        fresh: list[PrefixNode] = []
        while self.queue and self.free_slots:
            s = self.queue[0]
            missing = [n for n in s.node.path() if not n.pages]
            need = [0] * len(self.cache.groups)
            for node in missing:
                need[node.group] += fresh_pages(node)
            room = all(n <= len(g.free) for n, g in zip(need, self.cache.groups, strict=True))
            if not room or self.reserved + s.reserved > self.cache.groups[0].capacity - 1:
                break
            self.queue.popleft()
            for node in missing:
                node.settle(self.cache.allocate(node.group, fresh_pages(node)))
            fresh += missing
            self.reserved += s.reserved
            s.slot = self.free_slots.pop()
            admitted.append(s)
        if not admitted and not self.live.any():
            raise RuntimeError("the sampler's queue is stuck: pages were sized below what one request needs")
        for nodes, hidden in prefill(self.model, self.cache, fresh, self.wave):
            self.prefilled += len(hidden)
            for node, rows in zip(nodes, hidden.split([len(n.tokens) for n in nodes]), strict=True):
                if node.prompt is not None:
                    node.hidden = rows[-1].clone()
        return admitted

    def _compose(self, kept: list[int], admitted: list[Sequence]) -> None:
        """Make the batch anew of these rows of the old one and these newcomers."""
        for s, count in zip(self.rows, self.count, strict=True):
            s.length = int(count)
        hidden = [self.hidden[kept]]
        for s in admitted:
            assert s.node.hidden is not None, "admitted before its prompt was prefilled"
            hidden.append(s.node.hidden[None])
        self.rows = [self.rows[i] for i in kept] + admitted
        width = padded(len(self.rows))
        self.hidden = torch.cat([*hidden, self.hidden.new_zeros(width - len(self.rows), self.hidden.shape[1])])
        self.count = np.array([s.length for s in self.rows], dtype=np.int64)  # tokens drawn
        self.limit = np.array([s.params.max_new_tokens for s in self.rows], dtype=np.int64)
        self.prompt = np.array([s.node.end for s in self.rows], dtype=np.int64)  # tokens of the prompt
        self.slot = np.array([s.slot for s in self.rows], dtype=np.int64)
        self.live = np.ones(len(self.rows), dtype=bool)
        self.stopping = [i for i, s in enumerate(self.rows) if s.params.stop]
        self.plan = RowPlan.of([s.params for s in self.rows], self.device)
        self.attend: DecodeAttention | None = None

    # ---- one step ----

    def _draw(self) -> Iterator[tuple[Sequence, Completion]]:
        """Draw the next token of every live row; yield those that end with it."""
        live = np.flatnonzero(self.live)
        slot, step = self.slot[live], self.count[live]
        tokens, logprob, sampled = self._next(live)
        self.tokens[slot, step] = tokens[live]
        self.logprobs[0, slot, step] = logprob[live]
        self.logprobs[1, slot, step] = sampled[live]
        self.count[live] += 1
        at_end = np.isin(tokens, self.eos_ids)
        found = {i: stop for i in self.stopping if self.live[i] and (stop := self._stop_string(i))}
        over = self.live & (at_end | (self.count >= self.limit))
        over[list(found)] = True
        for i in np.flatnonzero(over).tolist():
            s, count, slot = self.rows[i], self.count[i], self.slot[i]
            logprobs, sampled_logprobs = self.logprobs[:, slot, :count].tolist()
            completion = Completion(
                self.tokens[slot, :count].tolist(),
                logprobs,
                sampled_logprobs,
                "stop" if at_end[i] or i in found else "length",
                found.get(i),
                torch.stack(s.logits) if self.keep_logits else None,
            )
            self.live[i] = False
            yield s, completion

    def _next(self, live: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A token for each row, and its two log-probabilities (params.Completion), each (B,)."""
        renew = live[self.count[live] % DRAWS == 0]
        if len(renew):
            params = [self.rows[i].params for i in renew]
            streams = torch.tensor([self.rows[i].stream for i in renew])
            seeds = torch.tensor([seed_words(p.seed) for p in params])
            self.draws[self.slot[renew]] = uniforms(streams, seeds, torch.from_numpy(self.count[renew]), DRAWS).numpy()
        u = self._tensor(self.draws[self.slot, self.count % DRAWS])
        logits = self.project(self.hidden)[: len(self.rows)]
        self.drawn, logprob, sampled = select(logits, self.plan, u)
        if self.keep_logits:
            for i in live:
                self.rows[i].logits.append(logits[i].float().cpu())
        return self.drawn.cpu().numpy(), logprob.cpu().numpy(), sampled.cpu().numpy()

    def _stop_string(self, row: int) -> str | None:
        s, tokens = self.rows[row], self.tokens[self.slot[row], : self.count[row]].tolist()
        return self.find_stop(s.before, tokens, s.params.stop)

    def _decode(self) -> None:
        """Write the drawn tokens' keys and values, and compute the hidden states the next ones are drawn from."""
        place = np.maximum(self.count - 1, 0)  # of the drawn token among the generated ones
        for i in np.flatnonzero(self.live & (place % PAGE == 0)):
            s = self.rows[i]
            if len(s.pages) * PAGE <= place[i]:
                s.pages += self.cache.allocate(0, 1)
                self.attend = None
        if self.attend is None:
            reads = [s.node.pages + s.pages if live else [] for s, live in zip(self.rows, self.live, strict=True)]
            self.attend = DecodeAttention(self.cache, reads, len(self.hidden))
        B, width = len(self.rows), len(self.hidden)
        tokens = torch.full((width, 1), 0, device=self.device)
        tokens[:B, 0] = self.drawn
        positions, page, where = np.zeros((3, width), dtype=np.int64)
        live = np.flatnonzero(self.live)
        positions[live] = self.prompt[live] + place[live]
        page[live] = [self.rows[i].pages[-1] for i in live]
        where[live] = place[live] % PAGE
        self.attend.write_at(self._tensor(page), self._tensor(where))
        self.hidden = self.model(tokens, self._tensor(positions[:, None]), self.attend)[:, 0]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)
