"""Low-rank adaptation by hand (Hu et al. 2021, arXiv 2106.09685): y = W x + b + s·B(A x), A (r, in), B (out, r).

W stays frozen and keeps its name, so a model with adapters off *is* its base: the KL reference costs no second copy
(`with disabled(model)`). For an adapter that was tuned before, the reference is the tuned model, not the bare base: keep
a copy that shares W (tracelift/rl/grpo.py: Reference), or `merge_and_unload` and `attach` a fresh one. Files are in PEFT's layout,
both ways.

Rounding policy. A and B are kept in fp32 (fp64 for an fp64 base) whatever the base's dtype: bf16 cannot hold an update
of 1e-6 beside a weight of 1e-2. They are cast to the activations' dtype at use. Merging adds s·B·A to W in that wide
dtype and rounds once to W's dtype. Unmerging restores the saved bits of W; it never subtracts, since (W + Δ) − Δ ≠ W in
floating point. Hence a bf16 model differs between merged and unmerged by one rounding of each weight.

Left out on purpose: DoRA, per-layer ranks, adapted embeddings or output heads (the head goes through
kernels.linear_logprob as a bare matrix), several adapters at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.cpu_linear import linear
from models.atomic import replaced_folder
from models.config_json import CheckpointError, read_json
from models.hf_config import check_folder
from models.shards import open_safetensors, some, write_file

Model = TypeVar("Model", bound=nn.Module)

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # PEFT's two wrappers around the user's module
# PEFT settings that change the function and are not computed here; the value that switches each one off.
_REFUSED = {
    "use_dora": (False, None), "bias": ("none", None), "fan_in_fan_out": (False, None), "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None), "layers_to_transform": (None,), "exclude_modules": (None, []),
    "target_parameters": (None, []), "lora_bias": (False, None), "layer_replication": (None,),
    "trainable_token_indices": (None,), "megatron_config": (None,), "use_qalora": (False, None),
    "alora_invocation_tokens": (None,), "modules_to_tie": (None, []), "arrow_config": (None,),
}  # fmt: skip
# Of PEFT's init_lora_weights, those that leave the base as it is. The others (pissa, pissa_niter_N, olora, corda, loftq,
# lora_ga) subtract from W or round it, and PEFT does so again when it loads the adapter.
_INITS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")


@dataclass(frozen=True)
class LoRAConfig:
    """targets: last parts of Linear names, or one regular expression over whole names (as PEFT reads a string).
    also_train: names of modules trained in full and saved with the adapter (PEFT's modules_to_save): reward heads."""

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | str = PROJECTIONS
    also_train: tuple[str, ...] = ()
    rank_stabilized: bool = False  # s = α/√r instead of α/r (Kalajdzievski 2023, arXiv 2312.03732)

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ValueError(f"LoRA r={self.r} must be at least 1")
        if self.alpha <= 0:
            raise ValueError(f"LoRA alpha={self.alpha} must be positive: at 0 the adapter does nothing")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"LoRA dropout={self.dropout} must lie in [0, 1)")

    @property
    def scaling(self) -> float:
        return self.alpha / (self.r**0.5 if self.rank_stabilized else self.r)


class LoRALinear(nn.Linear):
    """A Linear that takes over the weight and bias of another (shared, frozen) and adds s·B(A x)."""

    def __init__(self, base: nn.Linear, config: LoRAConfig, generator: torch.Generator) -> None:
        with torch.device("meta"):  # no second weight is ever allocated
            super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.weight, self.bias = base.weight, base.bias
        wide = torch.promote_types(base.weight.dtype, torch.float32)
        bound = base.in_features**-0.5
        a = torch.empty(config.r, base.in_features, dtype=wide).uniform_(-bound, bound, generator=generator)
        self.lora_a = nn.Parameter(a.to(base.weight.device))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, config.r, dtype=wide))
        self.config, self.scaling, self.dropout = config, config.scaling, config.dropout
        self.enabled = True
        self.unmerged: Tensor | None = None  # the base weight, while `weight` holds the merged one

    def forward(self, input: Tensor) -> Tensor:  # (..., in) -> (..., out)
        out = linear(input, self.weight, self.bias)
        if not self.enabled or self.unmerged is not None:
            return out
        low = linear(F.dropout(input, self.dropout, self.training), self.lora_a.to(input.dtype))
        return out + linear(low, self.lora_b.to(input.dtype)) * self.scaling

    @torch.no_grad()
    def merged_weight(self) -> Tensor:  # -> (out, in), in the base's dtype
        if self.unmerged is not None:
            return self.weight.detach()
        delta = self.scaling * (self.lora_b @ self.lora_a)
        return (self.weight.to(delta.dtype) + delta).to(self.weight.dtype)


def adapted(model: nn.Module) -> list[tuple[str, LoRALinear]]:
    """The adapted layers of a model, by name; empty for a model without LoRA."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, LoRALinear)]


def config_of(model: nn.Module) -> LoRAConfig | None:
    """What the model's adapters were attached with; None without adapters."""
    return next((layer.config for _, layer in adapted(model)), None)


