"""What users get wrong: one clear sentence, a non-zero exit, no traceback, and whatever was saved before is intact."""

import json

import pytest
from safetensors.torch import load_file, save_file

from support.job_server import Hurt
from support.tiny_job import planner_arguments, write_jsonl

SHORT = ("--run.steps", "1", "--data.eval_problems", "0")


@pytest.fixture(scope="module")
def spoilt(job, tmp_path_factory):
    """Broken variants of the job's files."""
    folder = tmp_path_factory.mktemp("spoilt")
    good = json.dumps({"problem": "What is 1 + 1?", "answer": 2})
    (folder / "broken.jsonl").write_text(good + "\n" + good[:-5] + "\n")
    (folder / "empty.jsonl").write_text("\n")
    (folder / "bytes.jsonl").write_bytes(good.encode() + b'\n{"problem": "\xff", "answer": 1}\n')
    write_jsonl(folder / "long.jsonl", [{"problem_id": "long one", "problem": "1 + " * 60 + "1?", "answer": 61}] * 6)
    (folder / "empty-folder").mkdir()
    (folder / "prompt.txt").write_text("no field in here\n")
    (folder / "run" / "final").mkdir(parents=True)
    for place in ("config.json", "final/config.json"):
        (folder / "run" / place).write_text(json.dumps({"config": {}}))
    for place, name in (("adapter", "adapter_config.json"), ("mistral", "params.json"), (".", "tiny.gguf")):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / name).write_text("{}")
    cut = folder / "cut"
    cut.mkdir()
    for file in (job / "planner").iterdir():
        (cut / file.name).write_bytes(file.read_bytes()[: -50 if file.suffix == ".safetensors" else None])
    nan = folder / "nan"
    nan.mkdir()
    for file in (job / "planner").iterdir():
        (nan / file.name).write_bytes(file.read_bytes())
    state = load_file(job / "planner" / "model.safetensors")
    state["model.norm.weight"][0] = float("nan")
    save_file(state, str(nan / "model.safetensors"), metadata={"format": "pt"})
    return folder


CASES = {
    "missing planner": (("--planner.path", "{}/nowhere"), 1, "planner.path: {}/nowhere: no such folder"),
    "missing executor": (("--executor.path", "{}/nowhere"), 1, "executor.path: {}/nowhere: no such folder"),
    "missing reward model": (("--reward_model.path", "{}/nowhere"), 1, "reward_model.path: {}/nowhere: no such folder"),
    "empty folder": (("--planner.path", "{}/empty-folder"), 1, "empty-folder"),
    "truncated weights": (("--planner.path", "{}/cut"), 1, "model.safetensors"),
    "a language model as reward model": (("--reward_model.path", "{}/../planner"), 1, "rm_dimension_names"),
    "missing data": (
        ("--data.source", "{}/nowhere.jsonl"),
        1,
        "data.source: data source '{}/nowhere.jsonl': no such file",
    ),
    "missing held-out data": (
        ("--data.eval_source", "{}/no.jsonl", "--data.eval_problems", "6"),
        1,
        "data.eval_source: ",
    ),
    "broken line": (("--data.source", "{}/broken.jsonl"), 1, "broken.jsonl:2: broken JSON"),
    "bytes": (("--data.source", "{}/bytes.jsonl"), 1, "bytes.jsonl:2: not UTF-8"),
    "empty data": (("--data.source", "{}/empty.jsonl"), 1, "empty.jsonl: holds no problem"),
    "a run's folder as planner": (
        ("--planner.path", "{}/run"),
        1,
        "planner.path: {}/run/config.json: is no model's config.json; {}/run is the folder of a run, its model is {}/run/final",
    ),
    "a GGUF file as planner": (
        ("--planner.path", "{}/tiny.gguf"),
        1,
        "planner.path: {}/tiny.gguf: is a file; convert it: python -m models.convert_gguf {}/tiny.gguf FOLDER",
    ),
    "a safetensors file as executor": (
        ("--executor.path", "{}/cut/model.safetensors"),
        1,
        "executor.path: {}/cut/model.safetensors: is a file; pass its folder, {}/cut",
    ),
    "a name on the Hub": (("--planner.path", "Qwen/Qwen2.5-7B"), 1, "hf download Qwen/Qwen2.5-7B --local-dir"),
    "an adapter as planner": (("--planner.path", "{}/adapter"), 1, "{}/adapter holds a LoRA adapter: pass the model"),
    "a maker's own layout": (("--planner.path", "{}/mistral"), 1, "version for Hugging Face transformers"),
    "an unknown target of LoRA": (("--lora.r", "2", "--lora.targets", "q_porj"), 1, "'q_porj' names no module"),
    "no adapter there": (("--planner.adapter", "{}/nowhere"), 1, "planner.adapter: {}/nowhere: no such folder"),
    "a key of a server that is not set": (
        ("--executor.url", "http://localhost:9", "--executor.key_env", "NO_SUCH_KEY"),
        1,
        "the environment variable NO_SUCH_KEY is not set",
    ),
    "prompt longer than the context": (("--data.source", "{}/long.jsonl"), 1, "exceed the planner's context of 96"),
    "template": (("--planner.prompt", "{}/prompt.txt"), 1, "needs exactly the fields {problem}"),
    "unknown key": (("--grpo.epoch", "2"), 1, "did you mean 'epochs'"),
    "no such device": (("--run.device", "cuda:99"), 1, "GPU 99"),
}
# What a dry run, which needs no GPU, does not refuse: a note in its stead.
NOTED = {"no such device": "there is no such GPU here"}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_sentence(job, server, spoilt, out, case):
    extra, code, said = CASES[case]
    said = said.replace("{}", str(spoilt)) if "{}/" in said else said
    if case == "a language model as reward model":
        extra = ("--reward_model.path", str(job / "planner"))
    extra = [word.replace("{}", str(spoilt)) for word in extra]
    words = planner_arguments(job, out, *SHORT, *extra)
    ended = server.run(*words)
    assert ended.code == code and said in ended.message, ended
    dry = server.run(*words, "--dry-run")
    if case in NOTED:
        assert dry.code == 0 and any(NOTED[case] in line for line in dry.text.splitlines() if "note: " in line), dry
    else:
        assert (dry.code, dry.message) == (1, ended.message)


