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
from models.config import LinearScaling, RopeScaling, YarnScaling, yarn_attention_factor
from models.config_json import CheckpointError
from models.transformer import rope_frequencies
from support.random_models import FIELDS

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
# Fields by architecture; SmolLM3's files do not say which layers do not turn: every fourth.
MODES = FIELDS | {"smollm3": {"num_layers": 5, "rope_free_layers": (3,)}, "phi3": {"family": "llama"}}
MODES.pop("mistral")  # its files call themselves llama
INTERLEAVED = ("llama", "granite", "smollm3")
GRANITE = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logits_scaling",
}


def byte_vocabulary():
    """Every byte as GPT-2 spells it, three special tokens before and a few merges after."""
    from tokenizers.pre_tokenizers import ByteLevel

    merges = [("Ġ", "t"), ("4", "8"), ("c", "l"), ("cl", "i"), ("h", "i")]
    return [*SPECIAL, *sorted(ByteLevel.alphabet()), *("".join(m) for m in merges)], [" ".join(m) for m in merges]


def stored_name(name, family):
    """llama.cpp's name of a parameter, or of the fused tensor that it is a part of."""
    stem, _, leaf = name.rpartition(".")
    parts = stem.split(".")
    if "layers" not in parts:
        return f"{ {v: k for k, v in convert_gguf._TOP.items()}[stem] }.{leaf}"
    module = ".".join(parts[3:])
    names = {v: k for k, v in convert_gguf._BLOCK.items()}
    names["post_attention_layernorm"] = "post_attention_norm" if family in ("olmo2", "seed_oss") else "ffn_norm"
    if family == "phi3":
        names |= dict.fromkeys(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "attn_qkv")
        names |= dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), "ffn_up")
    return f"blk.{parts[2]}.{names[module]}.{leaf}"


def write_gguf(path, model, family, pre="smollm", kind="f32", keys=None, strip=(), **overrides):
    """A file as llama.cpp's converter would write it, through the gguf package's own writer.

    keys: further metadata, whole names → number, text or flag. strip: keys to leave out.
    """
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
    if family == "granite":
        for key, field in GRANITE.items():
            if key not in strip:
                w.add_float32(f"granite.{key}", getattr(c, field))
    adders = {bool: w.add_bool, int: w.add_uint32, float: w.add_float32, str: w.add_string}
    for key, value in (keys or {}).items():
        adders[type(value)](key, value)
    w.add_string("tokenizer.ggml.model", "gpt2")
    w.add_string("tokenizer.ggml.pre", pre)
    w.add_array("tokenizer.ggml.tokens", tokens)
    w.add_array("tokenizer.ggml.token_type", [3] * 3 + [1] * (len(tokens) - 3))
    w.add_array("tokenizer.ggml.merges", merges)
    w.add_uint32("tokenizer.ggml.bos_token_id", 1)
    w.add_uint32("tokenizer.ggml.eos_token_id", 2)
    w.add_uint32("tokenizer.ggml.eot_token_id", 0)
    w.add_string("tokenizer.chat_template", "{{ messages[0].content }}<|im_end|>")
    stored: dict[str, list] = {}
    for name, p in model.named_parameters():
        value = p.detach().numpy()
        if family in INTERLEAVED and name.split(".")[-2] in (
            "q_proj",
            "k_proj",
        ):  # llama.cpp's own permute, as it writes
            heads = c.num_heads if "q_proj" in name else c.num_kv_heads
            halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
            value = halves.swapaxes(1, 2).reshape(value.shape)
        stored.setdefault(stored_name(name, family), []).append(value)
    for name, values in stored.items():
        value = np.ascontiguousarray(np.concatenate(values), dtype=np.float32)
        if kind == "q8_0" and value.ndim == 2:
            q8 = gguf.GGMLQuantizationType.Q8_0
            w.add_tensor(name, gguf.quants.quantize(value, q8), raw_dtype=q8)
        else:
            w.add_tensor(name, value)
    if isinstance(c.rope_scaling, RopeScaling):
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


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"rope.scaling.factor": 2.5}, LinearScaling(2.5)),  # no type means linear
        ({"rope.scale_linear": 4.0}, LinearScaling(4.0)),  # as converters of 2023 wrote it
        ({"rope.scale_linear": 4.0, "rope.scaling.factor": 2.0}, LinearScaling(2.0)),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 1.0}, None),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, None),
        ({"rope.scaling.original_context_length": 32}, None),  # without a type that reads it
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16},
            YarnScaling(4.0, 16, yarn_attention_factor(4.0)),
        ),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.yarn_beta_fast": 8.0,
             "rope.scaling.attn_factor": 1.0},
            YarnScaling(4.0, 64, yarn_attention_factor(4.0), beta_fast=8.0),
        ),
    ],
)  # fmt: skip
def test_rope_scaling_is_what_llama_cpp_takes_it_for(make_gguf, tmp_path, keys, expected):
    for family in ("llama", "qwen3"):
        _, file = make_gguf(family, write={"keys": {f"{family}.{k}": v for k, v in keys.items()}})
        assert convert_gguf.convert(file, tmp_path / "out").rope_scaling == expected
        assert models.load_pretrained(tmp_path / "out").config.rope_scaling == expected


