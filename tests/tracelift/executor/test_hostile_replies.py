"""Clients against servers that mean ill or are broken: every reply ends as a reply or as an ERROR, and none outlasts its time.

The drips have no end of their own: they go on until the client leaves, so a client without a deadline over the whole of a
call never comes back from them.
"""

import itertools
import json
import math
import queue
import random
import socket
import ssl
import subprocess

import pytest
import torch

from support.hostile import drip, for_ever, listening, reply, request_of
from tracelift.build import build_executor
from tracelift.config import load_config
from tracelift.executor.backend import CompletionRequest
from tracelift.executor.executor import RunItem
from tracelift.executor.remote.client import RemoteBackend
from tracelift.executor.remote.transport import MAX_BYTES, Failure, Transport, parse_url
from tracelift.reward_model.remote import RemoteScorer
from tracelift.reward_model.scorer import ScoreItem
from tracelift.tasks.task import Task
from tracelift.verify.verdict import Verdict

ASK = CompletionRequest("x", max_tokens=8)
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def complete(port, request=ASK, scheme="http", **options):
    options = {"retries": 0, "timeout_s": 20.0} | options
    return RemoteBackend(f"{scheme}://127.0.0.1:{port}", "m", sleep=lambda s: None, **options).complete([request])[0]


# -- one deadline ------------------------------------------------------------------------------------------------------

