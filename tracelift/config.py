"""Run configuration: one small TOML file plus `--section.key value` overrides, typed, with no silent key.

The keys themselves are in tracelift/schema.py. An unknown one is refused with the nearest known one. Left out on purpose:
inheritance between files, interpolation, environment variables. A run is what its file and its command line say.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

from tracelift.errors import ConfigError
from tracelift.schema import Config

REMOVED = {  # keys of earlier versions: what to use instead
    "executor.ranks": "an executor elsewhere is executor.device (another GPU of this process) or executor.url (a server: python -m "
    "tracelift.serve, vLLM, SGLang, llama.cpp)",
    "parallel.shard_head": "parallel.mode = 'fsdp' spreads the output head's gradient and optimizer states with all others",
}


def load_config(
    path: str | Path | None,
    overrides: list[str] | tuple[str, ...] = (),
    base: Config | None = None,
    training: bool = True,
) -> Config:
    """Read a TOML file (None: all defaults), apply `--section.key value` overrides in order, and check the whole.

    `base` (changed in place) stands in for the defaults; `training = False` leaves out what only a training run needs.
    Raises ConfigError naming file and key on unknown keys, wrong types and values outside their range.
    """
    config = base or Config()
    if path is not None:
        try:
            table = tomllib.loads(Path(path).read_text())
        except FileNotFoundError:
            known = sorted(str(p) for p in Path("configs").glob("*.toml"))
            raise ConfigError(f"{path}: no such config file; there are: {', '.join(known) or 'none'}") from None
        except tomllib.TOMLDecodeError as e:
            raise ConfigError(f"{path}: not valid TOML: {e}") from None
        for section, values in table.items():
            if not isinstance(values, dict):
                raise ConfigError(
                    f"{path}: '{section}' stands outside a section; write it under one of {_names(config)}"
                )
            for key, value in values.items():
                _assign(config, section, key, value, where=str(path))
    words = list(overrides)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or "." not in word:
            raise ConfigError(f"command line: expected --section.key, got '{word}' (--help lists every key)")
        name, equals, text = word[2:].partition("=")
        section, _, key = name.partition(".")
        if not equals:
            bare = not words or words[0].startswith("--")
            text = None if bare else words.pop(0)
        _assign(config, section, key, text, where="command line")
    _check(config, str(path or "defaults"), training)
    return config


def config_of_run(folder: str | Path) -> Config:
    """The configuration a run was made with, from its config.json. Raises ConfigError where there is none to read."""
    path = Path(folder) / "config.json"
    try:
        sections = json.loads(path.read_text())["config"]
        config = Config()
        for section, values in sections.items():
            for key, value in values.items():
                _assign(config, section, key, value, where=str(path))
    except FileNotFoundError:
        raise ConfigError(f"{folder}: not a run folder: it has no config.json") from None
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ConfigError(f"{path}: not the record of a run: {e}") from None
    return config


def _names(obj: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(obj)]


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"; did you mean '{close[0]}'?" if close else ""


def _assign(config: Config, section: str, key: str, value: Any, where: str) -> None:
    if section not in _names(config):
        raise ConfigError(f"{where}: unknown section '{section}'{_nearest(section, _names(config))}")
    target = getattr(config, section)
    if instead := REMOVED.get(f"{section}.{key}"):
        if value in (0, False):  # switched off, as every earlier run's config.json has it: nothing is missing
            return
        raise ConfigError(f"{where}: {section}.{key} is no longer there; {instead}")
    if key not in _names(target):
        elsewhere = [s for s in _names(config) if key in _names(getattr(config, s))]
        hint = f"; did you mean '{elsewhere[0]}.{key}'?" if elsewhere else _nearest(key, _names(target))
        raise ConfigError(f"{where}: unknown key '{section}.{key}'{hint}")
    kind = typing.get_type_hints(type(target))[key]
    if value is None:  # a bare --section.key
        if kind is not bool:
            raise ConfigError(f"{where}: --{section}.{key} needs a value ({_type_name(kind)})")
        value = True
    setattr(target, key, _convert(value, kind, f"{where}: {section}.{key}"))


def _convert(value: Any, kind: Any, where: str) -> Any:
    """A TOML value or a command-line word as `kind`; words are read as TOML where the type is not a plain string."""
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise ConfigError(f"{where}: '{value}' is none of {', '.join(map(str, choices))}")
        return value
    if kind is str:
        if not isinstance(value, str):
            raise ConfigError(f"{where}: expected text in quotes, got {value!r}")
        return value
    plain = typing.get_origin(kind) or kind
    if isinstance(value, str):
        if plain is list and not value.lstrip().startswith("["):  # a,b,c on the command line
            quote = json.dumps if typing.get_args(kind)[0] is str else str
            value = f"[{', '.join(quote(word.strip()) for word in value.split(','))}]"
        try:
            value = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            raise ConfigError(f"{where}: expected {_type_name(kind)}, got '{value}'") from None
    if plain is float and type(value) is int:
        value = float(value)
    if type(value) is not plain:
        raise ConfigError(f"{where}: expected {_type_name(kind)}, got {value!r}")
    if plain is list and not all(isinstance(v, typing.get_args(kind)[0]) for v in value):
        raise ConfigError(f"{where}: expected {_type_name(kind)}, got {value!r}")
    return value


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " | ".join(map(str, typing.get_args(kind)))
    return kind.__name__ if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) else str(kind)


def _check(c: Config, where: str, training: bool) -> None:
    """What no single type can say."""
    positive = """run.steps run.stop_s run.keep run.save_every planner.samples planner.temperature planner.max_new_tokens executor.repeats
        executor.max_new_tokens executor.memory_mb executor.likelihood_nats reward_model.timeout_s grpo.problems grpo.epochs
        grpo.minibatches optim.lr optim.micro_tokens optim.max_grad_norm parallel.timeout_s sft.batch_size sft.eval_every
        rm.groups rm.negatives rm.eval_every eval.samples eval.chunk eval.resamples"""
    shares = "optim.beta1 optim.beta2 grpo.clip_low executor.max_error_share"
    least = """executor.patience_s executor.temperature executor.retries executor.baseline_repeats grpo.clip_high grpo.kl_coef
        data.eval_problems data.limit eval.limit eval.traces_shown optim.warmup optim.nan_batches lora.from_block reward_model.retries"""
    for names, good, words in (
        (positive, lambda x: 0 < x < math.inf, "be above 0 and finite"),
        (shares, lambda x: 0 <= x <= 1, "lie between 0 and 1"),
        (least, lambda x: x >= 0, "not be below 0"),
    ):
        for name in names.split():
            section, _, key = name.partition(".")
            if not good(value := getattr(getattr(c, section), key)):
                raise ConfigError(f"{where}: {name} must {words}, got {value}")
    if (c.executor.url or c.reward_model.url) and c.executor.patience_s >= c.parallel.timeout_s:
        raise ConfigError(
            f"{where}: executor.patience_s = {c.executor.patience_s:g} must be less than parallel.timeout_s = "
            f"{c.parallel.timeout_s:g}, or the other ranks give up on one that waits"
        )
    if training and c.run.stage != "planner" and c.parallel.mode != "none":
        raise ConfigError(
            f"{where}: parallel.mode = '{c.parallel.mode}' is for run.stage = 'planner'; '{c.run.stage}' trains "
            "replicas on every rank (parallel.mode = 'none')"
        )
    if training and c.run.stage == "planner":
        needs_rm = c.reward.mode in ("tracelift", "rm_only", "product_only")
        if needs_rm and not (c.reward_model.path or c.reward_model.url):
            raise ConfigError(f"{where}: reward.mode = '{c.reward.mode}' needs reward_model.path or reward_model.url")
        if c.executor.uplift == "likelihood" and c.reward.variant == "paper":
            raise ConfigError(
                f"{where}: executor.uplift = 'likelihood' needs reward.variant = 'corrected': the paper's uplift is a "
                "difference of success rates"
            )
        if c.executor.uplift == "likelihood" and c.executor.url:
            raise ConfigError(
                f"{where}: executor.uplift = 'likelihood' needs the log-probabilities of given texts, which a server at "
                "executor.url does not give; use a local executor.path, or executor.uplift = 'sampled'"
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


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    return dataclasses.asdict(config)


USAGE = """usage: train.py [CONFIG.toml] [--section.key value ...] [--resume]
       torchrun --standalone --nproc_per_node=N train.py [CONFIG.toml] ...