def find_targets(model: nn.Module, targets: tuple[str, ...] | str) -> list[tuple[str, nn.Linear]]:
    """The layers that `attach` adapts, by name. Raises ValueError where a target names nothing, or what is no such layer."""
    found = [(name, m) for name, m in model.named_modules() if _is_target(name, targets)]
    for target in [targets] if isinstance(targets, str) else targets:
        if not any(_is_target(name, target if isinstance(targets, str) else (target,)) for name, _ in found):
            raise ValueError(f"LoRA target {target!r} names no module; Linear layers: {', '.join(_linears(model))}")
    bases: list[tuple[str, nn.Linear]] = []
    for name, module in found:
        if not isinstance(module, nn.Linear) or name == "lm_head":
            kind = type(module).__name__
            raise ValueError(f"LoRA target {name!r} ({kind}) cannot be adapted: only Linears within the blocks can")
        bases.append((name, module))
    return bases


def attach(model: Model, config: LoRAConfig, seed: int = 0) -> Model:
    """Put adapters on every target Linear, in place, and freeze all else but `also_train`. B = 0: no change at first.

    Raises ValueError as `_plan` does, and the model is as it was.
    """
    bases, full = _plan(model, config)
    gen = torch.Generator().manual_seed(seed)
    layers = [(name, LoRALinear(module, config, gen).train(module.training)) for name, module in bases]
    model.requires_grad_(False)
    for name, layer in layers:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
    for p in full.values():
        p.requires_grad_(True)
    return model


def _plan(model: nn.Module, config: LoRAConfig) -> tuple[list[tuple[str, nn.Linear]], dict[str, nn.Parameter]]:
    """The layers to adapt and the parameters to train in full, by name. Changes nothing.

    Raises ValueError where a name fits nothing or a module that is no Linear, the model is adapted already, or a head is
    tied to an embedding that is to be trained: PEFT trains a copy, and the head stays.
    """
    if adapted(model):
        raise ValueError("the model already carries LoRA adapters; merge_and_unload it first")
    bases, full = find_targets(model, config.targets), {}
    for name in config.also_train:
        chosen = {n: p for n, p in model.named_parameters() if _under(n, name)}
        if not chosen:
            raise ValueError(f"LoRA also_train {name!r} names no parameters")
        full |= chosen
    if getattr(model, "lm_head", model) is None and any(n.endswith("embed_tokens.weight") for n in full):
        raise ValueError(
            "LoRA also_train (PEFT's modules_to_save) names embed_tokens, which is the output head too (tie_word_embeddings):"
            " PEFT would train the embedding alone. Untie the head in the base, or leave embed_tokens out"
        )
    return bases, full


@contextmanager
def disabled(model: Model) -> Iterator[Model]:
    """Inside, the model computes its base: the KL reference. Modules under `also_train` are not undone."""
    layers = [m for _, m in adapted(model)]
    if any(m.unmerged is not None for m in layers):
        raise RuntimeError("adapters are merged into the weights; leave merged() before switching them off")
    before = [m.enabled for m in layers]
    try:
        for m in layers:
            m.enabled = False
        yield model
    finally:
        for m, enabled in zip(layers, before, strict=True):
            m.enabled = enabled


@contextmanager
@torch.no_grad()
def merged(model: Model, backup_device: str | torch.device | None = None) -> Iterator[Model]:
    """Inside, each weight is W + s·B·A in place, so that sampling pays nothing for LoRA; after, W's bits are back.

    The original weights of the adapted layers wait on `backup_device` (default: where they are; "cpu" spares the
    accelerator). For inference only: the adapters get no gradient inside. A model without adapters passes unchanged.
    """
    layers = [m for _, m in adapted(model)]
    if any(m.unmerged is not None or not m.enabled for m in layers):
        raise RuntimeError("merged() needs adapters that are on and not already merged")
    try:
        for m in layers:
            weight = m.merged_weight()
            m.unmerged = m.weight.detach().to(backup_device or m.weight.device, copy=True)
            m.weight.data.copy_(weight)
        yield model
    finally:
        for m in layers:
            if m.unmerged is not None:
                m.weight.data.copy_(m.unmerged)
                m.unmerged = None


@torch.no_grad()
def merge_and_unload(model: Model) -> Model:
    """Make the adapters permanent, in place: plain Linears again, every parameter trainable."""
    for name, layer in adapted(model):
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight, plain.bias = nn.Parameter(layer.merged_weight()), layer.bias
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, plain.train(layer.training))
    return model.requires_grad_(True)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter of all that takes gradients: A, B and `also_train` once LoRA is attached."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save_adapter(model: nn.Module, path: str | PathLike[str], base_model: str = "") -> None:
    """Write adapter_config.json and adapter_model.safetensors as PEFT does. Raises ValueError without adapters."""
    config = config_of(model)
    if config is None:
        raise ValueError("the model carries no LoRA adapters to save; models.save_pretrained writes whole models")
    tensors = {_PREFIX + _to_peft(name): p for name, p in model.named_parameters() if _saved(name, config)}
    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    raw = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if hasattr(model, "logits") else None,
        "base_model_name_or_path": base_model,
        "r": config.r,
        "lora_alpha": int(config.alpha) if float(config.alpha).is_integer() else config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": targets,
        "modules_to_save": list(config.also_train) or None,
        "use_rslora": config.rank_stabilized,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    with replaced_folder(path, lambda name: name in (CONFIG, WEIGHTS)) as aside:
        write_file(aside / WEIGHTS, tensors)
        (aside / CONFIG).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")


