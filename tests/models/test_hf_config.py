"""config.json: both forms read alike, every unsupported setting refused by key, nothing lost on the way back."""

import json

import pytest
import torch

from models.config import ModelConfig, RopeScaling
from models.hf_config import CheckpointError, parse_config, read_config, to_hf_config

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "hidden_act": "silu", "rope_scaling": None,
}  # fmt: skip
LLAMA3_ROPE = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def family(model_type: str, **changes) -> dict:
    name = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[model_type]
    return {**LLAMA, "model_type": model_type, "architectures": [name + "ForCausalLM"], **changes}


def test_older_and_newer_forms_agree():
    newer = {k: v for k, v in LLAMA.items() if k not in ("rope_theta", "rope_scaling", "torch_dtype")}
    newer |= {"dtype": "bfloat16", "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}
    assert parse_config(LLAMA) == parse_config(newer)
    assert parse_config(LLAMA).rope_theta == 500000.0 and parse_config(LLAMA).head_dim == 128
    scaled = RopeScaling(8.0, 1.0, 4.0, 8192)
    for kind in ("rope_type", "type"):
        assert parse_config({**LLAMA, "rope_scaling": {kind: "llama3", **LLAMA3_ROPE}}).rope_scaling == scaled
    both = {**LLAMA3_ROPE, "rope_type": "llama3", "rope_theta": 500000.0}
    assert parse_config({**newer, "rope_parameters": both}) == parse_config(
        {**LLAMA, "rope_scaling": {"rope_type": "llama3", **LLAMA3_ROPE}}
    )


def test_theta_inside_the_rope_parameters_wins():
    raw = {**LLAMA, "rope_scaling": None, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}
    assert parse_config(raw).rope_theta == 7.0
    del raw["rope_theta"], raw["rope_parameters"]
    assert parse_config(raw).rope_theta == 10_000.0


def test_biases_and_norms_follow_the_family():
    flags = dict(attention_bias=True, mlp_bias=True)
    got = {f: parse_config(family(f, sliding_window=None, **flags)) for f in ("llama", "mistral", "qwen2", "qwen3")}
    assert {f: (c.qkv_bias, c.o_bias, c.mlp_bias, c.qk_norm) for f, c in got.items()} == {
        "llama": (True, True, True, False),
        "mistral": (False, False, False, False),
        "qwen2": (True, False, False, False),
        "qwen3": (True, True, False, True),
    }
    assert got["qwen3"].head_dim == 128 and parse_config({**LLAMA, "head_dim": 64}).head_dim == 64


@pytest.mark.parametrize(
    "raw, key",
    [
        ({**LLAMA, "model_type": "gemma2"}, "model_type"),
        (family("llama", architectures=["LlamaForSequenceClassification"]), "architectures"),
        (family("qwen2", architectures=["Qwen2Model"]), "architectures"),
        (family("llama", hidden_act="gelu"), "hidden_act"),
        (family("llama", quantization_config={"bits": 4}), "quantization_config"),
        (family("llama", rope_scaling={"rope_type": "yarn", "factor": 4.0}), "rope_scaling"),
        (family("llama", rope_scaling={"type": "linear", "factor": 4.0}), "rope_scaling"),
        (family("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4}), "rope_parameters"),
        (family("llama", rope_parameters={"full_attention": {"rope_type": "default"}}), "rope_parameters"),
        (family("llama", rope_scaling={"rope_type": "llama3", "factor": 8.0}), "low_freq_factor"),
        (family("llama", partial_rotary_factor=0.5), "partial_rotary_factor"),
        (family("mistral", sliding_window=1024), "sliding_window"),
        (family("mistral", max_position_embeddings=32768), "sliding_window"),  # absent means 4096 in transformers
        (family("qwen2", use_sliding_window=True, sliding_window=128, max_window_layers=3), "sliding_window"),
        (family("qwen3", layer_types=["full_attention", "sliding_attention"]), "layer_types"),
        (family("llama", layer_types=["chunked_attention"]), "layer_types"),
        (family("llama", vocab_size=None), "vocab_size"),
        (family("llama", hidden_size="4096"), "hidden_size"),
        (family("llama", num_hidden_layers=0), "num_hidden_layers"),
        (family("llama", rms_norm_eps=-1), "rms_norm_eps"),
        (family("llama", tie_word_embeddings="yes"), "tie_word_embeddings"),
        (family("llama", num_attention_heads=7), "num_attention_heads"),
        (family("llama", num_key_value_heads=5), "num_kv_heads"),
    ],
)
def test_refusals_name_file_and_key(raw, key):
    with pytest.raises(CheckpointError) as e:
        parse_config(raw, "some/config.json")
    assert "some/config.json" in str(e.value) and key in str(e.value)


@pytest.mark.parametrize(
    "raw",
    [
        family("mistral", sliding_window=None, max_position_embeddings=32768),
        family("mistral", sliding_window=4096),  # as wide as the context: it never bites
        family("qwen2", use_sliding_window=False, sliding_window=128),
        family("qwen2", use_sliding_window=True, sliding_window=128, max_window_layers=32),
        family("qwen3", layer_types=["full_attention"] * 32, sliding_window=None, use_sliding_window=False),
    ],
)
def test_idle_sliding_windows_are_accepted(raw):
    parse_config(raw)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("scaling", [None, RopeScaling(32.0, 1.0, 4.0, 8192)])
@pytest.mark.parametrize("tied", [True, False])
def test_writing_and_reading_give_the_same_config(name, scaling, tied):
    config = ModelConfig(
        97,
        24,
        40,
        3,
        4,
        2,
        10,
        77,
        norm_eps=1e-4,
        rope_theta=3e4,
        rope_scaling=scaling,
        tied_head=tied,
        qkv_bias=name == "qwen2",
        qk_norm=name == "qwen3",
        family=name,
    )
    raw = json.loads(json.dumps(to_hf_config(config, torch.bfloat16)))
    assert parse_config(raw) == config and raw["torch_dtype"] == "bfloat16"


def test_a_config_its_family_cannot_express_is_not_written():
    with pytest.raises(ValueError, match="mistral"):
        to_hf_config(ModelConfig(97, 24, 40, 3, 4, 2, 10, 77, qkv_bias=True, family="mistral"), torch.float32)
    with pytest.raises(ValueError, match="gpt"):
        to_hf_config(ModelConfig(97, 24, 40, 3, 4, 2, 10, 77, family="gpt"), torch.float32)


def test_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_config(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="config.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama",\n oops}')
    with pytest.raises(CheckpointError, match=r"config\.json.*line 2"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="object"):
        read_config(tmp_path)
    with pytest.raises(NotADirectoryError):
        read_config(tmp_path / "config.json")
