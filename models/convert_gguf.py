"""GGUF → Hugging Face folder: `python -m models.convert_gguf FILE.gguf OUTDIR`.

Weights are dequantised by the `gguf` package and written as safetensors; what was lost in quantisation stays lost.
llama.cpp stores the query and key projections of some architectures (`_INTERLEAVED`) with each head's rows interleaved
for its own rotary layout (row 2i and 2i+1 turn together); Hugging Face pairs row i with i + E/2, so the rows are put back:

    HF[h, s, i] = GGUF[h, i, s]      h head, s ∈ {0, 1} half, i < E/2 pair

Llama 3's rotary rescaling is stored as its finished factors (`rope_freqs.weight`); they are matched against the
published settings. Byte-level BPE tokenizers are rebuilt from vocabulary, merges and the named pre-tokenizer. What a
key means where it is absent is what llama.cpp's loader takes it for (its src/llama-model.cpp, src/llama-vocab.cpp).

Left out on purpose: mixtures of experts, other architectures, SentencePiece vocabularies (give the original model's
tokenizer with --tokenizer), the pre-tokenizer "default" (the name of not knowing which), and the way back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Regex, decoders, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE
from torch import Tensor

from models.checkpoint import parts_of, stacked, write_folder
from models.config import FAMILIES, LinearScaling, ModelConfig, RopeScaling, YarnScaling, yarn_attention_factor
from models.config_json import CheckpointError
from models.hf_config import to_hf_config
from models.text.tokenizer import Tokenizer, load_tokenizer
from models.transformer import Transformer, rope_frequencies

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_qkv": "self_attn.qkv_proj", "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
_INTERLEAVED = ("llama", "granite", "smollm3")  # Mistral's files call themselves llama
_ARCHITECTURES = (*_INTERLEAVED, "qwen2", "qwen3", "olmo2", "phi3", "seed_oss")
# Keys of rotary scaling that are read, and those that must have the value that does nothing.
_ROPE_READ = ("freq_base", "dimension_count", "scale_linear", "scaling.type", "scaling.factor", "scaling.finetuned",
              "scaling.original_context_length", "scaling.yarn_beta_fast", "scaling.yarn_beta_slow")  # fmt: skip
_ROPE_NEUTRAL = {"scaling.attn_factor": 1, "scaling.yarn_attn_factor": 1, "scaling.yarn_ext_factor": 1}
# (factor, original context) of Llama 3.1 and of Llama 3.2; low and high frequency factors are 1 and 4 in both.
_LLAMA3_ROPE = tuple(RopeScaling(factor, 1.0, 4.0, 8192) for factor in (8.0, 32.0))
# Contractions; words; runs of digits, whose length is the only difference between Qwen and Llama 3; the rest; space.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Pre-tokenizer → how it splits; llama.cpp has one rule for each of these groups.
_DIGITS, _GPT2, _QWEN, _LLAMA3 = "digits, then gpt2", "gpt2", _SPLIT % "", _SPLIT % "{1,3}"
_PRE = {"smollm": _DIGITS, "refact": _DIGITS, "gpt-2": _GPT2, "gpt2": _GPT2, "qwen2": _QWEN, "deepseek-r1-qwen": _QWEN,
        "llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3, "smaug-bpe": _LLAMA3, "dbrx": _LLAMA3}  # fmt: skip
_LLAMA3_OWN = ("llama-bpe", "llama3", "llama-v3")  # whole words before merges, and a first token unless told otherwise
_CONTROL, _USER_DEFINED = 3, 4  # llama.cpp's token types


def read_gguf(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A file → (metadata key → value, tensor name → gguf's lazy tensor).

    Raises ImportError without the gguf package, FileNotFoundError, CheckpointError for a broken file.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ImportError("reading GGUF files needs the gguf package: pip install gguf") from None
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")

    class Strict(GGUFReader):
        """numpy gives what is there of a part beyond the file's end, and the reader goes on, for 2**40 elements if need be."""

        def _get(self, offset: Any, dtype: Any, count: Any = 1, *rest: Any, **named: Any) -> Any:
            if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError("it ends within its header or a tensor")
            return super()._get(offset, dtype, count, *rest, **named)

    try:
        reader = Strict(path)
        return {k: f.contents() for k, f in reader.fields.items()}, {t.name: t for t in reader.tensors}
    except Exception as e:  # the package's own checks are of every kind
        raise CheckpointError(f"{path}: truncated or not a GGUF file: {type(e).__name__}: {e}") from None


