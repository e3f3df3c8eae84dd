"""One token from one row of logits: truncation, a keyed uniform number, and the inverse of the distribution function.

Randomness is counter-based (Philox4x32-10, Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011): the
uniform number behind token t of a request is a pure function of (seed, key, sample, t). No generator has a state, so
neither the order of the calls nor the company of other requests in the batch can reach it.

The draw is token = min{i : F_i > u·F_V}, F the running sum of the truncated fp32 probabilities: in float64, over blocks
first and then within one, which spares a float64 number per vocabulary entry. Matrix products of another shape change
logits in their last bits, so F moves by about 1e-7: a token changes only if u falls that near to one of the steps of F.
The bits of u are integer arithmetic, and so the same on every device.

Left out on purpose: Gumbel noise per vocabulary entry, equivalent in law, but V counters per token instead of one.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import logprob_kl
from tracelift.sampler.params import SamplingParams

BLOCK = 256  # tokens whose mass is summed in fp32 before float64 takes over
_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers and Weyl key increments of the paper
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """Philox4x32-10. counter (..., 4), key (..., 2) → (..., 4): 32-bit values in int64, whose products wrap at 2⁶⁴."""
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> 32 & _MASK) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32 & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = k0 + _W0 & _MASK, k1 + _W1 & _MASK
    return torch.stack((c0, c1, c2, c3), dim=-1)


def stream_id(key: Sequence[int], sample: int) -> tuple[int, int, int]:
    """96 bits that name the stream of one completion: a hash of the request's key and the sample's index."""
    digest = hashlib.blake2b(",".join(map(str, (*key, sample))).encode(), digest_size=12).digest()
    return struct.unpack("<III", digest)


def prompt_key(tokens: Sequence[int], occurrence: int) -> tuple[int, ...]:
    """The key of a prompt that was given none: its own tokens, and how often it occurred earlier in the same call."""
    digest = hashlib.blake2b(np.asarray(tokens, dtype="<i8").tobytes(), digest_size=16).digest()
    return (*struct.unpack("<QQ", digest), occurrence)


def seed_words(seed: int) -> tuple[int, int]:
    """A 64-bit seed as the generator's two-word key."""
    return seed & _MASK, seed >> 32


def uniforms(streams: Tensor, seeds: Tensor, first: Tensor, count: int) -> Tensor:
    """Uniform numbers of positions first[i] .. first[i]+count−1 of each stream, on the device of the arguments.

    streams (N,3) and seeds (N,2) 32-bit words, first (N,) positions, int64 → (N, count) float64 in [0, 1 − 2⁻⁵²].
    """
    position = first[:, None] + torch.arange(count, device=first.device)
    counter = torch.cat((position[..., None], streams[:, None].expand(-1, count, -1)), dim=-1)
    words = philox(counter, seeds[:, None])
    return (words[..., 0] << 20 | words[..., 1] >> 12).double() * 2.0**-52


