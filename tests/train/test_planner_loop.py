"""train.py from end to end on a tiny job: the same metrics whatever killed it, however many ranks, however small the batch."""

import json
import math
import random
import shutil
import time

import pytest

from support.job_server import Hurt
from support.runs import assert_same_metrics
from support.tiny_job import planner_arguments

LOGS = ("metrics.jsonl", "samples.jsonl")
ROUNDS = 4  # checkpoints after 2 and 4 (tiny_job.planner_arguments)


def contents(folder):
    """What a run leaves behind that no clock has touched."""
    found = {name: (folder / name).read_bytes() for name in LOGS}
    found["weights"] = (folder / "final" / "model.safetensors").read_bytes()
    found["summary"] = (folder / "summary.json").read_bytes()
    return found


def rounds(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(job, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    server.done(*planner_arguments(job, folder), picture=True)
    return folder


def test_a_run_leaves_what_it_promises(undisturbed):
    metrics = rounds(undisturbed)
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    wanted = """reward accuracy format_failures verdict_errors zero_spread trace_tokens success_with success_base uplift rm_score
        rm/step_coherence loss grad_norm grad_norm_max entropy clip_low clip_high kl_old fresh_ratio_deviation leak_rate
        tokens_sampled tokens_moving tokens_computed problems_drawn groups_replaced""".split()
    assert all(name in m and math.isfinite(m[name]) for m in metrics for name in wanted)
    assert all("kl" not in m for m in metrics), "there is no reference to be away from"
    assert all(m["fresh_ratio_deviation_max"] < 1e-4 for m in metrics), "recomputed and sampled log-probs are the same"
    assert any(m["grad_norm"] > 0 for m in metrics) and any(0 < m["zero_spread"] < 1 for m in metrics)
    timings = [json.loads(line) for line in (undisturbed / "timings.jsonl").read_text().splitlines()]
    assert all(
        t[k] > 0 for t in timings for k in ("seconds", "sample_s", "grade_s", "update_tokens_per_s", "executor_runs")
    )
    for t in timings:
        read, written = t["executor_prompt_tokens"], t["executor_tokens"]
        assert 0 < written < read and 0 < t["executor_computed_positions"] < read + written and t["cpu_s"] > 0
        assert t["executor_scored_tokens"] == t["gpu_s"] == 0
    calls = sum(t["executor_runs"] for t in timings)
    assert f"cost of the training rounds: {calls:,} executor calls, " in (undisturbed / "summary.txt").read_text()
    assert sorted(p.name for p in (undisturbed / "checkpoints").iterdir()) == ["step-000002", "step-000004"]
    for name in (
        "config.json",
        "curves.png",
        "summary.txt",
        "eval_before.json",
        "eval_after.json",
        "final/tokenizer.json",
    ):
        assert (undisturbed / name).stat().st_size > 0
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert set(summary) == {"greedy", "sampled"} and summary["greedy"]["paired"]["n"] == 6


def test_training_moved_the_weights(job, undisturbed):
    assert (undisturbed / "final" / "model.safetensors").read_bytes() != (
        job / "planner" / "model.safetensors"
    ).read_bytes()


def test_a_planner_that_knows_no_tags_is_told_once_and_measured_over_all_problems(job, server, out):
    said = server.done(*planner_arguments(job, out, "--planner.max_new_tokens", "2"))
    assert said.count("no reply is one complete <reasoning> block") == 1 and "planner.prefill" in said
    assert said.count("  format 1.00  ") == ROUNDS
    for mode in json.loads((out / "summary.json").read_text()).values():
        for f in (mode["before"], mode["after"]):
            assert (
                f["accuracy"]["n"] == f["baseline accuracy"]["n"] == f["uplift"]["n"] == f["format failures"]["n"] == 6
            )
            assert f["accuracy"]["value"] == 0 and f["uplift"]["value"] == -f["baseline accuracy"]["value"]
            assert 0 <= f["baseline accuracy"]["low"] < f["baseline accuracy"]["high"] <= 1
    assert " of   6" in (out / "summary.txt").read_text()


def test_a_run_without_held_out_problems_ends_with_its_figures_and_where_its_model_is(job, server, out):
    said = server.done(*planner_arguments(job, out, "--data.eval_problems", "0"))
    assert f"model: {out / 'final'}" in said and str(out / "summary.txt") in said
    heading, *rows = (out / "summary.txt").read_text().splitlines()
    assert "round 1" in heading and "round 4" in heading
    figures = {" ".join(row.split()[:-2]): row.split()[-2:] for row in rows}
    first, *_, last = rounds(out)
    assert figures["accuracy"] == [f"{m['accuracy']:.4g}" for m in (first, last)]
    assert figures["format failures"] == [f"{m['format_failures']:.4g}" for m in (first, last)]


# -- killed at any moment --------------------------------------------------------------------------------------------

LOG, SAVE = "tracelift.runs.folder:RunFolder.log", "tracelift.runs.folder:RunFolder.save_checkpoint"
MOMENTS = {
    "before anything is logged": Hurt("kill", LOG, 1),
    "half a metrics line written": Hurt("half", "tracelift.runs.folder:RunFolder.log", 10),
    "a round's samples logged, its timings not": Hurt("kill", LOG, 9),
    "baselines cached, round not finished": Hurt("kill", "train:update_policy", 3),
    "weights of a checkpoint written, optimizer not": Hurt("kill", "tracelift.runs.checkpoints:save_file", 2),
    "checkpoint whole but not renamed": Hurt("kill", "os:rename", 2),
    "checkpoint in place, nothing after it": Hurt("kill", SAVE, 1, "after"),
    "after the last checkpoint, before the end": Hurt("kill", SAVE, 2, "after"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_equals_never_killed(job, server, undisturbed, out, moment):
    ended = server.run(*planner_arguments(job, out), hurt=MOMENTS[moment])
    assert ended.code == -9, ended
    server.done(*planner_arguments(job, out, "--resume"))
    assert contents(out) == contents(undisturbed)


def test_killed_at_random_again_and_again(job, server, undisturbed, out):
    rng = random.Random()
    delays = []
    for _ in range(4):
        delays.append(rng.uniform(0.2, 2.0))
        ended = server.run(*planner_arguments(job, out, "--resume"), kill_after=delays[-1])
        assert ended.code in (-9, 0), (delays, ended)
    server.done(*planner_arguments(job, out, "--resume"))
    assert contents(out) == contents(undisturbed), f"delays {delays}"


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "mode", "instants"), [(1, "none", 50), (2, "fsdp", 12)])
def test_chaos_fifty_kills_at_random_instants_leave_no_trace(job, server, undisturbed, out, ranks, mode, instants):
    """SIGKILL to all ranks after a random time, again and again; each time the run goes on, and starts over once it ended.

    Only kills that hit count. Every finished run must equal the undisturbed one; the delays reach from before anything is
    loaded to the time a whole run takes.
    """
    rng = random.Random()
    delays, kills, finished, args = [], 0, 0, planner_arguments(job, out, "--resume", "--parallel.mode", mode)
    started = time.monotonic()
    server.done(*args, ranks=ranks)
    longest = time.monotonic() - started
    shutil.rmtree(out)
    while kills < instants:
        delays.append(rng.uniform(0.1, longest))
        ended = server.start(*args, kill_after=delays[-1], ranks=ranks)
        assert all(e.code in ((-9, 0) if ranks == 1 else (-9, 0, 2)) for e in ended), (
            delays,
            ended,
        )  # 2: saw the other die first
        kills += any(e.code == -9 for e in ended)
        if all(e.code == 0 for e in ended):
            compare_with_undisturbed(out, undisturbed, ranks, delays)
            finished += 1
            shutil.rmtree(out)
    server.done(*args, ranks=ranks)
    compare_with_undisturbed(out, undisturbed, ranks, delays)
    print(f"{kills} kills that hit, {finished + 1} finished runs")


def compare_with_undisturbed(folder, undisturbed, ranks, delays):
    if ranks == 1:
        assert contents(folder) == contents(undisturbed), f"delays {delays}"
    else:
        assert_same_metrics(rounds(folder), rounds(undisturbed))


def test_sigterm_finishes_the_round_saves_and_exits_143(job, server, undisturbed, out):
    ended = server.run(*planner_arguments(job, out), hurt=Hurt("term", "train:update_policy", 3))
    assert ended.code == 143 and "stopped on request after round 3" in ended.text
    assert (
        len(rounds(out)) == 3
        and (out / "checkpoints" / "step-000003" / "state.json").exists()
        and not (out / "final").exists()
    )
    text = server.done(*planner_arguments(job, out, "--resume"))
    assert "going on after round 3" in text
    assert contents(out) == contents(undisturbed)


def test_a_full_disk_while_saving_is_one_sentence_and_costs_nothing_saved(job, server, undisturbed, out):
    ended = server.run(*planner_arguments(job, out), hurt=Hurt("full", "tracelift.runs.checkpoints:save_file", 2))
    assert ended.code == 2
    assert "step-000004: could not save the checkpoint" in ended.message and "No space left" in ended.message
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-000002"]
    server.done(*planner_arguments(job, out, "--resume"))
    assert contents(out) == contents(undisturbed)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_under_one_shard_stops_every_rank_and_costs_nothing_saved(job, server, undisturbed, out, rank):
    writer = "torch.distributed.checkpoint.hf_storage:HuggingFaceStorageWriter.write_data"
    args = planner_arguments(job, out, "--parallel.mode", "fsdp")
    ended = server.start(*args, hurt=Hurt("full", writer, 2, rank=rank), ranks=2)
    assert [e.code for e in ended] == [2, 2], ended
    told = [line for e in ended for line in e.text.splitlines() if "step-000004: could not save the checkpoint" in line]
    assert told and all(f"rank {rank}: " in line and "No space left" in line for line in told), ended
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-000002"]
    server.done(*args, "--resume", ranks=2)
    assert_same_metrics(rounds(out), rounds(undisturbed))


# -- ranks and micro-batches change nothing --------------------------------------------------------------------------


MANY = ("--run.steps", "2", "--data.eval_problems", "0", "--grpo.epochs", "2", "--grpo.minibatches", "2", "--grpo.kl_coef", "0.1",
        "--grpo.entropy_coef", "0.01", "--optim.lr", "0.001")  # fmt: skip


@pytest.fixture(scope="module")
def many(job, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "run"
    server.done(*planner_arguments(job, folder, *MANY))
    return rounds(folder)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_change_nothing(job, server, many, out, ranks):
    """Two epochs of two minibatches with KL and entropy terms; 6 problems over 4 ranks is uneven on purpose."""
    server.done(*planner_arguments(job, out, *MANY), ranks=ranks)
    assert_same_metrics(rounds(out), many)


# -- fresh problems for flat groups ----------------------------------------------------------------------------------

RESAMPLE = ("--grpo.flat_groups", "resample", "--grpo.resample_rounds", "2", "--data.eval_problems", "0")


@pytest.fixture(scope="module")
def resampling(job, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resampling") / "run"
    server.done(*planner_arguments(job, folder, *RESAMPLE))
    return folder


def records(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_resampling_replaces_flat_groups_and_says_what_it_cost(resampling):
    metrics = rounds(resampling)
    assert all(m["problems_drawn"] == 6 + m["groups_replaced"] <= 6 * 3 for m in metrics)
    assert sum(m["groups_replaced"] for m in metrics) > 0
    fewest = [m for m in metrics if 0 < m["groups_replaced"] < 12 and m["zero_spread"] == 0]
    assert fewest, "some round ended without a flat group before the bound"
    timing = json.loads((resampling / "timings.jsonl").read_text().splitlines()[0])
    kept = [r for r in records(resampling) if r["step"] == 1 and r["trace"] is not None]
    asked = 4 * len({(r["problem_id"], r["trace"]) for r in kept}) + 3 * len({r["problem_id"] for r in kept})
    assert metrics[0]["groups_replaced"] > 0 and timing["executor_runs"] > asked, "what was replaced is paid for too"


def test_killed_while_resampling_and_resumed_equals_never_killed(job, server, resampling, out):
    ended = server.run(
        *planner_arguments(job, out, *RESAMPLE), hurt=Hurt("kill", "tracelift.tasks.sources:FileTasks.spare", 5)
    )
    assert ended.code == -9 and 0 < len(rounds(out)) < 4, ended
    server.done(*planner_arguments(job, out, *RESAMPLE, "--resume"))
    for name in ("metrics.jsonl", "samples.jsonl", "final/model.safetensors"):
        assert (out / name).read_bytes() == (resampling / name).read_bytes(), name


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_replace_the_same_groups(job, server, resampling, out, ranks):
    server.done(*planner_arguments(job, out, *RESAMPLE), ranks=ranks)
    names = ("step", "group", "sample", "problem_id", "text")
    found, expected = ([[r[n] for n in names] for r in records(folder)] for folder in (out, resampling))
    assert found == expected
    assert_same_metrics(rounds(out), rounds(resampling))


@pytest.mark.parametrize("importance", ["token", "sequence"])
def test_micro_batches_change_nothing_but_memory(job, server, out, importance):
    found = []
    for tokens in (1, 10_000):
        folder = out / str(tokens)
        server.done(
            *planner_arguments(job, folder, *MANY, "--grpo.importance", importance, "--optim.micro_tokens", str(tokens))
        )
        found.append(rounds(folder))
    assert_same_metrics(*found)


def test_resuming_on_another_number_of_ranks(job, server, undisturbed, out):
    server.run(*planner_arguments(job, out), hurt=Hurt("kill", "train:update_policy", 3))
    server.done(*planner_arguments(job, out, "--resume"), ranks=2)
    assert_same_metrics(rounds(out), rounds(undisturbed))
