"""The keys of the stages that make a run's models, sft and reward_model, and those of eval.py.

Left out: the planner's (schema.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tracelift.config.key import FROM_0, FROM_1, SHARE, opt


@dataclass
class SftConfig:
    train: str = opt("", "JSONL file of {prompt, completion} rows")
    dev: str = opt("", "the same, held out; empty: none")
    init: str = opt("", "Hugging Face folder to start from")
    shape: dict = opt({}, "instead of init: a fresh model's shape, e.g. {hidden_size=128, num_layers=3}")
    layers: int = opt(
        0, "deepen init to this many layers; the new ones start as the identity. 0 keeps its depth", FROM_0
    )
    tokenizer: str = opt("", "tokenizer folder; empty means that of init")
    batch_size: int = opt(128, "rows a round, over all ranks", FROM_1)
    eval_every: int = opt(100, "rounds between dev evaluations", FROM_1)
    save_dtype: Literal["float32", "bfloat16"] = opt("float32", "dtype of the exported weights")


@dataclass
class RmTrainingConfig:
    train: str = opt("", "TraceLift-Groups JSONL")
    dev: str = opt("", "held-out groups")
    init: str = opt("", "backbone: Hugging Face folder of a language model or of an earlier reward model")
    groups: int = opt(24, "groups a round, over all ranks", FROM_1)
    negatives: int = opt(4, "negatives drawn per group", FROM_1)
    rank_weight: float = opt(0.7, "weight of the pairwise ranking loss within a group", FROM_0)
    total_weight: float = opt(0.5, "weight of the Huber loss on the total head", FROM_0)
    negative_weight: float = opt(
        0.0, "weight of the optional ranking among negatives by gold total (off in the paper)", FROM_0
    )
    negative_margin: float = opt(
        0.15, "negatives whose gold totals differ by less are not ranked against each other", FROM_0
    )
    eval_every: int = opt(100, "rounds between dev evaluations; the best by group accuracy is kept", FROM_1)
    max_tokens: int = opt(2048, "longest input in tokens", FROM_1)
    save_dtype: Literal["float32", "bfloat16"] = opt("float32", "dtype of the exported weights")


@dataclass
class EvalConfig:
    benchmarks: list[str] = opt(
        ["demo:math"],
        "what to evaluate on: demo:math, demo:code, or FORMAT:FILE with FORMAT one of "
        "gsm8k, svamp, math, humaneval, mbpp, code, tasks (problem/answer rows)",
        later="yes",
    )
    arms: list[str] = opt(
        ["direct", "planner", "reference", "foreign"],
        "what the executor is given: no trace, the planner's, the data's own, the planner's trace of another problem",
        later="yes",
    )
    modes: list[str] = opt(
        ["greedy", "sampled"], "greedy: planner and executor at temperature 0; sampled: at their own", later="yes"
    )
    samples: int = opt(4, "traces per problem, each with one executor run, in sampled mode", FROM_1, later="yes")
    k: list[int] = opt([1, 4], "the k of pass@k, each at most eval.samples", FROM_1, later="yes")
    limit: int = opt(400, "problems per benchmark; 0 takes all (the demo: 1000)", FROM_0, later="yes")
    out: str = opt(
        "",
        "folder of records, results.json and report.html; empty: RUN/eval, or runs/eval-PLANNER "
        "(its folder's name, after its run's where that is final, a checkpoint's model and the like)",
        later="yes",
    )
    chunk: int = opt(64, "problems between two saves of the records", FROM_1, later="yes")
    resamples: int = opt(
        2000, "random sign flips of the problems' differences, where not all are counted", FROM_1, later="yes"
    )
    max_error_share: float = opt(
        0.1,
        "past this share of unjudged executor runs, of those that were made, the evaluation stops and says why",
        SHARE,
        later="yes",
    )
    traces_shown: int = opt(
        4,
        "samples per problem and arm to read in the HTML report, whose shares are over all; 0 shows all",
        FROM_0,
        later="yes",
    )
    groups: str = opt("", "eval.py reward-model: TraceLift-Groups JSONL to judge the Reason RM on", later="yes")
