"""An executor on another machine: a client of the OpenAI-compatible `/v1/completions` protocol.

vLLM, SGLang and llama.cpp's server speak it. Requests run concurrently, each with a deadline of its own; what may pass
(refused or dropped connections, timeouts, 408, 409, 425, 429, 5xx, replies that are not the protocol's JSON) is retried
after an exponentially growing, jittered pause (Retry-After is honoured), what cannot (other 4xx) is not. A request that
still fails becomes a `Reply` with `error` set, never an exception and never an empty text: the executor turns it into
an ERROR verdict, and its sample leaves the group.

A server that is gone altogether is another matter (nobody listens, nothing comes back in time, 502, 503, 504): with an
`Outage` all requests wait until a completion of one token is answered again, and those that were lost are asked anew.
Where that is answered at once, the server was there and the failing request is at fault, as is one that was under way in
three outages: it may be what brings the server down.

Standard library only. Left out on purpose: chat endpoints (prompts are formatted by whoever writes them), streaming,
and any promise that a server draws the same text twice: `seed` is sent, but batching moves bits on most servers.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from urllib.parse import urlsplit

from tracelift.executor.backend import CompletionRequest, Progress, Reply, cut_at_stop
from tracelift.executor.outage import Outage

MAX_BYTES = 16 * 2**20  # a longer reply is rubbish: no completion comes near
MAX_STOPS = 4  # the protocol's limit; the text is cut at all of them here anyway
PASSING = {408, 409, 425, 429}  # worth another try, like every 5xx but one
NEVER = 501  # not implemented
GONE = {502, 503, 504}  # said by what stands before a server that is not there, or by one that is not ready
TELLING = (
    "id",
    "root",
    "parent",
    "meta",
    "fingerprint",
)  # what an entry of /v1/models says of its model; the rest may change by the call
OUTAGES = 3  # a request lost in so many is no longer thought innocent
PROBE = CompletionRequest("Are you there?", max_tokens=1, temperature=0.0)


class _Failure(Exception):
    """One attempt failed; `passing` says whether another may succeed, `pause` when the server wants it (seconds), `gone`
    whether there seems to be no server at all."""

    def __init__(self, message: str, passing: bool = True, pause: float | None = None, gone: bool = False) -> None:
        super().__init__(message)
        self.passing, self.pause, self.gone = passing, pause, gone


@dataclass(frozen=True)
class _Answer:
    """A reply, and of one that failed whether the server was gone and whether this request had all its attempts."""

    reply: Reply
    gone: bool = False
    tried: bool = True


@dataclass(frozen=True)
class _Server:
    secure: bool
    host: str
    port: int | None
    path: str

    @property
    def name(self) -> str:
        return f"http{'s' * self.secure}://{self.host}{'' if self.port is None else f':{self.port}'}"


class RemoteBackend:
    """Completes text on a server. Implements tracelift.executor.backend.Backend."""

    what, probe = "the executor", PROBE  # who is waited for, and what is asked to see whether it is back

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        concurrency: int = 16,
        timeout_s: float = 60,
        retries: int = 4,
        backoff_s: float = 0.5,
        longest_pause_s: float = 30,
        sleep: Callable[[float], None] = time.sleep,
        patience: Outage | None = None,
    ) -> None:
        """url: the server's root, with or without `/v1`. timeout_s: seconds one attempt may take as a whole, so that a
        server that drips a byte a minute cannot hold it. retries: attempts after the first. backoff_s doubles with each
        one up to longest_pause_s and is multiplied by a random factor in [0.5, 1.5). patience: how long to wait for a server
        that is gone; None: not at all.

        Raises ValueError for a URL without http(s) or host, and for numbers that make no sense.
        """
        if concurrency < 1 or retries < 0 or timeout_s <= 0 or backoff_s < 0:
            raise ValueError(f"{concurrency=} must be ≥ 1, {retries=} and {backoff_s=} ≥ 0, {timeout_s=} > 0")
        self.server, self.model, self.api_key = self._parse(url), model, api_key
        self.concurrency, self.timeout_s, self.retries = concurrency, timeout_s, retries
        self.backoff_s, self.longest_pause_s, self._sleep = backoff_s, longest_pause_s, sleep
        self.patience, self._away = patience, threading.Event()

    def _parse(self, url: str) -> _Server:
        return parse_url(url, "/v1", "/completions")

    @property
    def fingerprint(self) -> str:
        """sha256 of the server's address, the model's name, and what the server says it serves; where it says nothing the
        address stands for the model. Raises what `served` does."""
        known = (self.server, self.model, self.served) if self.served else (self.server, self.model)
        return hashlib.sha256(repr(known).encode()).hexdigest()

    @functools.cached_property
    def served(self) -> str:
        """What /v1/models says of the model, asked once: a fingerprint of its weights (tracelift.serve), the folder it was
        loaded from (vLLM), its file and size (llama.cpp), at least its name. Empty where that is not answered.

        Raises ServerGone where the server is gone for longer than `patience` allows.
        """
        path = self.server.path.rpartition("/completions")[0] + "/models"
        while True:
            answer = self._persist(lambda: Reply(_told(self._exchange("GET", path), self.model), 0))
            if answer.gone and self.patience is not None and self.patience.seconds > 0:
                if self.patience.wait(f"{self.what} at {self.server.name}", self._missing):
                    continue
            return answer.reply.text

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
                if answer.tried and (not waited or outages[request] >= OUTAGES):
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
        return self._persist(lambda: self._attempt(request))

    def _persist(self, attempt_once: Callable[[], Reply]) -> _Answer:
        jitter = random.Random()  # timing only: no draw of text depends on it
        last, attempt = None, 0
        for attempt in range(self.retries + 1):
            if self._away.is_set():  # another request had all its attempts: no need to find out again
                return _Answer(Reply("", 0, str(last or "the server is gone")), gone=True, tried=False)
            try:
                return _Answer(attempt_once())
            except _Failure as failure:
                last = failure
            if not last.passing or attempt == self.retries:
                break
            pause = min(self.longest_pause_s, self.backoff_s * 2**attempt) * (0.5 + jitter.random())
            self._sleep(pause if last.pause is None else min(max(pause, last.pause), self.longest_pause_s))
        assert last is not None
        if last.gone and self.patience is not None:
            self._away.set()
        return _Answer(Reply("", 0, f"{last} (attempt {attempt + 1} of {self.retries + 1})"), gone=last.gone)

    def _missing(self) -> str | None:
        """Why there seems to be no server; None where a completion of one token is answered, if only by a refusal."""
        try:
            self._attempt(self.probe)
        except _Failure as failure:
            return str(failure) if failure.gone else None
        return None

    def _body(self, request: CompletionRequest) -> bytes:
        """What is sent for a request."""
        body = {
            "model": self.model,
            "prompt": request.prompt,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed - 2**64 * (request.seed >= 2**63),  # servers read a signed 64-bit integer
            "n": 1,
        }
        if request.stop:
            body["stop"] = list(request.stop[:MAX_STOPS])
        return json.dumps(body).encode()

    def _read(self, data: bytes, request: CompletionRequest) -> Reply:
        """What a good reply says. Raises _Failure where it is none."""
        return _read(data, request)

    def _attempt(self, request: CompletionRequest) -> Reply:
        return self._read(self._exchange("POST", self.server.path, self._body(request)), request)

    def _exchange(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of a 200. Raises _Failure for everything else."""
        status, headers, data = self._send(method, path, body)
        if status != 200:
            detail = " ".join(data[:300].decode("utf-8", "replace").split())
            raise _Failure(
                f"the server answered {status}: {detail}",
                status in PASSING or (status >= 500 and status != NEVER),
                _retry_after(headers),
                status in GONE,
            )
        return data

    def _send(self, method: str, path: str, body: bytes | None) -> tuple[int, http.client.HTTPMessage, bytes]:
        s, deadline = self.server, time.monotonic() + self.timeout_s
        kind = http.client.HTTPSConnection if s.secure else http.client.HTTPConnection
        options = {"context": ssl.create_default_context()} if s.secure else {}
        connection = kind(s.host, s.port, timeout=self.timeout_s, **options)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = b""
            while piece := response.read1(65_536):
                data += piece
                if len(data) > MAX_BYTES:
                    raise _Failure(f"the reply exceeds {MAX_BYTES:,} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError
            missing = response.length  # of the announced Content-Length
            if missing:
                raise _Failure(f"the connection ended {missing} bytes before the reply did")
            return response.status, response.headers, data
        except TimeoutError:
            raise _Failure(f"no complete reply from {s.host} within {self.timeout_s:g} s", gone=True) from None
        except (OSError, http.client.HTTPException) as error:
            raise _Failure(f"connection to {s.host}: {type(error).__name__}: {error}", gone=True) from None
        finally:
            connection.close()


def _read(data: bytes, request: CompletionRequest) -> Reply:
    """The text of a well-formed reply; anything else is a failure that may pass."""
    try:
        reply = json.loads(data)
        text = reply["choices"][0]["text"]
        usage = reply.get("usage") or {}
        tokens = usage.get("completion_tokens", 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        start = " ".join(data[:200].decode("utf-8", "replace").split())
        raise _Failure(f"not a completion ({type(error).__name__}): {start!r}") from None
    if not isinstance(text, str) or not isinstance(tokens, int):
        raise _Failure(f"not a completion: text is {type(text).__name__}, completion_tokens {type(tokens).__name__}")
    # JSON can spell half of a surrogate pair, which is no character and could not be written to any file.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Reply(cut_at_stop(text, request.stop), tokens)


def _told(data: bytes, model: str) -> str:
    """The entries of a list of models that are called `model`, or all where none is, in a form that stays the same."""
    try:
        rows = [{k: row[k] for k in TELLING if row.get(k) is not None} for row in json.loads(data)["data"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        rows = []
    if not rows:
        raise _Failure("not a list of models", passing=False)
    return json.dumps([row for row in rows if row.get("id") == model] or rows, sort_keys=True)


def _retry_after(headers: http.client.HTTPMessage) -> float | None:
    """Seconds, where the server says so in seconds; its other form, a date, is ignored."""
    value = (headers.get("Retry-After") or "").strip()
    return float(value) if value.isdigit() else None


def parse_url(url: str, root: str, endpoint: str) -> _Server:
    """The server of `endpoint`, from its address with or without `root` and `endpoint`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url {url!r} must look like http://host:8000 or https://host{root}")
    path = parts.path.rstrip("/").removesuffix(endpoint)
    path = path if path.endswith(root) else path + root
    return _Server(parts.scheme == "https", parts.hostname, parts.port, path + endpoint)
