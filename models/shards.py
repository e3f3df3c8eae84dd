"""The safetensors files of one folder: which there are, what each holds, how to read and write them.

A folder holds `model.safetensors`, or several shards and `model.safetensors.index.json` that says which tensor lies
where. Headers are checked against the index before any weight is read, so a truncated or foreign shard is named.

Left out on purpose: pickle files (`pytorch_model.bin` is refused with advice), and any idea of what the tensors mean.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.config_json import CheckpointError, read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_SHOWN = 5  # names quoted in an error before "and N more"


def open_safetensors(file: Path) -> safe_open:
    """Open one file. Raises CheckpointError where it is truncated or something else."""
    try:
        return safe_open(file, framework="pt", device="cpu")
    except SafetensorError as e:
        size = file.stat().st_size
        raise CheckpointError(f"{file}: truncated or not a safetensors file ({size} bytes): {e}") from None


def tensor_files(folder: Path) -> dict[Path, list[str]]:
    """Safetensors file → the tensor names to read from it. Raises as `load_pretrained`."""
    if (folder / WEIGHTS).is_file():
        with open_safetensors(folder / WEIGHTS) as f:
            return {folder / WEIGHTS: list(f.keys())}
    index = folder / INDEX
    if not index.is_file():
        bins = sorted(p.name for p in folder.glob("*.bin"))
        hint = f" ({bins[0]} is a pickle and never loaded: convert it to safetensors)" if bins else ""
        raise FileNotFoundError(f"{folder}: neither {WEIGHTS} nor {INDEX} is there{hint}")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f'{index}: "weight_map" must map tensor names to files')
    by_file: dict[Path, list[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f'{index}: "weight_map"."{name}" must be a file name in this folder, found {file!r}')
        by_file.setdefault(folder / file, []).append(name)
    for file, names in by_file.items():
        if not file.is_file():
            raise FileNotFoundError(f"{file}: missing; {INDEX} lists {len(names)} tensors in it")
        with open_safetensors(file) as f:
            stored = set(f.keys())
        if stored != set(names):
            lost, extra = sorted(set(names) - stored), sorted(stored - set(names))
            what = f"lacks {some(lost)}" if lost else f"holds {some(extra)} besides"
            raise CheckpointError(f"{file}: {what}, against the list in {INDEX}; are the shards of one save?")
    return by_file


def read_tensor(file: Path, name: str) -> Tensor:
    """One tensor, memory-mapped. The file is opened anew each time: the map goes, and with it the pages it pinned."""
    with open_safetensors(file) as f:
        return f.get_tensor(name)


def headers(file: Path, names: list[str]) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """(name, shape, dtype as safetensors spells it) of each tensor, without reading any."""
    with open_safetensors(file) as f:
        for name in names:
            view = f.get_slice(name)
            yield name, tuple(view.get_shape()), view.get_dtype()


def plan_shards(state: Mapping[str, Tensor], max_shard_bytes: int) -> dict[str, list[str]]:
    """File name → tensor names, filled in order; a tensor larger than a shard gets one of its own."""
    groups: list[list[str]] = [[]]
    room = max_shard_bytes
    for name, tensor in state.items():
        size = tensor.numel() * tensor.element_size()
        if size > room and groups[-1]:
            groups.append([])
            room = max_shard_bytes
        groups[-1].append(name)
        room -= size
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": names for i, names in enumerate(groups, 1)}


def write_shards(folder: Path, state: Mapping[str, Tensor], max_shard_bytes: int) -> None:
    """State → files in `folder`, with an index where there are several. Raises OSError."""
    shards = plan_shards(state, max_shard_bytes)
    for file, names in shards.items():
        write_file(folder / file, {name: state[name] for name in names})
    if len(shards) > 1:
        total = sum(t.numel() * t.element_size() for t in state.values())
        where = {name: file for file, names in shards.items() for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_file(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file, from tensors on any device. Raises OSError (the library has an error type of its own)."""
    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    try:
        save_file(ready, file, metadata={"format": "pt"})
    except SafetensorError as e:
        raise OSError(f"could not write {file}: {e}") from None


def some(names: Collection[str]) -> str:
    """The first few names, sorted, and how many more there are."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + rest
