"""A whole training job in miniature: tokenizer, models and data small enough that train.py runs a round in a blink.

The world is "What is a + b?" with one digit each. The planner is taught for a moment to write `a + b = c` with the right
or a wrong c, the executor to copy c, so that traces differ and their rewards too. Everything is made from seeds.
"""

import json
import random
from pathlib import Path

import torch

import models
from models import ModelConfig, RewardConfig, RewardModel, Transformer
from tracelift.config import load_config
from tracelift.distributed.world import World
from tracelift.rubrics import MATH_DIMENSIONS
from tracelift.runs.folder import RunFolder
from tracelift.training.sft import run_sft
from tracelift.worlds.build.tokenizer import save_tokenizer, train_tokenizer

SHAPE = "{hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2, head_dim=16, max_positions=96}"


def silent(line: str) -> None:
    pass


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sums(count: int, seed: int) -> list[tuple[int, int]]:
    rng = random.Random(seed)
    return [(rng.randrange(5), rng.randrange(5)) for _ in range(count)]


def problem(a: int, b: int) -> str:
    return f"What is {a} + {b}?"


def planner_rows(count: int) -> list[dict]:
    rng = random.Random(5)
    return [
        {
            "prompt": problem(a, b) + "\n",
            "completion": f"<reasoning>{a} + {b} = {a + b + rng.choice((0, 0, 1))}</reasoning>",
        }
        for a, b in sums(count, 1)
    ]


def executor_rows(count: int) -> list[dict]:
    rows = []
    for a, b in sums(count, 2):
        c = a + b + random.Random(a * 10 + b).choice((0, 1))
        rows.append({"prompt": f"{problem(a, b)}\nGuidance: {a} + {b} = {c}\nAnswer:", "completion": f" {c}"})
    return rows


def rubric(total: float) -> dict:
    return {name: round(4 * total) for name in MATH_DIMENSIONS} | {"total": total}


def group_rows(count: int) -> list[dict]:
    rows = []
    for i, (a, b) in enumerate(sums(count, 3)):
        wrong = [
            {"reasoning": f"{a} + {b} = {a + b + k}", "negative_kind": f"off_by_{k}", "rubric": rubric(0.25)}
            for k in (1, 2, 3, 4)
        ]
        rows.append(
            {
                "problem_id": f"g{i}",
                "source": "tiny",
                "task_type": "math",
                "problem": problem(a, b),
                "reference_solution": str(a + b),
                "negative_bank": wrong,
                "positive_pool": [{"reasoning": f"{a} + {b} = {a + b}", "rubric": rubric(1)}],
            }
        )
    return rows


def sft_arguments(folder: Path, data: Path, out: Path, steps: int) -> list[str]:
    return [
        "--run.stage",
        "sft",
        "--run.out",
        str(out),
        "--run.steps",
        str(steps),
        "--run.threads",
        "1",
        "--sft.shape",
        SHAPE,
        "--sft.tokenizer",
        str(folder / "tokenizer"),
        "--sft.train",
        str(data),
        "--sft.batch_size",
        "32",
        "--optim.lr",
        "0.01",
    ]


def rm_arguments(folder: Path, out: Path, steps: int) -> list[str]:
    return [
        "--run.stage",
        "reward_model",
        "--run.out",
        str(out),
        "--run.steps",
        str(steps),
        "--run.threads",
        "1",
        "--rm.train",
        str(folder / "groups.jsonl"),
        "--rm.dev",
        str(folder / "groups-dev.jsonl"),
        "--rm.init",
        str(folder / "executor"),
        "--rm.groups",
        "8",
        "--rm.eval_every",
        "4",
        "--optim.lr",
        "0.003",
        "--rm.max_tokens",
        "96",
    ]


def planner_arguments(folder: Path, out: Path, *extra: str) -> list[str]:
    return [
        "--run.out",
        str(out),
        "--run.steps",
        "4",
        "--run.save_every",
        "2",
        "--run.threads",
        "1",
        "--data.source",
        str(folder / "problems.jsonl"),
        "--data.eval_source",
        str(folder / "problems.jsonl"),
        "--data.eval_problems",
        "6",
        "--planner.path",
        str(folder / "planner"),
        "--planner.samples",
        "4",
        "--planner.max_new_tokens",
        "20",
        "--executor.path",
        str(folder / "executor"),
        "--executor.max_new_tokens",
        "4",
        "--reward_model.path",
        str(folder / "reward_model"),
        "--grpo.problems",
        "6",
        "--optim.lr",
        "0.003",
        *extra,
    ]


def make_job(folder: Path) -> Path:
    """tokenizer/, planner/, executor/, reward_model/ and their data in `folder`. A few seconds on one core."""
    planner = write_jsonl(folder / "planner.jsonl", planner_rows(400))
    executor = write_jsonl(folder / "executor.jsonl", executor_rows(400))
    write_jsonl(
        folder / "problems.jsonl",
        [{"problem_id": f"p{i}", "problem": problem(a, b), "answer": a + b} for i, (a, b) in enumerate(sums(20, 4))],
    )
    write_jsonl(folder / "groups.jsonl", group_rows(40))
    write_jsonl(folder / "groups-dev.jsonl", group_rows(10))
    rows = [json.loads(line) for path in (planner, executor) for line in path.read_text().splitlines()]
    corpus = [r["prompt"] + r["completion"] for r in rows]
    save_tokenizer(train_tokenizer(corpus, 320), folder / "tokenizer")
    for name, data, steps in (("planner", planner, 60), ("executor", executor, 60)):
        config = load_config(None, sft_arguments(folder, data, folder / f"{name}-run", steps))
        run = RunFolder(folder / f"{name}-run")
        run.prepare(config)
        run_sft(config, run, World(), torch.device("cpu"), silent).rename(folder / name)
    tokenizer = models.load_tokenizer(folder / "tokenizer")
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_layers=1,
        num_heads=2,
        num_kv_heads=2,
        head_dim=16,
        max_positions=96,
    )
    rm = RewardModel.from_transformer(
        Transformer(shape).init_weights(7, std=0.3), RewardConfig(MATH_DIMENSIONS), seed=7
    )
    models.save_reward_model(rm, folder / "reward_model", tokenizer)
    return folder
