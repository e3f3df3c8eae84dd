"""Calls to one HTTP server: each with a deadline of its own, tried again where that may help.

What may pass (refused or dropped connections, timeouts, 408, 409, 425, 429, 5xx, replies that are not what was asked
for) is tried again after an exponentially growing, jittered pause (Retry-After is honoured), what cannot (other 4xx) is
not. Everything that goes wrong is a `Failure`; no other exception leaves here. `timeout_s` is one deadline for connecting,
sending, and a reply's head and body (tracelift/executor/remote/deadline.py), and a reply's size and nesting are bounded.

Standard library only. Left out: redirects, connections that stay open, a limit on the look-up of a host's name (the
resolver has its own), and what is sent and read (client.py beside this file, reward_model/remote.py, groups/judge.py).
"""

from __future__ import annotations

import http.client
import itertools
import random
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from tracelift.errors import printable
from tracelift.executor.remote.deadline import connect, connection_by
from tracelift.files import parse_json

MAX_BYTES = 16 * 2**20  # a longer reply is rubbish: no completion comes near
PASSING = {408, 409, 425, 429}  # worth another try, like every 5xx but one
NEVER = 501  # not implemented
GONE = {502, 503, 504}  # said by what stands before a server that is not there, or by one that is not ready
LOCAL = ("127.0.0.1", "localhost", "::1")  # no proxy leads here
ENDPOINTS = ("/chat/completions", "/completions", "/score")  # that some client here asks; none ends in a later one's
KNOCK_S = 10.0  # a server that listens takes a connection in less

T = TypeVar("T")


class Failure(Exception):
    """One attempt failed; `passing` says whether another may succeed, `pause` when the server wants it (seconds), `gone`
    whether there seems to be no server at all, `heard` whether one may have read the request: it can be at fault only then."""

    def __init__(
        self, message: str, passing: bool = True, pause: float | None = None, gone: bool = False, heard: bool = True
    ) -> None:
        super().__init__(message)
        self.passing, self.pause, self.gone, self.heard = passing, pause, gone, heard


class CalledOff(Failure):
    """Another call had all its attempts and found the server gone: this one was not made, or not to the end."""


@dataclass(frozen=True)
class Server:
    """Where requests go: host, port, the path of the one endpoint that is asked, and the query that every path is sent with."""

    secure: bool
    host: str
    port: int | None
    path: str
    query: str = ""

    @property
    def name(self) -> str:
        return f"http{'s' * self.secure}://{self.host}{'' if self.port is None else f':{self.port}'}"

    def __repr__(self) -> str:
        # Fingerprints in caches and records are made of this text, so it keeps the class's first name and fields.
        query = f", query={self.query!r}" if self.query else ""
        return f"_Server(secure={self.secure!r}, host={self.host!r}, port={self.port!r}, path={self.path!r}{query})"


