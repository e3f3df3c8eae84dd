"""One worker a model: requests that come while it is busy are its next batch.

HTTP threads hand in the parts of a request and wait; the worker takes what is waiting (up to `most` units), runs it in one
call and hands the results back. Requests take turns: part k of a request that comes while part v is served stands in turn
v + k, so that a request of one part waits for the call under way and not for all parts of a long request before it, and
the long one loses at most a place for each that comes (start-time fair queueing: Goyal, Vin and Cheng 1996). A call that
fails is run again one job at a time, so that a job answers for itself alone. A job whose sender has gone is dropped before
it costs anything.

Left out: priorities, and joining a call that runs already.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tracelift.serve.fields import Refused

Payload = TypeVar("Payload")
Result = TypeVar("Result")
GATHER_S = 0.003  # requests sent together arrive within this


@dataclass(eq=False)
class Job(Generic[Payload, Result]):
    payload: Payload
    units: int  # completions or traces
    request: int  # which all parts of one request share
    done: threading.Event = field(default_factory=threading.Event)
    result: Result | None = None
    error: Refused | None = None
    dropped: bool = False


class Batcher(Generic[Payload, Result]):
    """Runs payloads of many threads on one thread, together where they wait together."""

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Payload]], Sequence[Result]],
        most: int,
        waiting: int,
        say: Callable[[str], None],
    ) -> None:
        """run(payloads) gives one result each, or raises ValueError for what cannot be run. most: units in one call;
        waiting: units in the queue, past which a request is refused. say: one line a call."""
        self.name, self.run, self.most, self.waiting, self.say = name, run, most, waiting, say
        self._queue: list[tuple[int, int, Job[Payload, Result]]] = []  # a heap of (turn, number of the request, job)
        self._arrivals, self._turn = itertools.count(), 0
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, parts: Sequence[tuple[Payload, int]]) -> list[Job[Payload, Result]]:
        """A job for each part of a request, all or none. Raises Refused: 429 where the queue is full, 503 where the server
        is closing."""
        with self._change:
            number = next(self._arrivals)
            jobs: list[Job[Payload, Result]] = [Job(payload, units, number) for payload, units in parts]
            if self._closed:
                raise Refused(503, "the server is shutting down", retry_after=5)
            queued = sum(job.units for _, _, job in self._queue)
            if self._queue and queued + sum(job.units for job in jobs) > self.waiting:
                raise Refused(
                    429, f"the queue is full: {queued} {self.name} wait already; try again later", retry_after=1
                )
            for turn, job in enumerate(jobs, start=self._turn):
                heapq.heappush(self._queue, (turn, number, job))
            self._change.notify_all()
        return jobs

    def wait(self, jobs: Sequence[Job[Payload, Result]], seconds: float, gone: Callable[[], bool]) -> list[Result]:
        """The jobs' results. Raises Refused with the first error, or 503 after `seconds` or where their sender has `gone`."""
        deadline = time.monotonic() + seconds
        try:
            return [self._wait(job, deadline, seconds, gone) for job in jobs]
        finally:
            for job in jobs:  # those that are not done are waited for no more
                job.dropped = True

    def _wait(self, job: Job[Payload, Result], deadline: float, seconds: float, gone: Callable[[], bool]) -> Result:
        while not job.done.wait(min(0.05, max(0.001, deadline - time.monotonic()))):
            if gone():
                raise Refused(503, "the client closed the connection")
            if time.monotonic() > deadline:
                raise Refused(503, f"no result within {seconds:g} s; ask for less at once", retry_after=5)
        if job.error is not None:
            raise job.error
        assert job.result is not None, "done without a result"
        return job.result

    def close(self, seconds: float) -> bool:
        """Take nothing new, finish what waits. Returns whether all was finished within `seconds`."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def depth(self) -> int:
        """Requests of which some part waits."""
        return len({number for _, number, _ in self._queue})

    def _work(self) -> None:
        while batch := self._take():
            started = time.monotonic()
            self._answer(batch)
            units, requests = sum(j.units for j in batch), len({j.request for j in batch})
            took = f"{time.monotonic() - started:.2f} s"
            self.say(f"{units} {self.name} of {requests} requests in {took}, {self.depth} requests wait")

    def _take(self) -> list[Job[Payload, Result]]:
        """Whatever waits, in turn, up to `most` units but one job at least; an empty list once closed and drained."""
        with self._change:
            while not self._queue and not self._closed:
                self._change.wait()
        time.sleep(GATHER_S)
        with self._change:
            batch: list[Job[Payload, Result]] = []
            units = 0
            while self._queue and (not batch or units + self._queue[0][2].units <= self.most):
                self._turn, _, job = heapq.heappop(self._queue)
                if not job.dropped:
                    batch.append(job)
                    units += job.units
        return batch if batch or (self._closed and not self._queue) else self._take()

    def _answer(self, batch: list[Job[Payload, Result]]) -> None:
        try:
            results = self.run([job.payload for job in batch])
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    self._answer([job])
                return
            status = 400 if isinstance(error, ValueError) else 500
            batch[0].error = Refused(
                status, str(error) if status == 400 else f"the model failed: {type(error).__name__}: {error}"
            )
            if status == 500:
                self.say(f"{self.name}: {type(error).__name__}: {error}")
            batch[0].done.set()
            return
        for job, result in zip(batch, results, strict=True):
            job.result = result
            job.done.set()