def truncate(scores: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Which tokens survive top-k, then top-p over what top-k left, then min-p. The most likely token always does.

    scores (B,V) fp32 logits after temperature; top_k (B,) int64, V or more keeps all; top_p, min_p (B,) float64
    → (B,V) bool. Ties rank by token id, lowest first, so exactly min(top_k, V) tokens survive top-k.
    """
    ranked, order = scores.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(scores.shape[-1], device=scores.device)
    prob = torch.softmax(ranked.masked_fill(rank >= top_k[:, None], -torch.inf).double(), dim=-1)
    before = prob.cumsum(-1) - prob  # mass of the more likely tokens; a token is needed while that is below top_p
    keep = (rank < top_k[:, None]) & ((before < top_p[:, None]) | (top_p[:, None] >= 1))
    keep &= prob >= min_p[:, None] * prob[:, :1]
    keep[:, 0] = True
    return torch.zeros_like(keep).scatter_(-1, order, keep)


def invert(prob: Tensor, u: Tensor) -> Tensor:
    """prob (B,V) fp32 of any positive sum, u (B,) float64 in [0,1) → (B,) token ids; zero probability is never drawn.

    Two steps of the same search: the block of BLOCK tokens that u falls into, from the blocks' masses, then the token in it.
    """
    V = prob.shape[1]
    whole = V // BLOCK * BLOCK
    mass = torch.cat((prob[:, :whole].unflatten(1, (-1, BLOCK)).sum(-1), prob[:, whole:].sum(-1, keepdim=True)), 1)
    cdf = mass.cumsum(-1, dtype=torch.float64)
    # u ≤ 1 − 2⁻⁵² keeps u·F_V strictly below F_V in float64, so the last step of F is never passed.
    goal = u[:, None] * cdf[:, -1:]
    block = torch.searchsorted(cdf, goal, right=True).clamp_(max=mass.shape[1] - 1)  # only NaN is clamped: its log-prob
    token = block * BLOCK + torch.arange(BLOCK, device=prob.device)  # is NaN too, and callers refuse that
    inside = prob.gather(1, token.clamp(max=V - 1)).masked_fill_(token >= V, 0.0)
    steps = inside.cumsum(-1, dtype=torch.float64)
    goal -= F.pad(cdf, (1, 0)).gather(1, block)
    # A block's mass was rounded to fp32, the sum of its steps is not: stretched to fit, and kept below the last step.
    goal *= steps[:, -1:] / mass.gather(1, block)
    goal = torch.minimum(goal, torch.nextafter(steps[:, -1:], torch.zeros_like(goal)))
    return (block * BLOCK + torch.searchsorted(steps, goal, right=True))[:, 0].clamp_(max=V - 1)


@dataclass
class RowPlan:
    """The sampling parameters of a batch's rows as tensors; None where no row needs that step."""

    temperature: Tensor | None  # (B,1) fp32; None where every row has temperature 1
    truncation: tuple[Tensor, Tensor, Tensor] | None  # top_k (B,) int64, top_p (B,) and min_p (B,) float64
    greedy: Tensor | None  # (B,) bool
    # Rows of each distinct temperature, where None means every row; None in place of the list: static shapes (cuda_graphs.py).
    groups: list[tuple[float, Tensor | None]] | None

    @classmethod
    def of(cls, params: Sequence[SamplingParams], device: torch.device) -> RowPlan:
        heat = [p.score_temperature for p in params]
        distinct = sorted(set(heat))
        column = torch.tensor(heat, dtype=torch.float32, device=device)
        truncation = None
        if any(p.truncates for p in params):
            truncation = (
                torch.tensor([p.top_k or 2**62 for p in params], device=device),
                torch.tensor([p.top_p for p in params], dtype=torch.float64, device=device),
                torch.tensor([p.min_p for p in params], dtype=torch.float64, device=device),
            )
        greedy = torch.tensor([p.greedy for p in params], device=device) if any(p.greedy for p in params) else None
        groups = [(t, None if len(distinct) == 1 else (column == t).nonzero()[:, 0]) for t in distinct]
        return cls(None if distinct == [1.0] else column[:, None], truncation, greedy, groups)


def logprob_of(logits: Tensor, scores: Tensor, tokens: Tensor, plan: RowPlan) -> Tensor:
    """log softmax(logits / temperature)[tokens], (B,) fp32: the function the trainer scores with.

    scores: the fp32 logits after temperature, which static shapes hand to the same function.
    """
    if plan.groups is None:
        return logprob_kl(scores, tokens).logprob.float()
    out = torch.empty(tokens.shape, dtype=torch.float32, device=tokens.device)
    for temperature, rows in plan.groups:
        at = slice(None) if rows is None else rows
        out[at] = logprob_kl(logits[at], tokens[at], temperature=temperature).logprob.float()
    return out


def select(logits: Tensor, plan: RowPlan, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Choose one token per row.

    logits (B,V) in the model's dtype, u (B,) float64 → tokens (B,) int64, log-probability under the untruncated
    temperature distribution (B,) fp32, and under the distribution drawn from (B,) fp32.
    """
    wide = logits.float()  # before temperature: bf16 logits divided in bf16 would already be another distribution
    scores = wide if plan.temperature is None else wide / plan.temperature
    prob = torch.softmax(scores, dim=-1)
    if plan.truncation is not None:
        prob = prob * truncate(scores, *plan.truncation)
    if plan.greedy is not None:
        best = scores == scores.amax(-1, keepdim=True)
        prob = torch.where(plan.greedy[:, None], best.float(), prob)
        u = u.masked_fill(plan.greedy, 0.0)  # the first step of F: the lowest of equally likely ids
    tokens = invert(prob, u)
    logprob = logprob_of(logits, scores, tokens, plan)
    sampled = logprob if plan.truncation is None else logprob - prob.sum(-1, dtype=torch.float64).log().float()
    if plan.greedy is not None:
        sampled = sampled.masked_fill(plan.greedy, 0.0)
    return tokens, logprob, sampled
