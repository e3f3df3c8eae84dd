"""Safetensors folders: exact round trips, nothing guessed, and an earlier folder that no failed save can harm."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from models.atomic import replaced_folder
from models.config_json import CheckpointError
from models.shards import INDEX, WEIGHTS, plan_shards


def logits(model, tokens):
    with torch.no_grad():
        return model.logits(model(tokens))


def rewrite(folder, change):
    """Edit the tensors of a saved single-file folder."""
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", [10**9, 5000])
def test_reloads_bit_equal(make_model, tmp_path, dtype, tied, shard):
    model = make_model(tied_head=tied, qk_norm=True, family="qwen3").to(dtype)
    models.save_pretrained(model, tmp_path / "m", max_shard_bytes=shard)
    assert (tmp_path / "m" / INDEX).exists() == (shard == 5000)
    again = models.load_pretrained(tmp_path / "m", dtype=dtype)
    assert again.config == model.config and not again.training
    for (name, a), (other, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other and a.dtype == b.dtype and torch.equal(a, b)
    assert torch.equal(again.model.rope_freq, model.model.rope_freq)


def test_loaded_parameters_are_ordinary_trainable_memory(make_model, tmp_path, tokens):
    models.save_pretrained(make_model(), tmp_path)
    model = models.load_pretrained(tmp_path)
    before = (tmp_path / WEIGHTS).read_bytes()
    assert all(p.requires_grad and p.is_leaf and not p.is_meta for p in model.parameters())
    model.logits(model(tokens)).square().mean().backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= p.grad
    assert (tmp_path / WEIGHTS).read_bytes() == before


def test_bfloat16_keeps_rotary_frequencies_in_fp32(make_model, tmp_path):
    model = make_model()
    exact = model.model.rope_freq.clone()
    models.save_pretrained(model, tmp_path)
    for half in (models.load_pretrained(tmp_path, dtype=torch.bfloat16), model.to(torch.bfloat16)):
        assert half.dtype == torch.bfloat16 and half.model.rope_freq.dtype == torch.float32
        assert torch.equal(half.model.rope_freq, exact)


def test_shards_fill_in_order_and_large_tensors_stand_alone():
    state = {n: torch.zeros(k, dtype=torch.uint8) for n, k in (("a", 3), ("b", 3), ("c", 20), ("d", 1), ("e", 9))}
    assert list(plan_shards(state, 10).values()) == [["a", "b"], ["c"], ["d", "e"]]
    assert list(plan_shards(state, 36)) == [WEIGHTS]


def test_extra_safetensors_files_are_not_read(make_model, tmp_path, tokens):
    model = make_model()
    models.save_pretrained(model, tmp_path, max_shard_bytes=5000)
    save_file({"junk": torch.zeros(3)}, tmp_path / "consolidated.safetensors")
    assert torch.equal(logits(models.load_pretrained(tmp_path), tokens), logits(model, tokens))


def test_harmless_surplus_keys_of_older_checkpoints(make_model, tmp_path):
    models.save_pretrained(make_model(), tmp_path)
    embedding = load_file(tmp_path / WEIGHTS)["model.embed_tokens.weight"]
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(3), "lm_head.weight": embedding.clone()}
    rewrite(tmp_path, lambda s: s.update(old))
    models.load_pretrained(tmp_path)
    rewrite(tmp_path, lambda s: s.update({"lm_head.weight": embedding + 1}))
    with pytest.raises(CheckpointError, match="lm_head.weight.*differs"):
        models.load_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda s: s.pop("model.layers.1.mlp.up_proj.weight"), "missing.*layers.1.mlp.up_proj.weight"),
        (lambda s: s.update({"model.layers.2.mlp.up_proj.weight": torch.zeros(2)}), "no place.*layers.2"),
        (lambda s: s.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(24)}), "no place.*q_proj.bias"),
        (lambda s: s.update({"model.norm.weight": torch.zeros(25)}), r"model.norm.weight.*\[25\].*\[24\]"),
        (lambda s: s.update({"model.norm.weight": torch.zeros(24, dtype=torch.int8)}), "model.norm.weight.*I8"),
        (lambda s: s.pop("lm_head.weight"), "lm_head.weight.*tie_word_embeddings"),
    ],
)
def test_wrong_tensors_are_named(make_model, tmp_path, change, words):
    models.save_pretrained(make_model(tied_head=False), tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(CheckpointError, match=words) as e:
        models.load_pretrained(tmp_path)
    assert str(tmp_path) in str(e.value)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files(make_model, tmp_path, keep):
    models.save_pretrained(make_model(), tmp_path, max_shard_bytes=5000)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:keep])
    with pytest.raises(CheckpointError, match=shard.name):
        models.load_pretrained(tmp_path)


def test_broken_indices(make_model, tmp_path):
    models.save_pretrained(make_model(), tmp_path, max_shard_bytes=5000)
    index = json.loads((tmp_path / INDEX).read_text())
    first, *_, last = index["weight_map"]

    def expect(error, words, weight_map):
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(error, match=words):
            models.load_pretrained(tmp_path)

    expect(CheckpointError, "weight_map", {})
    expect(CheckpointError, "file name", {**index["weight_map"], first: "../elsewhere.safetensors"})
    expect(CheckpointError, f"lacks {first}", {**index["weight_map"], first: index["weight_map"][last]})
    expect(FileNotFoundError, "gone.safetensors", {**index["weight_map"], first: "gone.safetensors"})


def test_missing_things(make_model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        models.load_pretrained(tmp_path / "no")
    models.save_pretrained(make_model(), tmp_path / "m")
    os.rename(tmp_path / "m" / WEIGHTS, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pickle"):
        models.load_pretrained(tmp_path / "m")


def test_saving_replaces_old_shards_and_keeps_the_users_files(make_model, tmp_path):
    models.save_pretrained(make_model(), tmp_path / "m", max_shard_bytes=5000)
    (tmp_path / "m" / "README.md").write_text("mine")
    small = make_model(seed=1)
    models.save_pretrained(small, tmp_path / "m")
    assert sorted(os.listdir(tmp_path / "m")) == ["README.md", "config.json", WEIGHTS]
    assert (tmp_path / "m" / "README.md").read_text() == "mine"
    assert torch.equal(models.load_pretrained(tmp_path / "m").head_weight, small.head_weight)
    assert os.listdir(tmp_path) == ["m"]


def test_saving_refuses_places_that_are_not_a_models(make_model, tmp_path):
    (tmp_path / "home" / "photos").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="photos"):
        models.save_pretrained(make_model(), tmp_path / "home")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        models.save_pretrained(make_model(), tmp_path / "file")


def test_full_disk_leaves_the_earlier_folder(make_model, tmp_path):
    """A file-size limit stands in for the disk: the write fails in the kernel just the same."""
    model = make_model(tied_head=False)
    models.save_pretrained(model, tmp_path / "m")
    script = (
        "import resource, sys, models\n"
        "model = models.load_pretrained(sys.argv[1])\n"
        "model.lm_head.weight.data.zero_()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))\n"
        "try:\n    models.save_pretrained(model, sys.argv[1])\n"
        "except OSError as e:\n    print('OSError', e)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "m"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("OSError"), done
    assert torch.equal(models.load_pretrained(tmp_path / "m").head_weight, model.head_weight)
    assert os.listdir(tmp_path) == ["m"]


def test_a_failing_block_changes_nothing(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced_folder(tmp_path / "m", lambda name: True) as aside:
        (aside / "a").write_text("new")
        raise KeyboardInterrupt
    assert (tmp_path / "m" / "a").read_text() == "old" and os.listdir(tmp_path) == ["m"]


def test_a_save_killed_between_its_two_renames_is_told_and_mended(make_model, tmp_path):
    model = make_model()
    models.save_pretrained(model, tmp_path / "m")
    os.rename(tmp_path / "m", tmp_path / ".m.old")
    with pytest.raises(FileNotFoundError, match=r"\.m\.old"):
        models.load_pretrained(tmp_path / "m")
    with pytest.raises(ZeroDivisionError), replaced_folder(tmp_path / "m", lambda name: True):
        raise ZeroDivisionError
    assert torch.equal(models.load_pretrained(tmp_path / "m").head_weight, model.head_weight)


def test_killed_at_every_step_of_a_save(tmp_path):
    """A child dies by SIGKILL before its n-th call into the file system, for every n: one whole save is always there."""
    steps = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.link"}
    found = []

    def save(text):
        with replaced_folder(tmp_path / "m", lambda name: True) as aside:
            (aside / "a").write_text(text)
            (aside / "b").write_text(text)

    def die_at(n):
        seen = [0]

        def hook(event, args):
            if event in steps:
                seen[0] += 1
                if seen[0] == n:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    save("old")
    for n in range(1, 100):
        child = os.fork()
        if child == 0:
            try:
                die_at(n)
                save(f"new {n}")
                os._exit(0)
            finally:
                os._exit(1)  # whatever happened, the child must not go on as a second pytest
        _, status = os.waitpid(child, 0)
        where = tmp_path / ("m" if (tmp_path / "m").exists() else ".m.old")
        found.append((where.name, (where / "a").read_text()))
        assert (where / "b").read_text() == found[-1][1] and len(os.listdir(where)) == 2
        if status == 0:
            break
    assert status == 0 and n > 10 and found[-1] == ("m", f"new {n}")
    assert ".m.old" in {name for name, _ in found}  # the instant between the two renames was met


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's peak resident memory")
def test_loading_takes_the_memory_once(make_model, tmp_path):
    """Peak resident memory of a fresh process grows by little more than the weights (64 MB here)."""
    model = make_model(vocab_size=1000, hidden_size=512, intermediate_size=2048, num_layers=4, head_dim=128)
    size = sum(p.numel() * 4 for p in model.parameters())
    models.save_pretrained(model, tmp_path / "m")
    script = (
        "import re, sys, models\n"
        "peak = lambda: 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "models.load_pretrained(sys.argv[2])\nbefore = peak()\n"
        "model = models.load_pretrained(sys.argv[1])\nprint(peak() - before)\n"
    )
    models.save_pretrained(make_model(), tmp_path / "warm")
    cmd = [sys.executable, "-c", script, tmp_path / "m", tmp_path / "warm"]
    grown = int(subprocess.run(cmd, capture_output=True, text=True, check=True).stdout)
    assert 0.8 * size < grown < 1.35 * size, (grown, size)
