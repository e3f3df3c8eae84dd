"""Starts mortal_server.py, an executor that drops dead."""

import subprocess
import sys
from pathlib import Path

from support.ports import quiet_port


class Mortal:
    def __init__(self, port=0, dies_at=0):
        command = [
            sys.executable,
            str(Path(__file__).parent / "mortal_server.py"),
            str(port or quiet_port()),
            str(dies_at),
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
