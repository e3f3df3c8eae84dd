"""`train.py CONFIG --dry-run`: each config of the project goes to its end, or says which file it lacks; nothing is written.

That its refusals are the run's own sentences is held by tests/train/test_bad_input.py, sizes on disk by
tests/tracelift/training/test_disk_plan.py.
"""

import dataclasses
import json
import queue
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import train
from support.hostile import listening
from support.stand_ins import ROOT, SHAPE, make_stand_ins, model_folder, overrides
from tracelift.build import load_training_tasks
from tracelift.config import load_config
from tracelift.dry_run import lines
from tracelift.rubrics import MATH_DIMENSIONS, other_rubric
from tracelift.runs.checkpoints import Checkpoints
from tracelift.runs.inputs import input_hashes
from tracelift.runs.record import write_record
from tracelift.sandbox import SandboxError
from tracelift.training import disk_plan

NO_FOLDER = "no such folder (models are local folders; nothing is downloaded)"
SFT = "sft: give either sft.init (a folder) or sft.shape (a fresh model)"
GROUPS = "rm.train: give a TraceLift-Groups file"
EVAL = "math-1000-0: a prompt of {} tokens and 512 new ones exceed the planner's context of 512; lower planner.max_new_tokens or planner.max_problem_chars"
LACKS = {  # config: the sentence it ends in as it stands; None: it needs nothing that is not here
    "assets/code-base.toml": "sft.tokenizer: give the folder of the fresh model's tokenizer",
    "assets/code-executor.toml": SFT,
    "assets/code-planner.toml": SFT,
    "assets/code-proofreader.toml": SFT,
    "assets/code-reward-model.toml": GROUPS,
    "assets/math-base.toml": "sft.tokenizer: give the folder of the fresh model's tokenizer",
    "assets/math-executor.toml": SFT,
    "assets/math-planner.toml": SFT,
    "assets/math-proofreader.toml": SFT,
    "assets/math-reward-model.toml": GROUPS,
    "code-demo.toml": None,
    "eval-code.toml": EVAL.format(195),
    "eval-math.toml": EVAL.format(224),
    "gsm8k-reward-model.toml": GROUPS,
    "gsm8k.toml": f"planner.path: planner: {NO_FOLDER}",
    "math-demo-exec-only.toml": None,
    "math-demo.toml": None,
    "paper-code.toml": f"planner.path: Qwen2.5-7B: {NO_FOLDER}",
    "paper-math.toml": f"planner.path: Qwen2.5-7B: {NO_FOLDER}",
    "paper-rm-code.toml": "rm.train: groups/train.jsonl: No such file or directory",
    "paper-rm-math.toml": "rm.train: groups/train.jsonl: No such file or directory",
    "smollm2-executor.toml": SFT,
    "smollm2-math.toml": f"planner.path: runs/smollm2/planner/final: {NO_FOLDER}",
    "smollm2-planner.toml": SFT,
}
END = "dry run: nothing found that would stop the run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_stand_ins(tmp_path_factory.mktemp("stand-ins") / "there")


