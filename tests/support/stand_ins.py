"""Small stand-ins for what a config names and the repository lacks: model folders without weights, data, groups.

A model is a config.json of a real shape's kind and a demo's tokenizer. Nothing here can be trained: it is for what is
looked at before the first weight is read (tracelift/dry_run/).
"""

import dataclasses
import json
from pathlib import Path

import torch

import models
from models import ModelConfig
from models.hf_config import REWARD_ARCHITECTURE_SUFFIX, architecture_name, to_hf_config
from support.tiny_job import group_rows, write_jsonl
from tracelift.config import load_config
from tracelift.rubrics import CODE_DIMENSIONS, MATH_DIMENSIONS

ROOT = Path(__file__).parents[2]
SHAPE = ModelConfig(
    vocab_size=2048, hidden_size=64, intermediate_size=128, num_layers=30, num_heads=4, num_kv_heads=2, head_dim=16,
    max_positions=8192, qkv_bias=True, family="qwen2",
)  # fmt: skip


def model_folder(folder: Path, shape: ModelConfig = SHAPE, dimensions: tuple[str, ...] = ()) -> Path:
    """config.json and tokenizer files; with `dimensions` those of a Reason RM."""
    folder.mkdir(parents=True)
    models.load_tokenizer(ROOT / "assets" / "code" / "planner").write_files(folder)
    raw = to_hf_config(shape, torch.bfloat16)
    if dimensions:
        raw |= {
            "architectures": [architecture_name(shape.family, REWARD_ARCHITECTURE_SUFFIX)],
            "rm_dimension_names": list(dimensions),
            "rm_dimension_weights": [0.2] * 5,
        }
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def code_groups(count: int) -> list[dict]:
    """Those of the tiny job under the rubric of programs."""

    def renamed(candidate: dict) -> dict:
        labels = dict(zip(CODE_DIMENSIONS, (candidate["rubric"][d] for d in MATH_DIMENSIONS), strict=True))
        return candidate | {"rubric": labels | {"total": candidate["rubric"]["total"]}}

    return [
        row
        | {"task_type": "code"}
        | {name: [renamed(c) for c in row[name]] for name in ("positive_pool", "negative_bank")}
        for row in group_rows(count)
    ]


def make_stand_ins(folder: Path) -> Path:
    """The model folders and files that `overrides` names."""
    model_folder(folder / "model")
    model_folder(folder / "shallow", dataclasses.replace(SHAPE, num_layers=2))  # for sft.layers to deepen
    model_folder(folder / "math-rm", dimensions=MATH_DIMENSIONS)
    model_folder(folder / "code-rm", dimensions=CODE_DIMENSIONS)
    write_jsonl(folder / "problems.jsonl", [{"problem": f"What is {i} + 2?", "answer": i + 2} for i in range(5)])
    tests = {"input_output": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})}
    write_jsonl(
        folder / "programs.jsonl", [{"question": f"Print {i} plus the input.", "id": i, **tests} for i in range(5)]
    )
    write_jsonl(folder / "math-groups.jsonl", group_rows(6))
    write_jsonl(folder / "code-groups.jsonl", code_groups(6))
    write_jsonl(folder / "rows.jsonl", [{"prompt": f"{i} + 1 =", "completion": f" {i + 1}"} for i in range(5)])
    return folder


def overrides(path: Path, folder: Path) -> list[str]:
    """The words that put stand-ins where a config file names models and data of a user's own."""
    config, code = load_config(path), "code" in path.stem
    kind = "code" if code else "math"
    if config.run.stage == "sft":
        found = {"sft.train": "rows.jsonl"} | (
            {"sft.tokenizer": "model"} if config.sft.shape else {"sft.init": "shallow"}
        )
    elif config.run.stage == "reward_model":
        found = {"rm.train": f"{kind}-groups.jsonl", "rm.dev": f"{kind}-groups.jsonl", "rm.init": "model"}
    else:
        found = {"planner.path": "model", "executor.path": "model"}
        if not config.data.source.startswith("demo:"):
            found["data.source"] = "programs.jsonl" if code else "problems.jsonl"
        if config.reward_model.path:
            found["reward_model.path"] = f"{kind}-rm"
    words = []
    for key, name in found.items():
        words += [f"--{key}", ("code:" if name == "programs.jsonl" else "") + str(folder / name)]
    return words
