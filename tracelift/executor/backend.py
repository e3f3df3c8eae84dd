"""What the executor asks of a language model: text in, text out. One interface, a model in this process or a server.

Every backend is a `Backend`. What only some can do has a protocol of its own, which callers ask for with isinstance:
`Scoring` (log-probs of given texts), `Prefetching` (starts on requests before they are collected), `Serving` (says what
it serves), `Counting` (says what it computed).

A backend never raises for one bad request: a request that cannot be answered comes back as a `Reply` with `error` set,
which the executor turns into an ERROR verdict, so that a failure can never be mistaken for a wrong answer. Nobody asks
again after it: whether another attempt may help is known where the request is made, and tried there. Errors that
would hit every request alike (a model that does not fit, a bug) do raise.

`RemoteBackend`, for an OpenAI-compatible server, lives in tracelift/executor/remote/client.py. Left out on purpose: chat formatting,
which belongs to whoever writes the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from models import Tokenizer

Progress = Callable[[int, int], None]  # (replies so far, replies in all)


@dataclass(frozen=True)
class CompletionRequest:
    """One completion to make. Two equal requests are the same request and get the same reply."""

    prompt: str
    max_tokens: int
    temperature: float = 1.0  # 0 is greedy
    stop: tuple[str, ...] = ()  # the reply is cut before the first of them
    seed: int = 0  # names the random numbers: requests of equal seed share them, whatever their prompts
    add_special_tokens: bool = True  # False: the prompt is a rendered chat template, which spells its own first token


@dataclass(frozen=True)
class Reply:
    """`text` without the stop string and end token; `tokens` generated; `error` says why there is no text.

    `prompt_tokens` as the model read them, None where a server does not say; `finish_reason`: "stop", "length" or what the
    server calls it, empty where it does not say."""

    text: str
    tokens: int
    error: str | None = None
    prompt_tokens: int | None = field(default=None, compare=False)
    finish_reason: str = field(default="", compare=False)


@dataclass(frozen=True)
class ScoreRequest:
    """How likely is it that one of `texts` comes after the prompt, and then the end?"""

    prompt: str
    texts: tuple[str, ...]  # spellings of one answer, none of which goes on where another ends
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    add_special_tokens: bool = True


@dataclass(frozen=True)
class Likelihood:
    """`logprob` in nats of writing one of the texts and then ending; `error` says why there is none. `prompt_tokens`, and
    `scored`: tokens whose probability was asked for, ends included, over all spellings."""

    logprob: float
    error: str | None = None
    prompt_tokens: int = field(default=0, compare=False)
    scored: int = field(default=0, compare=False)


class Backend(Protocol):
    """Anything that completes text."""

    def complete(self, requests: Sequence[CompletionRequest], progress: Progress | None = None) -> list[Reply]:
        """One reply per request, in order."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same requests might be answered otherwise: cached baselines are keyed by it."""
        ...


@runtime_checkable
class Scoring(Protocol):
    """Can tell how likely given texts are, as a model in this process can (tracelift/executor/local.py)."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Likelihood]:
        """One likelihood per request, in order."""
        ...


@runtime_checkable
class Prefetching(Protocol):
    """Can start on requests before `complete` collects them (tracelift/executor/remote/prefetch.py)."""

    def begin(self, requests: Sequence[CompletionRequest]) -> None:
        """Start requests; returns at once."""
        ...


@runtime_checkable
class Counting(Protocol):
    """Runs its model in this process, and counts what went through it."""

    @property
    def computed(self) -> int:
        """Positions so far, beginnings that requests of one call share counted once."""
        ...


@runtime_checkable
class Serving(Protocol):
    """Says what is behind its address: an executor's or a Reason RM's server."""

    @property
    def served(self) -> str:
        """Changes with what is served; empty where the server does not say."""
        ...


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Everything before the first occurrence of any stop string."""
    ends = [at for s in stop if (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text


def visible_text(
    tokenizer: Tokenizer, eos_ids: Collection[int], prompt: Sequence[int], tokens: Sequence[int], stop: Sequence[str]
) -> str:
    """What a completion says: its tokens as text after `prompt`, without special tokens and whatever follows a stop string,
    which is looked for where special tokens are spelt: it may be one."""
    body = tokens[:-1] if tokens and tokens[-1] in eos_ids else tokens
    text = tokenizer.decode(body, after=prompt)
    spelt = tokenizer.decode(body, skip_special=False, after=prompt) if stop else text
    end = len(cut_at_stop(spelt, stop))
    if text == spelt or end == len(spelt):
        return text[:end]
    kept, at = 0, 0
    for piece in tokenizer.pieces(body, after=prompt):
        if at + len(piece) > end:
            break
        kept, at = kept + 1, at + len(piece)
    rest = "" if body[kept] in tokenizer.special_ids else spelt[at:end]  # of the token that the stop string begins in
    return tokenizer.decode(body[:kept], after=prompt) + rest