@pytest.fixture
def dry(capsys, monkeypatch, tmp_path):
    """Runs train.py WORDS --dry-run in the repository: (exit code, what it told, its sentence)."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("models.checkpoint.load_weights", None)  # no weight is read: it would be a TypeError
    monkeypatch.setattr("models.reward.load_weights", None)

    def run(*words):
        code = train.main([*words, "--dry-run", "--run.out", str(tmp_path / "run")])
        told = capsys.readouterr()
        assert not (tmp_path / "run").exists()
        return code, told.out, told.err.removeprefix("train.py: ").rstrip("\n")

    return run


def test_every_config_is_listed_here():
    assert sorted(LACKS) == sorted(
        p.relative_to(ROOT / "configs").as_posix() for p in (ROOT / "configs").rglob("*.toml")
    )


@pytest.mark.parametrize("name", LACKS)
def test_a_config_as_it_stands_ends_well_or_says_what_it_lacks(name, dry):
    code, told, said = dry(f"configs/{name}")
    if LACKS[name] is None:
        assert (code, said) == (0, "") and told.rstrip().endswith(END) and "note: " not in told
    else:
        assert (code, said) == (1, LACKS[name]) and END not in told


@pytest.mark.parametrize("name", [name for name, lack in LACKS.items() if lack])
def test_a_config_with_stand_ins_for_what_it_lacks_goes_to_its_end(name, dry, folder):
    path = ROOT / "configs" / name
    code, told, said = dry(str(path), *overrides(path, folder))
    notes = [line for line in told.splitlines() if line.startswith("note: ")]
    beside = f", beside the {len(notes)} note{'s' * (len(notes) > 1)} above" if notes else ""
    assert (code, said) == (0, "") and told.rstrip().endswith(END + beside)
    assert all("model.safetensors.index.json is there; the run will need it" in note for note in notes), notes


def test_what_is_told_is_what_the_models_would_read(dry, folder):
    """Prompts as tokenised, and the longest of all rows, whichever it is."""
    rows = [{"problem": "x " * n, "answer": 1, "problem_id": f"of {n}"} for n in (3, 40, 7)]
    (folder / "lengths.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = ROOT / "configs" / "paper-math.toml"
    _, told, _ = dry(str(path), *overrides(path, folder), "--data.source", str(folder / "lengths.jsonl"))
    for what in (
        "planner's prompts",
        "executor's prompts without their traces",
        "Reason RM's inputs without their traces",
    ):
        assert re.search(rf"^{what}: at most \d+ tokens \(of 40\).* of (8192|2048); 3 measured$", told, re.MULTILINE)
    assert "  | Reply with the final number and nothing else." in told and "  | <reasoning>" in told
    shown = {int(n) for n in re.findall(r"^planner's prompt for of \d+ \((\d+) tokens\)", told, re.MULTILINE)}
    assert len(shown) == 1


REFUSED = {
    "no room for the answer": (("--executor.max_new_tokens", "8150"), "5 of 5 problems (problems-1 and others) exceed"),
    "no room for the trace": (("--planner.max_new_tokens", "8100"), "exceed the planner's context of 8192"),
    "adapters twice": (("--planner.adapter", "x"), "planner.adapter and lora.r: an adapter brings its own rank"),
    "no block left": (("--lora.from_block", "30"), "lora.from_block = 30, but the model's 30 blocks count from 0"),
    "no template": (("--planner.chat", "on"), "this tokenizer has no chat template"),
    "no template of the executor": (("--executor.chat", "on"), "this tokenizer has no chat template"),
    "nobody at the executor's address": (
        ("--executor.url", "http://127.0.0.1:1"),
        "executor.url: nobody listens at http://127.0.0.1:1 (ConnectionRefusedError",
    ),
    "nobody at the Reason RM's": (("--reward_model.url", "http://127.0.0.1:1"), "reward_model.url: nobody listens at"),
    "a chat's address": (("--executor.url", "http://127.0.0.1:1/v1/chat/completions"), "executor.url: url 'http"),
    "no key": (
        ("--reward_model.url", "http://localhost:9", "--reward_model.key_env", "NO_SUCH_KEY"),
        "NO_SUCH_KEY is not set",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_stop_the_run_later_is_refused(case, dry, folder):
    words, wanted = REFUSED[case]
    path = ROOT / "configs" / "paper-math.toml"
    code, told, said = dry(str(path), *overrides(path, folder), *words)
    assert code == 1 and wanted in said and END not in told, (said, told)


def test_inputs_that_the_longest_trace_would_push_out_are_told(dry, folder):
    small = model_folder(folder / "small", dataclasses.replace(SHAPE, max_positions=700))
    path = ROOT / "configs" / "paper-math.toml"
    words = [*overrides(path, folder), "--executor.path", str(small), "--reward_model.max_tokens", "500"]
    code, told, _ = dry(str(path), *words)
    notes = [line for line in told.splitlines() if "with the longest trace" in line]
    assert code == 0 and [note.split(": ")[1].split(" (")[0] for note in notes] == ["executor", "Reason RM"]
    assert all("5 of 5 inputs exceed" in note for note in notes)


def test_a_disk_too_small_is_refused(dry, folder, monkeypatch):
    path = ROOT / "configs" / "paper-math.toml"
    for free, code in ((6 << 20, 1), (1 << 40, 0)):
        monkeypatch.setattr(disk_plan.shutil, "disk_usage", lambda place, free=free: SimpleNamespace(free=free))
        found, _, said = dry(str(path), *overrides(path, folder))
        assert found == code and (said == "") == (code == 0)
        assert code == 0 or ("6.0 MiB are free on its disk, and the run needs" in said and "lower run.keep" in said)


def test_a_machine_without_a_sandbox_is_refused_for_programs_alone(dry, folder, monkeypatch):
    def refuse(**settings):
        raise SandboxError("no network isolation here")

    monkeypatch.setattr(lines, "Sandbox", refuse)
    for name, code in (("paper-code.toml", 1), ("paper-math.toml", 0)):
        path = ROOT / "configs" / name
        assert dry(str(path), *overrides(path, folder))[0] == code


def test_a_folder_that_holds_a_run_is_refused(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert train.main(["--dry-run", "--run.out", str(tmp_path)]) == 1
    assert "already holds a run" in capsys.readouterr().err


def test_servers_are_told_and_not_asked(dry, folder):
    path = ROOT / "configs" / "paper-math.toml"
    asked = queue.Queue()
    with listening(lambda c: asked.put(c.recv(10))) as port:
        urls = ("--executor.url", f"http://localhost:{port}", "--reward_model.url", f"http://localhost:{port}")
        code, told, _ = dry(str(path), *overrides(path, folder), *urls)
        assert [asked.get(), asked.get()] == [b"", b""], "that somebody listens is all that was looked at"
    assert code == 0 and told.count(f"http://localhost:{port}, which is not asked") == 2


def test_one_rank_of_several_speaks(dry, monkeypatch):
    for rank, silent in ((0, False), (1, True)):
        for name, value in (("RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", 2)):
            monkeypatch.setenv(name, str(value))
        code, told, _ = dry("--data.eval_problems", "5", "--run.device", "cpu")
        assert code == 0 and (told == "") == silent and ("2 ranks" in told) != silent


def test_the_run_folder_is_looked_at_as_the_run_will(dry, monkeypatch, tmp_path, capsys):
    """Damaged checkpoints, another owner, a cache that is none: what the run would stop at, or pass over aloud."""
    monkeypatch.chdir(ROOT)
    run, words = tmp_path / "a-run", ["--dry-run", "--resume", "--data.eval_problems", "5", "--run.out"]
    config = load_config(None, ["--data.eval_problems", "5"])
    run.mkdir()
    write_record(run, config, input_hashes(config))
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    made = Checkpoints(run)
    for step in (1, 2):
        made.save_checkpoint(step, 2, lambda at: at.mkdir(), {"x": torch.zeros(3)}, {})
    assert train.main([*words, str(run)]) == 0
    assert "on resume: going on after round 2\n" in capsys.readouterr().out
    tensors = run / "checkpoints" / "step-000002" / "optimizer.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-4])
    assert train.main([*words, str(run)]) == 0
    told = capsys.readouterr().out
    assert "note: checkpoint step-000002 cannot be read" in told and "on resume: going on after round 1\n" in told
    assert told.rstrip().endswith(END + ", beside the 1 note above")
    (run / "checkpoints" / "step-000001" / "state.json").write_text("[1]")
    assert train.main([*words, str(run)]) == 1
    said = capsys.readouterr().err
    assert "none of its 2 checkpoints can be read by this run (step-000002: " in said and "; step-000001: " in said


def test_a_folder_that_another_process_has_is_refused_and_left_alone(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    hold = (
        "import sys, pathlib; from tracelift.runs.lock import FolderLock; FolderLock(pathlib.Path(sys.argv[1])); print(1, flush=True)"
        "; sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as owner:
        assert owner.stdout.readline() == b"1\n"
        before = sorted(tmp_path.iterdir()), (tmp_path / ".lock").read_bytes()
        assert train.main(["--dry-run", "--run.out", str(tmp_path)]) == 1
        assert f"process {owner.pid} on " in capsys.readouterr().err
        assert (sorted(tmp_path.iterdir()), (tmp_path / ".lock").read_bytes()) == before
        owner.stdin.close()
    assert train.main(["--dry-run", "--run.out", str(tmp_path), "--data.eval_problems", "5"]) == 0


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b'{"a": 1}\n', "is not a baseline cache"),
        (b"[1]\n", "not a record"),
        (b"{\n{}\n", "not a JSON line"),
        (None, "Is a directory"),
    ],
)
def test_a_baseline_cache_that_is_none_is_refused(dry, tmp_path, content, wanted):
    cache = tmp_path / "cache.jsonl"
    cache.mkdir() if content is None else cache.write_bytes(content)
    code, _, said = dry("--executor.cache", str(cache), "--data.eval_problems", "5")
    assert code == 1 and wanted in said and str(cache) in said


def test_broken_weights_are_refused_and_missing_ones_told(dry, folder):
    broken = model_folder(folder / "broken", SHAPE)
    path = ROOT / "configs" / "paper-math.toml"
    words = [*overrides(path, folder), "--executor.path", str(broken)]
    assert "executor.path: " in dry(str(path), *words)[1]
    (broken / "model.safetensors").write_bytes(b"\x08" + bytes(30))
    code, _, said = dry(str(path), *words)
    assert code == 1 and said.startswith("executor.path: ") and "truncated or not a safetensors file" in said


def test_a_reason_rm_of_another_rubric_is_told_by_run_and_dry_run(dry, folder):
    heads = MATH_DIMENSIONS
    assert other_rubric(heads, "math") is None and other_rubric((), "code") is None
    assert "not the rubric of code" in (other_rubric(heads, "code") or "")
    told = []
    load_training_tasks(
        load_config(None, ["--data.source", "demo:code", "--reward.mode", "exec_only"]), told.append, heads
    )
    assert told == [other_rubric(heads, "code")]
    words = (
        "--data.source",
        "demo:code",
        "--reward_model.path",
        "assets/math/reward_model",
        "--data.eval_problems",
        "5",
    )
    assert other_rubric(heads, "code") in dry(*words)[1]
