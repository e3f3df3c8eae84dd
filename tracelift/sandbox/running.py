"""A program on its way, seen from the parent: its pipes, its guard's messages, and what they amount to.

A program can make the parent wait for its limits, no longer, and hold so many bytes of each stream, no more. Its
status is read off its guard's report and off how much it wrote: nothing here comes from the program itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tracelift.sandbox.limits import Execution, Limits, Status

GRACE = 10.0  # seconds past a program's wall-clock limit after which its guard is given up
CHUNK = 1 << 16


@dataclass
class Running:
    """A program on its way: the parent's ends of its pipes, and what has come out of them so far."""

    limits: Limits
    control: socket.socket
    streams: dict[int, bytearray]  # descriptor -> bytes so far; stdout, stderr, and perhaps a channel, in this order
    bounds: dict[int, int]  # descriptor -> bytes kept of it; a program that writes more is stopped
    slot: int = 0  # which of the programs that run at once this is
    started: float = field(default_factory=time.monotonic)
    state: str = "sent"
    detail: str = ""
    over: int = 0  # the bound that was passed
    ended: dict | None = None

    def __post_init__(self) -> None:
        self.open = set(self.streams)

    def read(self, fd: int) -> bool:
        """Take what is there. False at end of file, or once the bound is reached."""
        kept = self.streams[fd]
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True
        room = self.bounds[fd] - len(kept)
        kept += data[:room]
        if len(data) > room:
            self.over = self.bounds[fd]
            self.stop()
        return bool(data) and not self.over

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # the guard has already gone, and the program with it
            self.control.send(b"stop")

    def hear(self) -> bool:
        """Take one message. False when the program is over."""
        try:
            text = self.control.recv(CHUNK)
        except ConnectionResetError:  # the guard closed before it read our "stop": the kernel says so once, first ...
            text = self.control.recv(CHUNK)  # ... and its report still lies here
        if not text:
            return False
        message = json.loads(text)
        if message["state"] == "ended":
            self.ended = message
            return False
        self.state, self.detail = message["state"], message.get("detail", "")
        return True

    def close(self) -> None:
        for fd in self.streams:
            os.close(fd)
        self.control.close()

    def result(self) -> Execution:
        status, detail = self.judge()
        out, err, *channel = (bytes(kept) for kept in self.streams.values())
        end = self.ended or {}
        ran = self.state == "running"
        return Execution(
            status=status,
            stdout=out.decode("utf-8", errors="replace"),
            stderr=err.decode("utf-8", errors="replace"),
            seconds=end.get("seconds", time.monotonic() - self.started),
            cpu_seconds=end.get("cpu_seconds", 0.0),
            peak_bytes=end.get("peak_bytes", 0),
            exit_code=end.get("code") if ran else None,
            detail=detail,
            channel=channel[0] if channel else b"",
        )

    def judge(self) -> tuple[Status, str]:
        """What the guard's report means. Nothing here comes from the program itself."""
        if self.state == "trouble":
            return Status.ERROR, self.detail
        if self.ended is None:
            return Status.ERROR, f"the guard vanished without a report (last heard: {self.state})"
        if self.state == "sent":
            return Status.ERROR, f"the program's process died before its layers were in place: {self.ended}"
        if self.over:
            return Status.OUTPUT_LIMIT, f"wrote more than {self.over} bytes to one stream"
        if self.ended["reason"] == "cpu":
            return (
                Status.TIMEOUT,
                f"used {self.ended['cpu_seconds']:.2f} s of CPU; the limit is {self.limits.cpu_seconds} s",
            )
        if self.ended["reason"] == "wall":
            return Status.TIMEOUT, f"still running after {self.limits.wall_seconds} s"
        if self.state in ("compile_error", "ready"):
            return Status.COMPILE_ERROR, self.detail or "the compiler itself crashed on this text"
        code = self.ended["code"]
        if code == 0:
            return Status.OK, ""
        return Status.RUNTIME_ERROR, f"exit status {code}" if code > 0 else f"killed by signal {-code}"


def drain(programs: Sequence[Running]) -> None:
    """Read from all of them until each has ended; return when the last one has."""
    with selectors.DefaultSelector() as selector:
        for p in programs:
            for fd in p.open:
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ, p)
            selector.register(p.control, selectors.EVENT_READ, p)
        left = set(map(id, programs))
        deadline = max(p.started + p.limits.wall_seconds for p in programs) + GRACE
        while left:
            wait = deadline - time.monotonic()
            if wait <= 0:
                return  # the guards that have not reported are stuck: `ended` stays None
            for key, _ in selector.select(wait):
                p = key.data
                if key.fileobj is not p.control:
                    if not p.read(key.fd):
                        selector.unregister(key.fd)
                        p.open.discard(key.fd)
                elif not p.hear():
                    selector.unregister(p.control)
                    left.discard(id(p))
        for p in programs:  # all is written that ever will be: take what still lies in the pipes, then stop
            for fd in p.open:
                before = -1
                while before != len(p.streams[fd]):
                    before = len(p.streams[fd])
                    if not p.read(fd):
                        break
