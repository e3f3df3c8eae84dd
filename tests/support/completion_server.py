"""A completions server for tests, run as its own process: behaves, or misbehaves as the prompt asks.

Speaks enough of /v1/completions for one client; prints its port on the first line. Behaviour is chosen by a word in
the prompt: `500 twice <id>` fails two times and then answers; `serve [...]` is what it lists from then on.
"""

import json
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

lock = threading.Lock()
tries: dict[str, int] = {}
running, most = 0, 0
listed: list[dict] = []  # at /v1/models; none: 404


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path != "/v1/models" or not listed:
            return self.send(404, {"error": f"no {self.path}"})
        with lock:
            tries["models"] = tries.get("models", 0) + 1
        return self.send(200, {"object": "list", "data": [row | {"created": time.monotonic_ns()} for row in listed]})

    def do_POST(self):
        global running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        finally:
            with lock:
                running -= 1

    def send(self, status, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", headers.pop("length", str(len(data))))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def answer(self, request):
        prompt = request["prompt"]
        with lock:
            seen = tries[prompt] = tries.get(prompt, 0) + 1
        good = {"choices": [{"text": f"echo {prompt}"}], "usage": {"completion_tokens": 7}}
        if self.path != "/v1/completions":
            return self.send(404, {"error": f"no {self.path}"})
        if "authorised" in prompt and self.headers["Authorization"] != "Bearer secret":
            return self.send(401, {"error": "bad key"})
        if "strict" in prompt and (unknown := {"top_k", "min_p"} & request.keys()):
            return self.send(400, {"error": {"message": f"Unrecognized request argument supplied: {min(unknown)}"}})
        if prompt.startswith("serve "):
            listed[:] = json.loads(prompt[6:])
        if prompt == "show":
            return self.send(200, {"choices": [{"text": json.dumps(request)}], "usage": {"completion_tokens": 1}})
        if prompt == "statistics":
            text = json.dumps({"most": most, "tries": tries})
            return self.send(200, {"choices": [{"text": text}]})
        if "twice" in prompt and seen > 2:
            return self.send(200, good)
        if "500" in prompt:
            return self.send(500, {"error": "overloaded"})
        if "429" in prompt:
            return self.send(429, {"error": "slow down"}, Retry_After="3")
        if "400" in prompt:
            return self.send(400, {"error": {"message": "prompt too long"}})
        if "drop" in prompt:  # a reset instead of a reply
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return self.connection.close()
        if "cut" in prompt:
            return self.send(200, json.dumps(good).encode(), length="10000")
        if "stall" in prompt:
            return time.sleep(5)
        if "drip" in prompt:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(50):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
            return None
        if "rubbish" in prompt:
            return self.send(200, b"<html>It works!</html>")
        if "half" in prompt:
            return self.send(200, b'{"choices": [{"text": "a \\ud800 b \\ud83d\\ude00"}]}')
        if "shape" in prompt:
            return self.send(200, {"choices": [{"text": None}]})
        if "slow" in prompt:
            time.sleep(0.2)
        return self.send(200, good)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # ends with the test that started it, however that ends
