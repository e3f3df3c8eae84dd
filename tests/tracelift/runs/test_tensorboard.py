"""TensorBoard is optional: nothing without the package, the scalars of metrics.jsonl with it."""

import importlib.util
import sys
import types

import pytest

from tracelift.runs.tensorboard import TensorBoard


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    board = TensorBoard(tmp_path / "tb")
    board.log(1, {"loss": 1.0})
    board.close()
    assert not (tmp_path / "tb").exists()


def test_numbers_reach_the_writer_and_only_rank_0_has_one(tmp_path, monkeypatch):
    seen = []

    class Writer:
        def __init__(self, folder, purge_step):
            seen.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            seen.append((name, value, step))

        def flush(self):
            pass

        close = flush

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    board = TensorBoard(tmp_path, done=4)
    board.log(5, {"loss": 0.5, "name": "x", "flag": True, "updates_skipped": 0})
    board.close()
    assert seen == [(str(tmp_path), 5), ("loss", 0.5, 5), ("updates_skipped", 0, 5)]
    assert TensorBoard(tmp_path, writes=False).writer is None and len(seen) == 3


def test_a_real_event_file(tmp_path):
    pytest.importorskip("tensorboard")
    board = TensorBoard(tmp_path)
    board.log(1, {"loss": 0.5})
    board.close()
    assert any(p.name.startswith("events.out.tfevents") for p in tmp_path.iterdir())