def parse_url(url: str, root: str, endpoint: str) -> Server:
    """The server of `endpoint`, from its address with or without `root` and `endpoint`; a query is kept. Raises ValueError
    where it is none, is another endpoint's, or holds what could not be sent."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"url {url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"url {url!r} must look like http://host:8000 or https://host{root}")
    if (
        parts.username is not None
    ):  # said without the url: it may end in a log, as a password in a config ends in a record
        raise ValueError(f"url of {host}: a user and password in it are not sent; give an API key by its key_env")
    if parts.fragment or not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(
            f"url {url!r}: what follows a #, spaces and letters beyond ASCII are not sent; write them as %XX"
        )
    path = parts.path.rstrip("/")
    named = next((e for e in ENDPOINTS if path.endswith(e)), endpoint)
    if named != endpoint:
        raise ValueError(
            f"url {url!r} names {named}, but {endpoint} is what is asked here; give the address without {named}"
        )
    path = path.removesuffix(endpoint)
    path = path if path.endswith(root) else path + root
    return Server(parts.scheme == "https", host, port, path + endpoint, parts.query)


class Transport:
    """How one server is called. Threads may share it."""

    answered = "the server answered"  # what a status is said after
    jitter = 1.0  # a pause is multiplied by a random factor in [1 - jitter / 2, 1 + jitter / 2)

    def __init__(
        self,
        server: Server,
        api_key: str | None = None,
        timeout_s: float = 60,
        retries: int = 4,
        backoff_s: float = 0.5,
        longest_pause_s: float = 30,
        sleep: Callable[[float], None] = time.sleep,
        proxies: bool = False,
    ) -> None:
        """timeout_s: seconds one attempt may take as a whole, so that a server that drips a byte a minute cannot hold it.
        retries: attempts after the first. backoff_s doubles with each one up to longest_pause_s, jittered. proxies: go
        through the proxy that the environment names for the server, if any.

        Raises ValueError for numbers that make no sense, and for a key that no header can carry.
        """
        if retries < 0 or timeout_s <= 0 or backoff_s < 0:
            raise ValueError(f"{retries=} and {backoff_s=} must be ≥ 0, {timeout_s=} > 0")
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("the API key holds a line break or another character that no header can carry")
        self.server, self.api_key, self.timeout_s, self.retries = server, api_key, timeout_s, retries
        self.backoff_s, self.longest_pause_s, self._sleep = backoff_s, longest_pause_s, sleep
        self._proxy = _proxy_of(server) if proxies else None

    def knock(self) -> None:
        """Raises ValueError where nobody listens at the server's address: at the start that is a wrong address or a server
        not started yet more often than an outage, and is not waited for. Nothing is asked."""
        where = self._proxy or self.server
        try:
            connect(where.host, _port(where), time.monotonic() + min(KNOCK_S, self.timeout_s)).close()
        except (OSError, UnicodeError) as error:
            why = f"{type(error).__name__}: {error}" if str(error) else "no connection in time"
            via = f"its proxy {where.host} " if self._proxy else ""
            raise ValueError(
                f"{via}nobody listens at {self.server.name} ({why}); start the server, or mend the address"
            ) from None

    def persist(self, attempt_once: Callable[[], T], called_off: Callable[[], bool] = lambda: False) -> T:
        """What the first good attempt returns. Raises the last one's Failure, or CalledOff as soon as `called_off()`."""
        draw = random.Random()  # timing only: no draw of text depends on it
        last: Failure | None = None
        for attempt in itertools.count():
            if called_off():
                raise CalledOff(str(last or "the server is gone"), gone=True)
            try:
                return attempt_once()
            except Failure as failure:
                last = failure
            if not last.passing or attempt >= self.retries:
                tried = f"{last} (attempt {attempt + 1} of {self.retries + 1})"
                raise Failure(tried, last.passing, gone=last.gone, heard=last.heard)
            pause = min(self.longest_pause_s, self.backoff_s * 2**attempt) * (1 + self.jitter * (draw.random() - 0.5))
            self._sleep(pause if last.pause is None else min(max(pause, last.pause), self.longest_pause_s))
        raise AssertionError("counting has no end")

    def exchange(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of a 200. Raises Failure for everything else."""
        status, headers, data = self._send(method, path, body)
        if status != 200:
            raise Failure(
                f"{self.answered} {status}: {start_of(data, 300)}",
                status in PASSING or (status >= 500 and status != NEVER),
                _retry_after(headers),
                status in GONE,
            )
        return data

    def _send(self, method: str, path: str, body: bytes | None) -> tuple[int, http.client.HTTPMessage, bytes]:
        s, deadline = self.server, time.monotonic() + self.timeout_s
        target = f"{path}?{s.query}" if s.query else path
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        if self._proxy and not s.secure:
            target, headers = s.name + target, headers | self._proxy.headers
        connection, heard = self._connection(deadline), False
        try:
            connection.connect()
            heard = True
            connection.request(method, target, body, headers)
            with connection.getresponse() as response:  # which holds the socket beside the connection
                data = bytearray()
                while piece := response.read1(65_536):
                    data += piece
                    if len(data) > MAX_BYTES:
                        raise Failure(f"the reply exceeds {MAX_BYTES:,} bytes")
                missing = response.length  # of the announced Content-Length
                if missing:
                    raise Failure(f"the connection ended {missing} bytes before the reply did")
                return response.status, response.headers, bytes(data)
        except TimeoutError:
            raise Failure(
                f"no complete reply from {s.host} within {self.timeout_s:g} s", gone=True, heard=heard
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: of a head that is no HTTP
            why = printable(f"connection to {s.host}: {type(error).__name__}: {error}")
            raise Failure(why, gone=True, heard=heard) from None
        finally:
            connection.close()

    def _connection(self, deadline: float) -> http.client.HTTPConnection:
        s, proxy = self.server, self._proxy
        where = proxy or s
        connection = connection_by(deadline, where.host, _port(where), s.secure)
        if s.secure and proxy is not None:
            connection.set_tunnel(s.host, s.port or 443, proxy.headers)
        return connection


@dataclass(frozen=True)
class _Proxy:
    host: str
    port: int | None
    headers: dict[str, str]
    secure = False  # a proxy itself is spoken to in the clear


def _port(where: Server | _Proxy) -> int:
    return where.port or (443 if where.secure else 80)


def _proxy_of(server: Server) -> _Proxy | None:
    """The proxy that the environment (HTTPS_PROXY, NO_PROXY, …) names for a server, as urllib reads it."""
    if server.host in LOCAL or urllib.request.proxy_bypass(server.host):
        return None
    url = urllib.request.getproxies().get("https" if server.secure else "http", "")
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if not parts.hostname:
        return None
    who = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    headers = {"Proxy-Authorization": f"Basic {b64encode(who.encode()).decode()}"} if who else {}
    return _Proxy(parts.hostname, parts.port, headers)


def reply_json(data: bytes, anything: bool = False) -> dict[str, Any]:
    """The JSON object of a reply. Raises Failure where it is none (tracelift/files.py)."""
    try:
        reply = parse_json(data, anything)
    except ValueError as error:
        raise Failure(f"the reply is not JSON ({error}): {start_of(data)!r}") from None
    if not isinstance(reply, dict):
        raise Failure(f"the reply is no JSON object: {start_of(data)!r}")
    return reply


def start_of(data: bytes, length: int = 200) -> str:
    """The beginning of a reply as one printable line."""
    return printable(" ".join(data[:length].decode("utf-8", "replace").split()))


def _retry_after(headers: http.client.HTTPMessage) -> float | None:
    """Seconds, where the server says so in seconds; its other form, a date, is ignored."""
    value = (headers.get("Retry-After") or "").strip()
    return float(value) if value.isascii() and value.isdigit() else None
