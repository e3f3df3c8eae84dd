"""A model in this process behind the executor's interface: sampled completions, and the likelihood of given texts.

Left out: how tokens are drawn and scored (tracelift/sampler/).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch

from models import Tokenizer
from models.transformer import Transformer
from tracelift.executor.backend import CompletionRequest, Likelihood, Progress, Reply, ScoreRequest, visible_text
from tracelift.sampler import Sampler, SamplingParams


class LocalBackend:
    """A model in this process, behind the same interface as a server. Implements tracelift.executor.backend.Backend,
    Scoring and Counting."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, sampler: Sampler | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.sampler = sampler or Sampler(model, tokenizer.eos_ids, tokenizer.pad_id, decode=tokenizer.decode)
        self._fingerprint: tuple[tuple[tuple[int, int], ...], str] | None = None
        self._ends: dict[tuple[str, ...], list[int]] = {}

    @property
    def computed(self) -> int:
        """Positions run through the model so far."""
        return self.sampler.computed_tokens

    def complete(self, requests: Sequence[CompletionRequest], progress: Progress | None = None) -> list[Reply]:
        """One reply per request, in order; equal requests are sampled once."""
        replies: dict[CompletionRequest, Reply] = {}
        prompts: list[list[int]] = []
        fitting: list[CompletionRequest] = []
        for request in dict.fromkeys(requests):
            prompt = self.tokenizer.encode(request.prompt, request.add_special_tokens)
            error = self._refusal(prompt, request.max_tokens)
            if error is None:
                prompts.append(prompt)
                fitting.append(request)
            else:
                replies[request] = Reply("", 0, error)
        if fitting:
            params = [
                SamplingParams(max_new_tokens=r.max_tokens, temperature=r.temperature, stop=r.stop, seed=r.seed)
                for r in fitting
            ]
            # The key is empty on purpose: the seed alone names the draws, so a caller can share them between arms.
            answers = self.sampler.generate(prompts, params, keys=[()] * len(prompts), progress=progress)
            for request, prompt, (completion,) in zip(fitting, prompts, answers, strict=True):
                text = visible_text(self.tokenizer, self.sampler.eos_ids, prompt, completion.tokens, request.stop)
                finite = all(map(math.isfinite, completion.logprobs))
                error = None if finite else "the executor's log-probs are not finite: its weights hold NaN or overflow"
                replies[request] = Reply(
                    text if finite else "", len(completion.tokens), error, len(prompt), completion.finish_reason
                )
        return [replies[r] for r in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Likelihood]:
        """One likelihood per request, in order; all prompts and spellings go through the prefix tree at once.

        An answer ends where the sampler would end it: with an end token, or with a token whose text begins with a stop
        string. An end spelt with several tokens is not counted.
        """
        found: dict[ScoreRequest, Likelihood] = {}
        asked: list[tuple[ScoreRequest, list[int], list[int]]] = []
        for request in dict.fromkeys(requests):
            prompt = self.tokenizer.encode(request.prompt, request.add_special_tokens)
            # Some tokenizers spell a text and the same text after a space alike: a path counts once.
            paths = dict.fromkeys(tuple(self.tokenizer.encode(t, add_special_tokens=False)) for t in request.texts)
            length = max(map(len, paths))
            if error := self._refusal(prompt, length):
                found[request] = Likelihood(-math.inf, error)
            else:
                asked += [(request, prompt, list(path)) for path in paths]
        logprobs: dict[ScoreRequest, list[float]] = {}
        read = {request: len(prompt) for request, prompt, _ in asked}
        scored: dict[ScoreRequest, int] = dict.fromkeys(read, 0)
        for kind in dict.fromkeys((r.stop, r.temperature) for r, _, _ in asked):
            same = [item for item in asked if (item[0].stop, item[0].temperature) == kind]
            prompts, paths = [p for _, p, _ in same], [path for _, _, path in same]
            tokens = self.sampler.score(prompts, paths, self._ends_at(kind[0]), kind[1])
            for (request, _, _), values in zip(same, tokens, strict=True):
                logprobs.setdefault(request, []).append(math.fsum(values))
                scored[request] += len(values)
        for request, values in logprobs.items():
            top = max(values)
            cost = read[request], scored[request]
            if math.isfinite(top):
                found[request] = Likelihood(top + math.log(math.fsum(math.exp(v - top) for v in values)), None, *cost)
            else:
                wrong = "the executor's log-probs are not finite: its weights hold NaN or overflow"
                found[request] = Likelihood(-math.inf, wrong, *cost)
        return [found[r] for r in requests]

    def _ends_at(self, stop: tuple[str, ...]) -> list[int]:
        """Tokens that end an answer by themselves: end tokens, and those whose text begins with a stop string."""
        if stop not in self._ends:
            vocab = range(self.model.config.vocab_size) if stop else ()
            before = self.tokenizer.encode("x", add_special_tokens=False)
            said = ((i, self.tokenizer.decode([i], skip_special=False, after=before)) for i in vocab)
            marks = {i for i, text in said if text.startswith(stop)}
            self._ends[stop] = sorted(marks | set(self.sampler.eos_ids))
        return self._ends[stop]

    def _refusal(self, prompt: list[int], new: int) -> str | None:
        limit, rows = self.model.config.max_positions, self.model.config.vocab_size
        if not prompt:
            return "the prompt has no tokens"
        if wrong := self.tokenizer.no_row(prompt, rows):
            return f"the prompt holds {wrong}"
        if len(prompt) + new > limit:
            return f"prompt of {len(prompt)} tokens and {new} more exceed the model's {limit} positions"
        return None

    @property
    def fingerprint(self) -> str:
        """sha256 over the architecture, the weights and the tokenizer's behaviour; recomputed after weights change.

        Of each tensor it reads at most 65,536 evenly spaced elements, the element count and the float64 sum: an update
        of the weights cannot slip through, and seven billion parameters take a second rather than a minute.
        """
        versions = tuple((p.data_ptr(), p._version) for p in self.model.parameters())
        if self._fingerprint is None or self._fingerprint[0] != versions:
            self._fingerprint = (versions, self._hash())
        return self._fingerprint[1]

    @torch.no_grad()
    def _hash(self) -> str:
        digest = hashlib.sha256(repr(self.model.config).encode())
        for name, p in self.model.named_parameters():
            flat = p.reshape(-1)
            some = flat[:: max(1, flat.numel() // 65_536)].float().cpu().numpy()
            total = flat.sum(dtype=torch.float64).item()
            digest.update(f"{name} {tuple(p.shape)} {p.dtype} {total!r}".encode())
            digest.update(some.tobytes())
        tok, vocab = self.tokenizer, self.model.config.vocab_size
        probe = "A probe: 12 + 34.5 = 46.5;\n\tdef f(x): return 'é' * x  # 0123456789 <reasoning></reasoning>"
        pieces = [tok.decode([i]) for i in range(0, vocab, max(1, vocab // 4096))]
        digest.update(repr((tok.encode(probe), sorted(tok.eos_ids), tok.pad_id, pieces)).encode())
        return digest.hexdigest()
