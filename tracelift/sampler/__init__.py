"""A KV-cached sampler: keyed draws, shared prompts, continuous batching. See docs/sampler.md.

Reading order: params (what is asked), engine (a call, and where a stop string is found), radix_tree (shared prompts),
scheduler and sequence (the batch; a sequence's end), sampling (one draw), kv_cache and attention, prefill, budget (memory),
scoring (given texts), cuda_graphs (the same with static shapes).
"""

from tracelift.sampler.engine import Sampler
from tracelift.sampler.params import Completion, SamplingParams

__all__ = ["Completion", "Sampler", "SamplingParams"]
