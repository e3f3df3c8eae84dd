"""A remote executor that dies in the middle of a round: the run waits and goes on as if nothing had been, or stops whole.

The server is a process of its own that drops dead at a given request, and is started again on the same port, or not.
"""

import json
import threading
import time

import pytest

from support.job_server import Hurt
from support.mortal import Mortal
from support.runs import assert_same_metrics
from support.tiny_job import planner_arguments
from tracelift.errors import ServerGone
from tracelift.executor.backend import CompletionRequest
from tracelift.executor.remote.client import RemoteBackend
from tracelift.executor.remote.outage import Outage
from tracelift.reward_model.remote import RemoteScorer
from tracelift.reward_model.scorer import ScoreItem


def arguments(job, out, port, *extra):
    return planner_arguments(
        job,
        out,
        "--run.steps",
        "3",
        "--run.save_every",
        "3",
        "--data.eval_problems",
        "0",
        "--executor.url",
        f"http://127.0.0.1:{port}",
        "--executor.model",
        "sums",
        *extra,
    )


def contents(folder):
    logs = {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "samples.jsonl")}
    cache = sorted(line for path in folder.glob("baseline_cache.*.jsonl") for line in path.read_text().splitlines())
    return logs | {"cache": cache, "weights": (folder / "final" / "model.safetensors").read_bytes()}


def rounds(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(job, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "run"
    with Mortal() as up:
        server.done(*arguments(job, folder, up.port))
    assert all(m["verdict_errors"] == 0 for m in rounds(folder)) and any(m["grad_norm"] > 0 for m in rounds(folder))
    # The port is part of the baseline's key: what a server at another address answers is another baseline.
    return contents(folder) | {"cache": [json.loads(line)["runs"] for line in contents(folder)["cache"]]}


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_server_that_dies_and_comes_back_leaves_no_trace(job, server, undisturbed, out, ranks):
    with Mortal(dies_at=100) as first:  # a round asks for some 96 runs and the baselines
        ended = []
        run = threading.Thread(target=lambda: ended.extend(server.start(*arguments(job, out, first.port), ranks=ranks)))
        run.start()
        assert first.process.wait(300) == 1, "it died while the run went on"
        said = [
            server.folder / f"out-{server.count}-{rank}.txt" for rank in range(ranks)
        ]  # whichever rank meets it says so
        until = time.monotonic() + 300
        while not any(
            "waiting for the executor at http://127.0.0.1" in path.read_text() for path in said if path.exists()
        ):
            assert run.is_alive() and time.monotonic() < until, ended
            time.sleep(0.2)
        with Mortal(first.port):
            run.join(300)
    assert [e.code for e in ended] == [0] * ranks, ended
    told = "".join(e.text for e in ended)
    assert "answers again" in told and "of at most 600 s: connection to 127.0.0.1: ConnectionRefusedError" in told
    found = contents(out)
    runs = [json.loads(line)["runs"] for line in found["cache"]]
    assert sorted(runs) == sorted(undisturbed["cache"]), "each baseline once, none of it from an error"
    if ranks == 1:
        assert {**found, "cache": None} == {**undisturbed, "cache": None}
    else:
        before = [json.loads(line) for line in undisturbed["metrics.jsonl"].splitlines()]
        assert_same_metrics(rounds(out), before)


@pytest.mark.parametrize("ranks", [1, 2])
def test_past_the_limit_the_run_stops_with_what_it_learned_saved(job, server, undisturbed, out, ranks):
    with Mortal(dies_at=260) as first:
        ended = server.start(*arguments(job, out, first.port, "--executor.patience_s", "1.5"), ranks=ranks)
    assert all(e.code == 2 and "was not finished: the executor at http://127.0.0.1" in e.message for e in ended), ended
    assert "start it again and --resume" in ended[0].message
    done = len(rounds(out))
    assert 1 <= done < 3 and [p.name for p in (out / "checkpoints").iterdir()] == [f"step-{done:06d}"]
    with Mortal(first.port):
        server.done(*arguments(job, out, first.port, "--resume"), ranks=ranks)
    if ranks == 1:
        assert {**contents(out), "cache": None} == {**undisturbed, "cache": None}


def test_a_request_to_stop_ends_the_wait(job, server, out):
    hurt = Hurt("term", "tracelift.executor.remote.outage:Outage.wait", 1)
    with Mortal(dies_at=150) as first:
        ended = server.run(*arguments(job, out, first.port), hurt=hurt)
    assert ended.code == 143 and "stopped on request in round" in ended.text, ended


def test_a_reason_rm_that_dies_is_waited_for_too():
    """Asked once for its dimensions, dead at the scores; started again as soon as the wait has said what for."""
    with Mortal(dies_at=2) as first:
        again, said = [], []

        def say(line):
            said.append(line)
            if line.startswith("waiting for the Reason RM at http://127.0.0.1") and not again:
                again.append(Mortal(first.port))

        scorer = RemoteScorer(f"http://127.0.0.1:{first.port}", backoff_s=0.01, patience=Outage(60, say))
        try:
            scores = scorer.score([ScoreItem("math", "p", "r" * n) for n in (3, 5)])
        finally:
            for server in again:
                server.__exit__()
    assert (
        [(s.total, s.error) for s in scores] == [(0.3, None), (0.5, None)]
        and "the Reason RM at" in said[-1]
        and "answers again" in said[-1]
    )


@pytest.mark.parametrize("retries", [0, 1])
def test_what_no_server_took_is_asked_again_where_one_is_back_before_the_wait_began(retries):
    """Two ranks wait for one server: the later of them may find it there at its first look."""
    with Mortal() as up:
        port = up.port
    back = []

    class Late(Outage):
        def wait(self, what, ask):
            back.append(Mortal(port))
            return super().wait(what, ask)

    backend = RemoteBackend(
        f"http://127.0.0.1:{port}", "sums", retries=retries, backoff_s=0.01, patience=Late(60, lambda line: None)
    )
    requests = [CompletionRequest(f"{n} + 1", max_tokens=4, temperature=0.0) for n in range(40)]
    try:
        replies = backend.complete(requests)
    finally:
        for server in back:
            server.__exit__()
    assert len(back) == 1 and all(r.error is None and r.text for r in replies)


def test_patience_is_bounded_and_says_what_it_waits_for():
    said, asked = [], []
    patience = Outage(seconds=0.3, say=said.append, longest_pause_s=0.1, sleep=lambda s: time.sleep(min(s, 0.05)))
    with pytest.raises(ServerGone, match=r"the thing has been gone for \d+ s \(no road\)"):
        patience.wait("the thing", lambda: asked.append(1) or "no road")
    assert 2 <= len(asked) <= 10 and said[0] == "waiting for the thing, 0 s of at most 0 s: no road"
    answers = iter(["no road", None])
    assert patience.wait("it", lambda: next(answers)) and "it answers again" in said[-1]
    assert not Outage(seconds=0.3, say=said.append).wait("it", lambda: None), "nothing to wait for is not a wait"
    with pytest.raises(ServerGone, match="called off"):
        Outage(seconds=60, say=said.append, give_up=lambda: True).wait("it", lambda: "gone")
