"""A remote executor starts on traces as they are written, while the planner is still sampling others.

Planner and executor on one device are one stream of work: overlapping them would move the stragglers, not remove them.
An executor behind a server is other hardware, which would idle until the planner's last trace and then leave the planner
idle: S_planner + S_executor becomes little more than the greater of the two (docs/decisions.md). Requests are begun here
while the planner samples; `complete` collects what was begun and sends the rest. Which replies come back, and to whom,
does not depend on when a request began.

One thread sends what has gathered as one call after another, so the backend inside sees no two calls at once and its
concurrency, retries and patience hold as they are. Left out: any change of what is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tracelift.executor.backend import Backend, CompletionRequest, Progress, Reply, Serving


class PrefetchingBackend:
    """A backend whose requests may be begun before they are collected. Implements tracelift.executor.backend.Backend,
    Prefetching and Serving.

    `begin` and `complete` are for one thread of the caller's.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._lock = threading.Lock()  # for the three below
        self._waiting: list[CompletionRequest] = []
        self._sender: threading.Thread | None = None
        self._error: BaseException | None = None
        self._begun: set[CompletionRequest] = set()
        self._replies: dict[CompletionRequest, Reply] = {}

    @property
    def fingerprint(self) -> str:
        return self.backend.fingerprint

    @property
    def served(self) -> str:
        """What the server says it serves (tracelift/executor/remote/client.py)."""
        return self.backend.served if isinstance(self.backend, Serving) else ""

    def begin(self, requests: Sequence[CompletionRequest]) -> None:
        """Start requests that are not under way yet; returns at once. What goes wrong is raised by `complete`."""
        new = [r for r in dict.fromkeys(requests) if r not in self._begun]
        self._begun.update(new)
        with self._lock:
            self._waiting += new
            if self._waiting and self._sender is None and self._error is None:
                self._sender = threading.Thread(target=self._send, daemon=True)  # nobody waits for it at exit
                self._sender.start()

    def _send(self) -> None:
        """In the thread: call after call, each with all that gathered during the one before."""
        while True:
            with self._lock:
                some, self._waiting = self._waiting, []
                if not some:
                    self._sender = None
                    return
            try:
                self._replies.update(zip(some, self.backend.complete(some), strict=True))
            except BaseException as e:  # for the caller's thread
                with self._lock:
                    self._sender, self._error = None, e
                return

    def complete(self, requests: Sequence[CompletionRequest], progress: Progress | None = None) -> list[Reply]:
        """One reply per request, in order. A reply is handed out once: asked again, a request is sent again. What was
        begun and is not asked for now is forgotten.

        Raises what the backend raised, also while it worked ahead.
        """
        with self._lock:
            sender = self._sender
        if sender is not None:
            sender.join()
        replies, error = self._replies, self._error
        self._replies, self._error, self._begun, self._waiting = {}, None, set(), []
        if error is not None:
            raise error
        rest = [r for r in dict.fromkeys(requests) if r not in replies]
        if rest:
            replies.update(zip(rest, self.backend.complete(rest, progress), strict=True))
        return [replies[r] for r in requests]
