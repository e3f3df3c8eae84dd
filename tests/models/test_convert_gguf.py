"""GGUF files become folders with the same logits and ids as transformers' own reading of the same file (dev-only)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from models import convert_gguf
from models.config import RopeScaling
from models.hf_config import CheckpointError
from models.transformer import rope_frequencies

gguf = pytest.importorskip("gguf")

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
    "48 clips, 24 = 48/2",
    "It's I'LL  two\n\nlines",
    "café 日本 😀 ½",
    "<|im_start|>user\nhi<|im_end|>",
    "",
    " x ",
]
MODES = {"llama": {}, "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": True}}


def byte_vocabulary():
    """Every byte as GPT-2 spells it, three special tokens before and a few merges after."""
    from tokenizers.pre_tokenizers import ByteLevel

    merges = [("Ġ", "t"), ("4", "8"), ("c", "l"), ("cl", "i"), ("h", "i")]
    return [*SPECIAL, *sorted(ByteLevel.alphabet()), *("".join(m) for m in merges)], [" ".join(m) for m in merges]


def write_gguf(path, model, family, pre="smollm", kind="f32", **overrides):
    """A file as llama.cpp's converter would write it, through the gguf package's own writer."""
    c = model.config
    w = gguf.GGUFWriter(path, family)
    tokens, merges = byte_vocabulary()
    numbers = {
        "block_count": c.num_layers,
        "context_length": c.max_positions,
        "embedding_length": c.hidden_size,
        "feed_forward_length": c.intermediate_size,
        "attention.head_count": c.num_heads,
        "attention.head_count_kv": c.num_kv_heads,
        "attention.key_length": c.head_dim,
        "attention.value_length": c.head_dim,
        "vocab_size": c.vocab_size,
    }
    for key, value in numbers.items():
        w.add_uint32(f"{family}.{key}", value)
    w.add_float32(f"{family}.attention.layer_norm_rms_epsilon", c.norm_eps)
    w.add_float32(f"{family}.rope.freq_base", c.rope_theta)
    for key, value in overrides.items():
        w.add_uint32(f"{family}.{key.replace('__', '.')}", value)
    w.add_string("tokenizer.ggml.model", "gpt2")
    w.add_string("tokenizer.ggml.pre", pre)
    w.add_array("tokenizer.ggml.tokens", tokens)
    w.add_array("tokenizer.ggml.token_type", [3] * 3 + [1] * (len(tokens) - 3))
    w.add_array("tokenizer.ggml.merges", merges)
    w.add_uint32("tokenizer.ggml.bos_token_id", 1)
    w.add_uint32("tokenizer.ggml.eos_token_id", 2)
    w.add_uint32("tokenizer.ggml.eot_token_id", 0)
    w.add_string("tokenizer.chat_template", "{{ messages[0].content }}<|im_end|>")
    names = {v: k for k, v in (convert_gguf._TOP | convert_gguf._BLOCK).items()}
    for name, p in model.named_parameters():
        value = p.detach().numpy()
        stem, _, leaf = name.rpartition(".")
        if family == "llama" and stem.endswith(("q_proj", "k_proj")):  # llama.cpp's own permute, as it writes it
            heads = c.num_heads if stem.endswith("q_proj") else c.num_kv_heads
            halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
            value = halves.swapaxes(1, 2).reshape(value.shape)
        parts = stem.split(".")
        block = f"blk.{parts[2]}.{names['.'.join(parts[3:])]}" if "layers" in parts else names[stem]
        if kind == "q8_0" and p.dim() == 2:
            w.add_tensor(
                f"{block}.{leaf}",
                gguf.quants.quantize(value, gguf.GGMLQuantizationType.Q8_0),
                raw_dtype=gguf.GGMLQuantizationType.Q8_0,
            )
        else:
            w.add_tensor(f"{block}.{leaf}", np.ascontiguousarray(value, dtype=np.float32))
    if c.rope_scaling is not None:
        from dataclasses import replace

        plain = rope_frequencies(replace(c, rope_scaling=None))
        w.add_tensor("rope_freqs.weight", (plain / rope_frequencies(c)).numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


@pytest.fixture
def make_gguf(make_model, tmp_path):
    def make(family="llama", write=None, **changes):
        shape = dict(vocab_size=len(byte_vocabulary()[0]), hidden_size=64, intermediate_size=96, head_dim=16)
        model = make_model(**{**shape, "family": family, **MODES[family], **changes})
        return model, write_gguf(tmp_path / "tiny.gguf", model, family, **(write or {}))

    return make


def logits(model, tokens):
    with torch.no_grad():
        return model.logits(model(tokens))


@pytest.mark.parametrize("family", MODES)
@pytest.mark.parametrize("tied", [True, False])
def test_exact_weights_come_back(make_gguf, tmp_path, tokens, family, tied):
    model, file = make_gguf(family, tied_head=tied)
    convert_gguf.convert(file, tmp_path / "out")
    got = models.load_pretrained(tmp_path / "out")
    assert got.config == model.config
    assert torch.equal(logits(got, tokens), logits(model, tokens))


def test_llama3_rescaling_is_recognised(make_gguf, tmp_path, tokens):
    model, file = make_gguf(rope_scaling=RopeScaling(32.0, 1.0, 4.0, 8192), rope_theta=500_000.0)
    assert convert_gguf.convert(file, tmp_path / "out").rope_scaling == model.config.rope_scaling
    model, file = make_gguf(rope_scaling=RopeScaling(5.0, 1.0, 4.0, 8192), rope_theta=500_000.0)
    with pytest.raises(CheckpointError, match="rope_freqs"):
        convert_gguf.convert(file, tmp_path / "out")


@pytest.mark.parametrize("family, pre", [("llama", "gpt-2"), ("llama", "llama-bpe"), ("qwen2", "qwen2")])
def test_agrees_with_transformers_own_loading(make_gguf, tmp_path, tokens, family, pre):
    tf = pytest.importorskip("transformers")
    _, file = make_gguf(family, write={"pre": pre, "kind": "q8_0"})
    convert_gguf.convert(file, tmp_path / "out")
    ours, tok = models.load_pretrained(tmp_path / "out"), models.load_tokenizer(tmp_path / "out")
    theirs = tf.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32).eval()
    with torch.no_grad():
        want = theirs(tokens).logits
    assert (logits(ours, tokens) - want).abs().max() / want.abs().max() < 1e-5
    their_tok = tf.AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    for text in TEXTS:
        assert tok.encode(text) == their_tok.encode(text), text
    assert (tok.eos_ids, tok.eos_id, tok.bos_id) == ({0, 2}, 2, 1)
    assert tok.decode(tok.apply_chat_template([{"role": "user", "content": "hi"}]), False) == "hi<|im_end|>"


def test_smollm_splits_digits(make_gguf, tmp_path):
    _, file = make_gguf()
    convert_gguf.convert(file, tmp_path / "out")
    tok = models.load_tokenizer(tmp_path / "out")
    assert [tok.id_to_token(i) for i in tok.encode("48 cli")] == ["4", "8", "Ġ", "cli"]
    for text in TEXTS:
        assert tok.decode(tok.encode(text), skip_special=False) == text


@pytest.mark.parametrize(
    "write, words",
    [
        ({"expert_count": 8}, "expert_count"),
        ({"attention__sliding_window": 16}, "sliding_window"),
        ({"rope__dimension_count": 8}, "rope.dimension_count"),
        ({"pre": "mystery"}, "mystery.*--tokenizer"),
    ],
)
def test_refusals(make_gguf, tmp_path, write, words):
    _, file = make_gguf(write=write)
    with pytest.raises(CheckpointError, match=words):
        convert_gguf.convert(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_line(make_gguf, tmp_path, capsys):
    _, file = make_gguf()
    assert convert_gguf.main([str(file), str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
    assert "llama, 2 layers" in capsys.readouterr().out
    assert models.load_pretrained(tmp_path / "out", dtype=torch.bfloat16).dtype == torch.bfloat16
    (tmp_path / "broken.gguf").write_bytes(file.read_bytes()[:2000])
    for name, words in (("broken.gguf", "truncated"), ("none.gguf", "no such file")):
        assert convert_gguf.main([str(tmp_path / name), str(tmp_path / "x")]) == 1
        assert words in capsys.readouterr().err
    run = subprocess.run([sys.executable, "-m", "models.convert_gguf", "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and "--tokenizer" in run.stdout and run.stderr == ""


@pytest.mark.slow
@pytest.mark.skipif("TRACELIFT_SMOLLM2_GGUF" not in os.environ, reason="TRACELIFT_SMOLLM2_GGUF names no file")
def test_smollm2(tmp_path):
    """The real file: logits and ids as transformers reads them, and greedy text that answers the question."""
    tf = pytest.importorskip("transformers")
    file = Path(os.environ["TRACELIFT_SMOLLM2_GGUF"])
    convert_gguf.convert(file, tmp_path / "out")
    model, tok = models.load_pretrained(tmp_path / "out"), models.load_tokenizer(tmp_path / "out")
    ids = tok.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}])
    theirs = tf.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    tokens = torch.tensor([ids])
    with torch.no_grad():
        want = theirs(tokens).logits
    assert (logits(model, tokens) - want).abs().max() / want.abs().max() < 1e-5
    their_tok = tf.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for text in TEXTS[:2] + TEXTS[3:]:  # not "½": transformers reads this file without its split at digits
        assert tok.encode(text) == their_tok.encode(text)
    for _ in range(12):
        tokens = torch.cat([tokens, logits(model, tokens)[:, -1:].argmax(-1)], dim=1)
    assert "The capital of France is Paris." in tok.decode(tokens[0, len(ids) :].tolist())
