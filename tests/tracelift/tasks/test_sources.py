"""Problem sources: a round is a function of its number, an epoch meets every row once, a broken row is named."""

import gzip
import importlib.util
import json
import random

import pytest

from tracelift.build import load_held_out, load_tasks, load_training_tasks
from tracelift.config import Config, load_config
from tracelift.tasks import epochs, rows
from tracelift.tasks.benchmarks import BenchmarkError, read_benchmark
from tracelift.worlds.tasks import DemoTasks


def write(tmp_path, *lines):
    path = tmp_path / "problems.jsonl"
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + b"\n"
    )
    return str(path)


ROWS = [{"problem": f"What is {i} + 1?", "answer": i + 1} for i in range(7)]


def test_every_epoch_meets_every_row_once_in_an_order_of_its_own(tmp_path):
    source = load_tasks(write(tmp_path, *ROWS), seed=3)
    walked = [task.problem for step in range(7) for task in source.round(step, 4)]  # 28 = 4 epochs of 7
    epochs = [walked[i : i + 7] for i in range(0, 28, 7)]
    everything = {r["problem"] for r in ROWS}
    assert all(set(epoch) == everything for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_round_depends_on_its_number_alone(tmp_path):
    path = write(tmp_path, *ROWS)
    source = load_tasks(path, seed=3)
    later = source.round(5, 4)
    assert load_tasks(path, seed=3).round(5, 4) == later  # nothing to remember: a resumed run asks the same way
    assert source.round(5, 4) == later
    assert load_tasks(path, seed=4).round(5, 4) != later


def test_the_epoch_is_shuffled_once_a_round_not_once_a_problem(tmp_path, monkeypatch):
    source = load_tasks(write(tmp_path, *ROWS), seed=3)
    calls = []
    original = epochs.epoch_order
    monkeypatch.setattr(
        epochs, "epoch_order", lambda name, count, epoch: calls.append(epoch) or original(name, count, epoch)
    )
    source.round(1, 6)
    assert sorted(calls) == [0, 1]


def test_orders_are_the_ones_runs_on_disk_were_trained_in():
    for count in (1, 7, 500):
        order = list(range(count))
        random.Random(f"x:3:{count}").shuffle(order)
        assert list(epochs.epoch_order("x:3", count, count)) == order
        sampled = random.Random("x:3:1").sample(range(count), count)
        assert epochs.round_places("x:3", count, 1, count, from_end=True) == sampled


def test_a_round_larger_than_the_file_repeats_it(tmp_path):
    picked = load_tasks(write(tmp_path, *ROWS), seed=0).round(0, 20)
    assert len(picked) == 20 and len({t.problem for t in picked}) == 7


def test_both_spellings_of_a_row_limits_and_lengths(tmp_path):
    path = write(
        tmp_path,
        {"question": "Q", "answer": "so 3 + 4 = <<3+4=7>>7\n#### 7"},
        b"",
        {"problem": "x" * 30, "answer": 1},
        {"problem": "P", "answer": 2.5, "problem_id": "mine"},
        {"problem": "R", "answer": "1/2"},
    )
    said = []
    tasks = load_tasks(path, 0, max_chars=20, say=said.append).first(10)
    assert [(t.problem_id, t.problem) for t in tasks] == [("problems-1", "Q"), ("mine", "P"), ("problems-5", "R")]
    assert tasks[0].reference.endswith("#### 7") and tasks[1].reference == "2.5"
    assert said == [f"{path}: left out 1 problems longer than 20 characters"]
    assert len(load_tasks(path, 0, limit=2).first(10)) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"problem": "x", "answer": 1', "2: broken JSON"),
        (b'{"problem": "\xff\xfe", "answer": 1}', "2: not UTF-8"),
        (b"[1]", "2: expected an object"),
        (b"[" * 100_000, "2: JSON that cannot be read"),
        (rb'{"problem": "\ud800", "answer": 1}', "2: text holds half of a surrogate pair"),
        ({"answer": 1}, "2: no 'problem'"),
        ({"problem": " ", "answer": 1}, "2: no 'problem'"),
        ({"problem": "x"}, "2: no 'answer'"),
        ({"problem": "x", "answer": True}, "2: no 'answer'"),
        ({"problem": "x", "answer": ""}, "2: no 'answer'"),
    ],
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path, line, said):
    path = write(tmp_path, ROWS[0], line)
    with pytest.raises(ValueError, match=f"problems.jsonl:{said}"):
        load_tasks(path, 0)


def test_answers_without_a_number_are_counted_aloud(tmp_path):
    words = [{"problem": "P", "answer": a} for a in ("about a dozen", 3, "1/2", "the answer is 7", "Paris", "#### 12")]
    said = []
    path = write(tmp_path, *words)
    load_tasks(path, 0, say=said.append)
    assert len(said) == 1 and f"{path}: 2 of 6 answers state no number (problems-1: 'about a dozen')" in said[0]
    load_tasks(write(tmp_path, *words[1:4]), 0, say=said.append)
    assert len(said) == 1


