"""A stand-in for an OpenAI-compatible judge, for tests: `python judge_server.py MODE` prints its port and serves.

It scores by counting: 10 minus twice the number of "bad" in the trace. MODE: "good", "flaky" (the first call fails with
500, the second is not JSON, the third lacks a key, then good), "denied" (401), "broken" (never JSON). Counts its calls
at /count.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

mode, calls, seen = sys.argv[1], [0], []


class Judge(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {"calls": calls[0], "seen": seen})

    def do_POST(self):
        calls[0] += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        seen.append([self.path, self.headers.get("Authorization"), body["model"], body["temperature"]])
        keys = re.search(r"one short sentence: (.*)", prompt)[1].split(", ")
        score = 10 - 2 * prompt.partition("Reasoning to grade:")[2].count("bad")
        scores = {key: score for key in keys if key != "reason"} | {"reason": "counted"}
        if mode == "denied":
            return self.answer(401, {"error": "no key"})
        if mode == "flaky" and calls[0] == 1:
            return self.answer(500, {"error": "try later"})
        if mode == "broken" or (mode == "flaky" and calls[0] == 2):
            return self.say("Sure! I would give it a seven.")
        if mode == "flaky" and calls[0] == 3:
            del scores["total"]
        return self.say(json.dumps(scores))

    def say(self, content):
        self.answer(200, {"choices": [{"message": {"role": "assistant", "content": content}}]})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    print(server.server_address[1], flush=True)
    server.serve_forever()
