"""The judge against a real server process on the loopback: strict answers, retries, cache, resumption, agreement."""

import json
import math
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager

import pytest

from support import FOLDER
from tracelift.groups import (
    MATH_DIMENSIONS,
    Candidate,
    Group,
    GroupError,
    Rubric,
    read_groups,
    write_groups,
)
from tracelift.groups.__main__ import main
from tracelift.groups.judge import (
    Cache,
    JudgeEndpoint,
    JudgeError,
    agreement,
    agreement_text,
    ask,
    judge_groups,
    parse_scores,
    render,
    rubric_from_scores,
)

NAMES = MATH_DIMENSIONS


@contextmanager
def server(mode):
    command = [sys.executable, str(FOLDER / "judge_server.py"), mode]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline())
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def count(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.loads(opener.open(url.replace("/v1", "/count")).read())


def candidate(text, label=2, kind=None):
    return Candidate(text, Rubric({name: label for name in NAMES}, label / 4), kind)


def some_groups(n=2):
    bad = [candidate("bad " * i, kind="k", label=2) for i in range(1, 5)]
    good = [(candidate(f"good {i}", 4),) for i in range(n)]
    return [Group(f"p{i}", "s", "math", f"Problem {i}?", "7", good[i], tuple(bad)) for i in range(n)]


def quick(url, **changes):
    return JudgeEndpoint(url, "grader", **({"backoff": 0.0, "timeout": 10.0} | changes))


def test_every_trace_is_scored_and_the_rule_labels_stay(tmp_path):
    with server("good") as url:
        done = list(judge_groups(some_groups(), quick(url, key="secret"), Cache(tmp_path / "c.jsonl")))
        calls = count(url)
    assert [failed for _, failed in done] == [[], []] and calls["calls"] == 10
    assert calls["seen"][0] == ["/v1/chat/completions", "Bearer secret", "grader", 0.0]
    group = done[0][0]
    assert [c.extra["judge"]["total"] for c in group.candidates] == [1.0, 0.8, 0.6, 0.4, 0.2]
    assert [c.extra["judge"]["answer_support"] for c in group.candidates] == [4, 4, 3, 2, 1]  # min(4, floor(score/2))
    assert group.negative_bank[0].rubric == some_groups()[0].negative_bank[0].rubric


def test_replaced_labels_keep_the_rules_beside_and_survive_the_file(tmp_path):
    with server("good") as url:
        done = [g for g, _ in judge_groups(some_groups(), quick(url), Cache(tmp_path / "c"), replace_labels=True)]
    write_groups(tmp_path / "g.jsonl", done)
    first = read_groups(tmp_path / "g.jsonl")[0].negative_bank[3]
    assert first.rubric.total == 0.2 and first.extra["rule_rubric"]["total"] == 0.5
    assert agreement(read_groups(tmp_path / "g.jsonl"))[0].traces == 10


def test_unusable_answers_are_asked_for_again(tmp_path):
    waits = []
    with server("flaky") as url:
        scores = ask(quick(url, backoff=1.0), render(some_groups()[0], candidate("fine")), NAMES, waits.append)
        assert count(url)["calls"] == 4
    assert scores["total"] == 10 and waits == [1.0, 2.0, 4.0]


def test_a_trace_that_cannot_be_judged_is_counted_never_scored(tmp_path):
    with server("broken") as url:
        done = list(judge_groups(some_groups(1), quick(url, tries=2), Cache(tmp_path / "c"), workers=1))
        assert count(url)["calls"] == 10
    group, failed = done[0]
    assert len(failed) == 5 and "not JSON" in failed[0] and all("judge" not in c.extra for c in group.candidates)
    assert not (tmp_path / "c").exists()
    with server("denied") as url:
        with pytest.raises(JudgeError, match="HTTP 401: .*no key"):
            ask(quick(url), render(group, group.candidates[0]), NAMES)
        assert count(url)["calls"] == 1  # trying again cannot help
    with pytest.raises(JudgeError, match="127.0.0.1"):
        ask(quick(url, tries=1), render(group, group.candidates[0]), NAMES)  # the server is gone


def test_a_hosted_judge_is_reached_through_the_proxy_of_the_environment(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    prompt = render(some_groups()[0], candidate("fine"))
    with server("good") as url:
        monkeypatch.setenv("http_proxy", url.removesuffix("/v1"))
        assert ask(quick("http://judge.invalid/v1"), prompt, NAMES)["total"] == 10
        assert count(url)["seen"][0][0] == "http://judge.invalid/v1/chat/completions"
        monkeypatch.setenv("no_proxy", "judge.invalid")
        with pytest.raises(JudgeError, match="connection to judge.invalid"):
            ask(quick("http://judge.invalid/v1", tries=1), prompt, NAMES)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy")
        heard = []

        def refuse():
            connection, _ = proxy.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(JudgeError, match="403 Forbidden"):
            ask(quick("https://judge.invalid/v1", tries=1), prompt, NAMES)
        thread.join(10)
    assert heard[0].startswith(b"CONNECT judge.invalid:443") and b"Proxy-Authorization: Basic bWU6c2VjcmV0" in heard[0]


def test_an_address_that_is_none_is_said_at_once():
    with pytest.raises(JudgeError, match="ftp://judge: url .* must look like"):
        ask(quick("ftp://judge"), "", NAMES)


def test_a_killed_run_pays_for_no_call_twice(tmp_path):
    path = tmp_path / "cache.jsonl"
    with server("good") as url:
        list(judge_groups(some_groups(1), quick(url), Cache(path)))
        with path.open("ab") as file:
            file.write(b'{"key": "half')  # killed while writing
        done = list(judge_groups(some_groups(2), quick(url), Cache(path)))
        # The second group shares no prompt with the first: only its five traces are new.
        assert count(url)["calls"] == 10 and not done[0][1] and not done[1][1]
        list(judge_groups(some_groups(2), quick(url, temperature=0.7), Cache(path)))
        assert count(url)["calls"] == 20  # another temperature is another question
    path.write_text('{"key": 1}\n')
    with pytest.raises(GroupError, match="line 1"):
        Cache(path)


@pytest.mark.parametrize(
    "content,message",
    [
        ("8", "no JSON object"),
        ("```json\n{}\n```", "not JSON"),
        (json.dumps({n: 5 for n in NAMES}), r"missing \['total'\]"),
        (json.dumps({n: 5 for n in (*NAMES, "total", "style")}), r"surplus \['style'\]"),
        (json.dumps({n: 5 for n in NAMES} | {"total": 11}), "total is 11"),
        (json.dumps({n: True for n in NAMES} | {"total": 5}), "is True"),
        (json.dumps({n: "7" for n in NAMES} | {"total": 5}), "is '7'"),
        (json.dumps({n: 5 for n in NAMES} | {"total": math.nan}), "total is nan"),
    ],
)
def test_strict_json(content, message):
    with pytest.raises(JudgeError, match=message):
        parse_scores(content, NAMES)


def test_scores_become_labels_as_the_paper_says():
    for score, label in ((0, 0), (1.9, 0), (2, 1), (5, 2), (7.9, 3), (8, 4), (9.5, 4), (10, 4)):
        rubric = rubric_from_scores({n: score for n in (*NAMES, "total")}, NAMES)
        assert set(rubric.dimensions.values()) == {label} and rubric.total == score / 10


def test_agreement_by_hand():
    def judged(rule, judge):
        theirs = {n: judge for n in NAMES} | {"total": 0.5}
        return Candidate("x", Rubric({n: rule for n in NAMES}, 0.5), "k", {"judge": theirs})

    pairs = [(4, 4), (4, 3), (2, 2), (1, 3), (0, 0)]
    group = Group("p", "s", "math", "q", "1", (judged(*pairs[0]),), tuple(judged(*p) for p in pairs[1:]))
    row = agreement([group])[0]
    assert (row.traces, row.equal, row.within_one) == (5, 0.6, 0.8)
    # Σ(i−j)² over pairs = 1 + 4; over all 25 combinations of rule and judge labels = 128, scaled by 5.
    chance = sum((a - b) ** 2 for a, _ in pairs for _, b in pairs)
    assert row.kappa == pytest.approx(1 - 5 / (chance / 5))
    assert row.confusion[1][3] == 1 and sum(map(sum, row.confusion)) == 5
    assert "| step_coherence | 5 | 0.600 | 0.800 |" in agreement_text(agreement([group]))
    with pytest.raises(GroupError, match="run `judge` first"):
        agreement(some_groups())


def test_the_command_line(tmp_path, capsys):
    write_groups(tmp_path / "g.jsonl", some_groups(3))
    arguments = ["judge", str(tmp_path / "g.jsonl"), "--model", "grader", "--out", str(tmp_path / "j.jsonl"), "--quiet"]
    with server("good") as url:
        assert main([*arguments, "--url", url, "--limit", "2"]) == 0
    assert "10 of 10 traces judged, 0 left unjudged" in capsys.readouterr().out
    assert main(["agree", str(tmp_path / "j.jsonl")]) == 0 and "weighted kappa" in capsys.readouterr().out
    with server("denied") as url:
        other = [*arguments[:-2], str(tmp_path / "k.jsonl"), "--quiet", "--url", url]
        assert main([*other, "--max-failures", "3"]) == 1
    assert "could not be judged" in capsys.readouterr().err and not (tmp_path / "k.jsonl").exists()
    (tmp_path / "p.txt").write_text("{nothing}")
    assert main([*arguments, "--url", url, "--prompt", str(tmp_path / "p.txt"), "--tries", "1"]) == 1
    assert "field that is not one of" in capsys.readouterr().err
