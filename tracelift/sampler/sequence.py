"""One completion on its way through the sampler.

Left out: who runs it (tracelift/sampler/scheduler.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from tracelift.sampler.kv_cache import pages_for
from tracelift.sampler.params import SamplingParams
from tracelift.sampler.radix_tree import PrefixNode

SCRATCH = 0  # the page that rows without a sequence write to, and nobody reads


@dataclass(eq=False)
class Sequence:
    """One completion on its way."""

    node: PrefixNode  # the tree node its prompt ends in
    params: SamplingParams
    stream: tuple[int, int, int]  # names its random numbers, see sampling.stream_id
    before: tuple[int, ...] = ()  # its prompt's last tokens, which its text goes on from
    pages: list[int] = field(default_factory=list)  # of generated tokens
    length: int = 0  # tokens drawn, as of the last time the batch was composed
    slot: int = -1  # its row in the tables of tokens and log-probabilities
    logits: list[Tensor] = field(default_factory=list)  # (V,) fp32 of each step, only where asked for

    @property
    def reserved(self) -> int:
        """Pages of generated tokens it may come to need; the last token drawn is never written."""
        return pages_for(self.params.max_new_tokens - 1)
