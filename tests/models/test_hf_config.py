"""config.json: both forms read alike, every unsupported setting refused by key, nothing lost on the way back."""

import json

import pytest
import torch

from models.config import FAMILIES, LinearScaling, ModelConfig, RopeScaling, YarnScaling
from models.config_json import CheckpointError
from models.hf_config import parse_config, read_config, to_hf_config
from support.random_models import FIELDS, tiny_config

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "hidden_act": "silu", "rope_scaling": None,
}  # fmt: skip
LLAMA3_ROPE = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def family(model_type: str, **changes) -> dict:
    architectures = [FAMILIES[model_type].prefix + "ForCausalLM"]
    return {**LLAMA, "model_type": model_type, "architectures": architectures, **changes}


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
    got = {f: parse_config(family(f, sliding_window=None, **flags)) for f in FAMILIES}
    assert {f: (c.qkv_bias, c.o_bias, c.mlp_bias, c.qk_norm) for f, c in got.items()} == {
        "llama": (True, True, True, False),
        "mistral": (False, False, False, False),
        "qwen2": (True, False, False, False),
        "qwen3": (True, True, False, True),
        "smollm3": (True, True, True, False),
        "olmo2": (True, True, False, True),
        "granite": (True, True, True, False),
        "phi3": (False, False, False, False),
        "seed_oss": (True, False, True, False),
    }
    assert parse_config(family("seed_oss")).qkv_bias  # its class has them unless told otherwise
    assert parse_config(family("seed_oss", attention_out_bias=True, attention_bias=False)).o_bias
    assert got["qwen3"].head_dim == 128 and parse_config({**LLAMA, "head_dim": 64}).head_dim == 64


@pytest.mark.parametrize(
    "raw, key",
    [
        ({**LLAMA, "model_type": "gemma2"}, "model_type"),
        (family("llama", architectures=["LlamaForSequenceClassification"]), "architectures"),
        (family("qwen2", architectures=["Qwen2Model"]), "architectures"),
        (family("llama", hidden_act="gelu"), "hidden_act"),
        (family("llama", quantization_config={"bits": 4}), "quantization_config"),
        (family("llama", rope_scaling={"rope_type": "longrope", "factor": 4.0}), "rope_scaling"),
        (family("phi3", rope_scaling={"type": "su", "short_factor": [1.0], "long_factor": [1.0]}), "rope_scaling"),
        (family("phi3", rope_scaling={"type": "yarn", "factor": 4.0}), "rope_scaling"),  # longrope in transformers
        (family("phi3", partial_rotary_factor=0.75), "partial_rotary_factor"),  # Phi-4-mini
        (family("phi3", sliding_window=2047), "sliding_window"),  # Phi-3-mini
        (family("llama", rope_scaling={"type": "linear"}), "factor"),
        (family("llama", rope_scaling={"type": "yarn", "factor": 4.0, "truncate": "no"}), "truncate"),
        (family("smollm3", no_rope_layers=[1] * 31), "no_rope_layers"),
        (family("smollm3", no_rope_layers=[2] * 32), "no_rope_layers"),
        (family("smollm3", no_rope_layer_interval=0), "no_rope_layer_interval"),
        (family("smollm3", use_sliding_window=True, sliding_window=128), "sliding_window"),
        (family("granite", residual_multiplier="0.22"), "residual_multiplier"),
        ({**LLAMA, "model_type": "olmo3"}, "model_type"),
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
        family("qwen2", use_sliding_window=True, sliding_window=4096, max_window_layers=0),
        family("smollm3", use_sliding_window=False, sliding_window=128, max_window_layers=0),
        family("phi3", sliding_window=4096),
        family("qwen3", layer_types=["full_attention"] * 32, sliding_window=None, use_sliding_window=False),
    ],
)
def test_idle_sliding_windows_are_accepted(raw):
    parse_config(raw)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_number_of_key_heads_that_is_null_is_that_of_the_query_heads(name):
    assert parse_config(family(name, num_key_value_heads=None, sliding_window=None)).num_kv_heads == 32
    raw = family(name, sliding_window=None)
    del raw["num_key_value_heads"]
    assert parse_config(raw).num_kv_heads == (FAMILIES[name].kv_heads or 32)


def test_what_a_family_assumes_for_keys_left_out():
    """Against transformers' own classes, key by key."""
    transformers = pytest.importorskip("transformers")
    for name, f in FAMILIES.items():
        theirs = getattr(transformers, f.prefix + "Config")()
        raw = family(name, sliding_window=None)
        for key in ("max_position_embeddings", "rms_norm_eps", "rope_theta", "tie_word_embeddings", "head_dim"):
            raw.pop(key, None)
        for key in f.biases:
            assert getattr(theirs, key) == (key in f.biased), (name, key)
        ours = parse_config(raw)
        assert ours.max_positions == theirs.max_position_embeddings and ours.norm_eps == theirs.rms_norm_eps, name
        assert ours.rope_theta == theirs.rope_parameters["rope_theta"], name
        assert ours.tied_head == theirs.tie_word_embeddings, name
        own = getattr(transformers, f.prefix + "Config")(hidden_size=4096, num_attention_heads=64)
        assert f.head_dim == (own.head_dim if getattr(own, "head_dim", 64) != 64 else None), name


