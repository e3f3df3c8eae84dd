"""Logits equal those of transformers on random checkpoints of every family, in both directions (dev-only oracle).

Sizes are chosen so that no two roles share one; eps, θ and rescaling are far from their defaults, so that ignoring one
shows: `test_the_comparison_is_sensitive` checks that it would.
"""

import json
from dataclasses import replace

import pytest
import torch

import models
from models.config import RopeScaling
from support.random_models import randomise

tf = pytest.importorskip("transformers")

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 50.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
SHAPE = dict(
    vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
    num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=0.03, tie_word_embeddings=False,
    rope_parameters={"rope_type": "default", "rope_theta": 300.0},
)  # fmt: skip
CASES = {
    "llama2": ("Llama", {"num_key_value_heads": 6}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "smollm2": ("Llama", {"tie_word_embeddings": True}),
    "llama-biased": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 10}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 12}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-untied": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3-biased": ("Qwen3", {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True}),
}
TOKENS = torch.randint(0, 97, (2, 200), generator=torch.Generator().manual_seed(3))


def theirs(name):
    prefix, changes = CASES[name]
    config = getattr(tf, prefix + "Config")(**{**SHAPE, **changes})
    model = getattr(tf, prefix + "ForCausalLM")(config).eval()
    randomise(model, seed=11)
    model.tie_weights()
    return model


def their_logits(model):
    with torch.no_grad():
        return model(TOKENS).logits


def our_logits(model):
    with torch.no_grad():
        return model.logits(model(TOKENS))


def distance(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def to_older_form(folder):
    """config.json as the hub's checkpoints of 2024 have it."""
    raw = json.loads((folder / "config.json").read_text())
    rope = raw.pop("rope_parameters")
    raw["rope_theta"] = rope.pop("rope_theta")
    raw["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    raw["torch_dtype"] = raw.pop("dtype", "float32")
    (folder / "config.json").write_text(json.dumps(raw))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", ["newer", "older"])
def test_logits_agree(name, form, tmp_path):
    reference = theirs(name)
    reference.save_pretrained(tmp_path, max_shard_size="40KB" if form == "older" else "1GB")
    raw = json.loads((tmp_path / "config.json").read_text())
    assert "rope_parameters" in raw and "dtype" in raw  # the installed transformers does write the newer form
    if form == "older":
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        to_older_form(tmp_path)
    ours = models.load_pretrained(tmp_path)
    assert distance(our_logits(ours), their_logits(reference)) <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_transformers_loads_what_we_save(name, tmp_path):
    reference = theirs(name)
    reference.save_pretrained(tmp_path / "a")
    ours = models.load_pretrained(tmp_path / "a")
    models.save_pretrained(ours, tmp_path / "b", max_shard_bytes=60_000)
    again, info = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype=torch.float32, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(again) is type(reference)
    assert torch.equal(their_logits(again.eval()), their_logits(reference))
    assert models.load_pretrained(tmp_path / "b").config == ours.config


@pytest.mark.parametrize("name", ["llama3", "qwen2", "qwen3"])
def test_gradients_agree(name, tmp_path):
    reference = theirs(name)
    reference.save_pretrained(tmp_path)
    ours = models.load_pretrained(tmp_path)
    weights = torch.randn(2, 200, 97, generator=torch.Generator().manual_seed(5))
    (reference(TOKENS).logits * weights).sum().backward()
    (ours.logits(ours(TOKENS)) * weights).sum().backward()
    expected = dict(reference.named_parameters())
    for name, p in ours.named_parameters():
        assert distance(p.grad, expected[name].grad) < 1e-4, name


@pytest.mark.parametrize(
    "change",
    [
        dict(norm_eps=1e-6),
        dict(rope_theta=51.0),
        dict(rope_scaling=None),
        dict(rope_scaling=RopeScaling(8.0, 1.0, 4.0, 512)),
        dict(rope_scaling=RopeScaling(8.0, 1.0, 3.9, 64)),
        dict(rope_scaling=RopeScaling(8.0, 1.1, 4.0, 64)),
    ],
)
def test_the_comparison_is_sensitive(change, tmp_path):
    reference = theirs("llama3")
    reference.save_pretrained(tmp_path)
    right = models.load_pretrained(tmp_path)
    wrong = models.Transformer(replace(right.config, **change)).eval()
    wrong.load_state_dict(right.state_dict())
    assert distance(our_logits(wrong), their_logits(reference)) > 1e-3


def test_bfloat16_agrees_to_its_own_rounding(tmp_path):
    reference = theirs("qwen2-untied")
    reference.save_pretrained(tmp_path)
    exact = their_logits(reference)
    half = distance(their_logits(reference.to(torch.bfloat16)).float(), exact)
    ours = distance(our_logits(models.load_pretrained(tmp_path, dtype=torch.bfloat16)).float(), exact)
    assert ours < 1.5 * half
