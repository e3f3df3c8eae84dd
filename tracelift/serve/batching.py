"""One worker a model: requests that come while it is busy are its next batch.

HTTP threads hand in jobs and wait; the worker takes everything that is waiting (up to `most` units), runs it in one call
and hands the results back. A call that fails is run again one job at a time, so that a job answers for itself alone. A job
whose sender has gone is dropped before it costs anything.

Left out: priorities, and joining a call that runs already.
"""

from __future__ import annotations

import threading
import time
from collections import deque
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
        waiting: units in the queue, past which a job is refused. say: one line a call."""
        self.name, self.run, self.most, self.waiting, self.say = name, run, most, waiting, say
        self._queue: deque[Job[Payload, Result]] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, payload: Payload, units: int) -> Job[Payload, Result]:
        """Raises Refused: 429 where the queue is full, 503 where the server is closing."""
        job: Job[Payload, Result] = Job(payload, units)
        with self._change:
            if self._closed:
                raise Refused(503, "the server is shutting down", retry_after=5)
            queued = sum(j.units for j in self._queue)
            if self._queue and queued + units > self.waiting:
                raise Refused(
                    429, f"the queue is full: {queued} {self.name} wait already; try again later", retry_after=1
                )
            self._queue.append(job)
            self._change.notify_all()
        return job

    def wait(self, job: Job[Payload, Result], seconds: float, gone: Callable[[], bool]) -> Result:
        """The job's result. Raises Refused with its error, or 503 after `seconds` or where its sender has `gone`."""
        deadline = time.monotonic() + seconds
        while not job.done.wait(min(0.05, max(0.001, deadline - time.monotonic()))):
            if gone():
                job.dropped = True
                raise Refused(503, "the client closed the connection")
            if time.monotonic() > deadline:
                job.dropped = True
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
        return len(self._queue)

    def _work(self) -> None:
        while batch := self._take():
            started = time.monotonic()
            self._answer(batch)
            units = sum(j.units for j in batch)
            self.say(
                f"{units} {self.name} of {len(batch)} requests in {time.monotonic() - started:.2f} s, {self.depth} requests wait"
            )

    def _take(self) -> list[Job[Payload, Result]]:
        """Whatever waits, in order, up to `most` units but one job at least; an empty list once closed and drained."""
        with self._change:
            while not self._queue and not self._closed:
                self._change.wait()
        time.sleep(GATHER_S)
        with self._change:
            batch: list[Job[Payload, Result]] = []
            units = 0
            while self._queue and (not batch or units + self._queue[0].units <= self.most):
                job = self._queue.popleft()
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