def test_layers_without_rope():
    def free(**changes):
        return parse_config(family("smollm3", **changes)).rope_free_layers

    assert free() == (3, 7, 11, 15, 19, 23, 27, 31) == free(no_rope_layers=None)
    assert free(no_rope_layers=[0, 1] * 16, no_rope_layer_interval=4) == tuple(range(0, 32, 2))
    assert free(no_rope_layers=[True] * 40) == ()


def test_yarn_as_files_spell_it():
    def scaling(outer=None, **rope):
        return parse_config({**LLAMA, **(outer or {}), "rope_scaling": {"rope_type": "yarn", **rope}}).rope_scaling

    plain = scaling(factor=4.0, original_max_position_embeddings=1024)
    assert isinstance(plain, YarnScaling) and plain.original_max_positions == 1024 and plain.truncate
    assert plain.attention_factor == pytest.approx(1.1386294361119891)  # 0.1 ln 4 + 1
    assert (plain.beta_fast, plain.beta_slow) == (32.0, 1.0)
    assert scaling(original_max_position_embeddings=1024) == plain  # the context over the original one
    assert scaling(outer={"original_max_position_embeddings": 1024}, factor=4.0) == plain
    assert scaling(factor=4.0).original_max_positions == 4096
    deepseek = scaling(factor=40.0, mscale=1.0, mscale_all_dim=1.0, original_max_position_embeddings=1024)
    assert deepseek.attention_factor == 1.0
    assert scaling(factor=40.0, mscale=0.7, mscale_all_dim=1.0).attention_factor == pytest.approx(1.2582215 / 1.3688879)
    assert scaling(factor=40.0, mscale=0.7).attention_factor == pytest.approx(1.3688879)  # one alone says nothing
    assert scaling(factor=0.5).attention_factor == 1.0
    assert scaling(factor=4.0, attention_factor=2.0, mscale=1.0, mscale_all_dim=2.0).attention_factor == 2.0


SCALINGS = [
    None,
    RopeScaling(32.0, 1.0, 4.0, 8192),
    LinearScaling(3.0),
    YarnScaling(4.0, 32, 1.1386294361119891),
    YarnScaling(4.0, 32, 1.5, beta_fast=8.0, beta_slow=2.0, truncate=False),
]


@pytest.mark.parametrize("name", [name for name, f in FAMILIES.items() if not f.written_as])
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("tied", [True, False])
def test_writing_and_reading_give_the_same_config(name, scaling, tied):
    config = tiny_config(
        **{**FIELDS[name], "tied_head": tied}, norm_eps=1e-4, rope_theta=3e4, rope_scaling=scaling, num_layers=3
    )

    raw = json.loads(json.dumps(to_hf_config(config, torch.bfloat16)))
    assert parse_config(raw) == config and raw["torch_dtype"] == "bfloat16"


def test_a_granite_of_the_usual_attention_is_written_with_its_number():
    config = tiny_config(**{**FIELDS["granite"], "attention_multiplier": None})
    assert to_hf_config(config, torch.float32)["attention_multiplier"] == 6**-0.5


def test_a_config_its_family_cannot_express_is_not_written():
    with pytest.raises(ValueError, match="mistral"):
        to_hf_config(ModelConfig(97, 24, 40, 3, 4, 2, 10, 77, qkv_bias=True, family="mistral"), torch.float32)
    for name in ("gpt", "phi3"):  # a Phi-3 is written as the Llama it is here
        with pytest.raises(ValueError, match=name):
            to_hf_config(ModelConfig(97, 24, 40, 3, 4, 2, 10, 77, family=name), torch.float32)
    for change in (
        dict(post_norm=True),
        dict(qk_norm_whole=True),
        dict(rope_free_layers=(1,)),
        dict(residual_multiplier=0.5),
        dict(logits_scaling=2.0),
        dict(attention_multiplier=0.3),
        dict(embedding_multiplier=3.0),
    ):
        with pytest.raises(ValueError, match="qwen3"):
            to_hf_config(tiny_config(**FIELDS["qwen3"], **change), torch.float32)


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


def test_what_is_no_model_folder_says_what_to_pass_instead(tmp_path):
    def said(path):
        with pytest.raises((FileNotFoundError, NotADirectoryError, CheckpointError)) as e:
            read_config(path)
        return str(e.value)

    def folder(name, *files):
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text("{}")
        return tmp_path / name

    assert "hf download Qwen/Qwen2.5-7B --local-dir" in said("Qwen/Qwen2.5-7B")
    assert "hf download" not in said("/models/Qwen2.5-7B") and "nothing is downloaded" in said("/models/Qwen2.5-7B")
    files = folder("files", "tiny.gguf", "model.safetensors", "notes.txt")
    assert f"python -m models.convert_gguf {files / 'tiny.gguf'}" in said(files / "tiny.gguf")
    assert f"python -m models.convert_gguf {files / 'tiny.gguf'}" in said(files)
    assert f"pass its folder, {files}" in said(files / "model.safetensors")
    assert "holds config.json" in said(files / "notes.txt")
    assert "LoRA adapter" in said(folder("adapter", "adapter_config.json", "adapter_model.safetensors"))
    run = folder("run", "config.json", "final/config.json", "metrics.jsonl")
    assert f"its model is {run / 'final'}" in said(run)
    assert "Hugging Face transformers" in said(folder("mistral", "params.json", "consolidated.safetensors"))
    assert "model_type" in said(folder("other", "config.json"))
