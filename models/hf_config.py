"""Hugging Face's config.json ↔ `ModelConfig`, for the families in FAMILIES.

Reads the older form (`rope_theta`, `rope_scaling`, `torch_dtype`) and the one transformers 5 writes (`rope_parameters`,
`dtype`); writes the older, which every version of transformers, vLLM and llama.cpp still reads. A key left out takes
the default that transformers gives it, family by family. A setting that would change the numbers and that
`models/transformer.py` does not compute is refused by file and key: another architecture or activation, a sliding
window that can bite, a rope type other than default, linear, llama3 and yarn, partial rotary embeddings, quantised
weights. docs/models.md lists what is read and refused, and how a family is added.

Left out on purpose: everything that does not alter a forward pass (dropout rates, initializer_range, use_cache, ...).
Token ids stand in the same file but belong to `models/text/tokenizer.py`.
"""

from __future__ import annotations

import json
import re
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from models.config import FAMILIES, LinearScaling, ModelConfig, RopeScaling, YarnScaling, yarn_attention_factor
from models.config_json import CheckpointError, Reader, read_json

REWARD_ARCHITECTURE_SUFFIX = "ForReasonRewardModel"
_MULTIPLIERS = ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")


def check_folder(folder: str | PathLike[str]) -> Path:
    """The folder as a Path, or FileNotFoundError / NotADirectoryError in words a user can act on."""
    path = Path(folder)
    if not path.exists():
        aside = path.with_name(f".{path.name}.old")
        hint = "(models are local folders; nothing is downloaded)"
        if aside.exists():
            hint = f"(a save was cut short, the folder before it is {aside})"
        elif re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(folder)):
            hint = f"(nothing is downloaded; if it is a name on the Hub: hf download {folder} --local-dir FOLDER)"
        raise FileNotFoundError(f"{path}: no such folder {hint}")
    if not path.is_dir():
        advice = "pass the folder that holds config.json and the safetensors files"
        if path.suffix == ".gguf":
            advice = f"convert it: python -m models.convert_gguf {path} FOLDER"
        elif path.suffix == ".safetensors":
            advice = f"pass its folder, {path.parent}"
        raise NotADirectoryError(f"{path}: is a file; {advice}")
    return path


def read_config(folder: str | PathLike[str]) -> tuple[ModelConfig, dict[str, Any]]:
    """A folder's config.json → (architecture, the raw JSON object). Raises as the module docstring says."""
    path = check_folder(folder) / "config.json"
    if not path.is_file():
        what = other_contents(path.parent) or "a Hugging Face model folder needs config.json"
        raise FileNotFoundError(f"{path}: missing; {what}")
    raw = read_json(path)
    if "model_type" not in raw and (what := other_contents(path.parent)):
        raise CheckpointError(f"{path}: is no model's config.json; {what}")
    try:
        return parse_config(raw, str(path)), raw
    except (TypeError, AttributeError, ArithmeticError) as e:  # a list where a number is expected, and the like
        raise CheckpointError(f"{path}: a value is of another kind than its key: {e}") from None


def other_contents(folder: Path) -> str | None:
    """What a folder is that is not a model's, and what to pass instead."""
    if (folder / "adapter_config.json").is_file():
        return f"{folder} holds a LoRA adapter: pass the model it was trained on, and this folder as its adapter"
    if (folder / "final" / "config.json").is_file():
        return f"{folder} is the folder of a run, its model is {folder / 'final'}"
    if (folder / "params.json").is_file():
        return "params.json is of the maker's own layout: pass the model's version for Hugging Face transformers"
    if files := sorted(folder.glob("*.gguf")):
        return f"convert the GGUF file: python -m models.convert_gguf {files[0]} FOLDER"
    return None


def holds_reward_model(raw: dict[str, Any]) -> bool:
    """Whether a config.json's object is a Reason Reward Model's."""
    return any(str(name).endswith(REWARD_ARCHITECTURE_SUFFIX) for name in raw.get("architectures") or [])


def architecture_name(family: str, suffix: str = "ForCausalLM") -> str:
    """The class name transformers gives a model of this family, as config.json's "architectures" spells it."""
    return FAMILIES[family].prefix + suffix


