"""The remote executor against a real server process on loopback that behaves, stalls, drops, fails or talks rubbish."""

import hashlib
import json
import socket
import subprocess
import sys
import time

import pytest

from support import FOLDER
from tracelift.executor.backend import CompletionRequest, Reply
from tracelift.executor.remote.client import RemoteBackend
from tracelift.executor.remote.outage import Outage


@pytest.fixture(scope="module")
def url():
    script = FOLDER / "completion_server.py"
    server = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.stdin.close()
        server.wait(timeout=10)
        server.stdout.close()


def ask(prompt: str, **options) -> CompletionRequest:
    return CompletionRequest(prompt, **{"max_tokens": 8, "temperature": 0.5, **options})


def client(url, pauses=None, **options) -> RemoteBackend:
    return RemoteBackend(url, "m", sleep=(pauses if pauses is not None else []).append, **options)


def tries(url) -> dict[str, int]:
    return json.loads(client(url).complete([ask("statistics", seed=time.monotonic_ns())])[0].text)["tries"]


def test_replies_come_in_order_and_equal_requests_are_sent_once(url):
    requests = [ask(f"a{i % 7}") for i in range(20)]
    seen = []
    replies = client(url).complete(requests, progress=lambda *x: seen.append(x))
    assert replies == [Reply(f"echo a{i % 7}", 7) for i in range(20)]
    assert seen == [(i, 7) for i in range(1, 8)]
    assert tries(url)["a3"] == 1
    assert client(url).complete([]) == []


def test_the_request_says_what_was_asked(url):
    text = client(url + "/v1/").complete([ask("show", seed=2**64 - 1, stop=("\n\n", "\n"), max_tokens=3)])[0].text
    assert json.loads(text) == {
        "model": "m",
        "prompt": "show",
        "max_tokens": 3,
        "temperature": 0.5,
        "seed": -1,
        "n": 1,
        "top_p": 1,
        "top_k": -1,
        "min_p": 0,
        "repetition_penalty": 1,
        "stop": ["\n\n", "\n"],
    }
    # The protocol takes four stop strings; the fifth cuts the text here.
    assert client(url).complete([ask("never", stop=("1", "2", "3", "4", "ve"))]) == [Reply("echo ne", 7)]


def test_a_server_that_refuses_the_neutral_law_is_asked_without_it_and_that_is_said_once(url):
    said = []
    backend = client(url, patience=Outage(5, said.append))
    requests = [ask(f"strict {i}") for i in range(12)]
    assert [r.text for r in backend.complete(requests)] == [f"echo strict {i}" for i in range(12)]
    assert len(said) == 1 and "without top_k, min_p, repetition_penalty, so it may truncate" in said[0]
    known = json.loads(backend.complete([ask("show", seed=7)])[0].text)
    assert known["top_p"] == 1 and not {"top_k", "min_p", "repetition_penalty"} & known.keys()
    refused = client(url).complete([ask("400 of its own")])[0]
    assert "prompt too long" in refused.error and tries(url)["400 of its own"] == 1, (
        "another refusal is not asked again"
    )


def test_without_a_name_the_only_model_is_asked_for(url):
    def serve(*rows):
        client(url).complete([ask("serve " + json.dumps(rows), seed=time.monotonic_ns())])
        return RemoteBackend(url, "", sleep=lambda s: None)

    backend = serve({"id": "the-one"}, {"id": "an RM", "endpoint": "/score"})
    assert json.loads(backend.complete([ask("show", seed=9)])[0].text)["model"] == "the-one"
    assert backend.fingerprint == RemoteBackend(url, "the-one").fingerprint
    with pytest.raises(ValueError, match="serves several models; name one of a, b"):
        _ = serve({"id": "a"}, {"id": "b"}).name
    silent = serve()
    assert silent.name == "" and "model" not in json.loads(silent.complete([ask("show", seed=9)])[0].text)


def test_half_a_character_in_a_reply_is_replaced(url):
    """It could be written to no file: one such reply would end an evaluation."""
    assert client(url).complete([ask("half")])[0].text == "a \N{REPLACEMENT CHARACTER} b \N{GRINNING FACE}"


def test_the_key_is_sent(url):
    assert client(url, api_key="secret").complete([ask("authorised")])[0].error is None
    refused = client(url).complete([ask("authorised 2")])[0]
    assert "401" in refused.error and "attempt 1" in refused.error


@pytest.mark.parametrize("fault", ["500", "429", "drop", "cut", "rubbish", "shape"])
def test_passing_faults_are_retried_until_they_pass(url, fault):
    pauses = []
    assert client(url, pauses).complete([ask(f"{fault} twice")]) == [Reply(f"echo {fault} twice", 7)]
    assert len(pauses) == 2
    if fault == "429":
        assert min(pauses) >= 3, "Retry-After says three seconds"
    else:
        assert 0.25 <= pauses[0] < 0.75 and 0.5 <= pauses[1] < 1.5


