"""The sampler's entry point: checks a call, builds the prefix tree of its prompts, runs the schedule, sorts the answers.

    prompts → radix_tree.py (what is shared) → budget.py (what fits) → scheduler.py (continuous batching)
            → attention.py over kv_cache.py (one step) → sampling.py (one token)
    texts   → radix_tree.py → scoring.py: no draw, only the log-probabilities of what is given

Nothing outlives a call: weights changed by training take effect with the next one, and no stale key or value can.
Left out on purpose: streaming of single tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch

from models.lora import adapted, merged
from models.text.continuation import CONTEXT
from models.transformer import Transformer
from tracelift.sampler import radix_tree as trie
from tracelift.sampler import scheduler as schedule
from tracelift.sampler.cuda_graphs import StaticDecoder, StaticSchedule
from tracelift.sampler.params import Completion, SamplingParams
from tracelift.sampler.sampling import prompt_key, stream_id
from tracelift.sampler.scoring import Beside, Text, score, score_beside_best

Progress = Callable[[int, int], None]  # (completions finished, completions in all)
Finished = Callable[[int, int, Completion], None]  # (prompt, sample, completion)


class Decode(Protocol):
    def __call__(self, ids: Sequence[int], /, *, skip_special: bool = ..., after: Sequence[int] = ...) -> str:
        """Ids → text as it goes on from `after` (models.Tokenizer.decode)."""
        ...


class Sampler:
    """Continues prompts with a model, fast where prompts share beginnings and answers have uneven lengths."""

    def __init__(
        self,
        model: Transformer,
        eos_ids: Iterable[int],
        pad_id: int,
        decode: Decode | None = None,
        memory_bytes: int = 2 * 2**30,
        max_batch: int = 256,
        static: bool | None = None,
    ) -> None:
        """eos_ids end a completion, and are part of it. pad_id is for callers that lay completions out in a rectangle:
        the sampler itself never pads. decode (Tokenizer.decode) is needed for stop strings only. memory_bytes
        bounds keys, values and workspace, the model's weights apart; max_batch the completions decoded at once.
        static: decode with static shapes, on CUDA as recorded graphs (cuda_graphs.py); None chooses them on CUDA devices.

        Raises ValueError for eos_ids outside the vocabulary.
        """
        self.model, self.eos_ids, self.pad_id = model, frozenset(eos_ids), pad_id
        self.decode, self.memory_bytes, self.max_batch = decode, memory_bytes, max_batch
        self.static, self._decoder = static, StaticDecoder(model)
        self.asked_tokens = self.prefilled_tokens = 0  # prompt tokens of all completions, and those that were computed
        self.computed_tokens = 0  # positions run through the model: of prompts, of what was generated, of given texts
        self._pieces: dict[int, str] = {}  # text of single tokens, as far as stop strings needed it
        vocab = model.config.vocab_size
        if outside := [i for i in self.eos_ids if not 0 <= i < vocab]:
            raise ValueError(f"eos_ids {outside} lie outside the model's vocabulary of {vocab}")
        if max_batch < 1:
            raise ValueError(f"max_batch={max_batch} must be at least 1")

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams],
        keys: Sequence[tuple[int, ...]] | None = None,
        progress: Progress | None = None,
        keep_logits: bool = False,
        finished: Finished | None = None,
    ) -> list[list[Completion]]:
        """Continue each prompt `params.n` times; answers come in the order of the prompts.

        params is one for all or one per prompt. keys name the random numbers of each prompt together with its seed,
        e.g. (step, problem); prompts of equal seed and key share them. Without keys a prompt is named by its tokens
        and by how often it occurred earlier in the list, so that repetitions are drawn independently. Either way the
        same request gets the same tokens in any company. keep_logits adds each step's logits to the completions; finished
        is told each completion as it ends, with the numbers of its prompt and sample.

        Raises ValueError for empty or overlong prompts, ids outside the vocabulary, lists of unequal length, stop
        strings without `decode`, and a budget too small for the longest request.
        """
        prompts = [tuple(p) for p in prompts]
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        self._check(prompts, each, keys)
        if not prompts:
            return []
        distinct = list(dict.fromkeys(prompts))
        number = {p: i for i, p in enumerate(distinct)}
        counts = Counter[int]()
        for prompt, p in zip(prompts, each, strict=True):
            counts[number[prompt]] += p.n
        nodes = trie.build(distinct, [counts[i] for i in range(len(distinct))])
        leaf = {node.prompt: node for node in nodes if node.prompt is not None}
        rank = {node: i for i, node in enumerate(nodes)}

        seen = Counter[tuple[int, ...]]()
        waiting: list[schedule.Sequence] = []
        home: dict[schedule.Sequence, tuple[int, int]] = {}
        for i, (prompt, p) in enumerate(zip(prompts, each, strict=True)):
            key = (0, *prompt_key(prompt, seen[prompt])) if keys is None else (1, *keys[i])
            seen[prompt] += 1
            for j in range(p.n):
                waiting.append(schedule.Sequence(leaf[number[prompt]], p, stream_id(key, j), prompt[-CONTEXT:]))
                home[waiting[-1]] = (i, j)
        waiting.sort(key=lambda s: rank[s.node])  # stable: depth first, then the caller's order

        answers: list[list[Completion]] = [[Completion()] * p.n for p in each]
        with self._lora_in_weights(), torch.inference_mode():
            call = (self.model, nodes, waiting, self.eos_ids, self._find_stop, self.memory_bytes, self.max_batch)
            static = self.model.device.type == "cuda" if self.static is None else self.static
            if static and not keep_logits:
                run = StaticSchedule(self._decoder, *call)
            else:
                run = schedule.Schedule(*call, keep_logits)
            for count, (s, completion) in enumerate(run.run(), start=1):
                i, j = home[s]
                answers[i][j] = completion
                if finished is not None:
                    finished(i, j, completion)
                if progress is not None:
                    progress(count, len(waiting))
        self.asked_tokens += sum(len(prompt) * p.n for prompt, p in zip(prompts, each, strict=True))
        self.prefilled_tokens += run.prefilled
        # A completion's last token is drawn and never fed.
        self._count(run.prefilled + sum(len(c.tokens) - 1 for some in answers for c in some if c.tokens))
        return answers

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        ends: Iterable[int] = (),
        temperature: float = 1.0,
    ) -> list[list[float]]:
        """Log-probability in nats of each token of `continuations[i]` after `prompts[i]`, under softmax(logits /
        temperature); with `ends` one value more, that one of these tokens comes next, whichever. Nothing is drawn,
        and common beginnings are computed once.

        Raises ValueError for lists of unequal length, empty prompts or continuations, ids outside the vocabulary,
        texts longer than the model's positions, a temperature that is not positive, and a budget too small.
        """
        ends = sorted(set(ends))
        if len(prompts) != len(continuations):
            raise ValueError(f"{len(continuations)} continuations for {len(prompts)} prompts: give one per prompt")
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} must be positive: at 0 a likelihood is 0 or 1")
        texts = [(tuple(p), tuple(c)) for p, c in zip(prompts, continuations, strict=True)]
        self._check_texts(texts, ends)
        if not texts:
            return []
        with self._lora_in_weights(), torch.inference_mode():
            return score(self.model, texts, ends, temperature, self.memory_bytes, self._count)

    def score_prompts(self, prompts: Sequence[Sequence[int]]) -> list[list[Beside]]:
        """Of each prompt's tokens but the first: log-probability at temperature 1, and the most likely token there.

        Raises ValueError as `score` does.
        """
        texts = {i: (tuple(p[:1]), tuple(p[1:])) for i, p in enumerate(prompts) if len(p) != 1}
        self._check_texts(list(texts.values()), ())
        with self._lora_in_weights(), torch.inference_mode():
            found = score_beside_best(self.model, list(texts.values()), self.memory_bytes, self._count) if texts else []
        values = dict(zip(texts, found, strict=True))
        return [values.get(i, []) for i in range(len(prompts))]

    def _count(self, positions: int) -> None:
        self.computed_tokens += positions

    def _check_texts(self, texts: Sequence[Text], ends: Sequence[int]) -> None:
        vocab, limit = self.model.config.vocab_size, self.model.config.max_positions
        for i, (prompt, answer) in enumerate(texts):
            if not prompt or not answer:
                raise ValueError(f"text {i}: prompt and continuation need at least one token each")
            if not all(0 <= t < vocab for part in (prompt, answer, ends) for t in part):
                raise ValueError(f"text {i} or the ends hold an id outside the model's vocabulary of {vocab}")
            if len(prompt) + len(answer) > limit:
                raise ValueError(f"text {i} has {len(prompt) + len(answer)} tokens, the model {limit} positions")

    def _lora_in_weights(self) -> AbstractContextManager:
        """LoRA costs nothing per token while its product is added to the weights; adapters switched off stay off."""
        layers = [layer for _, layer in adapted(self.model)]
        if layers and all(layer.enabled and layer.unmerged is None for layer in layers):
            return merged(self.model)
        return nullcontext()

    def _check(self, prompts: list[tuple[int, ...]], each: list[SamplingParams], keys: Sequence | None) -> None:
        if len(each) != len(prompts):
            raise ValueError(f"{len(each)} SamplingParams for {len(prompts)} prompts: give one, or one per prompt")
        if keys is not None and len(keys) != len(prompts):
            raise ValueError(f"{len(keys)} keys for {len(prompts)} prompts: give one per prompt, or None")
        vocab, limit = self.model.config.vocab_size, self.model.config.max_positions
        for i, (prompt, p) in enumerate(zip(prompts, each, strict=True)):
            if not prompt:
                raise ValueError(f"prompts[{i}] is empty: a prompt needs at least one token")
            if not 0 <= min(prompt) <= max(prompt) < vocab:
                raise ValueError(f"prompts[{i}] holds an id outside the model's vocabulary of {vocab}")
            if len(prompt) + p.max_new_tokens > limit:
                raise ValueError(
                    f"prompts[{i}] has {len(prompt)} tokens; with max_new_tokens={p.max_new_tokens} that exceeds the "
                    f"model's {limit} positions: shorten it or lower max_new_tokens"
                )
            if p.stop and self.decode is None:
                raise ValueError(f"stop={p.stop!r} needs text: construct Sampler(..., decode=tokenizer.decode)")

    def _find_stop(self, before: tuple[int, ...], tokens: list[int], stop: tuple[str, ...]) -> str | None:
        """The stop string that the last token completed, the earliest in the text where it completed several. The text is
        that of `tokens` after `before`, with special tokens spelt: a stop string may be one."""
        assert self.decode is not None, "stop strings were refused without it"
        if tokens[-1] not in self._pieces:
            self._pieces[tokens[-1]] = self.decode(tokens[-1:], skip_special=False)
        piece = self._pieces[tokens[-1]]
        # The last token must bring the last character. Unfinished bytes decode to U+FFFD and spaces may be stripped.
        if not any(s[-1] in piece or s[-1].isspace() or "\ufffd" in piece for s in stop):
            return None
        text = self.decode(tokens, skip_special=False, after=before)
        found = [(at, s) for s in stop if (at := text.find(s)) >= 0]
        return min(found)[1] if found else None
