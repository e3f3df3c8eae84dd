"""`python -m tracelift.serve` as its own process, for tests: its address, what it logged, and raw requests to it."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
KEY = "a secret"


class Served:
    """A running server. `url` is its root; `log` grows with its lines."""

    def __init__(self, *arguments: str, key: str | None = KEY) -> None:
        env = {k: v for k, v in os.environ.items() if k != "TRACELIFT_API_KEY"} | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        env |= {"TRACELIFT_API_KEY": key} if key else {}
        command = [sys.executable, "-m", "tracelift.serve", "--port", "0", "--threads", "1", *arguments]
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self.wait_for("serving ").split(" on ")[1].split()[0]
        self.key = key

    def _read(self) -> None:
        for line in self.process.stderr:
            self.log.append(line.rstrip())

    def wait_for(self, words: str, after: int = 0, seconds: float = 300) -> str:
        """The first logged line from `after` on that holds `words`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.log[after:]:
                if words in line:
                    return line
            assert self.process.poll() is None or any(words in line for line in self.log[after:]), self.log
            time.sleep(0.02)
        raise AssertionError(f"{words!r} was not logged: {self.log}")

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=300)

    def ask(self, path: str, body=None, method: str | None = None, **headers: str):
        """(status, JSON). A body that is no bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        sent |= {k.replace("_", "-"): v for k, v in headers.items()}
        connection = self.connect()
        try:
            connection.request(
                method or ("GET" if body is None else "POST"), path, data, {k: v for k, v in sent.items() if v}
            )
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def close(self) -> int:
        self.process.terminate()
        code = self.process.wait(timeout=300)
        self.process.stderr.close()
        return code
