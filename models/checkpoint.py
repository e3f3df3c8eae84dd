"""Hugging Face safetensors folders ↔ `Transformer`.

Reading: the model is built on the meta device, then each tensor is read, cast and put in place, one at a time, so a
7 B model takes its memory once. Nothing is guessed: a missing, surplus, misshapen or truncated tensor is an error
that names file and key. Only what `model.safetensors` or `model.safetensors.index.json` lists is read, so a
`consolidated.safetensors` beside them is ignored. Two kinds of surplus keys are known to be harmless and skipped:
`rotary_emb.inv_freq`, a buffer old checkpoints stored, and in tied models an `lm_head.weight` equal to the embedding.
What Phi-3 stores fused is split by rows; the model is a Llama then, and written as one.

Writing: the whole folder is written aside and renamed (models/atomic.py), in shards past `max_shard_bytes`.

Left out on purpose: pickle files (`pytorch_model.bin` is refused), quantised weights, parallel or partial loading.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.atomic import replaced_folder
from models.config_json import CheckpointError
from models.hf_config import check_folder, holds_reward_model, read_config, to_hf_config
from models.lora import adapted, load_adapter
from models.shards import INDEX, WEIGHTS, headers, read_tensor, some, tensor_files, write_shards
from models.text.tokenizer import TOKENIZER_FILES, Tokenizer
from models.transformer import Transformer

_FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
_OBSOLETE_KEY = re.compile(r"(^|\.)rotary_emb\.inv_freq$")
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
_SHARD_NAME = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def load_pretrained(
    path: str | PathLike[str],
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    adapter: str | PathLike[str] | None = None,
) -> Transformer:
    """A Hugging Face folder → Transformer in `dtype` on `device`, in eval mode.

    adapter: a PEFT LoRA folder to attach on top (models/lora.py), its parameters trainable, the base frozen.
    Raises FileNotFoundError for what is not there and CheckpointError for what cannot be read faithfully.
    """
    folder = check_folder(path)
    config, raw = read_config(folder)
    if holds_reward_model(raw):
        raise CheckpointError(f"{folder}: holds a Reason Reward Model; load it with models.load_reward_model")
    with torch.device("meta"):
        model = Transformer(config)
    load_weights(model, folder, dtype, device, tied_head=config.tied_head)
    if adapter is not None:
        load_adapter(model, adapter)
    return model.eval()


def save_pretrained(
    model: Transformer,
    path: str | PathLike[str],
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Transformer → a Hugging Face folder, in the model's dtype; reloads bit-equal, and transformers reads it.

    An earlier folder is replaced only when the new one is complete. Its tokenizer files stay unless `tokenizer` is
    given. LoRA adapters are saved merged: the folder computes what the model computes (`models.lora.save_adapter`
    writes them apart). Raises OSError (disk full, no permission) with the earlier folder intact.
    """
    write_folder(path, effective_state(model), to_hf_config(model.config, model.dtype), tokenizer, max_shard_bytes)


def effective_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameter name → tensor under checkpoint names, adapters merged into the weights they adapt."""
    merged = {f"{name}.weight": layer.merged_weight() for name, layer in adapted(model)}
    return {
        name: merged[name] if name in merged else tensor.detach()
        for name, tensor in model.state_dict().items()
        if not name.endswith((".lora_a", ".lora_b"))
    }


def parts_of(name: str, wanted: Container[str]) -> list[str]:
    """The parameters that a stored tensor holds, in the order of its rows: itself, or those that Phi-3 keeps fused."""
    for fused, parts in _FUSED.items():
        if f".{fused}." in name:
            return [n for part in parts if (n := name.replace(fused, part)) in wanted]
    return [name] if name in wanted else []


def stacked(shapes: Sequence[Sequence[int]]) -> list[int]:
    """The shape of tensors that lie in one, row after row."""
    return [sum(shape[0] for shape in shapes), *shapes[0][1:]]


def load_weights(
    module: nn.Module, folder: Path, dtype: torch.dtype, device: str | torch.device, tied_head: bool = False
) -> None:
    """Fill `module` (built on the meta device) from `folder`, exactly: every parameter once, and nothing left over."""
    wanted = {name: p.shape for name, p in module.named_parameters()}
    source = tensor_files(folder)
    parts: dict[str, list[str]] = {}  # of every stored tensor
    for file, names in source.items():
        for name, shape, kind in headers(file, names):
            parts[name] = parts_of(name, wanted)
            if not parts[name]:
                continue
            if kind not in _FLOAT_DTYPES:
                raise CheckpointError(f"{file}: tensor {name!r} has dtype {kind}; quantised weights are not supported")
            if list(shape) != (expected := stacked([wanted[part] for part in parts[name]])):
                raise CheckpointError(
                    f"{file}: tensor {name!r} has shape {list(shape)}, config.json asks for {expected}"
                )
    head_copy = tied_head and "lm_head.weight" in parts
    surplus = sorted(n for n in parts if not parts[n] and not _OBSOLETE_KEY.search(n))
    if head_copy:
        surplus.remove("lm_head.weight")
    found = Counter(part for held in parts.values() for part in held)
    if twice := [part for part, times in found.items() if times > 1]:
        raise CheckpointError(f"{folder}: stored alone and within a fused tensor: {some(twice)}")
    if missing := sorted(wanted.keys() - found.keys()):
        hint = " (tie_word_embeddings is not true in config.json)" if missing == ["lm_head.weight"] else ""
        raise CheckpointError(f"{folder}: tensors missing from the safetensors files: {some(missing)}{hint}")
    if surplus:
        raise CheckpointError(
            f"{folder}: tensors that config.json has no place for: {some(surplus)}; is this its own config.json?"
        )
    for file, names in source.items():
        for name in names:
            if parts[name]:
                rows = read_tensor(file, name).split([wanted[part][0] for part in parts[name]])
                for part, value in zip(parts[name], rows, strict=True):
                    _assign(module, part, value.to(device=device, dtype=dtype, copy=True))
    if head_copy:
        file = next(file for file, names in source.items() if "lm_head.weight" in names)
        head = read_tensor(file, "lm_head.weight").to(device=device, dtype=dtype)
        if not torch.equal(head, module.get_parameter("model.embed_tokens.weight")):
            raise CheckpointError(
                f'{file}: "lm_head.weight" differs from the embedding, but config.json says tie_word_embeddings: true'
            )
    for name, buffer in module.named_buffers():  # real already: rotary frequencies are computed, not stored
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner)._buffers[leaf] = buffer.to(device)


def write_folder(
    path: str | PathLike[str],
    state: Mapping[str, Tensor],
    config: dict[str, Any],
    tokenizer: Tokenizer | None,
    max_shard_bytes: int,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write weights, config.json and tokenizer files as one folder, replacing `path` only when all are on disk.

    notes: further text files that belong to these weights, by name.
    """

    def stale(name: str) -> bool:
        own = name in (WEIGHTS, INDEX, "config.json") or _SHARD_NAME.fullmatch(name) is not None
        return own or (tokenizer is not None and name in TOKENIZER_FILES)

    with replaced_folder(path, stale) as aside:
        write_shards(aside, state, max_shard_bytes)
        if tokenizer is not None:
            config = {**config, **tokenizer.config_ids()}
            tokenizer.write_files(aside)
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        for name, content in {"config.json": text, **(notes or {})}.items():
            (aside / name).write_text(content, encoding="utf-8")


def _assign(module: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module.get_submodule(owner)._parameters[leaf] = nn.Parameter(value)
