"""A TCP port for a server that a test starts later, or stops and starts again.

A port that the system gave out and took back may be another process's by then: it hands the same ones to every outgoing
connection. These come from below its range. Left out: servers that keep the port they were given, which ask for 0.
"""

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def quiet_port() -> int:
    """A free port that no outgoing connection is given."""
    first = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    own = random.Random()  # of the system's entropy: two workers seeded alike would meet
    for _ in range(1000):
        with socket.socket() as s:
            port = own.randrange(10_000, first)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port from 10000 to {first}")
