"""Hugging Face's config.json ↔ `ModelConfig`, for Llama, Mistral, Qwen2 and Qwen3.

Reads the older form (`rope_theta`, `rope_scaling`, `torch_dtype`) and the one transformers 5 writes (`rope_parameters`,
`dtype`); writes the older, which every version of transformers, vLLM and llama.cpp still reads. A key left out takes
the default that transformers gives it, family by family. A setting that would change the numbers and that
`models/transformer.py` does not compute is refused by file and key: another architecture or activation, a sliding
window that can bite, a rope type other than default and llama3, partial rotary embeddings, quantised weights.

Left out on purpose: everything that does not alter a forward pass (dropout rates, initializer_range, use_cache, ...).
Token ids stand in the same file but belong to `models/tokenizer.py`.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from models.config import ModelConfig, RopeScaling

# What transformers assumes for a key that config.json omits; None means "derive it".
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": None, "head_dim": None, "max_position_embeddings": 2048},
    "mistral": {"num_key_value_heads": 8, "head_dim": None, "max_position_embeddings": 131_072, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "head_dim": None, "max_position_embeddings": 32_768, "sliding_window": 4096},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32_768, "sliding_window": 4096},
}
# The largest values read: beyond them a config.json is a mistake, and building what it describes takes minutes or overflows.
_MOST = {
    "size": 2**24, "num_hidden_layers": 2**10, "num_attention_heads": 2**14, "num_key_value_heads": 2**14, "head_dim": 2**14,
    "max_position_embeddings": 2**31, "original_max_position_embeddings": 2**31, "max_window_layers": 2**31,
}  # fmt: skip
DEPTH = 100  # of nesting, in any JSON file of a model
_CLASS_PREFIX = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
REWARD_ARCHITECTURE_SUFFIX = "ForReasonRewardModel"


class CheckpointError(ValueError):
    """A checkpoint on disk that cannot be read faithfully; the message names file, key and remedy."""


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file. Raises FileNotFoundError, or CheckpointError naming line and column."""
    return parse_object(path.read_bytes(), str(path))


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """One JSON object, nested no deeper than DEPTH. Raises CheckpointError naming `where`, line and column."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as e:
        raise CheckpointError(f"{where}: not valid JSON at line {e.lineno}, column {e.colno}: {e.msg}") from None
    except UnicodeDecodeError as e:
        raise CheckpointError(f"{where}: not UTF-8 text at byte {e.start}; is this the right file?") from None
    except (ValueError, RecursionError) as e:  # a number of thousands of digits, or thousands of brackets
        raise CheckpointError(f"{where}: not valid JSON: {e}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected a JSON object, found {type(value).__name__}")
    level: list[Any] = [value]
    for _ in range(DEPTH):
        inner = (x for outer in level for x in (outer.values() if isinstance(outer, dict) else outer))
        level = [x for x in inner if isinstance(x, (dict, list))]
    if level:
        raise CheckpointError(f"{where}: nested more than {DEPTH} deep; is this the right file?")
    return value


def check_folder(folder: str | PathLike[str]) -> Path:
    """The folder as a Path, or FileNotFoundError / NotADirectoryError in words a user can act on."""
    path = Path(folder)
    if not path.exists():
        aside = path.with_name(f".{path.name}.old")
        hint = f"; a save was cut short, the folder before it is {aside}" if aside.exists() else ""
        raise FileNotFoundError(f"{path}: no such folder{hint or ' (models are local folders; nothing is downloaded)'}")
    if not path.is_dir():
        raise NotADirectoryError(f"{path}: is a file; pass the folder that holds config.json and the safetensors files")
    return path


def read_config(folder: str | PathLike[str]) -> tuple[ModelConfig, dict[str, Any]]:
    """A folder's config.json → (architecture, the raw JSON object). Raises as the module docstring says."""
    path = check_folder(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; a Hugging Face model folder needs config.json")
    raw = read_json(path)
    try:
        return parse_config(raw, str(path)), raw
    except (TypeError, AttributeError, ArithmeticError) as e:  # a list where a number is expected, and the like
        raise CheckpointError(f"{path}: a value is of another kind than its key: {e}") from None


def holds_reward_model(raw: dict[str, Any]) -> bool:
    """Whether a config.json's object is a Reason Reward Model's."""
    return any(str(name).endswith(REWARD_ARCHITECTURE_SUFFIX) for name in raw.get("architectures") or [])


def architecture_name(family: str, suffix: str = "ForCausalLM") -> str:
    """The class name transformers gives a model of this family, as config.json's "architectures" spells it."""
    return _CLASS_PREFIX[family] + suffix


class _Reader:
    """Typed look-ups in one config.json, so that every complaint names the file and the key."""

    def __init__(self, raw: dict[str, Any], where: str) -> None:
        self.raw, self.where = raw, where

    def refuse(self, key: str, why: str) -> CheckpointError:
        return CheckpointError(f'{self.where}: "{key}": {json.dumps(self.raw.get(key))[:200]} is not supported: {why}')

    def number(self, key: str, default: float | None, integer: bool = True, raw: dict[str, Any] | None = None) -> Any:
        raw = self.raw if raw is None else raw
        value = raw.get(key)
        if value is None:
            if default is None:
                raise CheckpointError(f'{self.where}: key "{key}" is missing')
            return default
        kind = int if integer else (int, float)
        most = _MOST.get(key, _MOST["size"]) if integer else 1e30
        if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value <= most:
            wanted = "a positive integer" if integer else "a positive number"
            wanted += f" of at most {most:,}" if isinstance(value, kind) and value > most else ""
            raise CheckpointError(f'{self.where}: "{key}" must be {wanted}, found {json.dumps(value)[:60]}')
        return int(value) if integer else float(value)

    def flag(self, key: str) -> bool:
        value = self.raw.get(key)
        if value not in (None, True, False):
            raise CheckpointError(f'{self.where}: "{key}" must be true or false, found {json.dumps(value)}')
        return bool(value)


def parse_config(raw: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """config.json's object → ModelConfig. `where` is how errors name the file. Raises CheckpointError."""
    r = _Reader(raw, where)
    family = raw.get("model_type")
    if family not in _DEFAULTS:
        raise r.refuse("model_type", f"this reads {', '.join(_DEFAULTS)}")
    _check_architecture(r, family)
    for key in ("quantization_config", "compression_config"):
        if raw.get(key) is not None:
            raise r.refuse(key, "weights must be plain float32, bfloat16 or float16; dequantise the checkpoint first")
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        raise r.refuse("hidden_act", "the MLP is SwiGLU (silu)")
    heads, hidden = r.number("num_attention_heads", None), r.number("hidden_size", None)
    default = _DEFAULTS[family]
    if raw.get("head_dim", default["head_dim"]) is None and hidden % heads:
        raise CheckpointError(
            f'{where}: "hidden_size" {hidden} is no multiple of "num_attention_heads" {heads}, '
            'and there is no "head_dim"'
        )
    layers = r.number("num_hidden_layers", None)
    positions = r.number("max_position_embeddings", default["max_position_embeddings"])
    _check_attention_is_full(r, family, layers, positions)
    theta, scaling = _rope(r, positions)
    attention_bias = family in ("llama", "qwen3") and r.flag("attention_bias")
    try:
        return ModelConfig(
            vocab_size=r.number("vocab_size", None),
            hidden_size=hidden,
            intermediate_size=r.number("intermediate_size", None),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=r.number("num_key_value_heads", default["num_key_value_heads"] or heads),
            head_dim=r.number("head_dim", default["head_dim"] or hidden // heads),
            max_positions=positions,
            norm_eps=r.number("rms_norm_eps", 1e-6, integer=False),
            rope_theta=theta,
            rope_scaling=scaling,
            tied_head=r.flag("tie_word_embeddings"),
            qkv_bias=attention_bias or family == "qwen2",
            o_bias=attention_bias,
            mlp_bias=family == "llama" and r.flag("mlp_bias"),
            qk_norm=family == "qwen3",
            family=family,
        )
    except CheckpointError:
        raise
    except ValueError as e:  # the shape checks of ModelConfig itself
        raise CheckpointError(f"{where}: {e}") from None


def _check_architecture(r: _Reader, family: str) -> None:
    """A classifier or a bare encoder has the same model_type but other heads: its name gives it away."""
    known = {architecture_name(family, suffix) for suffix in ("ForCausalLM", REWARD_ARCHITECTURE_SUFFIX)}
    names = r.raw.get("architectures") or []
    if not isinstance(names, list) or any(name not in known for name in names):
        raise r.refuse("architectures", f"expected {' or '.join(sorted(known))} for model_type {family}")


def _check_attention_is_full(r: _Reader, family: str, layers: int, positions: int) -> None:
    """Refuse a sliding window, unless it is off or so wide that no position within the context can leave it."""
    types = r.raw.get("layer_types")
    if types is not None and (not isinstance(types, list) or set(types) - {"full_attention", "sliding_attention"}):
        raise r.refuse("layer_types", "only full_attention is computed")
    default = _DEFAULTS[family].get("sliding_window")
    window = r.raw.get("sliding_window", default)
    if family in ("qwen2", "qwen3"):
        if not r.flag("use_sliding_window"):
            window = None
        elif types is None and r.number("max_window_layers", 28) >= layers:
            window = None  # the window begins above the last layer
        elif types is not None and "sliding_attention" not in types:
            window = None
    elif family == "llama" and "sliding_attention" not in (types or []):
        window = None
    if window is not None and window < positions:
        how = "absent, which means 4096 here" if "sliding_window" not in r.raw else json.dumps(window)
        raise CheckpointError(
            f'{r.where}: "sliding_window" ({how}) is in use and below "max_position_embeddings" ({positions}); sliding '
            "attention is not supported. If you never exceed the window, lower max_position_embeddings to it"
        )
    if types is not None and window is None and "sliding_attention" in types:
        raise r.refuse("layer_types", "a layer asks for sliding_attention; only full_attention is computed")


def _rope(r: _Reader, positions: int) -> tuple[float, RopeScaling | None]:
    """(θ, scaling) from `rope_scaling` + `rope_theta`, or from `rope_parameters`, which holds both."""
    key = "rope_scaling" if r.raw.get("rope_scaling") else "rope_parameters"
    rope = r.raw.get(key) or {}
    if not isinstance(rope, dict) or any(isinstance(v, dict) for v in rope.values()):
        raise r.refuse(key, "one set of rotary parameters for all layers is expected")
    theta = r.number("rope_theta", r.number("rope_theta", 10_000.0, integer=False), integer=False, raw=rope)
    partial = rope.get("partial_rotary_factor", r.raw.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise CheckpointError(f'{r.where}: "partial_rotary_factor": {partial} is not supported (only 1 is)')
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise r.refuse(key, f'rope type "{kind}"; only "default" and "llama3" are computed')
    original = r.number("original_max_position_embeddings", positions, raw=rope)
    if r.raw.get("original_max_position_embeddings") is not None:  # transformers lets the outer key win
        original = r.number("original_max_position_embeddings", None)
    names = ("factor", "low_freq_factor", "high_freq_factor")
    factors = (r.number(name, None, integer=False, raw=rope) for name in names)
    return theta, RopeScaling(*factors, original_max_positions=original)


def to_hf_config(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """ModelConfig → the object of a config.json that transformers loads to the same function.

    Raises ValueError where the family has no key for a setting (a bias that Mistral's class does not know, say).
    """
    family = config.family
    if family not in _DEFAULTS:
        raise ValueError(f"ModelConfig.family={family!r} cannot be written; known: {', '.join(_DEFAULTS)}")
    raw: dict[str, Any] = {
        "architectures": [architecture_name(family)],
        "model_type": family,
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
        "rope_scaling": None,
        "tie_word_embeddings": config.tied_head,
        "hidden_act": "silu",
        "torch_dtype": str(dtype).removeprefix("torch."),
        # Explicit nulls: transformers would fill in Llama's own ids. A tokenizer, when given, overwrites them.
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if config.rope_scaling is not None:
        s = config.rope_scaling
        raw["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": s.factor,
            "low_freq_factor": s.low_freq_factor,
            "high_freq_factor": s.high_freq_factor,
            "original_max_position_embeddings": s.original_max_positions,
        }
    if family in ("llama", "qwen3"):
        raw["attention_bias"] = config.o_bias
    if family == "llama":
        raw["mlp_bias"] = config.mlp_bias
    if family == "mistral":
        raw["sliding_window"] = None
    if family in ("qwen2", "qwen3"):
        raw["use_sliding_window"] = False
    if parse_config(raw, f"ModelConfig(family={family!r})") != config:
        raise ValueError(f"no {family} config.json can express {config}: its biases or q/k norms are not that family's")
    return raw
