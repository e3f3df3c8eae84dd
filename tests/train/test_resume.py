"""A run folder stays the record of one run: what --resume may change, who may write, what a request to stop finds."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.job_server import Hurt
from support.tiny_job import planner_arguments
from tracelift.explain.__main__ import main as explain
from tracelift.runs.lock import FolderLock

ROOT = Path(__file__).parents[2]
LOGS = ("metrics.jsonl", "samples.jsonl")


def strict(path):
    """JSON lines as another program reads them: NaN is no JSON."""

    def refuse(name):
        raise AssertionError(f"{name} in {path}")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def contents(folder):
    kept = {name: (folder / name).read_bytes() for name in (*LOGS, "summary.json", "eval_before.json")}
    return kept | {"weights": (folder / "final" / "model.safetensors").read_bytes()}


@pytest.fixture(scope="module")
def undisturbed(job, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    server.done(*planner_arguments(job, folder))
    return folder


def test_another_run_is_refused_key_by_key_and_nothing_is_rewritten(job, server, undisturbed):
    before = files(undisturbed)
    for extra, said in (
        (("--reward.mode", "exec_only"), "reward.mode was 'tracelift' and is now 'exec_only'"),
        (("--run.seed", "7", "--optim.lr", "0.1"), "run.seed was 0 and is now 7; optim.lr was 0.003 and is now 0.1"),
        (("--grpo.problems", "4"), "grpo.problems was 6 and is now 4"),
    ):
        ended = server.run(*planner_arguments(job, undisturbed, *extra, "--resume"))
        assert ended.code == 1 and said in ended.message, ended
        assert files(undisturbed) == before


def test_the_folder_alone_says_how_to_go_on(job, server, undisturbed, out):
    """Killed in round 3, then `--run.out R --resume` and nothing else: every key comes from the record."""
    ended = server.run(*planner_arguments(job, out), hurt=Hurt("kill", "train:update_policy", 3))
    assert ended.code == -9
    text = server.done("--run.out", str(out), "--resume")
    assert "going on after round 2" in text and contents(out) == contents(undisturbed)


def test_what_changes_is_history_and_each_round_is_explained_by_its_own_values(job, server, out, capsys):
    server.done(*planner_arguments(job, out, "--run.steps", "2", "--data.eval_problems", "0"))
    text = server.done("--run.out", str(out), "--resume", "--run.steps", "3", "--run.keep", "5")
    assert "from round 3 on: run.steps was 2 and is now 3" in text
    record = json.loads((out / "config.json").read_text())
    assert record["config"]["run"]["steps"] == 3
    (entry,) = record["history"]
    assert entry["from_round"] == 3 and entry["changed"] == {"run.steps": [2, 3], "run.keep": [2, 5]}
    assert entry["command"][1:] == ["--run.out", str(out), "--resume", "--run.steps", "3", "--run.keep", "5"]
    assert {"torch", "python"} <= entry["versions"].keys()
    problem = strict(out / "samples.jsonl")[0]["problem_id"]
    assert explain([str(out), "--step", "1", "--problem", problem]) == 0 and "!" not in capsys.readouterr().out


def test_a_folder_without_a_checkpoint_is_said(job, server, undisturbed, out):
    text = server.done(*planner_arguments(job, out, "--resume"))
    assert "holds no checkpoint: starting with round 1" in text and "going on after" not in text
    assert contents(out) == contents(undisturbed)


def test_the_evaluation_before_training_belongs_to_its_problems(job, server, out, tmp_path):
    """Other held-out problems on resume: the starting planner is evaluated again, as a run that had them from the start."""
    other = ("--data.eval_problems", "9")
    server.done(*planner_arguments(job, tmp_path / "other", *other))
    server.run(*planner_arguments(job, out), hurt=Hurt("term", "train:update_policy", 3))
    text = server.done(*planner_arguments(job, out, *other, "--resume"))
    assert "eval_before.json is of other problems" in text
    assert contents(out) == contents(tmp_path / "other")


def test_two_fresh_starts_in_one_folder(job, out):
    command = [sys.executable, "train.py", *planner_arguments(job, out, "--data.eval_problems", "0")]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [p.communicate(timeout=250)[1] for p in both]
    codes = [p.returncode for p in both]
    assert sorted(codes) == [0, 1], errors
    winner, lost = both[codes.index(0)], errors[codes.index(1)]
    assert f"process {winner.pid} on " in lost or "already holds a run" in lost
    assert [m["step"] for m in strict(out / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_start_beside_a_resume_is_refused(job, server, undisturbed):
    before = files(undisturbed)
    lock = FolderLock(undisturbed)  # as the first of them has it
    try:
        for extra in ((), ("--resume", "--run.steps", "5")):
            ended = server.run(*planner_arguments(job, undisturbed, *extra))
            assert ended.code == 1 and "works in it; wait for it, or take another folder" in ended.message
    finally:
        lock.release()
    assert files(undisturbed) == before


def test_an_evaluation_runs_beside_training_and_not_beside_itself(job, undisturbed, tmp_path, capsys):
    import eval as evaluation

    arguments = ["--run", str(undisturbed), "--eval.out", str(tmp_path / "eval"), "--eval.limit", "2",
                 "--eval.modes", "greedy", "--eval.arms", "direct", "--eval.benchmarks", f"tasks:{job / 'problems.jsonl'}"]  # fmt: skip
    training = FolderLock(undisturbed)
    try:
        assert evaluation.main(arguments) == 0
    finally:
        training.release()
    other = FolderLock(tmp_path / "eval")
    try:
        assert evaluation.main(arguments) == 1
    finally:
        other.release()
    assert "works in it" in capsys.readouterr().err


def test_a_schedulers_warning_saves_like_sigterm(job, server, undisturbed, out):
    ended = server.run(*planner_arguments(job, out), hurt=Hurt("usr1", "train:update_policy", 1))
    assert ended.code == 143 and "stopped on request after round 1" in ended.text
    server.done(*planner_arguments(job, out, "--resume"))
    assert contents(out) == contents(undisturbed)


def test_a_request_during_the_first_evaluation_ends_there(job, server, undisturbed, out):
    ended = server.run(*planner_arguments(job, out), hurt=Hurt("term", "tracelift.rl.held_out:sample_traces", 1))
    assert ended.code == 143 and "stopped on request in the evaluation before training" in ended.text
    assert not (out / "metrics.jsonl").exists() and not (out / "eval_before.json").exists()
    server.done(*planner_arguments(job, out, "--resume"))
    assert contents(out) == contents(undisturbed)


def test_a_request_during_the_last_evaluation_loses_nothing(job, server, undisturbed, out):
    ended = server.run(*planner_arguments(job, out), hurt=Hurt("term", "tracelift.rl.held_out:sample_traces", 3))
    assert ended.code == 143 and "after the last round" in ended.text
    server.done(*planner_arguments(job, out, "--resume"))
    assert contents(out) == contents(undisturbed)


def test_a_skipped_round_is_null_and_says_why(job, server, out):
    args = planner_arguments(job, out, "--data.eval_problems", "0", "--optim.micro_tokens", "100000")
    server.done(*args, "--optim.on_nan", "skip", hurt=Hurt("nan", "train:policy_loss", 2))
    metrics = strict(out / "metrics.jsonl")
    assert [m["grad_norm"] is None for m in metrics] == [False, True, False, False]
    assert metrics[1]["not_finite"]["grad_norm"] == "nan" and metrics[1]["updates_skipped"] == 1
    for path in (*out.glob("nan/*.jsonl"), out / "samples.jsonl", out / "timings.jsonl"):
        assert strict(path)


@pytest.mark.parametrize("spoil", ["data.source", "planner.prompt", "executor.path"])
def test_other_contents_under_the_same_path_are_refused(job, server, out, tmp_path, spoil):
    data, prompt, executor = tmp_path / "problems.jsonl", tmp_path / "prompt.txt", tmp_path / "executor"
    shutil.copy(job / "problems.jsonl", data)
    prompt.write_text("{problem}\n")
    shutil.copytree(job / "executor", executor)
    args = planner_arguments(job, out, "--data.source", str(data), "--planner.prompt", str(prompt),
                             "--executor.path", str(executor), "--data.eval_problems", "0", "--run.steps", "2")  # fmt: skip
    server.done(*args)
    if spoil == "data.source":
        data.write_text("".join(reversed(data.read_text().splitlines(keepends=True))))
    elif spoil == "planner.prompt":
        prompt.write_text("Solve: {problem}\n")
    else:
        shutil.copy(job / "planner" / "model.safetensors", executor / "model.safetensors")
    before = files(out)
    ended = server.run("--run.out", str(out), "--resume", "--run.steps", "3")
    assert ended.code == 1 and f"what {spoil} names is no longer what the run was started with" in ended.message
    assert files(out) == before


def test_a_run_that_logged_no_round_goes_on_with_its_own_keys(job, server, undisturbed, out):
    """Ended in its first evaluation, twice; then `--run.out R --resume` alone is the run that was asked for."""
    hurt = Hurt("term", "tracelift.rl.held_out:sample_traces", 1)
    assert server.run(*planner_arguments(job, out), hurt=hurt).code == 143
    assert server.run("--run.out", str(out), "--resume", hurt=hurt).code == 143
    server.done("--run.out", str(out), "--resume")
    assert contents(out) == contents(undisturbed)


def test_a_start_on_bad_input_leaves_no_folder(job, server, out):
    ended = server.run(*planner_arguments(job, out, "--planner.path", str(job / "nowhere")))
    assert ended.code == 1 and not out.exists()


@pytest.mark.parametrize("text", ['{"made_of": {', "[1]", ""])
def test_a_damaged_evaluation_is_made_again(job, server, undisturbed, out, text):
    server.run(*planner_arguments(job, out), hurt=Hurt("term", "train:update_policy", 3))
    (out / "eval_before.json").write_text(text)
    assert "or damaged" in server.done("--run.out", str(out), "--resume")
    assert contents(out) == contents(undisturbed)


def test_an_unnamed_run_takes_a_folder_nobody_else_has(job, server, tmp_path, monkeypatch):
    """Two at once, neither named: two folders."""
    command = [sys.executable, str(ROOT / "train.py"), *planner_arguments(job, "", "--data.eval_problems", "0")]
    at = command.index("--run.out")
    command[at : at + 2] = []
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]
    until = time.monotonic() + 250
    assert [p.wait(until - time.monotonic()) for p in both] == [0, 0]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["demo-1", "demo-2"]
    for name in ("demo-1", "demo-2"):
        assert [m["step"] for m in strict(tmp_path / "runs" / name / "metrics.jsonl")] == [1, 2, 3, 4]
