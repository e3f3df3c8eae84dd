"""A Reason RM on another machine, behind the interface of the local one: a client of the authors' `/score` protocol.

    {"items": [{"problem", "reasoning", "task_name", "task_type"}], "max_length", "batch_size"} -> {"scores": [...]}

A call is a text sent and a text that came back, so tracelift/executor/remote/client.py's retries, pauses and deadlines serve it unchanged.
What cannot be scored after them is an RMScore with `error` set, which takes its sample out of the group: the released
code's 0.5 for a failed call is not repeated. So is a score outside [0, 1], which no clip may turn into a reward, and one
with NaN among its parts. `python -m tracelift.serve` answers more than the schema (each dimension, why an item has no
score) and is read so; of other servers only `scores` is known.

Left out: any promise that a server's floating-point sums are in the order of this machine's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from tracelift.errors import printable
from tracelift.executor.backend import CompletionRequest, Reply
from tracelift.executor.remote.client import RemoteBackend
from tracelift.executor.remote.transport import Failure, Server, parse_url, reply_json
from tracelift.files import as_float, parse_json
from tracelift.reward_model.scorer import RMScore, ScoreItem, no_score

SLACK = 1e-6  # of a sum of weights and sigmoids in fp32
ITEMS = 64  # in one call; the traces of a problem go together, so that a server may share its tokens


class ScoreCalls(RemoteBackend):
    """Sends `prompt` as it is; a good reply's text is the JSON it sent."""

    what, probe = "the Reason RM", CompletionRequest('{"items": [], "max_length": 1, "batch_size": 1}', 1)

    def _parse(self, url: str) -> Server:
        return parse_url(url, "", "/score")

    def _body(self, request: CompletionRequest) -> bytes:
        return request.prompt.encode()

    def _read(self, data: bytes, request: CompletionRequest) -> Reply:
        _scores(reply_json(data, anything=True), len(json.loads(request.prompt)["items"]))
        return Reply(data.decode("utf-8-sig"), 0)


class RemoteScorer:
    """Implements tracelift.reward_model.scorer.Scorer on a server."""

    def __init__(self, url: str, api_key: str | None = None, max_tokens: int = 2048, **calls: Any) -> None:
        """url: the server's root, with or without `/score`. calls: concurrency, timeout_s, retries, patience, … of RemoteBackend.

        Asks the server for nothing once, to learn its dimensions. Raises ValueError where the URL is none or nobody
        answers as a Reason RM there.
        """
        self.max_tokens = max_tokens
        patience = calls.pop("patience", None)
        self._calls = ScoreCalls(url, "", api_key, **calls)
        self._calls.knock()
        (reply,) = self._calls.complete([self._request([])])  # a wrong address is said at once, not waited for
        self._calls.patience = patience
        if reply.error is not None:
            raise ValueError(f"no Reason RM at {url}: {reply.error}")
        told = _reply(reply)
        names, served = told.get("dimension_names") or [], told.get("fingerprint") or ""
        if not isinstance(names, list) or not all(isinstance(n, str) and n.isprintable() for n in names):
            raise ValueError(f"no Reason RM at {url}: its dimension_names are {_shown(names)}, no list of names")
        self.dimension_names: tuple[str, ...] = tuple(names)
        self.served = str(served)  # of the weights; empty where the server does not say

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
                known |= zip(chunk, map(self._complete, _scores(_reply(reply), len(chunk))), strict=True)
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


def _reply(reply: Reply) -> dict[str, Any]:
    """The object that a good reply holds. NaN is let through: it is an ERROR of its item, not of all that were sent with it."""
    return parse_json(reply.text, anything=True)


def _scores(reply: dict[str, Any], count: int) -> list[RMScore]:
    """The scores of a reply. Raises Failure where it is none."""
    scores, details = reply.get("scores"), reply.get("details") or [{}] * count
    if not isinstance(scores, list) or not isinstance(details, list):
        raise Failure("not a reply of /score: scores and details are lists")
    if len(scores) != count or len(details) != count:
        raise Failure(f"not a reply of /score: {len(scores)} scores for {count} items")
    return [_score(value, d if isinstance(d, dict) else {}) for value, d in zip(scores, details, strict=True)]


def _score(value: Any, detail: dict[str, Any]) -> RMScore:
    """What a server says of one item; an ERROR where that is no judgement on this scale."""
    if value is None:
        return no_score(printable(str(detail.get("error") or "the server gave no score"))[:300])
    try:
        total, derived = _unit("score", value), _unit("derived score", detail.get("derived", value))
        head = None if detail.get("head") is None else _unit("score of the total head", detail["head"])
        dimensions = detail.get("dimensions") or ()
        if not isinstance(dimensions, (list, tuple)):
            raise ValueError(f"dimensions are {_shown(dimensions)}")
        return RMScore(total, derived, head, tuple(_finite("a dimension", x) for x in dimensions))
    except ValueError as error:
        return no_score(f"the Reason RM's server: {error}")


def _unit(what: str, value: Any) -> float:
    """A number in [0, 1], to the rounding of a server's fp32. Raises ValueError: on another scale every trace would be
    clipped to the same reward."""
    number = _finite(f"a {what}", value)
    if not -SLACK <= number <= 1 + SLACK:
        raise ValueError(f"a {what} is {_shown(value)}, outside [0, 1]: is this a Reason RM on another scale?")
    return min(1.0, max(0.0, number))


def _finite(what: str, value: Any) -> float:
    number = as_float(value)
    if number is None:
        raise ValueError(f"{what} is {_shown(value)}, no finite number")
    return number


def _shown(value: Any) -> str:
    return printable(repr(value))[:60]