@pytest.mark.parametrize("answer", ["x + 5", "\\frac{\\pi}{2}", "(1, 2)", "5 or 6", "3:30", "[5,\\infty)"])
def test_an_answer_that_no_number_rule_can_check_is_refused_by_line(tmp_path, answer):
    path = write(tmp_path, ROWS[0], {"problem": "P", "answer": answer})
    with pytest.raises(ValueError, match=r"problems.jsonl:2: .*data.verifier = 'latex'"):
        load_tasks(path, 0)
    config = Config()
    with pytest.raises(BenchmarkError, match=r"problems.jsonl:2: .*data.verifier = 'latex'"):
        read_benchmark(f"tasks:{path}", config)
    config.data.verifier = "latex"
    assert {t.verifier for t in load_tasks(path, 0, verifier="latex").first(2)} == {"latex"}
    assert {p.kind for p in read_benchmark(f"tasks:{path}", config).problems} == {"latex"}


FIELDS = [
    ({"question": "Q", "answer": "so 3\n#### 3", "id": 9}, "9", "Q", "so 3\n#### 3"),
    ({"Body": "Tom has 3", "Question": "How many?", "Answer": 3.0, "ID": "c"}, "c", "Tom has 3. How many?", "3"),
    ({"problem": "P", "solution": "So $\\boxed{4}$.", "unique_id": "u"}, "u", "P", "4"),
    ({"problem": None, "question": "Q", "answer": 2, "problem_id": None, "task_id": "t"}, "t", "Q", "2"),
]


def test_fields_as_people_have_them(tmp_path):
    found = load_tasks(write(tmp_path, *(row for row, *_ in FIELDS)), 0).first(9)
    assert [(t.problem_id, t.problem, t.reference) for t in found] == [tuple(rest) for _, *rest in FIELDS]


@pytest.mark.parametrize("row", [{"problem": "P", "solution": "\\boxed{}"}, {"problem": "P", "answer": 1e999}])
def test_an_answer_that_is_none_is_named(tmp_path, row):
    with pytest.raises(ValueError, match="problems.jsonl:"):
        load_tasks(write(tmp_path, json.dumps(row).replace("Infinity", "1e999").encode()), 0)


def test_a_list_a_zipped_file_and_tables_hold_the_same_problems(tmp_path):
    plain = load_tasks(write(tmp_path, *ROWS), 0).first(9)
    (tmp_path / "l.json").write_text(json.dumps(ROWS))
    (tmp_path / "z.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))
    paths = [tmp_path / "l.json", tmp_path / "z.jsonl.gz"]
    if importlib.util.find_spec("pyarrow") is not None:
        import pyarrow as pa
        import pyarrow.parquet

        table = pa.Table.from_pylist(ROWS)
        pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
        saved = tmp_path / "saved"  # as datasets.save_to_disk writes it
        saved.mkdir()
        (saved / "state.json").write_text("{}")
        with pa.ipc.new_stream(saved / "data-00000-of-00001.arrow", table.schema) as out:
            out.write_table(table)
        paths += [tmp_path / "t.parquet", saved]
    for path in paths:
        tasks = load_tasks(str(path), 0).first(9)
        assert [(t.problem, t.reference) for t in tasks] == [(t.problem, t.reference) for t in plain]


def test_tables_without_pyarrow_and_folders_without_tables_say_so(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"must hold .arrow or .parquet files; it holds train"):
        load_tasks(str(tmp_path), 0)
    monkeypatch.setattr(rows.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="pip install pyarrow"):
        load_tasks(str(tmp_path / "t.parquet"), 0)


def test_held_out_problems_that_training_meets_are_counted_aloud(tmp_path):
    (tmp_path / "other").mkdir()
    mixed = write(tmp_path / "other", ROWS[0], {"problem": "unseen", "answer": 1}, ROWS[5])
    for held_out, counted in ((mixed, 2), (write(tmp_path, *ROWS), 7), ("demo:math", 0)):
        words = ["--data.source", str(tmp_path / "problems.jsonl"), "--data.eval_source", held_out]
        config, said = load_config(None, [*words, "--data.eval_problems", "50", "--reward.mode", "exec_only"]), []
        tasks = load_held_out(config, load_training_tasks(config, said.append), said.append)
        assert len(said) == bool(counted) and all(f"{counted} of the {len(tasks)} problems" in line for line in said)


def test_nothing_to_train_on_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.jsonl': no such file"):
        load_tasks("nowhere.jsonl", 0)
    with pytest.raises(ValueError, match="holds no problem to train on"):
        load_tasks(write(tmp_path, b"", b"  "), 0)
    with pytest.raises(ValueError, match="holds no problem to train on"):
        load_tasks(write(tmp_path, *ROWS), 0, max_chars=3, say=lambda line: None)
    with pytest.raises(ValueError, match="demo:math"):
        load_tasks("demo:chess", 0)


def test_the_demo_series():
    tasks = DemoTasks(11)
    assert [t.problem_id for t in tasks.round(2, 3)] == [t.problem_id for t in tasks.first(9)[6:]]
    assert {t.problem for t in DemoTasks(11).first(20)}.isdisjoint(t.problem for t in DemoTasks(12).first(20))
    task = tasks.first(1)[0]
    assert task.check(task.truth.trace).valid is True and task.check("1 + 1 = 3.").valid is False