DRIPS = {
    "nothing at all": (),
    "a header that never ends": for_ever(HEAD + b"X: ", b"a"),
    "headers that never end": for_ever(HEAD, b"X: a\r\n"),
    "the status, byte by byte": for_ever(b"HTTP/1.1 200 ", b"O"),
    "continue, for ever": for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a chunk's extension": for_ever(CHUNKED + b"5;", b"a"),
    "chunks of a byte": for_ever(CHUNKED, b"1\r\n \r\n"),
    "trailers": for_ever(CHUNKED + b"0\r\n", b"X: a\r\n"),
    "a body of known length": for_ever(HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "a body without a length": for_ever(HEAD + b"\r\n", b" "),
}


@pytest.mark.parametrize("case", DRIPS)
def test_no_drip_outlasts_the_deadline(case):
    def serve(connection):
        request_of(connection)
        drip(connection, DRIPS[case])
        connection.recv(1)  # until the client leaves

    with listening(serve) as port:
        found = complete(port, timeout_s=0.4)
    assert found.text == "" and "no complete reply from 127.0.0.1 within 0.4 s" in found.error


def test_continue_without_a_pause_is_no_progress_either():
    """Each read succeeds at once: only a look at the clock ends it."""

    def serve(connection):
        while True:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    with listening(serve) as port:
        assert "within 0.4 s" in complete(port, timeout_s=0.4).error


def test_a_server_that_reads_nothing_does_not_hold_the_sender():
    with listening(lambda connection: drip(connection, for_ever(b"", b"H"))) as port:
        found = complete(port, CompletionRequest("x" * 40_000_000, 8), timeout_s=0.4)
    assert found.error is not None


def test_a_handshake_that_never_comes():
    with listening(lambda connection: connection.recv(1) and connection.recv(100_000) and connection.recv(1)) as port:
        assert "within 0.4 s" in complete(port, scheme="https", timeout_s=0.4).error


def test_a_secure_server_is_read_by_the_same_deadline(tmp_path, monkeypatch):
    """TLS sockets are made by their context, not here: that they too have the deadline, and send and receive at all."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("no openssl to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))

    def serve(connection):
        with context.wrap_socket(connection, server_side=True) as secure:
            asked = json.loads(request_of(secure).partition(b"\r\n\r\n")[2])
            if asked["prompt"] == "drip":
                drip(secure, for_ever(HEAD + b"X: ", b"a"))
            secure.sendall(reply(json.dumps({"choices": [{"text": "y" * 300_000}]}).encode()))

    with listening(serve) as port:
        assert complete(port, scheme="https").text == "y" * 300_000
        assert "within 0.4 s" in complete(port, CompletionRequest("drip", 8), scheme="https", timeout_s=0.4).error


# -- replies that are none ---------------------------------------------------------------------------------------------


def completion(text="fine", **others):
    return json.dumps({"choices": [{"text": text}], "usage": {"completion_tokens": 1}} | others).encode()


def with_tokens(value: str) -> bytes:
    return b'{"choices": [{"text": "a"}], "usage": {"completion_tokens": %s}}' % value.encode()


def ended(reason, text="") -> bytes:
    return json.dumps({"choices": [{"text": text, "finish_reason": reason}]}).encode()


BROKEN = {  # a body, and what is said of it
    "empty": (b"", "not JSON"),
    "nested": (b"[" * 100_000, "not JSON (nested too deeply)"),
    "nested and whole": (b'{"choices": ' + b"[" * 300 + b"]" * 300 + b"}", "nested too deeply"),
    "a number of 5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    "NaN": (b'{"choices": [{"text": "a"}], "x": NaN}', "NaN is not JSON"),
    "not UTF-8": (b'{"choices": [{"text": "\xff"}]}', "not JSON"),
    "a list": (b"[]", "no JSON object"),
    "choices of another kind": (b'{"choices": {"0": {"text": "a"}}}', "not a completion"),
    "a choice of another kind": (b'{"choices": ["text"]}', "not a completion"),
    "no choice": (b'{"choices": []}', "not a completion"),
    "no text": (b'{"choices": [{"text": 5}]}', "text is int"),
    "a chat's reply": (b'{"choices": [{"message": {"content": "a"}}]}', "text is NoneType"),
    "an error beside a text": (completion("", error={"message": "out of \x1b[2Jmemory"}), "the reply holds an error"),
    **{f"tokens {v}": (with_tokens(v), "completion_tokens") for v in ("-5", "true", "1.5", "null", '"3"', "1" + "0" * 400)},
    **{f"ended by {r}": (ended(r), f"finish_reason '{r}'") for r in ("abort", "error", "content_filter", "who knows")},
    "broken off with a text": (ended("abort", "4"), "finish_reason 'abort'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_malformed_reply_is_an_error(case):
    body, said = BROKEN[case]

    def serve(connection):
        request_of(connection)
        connection.sendall(reply(body))

    with listening(serve) as port:
        found = complete(port)
    assert (found.text, found.tokens) == ("", 0) and said in found.error, found.error
    assert found.error.isprintable() and len(found.error) < 600


@pytest.mark.parametrize(
    "body", [ended("stop"), ended("length", "a"), ended(None, ""), ended("eos_token"), completion()]
)
def test_an_honest_end_is_no_error_also_of_an_empty_text(body):
    with listening(lambda c: (request_of(c), c.sendall(reply(body)))) as port:
        assert complete(port).error is None


HEADS = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "a status of 99 digits": b"HTTP/1.1 " + b"9" * 99 + b"\r\n\r\n",
    "a thousand headers": HEAD + b"X: a\r\n" * 1000 + b"\r\n",
    "a header of a megabyte": HEAD + b"X: " + b"a" * 2**20 + b"\r\n\r\n",
    "a length of another script": HEAD + "Content-Length: ²\r\n\r\n".encode("latin-1") + b"{}",
    "a length of 5,000 digits": HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "a chunk of no size": CHUNKED + b"zz\r\n",
    "a chunk of less than nothing": CHUNKED + b"-5\r\n{}\r\n0\r\n\r\n",
    "chunks cut off": CHUNKED + b"ff\r\n{",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere\r\nContent-Length: 0\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "a redirecting status without a word": b"HTTP/1.1 399 \r\n\r\n",
}


@pytest.mark.parametrize("case", HEADS)
def test_a_head_that_is_no_http_is_an_error(case):
    def serve(connection):
        request_of(connection)
        connection.sendall(HEADS[case])

    with listening(serve) as port:
        found = complete(port)
    assert found.text == "" and found.error and found.error.isprintable()


def test_a_reply_without_end_is_cut_off():
    def serve(connection):
        request_of(connection)
        connection.sendall(HEAD + b"\r\n")
        while True:
            connection.sendall(b" " * 2**20)

    with listening(serve) as port:
        assert f"the reply exceeds {MAX_BYTES:,} bytes" in complete(port, timeout_s=60).error


@pytest.mark.parametrize(
    ("value", "pause"), [("3", 3), ("²", None), ("9" * 400, 30), ("-1", None), ("nan", None), ("Wed, 21 Oct", None), ("", None)]
)  # fmt: skip
def test_retry_after_is_read_where_it_is_seconds(value, pause):
    pauses = []

    def serve(connection):
        request_of(connection)
        connection.sendall(reply(b"busy", "429 Slow", b"Retry-After: " + value.encode("latin-1")))

    with listening(serve) as port:
        backend = RemoteBackend(f"http://127.0.0.1:{port}", "m", retries=1, sleep=pauses.append)
        assert "answered 429: busy" in backend.complete([ASK])[0].error
    assert pauses == [pytest.approx(pause)] if pause else pauses[0] < 1


def mutated(draw: random.Random, value):
    """A JSON text in which one value is another, or bytes of it are: what is sent by a server that is broken somewhere."""
    odd = ['"a"', "-1", "1e999", "NaN", "-Infinity", "true", "null", "{}", "[]", "1" + "0" * 400, "9" * 5000, "0.5",
           "[" * 500 + "]" * 500, '"\\ud800"', '"\\u001b[2J"', "2", '{"error": "x"}', "[[]]"]  # fmt: skip
    places = []

    def walk(node, path):
        places.append(path)
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            walk(node[key], (*path, key))

    walk(value, ())
    chosen, mark = draw.choice(places), "@@here@@"

    def rebuilt(node, path):
        if path == chosen:
            return mark
        if isinstance(node, dict):
            return {k: rebuilt(v, (*path, k)) for k, v in node.items() if draw.random() > 0.03}
        return [rebuilt(v, (*path, i)) for i, v in enumerate(node)] if isinstance(node, list) else node

    data = bytearray(json.dumps(rebuilt(value, ())).replace(f'"{mark}"', draw.choice(odd)).encode())
    if draw.random() < 0.3:
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data)) : draw.randrange(len(data))] = bytes(draw.randrange(256) for _ in range(2))
            data = data or bytearray(b"0")
    return bytes(data)


def test_random_replies_are_completions_or_errors():
    draw = random.Random(1)
    good = {
        "choices": [{"text": "a", "finish_reason": "stop", "index": 0}],
        "usage": {"completion_tokens": 3},
        "id": "x",
    }
    bodies = [mutated(draw, good) for _ in range(300)]
    left = iter(bodies)
    with listening(lambda c: (request_of(c), c.sendall(reply(next(left))))) as port:
        found = [complete(port) for _ in bodies]
    assert all(isinstance(r.text, str) and type(r.tokens) is int and 0 <= r.tokens < 2**31 for r in found)
    for r in found:
        (r.text + (r.error or "")).encode()  # writable to a file
    assert 30 < sum(r.error is None for r in found) < 270, "both are met"


# -- the Reason RM -----------------------------------------------------------------------------------------------------

ITEMS = [ScoreItem("math", "p", "r" * n) for n in (1, 2)]
NAMES = ["one", "two"]


def scorer_of(bodies):
    """A scorer whose server answers the first question well and then with `bodies`, one a call."""
    first = json.dumps({"scores": [], "dimension_names": NAMES, "fingerprint": "f"}).encode()
    replies = itertools.chain([first], bodies)

    def serve(connection):
        if request_of(connection):  # a knock asks nothing
            connection.sendall(reply(next(replies)))

    return listening(serve)


def detail(**changes):
    return {"derived": 0.5, "head": 0.5, "dimensions": [1.0, 2.0]} | changes


def scores_of(*bodies):
    with scorer_of(bodies) as port:
        scorer = RemoteScorer(f"http://127.0.0.1:{port}", retries=0, sleep=lambda s: None)
        return [scorer.score(ITEMS) for _ in bodies]


ODD_SCORES = {
    "of another scale": (dict(score=1000), "a score is 1000, outside [0, 1]"),
    "below": (dict(score=-7), "a score is -7, outside [0, 1]"),
    "just above": (dict(score=1.01), "outside [0, 1]"),
    "of no float": (dict(score=10**400), "no finite number"),
    "NaN": (dict(score=math.nan), "a score is nan, no finite number"),
    "infinite": (dict(score=math.inf), "no finite number"),
    "true": (dict(score=True), "a score is True, no finite number"),
    "a text": (dict(score="0.5"), "a score is '0.5'"),
    "a NaN dimension": (dict(dimensions=[1.0, math.nan]), "a dimension is nan"),
    "a huge dimension": (dict(dimensions=[1.0, 10**400]), "a dimension is 1000"),
    "dimensions of another kind": (dict(dimensions="ab"), "dimensions are 'ab'"),
    "a dimension too few": (dict(dimensions=[1.0]), "1 dimensions of 2"),
    "a NaN head": (dict(head=math.nan), "a score of the total head is nan"),
    "a derived score of another scale": (dict(derived=5), "a derived score is 5, outside [0, 1]"),
    "none": (dict(score=None, error="too \x1b[2Jlong"), "too \\x1b[2Jlong"),
}


@pytest.mark.parametrize("case", ODD_SCORES)
def test_a_score_that_is_none_is_an_error_of_its_item_alone(case):
    changes, said = ODD_SCORES[case]
    changes = dict(changes)
    body = {"scores": [changes.pop("score", 0.5), 0.25], "details": [detail(**changes), detail(derived=0.25)]}
    ((odd, good),) = scores_of(json.dumps(body).encode())
    assert odd.error is not None and said in odd.error and odd.error.isprintable()
    assert (good.error, good.total, good.dimensions) == (None, 0.25, (1.0, 2.0))


def test_rounding_beyond_the_ends_is_no_error():
    body = {"scores": [1 + 1e-7, -1e-7], "details": [detail(derived=1 + 1e-7), detail(head=-1e-7)]}
    ((high, low),) = scores_of(json.dumps(body).encode())
    assert (high.total, high.derived, low.total, low.head) == (1, 1, 0, 0) and high.error is low.error is None


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"{}", b'{"scores": 5}', b'{"scores": [0.5]}', b'{"scores": "ab"}', b'{"scores": [1, 1], "details": [{}]}']
)  # fmt: skip
def test_a_reply_of_no_scores_is_an_error_of_all(body):
    ((a, b),) = scores_of(body)
    assert a.error == b.error and "the Reason RM's server:" in a.error


def test_random_scores_are_scores_or_errors():
    draw = random.Random(2)
    good = {"scores": [0.5, 0.25], "details": [detail(), detail(derived=0.25, head=None)], "fingerprint": "f"}
    found = [score for pair in scores_of(*(mutated(draw, good) for _ in range(300))) for score in pair]
    kept = [s for s in found if s.error is None]
    assert 60 < len(kept) < 540
    assert all(0 <= x <= 1 for s in kept for x in (s.total, s.derived, s.head or 0.0))
    assert all(math.isfinite(x) for s in kept for x in s.dimensions) and all(len(s.dimensions) == 2 for s in kept)
    assert all(s.error.isprintable() for s in found if s.error is not None)


@pytest.mark.parametrize("names", [5, "ab", [1], ["\x1b[2J"], {"a": 1}])
def test_dimension_names_of_another_kind_are_refused_at_the_start(names):
    body = json.dumps({"scores": [], "dimension_names": names}).encode()
    serve = lambda c: request_of(c) and c.sendall(reply(body))  # noqa: E731
    with listening(serve) as port, pytest.raises(ValueError, match="no list of names"):
        RemoteScorer(f"http://127.0.0.1:{port}", retries=0)


@pytest.mark.parametrize("retries", [0, 2])
def test_one_key_counts_the_attempts_of_a_call(retries):
    """From the config on: neither the client's own default nor a second loop above it multiplies them."""
    asked = []

    def serve(connection):
        if request := request_of(connection):
            asked.append(request)
            connection.sendall(reply(b"busy", "500 Busy"))

    with listening(serve) as port:
        words = [
            "--executor.url",
            f"http://127.0.0.1:{port}",
            "--executor.model",
            "m",
            "--executor.retries",
            str(retries),
        ]
        executor = build_executor(load_config(None, words), torch.device("cpu"), None)
        executor.backend.backend._sleep = lambda seconds: None
        ((run,),) = executor.run([RunItem(Task("p", "What is 1 + 1?", "2"), "trace", (7,))])
    assert len(asked) == retries + 1 and run.judgement.verdict is Verdict.ERROR
    assert f"attempt {retries + 1} of {retries + 1}" in run.judgement.detail


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_the_query_of_an_address_is_sent_with_every_request():
    seen = []

    def serve(connection):
        seen.append(request_of(connection).split(b" ")[1].decode())
        connection.sendall(reply(completion() if "completions" in seen[-1] else b'{"data": [{"id": "m"}]}'))

    with listening(serve) as port:
        backend = RemoteBackend(f"http://127.0.0.1:{port}/x/v1?api-version=7&a=%20", "m", retries=0)
        assert backend.complete([ASK])[0].text == "fine" and backend.served
    assert seen == ["/x/v1/completions?api-version=7&a=%20", "/x/v1/models?api-version=7&a=%20"]
    server = parse_url("http://h/v1?a=1", "/v1", "/completions")
    assert repr(server) != repr(parse_url("http://h/v1?a=2", "/v1", "/completions")), "another query, another server"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://h/v1/chat/completions", "names /chat/completions, but /completions is what is asked"),
        ("http://h/score", "names /score, but"),
        ("http://me:secret@h/v1", "a user and password in it are not sent"),
        ("http://me@h/v1", "a user and password in it are not sent"),
        ("http://h/v1#top", "what follows a #"),
        ("http://h/a b", "spaces"),
        ("http://h/\u00fc", "beyond ASCII"),
        ("http://h/\x1b[2J", "beyond ASCII"),
        ("http://h:99999", "Port out of range"),
        ("http://h:x", "Port could not be cast"),
        ("http://[::1", "Invalid IPv6"),
        ("http://:80", "must look like"),
    ],
)
def test_what_could_not_be_sent_is_refused(url, said):
    with pytest.raises(ValueError, match=said) as error:
        parse_url(url, "/v1", "/completions")
    assert "secret" not in str(error.value) and str(error.value).isprintable()