def test_weights_that_are_not_finite_end_in_a_sentence(job, server, spoilt, out):
    ended = server.run(*planner_arguments(job, out, *SHORT, "--planner.path", str(spoilt / "nan")))
    assert ended.code == 2 and "the planner's log-probs are not finite" in ended.message
    ended = server.run(*planner_arguments(job, out, *SHORT, "--executor.path", str(spoilt / "nan")))
    assert (
        ended.code == 2
        and "samples that reached the executor ended in an ERROR verdict" in ended.message
        and "the executor's log-probs" in ended.message
    )


def test_a_loss_that_is_not_finite_stops_with_the_checkpoint_intact_or_is_skipped(job, server, out):
    extra = (
        "--run.save_every",
        "1",
        "--data.eval_problems",
        "0",
        "--optim.micro_tokens",
        "100000",
    )  # one piece a round
    hurt = Hurt("nan", "train:policy_loss", 3)
    ended = server.run(*planner_arguments(job, out, *extra), hurt=hurt)
    assert ended.code == 2 and "round 3: the gradient is not finite (norm nan)" in ended.message, ended
    assert [p.name for p in sorted((out / "checkpoints").iterdir())] == ["step-000001", "step-000002"]
    server.done(
        *planner_arguments(job, out, *extra, "--resume", "--optim.on_nan", "skip"),
        hurt=Hurt("nan", "train:policy_loss", 1),
    )
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [m["updates_skipped"] for m in metrics] == [0, 0, 1, 1]


def test_a_second_run_does_not_write_over_the_first(job, server, out):
    server.done(*planner_arguments(job, out, *SHORT))
    before = (out / "metrics.jsonl").read_bytes()
    ended = server.run(*planner_arguments(job, out, *SHORT))
    assert ended.code == 1 and "already holds a run; add --resume" in ended.message
    assert (out / "metrics.jsonl").read_bytes() == before


def test_a_full_log_disk(job, server, out):
    ended = server.run(*planner_arguments(job, out, *SHORT), hurt=Hurt("full", "os:fsync", 12))
    assert ended.code == 2 and "No space left" in ended.message, ended


def test_resuming_with_another_model_is_refused(job, server, out):
    server.done(*planner_arguments(job, out, *SHORT))
    state = (out / "checkpoints" / "step-000001" / "state.json").read_bytes()
    (out / "checkpoints" / "step-000001" / "model" / "model.safetensors").write_bytes(b"\0" * 100)
    ended = server.run(*planner_arguments(job, out, *SHORT, "--resume"))
    assert ended.code == 1 and "none of its 1 checkpoints can be read" in ended.message
    assert (out / "checkpoints" / "step-000001" / "state.json").read_bytes() == state
