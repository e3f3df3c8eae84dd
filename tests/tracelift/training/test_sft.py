"""Stage "sft": the loss is that of the formula and falls; kills, ranks and micro-batches leave no trace in it."""

import json
import math

import pytest
import torch

import models
from support.job_server import Hurt
from support.tiny_job import executor_rows, sft_arguments, write_jsonl
from tracelift.training.sft import encode, read_rows, token_logprobs


def rounds(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def arguments(job, out, *extra, steps=12):
    dev = ["--sft.dev", str(job / "executor.jsonl"), "--sft.eval_every", "6", "--run.save_every", "5"]
    return [*sft_arguments(job, job / "executor.jsonl", out, steps), *dev, *extra]


@pytest.fixture(scope="module")
def undisturbed(job, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft") / "run"
    server.done(*arguments(job, folder))
    return folder


def test_the_loss_falls_and_the_model_reloads(job, undisturbed):
    metrics = rounds(undisturbed)
    assert [m["step"] for m in metrics] == list(range(1, 13))
    assert metrics[-1]["loss"] < metrics[0]["loss"] / 2
    assert [m["step"] for m in metrics if "dev/loss" in m] == [6, 12]
    text = (undisturbed / "summary.txt").read_text()
    assert all(f"{m['dev/loss']:.4g}" in text for m in metrics if "dev/loss" in m) and "last, round 12" in text
    model, tokenizer = models.load_pretrained(undisturbed / "final"), models.load_tokenizer(undisturbed / "final")
    rows = read_rows(job / "executor.jsonl")
    with torch.no_grad():  # the dev loss once more, one row at a time through plain causal attention
        nll, count = 0.0, 0
        for prompt, (completion,) in rows[:40]:
            p = tokenizer.encode(prompt)
            target = [*tokenizer.encode(completion, add_special_tokens=False), min(tokenizer.eos_ids)]
            logits = model.logits(model(torch.tensor([p + target])))[0].double().log_softmax(-1)
            nll -= sum(logits[len(p) - 1 + i, t].item() for i, t in enumerate(target))
            count += len(target)
        packed = token_logprobs(model, encode(rows[:40], tokenizer, 96), tokenizer.pad_id)
    assert len(packed) == count and math.isclose(-packed.sum().item(), nll, rel_tol=1e-5)


def test_completions_of_one_prompt_weigh_as_much_as_rows_of_their_own(job, undisturbed, tmp_path):
    """Also where pieces are only read, or answered by a tag."""
    model, tokenizer = models.load_pretrained(undisturbed / "final"), models.load_tokenizer(undisturbed / "final")
    prompt, several = "1 + 2 = ", ["3", [["1", False], ["2", True]], [["3", "4"], ["5", "6"]]]
    together = read_rows(write_jsonl(tmp_path / "together.jsonl", [{"prompt": prompt, "completions": several}]))
    apart = read_rows(write_jsonl(tmp_path / "apart.jsonl", [{"prompt": prompt, "completion": c} for c in several]))
    with torch.no_grad():
        a, b = (token_logprobs(model, encode(rows, tokenizer, 96), tokenizer.pad_id) for rows in (together, apart))
    assert len(a) == len(b) == 2 + 2 + 2  # an end token behind what is learned, none behind tags
    assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
    lengths = [len(tokenizer.encode(prompt)) + 2, len(tokenizer.encode(prompt)) + 3]
    assert len(encode(together, tokenizer, lengths[1])) == 1  # the longest completion counts, not their sum
    with pytest.raises(ValueError, match="exceeds the model's context"):
        encode(together, tokenizer, lengths[0])
    top = max(max(row.prompt) for row in encode(together, tokenizer, 96))
    with pytest.raises(ValueError, match=f"the model of {top} rows has none for it"):
        encode(together, tokenizer, 96, vocab=top)


def test_what_is_meant_is_asked_for_up_to_where_it_differs(job, tmp_path):
    tokenizer = models.load_tokenizer(job / "planner")
    one, plus = tokenizer.encode("1", add_special_tokens=False), tokenizer.encode("+", add_special_tokens=False)
    assert len(one) == len(plus) == 1

    def asked(*pieces):
        rows = read_rows(write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "1 + 2 = ", "completion": pieces}]))
        return [(k, tokenizer.decode([token])) for k, token in encode(rows, tokenizer, 96)[0].targets[0]]

    assert asked(["345", "+"]) == [(1, "+"), (2, "+"), (3, "+")]
    assert asked(["345", "+", "345"]) == [(1, "+"), (2, "+"), (3, "+"), (0, "3"), (1, "4"), (2, "5")]
    assert asked(["345", "1", "365"]) == [(1, "1"), (2, "1"), (3, "1"), (0, "3"), (1, "6")]
    assert asked(["7", True], ["345", "1", "3456"]) == [
        (0, "7"),
        (2, "1"),
        (3, "1"),
        (4, "1"),
        (1, "3"),
        (2, "4"),
        (3, "5"),
        (4, "6"),
    ]
    assert asked(["345", "1", "34"]) == [(1, "1"), (2, "1"), (3, "1"), (0, "3"), (1, "4")]