Trains a planner for a frozen executor (run.stage = planner), or a model that this needs (sft, reward_model).

  train.py                                           the embedded math demo: the defaults below, a few minutes on two cores
  train.py configs/code-demo.toml                    the embedded code demo; configs/ holds more
  train.py --reward.mode exec_only --run.out runs/b  the demo by the baseline to beat
  train.py --resume                                  go on with a run that was stopped

The command line goes over the file, the file over these defaults. A list is written a,b,c, a switch by its name alone. The run
folder gets config.json, metrics.jsonl, samples.jsonl, checkpoints/, final/ (the model), summary.txt and curves.png.
Exit codes: 0 done, 1 bad configuration, data or model, 2 training could not go on, 143 stopped by SIGTERM after saving.
"""


def help_text(usage: str = USAGE) -> str:
    """Every key with its type, default and meaning, as `train.py --help` and `eval.py --help` print it."""
    lines = [usage]
    for section in dataclasses.fields(Config):
        defaults = getattr(Config(), section.name)
        hints = typing.get_type_hints(type(defaults))
        lines.append(f"[{section.name}]")
        for f in dataclasses.fields(defaults):
            default = getattr(defaults, f.name)
            lines.append(f"  --{section.name}.{f.name}  ({_type_name(hints[f.name])}, default {default!r})")
            lines.append(f"        {f.metadata['help']}")
        lines.append("")
    return "\n".join(lines)
