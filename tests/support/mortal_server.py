"""A completions server for tests that drops dead at its N-th request, requests in flight and all: `PORT N` (0: never).

Answers sums as an executor would, now and then one too high: the same request, the same text, whoever serves it.
"""

import hashlib
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

lock, served = threading.Lock(), 0


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        global served
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            served += 1
            if served == int(sys.argv[2]):
                os._exit(1)
        if self.path == "/score":
            return self.send({"scores": [len(item["reasoning"]) / 10 for item in request["items"]]})
        numbers = re.findall(r"\d", request["prompt"])[:2] or ["0"]
        luck = hashlib.sha256(f"{request['prompt']} {request['seed']}".encode()).digest()[0] % 3 == 0
        self.send({"choices": [{"text": f" {sum(map(int, numbers)) + luck}"}], "usage": {"completion_tokens": 2}})

    def send(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # of 5, the default, a loaded machine resets some of 40 connections made at once


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # ends with the test that started it, however that ends