@pytest.mark.parametrize(
    "fault, said",
    [
        ("500", "answered 500"),
        ("drop", "connection"),
        ("cut", "before the reply did"),
        ("rubbish", "not JSON"),
        ("shape", "text is NoneType"),
        ("stall", "within 0.4 s"),
        ("drip", "within 0.4 s"),
    ],
)
def test_lasting_faults_become_errors_not_texts(url, fault, said):
    pauses = []
    start = time.monotonic()
    (reply,) = client(url, pauses, retries=2, timeout_s=0.4).complete([ask(f"{fault} for ever")])
    assert reply.text == "" and said in reply.error and "attempt 3 of 3" in reply.error
    assert tries(url)[f"{fault} for ever"] == 3 and len(pauses) == 2
    assert time.monotonic() - start < 30


def test_a_request_the_server_refuses_is_not_repeated(url):
    (reply,) = client(url).complete([ask("400")])
    assert "prompt too long" in reply.error and tries(url)["400"] == 1


def test_one_bad_request_leaves_the_others_alone(url):
    replies = client(url, retries=0).complete([ask("good 1"), ask("rubbish 3"), ask("good 2")])
    assert [r.error is None for r in replies] == [True, False, True]


def test_requests_run_side_by_side_up_to_the_limit(url):
    assert all(r.error is None for r in client(url, concurrency=5).complete([ask(f"slow {i}") for i in range(20)]))
    most = json.loads(client(url).complete([ask("statistics", seed=5)])[0].text)["most"]
    assert 2 <= most <= 16  # 16 is the other tests' default


def test_another_model_behind_the_same_address_is_another_fingerprint(url):
    """The server's own word for what it serves is part of it; what changes by the call, and other models, are not."""

    def fingerprint(*rows):
        client(url).complete([ask("serve " + json.dumps(rows), seed=time.monotonic_ns())])
        backend = client(url)
        return backend.fingerprint, backend.served

    unnamed, served = fingerprint()
    assert served == ""
    a, served = fingerprint({"id": "m", "root": "/models/a"}, {"id": "other", "root": "1"})
    assert json.loads(served) == [{"id": "m", "root": "/models/a"}]
    assert a == fingerprint({"id": "m", "root": "/models/a", "permission": [7]}, {"id": "other", "root": "2"})[0]
    b, _ = fingerprint({"id": "m", "root": "/models/b"})
    c, _ = fingerprint({"id": "m", "root": "/models/b", "fingerprint": "c"})
    alias, _ = fingerprint({"id": "/file.gguf", "meta": {"n_params": 7}})
    assert len({unnamed, a, b, c, alias}) == 5 and unnamed == fingerprint()[0]


def test_what_is_served_is_asked_once(url):
    client(url).complete([ask('serve [{"id": "m"}]')])
    backend, before = client(url), tries(url).get("models", 0)
    assert len({backend.fingerprint for _ in range(5)}) == 1 and tries(url)["models"] == before + 1


def test_no_server_at_all():
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        (reply,) = client(f"http://127.0.0.1:{taken.getsockname()[1]}", retries=1).complete([ask("x")])
    assert "connection" in reply.error and "attempt 2 of 2" in reply.error


def test_pauses_are_bounded(url):
    pauses = []
    client(url, pauses, retries=8, longest_pause_s=4).complete([ask("500 again")])
    assert len(pauses) == 8 and max(pauses) <= 6 and len(set(pauses)) == 8


def test_fingerprint_and_bad_settings():
    prints = [
        RemoteBackend(f"http://127.0.0.1:{at}", model, retries=0).fingerprint
        for at, model in (("1", "m"), ("1/v1/completions", "m"), ("2", "m"), ("1", "n"))
    ]
    assert prints[0] == prints[1] and len(set(prints)) == 3, "nobody there: the address and the model's name"
    known = "(_Server(secure=False, host='127.0.0.1', port=1, path='/v1/completions'), 'm'{})"
    assert prints[0] == hashlib.sha256(known.format(", 'whole'").encode()).hexdigest(), "caches on disk are still found"
    assert prints[0] != hashlib.sha256(known.format("").encode()).hexdigest(), "but not those of a truncated law"
    for bad in ("h:8000", "ftp://h", "http://"):
        with pytest.raises(ValueError, match="must look like"):
            RemoteBackend(bad, "m")
    with pytest.raises(ValueError, match="concurrency=0"):
        RemoteBackend("http://h", "m", concurrency=0)
