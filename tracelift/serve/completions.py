"""`/v1/completions`: the OpenAI protocol of text completions on top of the sampler.

`prompt` is a text, a list of texts, a list of token ids or a list of such lists; `choices` come in the order of prompts,
`n` for each. With a `seed` the same request gets the same tokens alone or in any company, as it would from the sampler
in a trainer's own process; a negative seed is the 64-bit number of the same bits. `top_k` and `min_p` are taken too.
`logprobs` (0 or 1) gives each token's own log-probability at the sampling temperature; with `echo` also those of the
prompt's tokens, at temperature 1 and beside the most likely token in their place, and `max_tokens` may then be 0: this is
what harnesses score given texts by.

Left out, and refused where asked for: streaming, `suffix`, penalties, `logit_bias`, `best_of` above `n`, alternatives to
the sampled token.
"""

from __future__ import annotations

import itertools
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models import Tokenizer
from tracelift.config.key import Range
from tracelift.executor.backend import visible_text
from tracelift.sampler import Completion, Sampler, SamplingParams
from tracelift.sampler.params import COLDEST
from tracelift.sampler.scoring import Beside
from tracelift.serve.fields import Refused, bad, flag, real, refuse_unknown, whole

FIELDS = ("model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "n", "stop", "seed", "logprobs", "echo",
          "add_special_tokens", "repetition_penalty", "user", "stream", "stream_options", "suffix", "best_of", "presence_penalty", "frequency_penalty", "logit_bias")  # fmt: skip
_NEUTRAL: dict[str, tuple[Any, ...]] = {  # taken where they ask for nothing
    "stream": (False,), "stream_options": (), "suffix": ("",), "presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({},),
    "repetition_penalty": (1,),
}  # fmt: skip
MAX_STOPS = 16
TINY = 1e-6  # a smaller probability is none in fp32's softmax, and a mistake rather than a wish


@dataclass(frozen=True)
class Wanted:
    """A request as the sampler takes it. `texts` are the prompts as text, for echo."""

    prompts: list[list[int]]
    texts: list[str] | None
    params: SamplingParams
    logprobs: bool
    write: bool = True  # False: nothing is written, the prompt alone is scored

    @property
    def units(self) -> int:
        return len(self.prompts) * self.params.n

    @property
    def scores_prompts(self) -> bool:
        return self.logprobs and self.texts is not None


@dataclass(frozen=True)
class Answer:
    """Per prompt n completions and, where echoed with log-probabilities, what its tokens but the first score."""

    completions: list[list[Completion]]
    scores: list[list[Beside]] | None = None


