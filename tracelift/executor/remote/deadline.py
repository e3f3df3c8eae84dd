"""Sockets whose every wait ends at one moment, for clients and for tracelift/serve.

A time-out of a socket begins anew with each byte: whoever drips a header, a chunk's extension or endless `100 Continue`
holds it for ever. Here all that is received and sent on a connection shares a deadline (a moment of `time.monotonic()`),
and past it the next wait is a TimeoutError.

Left out: the look-up of a host's name, which has the resolver's own limits.
"""

from __future__ import annotations

import http.client
import math
import socket
import ssl
import time
from typing import Any


class _ByDeadline(socket.socket):
    deadline = math.inf

    def wait_no_longer(self) -> None:
        """Let the next operation wait until the deadline. Raises TimeoutError past it."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(None if math.isinf(left) else left)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self.wait_no_longer()
        return super().recv_into(buffer, nbytes or memoryview(buffer).nbytes, flags)

    def sendall(self, data: Any, flags: int = 0) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            self.wait_no_longer()
            rest = rest[self.send(rest, flags) :]


class TimedSocket(_ByDeadline):
    """A plain socket with a `deadline`, which may be moved."""

    @classmethod
    def of(cls, other: socket.socket) -> TimedSocket:
        """Takes over an open socket; `other` is then detached."""
        return cls(other.family, other.type, other.proto, other.detach())


class _TimedTLS(_ByDeadline, ssl.SSLSocket):
    """The same over TLS; made by a context, as every SSLSocket is."""


def connect(host: str, port: int, deadline: float) -> TimedSocket:
    """A connection to the first of a host's addresses that takes one. Raises OSError, TimeoutError among it."""
    fault: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        made = TimedSocket(family, kind, protocol)
        made.deadline = deadline
        try:
            made.wait_no_longer()
            made.connect(address)
            return made
        except OSError as error:
            made.close()
            fault = error
    raise fault


def connection_by(deadline: float, host: str, port: int, secure: bool) -> http.client.HTTPConnection:
    """An HTTP connection, not yet connected, that is given up at the deadline, whatever it waits for."""
    return _Connection(deadline, host, port, secure)


class _Connection(http.client.HTTPConnection):
    def __init__(self, deadline: float, host: str, port: int, secure: bool) -> None:
        super().__init__(host, port)
        self.deadline, self.secure = deadline, secure
        self.default_port = 443 if secure else 80  # which is not spelled in the Host header

    def connect(self) -> None:
        plain = self.sock = connect(self.host, self.port, self.deadline)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tunnel: str | None = getattr(self, "_tunnel_host", None)  # of set_tunnel
        if tunnel:
            super()._tunnel()  # pyright: ignore[reportAttributeAccessIssue]
        if self.secure:
            context = ssl.create_default_context()
            context.sslsocket_class = _TimedTLS
            plain.wait_no_longer()  # the handshake as a whole takes the time-out of the socket it is given
            secured = context.wrap_socket(plain, server_hostname=tunnel or self.host)
            assert isinstance(secured, _TimedTLS)
            secured.deadline = self.deadline
            self.sock = secured
