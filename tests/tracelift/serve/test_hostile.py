"""The server against clients that send rubbish, too much, too slowly, or leave: a clear status, and service goes on."""

import json
import select
import socket
import time
from urllib.parse import urlsplit

import pytest

from support.serving import KEY, Served
from support.tiny_job import executor_rows

PROMPT = executor_rows(1)[0]["prompt"]


@pytest.fixture(scope="module")
def served(job):
    served = Served(
        "--executor",
        str(job / "executor"),
        "--reward-model",
        str(job / "reward_model"),
        "--max-body-mb",
        "0.05",
        "--read-timeout",
        "2",
        "--connections",
        "6",
        "--max-completions",
        "300",
        "--queue",
        "20",
        "--max-items",
        "9",
    )
    yield served
    assert served.close() == 0
    assert not any("Traceback" in line for line in served.log)


@pytest.fixture(autouse=True)
def goes_on(served):
    yield
    status, reply = served.ask("/v1/completions", {"prompt": PROMPT, "max_tokens": 2})
    assert status == 200 and reply["usage"]["completion_tokens"] in (1, 2)


def item(**changes):
    return {"problem": "p", "reasoning": "r", "task_name": "math", "task_type": ""} | changes


REFUSED = {
    "no prompt": ("/v1/completions", {"max_tokens": 2}, "prompt must be a text"),
    "prompt of two kinds": ("/v1/completions", {"prompt": ["a", 1]}, "prompt must be a text"),
    "empty list": ("/v1/completions", {"prompt": []}, "prompt must be a text"),
    "no token": ("/v1/completions", {"prompt": ""}, "has no tokens"),
    "id outside": ("/v1/completions", {"prompt": [1, 10**9]}, "token ids below"),
    "negative id": ("/v1/completions", {"prompt": [-1]}, "token ids below"),
    "boolean id": ("/v1/completions", {"prompt": [True]}, "prompt must be a text"),
    "second prompt too long": ("/v1/completions", {"prompt": [[1], [1] * 97]}, "prompt 1 has 97 tokens"),
    "too many": ("/v1/completions", {"prompt": ["a", "b"], "n": 200}, "asks for 400 completions"),
    "n": ("/v1/completions", {"prompt": "a", "n": 0}, "n must be an integer from 1 to 300"),
    "max_tokens as text": ("/v1/completions", {"prompt": "a", "max_tokens": "5"}, "max_tokens must be an integer"),
    "max_tokens": ("/v1/completions", {"prompt": "a", "max_tokens": 96}, "exceeds the model's 96 positions"),
    "temperature": (
        "/v1/completions",
        {"prompt": "a", "temperature": -1},
        "temperature must be a number, 0 or between 1e-06 and 100",
    ),
    **{
        f"{field} of {shown}": (
            "/v1/completions",
            b'{"prompt": "a", "%s": %s}' % (field.encode(), value),
            f"{field} must be a number",
        )
        for field in ("temperature", "top_p", "min_p")
        for shown, value in (("10**400", b"1" + b"0" * 400), ("1e-300", b"1e-300"), ("1e999", b"1e999"))
    },
    "a number of 5,000 digits": ("/v1/completions", b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}", "cannot be read"),
    "boolean temperature": ("/v1/completions", {"prompt": "a", "temperature": True}, "temperature must be a number"),
    "top_p": ("/v1/completions", {"prompt": "a", "top_p": 0}, "top_p must be a number, between 1e-06 and 1"),
    "stop": ("/v1/completions", {"prompt": "a", "stop": [""]}, "stop must be a text"),
    "seed": ("/v1/completions", {"prompt": "a", "seed": 2**64}, "seed must be an integer"),
    "stream": ("/v1/completions", {"prompt": "a", "stream": True}, "stream is not offered"),
    "penalty": ("/v1/completions", {"prompt": "a", "presence_penalty": 0.5}, "presence_penalty is not offered"),
    "alternatives": ("/v1/completions", {"prompt": "a", "logprobs": 5}, "logprobs must be an integer from 0 to 1"),
    "unknown field": ("/v1/completions", {"prompt": "a", "temprature": 1}, "did you mean temperature?"),
    "model of another type": ("/v1/completions", {"prompt": "a", "model": 5}, "model must be text"),
    "no items": ("/score", {}, "items must be a list"),
    "item of another type": ("/score", {"items": ["a"]}, "items[0]: must be an object"),
    "field missing": ("/score", {"items": [item(), {"problem": "p"}]}, "items[1]: task_name must be text, got nothing"),
    "field of another type": ("/score", {"items": [item(reasoning=5)]}, "items[0]: reasoning must be text, got 5"),
    "unknown item field": ("/score", {"items": [item(reason="r")]}, "items[0]: unknown field 'reason'"),
    "too many items": ("/score", {"items": [item()] * 10}, "holds 10 items; at most 9"),
    "batch_size": ("/score", {"items": [item()], "batch_size": 0}, "batch_size must be an integer from 1"),
    "broken JSON": ("/v1/completions", b'{"prompt": ', "broken JSON at column"),
    "not a number of JSON": ("/score", b'{"items": [], "max_length": NaN}', "NaN is not JSON"),
    "no UTF-8": ("/score", b'{"items": "\xff"}', "not UTF-8"),
    "half a character": ("/v1/completions", b'{"prompt": "\\ud800"}', "surrogate"),
    "deep": ("/v1/completions", b"[" * 40_000, "cannot be read"),
    "no object": ("/v1/completions", b"[1]", "must be a JSON object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_sentence(served, case):
    path, body, said = REFUSED[case]
    status, reply = served.ask(path, body)
    assert status == 400 and said in reply["error"]["message"], reply
    assert reply["error"]["type"] == "invalid_request_error" and "\n" not in reply["error"]["message"]


STATUSES = {
    "unknown path": (404, dict(path="/v1/chat/completions", body={})),
    "unknown page": (404, dict(path="/")),
    "get for post": (405, dict(path="/score")),
    "post for get": (405, dict(path="/health", body={})),
    "unknown method": (405, dict(path="/score", body={}, method="PATCH")),
    "wrong key": (401, dict(path="/score", body={}, Authorization="Bearer guess")),
    "no key": (401, dict(path="/v1/models", Authorization="")),
    "a key of no letters": (401, dict(path="/v1/models", Authorization="Bearer \xff")),
    "a form, as a web page could send it": (415, dict(path="/score", body=b"{}", Content_Type="text/plain")),
    "huge": (413, dict(path="/score", body=b" " * 2**20)),
    "huge only by its word": (413, dict(path="/score", body=b"{}", Content_Length="9" * 4000)),
    "a length that is none": (400, dict(path="/score", body=b"{}", Content_Length="-5")),
    "in chunks": (411, dict(path="/score", body=b"", Transfer_Encoding="chunked")),
}


@pytest.mark.parametrize("case", STATUSES)
def test_statuses(served, case):
    status, arguments = STATUSES[case]
    found, reply = served.ask(**arguments)
    assert found == status and reply["error"]["code"] == status and len(reply["error"]["message"]) > 10


def raw(served, data: bytes) -> list[bytes]:
    """What is answered to bytes, reply by reply, until the server closes; a second request in them is a second reply."""
    with connect(served) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        said = b""
        while piece := s.recv(65_536):
            said += piece
    return [b"HTTP/1.1 " + part for part in said.split(b"HTTP/1.1 ")[1:]]


SECOND = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
IN_DOUBT = {  # one request before a proxy that reads the head otherwise is two here, or the other way round
    "a GET with a body": b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SECOND),
    "a GET in chunks": b"GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
    "two equal lengths": b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a space before a colon": b"POST /score HTTP/1.1\r\nTransfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\n{}",
    "a folded header": b"POST /score HTTP/1.1\r\nX: a\r\n Content-Length: 9\r\nContent-Length: 2\r\n\r\n{}",
    "a line that is no header": b"GET /health HTTP/1.1\r\nHost: x\r\nno header\r\nContent-Length: 5\r\n\r\n",
    "a length beside chunks": b"POST /score HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
    "chunks of an empty name": b"POST /score HTTP/1.1\r\nTransfer-Encoding:\r\nContent-Length: 2\r\n\r\n{}",
    "two lengths in one": b"POST /score HTTP/1.1\r\nContent-Length: 2, 2\r\n\r\n{}",
}
KNOWN = f"\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n".encode()


@pytest.mark.parametrize("case", IN_DOUBT)
def test_where_a_request_may_end_elsewhere_it_is_refused_and_nothing_follows(served, case):
    replies = raw(served, IN_DOUBT[case].replace(b"\r\n", KNOWN, 1) + SECOND)
    assert len(replies) == 1, "the rest is no second request"
    assert replies[0].startswith((b"HTTP/1.1 400", b"HTTP/1.1 411")) and b"\r\nConnection: close\r\n" in replies[0]


def test_requests_in_a_row_on_one_connection_are_answered_each(served):
    """What is refused above is not refused of honest requests."""
    body = json.dumps({"items": []}).encode()
    score = head(len(body)).replace(b"/v1/completions", b"/score") + body
    no_body = SECOND.replace(b"Host: x", b"Host: x\r\nContent-Length: 0")
    replies = raw(served, SECOND.replace(b"/second", b"/health") + score + no_body)
    assert [r[9:12] for r in replies] == [b"200", b"200", b"401"]


def test_the_name_of_the_scheme_is_of_any_case(served):
    assert served.ask("/v1/models", Authorization=f"bearer {KEY}")[0] == 200


@pytest.mark.parametrize("path", ["/\x1b[2J", "/\x07", "/\x9b31m", "/a\u202eb".encode().decode("latin-1"), "/\x00"])
def test_no_control_character_reaches_the_log(served, path):
    before = len(served.log)
    for method in ("GET", "POST"):
        raw(served, f"{method} {path} HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode("latin-1"))
    served.ask("/v1/completions", {"prompt": "a", "model": "\x1b[2J\n12:00:00 forged"})
    served.ask("/v1/completions", {"prompt": "a", "\x1b]0;title\x07": 1})
    served.wait_for("title", before)
    lines = served.log[before:]
    assert all(line.isprintable() for line in lines) and not any(line.startswith("12:00:00 forged") for line in lines)


def test_a_prompt_that_cannot_fit_is_refused_before_it_is_tokenised(served):
    """Its length is named, not its number of tokens, which nobody has counted."""
    words = "x " * 12_000
    status, reply = served.ask("/v1/completions", {"prompt": words})
    assert status == 400 and reply["error"]["message"] == "prompt has 24000 characters; the model reads 96 tokens"
    status, reply = served.ask("/v1/completions", {"prompt": ["a", words]})
    assert status == 400 and "prompt 1 has 24000 characters" in reply["error"]["message"]
    for odd in (item(reasoning=words), item(task_type=words)):
        status, reply = served.ask("/score", {"items": [item(), odd]})
        assert status == 200 and reply["scores"][0] is not None and reply["scores"][1] is None
    status, reply = served.ask("/score", {"items": [item(problem=words)]})
    assert status == 200 and reply["scores"][0] is not None, "a problem is shortened"


def test_health_needs_no_key(served):
    assert served.ask("/health", Authorization="")[0] == 200


def connect(served) -> socket.socket:
    parts = urlsplit(served.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=300)


def head(length: int) -> bytes:
    lines = (
        "POST /v1/completions HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def drip(s: socket.socket, data: bytes, pause: float) -> bytes:
    """Send byte by byte until the server has had enough; what it said."""
    try:
        for byte in data:
            s.sendall(bytes([byte]))
            time.sleep(pause)
    except OSError:
        pass
    try:
        return s.recv(65_536)
    except OSError:
        return b""


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_sender_of_a_byte_at_a_time_is_cut_off(served, part):
    """Each byte comes within the time-out of a read; the whole request does not."""
    with connect(served) as s:
        started = time.monotonic()
        if part == "body":
            s.sendall(head(1000))
        said = drip(s, (head(5) if part == "head" else b" ") * 1000, 0.1)
        assert time.monotonic() - started < 60
        assert said == b"" if part == "head" else said.startswith(b"HTTP/1.1 408")


def test_who_leaves_mid_way_costs_nothing(served):
    """In mid-body, and while waiting: the job is dropped before the model sees it."""
    with connect(served) as s:
        s.sendall(head(500) + b'{"prompt"')
    body = json.dumps({"prompt": [PROMPT] * 300, "max_tokens": 40, "temperature": 2.0}).encode()
    quick = json.dumps({"prompt": PROMPT, "max_tokens": 1, "n": 17}).encode()
    before = len(served.log)
    for _ in range(30):  # the one before may be done before anybody looks whether the waiting client is still there
        with connect(served) as busy:
            busy.sendall(head(len(body)) + body)
            while served.ask("/health")[1].get("queued", {"/v1/completions": 1})[
                "/v1/completions"
            ]:  # or 503: too many at once
                time.sleep(0.005)
            with connect(served) as s:
                s.sendall(head(len(quick)) + quick)
            answered = busy.recv(20)  # 429 where the last round's client still stands in the queue
            assert answered.startswith((b"HTTP/1.1 200", b"HTTP/1.1 429")), answered
        if any("the client closed the connection" in line for line in served.log[before:]):
            break
    served.wait_for("the client closed the connection", before, seconds=10)
    assert served.ask("/health")[0] == 200


def test_a_full_queue_says_so(served):
    """One call runs, one waits, a third is refused. When each arrives is up to the machine, so up to five times are tried."""
    body = json.dumps({"prompt": [PROMPT] * 300, "max_tokens": 40, "temperature": 2.0}).encode()
    refused = []
    for _ in range(5):
        with connect(served) as busy, connect(served) as waiting:
            for s in (busy, waiting):
                s.sendall(head(len(body)) + body)
            while not refused and not select.select([busy, waiting], [], [], 0)[0]:
                status, reply = served.ask("/v1/completions", {"prompt": PROMPT, "n": 20, "max_tokens": 1})
                if status != 200:
                    refused.append((status, reply["error"]["message"]))
            for s in (busy, waiting):  # either may itself be the one refused
                reply = s.recv(4096)
                assert reply.startswith((b"HTTP/1.1 200", b"HTTP/1.1 429"))
                refused += (
                    [(429, "queue is full")] if reply.startswith(b"HTTP/1.1 429") and b"queue is full" in reply else []
                )
        if refused:
            break
    assert refused and refused[0][0] == 429 and "queue is full" in refused[0][1]


def test_too_many_connections(served):
    held = [connect(served) for _ in range(6)]
    try:
        time.sleep(0.3)
        with connect(served) as s:
            reply = s.recv(1000)
            assert (
                reply.startswith(b"HTTP/1.1 503")
                and "too many connections" in json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["message"]
            )
    finally:
        for s in held:
            s.close()
    time.sleep(0.5)


def test_a_server_that_cannot_start_says_why(job, served):
    import subprocess
    import sys

    from support.serving import ROOT

    port = str(urlsplit(served.url).port)
    for arguments, code, said in (
        ((), 2, "nothing to serve"),
        (("--executor", "x", "--host", "0.0.0.0"), 2, "lets other machines in"),
        (("--executor", "nowhere"), 1, "nowhere"),
        (("--executor", str(job / "executor"), "--port", port), 1, "in use"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "tracelift.serve", *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert ended.returncode == code and said in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
