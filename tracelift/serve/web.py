"""The HTTP side: who may ask, how much, and what a refusal looks like.

Bounds hold before a byte of a body is read (its announced size, the number of connections) and while it is read (one
deadline for a whole request, tracelift/executor/remote/deadline.py, so that a sender of one byte a second cannot hold a thread).
Refusals are the protocol's {"error": {"message", "type", "param", "code"}} with a status:

    400 a field, JSON, framing   401 key          404 path, model       405 method     408 too slow    411 no length
    413 body too large           415 not JSON     429 queue full        500 the model  503 closing, no result, connections

Where a request ends must be beyond doubt, or a proxy before this server and the server itself may see different requests:
a body that no method here reads, two lengths, and a head with lines that are no header are refused and the connection is
closed.

A body must be declared as JSON: a web page cannot send that to a server on loopback without asking first, and nothing here
answers such a question. Left out: TLS, CORS, chunked request bodies, HTTP/2.
"""

from __future__ import annotations

import hmac
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email import errors as mail
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tracelift.errors import RowsError
from tracelift.executor.remote.deadline import TimedSocket
from tracelift.files import parse_line
from tracelift.serve.batching import Batcher
from tracelift.serve.fields import Refused

LINGER_S = 1.0
NO_HEADER = (  # what the standard library's reader of headers notes, and reads on
    mail.MissingHeaderBodySeparatorDefect,
    mail.FirstHeaderLineIsContinuationDefect,
    mail.MisplacedEnvelopeHeaderDefect,
)
TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
_BODY = json.dumps(
    {"error": {"message": "too many connections; try again later", "type": TYPES[503], "param": None, "code": None}}
)
FULL = ("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(_BODY)}\r\n\r\n{_BODY}").encode()  # fmt: skip


@dataclass(frozen=True)
class RequestLimits:
    """What a client may take."""

    body_bytes: int = 8 * 2**20
    connections: int = 64
    read_s: float = 20.0  # for a whole request to arrive; also how long a connection may idle
    result_s: float = 600.0  # for a result


@dataclass(frozen=True)
class Endpoint:
    """read(body) -> parts of the work, each a payload and its units; reply(payloads, results) -> JSON; the batcher runs
    the parts in between."""

    read: Callable[[Mapping[str, Any]], Sequence[tuple[Any, int]]]
    batcher: Batcher
    reply: Callable[[Sequence[Any], Sequence[Any]], dict[str, Any]]