MOMENTS = [
    Hurt("kill", "tracelift.runs.folder:RunFolder.log", 9),
    Hurt("half", "tracelift.runs.folder:RunFolder.log", 7),
    Hurt("kill", "os:rename", 2),
]


@pytest.mark.parametrize("hurt", MOMENTS, ids=["between", "half a line", "while saving"])
def test_killed_and_resumed_equals_never_killed(job, server, undisturbed, out, hurt):
    assert server.run(*arguments(job, out), hurt=hurt).code == -9
    server.done(*arguments(job, out, "--resume"))
    for name in ("metrics.jsonl", "final/model.safetensors", "summary.txt"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_sigterm_saves_and_exits_143(job, server, undisturbed, out):
    ended = server.run(*arguments(job, out), hurt=Hurt("term", "tracelift.runs.folder:RunFolder.log", 3))
    assert ended.code == 143 and (out / "checkpoints" / "step-000004").exists()
    server.done(*arguments(job, out, "--resume"))
    assert (out / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()


def test_ranks_and_micro_batches_change_nothing(job, server, undisturbed, out):
    expected = rounds(undisturbed)[:6]
    for name, extra, ranks in (("three", ("--sft.batch_size", "32"), 3), ("small", ("--optim.micro_tokens", "1"), 1)):
        server.done(*arguments(job, out / name, *extra, steps=6), ranks=ranks)
        for a, b in zip(rounds(out / name), expected, strict=True):
            assert a.keys() == b.keys()
            assert all(math.isclose(a[k], b[k], rel_tol=2e-4, abs_tol=1e-6) for k in a), (name, a, b)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "2: broken JSON"),
        ('{"prompt": "x"}', "2: no 'completion'; expected"),
        ('{"prompt": "", "completion": "y"}', "2: 'prompt' must be a non-empty text"),
        ('{"prompt": "x", "completion": 3}', "2: a completion must be a non-empty text or a list"),
        ('{"prompt": "x", "completion": [["y", false]]}', "2: a completion must be a non-empty text or a list"),
        ('{"prompt": "x", "completion": [["", true]]}', "2: a completion must be a non-empty text or a list"),
        ('{"prompt": "x", "completions": []}', "2: 'completions' must be a list of at least one"),
        ('{"prompt": "x", "completions": ["y", 3]}', "2: a completion must be a non-empty text or a list"),
        ("[1]", "2: not an object"),
    ],
)
def test_a_broken_row_is_named(tmp_path, line, said):
    path = write_jsonl(tmp_path / "rows.jsonl", executor_rows(1))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=f"rows.jsonl:{said}"):
        read_rows(path)


def test_blank_lines_are_nothing_and_no_row_is_an_error(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", executor_rows(2))
    path.write_text("\n" + path.read_text() + "\n\n")
    assert len(read_rows(path)) == 2
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no row"):
        read_rows(path)
    with pytest.raises(FileNotFoundError, match="nowhere.jsonl': no such file"):
        read_rows("nowhere.jsonl")


def test_what_cannot_be_trained_is_refused_in_one_sentence(job, server, out):
    long = write_jsonl(out.parent / "long.jsonl", [{"prompt": "1 + 2 = " * 40, "completion": "3"}])
    cases = [
        (("--sft.train", str(long)), "exceeds the model's context of 96"),
        (("--sft.init", str(job / "planner")), "give either sft.init"),
        (("--sft.shape", "{hidden_sizes=3}"), "sft.shape"),
        (("--sft.tokenizer", "nowhere"), "nowhere"),
    ]
    for number, (extra, said) in enumerate(cases):
        ended = server.run(*arguments(job, out / str(number), *extra))
        assert ended.code == 1 and said in ended.message, ended
