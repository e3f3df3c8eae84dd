"""The run folder: nothing half-written is ever taken for whole, and nothing whole is lost to a failed write."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tracelift.config import load_config
from tracelift.runs import checkpoints
from tracelift.runs.folder import RunFolder, choose_folder


def save(run, step, value=None, keep=2, write_model=None):
    """A checkpoint whose weights and optimizer both say `value`."""
    value = float(step if value is None else value)

    def write(folder):
        folder.mkdir()
        save_file({"w": torch.tensor([value])}, str(folder / "model.safetensors"))

    run.save_checkpoint(step, keep, write_model or write, {"w.exp_avg": torch.tensor([value])}, {"note": value})


def load(run):
    """(weights, optimizer, state, what was said); None where there is no checkpoint."""
    said, seen = [], []
    found = run.load_checkpoint(
        lambda folder: seen.append(load_file(str(folder / "model.safetensors"))["w"].item()), said.append
    )
    if found is None:
        return None
    optimizer, state = found
    return seen[-1], optimizer["w.exp_avg"].item(), state, said


def names(run):
    return sorted(p.name for p in (run.path / "checkpoints").iterdir())


def test_round_trip_and_only_the_newest_are_kept(tmp_path):
    run = RunFolder(tmp_path)
    assert load(run) is None
    for step in (9, 10, 100):
        save(run, step)
    assert names(run) == ["step-000010", "step-000100"]
    assert load(run) == (100.0, 100.0, {"step": 100, "note": 100.0}, [])


@pytest.mark.parametrize(
    "damage", ["state gone", "state cut", "optimizer cut", "optimizer gone", "weights cut", "model gone"]
)
def test_a_damaged_newest_is_named_and_passed_over(tmp_path, damage):
    run = RunFolder(tmp_path)
    save(run, 10)
    save(run, 20)
    what, how = damage.split()
    folder = tmp_path / "checkpoints" / "step-000020"
    file = {
        "state": folder / "state.json",
        "optimizer": folder / "optimizer.safetensors",
        "weights": folder / "model" / "model.safetensors",
        "model": folder / "model" / "model.safetensors",
    }[what]
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-3])
    weights, optimizer, state, said = load(run)
    assert (weights, optimizer, state["step"]) == (10.0, 10.0, 10)
    assert len(said) == 1 and "step-000020 cannot be read" in said[0]


def test_where_no_checkpoint_can_be_read_the_run_does_not_start_over(tmp_path):
    """It would overwrite them one by one: perhaps they are whole and the settings are those of another run."""
    run = RunFolder(tmp_path)
    save(run, 10)

    def other_model(folder):
        raise ValueError("another shape")

    with pytest.raises(ValueError, match="none of its 1 checkpoints can be read"):
        run.load_checkpoint(other_model, lambda line: None)
    assert load(run)[0] == 10.0


def test_a_damaged_later_checkpoint_never_costs_an_earlier_good_one(tmp_path):
    """keep = 1, step 20 damaged, resumed from 10, saved at 12: counting folders alone would keep the damaged one only."""
    run = RunFolder(tmp_path)
    save(run, 10)
    save(run, 20, keep=5)
    (tmp_path / "checkpoints" / "step-000020" / "state.json").unlink()
    assert load(run)[2]["step"] == 10
    save(run, 12, keep=1)
    assert names(run) == ["step-000012"] and load(run)[:2] == (12.0, 12.0)


def test_leftovers_of_a_killed_save_are_ignored_and_cleared(tmp_path):
    run = RunFolder(tmp_path)
    save(run, 10)
    aside = tmp_path / "checkpoints" / ".step-000020.saving"
    (aside / "model").mkdir(parents=True)
    (aside / "state.json").write_text("{}")
    assert load(run)[2]["step"] == 10
    save(run, 30)
    assert names(run) == ["step-000010", "step-000030"]


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["model", "optimizer", "state", "fsync", "rename"])
def test_a_full_disk_at_any_point_of_saving_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, where):
    run = RunFolder(tmp_path)
    save(run, 10)
    with monkeypatch.context() as patch:
        if where == "optimizer":
            patch.setattr(checkpoints, "save_file", no_space)
        elif where == "state":
            patch.setattr(checkpoints, "write_text", no_space)
        elif where == "fsync":
            patch.setattr(os, "fsync", no_space)
        elif where == "rename":
            patch.setattr(os, "rename", no_space)
        message = r"step-000020: could not save the checkpoint \(.*No space left.*\); earlier checkpoints are untouched"
        with pytest.raises(OSError, match=message):
            save(run, 20, write_model=no_space if where == "model" else None)
    assert names(run) == ["step-000010"] and load(run)[:2] == (10.0, 10.0)
    save(run, 20)
    assert load(run)[0] == 20.0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_cannot_be_written_says_which(tmp_path):
    os.symlink("/dev/full", tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match=r"metrics.jsonl: could not write \(.*No space left.*--resume"):
        RunFolder(tmp_path).log("metrics.jsonl", {"step": 1})


def test_ranks_above_zero_write_nothing(tmp_path):
    run = RunFolder(tmp_path / "r", writes=False)
    run.prepare(load_config(None))
    run.log("metrics.jsonl", {"step": 1})
    run.cut_logs(0)
    save(run, 10)
    assert not (tmp_path / "r").exists()


# -- logs ------------------------------------------------------------------------------------------------------------


def test_logs_are_cut_back_byte_for_byte(tmp_path):
    run = RunFolder(tmp_path)
    record = {
        "loss": 0.1 + 0.2,
        "tiny": 5e-324,
        "big": 1e22,
        "whole": 3,
        "text": "≤ „ü“ \u2028 \n",
        "none": None,
        "nan": float("nan"),
    }
    for step in (1, 2, 3):
        run.log("metrics.jsonl", {"step": step, **record})
        for _ in range(2):
            run.log("samples.jsonl", {"step": step, **record})
    lines = {
        name: (tmp_path / name).read_bytes().splitlines(keepends=True) for name in ("metrics.jsonl", "samples.jsonl")
    }
    run.cut_logs(2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(lines["metrics.jsonl"][:2])
    assert (tmp_path / "samples.jsonl").read_bytes() == b"".join(lines["samples.jsonl"][:4])
    run.cut_logs(0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_a_log_killed_at_any_byte_can_be_read_and_cut(tmp_path):
    """Also inside a character of several bytes."""
    run = RunFolder(tmp_path)
    run.log("samples.jsonl", {"step": 1, "text": "ü"})
    first = (tmp_path / "samples.jsonl").read_bytes()
    run.log("samples.jsonl", {"step": 2, "text": "Weg → Ziel"})
    whole = (tmp_path / "samples.jsonl").read_bytes()
    for end in range(len(first), len(whole) + 1):
        (tmp_path / "samples.jsonl").write_bytes(whole[:end])
        run.cut_logs(1)
        assert (tmp_path / "samples.jsonl").read_bytes() == first


# -- choosing a folder -----------------------------------------------------------------------------------------------


def test_choose_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def chosen(*words, path=None):
        return str(choose_folder(load_config(None, list(words)), path))

    assert chosen() == "runs/demo-1" and chosen(path="configs/gsm8k.toml") == "runs/gsm8k-1"
    for name in ("demo-2", "demo-10", "demo-x", "demo-eval-3"):
        Path("runs", name).mkdir(parents=True)
    assert chosen() == "runs/demo-11" and chosen("--run.resume") == "runs/demo-11", "none of them is a run"
    Path("runs/demo-2/config.json").write_text("{}")
    assert chosen("--run.resume") == "runs/demo-2", "the newest that has a record"
    assert chosen("--run.resume", path="gsm8k.toml") == "runs/gsm8k-1", "nothing to resume: from the beginning"
    assert chosen("--run.out", "mine") == "mine"
    Path("mine").mkdir()
    assert chosen("--run.out", "mine") == "mine"


def test_prepare_records_config_and_versions(tmp_path):
    RunFolder(tmp_path).prepare(load_config(None, ["--run.seed", "4"]))
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config"]["run"]["seed"] == 4 and record["versions"]["torch"] == torch.__version__
    assert re.fullmatch(r"cpu x\d+", record["versions"]["device"]) or torch.cuda.is_available()