class HttpService(ThreadingHTTPServer):
    """Serves `posts` (path -> Endpoint) and `gets` (path -> JSON object)."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        posts: Mapping[str, Endpoint],
        gets: Mapping[str, Callable[[], dict[str, Any]]],
        limits: RequestLimits,
        key: str | None,
        say: Callable[[str], None],
    ) -> None:
        """key: what clients must send as `Authorization: Bearer KEY`, except for /health; None: no key. Raises OSError where
        the address cannot be had."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.posts, self.gets, self.limits, self.key, self.say = posts, gets, limits, key, say
        self._slots = threading.BoundedSemaphore(limits.connections)
        self._busy, self._idle = 0, threading.Condition()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[TimedSocket, Any]:
        request, address = super().get_request()
        return TimedSocket.of(request), address

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            try:
                request.deadline = time.monotonic() + 1
                request.sendall(FULL)
            except OSError:
                pass
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a connection that broke; the handler has logged what there was to say

    def working(self, change: int) -> None:
        with self._idle:
            self._busy += change
            self._idle.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait for replies under way. Returns whether all were sent."""
        with self._idle:
            return self._idle.wait_for(lambda: self._busy == 0, seconds)


class _Handler(BaseHTTPRequestHandler):
    connection: TimedSocket
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tracelift", ""

    @property
    def service(self) -> HttpService:
        assert isinstance(self.server, HttpService)
        return self.server

    def handle_one_request(self) -> None:
        self.connection.deadline = time.monotonic() + self.service.limits.read_s
        self.path = ""
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are logged by `_answer`, once, with what came of them."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses (a broken request line, too many headers, an unknown method) in the same shape."""
        self.close_connection = True
        self._send(Refused(405 if code == 501 else code, message or "the request is not HTTP"))

    def do_GET(self) -> None:
        self._counted(self._get)

    def do_POST(self) -> None:
        self._counted(self._post)

    def _counted(self, work: Callable[[], dict[str, Any]]) -> None:
        self.service.working(1)
        try:
            self._answer(work)
        finally:
            self.service.working(-1)

    def _answer(self, work: Callable[[], dict[str, Any]]) -> None:
        started = time.monotonic()
        try:
            self._framed()
            outcome: dict[str, Any] | Refused = work()
        except Refused as refusal:
            outcome = refusal
        except TimeoutError:
            self.close_connection = True
            outcome = Refused(408, f"the request did not arrive within {self.service.limits.read_s:g} s")
        except OSError:
            self.close_connection = True
            return
        except Exception as error:
            outcome = Refused(500, f"{type(error).__name__}: {error}")
        status = self._send(outcome)
        note = f": {outcome.message}" if isinstance(outcome, Refused) else ""
        path = self.path.split("?")[0][:60]
        self.service.say(f"{self.command} {path} {status} in {time.monotonic() - started:.2f} s{note}")
        if self.close_connection and isinstance(outcome, Refused):
            self._linger()

    def _linger(self) -> None:
        """Read on for a moment: closing on a sender in mid-body would reset the connection, and our refusal with it."""
        self.connection.deadline = time.monotonic() + LINGER_S
        scrap = bytearray(2**16)
        try:
            self.connection.shutdown(socket.SHUT_WR)
            while self.connection.recv_into(scrap):
                pass
        except OSError:
            pass

    def _send(self, outcome: dict[str, Any] | Refused) -> int:
        status, headers = 200, {}
        if isinstance(outcome, Refused):
            status = outcome.status
            if outcome.retry_after is not None:
                headers["Retry-After"] = str(outcome.retry_after)
            kind = TYPES.get(status, "invalid_request_error")
            outcome = {"error": {"message": outcome.message, "type": kind, "param": outcome.field, "code": status}}
        data = json.dumps(outcome, allow_nan=False).encode()
        self.connection.deadline = time.monotonic() + self.service.limits.read_s
        try:
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True
        return status

    def _framed(self) -> None:
        """Raises Refused, and lets the connection be closed, where it is in doubt what of it is this request."""
        head, keep = self.headers, self.close_connection
        self.close_connection = True
        folded = any("\r" in value or "\n" in value for value in head.values())
        if folded or any(isinstance(defect, NO_HEADER) for defect in head.defects):
            raise Refused(400, "the head holds a line that is no header, such as one with a space before its colon")
        if len(head.get_all("Content-Length", ())) > 1:
            raise Refused(400, "Content-Length stands there twice")
        if self.command == "GET" and ("Transfer-Encoding" in head or head.get("Content-Length", "0").strip() != "0"):
            raise Refused(400, "a GET with a body is not read; send none")
        self.close_connection = keep

    def _get(self) -> dict[str, Any]:
        path = self.path.split("?")[0].rstrip("/")
        if path != "/health":
            self._authorise()
        if path in self.service.posts:
            raise Refused(405, f"{path} is asked by POST")
        if path not in self.service.gets:
            raise self._unknown(path)
        return self.service.gets[path]()

    def _post(self) -> dict[str, Any]:
        path = self.path.split("?")[0].rstrip("/")
        unread = self.close_connection
        self.close_connection = True  # until the body has been read: what is left of it is no next request
        self._authorise()
        endpoint = self.service.posts.get(path)
        if endpoint is None:
            raise Refused(405, f"{path} is asked by GET") if path in self.service.gets else self._unknown(path)
        body = self._body()
        self.close_connection = unread
        parts = endpoint.read(body)
        jobs = endpoint.batcher.submit(parts)
        results = endpoint.batcher.wait(jobs, self.service.limits.result_s, self._gone)
        return endpoint.reply([payload for payload, _ in parts], results)

    def _unknown(self, path: str) -> Refused:
        known = ", ".join([*self.service.posts, *self.service.gets])
        return Refused(404, f"{path[:80] or '/'} is not served here; there are {known}")

    def _authorise(self) -> None:
        if self.service.key is None:
            return
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.service.key.encode()):
            raise Refused(401, "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'")

    def _body(self) -> dict[str, Any]:
        if "Transfer-Encoding" in self.headers:
            raise Refused(411, "a body in chunks is not read; send Content-Length")
        length = self.headers.get("Content-Length")
        if length is None:
            raise Refused(411, "Content-Length is missing")
        if not (length.isascii() and length.isdigit()):
            raise Refused(400, f"Content-Length {length[:40]!r} is no number of bytes")
        if int(length[:20]) > self.service.limits.body_bytes:
            raise Refused(
                413, f"a body of {length[:20]} bytes is more than the {self.service.limits.body_bytes:,} that are read"
            )
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, f"the body must be declared as application/json, not {self.headers.get_content_type()}")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise ConnectionError("the body ended early")
        try:
            body = parse_line(data)
        except RowsError as error:
            raise Refused(400, f"the body is not what it should be: {error}") from None
        if not isinstance(body, dict):
            raise Refused(400, f"the body must be a JSON object, got {type(body).__name__}")
        return body

    def _gone(self) -> bool:
        """Whether the client has closed its side: nobody waits for the result."""
        try:
            ready, _, _ = select.select([self.connection], [], [], 0)
            return bool(ready) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except (OSError, ValueError):
            return True