def test_fused_rows_are_put_back_head_by_head(make_gguf, tmp_path, tokens, monkeypatch):
    """A converter may fuse the projections of an interleaved architecture too."""
    monkeypatch.setitem(globals(), "stored_name", lambda name, family, plain=stored_name: plain(name, "phi3"))
    monkeypatch.setattr(convert_gguf, "_rename", lambda name, arch, plain=convert_gguf._rename: plain(name, "phi3"))
    model, file = make_gguf("llama")
    convert_gguf.convert(file, tmp_path / "out")
    assert torch.equal(logits(models.load_pretrained(tmp_path / "out"), tokens), logits(model, tokens))


def test_granite_without_its_keys_is_what_llama_cpp_takes_it_for(make_gguf, tmp_path):
    _, file = make_gguf("granite", write={"strip": ("embedding_scale", "residual_scale", "attention.scale")})
    config = convert_gguf.convert(file, tmp_path / "out")
    assert (config.embedding_multiplier, config.residual_multiplier, config.attention_multiplier) == (1.0, 1.0, None)
    assert config.logits_scaling == FIELDS["granite"]["logits_scaling"]
    _, file = make_gguf("granite", write={"strip": ("logit_scale",)})
    with pytest.raises(CheckpointError, match="granite.logit_scale is missing"):
        convert_gguf.convert(file, tmp_path / "out")


@pytest.mark.parametrize("said", [None, True, False])
@pytest.mark.parametrize(
    ("pre", "unsaid"),
    [
        ("llama-bpe", True),
        ("llama3", True),
        ("llama-v3", True),
        ("smaug-bpe", False),
        ("qwen2", False),
        ("smollm", False),
    ],
)
def test_the_first_token_is_added_as_the_file_says_or_the_pre_tokenizer_means(make_gguf, tmp_path, said, pre, unsaid):
    _, file = make_gguf(write={"pre": pre, "keys": {} if said is None else {"tokenizer.ggml.add_bos_token": said}})
    convert_gguf.convert(file, tmp_path / "out")
    ids = models.load_tokenizer(tmp_path / "out").encode("hi")
    assert (ids[0] == 1) == (unsaid if said is None else said)


@pytest.mark.parametrize(
    ("pre", "like"),
    [
        ("smaug-bpe", "llama-bpe"),
        ("dbrx", "llama-bpe"),
        ("deepseek-r1-qwen", "qwen2"),
        ("refact", "smollm"),
        ("gpt2", "gpt-2"),
    ],
)
def test_pre_tokenizers_that_llama_cpp_splits_alike(make_gguf, tmp_path, pre, like):
    toks = []
    for name in (pre, like):
        _, file = make_gguf(write={"pre": name, "keys": {"tokenizer.ggml.add_bos_token": False}})
        convert_gguf.convert(file, tmp_path / name)
        toks.append(models.load_tokenizer(tmp_path / name))
    for text in [*TEXTS, "1234567 cli't  x", "a48\n\n 8"]:
        assert toks[0].encode(text) == toks[1].encode(text), text


@pytest.mark.parametrize(
    "family, pre", [("llama", "gpt-2"), ("llama", "llama-bpe"), ("qwen2", "qwen2"), ("phi3", "gpt-2")]
)
def test_agrees_with_transformers_own_loading(make_gguf, tmp_path, tokens, family, pre):
    tf = pytest.importorskip("transformers")
    keys = {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.padding_token_id": 0}  # theirs assumes a larger one
    _, file = make_gguf(family, write={"pre": pre, "kind": "q8_0", "keys": keys})
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
        ({"pre": "default"}, "default.*--tokenizer"),
        ({"keys": {"tokenizer.ggml.add_eos_token": True}}, "add_eos_token.*--tokenizer"),
        ({"keys": {"tokenizer.ggml.add_space_prefix": True}}, "add_space_prefix.*--tokenizer"),
        ({"keys": {"split.count": 2, "split.no": 1}}, "part 2 of 2.*--merge"),
        ({"keys": {"llama.rope.scaling.type": "longrope"}}, "rope.scaling.type = longrope"),
        ({"keys": {"llama.rope.scaling.attn_factor": 1.2}}, "rope.scaling.attn_factor"),
        ({"keys": {"llama.rope.scaling.yarn_attn_factor": 1.2}}, "yarn_attn_factor"),
        ({"keys": {"llama.rope.scaling.yarn_ext_factor": 0.5}}, "yarn_ext_factor"),
        ({"keys": {"llama.rope.scaling.yarn_log_multiplier": 0.1}}, "yarn_log_multiplier"),
        ({"keys": {"llama.rope.scaling.alpha": 1000.0}}, "rope.scaling.alpha"),
        ({"family": "granite", "keys": {"granite.rope.scaling.finetuned": False}}, "finetuned"),
        ({"family": "phi3", "attention__sliding_window": 16}, "sliding_window"),
    ],
)
def test_refusals(make_gguf, tmp_path, write, words):
    write = dict(write)
    _, file = make_gguf(write.pop("family", "llama"), write=write)
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