class Completions:
    """A model, its tokenizer and its name, as an endpoint."""

    def __init__(self, sampler: Sampler, tokenizer: Tokenizer, name: str, most: int = 256) -> None:
        """most: completions of one request."""
        self.sampler, self.tokenizer, self.name, self.most = sampler, tokenizer, name, most
        self.limit = sampler.model.config.max_positions

    def read(self, body: Mapping[str, Any]) -> Wanted:
        """Raises Refused with 400, or 404 for a model that is not served."""
        refuse_unknown(body, FIELDS)
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            raise bad("model", "must be text")
        if model and model != self.name:
            raise Refused(404, f"model {model[:80]!r} is not served here; this is {self.name!r}", "model")
        for name, values in _NEUTRAL.items():
            if (value := body.get(name)) is not None and value not in values:
                raise bad(name, "is not offered by this server")
        n = whole(body, "n", 1, 1, self.most)
        if whole(body, "best_of", n, 1, self.most) != n:
            raise bad("best_of", "other than n is not offered by this server")
        prompts = self._prompts(body)
        if len(prompts) * n > self.most:
            raise bad(
                "prompt",
                f"asks for {len(prompts) * n} completions at once (prompts x n); at most {self.most} are served",
            )
        echo, logprobs = flag(body, "echo"), whole(body, "logprobs", -1, 0, 1) >= 0
        max_tokens = whole(body, "max_tokens", 16, 0 if echo else 1, self.limit)
        longest = max(map(len, prompts))
        if longest + max_tokens > self.limit:
            raise bad(
                "max_tokens",
                f"of {max_tokens} beside a prompt of {longest} tokens exceeds the model's {self.limit} positions",
            )
        seed = body.get("seed")
        params = SamplingParams(
            n=n,
            max_new_tokens=max(1, max_tokens),
            temperature=real(body, "temperature", 1.0, Range(COLDEST, 100, zero=True)),
            top_p=real(body, "top_p", 1.0, Range(TINY, 1)),
            top_k=max(0, whole(body, "top_k", 0, -1, 2**31 - 1)),
            min_p=real(body, "min_p", 0.0, Range(TINY, 0.999, zero=True)),
            stop=_stops(body),
            seed=secrets.randbits(64) if seed is None else whole(body, "seed", 0, -(2**63), 2**64 - 1) % 2**64,
        )
        texts = (
            [
                self.tokenizer.decode(p) if not isinstance(t, str) else t
                for p, t in zip(prompts, self._given(body), strict=True)
            ]
            if echo
            else None
        )
        return Wanted(prompts, texts, params, logprobs, max_tokens > 0)

    def run(self, wanted: Sequence[Wanted]) -> list[Answer]:
        """All requests in one call of the sampler. Their key is empty: the seed names the draws."""
        prompts = [(p, w.params) for w in wanted if w.write for p in w.prompts]
        written = iter(
            self.sampler.generate(*map(list, zip(*prompts, strict=True)), keys=[()] * len(prompts)) if prompts else []
        )
        scored = iter(self.sampler.score_prompts([p for w in wanted if w.scores_prompts for p in w.prompts]))
        return [
            Answer(
                [next(written) if w.write else [Completion()] * w.params.n for _ in w.prompts],
                [next(scored) for _ in w.prompts] if w.scores_prompts else None,
            )
            for w in wanted
        ]

    def reply(self, wanted: Wanted, answer: Answer) -> dict[str, Any]:
        """The protocol's object. Raises Refused with 500 where the model's numbers are no numbers."""
        answers = answer.completions
        figures = [x for group in answers for c in group for x in c.logprobs]
        figures += [x.logprob for values in answer.scores or () for x in values]
        if not all(map(math.isfinite, figures)):
            raise Refused(500, "the model's log-probs are not finite: its weights hold NaN or overflow")
        choices, scores = [], answer.scores or [None] * len(answers)
        for i, group in enumerate(answers):
            for completion in group:
                prompt, stop = wanted.prompts[i], wanted.params.stop
                text = visible_text(self.tokenizer, self.sampler.eos_ids, prompt, completion.tokens, stop)
                choices.append(
                    {
                        "index": len(choices),
                        "text": (wanted.texts[i] if wanted.texts is not None else "") + text,
                        "logprobs": self._logprobs(prompt, completion, scores[i]) if wanted.logprobs else None,
                        "finish_reason": completion.finish_reason,
                    }
                )
        made = sum(len(c.tokens) for group in answers for c in group)
        read = sum(map(len, wanted.prompts))
        usage = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
        return {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.name,
            "choices": choices,
            "usage": usage,
        }

    def _given(self, body: Mapping[str, Any]) -> list[Any]:
        """The prompts one by one, as text or list of ids."""
        prompt = body.get("prompt")
        if isinstance(prompt, str) or (isinstance(prompt, list) and prompt and all(_is_id(x) for x in prompt)):
            return [prompt]
        if (
            isinstance(prompt, list)
            and prompt
            and (all(isinstance(x, str) for x in prompt) or all(isinstance(x, list) for x in prompt))
        ):
            return prompt
        raise bad("prompt", "must be a text, a list of texts, a list of token ids, or a list of lists of token ids")

    def _prompts(self, body: Mapping[str, Any]) -> list[list[int]]:
        given = self._given(body)
        if len(given) > self.most:
            raise bad("prompt", f"holds {len(given)} prompts; at most {self.most} are served at once")
        special = flag(body, "add_special_tokens", default=True)
        vocab, most = self.sampler.model.config.vocab_size, self.tokenizer.most_characters(self.limit)
        out = []
        for i, prompt in enumerate(given):
            where = f"{i} " if len(given) > 1 else ""
            if isinstance(prompt, str) and most is not None and len(prompt) > most:  # said before the time it takes
                raise bad("prompt", f"{where}has {len(prompt)} characters; the model reads {self.limit} tokens")
            ids = self.tokenizer.encode(prompt, special) if isinstance(prompt, str) else prompt
            if not ids:
                raise bad("prompt", f"{where}has no tokens")
            if isinstance(prompt, str) and (wrong := self.tokenizer.no_row(ids, vocab)):
                raise bad("prompt", f"{where}spells {wrong}")
            if not all(_is_id(x) and 0 <= x < vocab for x in ids):
                raise bad("prompt", f"{where}holds something else than token ids below {vocab}")
            if len(ids) > self.limit:
                raise bad("prompt", f"{where}has {len(ids)} tokens; the model reads {self.limit}")
            out.append(list(ids))
        return out

    def _logprobs(
        self, prompt: Sequence[int], completion: Completion, scores: Sequence[Beside] | None
    ) -> dict[str, Any]:
        """Tokens as text, so that they join to what was generated (the end token and a stop string included), after the
        prompt's where that is echoed; special tokens are spelt. Of the first token of all nothing is known."""
        pieces, values = self.tokenizer.pieces(completion.tokens, after=prompt), completion.logprobs
        tops = [{piece: value} for piece, value in zip(pieces, values, strict=True)]
        if scores is not None:
            read = self.tokenizer.pieces(prompt)
            tops = [None, *(self._top(prompt[: j + 2], read[j + 1], x) for j, x in enumerate(scores)), *tops]
            pieces, values = [*read, *pieces], [None, *(x.logprob for x in scores), *values]
        offsets = itertools.accumulate(map(len, pieces), initial=0)
        return {
            "tokens": pieces,
            "token_logprobs": values,
            "text_offset": list(offsets)[:-1],
            "top_logprobs": tops,
        }

    def _top(self, prompt: Sequence[int], piece: str, score: Beside) -> dict[str, float]:
        """The last token of `prompt`, spelt `piece`, and the most likely one in its place."""
        if score.best == prompt[-1]:
            return {piece: score.logprob}
        (name,) = self.tokenizer.pieces([score.best], after=prompt[:-1])
        name = f"<{score.best}>" if name == piece else name  # two tokens of one spelling
        return {name: score.best_logprob, piece: score.logprob}


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops) or len(stops) > MAX_STOPS:
        raise bad("stop", f"must be a text or up to {MAX_STOPS} of them, none empty")
    return tuple(stops)
