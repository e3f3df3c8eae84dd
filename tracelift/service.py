"""Ranks that only serve: the last `executor.ranks` of a job hold executor and Reason RM, the others train and ask them.

A planner rank deals its requests over the serving ranks, whole prompts to one rank so that runs of one prompt share its
cache, and waits for the texts; a serving rank answers one such message at a time, in the order of their coming. Draws are
keyed by the request, so texts, and the run, are the same wherever they are made (tests/tracelift/test_service.py).

Messages travel by torch.distributed's gloo, point to point: a knock that says who is there, then the objects. The group
that carries them includes everyone and waits for days, since a serving rank idles while the others update; whether a
planner rank is alive is told by the planner ranks' own group and by torchrun. An error while serving goes back to whoever
asked and ends the run there.

Left out: merging several ranks' messages into one batch, and serving a job other than this one (that is a server's work:
`executor.url`).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist

from tracelift.backend import Backend, CompletionRequest, Progress, Reply
from tracelift.distributed import World
from tracelift.reason_rm import RMScore, Scorer, ScoreItem
from tracelift.training import TrainingError

COMPLETE, SCORE, ABOUT, DONE = range(4)


def _post(world: World, to: int, kind: int, payload: Any) -> list[dist.Work]:
    """Send a message without waiting for it to be taken: a knock (kind, bytes), then the bytes."""
    data = torch.frombuffer(bytearray(pickle.dumps(payload)), dtype=torch.uint8)  # between ranks only, as torch's own do
    return [dist.isend(part, to, group=world.post) for part in (torch.tensor([kind, len(data)]), data)]


def _take(world: World, source: int | None) -> tuple[int, int, Any]:
    """Wait for a message from `source`, or from anyone: (sender, kind, payload)."""
    knock = torch.zeros(2, dtype=torch.int64)
    sender = dist.recv(knock, source, group=world.post)
    data = torch.empty(int(knock[1]), dtype=torch.uint8)
    dist.recv(data, sender, group=world.post)
    return sender, int(knock[0]), pickle.loads(data.numpy().tobytes())


class Service:
    """A planner rank's end of the line: `backend` and `scorer` that ask the serving ranks."""

    def __init__(self, world: World) -> None:
        self.world = world
        at = world.rank % len(world.servers)
        self.servers = world.servers[at:] + world.servers[:at]  # not all ranks ask the same one first
        (self.about,) = self.ask({world.servers[0]: (ABOUT, None)}).values()
        self.backend = RankBackend(self)
        self.scorer: Scorer | None = RankScorer(self) if self.about["dimension_names"] is not None else None

    def ask(self, wanted: dict[int, tuple[int, Any]]) -> dict[int, Any]:
        """Send each rank its (kind, payload), then collect the answers. Raises TrainingError on what failed there.

        All are sent before any is waited for: two planner ranks that each wait to be heard by the serving rank that is
        answering the other would wait for ever.
        """
        sent = [work for rank, message in wanted.items() for work in _post(self.world, rank, *message)]
        answers = {}
        for rank in wanted:
            _, failed, answers[rank] = _take(self.world, rank)
            if failed:
                raise TrainingError(f"executor rank {rank}: {answers[rank]}")
        for work in sent:
            work.wait()
        return answers

    def deal(self, kind: int, items: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, Any]:
        """Distinct items to their answers; items of one key go to one rank, keys in runs as they stand."""
        distinct = list(dict.fromkeys(items))
        keys = {k: i for i, k in enumerate(dict.fromkeys(map(key, distinct)))}
        shares: dict[int, list[Any]] = {}
        for item in distinct:
            shares.setdefault(self.servers[keys[key(item)] * len(self.servers) // len(keys)], []).append(item)
        answers = self.ask({rank: (kind, share) for rank, share in shares.items()})
        return {item: answer for rank, share in shares.items() for item, answer in zip(share, answers[rank], strict=True)}

    def close(self) -> None:
        """Tell the serving ranks that this one will ask no more; they end when all have said so."""
        with suppress(RuntimeError):  # one that died has no need of it, and why this rank ends is said already
            for work in [work for rank in self.servers for work in _post(self.world, rank, DONE, None)]:
                work.wait()


class RankBackend:
    """tracelift.backend.Backend on serving ranks."""

    def __init__(self, service: Service) -> None:
        self.service, self.fingerprint = service, service.about["fingerprint"]

    def complete(self, requests: Sequence[CompletionRequest], progress: Progress | None = None) -> list[Reply]:
        replies = self.service.deal(COMPLETE, requests, lambda r: r.prompt)
        if progress is not None:
            progress(len(replies), len(replies))
        return [replies[r] for r in requests]


class RankScorer:
    """tracelift.reason_rm.Scorer on serving ranks."""

    def __init__(self, service: Service) -> None:
        self.service, self.dimension_names = service, service.about["dimension_names"]
        self.fingerprint = service.about["scorer"]

    def score(self, items: Sequence[ScoreItem]) -> list[RMScore]:
        scores = self.service.deal(SCORE, items, lambda item: item.problem)
        return [scores[item] for item in items]


def serve(world: World, backend: Backend, scorer: Scorer | None) -> None:
    """Answer the planner ranks until every one of them has said that it is done."""
    about = {"fingerprint": backend.fingerprint, "dimension_names": scorer.dimension_names if scorer else None,
             "scorer": scorer.fingerprint if scorer else None}  # fmt: skip
    work: dict[int, Callable[[Any], Any]] = {COMPLETE: backend.complete, ABOUT: lambda _: about}
    if scorer is not None:
        work[SCORE] = scorer.score
    left = world.size
    while left:
        who, kind, payload = _take(world, None)
        if kind == DONE:
            left -= 1
            continue
        try:
            failed, answer = 0, work[kind](payload)
        except Exception as e:  # whatever it is, whoever asked has to hear of it
            failed, answer = 1, f"{type(e).__name__}: {e}"
        for sending in _post(world, who, failed, answer):
            sending.wait()
