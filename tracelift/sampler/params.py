"""What a caller asks of the sampler and what it gets back: plain values.

A request is (prompt, params, key); its answer is a list of `Completion`. Left out on purpose: repetition and presence
penalties, beam search and constrained decoding, none of which has a density that GRPO's ratio could be taken of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

COLDEST = 1e-6  # below, logits over temperature leave fp32


@dataclass(frozen=True)
class SamplingParams:
    """How to continue one prompt.

    Truncations apply after temperature in the order top_k, top_p, min_p, as in Hugging Face and vLLM. Ties are broken
    towards the lower token id, so `top_k=2` keeps two tokens even where three logits are equal.

    Raises ValueError naming the field, its value and the allowed range.
    """

    n: int = 1  # completions of one prompt
    max_new_tokens: int = 64  # counts the end token
    temperature: float = 1.0  # 0 is greedy: the most likely token, ties to the lower id
    top_p: float = 1.0  # keep the smallest set of most likely tokens whose mass reaches top_p; 1 keeps all
    top_k: int = 0  # keep the k most likely tokens; 0 keeps all
    min_p: float = 0.0  # keep tokens at least min_p times as likely as the most likely one; 0 keeps all
    seed: int = 0  # 64 bits; together with the request's key it names every draw
    stop: tuple[str, ...] = ()  # text that ends a completion as soon as it is complete

    def __post_init__(self) -> None:
        def require(ok: bool, name: str, allowed: str) -> None:
            if not ok:
                raise ValueError(f"SamplingParams.{name}={getattr(self, name)!r} must be {allowed}")

        require(_is_int(self.n) and self.n >= 1, "n", "an integer ≥ 1")
        require(_is_int(self.max_new_tokens) and self.max_new_tokens >= 1, "max_new_tokens", "an integer ≥ 1")
        cold = self.temperature == 0 or COLDEST <= self.temperature < math.inf
        require(cold, "temperature", f"0 (greedy) or a finite number ≥ {COLDEST:g}")
        require(0 < self.top_p <= 1, "top_p", "in (0, 1]; 1 keeps every token")
        require(_is_int(self.top_k) and self.top_k >= 0, "top_k", "an integer ≥ 0; 0 keeps every token")
        require(0 <= self.min_p < 1, "min_p", "in [0, 1); 0 keeps every token")
        require(_is_int(self.seed) and 0 <= self.seed < 2**64, "seed", "an integer in [0, 2**64)")
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        require(all(isinstance(s, str) and s for s in self.stop), "stop", "a tuple of non-empty strings")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def truncates(self) -> bool:
        """Whether some token may be cut off, so that `sampled_logprobs` can differ from `logprobs`."""
        return not self.greedy and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)

    @property
    def score_temperature(self) -> float:
        """The temperature of the distribution `Completion.logprobs` refers to: greedy is scored at 1."""
        return self.temperature or 1.0


@dataclass
class Completion:
    """One continuation of one prompt.

    `tokens` includes the end token (it is trained) or the tokens of the stop string (the caller cuts its text).
    `logprobs[t]` is log softmax(logits_t / temperature)[tokens[t]]: what a trainer recomputes (temperature 0 is scored
    as 1). `sampled_logprobs[t]` is the log-probability under the truncated distribution actually drawn from: equal to
    `logprobs` without truncation, 0 when greedy.
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    sampled_logprobs: list[float] = field(default_factory=list)
    finish_reason: str = "length"  # "stop" (end token or stop string) | "length"
    stop_string: str | None = None  # which of params.stop ended it
    logits: Any = field(default=None, repr=False, compare=False)  # (T,V) fp32 tensor where generate was asked for it


def _is_int(x: object) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)
