"""What eval.py takes from an earlier evaluation's records and what it makes anew: references, servers, failed scores."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import eval as evaluation
from support.evaluations import arguments, read, records
from support.mortal import Mortal


@pytest.fixture
def problems(job, tmp_path):
    """A file of the tiny job's problems that a test may change: (path, write(rows), rows)."""
    rows = [json.loads(line) for line in (job / "problems.jsonl").read_text().splitlines()]
    path = tmp_path / "mine.jsonl"

    def write(rows):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(rows)
    return path, write, rows


def judge(job, path, out, *extra):
    """One greedy evaluation without Reason RM (last words win): (exit code, figures of its only benchmark)."""
    code = evaluation.main(
        arguments(
            job,
            out,
            "--reward_model.path",
            "",
            "--eval.modes",
            "greedy",
            "--eval.arms",
            "planner",
            "--eval.benchmarks",
            f"tasks:{path}",
            *extra,
        )
    )
    return code, next(iter(read(out)["benchmarks"].values())) if code == 0 else {}


def test_a_corrected_reference_is_read_anew_without_sampling(job, problems, tmp_path, monkeypatch):
    """What a trace states depends on the answer, which the trace itself does not."""
    path, write, rows = problems
    _, before = judge(job, path, tmp_path / "out")
    write([row | {"answer": 7777} for row in rows])
    from tracelift.evaluation import traces

    monkeypatch.setattr(traces, "sample_traces", lambda *a: pytest.fail("sampled again"))
    _, after = judge(job, path, tmp_path / "out")
    stated = [next(iter(b["traces"].values()))["greedy"]["answer stated"]["value"] for b in (before, after)]
    assert stated[0] > 0 and stated[1] == 0.0
    assert after["arms"]["planner"]["greedy"]["accuracy"]["value"] == 0.0


class ScoreServer:
    """Answers /score with a third for every trace while `healthy`, else with 500 for every trace at all."""

    def __init__(self):
        outer, self.healthy, self.scored = self, True, 0

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_POST(self):
                items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["items"]
                good = outer.healthy or not items  # the client's first question, which is about no trace
                outer.scored += len(items) * good
                data = json.dumps({"scores": [1 / 3] * len(items)} if good else {"error": "out of memory"}).encode()
                self.send_response(200 if good else 500)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def rm():
    server = ScoreServer()
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_traces_that_could_not_be_scored_are_counted_and_scored_next_time(job, problems, rm, tmp_path, capsys):
    path, _, _ = problems
    with_rm = ["--reward_model.url", rm.url, "--reward_model.retries", "0"]

    def figures(*extra):
        code, bench = judge(job, path, tmp_path / "out", *with_rm, *extra)
        return code, next(iter(bench["traces"].values()))["greedy"] if bench else {}

    rm.healthy = False
    assert figures()[0] == 2
    assert re.search(
        r"greedy: (\d+) of \1 traces could not be scored, more than eval.max_error_share.*\s.*out of memory",
        capsys.readouterr().err,
    )
    code, found = figures("--eval.max_error_share", "1")
    assert code == 0 and found["unscored"] > 0 and "RM score" not in found
    assert re.search(rf"traces the RM could not score +{found['unscored']}\n", capsys.readouterr().out)
    kept = (tmp_path / "out" / "report.html").read_text()
    assert "out of memory" in kept, "each trace says why"
    assert not [r for r in records(tmp_path / "out") if r["kind"] == "score"], "no failure is kept"

    rm.healthy = True
    code, after = figures()
    assert code == 0 and after["unscored"] == 0 and rm.scored > 0
    assert after["RM score"]["value"] == pytest.approx(1 / 3) and after["RM score"]["n"] == found["unscored"]
    assert "could not score" not in capsys.readouterr().out
    asked = rm.scored
    assert figures()[0] == 0 and rm.scored == asked, "a score is kept"


def test_a_failure_that_an_older_evaluation_kept_is_tried_again(job, problems, rm, tmp_path):
    path, _, _ = problems
    with_rm = ["--reward_model.url", rm.url]
    judge(job, path, tmp_path / "out", *with_rm)
    file = tmp_path / "out" / "records.0.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(r | ({"error": "busy"} if r["kind"] == "score" else {})) + "\n" for r in rows))
    _, bench = judge(job, path, tmp_path / "out", *with_rm)
    assert next(iter(bench["traces"].values()))["greedy"]["unscored"] == 0


def test_a_server_that_does_not_say_what_it_serves_is_told_of_in_a_line(job, problems, rm, tmp_path, capsys):
    path, _, _ = problems
    with Mortal() as executor:
        url = ["--executor.url", f"http://127.0.0.1:{executor.port}", "--executor.model", "sums"]
        assert judge(job, path, tmp_path / "out", *url, "--reward_model.url", rm.url)[0] == 0
    said = capsys.readouterr().out
    assert said.count("note: executor.url does not say what it serves") == 1
    assert said.count("note: reward_model.url does not say what it serves") == 1
