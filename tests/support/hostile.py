"""A server in a thread that does to each connection what a test tells it: raw bytes, drips, silence.

Left out: HTTP. What is sent is what the test says, however broken.
"""

import itertools
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress

PAUSE_S = 0.02  # between the pieces of a drip; it ends when the client leaves


@contextmanager
def listening(serve: Callable[[socket.socket], None]):
    """The port of a server that hands every connection to `serve`, in a thread of its own, and then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def one(connection):
        with connection, suppress(OSError):  # raised once the client has left
            serve(connection)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=one, args=(connection,), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()


def request_of(connection: socket.socket) -> bytes:
    """A request with its body, as far as Content-Length says."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65_536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < sum(lengths):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def drip(connection: socket.socket, pieces: Iterable[bytes]) -> None:
    """Send piece by piece, for ever if there is no end of them; an OSError once the client has left."""
    left = threading.Event()
    for piece in pieces:
        connection.sendall(piece)
        left.wait(PAUSE_S)


def for_ever(start: bytes, piece: bytes) -> Iterable[bytes]:
    return itertools.chain([start], itertools.repeat(piece))


def reply(body: bytes, status: str = "200 OK", *headers: bytes) -> bytes:
    head = [b"HTTP/1.1 " + status.encode(), b"Content-Length: %d" % len(body), *headers, b"Connection: close"]
    return b"\r\n".join([*head, b"", body])