def test_each_client_knows_its_own_endpoint():
    chat = parse_url("http://h/v1/chat/completions/", "", "/chat/completions")
    assert chat == parse_url("http://h/v1", "", "/chat/completions") and chat.path == "/v1/chat/completions"
    assert parse_url("http://h/v1/completions", "/v1", "/completions").path == "/v1/completions"
    assert parse_url("https://h:1/x/score", "", "/score").path == "/x/score"
    with pytest.raises(ValueError, match="names /completions, but /chat/completions"):
        parse_url("http://h/v1/completions", "", "/chat/completions")


@pytest.mark.parametrize("key", ["a\nb", "a\r\nX: y", "ключ", "\x1b"])
def test_a_key_that_no_header_can_carry_is_refused(key):
    with pytest.raises(ValueError, match="the API key holds"):
        RemoteBackend("http://h", "m", key)


def test_where_nobody_listens_is_said_without_a_pause():
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ValueError, match=rf"nobody listens at {url} \(ConnectionRefusedError"):
            Transport(parse_url(url, "", "/score")).knock()
        with pytest.raises(ValueError, match="nobody listens"):
            RemoteScorer(url, retries=9, sleep=lambda s: pytest.fail("it waits"))
    with pytest.raises(ValueError, match="nobody listens at http://no.such.host.invalid"):
        Transport(parse_url("http://no.such.host.invalid", "", "/score")).knock()
    asked = queue.Queue()
    with listening(lambda c: asked.put(c.recv(10))) as port:
        Transport(parse_url(f"http://127.0.0.1:{port}", "", "/score")).knock()
        assert asked.get() == b"", "somebody listens, and is asked nothing"


def test_no_exception_but_failure_leaves_an_exchange():
    teapot = lambda c: (request_of(c), c.sendall(reply(b"\x1b[2J no", "418 Teapot")))  # noqa: E731
    with listening(teapot) as port, pytest.raises(Failure, match=r"the server answered 418: \\x1b\[2J no"):
        Transport(parse_url(f"http://127.0.0.1:{port}", "", "/score")).exchange("GET", "/")
