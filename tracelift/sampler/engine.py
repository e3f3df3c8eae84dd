"""The sampler: prompts in, completions out. Each distinct prompt is prefilled once and its samples decoded together.

Randomness is keyed (see draw.py): what a request gets depends on its seed, key and sample index, never on its company.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.transformer import Transformer
from tracelift.sampler.draw import RowPlan, prompt_key, select, stream_id, uniforms
from tracelift.sampler.params import Completion, SamplingParams


class Sampler:
    """Samples from `model`. See `generate`."""

    def __init__(
        self,
        model: Transformer,
        eos_ids: Sequence[int] | set[int],
        pad_id: int,
        decode: Callable[[list[int]], str] | None = None,
        memory_bytes: int = 2 * 2**30,
    ) -> None:
        self.model, self.eos_ids, self.pad_id = model, frozenset(eos_ids), pad_id
        self.decode, self.memory_bytes = decode, memory_bytes

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams],
        keys: Sequence[tuple[int, ...]] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[Completion]]:
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        if len(each) != len(prompts):
            raise ValueError(f"{len(each)} SamplingParams for {len(prompts)} prompts: give one, or one per prompt")
        if keys is not None and len(keys) != len(prompts):
            raise ValueError(f"{len(keys)} keys for {len(prompts)} prompts: give one per prompt, or None")
        seen: Counter[tuple[int, ...]] = Counter()
        answers = []
        for i, prompt in enumerate(prompts):
            prompt = tuple(prompt)
            if not prompt:
                raise ValueError(f"prompts[{i}] is empty: a prompt needs at least one token")
            key = (1, *keys[i]) if keys is not None else (0, *prompt_key(prompt, seen[prompt]))
            seen[prompt] += 1
            answers.append(self._one_prompt(prompt, each[i], key))
            if progress is not None:
                progress(sum(map(len, answers)), sum(p.n for p in each))
        return answers

    def _one_prompt(self, prompt: tuple[int, ...], params: SamplingParams, key: tuple[int, ...]) -> list[Completion]:
        device, n = self.model.device, params.n
        streams = np.array([stream_id(key, s) for s in range(n)], dtype=np.uint64)
        u = uniforms(streams, np.full(n, params.seed, np.uint64), np.zeros(n, np.int64), params.max_new_tokens)
        cache: dict[int, tuple[Tensor, Tensor]] = {}

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if layer in cache:
                k, v = (torch.cat((old.expand(len(q), -1, -1, -1), new), 1) for old, new in zip(cache[layer], (k, v)))
            cache[layer] = (k, v)
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
            return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1, enable_gqa=True).transpose(1, 2)

        hidden = self.model(torch.tensor([prompt], device=device), None, attend)[:, -1].expand(n, -1)
        plan = RowPlan.of([params] * n, device)
        out = [Completion() for _ in range(n)]
        alive = [True] * n
        for t in range(params.max_new_tokens):
            chosen = select(self.model.logits(hidden), plan, torch.tensor(u[:, t], device=device))
            for i, (token, logprob, sampled) in enumerate(zip(*(x.tolist() for x in chosen))):
                if not alive[i]:
                    continue
                c = out[i]
                c.tokens.append(token), c.logprobs.append(logprob), c.sampled_logprobs.append(sampled)
                c.stop_string = self._stop_string(c.tokens, params.stop)
                if token in self.eos_ids or c.stop_string is not None:
                    c.finish_reason, alive[i] = "stop", False
            if not any(alive):
                break
            position = torch.full((1, 1), len(prompt) + t, device=device)
            hidden = self.model(chosen[0][:, None], position, attend)[:, -1]
        return out

    def _stop_string(self, tokens: list[int], stop: tuple[str, ...]) -> str | None:
        if not stop:
            return None
        text = self.decode(tokens)
        found = [(text.find(s), s) for s in stop if s in text]
        return min(found)[1] if found else None