def load_adapter(model: Model, path: str | PathLike[str]) -> Model:
    """Attach the adapter of a PEFT folder. Raises FileNotFoundError, or CheckpointError naming file and key; the model is
    as it was then."""
    folder = check_folder(path)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: missing; a LoRA folder holds {CONFIG} and {WEIGHTS}")
    config = read_adapter_config(folder)
    file = folder / WEIGHTS
    with open_safetensors(file) as f:
        stored = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  safe_open is no mapping
    if not any(config.r in tensor.shape for tensor in stored.values()):  # before matrices of that rank are made
        raise CheckpointError(f'{folder / CONFIG}: "r" is {config.r}, which is in the shape of no tensor of {file}')
    try:
        bases, full = _plan(model, config)
    except (ValueError, TypeError, re.error) as e:  # re.error: of "target_modules" as a regular expression
        raise CheckpointError(f"{folder / CONFIG}: {e}") from None
    shapes = {name: list(p.shape) for name, p in full.items()}
    for name, base in bases:
        shapes |= {f"{name}.lora_a": [config.r, base.in_features], f"{name}.lora_b": [base.out_features, config.r]}
    wanted = {_PREFIX + _to_peft(name): shape for name, shape in shapes.items()}
    for what, names in (("missing", wanted.keys() - stored.keys()), ("unexpected", stored.keys() - wanted.keys())):
        if names:
            raise CheckpointError(f"{file}: {what} tensors for these targets: {some(names)}")
    for name, shape in wanted.items():
        if list(stored[name].shape) != shape:
            raise CheckpointError(f"{file}: {name!r} has shape {list(stored[name].shape)}, expected {shape}")
    attach(model, config)  # nothing can be wrong any more
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in shapes:
                p.copy_(stored[_PREFIX + _to_peft(name)])
    return model


def read_adapter_config(path: str | PathLike[str]) -> LoRAConfig:
    """The settings in a PEFT folder's adapter_config.json. Raises FileNotFoundError or CheckpointError."""
    file = check_folder(path) / CONFIG
    return _parse_config(read_json(file), file)


def _parse_config(raw: dict[str, Any], where: Path) -> LoRAConfig:
    if raw.get("peft_type") != "LORA":
        raise CheckpointError(f'{where}: "peft_type" is {raw.get("peft_type")!r}; only LORA is supported')
    for key, off in _REFUSED.items():
        if key in raw and raw[key] not in off:
            raise CheckpointError(f'{where}: "{key}": {json.dumps(raw[key])} is not supported')
    init = raw.get("init_lora_weights")
    if init not in _INITS:
        raise CheckpointError(
            f'{where}: "init_lora_weights": {json.dumps(init)} is not supported: it changes the base when it is made. Save it '
            "as plain LoRA (PEFT: save_pretrained with path_initial_model_for_weight_conversion), or merge it into the base"
        )
    targets = raw.get("target_modules")
    if not targets:
        raise CheckpointError(f'{where}: "target_modules" is missing or empty')
    try:
        return LoRAConfig(
            r=int(raw["r"]),
            alpha=float(raw["lora_alpha"]),
            dropout=raw.get("lora_dropout", 0.0),
            targets=targets if isinstance(targets, str) else tuple(targets),
            also_train=tuple(raw.get("modules_to_save") or ()),
            rank_stabilized=bool(raw.get("use_rslora")),
        )
    except KeyError as e:
        raise CheckpointError(f"{where}: key {e} is missing") from None
    except (TypeError, ValueError, OverflowError) as e:
        raise CheckpointError(f"{where}: {e}") from None


def _is_target(name: str, targets: tuple[str, ...] | str) -> bool:
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == t or name.endswith("." + t) for t in targets)


def _linears(model: nn.Module) -> list[str]:
    return sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)})


def _under(parameter: str, module: str) -> bool:
    """PEFT's rule for modules_to_save: the name of some enclosing module ends in it ("norm": input_layernorm too)."""
    parts = parameter.split(".")
    return any(".".join(parts[:i]).endswith(module) for i in range(1, len(parts)))


def _saved(name: str, config: LoRAConfig) -> bool:
    return name.endswith((".lora_a", ".lora_b")) or any(_under(name, m) for m in config.also_train)


def _to_peft(name: str) -> str:
    return name.replace(".lora_a", ".lora_A.weight").replace(".lora_b", ".lora_B.weight")
