"""An executor on another machine: a client of the OpenAI-compatible `/v1/completions` protocol.

vLLM, SGLang and llama.cpp's server speak it. Requests run concurrently, each with the deadline and the retries of
transport.py beside this file. A request that still fails becomes a `Reply` with `error` set, never an exception and
never an empty text: the executor turns it into an ERROR verdict, and its sample leaves the group. So does a text that the
server says it broke off (`finish_reason` abort, error, content_filter), and one that is empty for an unknown reason.

A server that is gone altogether is another matter (nobody listens, nothing comes back in time, 502, 503, 504): with an
`Outage` all requests wait until a completion of one token is answered again, and those that were lost are asked anew.
Where that is answered at once, the server was there and the failing request is at fault, unless no server ever took it:
then one came back in between. At fault is also what failed three times in this way: it may be what brings the server down.

The law is the one that was asked for: softmax(logits / temperature) whole. Servers truncate it unless they are told not to
(llama.cpp by numbers of its own, vLLM by the model's generation_config.json), so every request says top_p, top_k, min_p and
repetition_penalty in their neutral values. A server that refuses the last three is asked without them, which is said once.

Left out on purpose: chat endpoints (prompts are formatted by whoever writes them), streaming, and any promise that a
server draws the same text twice: `seed` is sent, but batching moves bits on most servers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from tracelift.errors import printable
from tracelift.executor.backend import CompletionRequest, Progress, Reply, cut_at_stop
from tracelift.executor.remote.outage import Outage
from tracelift.executor.remote.transport import CalledOff, Failure, Server, Transport, parse_url, reply_json, start_of

MAX_STOPS = 4  # the protocol's limit; the text is cut at all of them here anyway
# What an entry of /v1/models says of its model; the rest may change by the call.
COMPLETIONS = "/v1/completions"
TELLING = ("id", "root", "parent", "meta", "fingerprint")
ENDED = (
    "stop",
    "length",
    "eos",
    "eos_token",
    "stop_sequence",
)  # finish_reason of a model that was done, or cut as asked
BROKEN = (
    "abort",
    "aborted",
    "cancelled",
    "error",
    "content_filter",
    "timeout",
)  # of one that was not, whatever its text
NEUTRAL = {
    "top_k": -1,
    "min_p": 0,
    "repetition_penalty": 1,
}  # beyond OpenAI's protocol; vLLM, SGLang, llama.cpp know them
OUTAGES = 3  # a request lost in so many is no longer thought innocent
PROBE = CompletionRequest("Are you there?", max_tokens=1, temperature=0.0)


@dataclass(frozen=True)
class _Answer:
    """A reply, and of one that failed whether the server was gone, whether this request had all its attempts, and whether
    a server may have read it at the last."""

    reply: Reply
    gone: bool = False
    tried: bool = True
    heard: bool = True


class RemoteBackend(Transport):
    """Completes text on a server. Implements tracelift.executor.backend.Backend."""

    what, probe = "the executor", PROBE  # who is waited for, and what is asked to see whether it is back

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        concurrency: int = 16,
        patience: Outage | None = None,
        **transport: Any,
    ) -> None:
        """url: the server's root, with or without `/v1`. model: its name there; empty: the only one it serves. patience: how long to wait for a server that is gone; None: not at
        all. transport: timeout_s, retries, backoff_s, … of Transport.

        Raises ValueError for a URL without http(s) or host, and for numbers that make no sense.
        """
        if concurrency < 1:
            raise ValueError(f"{concurrency=} must be ≥ 1")
        super().__init__(self._parse(url), api_key, **transport)
        self.model, self.concurrency = model, concurrency
        self.patience, self._away = patience, threading.Event()
        self._neutral, self._lock = NEUTRAL, threading.Lock()

    def _parse(self, url: str) -> Server:
        return parse_url(url, "/v1", "/completions")

    @property
    def fingerprint(self) -> str:
        """sha256 of the server's address, the model's name, and what the server says it serves; where it says nothing the
        address stands for the model. Raises what `served` does."""
        told = (self.served,) if self.served else ()
        known = (self.server, self.name, *told, "whole")  # the law: earlier versions let servers truncate it
        return hashlib.sha256(repr(known).encode()).hexdigest()

    @functools.cached_property
    def name(self) -> str:
        """The model's name: the given one, or the only one that /v1/models lists; empty where none is told.

        Raises ValueError where several are served and none is named, and what `_listed` does.
        """
        if self.model:
            return self.model
        names = [row["id"] for row in self._listed if isinstance(row.get("id"), str)]
        if len(names) > 1:
            raise ValueError(f"{self.server.name} serves several models; name one of {', '.join(names)}")
        return "".join(names)

    @functools.cached_property
    def served(self) -> str:
        """What /v1/models says of the model: a fingerprint of its weights (tracelift.serve), the folder it was loaded from
        (vLLM), its file and size (llama.cpp), at least its name. Empty where that is not answered.

        Raises what `_listed` does.
        """
        rows = [{k: row[k] for k in TELLING if row.get(k) is not None} for row in self._listed]
        rows = [row for row in rows if row]
        return json.dumps([row for row in rows if row.get("id") == self.name] or rows, sort_keys=True) if rows else ""

    @functools.cached_property
    def _listed(self) -> list[dict[str, Any]]:
        """The entries of /v1/models, asked once; none where that is not answered.

        Raises ServerGone where the server is gone for longer than `patience` allows.
        """
        path = self.server.path.rpartition("/completions")[0] + "/models"
        while True:
            answer = self._answer(lambda: Reply(json.dumps(_entries(self.exchange("GET", path))), 0))
            waits = answer.gone and self.patience is not None and self.patience.seconds > 0
            if not (
                waits and self.patience and self.patience.wait(f"{self.what} at {self.server.name}", self._missing)
            ):
                return json.loads(answer.reply.text or "[]")

    def complete(self, requests: Sequence[CompletionRequest], progress: Progress | None = None) -> list[Reply]:
        """One reply per request, in order; equal requests are sent once. Failures are replies with `error` set.

        Raises ServerGone where the server is gone for longer than `patience` allows; without one such failures are
        replies too.
        """
        replies: dict[CompletionRequest, Reply] = {}
        outages: dict[CompletionRequest, int] = {}
        left = list(dict.fromkeys(requests))
        while left:
            lost = self._ask(left, replies, progress)
            if not lost or self.patience is None or self.patience.seconds <= 0:
                replies |= {r: a.reply for r, a in lost.items()}
                break
            waited = self.patience.wait(f"{self.what} at {self.server.name}", self._missing)
            left = []
            for request, answer in lost.items():
                outages[request] = outages.get(request, 0) + answer.tried
                there = not waited and answer.heard
                if answer.tried and (there or outages[request] >= OUTAGES):
                    replies[request] = answer.reply
                else:
                    left.append(request)
        return [replies[r] for r in requests]

    def _ask(
        self, requests: Sequence[CompletionRequest], replies: dict[CompletionRequest, Reply], progress: Progress | None
    ) -> dict[CompletionRequest, _Answer]:
        """Ask all side by side, add what came to `replies`, and return those for which there seemed to be no server."""
        lost: dict[CompletionRequest, _Answer] = {}
        total = len(replies) + len(requests)
        self._away.clear()
        with ThreadPoolExecutor(min(self.concurrency, max(1, len(requests)))) as pool:
            pending = {pool.submit(self._one, r): r for r in requests}
            for done in as_completed(pending):
                answer = done.result()
                if answer.gone:
                    lost[pending[done]] = answer
                    continue
                replies[pending[done]] = answer.reply
                if progress is not None:
                    progress(len(replies), total)
        return {r: lost[r] for r in requests if r in lost}

    def _one(self, request: CompletionRequest) -> _Answer:
        return self._answer(lambda: self._attempt(request))

    def _answer(self, attempt_once: Callable[[], Reply]) -> _Answer:
        try:
            return _Answer(self.persist(attempt_once, self._away.is_set))
        except Failure as failure:
            tried = not isinstance(failure, CalledOff)
            if tried and failure.gone and self.patience is not None:
                self._away.set()  # no other request needs to find out again
            return _Answer(Reply("", 0, str(failure)), failure.gone, tried, failure.heard)

    def _missing(self) -> str | None:
        """Why there seems to be no server; None where a completion of one token is answered, if only by a refusal."""
        try:
            self._attempt(self.probe)
        except Failure as failure:
            return str(failure) if failure.gone else None
        return None

    def _body(self, request: CompletionRequest) -> bytes:
        """What is sent for a request."""
        body = {
            **({"model": self.name} if self.name else {}),
            "prompt": request.prompt,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed - 2**64 * (request.seed >= 2**63),  # servers read a signed 64-bit integer
            "n": 1,
            "top_p": 1,
            **self._neutral,
        }
        if request.stop:
            body["stop"] = list(request.stop[:MAX_STOPS])
        return json.dumps(body).encode()

    def _read(self, data: bytes, request: CompletionRequest) -> Reply:
        """What a good reply says. Raises Failure where it is none."""
        return _read(data, request)

    def _attempt(self, request: CompletionRequest) -> Reply:
        sent = self._neutral
        try:
            data = self.exchange("POST", self.server.path, self._body(request))
        except Failure as refusal:
            if refusal.passing or not any(name in str(refusal) for name in sent):
                raise
            with self._lock:
                if self._neutral:
                    self._neutral = {}
                    if self.patience is not None:
                        self.patience.say(
                            f"{self.server.name} is asked without {', '.join(sent)}, so it may truncate: {refusal}"
                        )
            data = self.exchange("POST", self.server.path, self._body(request))
        return self._read(data, request)


def _read(data: bytes, request: CompletionRequest) -> Reply:
    """The text of a well-formed reply. Raises Failure for all else: what a server cut short, or could not say, is no answer."""
    reply = reply_json(data)
    if reply.get("error") is not None:
        raise Failure(f"the reply holds an error: {start_of(data)}")
    choices, usage = reply.get("choices"), reply.get("usage")
    choice = choices[0] if isinstance(choices, list) and choices else None
    text = choice.get("text") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(text, str):
        raise Failure(f"not a completion: text is {type(text).__name__} in {start_of(data)!r}")
    tokens = usage.get("completion_tokens", 0) if isinstance(usage, dict) else 0
    if type(tokens) is not int or not 0 <= tokens < 2**31:
        raise Failure(f"not a completion: completion_tokens is no count of tokens in {start_of(data)!r}")
    why = choice.get("finish_reason")
    if why is not None and why not in ENDED and (not text or why in BROKEN):
        raise Failure(f"the server ended the completion early: finish_reason {printable(str(why))[:80]!r}")
    # JSON can spell half of a surrogate pair, which is no character and could not be written to any file.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    known = read if type(read) is int and 0 <= read < 2**31 else None
    return Reply(cut_at_stop(text, request.stop), tokens, None, known, why if isinstance(why, str) else "")


def _entries(data: bytes) -> list[dict[str, Any]]:
    """The models of a list that can be asked for completions: of all but ours, whichever it names."""
    listed = reply_json(data).get("data")
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    if not rows:
        raise Failure("not a list of models", passing=False)
    return [row for row in rows if row.get("endpoint", COMPLETIONS) == COMPLETIONS]
