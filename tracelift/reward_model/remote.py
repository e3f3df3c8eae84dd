"""A Reason RM on another machine, behind the interface of the local one: a client of the authors' `/score` protocol.

    {"items": [{"problem", "reasoning", "task_name", "task_type"}], "max_length", "batch_size"} -> {"scores": [...]}

A call is a text sent and a text that came back, so tracelift/executor/client.py's retries, pauses and deadlines serve it unchanged.
What cannot be scored after them is an RMScore with `error` set, which takes its sample out of the group: the released
code's 0.5 for a failed call is not repeated. `python -m tracelift.serve` answers more than the schema (each dimension, why
an item has no score) and is read so; of other servers only `scores` is known.

Left out: any promise that a server's floating-point sums are in the order of this machine's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

from tracelift.executor.backend import CompletionRequest, Reply
from tracelift.executor.client import RemoteBackend
from tracelift.executor.transport import Failure, Server, parse_url
from tracelift.reward_model.scorer import RMScore, ScoreItem, no_score

ITEMS = 64  # in one call; the traces of a problem go together, so that a server may share its tokens


class _Calls(RemoteBackend):
    """Sends `prompt` as it is; a good reply's text is the JSON it sent."""

    what, probe = "the Reason RM", CompletionRequest('{"items": [], "max_length": 1, "batch_size": 1}', 1)

    def _parse(self, url: str) -> Server:
        return parse_url(url, "", "/score")

    def _body(self, request: CompletionRequest) -> bytes:
        return request.prompt.encode()

    def _read(self, data: bytes, request: CompletionRequest) -> Reply:
        try:
            text = data.decode()
            _scores(text, len(json.loads(request.prompt)["items"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Failure(f"not a reply of /score: {error}") from None
        return Reply(text, 0)


class RemoteScorer:
    """Implements tracelift.reward_model.scorer.Scorer on a server."""

    def __init__(self, url: str, api_key: str | None = None, max_tokens: int = 2048, **calls: Any) -> None:
        """url: the server's root, with or without `/score`. calls: concurrency, timeout_s, retries, patience, … of RemoteBackend.

        Asks the server for nothing once, to learn its dimensions. Raises ValueError where the URL is none or nobody
        answers as a Reason RM there.
        """
        self.max_tokens = max_tokens
        patience = calls.pop("patience", None)
        self._calls = _Calls(url, "", api_key, **calls)
        (reply,) = self._calls.complete([self._request([])])  # a wrong address is said at once, not waited for
        self._calls.patience = patience
        if reply.error is not None:
            raise ValueError(f"no Reason RM at {url}: {reply.error}")
        told = json.loads(reply.text)
        self.dimension_names = tuple(map(str, told.get("dimension_names") or ()))
        self.served = str(told.get("fingerprint") or "")  # of the weights; empty where the server does not say

    @property
    def fingerprint(self) -> str:
        """sha256 of the server's address, the bound on tokens sent with each call, and what the server says of its weights."""
        return hashlib.sha256(repr((self._calls.server, self.max_tokens, self.served)).encode()).hexdigest()

    def score(self, items: Sequence[ScoreItem]) -> list[RMScore]:
        """One score per item, in order; equal items are sent once."""
        by_problem: dict[str, list[ScoreItem]] = {}
        for item in dict.fromkeys(items):
            by_problem.setdefault(item.problem, []).append(item)
        distinct = [item for group in by_problem.values() for item in group]
        chunks = [distinct[i : i + ITEMS] for i in range(0, len(distinct), ITEMS)]
        known: dict[ScoreItem, RMScore] = {}
        for chunk, reply in zip(chunks, self._calls.complete([self._request(c) for c in chunks]), strict=True):
            if reply.error is not None:
                known |= {item: no_score(f"the Reason RM's server: {reply.error}") for item in chunk}
            else:
                known |= zip(chunk, map(self._complete, _scores(reply.text, len(chunk))), strict=True)
        return [known[item] for item in items]

    def _complete(self, score: RMScore) -> RMScore:
        n, m = len(score.dimensions), len(self.dimension_names)
        return (
            score
            if score.error is not None or n == m
            else no_score(f"the Reason RM's server gave {n} dimensions of {m}")
        )

    def _request(self, items: Sequence[ScoreItem]) -> CompletionRequest:
        rows = [
            {"problem": i.problem, "reasoning": i.reasoning, "task_name": i.task_type, "task_type": i.type_text}
            | ({"tests": i.tests} if i.tests else {})
            for i in items
        ]
        return CompletionRequest(json.dumps({"items": rows, "max_length": self.max_tokens, "batch_size": ITEMS}), 1)


def _scores(text: str, count: int) -> list[RMScore]:
    """The scores of a reply. Raises ValueError, KeyError, TypeError or AttributeError where it is none."""
    reply = json.loads(text)
    scores = reply["scores"]
    details = reply.get("details") or [{}] * count
    if len(scores) != count or len(details) != count:
        raise ValueError(f"{len(scores)} scores for {count} items")
    return [_score(value, detail) for value, detail in zip(scores, details, strict=True)]


def _score(value: Any, detail: dict[str, Any]) -> RMScore:
    if value is None:
        return no_score(str(detail.get("error") or "the server gave no score"))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"a score is {value!r}")
    head = detail.get("head")
    dimensions = tuple(float(x) for x in detail.get("dimensions", ()))
    return RMScore(float(value), float(detail.get("derived", value)), None if head is None else float(head), dimensions)