def parse_metadata(meta: dict[str, Any], tensors: dict[str, Any], where: str) -> ModelConfig:
    """GGUF metadata → ModelConfig. Raises CheckpointError naming the key that is missing or unsupported."""
    arch = meta.get("general.architecture")
    if arch not in _ARCHITECTURES:
        raise CheckpointError(f"{where}: general.architecture is {arch!r}; this reads {', '.join(_ARCHITECTURES)}")
    if (parts := int(meta.get("split.count") or 1)) > 1:
        part = int(meta.get("split.no") or 0) + 1
        raise CheckpointError(
            f"{where}: is part {part} of {parts}; join them first: llama-gguf-split --merge FIRST-PART OUT.gguf"
        )

    def get(key: str, default: Any = None) -> Any:
        value = meta.get(f"{arch}.{key}", default)
        if value is None:
            raise CheckpointError(f"{where}: metadata key {arch}.{key} is missing")
        return value

    def real(key: str, default: float | None = None) -> float:  # the decimal that was meant, not its float32 image
        return float(str(np.float32(get(key, default))))

    def count(key: str) -> int:
        value = get(key)
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{where}: {arch}.{key} must be a positive integer, found {value!r:.60}")
        return value

    heads, hidden, context = count("attention.head_count"), count("embedding_length"), count("context_length")
    layers, head_dim = count("block_count"), get("attention.key_length", hidden // heads)
    for key, fine in (
        ("expert_count", 0),
        ("rope.dimension_count", head_dim),
        ("attention.value_length", head_dim),
        *((f"rope.{key}", value) for key, value in _ROPE_NEUTRAL.items()),
    ):
        if get(key, fine) != fine:
            raise CheckpointError(f"{where}: {arch}.{key} = {get(key)} is not supported (only {fine})")
    known = {f"{arch}.rope.{key}" for key in (*_ROPE_READ, *_ROPE_NEUTRAL)}
    if unread := sorted(key for key in meta if key.startswith(f"{arch}.rope.") and key not in known):
        raise CheckpointError(f"{where}: {unread[0]} = {meta[unread[0]]} is not supported")
    if 0 < get("attention.sliding_window", 0) < context:  # 0: none
        raise CheckpointError(f"{where}: {arch}.attention.sliding_window is not supported")
    granite: dict[str, Any] = {}
    if arch == "granite":
        if not get("rope.scaling.finetuned", True):
            raise CheckpointError(f"{where}: granite.rope.scaling.finetuned = False (no rope) is not supported")
        granite = {  # 0 or absent: none, as in llama.cpp
            "embedding_multiplier": real("embedding_scale", 0) or 1.0,
            "residual_multiplier": real("residual_scale", 0) or 1.0,
            "attention_multiplier": real("attention.scale", 0) or None,
            "logits_scaling": real("logit_scale"),
        }
        if granite["attention_multiplier"] == head_dim**-0.5:
            granite["attention_multiplier"] = None
    config = ModelConfig(
        vocab_size=tensors["token_embd.weight"].data.shape[0] if "token_embd.weight" in tensors else get("vocab_size"),
        hidden_size=hidden,
        intermediate_size=get("feed_forward_length"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=get("attention.head_count_kv", heads),
        head_dim=head_dim,
        max_positions=context,
        norm_eps=real("attention.layer_norm_rms_epsilon"),
        rope_theta=real("rope.freq_base", 10_000.0),
        tied_head="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        o_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        qk_norm_whole=arch == "olmo2",
        post_norm=arch == "olmo2",
        rope_free_layers=tuple(range(3, layers, 4)) if arch == "smollm3" else (),  # llama.cpp's constant; no key
        family=FAMILIES[arch].written_as or arch,
        **granite,
    )
    scaling = _stated_rope_scaling(get, real, context, f"{where}: {arch}")
    if "rope_freqs.weight" in tensors:
        if scaling is not None:
            raise CheckpointError(f"{where}: {arch}.rope.scaling and rope_freqs.weight exclude each other")
        scaling = _find_rope_scaling(config, tensors["rope_freqs.weight"], where)
    return replace(config, rope_scaling=scaling)


def _stated_rope_scaling(
    get: Callable[..., Any], real: Callable[..., float], context: int, where: str
) -> LinearScaling | YarnScaling | None:
    """What the metadata says. A factor without a type means linear, and so does the key of 2023."""
    kind, factor = get("rope.scaling.type", "linear"), real("rope.scaling.factor", real("rope.scale_linear", 1.0))
    if kind not in ("none", "linear", "yarn"):
        raise CheckpointError(f"{where}.rope.scaling.type = {kind} is not supported (only none, linear and yarn)")
    if kind == "none" or factor in (0, 1):
        return None
    if kind == "linear":
        return LinearScaling(factor)
    return YarnScaling(
        factor,
        get("rope.scaling.original_context_length", context),
        yarn_attention_factor(factor),
        beta_fast=real("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=real("rope.scaling.yarn_beta_slow", 1.0),
    )


def _find_rope_scaling(config: ModelConfig, factors: Any, where: str) -> RopeScaling:
    stored = rope_frequencies(config) / torch.from_numpy(np.array(factors.data, dtype=np.float32))
    for scaling in _LLAMA3_ROPE:
        if torch.allclose(rope_frequencies(replace(config, rope_scaling=scaling)), stored, rtol=1e-5, atol=0):
            return scaling
    raise CheckpointError(f"{where}: rope_freqs.weight is not the rescaling of Llama 3.1 or 3.2; not supported")


def convert_weights(
    config: ModelConfig, arch: str, tensors: dict[str, Any], dtype: torch.dtype, where: str
) -> dict[str, Tensor]:
    """GGUF tensors → parameter name → tensor in `dtype`. Raises CheckpointError for any that does not fit."""
    from gguf.quants import dequantize

    with torch.device("meta"):
        wanted = {name: p.shape for name, p in Transformer(config).named_parameters()}
    state: dict[str, Tensor] = {}
    turning = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
    for name, tensor in tensors.items():
        if name == "rope_freqs.weight":
            continue
        parts = parts_of(_rename(name, arch) or "", wanted)
        if not parts:
            raise CheckpointError(f"{where}: tensor {name} has no place in a {arch} transformer")
        value = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        if list(value.shape) != (expected := stacked([wanted[part] for part in parts])):
            raise CheckpointError(f"{where}: tensor {name} has shape {list(value.shape)}, expected {expected}")
        for part, rows in zip(parts, value.split([wanted[part][0] for part in parts]), strict=True):
            if arch in _INTERLEAVED and (heads := turning.get(part.split(".")[-2])):
                rows = deinterleave(rows, heads)
            state[part] = rows.to(dtype).contiguous()
    if missing := sorted(wanted.keys() - state.keys()):
        raise CheckpointError(f"{where}: {len(missing)} tensors missing, first {missing[0]}")
    return {name: state[name] for name in wanted}


def deinterleave(rows: Tensor, heads: int) -> Tensor:
    """llama.cpp's row order (pair, half) → Hugging Face's (half, pair), head by head.  # (H·E, ...) -> (H·E, ...)"""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def _rename(name: str, arch: str) -> str | None:
    stem, _, kind = name.rpartition(".")
    parts = stem.split(".")
    if arch == "phi3" and parts[-1] == "ffn_up":
        return f"model.layers.{parts[1]}.mlp.gate_up_proj.{kind}"
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in _BLOCK:
        return f"model.layers.{parts[1]}.{_BLOCK[parts[2]]}.{kind}"
    return f"{_TOP[stem]}.{kind}" if stem in _TOP else None


def convert_tokenizer(meta: dict[str, Any], where: str) -> Tokenizer:
    """The byte-level BPE tokenizer of a GGUF file. Raises CheckpointError for any other kind."""
    kind, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        raise CheckpointError(
            f"{where}: tokenizer.ggml.model is {kind!r}, only gpt2 (byte-level BPE) can be rebuilt; "
            "pass the folder of the original model's tokenizer with --tokenizer"
        )
    if pre not in _PRE:
        raise CheckpointError(f"{where}: tokenizer.ggml.pre {pre!r} is unknown here; use --tokenizer FOLDER")
    for key in ("add_eos_token", "add_space_prefix"):
        if meta.get(f"tokenizer.ggml.{key}"):
            raise CheckpointError(f"{where}: tokenizer.ggml.{key} = True is not supported; use --tokenizer FOLDER")
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    types = meta.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    merges = [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    fast = FastTokenizer(BPE(vocabulary, merges, ignore_merges=pre in _LLAMA3_OWN))
    fast.pre_tokenizer, fast.decoder = _splitter(_PRE[pre]), decoders.ByteLevel()
    fast.add_special_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(tokens, types, strict=False) if k == _CONTROL]
    )
    fast.add_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(tokens, types, strict=False) if k == _USER_DEFINED]
    )
    ids = {name: meta.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot", "padding")}
    if ids["eos"] is None:
        raise CheckpointError(f"{where}: tokenizer.ggml.eos_token_id is missing")
    named = {name: None if index is None else tokens[index] for name, index in ids.items()}
    return Tokenizer.from_backend(
        fast,
        eos_token=tokens[ids["eos"]],
        pad_token=named["padding"],
        bos_token=named["bos"],
        chat_template=meta.get("tokenizer.chat_template"),
        add_bos=bool(meta.get("tokenizer.ggml.add_bos_token", pre in _LLAMA3_OWN)),
        eos_ids=[index for name in ("eos", "eot") if (index := ids[name]) is not None],
    )


def _splitter(rule: str) -> pre_tokenizers.PreTokenizer:
    if rule in (_GPT2, _DIGITS):
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        digits = pre_tokenizers.Digits(individual_digits=True)
        return byte_level if rule == _GPT2 else pre_tokenizers.Sequence([digits, byte_level])
    split = pre_tokenizers.Split(Regex(rule), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    dtype: torch.dtype = torch.float32,
    tokenizer: str | PathLike[str] | None = None,
) -> ModelConfig:
    """Convert one file into the folder `target`. Raises as the functions above, and OSError while writing."""
    meta, tensors = read_gguf(source)
    try:
        config = parse_metadata(meta, tensors, str(source))
        written = to_hf_config(config, dtype)  # refuses sizes that no model has, before one is built
        tok = convert_tokenizer(meta, str(source)) if tokenizer is None else load_tokenizer(tokenizer)
        state = convert_weights(config, meta["general.architecture"], tensors, dtype, str(source))
    except (OSError, ValueError, ImportError):
        raise
    except Exception as e:  # a text where a number is expected, a merge of unknown tokens, and the like
        said = " ".join(str(e).split())[:300]
        raise CheckpointError(f"{source}: its metadata is not a model's: {type(e).__name__}: {said}") from None
    write_folder(target, state, written, tok, max_shard_bytes=5_000_000_000)
    return config


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m models.convert_gguf",
        description=f"Turn a GGUF file (mistral, {', '.join(_ARCHITECTURES)}) into a Hugging Face folder of plain safetensors.",
    )
    parser.add_argument("file", metavar="FILE.gguf")
    parser.add_argument("outdir", metavar="OUTDIR", help="replaced only when the new folder is complete")
    dtypes = ("float32", "bfloat16", "float16")
    parser.add_argument("--dtype", choices=dtypes, default="float32", help="written weights (default: %(default)s)")
    parser.add_argument("--tokenizer", metavar="FOLDER", help="take the tokenizer from here instead of the GGUF file")
    args = parser.parse_args(argv)
    try:
        config = convert(args.file, args.outdir, getattr(torch, args.dtype), args.tokenizer)
    except (ImportError, OSError, ValueError) as e:
        print(f"convert_gguf: {e}", file=sys.stderr)
        return 1
    print(f"{args.outdir}: {config.family}, {config.num_layers} layers, width {config.hidden_size}, {args.dtype}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
