"""GGUF → Hugging Face folder: `python -m models.convert_gguf FILE.gguf OUTDIR`.

Weights are dequantised by the `gguf` package and written as safetensors; what was lost in quantisation stays lost.
llama.cpp stores the query and key projections of Llama-family models with each head's rows interleaved for its own
rotary layout (row 2i and 2i+1 turn together); Hugging Face pairs row i with i + E/2, so the rows are put back:

    HF[h, s, i] = GGUF[h, i, s]      h head, s ∈ {0, 1} half, i < E/2 pair        (Qwen files are not interleaved)

Llama 3's rotary rescaling is stored as its finished factors (`rope_freqs.weight`); they are matched against the
published settings. Byte-level BPE tokenizers are rebuilt from vocabulary, merges and the named pre-tokenizer.

Left out on purpose: mixtures of experts, other architectures, SentencePiece vocabularies (give the original model's
tokenizer with --tokenizer), and the way back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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

from models.checkpoint import write_folder
from models.config import ModelConfig, RopeScaling
from models.hf_config import CheckpointError, to_hf_config
from models.tokenizer import Tokenizer, load_tokenizer
from models.transformer import Transformer, rope_frequencies

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_FAMILIES = ("llama", "qwen2", "qwen3")  # Mistral's files call themselves llama
# (factor, original context) of Llama 3.1 and of Llama 3.2; low and high frequency factors are 1 and 4 in both.
_LLAMA3_ROPE = tuple(RopeScaling(factor, 1.0, 4.0, 8192) for factor in (8.0, 32.0))
# Contractions; words; runs of digits, whose length is the only difference between Qwen and Llama 3; the rest; space.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
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
    family = meta.get("general.architecture")
    if family not in _FAMILIES:
        raise CheckpointError(f"{where}: general.architecture is {family!r}; this reads {', '.join(_FAMILIES)}")

    def get(key: str, default: Any = None) -> Any:
        value = meta.get(f"{family}.{key}", default)
        if value is None:
            raise CheckpointError(f"{where}: metadata key {family}.{key} is missing")
        return value

    def real(key: str, default: float | None = None) -> float:  # the decimal that was meant, not its float32 image
        return float(str(np.float32(get(key, default))))

    def count(key: str) -> int:
        value = get(key)
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{where}: {family}.{key} must be a positive integer, found {value!r:.60}")
        return value

    heads, hidden, context = count("attention.head_count"), count("embedding_length"), count("context_length")
    head_dim = get("attention.key_length", hidden // heads)
    for key, fine in (
        ("expert_count", 0),
        ("rope.scaling.type", "none"),
        ("rope.dimension_count", head_dim),
        ("attention.value_length", head_dim),
    ):
        if get(key, fine) != fine:
            raise CheckpointError(f"{where}: {family}.{key} = {get(key)} is not supported (only {fine})")
    if get("attention.sliding_window", context) < context:
        raise CheckpointError(f"{where}: {family}.attention.sliding_window is not supported")
    config = ModelConfig(
        vocab_size=tensors["token_embd.weight"].data.shape[0] if "token_embd.weight" in tensors else get("vocab_size"),
        hidden_size=hidden,
        intermediate_size=get("feed_forward_length"),
        num_layers=get("block_count"),
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
        family=family,
    )
    if "rope_freqs.weight" in tensors:
        config = replace(config, rope_scaling=_find_rope_scaling(config, tensors["rope_freqs.weight"], where))
    return config


def _find_rope_scaling(config: ModelConfig, factors: Any, where: str) -> RopeScaling:
    stored = rope_frequencies(config) / torch.from_numpy(np.array(factors.data, dtype=np.float32))
    for scaling in _LLAMA3_ROPE:
        if torch.allclose(rope_frequencies(replace(config, rope_scaling=scaling)), stored, rtol=1e-5, atol=0):
            return scaling
    raise CheckpointError(f"{where}: rope_freqs.weight is not the rescaling of Llama 3.1 or 3.2; not supported")


def convert_weights(config: ModelConfig, tensors: dict[str, Any], dtype: torch.dtype, where: str) -> dict[str, Tensor]:
    """GGUF tensors → parameter name → tensor in `dtype`. Raises CheckpointError for any that does not fit."""
    from gguf.quants import dequantize

    with torch.device("meta"):
        wanted = {name: p.shape for name, p in Transformer(config).named_parameters()}
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name == "rope_freqs.weight":
            continue
        target = _rename(name)
        if target not in wanted:
            raise CheckpointError(f"{where}: tensor {name} has no place in a {config.family} transformer")
        value = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        if value.shape != wanted[target]:
            found, expected = list(value.shape), list(wanted[target])
            raise CheckpointError(f"{where}: tensor {name} has shape {found}, expected {expected}")
        if config.family == "llama" and ".attn_q." in name:
            value = deinterleave(value, config.num_heads)
        if config.family == "llama" and ".attn_k." in name:
            value = deinterleave(value, config.num_kv_heads)
        state[target] = value.to(dtype)
    if missing := sorted(wanted.keys() - state.keys()):
        raise CheckpointError(f"{where}: {len(missing)} tensors missing, first {missing[0]}")
    return {name: state[name] for name in wanted}


def deinterleave(rows: Tensor, heads: int) -> Tensor:
    """llama.cpp's row order (pair, half) → Hugging Face's (half, pair), head by head.  # (H·E, ...) -> (H·E, ...)"""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def _rename(name: str) -> str | None:
    stem, _, kind = name.rpartition(".")
    parts = stem.split(".")
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
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pre == "smollm":
        splitter = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    elif pre in ("gpt-2", "gpt2"):
        splitter = byte_level
    elif pre in ("qwen2", "llama-bpe", "llama3"):
        words = Regex(_SPLIT % ("" if pre == "qwen2" else "{1,3}"))
        splitter = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(words, behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        raise CheckpointError(f"{where}: tokenizer.ggml.pre {pre!r} is unknown here; use --tokenizer FOLDER")
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    types = meta.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    merges = [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    fast = FastTokenizer(BPE(vocabulary, merges, ignore_merges=pre in ("llama-bpe", "llama3")))
    fast.pre_tokenizer, fast.decoder = splitter, decoders.ByteLevel()
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
        add_bos=bool(meta.get("tokenizer.ggml.add_bos_token", False)),
        eos_ids=[index for name in ("eos", "eot") if (index := ids[name]) is not None],
    )


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
        state = convert_weights(config, tensors, dtype, str(source))
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
        description="Turn a GGUF file (Llama, Mistral, Qwen2, Qwen3) into a Hugging Face folder of plain safetensors.",
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
