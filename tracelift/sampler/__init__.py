"""A KV-cached sampler: keyed draws, shared prompts, continuous batching. See docs/sampler.md."""

from tracelift.sampler.engine import Sampler
from tracelift.sampler.params import Completion, SamplingParams

__all__ = ["Completion", "Sampler", "SamplingParams"]