def parse_config(raw: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """config.json's object → ModelConfig. `where` is how errors name the file. Raises CheckpointError."""
    r = Reader(raw, where)
    name = raw.get("model_type")
    if name not in FAMILIES:
        raise r.refuse("model_type", f"this reads {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    _check_architecture(r, name)
    for key in ("quantization_config", "compression_config"):
        if raw.get(key) is not None:
            raise r.refuse(key, "weights must be plain float32, bfloat16 or float16; dequantise the checkpoint first")
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        raise r.refuse("hidden_act", "the MLP is SwiGLU (silu)")
    heads, hidden = r.number("num_attention_heads", None), r.number("hidden_size", None)
    if raw.get("head_dim", family.head_dim) is None and hidden % heads:
        raise CheckpointError(
            f'{where}: "hidden_size" {hidden} is no multiple of "num_attention_heads" {heads}, '
            'and there is no "head_dim"'
        )
    head_dim = r.number("head_dim", family.head_dim or hidden // heads)
    layers = r.number("num_hidden_layers", None)
    positions = r.number("max_position_embeddings", family.max_positions)
    _check_attention_is_full(r, name, layers, positions)
    theta, scaling = _rope(r, name, positions)
    bias = {key: r.flag(key, key in family.biased) for key in family.biases}
    multipliers: dict[str, Any] = {}
    if name == "granite":
        multipliers = {key: r.number(key, 1.0, integer=False) for key in _MULTIPLIERS}
        if multipliers["attention_multiplier"] == head_dim**-0.5:
            multipliers["attention_multiplier"] = None
    # Left out, it is the family's own number; null is as many as query heads.
    kv_heads = heads if "num_key_value_heads" in raw else family.kv_heads or heads
    try:
        return ModelConfig(
            vocab_size=r.number("vocab_size", None),
            hidden_size=hidden,
            intermediate_size=r.number("intermediate_size", None),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=r.number("num_key_value_heads", kv_heads),
            head_dim=head_dim,
            max_positions=positions,
            norm_eps=r.number("rms_norm_eps", family.eps, integer=False),
            rope_theta=theta,
            rope_scaling=scaling,
            tied_head=r.flag("tie_word_embeddings", family.tied),
            qkv_bias=bias.get("attention_bias", name == "qwen2"),
            o_bias=bias.get("attention_out_bias", bias.get("attention_bias", False)),
            mlp_bias=bias.get("mlp_bias", False),
            qk_norm=name in ("qwen3", "olmo2"),
            qk_norm_whole=name == "olmo2",
            post_norm=name == "olmo2",
            rope_free_layers=_rope_free_layers(r, layers) if name == "smollm3" else (),
            family=family.written_as or name,
            **multipliers,
        )
    except CheckpointError:
        raise
    except ValueError as e:  # ModelConfig's own checks
        raise CheckpointError(f"{where}: {e}") from None


def _check_architecture(r: Reader, family: str) -> None:
    """A classifier or a bare encoder has the same model_type but other heads: its name gives it away."""
    known = {architecture_name(family, suffix) for suffix in ("ForCausalLM", REWARD_ARCHITECTURE_SUFFIX)}
    names = r.raw.get("architectures") or []
    if not isinstance(names, list) or any(name not in known for name in names):
        raise r.refuse("architectures", f"expected {' or '.join(sorted(known))} for model_type {family}")


def _check_attention_is_full(r: Reader, family: str, layers: int, positions: int) -> None:
    """Refuse a sliding window, unless it is off or so wide that no position within the context can leave it."""
    types = r.raw.get("layer_types")
    if types is not None and (not isinstance(types, list) or set(types) - {"full_attention", "sliding_attention"}):
        raise r.refuse("layer_types", "only full_attention is computed")
    window = r.raw.get("sliding_window", FAMILIES[family].window)
    if FAMILIES[family].window_switch:
        nowhere = types is not None and "sliding_attention" not in types
        if types is None and family != "smollm3":
            nowhere = r.number("max_window_layers", 28, least=0) >= layers  # it begins above the last layer
        if nowhere or not r.flag("use_sliding_window"):
            window = None
    elif family not in ("mistral", "phi3") and "sliding_attention" not in (types or []):
        window = None
    if window is not None and window < positions:
        how = "absent, which means 4096 here" if "sliding_window" not in r.raw else json.dumps(window)
        raise CheckpointError(
            f'{r.where}: "sliding_window" ({how}) is in use and below "max_position_embeddings" ({positions}); sliding '
            "attention is not supported. If you never exceed the window, lower max_position_embeddings to it"
        )
    if types is not None and window is None and "sliding_attention" in types:
        raise r.refuse("layer_types", "a layer asks for sliding_attention; only full_attention is computed")


def _rope_free_layers(r: Reader, layers: int) -> tuple[int, ...]:
    """SmolLM3's `no_rope_layers`, a list whose 0 means no rope; without it, every `no_rope_layer_interval`-th layer."""
    flags = r.raw.get("no_rope_layers")
    if flags is None:
        every = r.number("no_rope_layer_interval", 4)
        return tuple(range(every - 1, layers, every))
    if not isinstance(flags, list) or len(flags) < layers or any(f not in (0, 1) for f in flags):
        raise r.refuse("no_rope_layers", f"a 0 or 1 for each of the {layers} layers is expected")
    return tuple(i for i in range(layers) if not flags[i])


def _rope(r: Reader, family: str, positions: int) -> tuple[float, RopeScaling | YarnScaling | LinearScaling | None]:
    """(θ, scaling) from `rope_scaling` + `rope_theta`, or from `rope_parameters`, which holds both."""
    key = "rope_scaling" if r.raw.get("rope_scaling") else "rope_parameters"
    rope = r.raw.get(key) or {}
    if not isinstance(rope, dict) or any(isinstance(v, dict) for v in rope.values()):
        raise r.refuse(key, "one set of rotary parameters for all layers is expected")

    def real(name: str, default: float | None) -> Any:
        return r.number(name, default, integer=False, raw=rope)

    theta = real("rope_theta", r.number("rope_theta", FAMILIES[family].theta, integer=False))
    partial = rope.get("partial_rotary_factor", r.raw.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise CheckpointError(f'{r.where}: "partial_rotary_factor": {partial} is not supported (only 1 is)')
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind not in ("linear", "llama3", "yarn") or family == "phi3":  # transformers reads Phi-3's "yarn" as longrope
        raise r.refuse(
            key, f'rope type "{kind}" of {family}; default, linear, llama3 and yarn (not of phi3) are computed'
        )
    if kind == "linear":
        return theta, LinearScaling(real("factor", None))
    original = r.number("original_max_position_embeddings", positions, raw=rope)
    if r.raw.get("original_max_position_embeddings") is not None:  # transformers lets the outer key win
        original = r.number("original_max_position_embeddings", None)
    if kind == "llama3":
        names = ("factor", "low_freq_factor", "high_freq_factor")
        return theta, RopeScaling(*(real(name, None) for name in names), original_max_positions=original)
    factor = real("factor", positions / original)
    length = yarn_attention_factor(factor)
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        over, under = (yarn_attention_factor(factor, real(name, None)) for name in ("mscale", "mscale_all_dim"))
        length = over / under
    return theta, YarnScaling(
        factor,
        original,
        attention_factor=real("attention_factor", length),
        beta_fast=real("beta_fast", 32.0),
        beta_slow=real("beta_slow", 1.0),
        truncate=r.flag("truncate", True, raw=rope),
    )


def _rope_to_hf(scaling: RopeScaling | YarnScaling | LinearScaling | None) -> dict[str, Any] | None:
    """The other way: the object under `rope_scaling`."""
    if scaling is None:
        return None
    if isinstance(scaling, LinearScaling):
        return {"rope_type": "linear", "factor": scaling.factor}
    raw = {"factor": scaling.factor, "original_max_position_embeddings": scaling.original_max_positions}
    if isinstance(scaling, RopeScaling):
        factors = {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
        return {"rope_type": "llama3", **raw, **factors}
    raw = {"rope_type": "yarn", **raw, "beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
    if scaling.attention_factor != yarn_attention_factor(scaling.factor):  # others compute the usual one themselves
        raw["attention_factor"] = scaling.attention_factor
    return raw if scaling.truncate else {**raw, "truncate": False}


def to_hf_config(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """ModelConfig → the object of a config.json that transformers loads to the same function.

    Raises ValueError where the family has no key for a setting (a bias that Mistral's class does not know, say).
    """
    name = config.family
    family = FAMILIES.get(name)
    if family is None or family.written_as:
        known = ", ".join(n for n, f in FAMILIES.items() if not f.written_as)
        raise ValueError(f"ModelConfig.family={name!r} cannot be written; known: {known}")
    raw: dict[str, Any] = {
        "architectures": [architecture_name(name)],
        "model_type": name,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_to_hf(config.rope_scaling),
        "tie_word_embeddings": config.tied_head,
        "hidden_act": "silu",
        "torch_dtype": str(dtype).removeprefix("torch."),
        # Explicit nulls: transformers would fill in the class's own ids. A tokenizer, when given, overwrites them.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    biases = {"attention_bias": config.qkv_bias, "attention_out_bias": config.o_bias, "mlp_bias": config.mlp_bias}
    raw |= {key: biases[key] for key in family.biases}
    if name == "mistral":
        raw["sliding_window"] = None
    if family.window_switch:
        raw["use_sliding_window"] = False
    if name == "smollm3":
        raw["no_rope_layers"] = [int(i not in config.rope_free_layers) for i in range(config.num_layers)]
    if name == "granite":
        raw |= {key: getattr(config, key) for key in _MULTIPLIERS}
        raw["attention_multiplier"] = raw["attention_multiplier"] or config.head_dim**-0.5
    if parse_config(raw, f"ModelConfig(family={name!r})") != config:
        raise ValueError(f"no {name} config.json can express {config}: one of its settings is not that family's")
    return raw
