"""What no single type can say: every number within its range, and the rules that bind several keys.

Left out: what depends on files (models, data), which their loaders say.
"""

from __future__ import annotations

from tracelift.config.demo import needs_rm, own_parts
from tracelift.config.key import keys_of
from tracelift.config.schema import Config
from tracelift.errors import ConfigError


def check(c: Config, where: str, training: bool) -> None:
    """Raises ConfigError naming the key, and where its value comes from: `c.set_by`, else `where`. `training = False` leaves
    out what only a training run needs."""
    for name, value, about in keys_of(c):
        numbers = about["range"]
        for x in value if isinstance(value, list) else [value]:
            if numbers is not None and x not in numbers:
                raise ConfigError(f"{c.set_by.get(name, where)}: {name} must be {numbers.words(x)}, got {x}")
    if (c.executor.url or c.reward_model.url) and c.executor.patience_s >= c.parallel.timeout_s:
        raise ConfigError(
            f"{where}: executor.patience_s = {c.executor.patience_s:g} must be less than parallel.timeout_s = "
            f"{c.parallel.timeout_s:g}, or the other ranks give up on one that waits"
        )
    if training and c.run.stage == "sft" and (c.lora.r or c.lora.dropout):
        raise ConfigError(
            f"{where}: run.stage = 'sft' trains every weight: lora.r and lora.dropout are for the other stages"
        )
    if training and c.run.stage != "planner" and c.parallel.mode != "none":
        raise ConfigError(
            f"{where}: parallel.mode = '{c.parallel.mode}' is for run.stage = 'planner'; '{c.run.stage}' trains "
            "replicas on every rank (parallel.mode = 'none')"
        )
    if training and c.run.stage == "planner":
        if needs_rm(c) and not (c.reward_model.path or c.reward_model.url):
            raise ConfigError(f"{where}: reward.mode = '{c.reward.mode}' needs reward_model.path or reward_model.url")
        if needs_rm(c) and not c.reward_model.url and "reward_model.path" not in c.set_by and "data" in own_parts(c):
            raise ConfigError(
                f"{where}: reward.mode = '{c.reward.mode}' would score data.source = '{c.data.source}' with the demo's Reason "
                f"RM, which is only the default: give reward_model.path (by name, '{c.reward_model.path}' is taken), or "
                "reward.mode = 'uplift_only' or 'exec_only'"
            )
        if c.executor.uplift == "likelihood" and c.reward.variant == "paper":
            raise ConfigError(
                f"{where}: executor.uplift = 'likelihood' needs reward.variant = 'corrected': the paper's uplift is a "
                "difference of success rates"
            )
        if c.reward.runs == "pooled" and (c.reward.variant == "paper" or c.executor.uplift == "likelihood"):
            raise ConfigError(
                f"{where}: reward.runs = 'pooled' needs reward.variant = 'corrected', for the paper's end-to-end run stands "
                "apart, and executor.uplift = 'sampled', without which there are no other runs"
            )
        if c.executor.uplift == "likelihood" and c.executor.url:
            raise ConfigError(
                f"{where}: executor.uplift = 'likelihood' needs the log-probabilities of given texts, which a server at "
                "executor.url does not give; use a local executor.path, or executor.uplift = 'sampled'"
            )
        if c.grpo.kl_coef > 0 and c.grpo.kl_estimator == "k1":
            raise ConfigError(
                f"{where}: grpo.kl_estimator = 'k1' penalises nothing as a loss: its expected gradient is zero; use 'k2', or "
                "'exact', the sum over the vocabulary"
            )
        if c.lora.dropout > 0:
            raise ConfigError(
                f"{where}: lora.dropout = {c.lora.dropout:g} has no effect in run.stage = 'planner': traces are scored "
                "under the distribution they were sampled from; set it to 0"
            )
        if c.planner.samples < 2:
            raise ConfigError(f"{where}: planner.samples must be at least 2: a group of one has no advantage")
        if c.grpo.minibatches > c.grpo.problems:
            raise ConfigError(
                f"{where}: grpo.minibatches = {c.grpo.minibatches} cannot each hold one of "
                f"grpo.problems = {c.grpo.problems} problems"
            )
        if (
            c.data.eval_problems
            and c.data.source.startswith("demo:")
            and c.data.eval_seed == c.data.seed
            and c.data.eval_source in ("", c.data.source)
        ):
            raise ConfigError(
                f"{where}: data.eval_seed = data.seed = {c.data.seed}: evaluation would meet problems of training"
            )
