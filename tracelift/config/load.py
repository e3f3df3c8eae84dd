"""Run configuration: one small TOML file plus `--section.key value` overrides, typed, with no silent key.

The keys themselves are in tracelift/config/schema.py. An unknown one is refused with the nearest known one. Left out on purpose:
inheritance between files, interpolation, environment variables. A run is what its file and its command line say.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

from tracelift.config.check import check
from tracelift.config.demo import drop_unasked_rm
from tracelift.config.schema import Config
from tracelift.errors import ConfigError
from tracelift.files import as_float, read_json

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
    checked: bool = True,
) -> Config:
    """Read a TOML file (None: all defaults), apply `--section.key value` overrides in order, and check the whole.

    `base` (changed in place) stands in for the defaults; `training = False` leaves out what only a training run needs,
    `checked = False` every check of a value's range.
    Raises ConfigError naming file and key on unknown keys, wrong types and values outside their range.
    """
    config = base or Config()
    if path is not None:
        table = _read_toml(path)
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
            raise ConfigError(f"command line: expected --section.key, got '{word}'{_hint(word)}")
        name, equals, text = word[2:].partition("=")
        section, _, key = name.partition(".")
        if not equals:
            bare = not words or words[0].startswith("--")
            text = None if bare else words.pop(0)
        _assign(config, section, key, text, where="command line")
    drop_unasked_rm(config)
    if checked:
        check(config, str(path or "command line"), training)
    return config


def _read_toml(path: str | Path) -> dict[str, Any]:
    """A config file's sections. Raises ConfigError, also where `path` was meant as something else."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        section, _, key = str(path).partition(".")
        if key in _names(getattr(Config(), section, None)):
            raise ConfigError(f"command line: '{path}' is a key: write --{path} VALUE") from None
        known = sorted(str(p) for p in Path("configs").glob("*.toml"))
        raise ConfigError(f"{path}: no such config file; there are: {', '.join(known) or 'none'}") from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path}: is a folder; a config is a TOML file, and an earlier run is --run.out {path}"
        ) from None
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not valid TOML: not UTF-8 at byte {e.start}") from None
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"{path}: not valid TOML: {e}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None


def _hint(word: str) -> str:
    """What a word that is no --section.key was probably meant as."""
    if word == "--config" or word.endswith(".toml"):
        return "; the config file stands first, without a flag"
    section, _, key = word.partition(".")
    if key in _names(getattr(Config(), section, None)):
        return f"; write --{word}"
    return " (--help lists every key)"


def config_of_run(folder: str | Path, step: int | None = None) -> Config:
    """The configuration a run was made with, from its config.json: as it is now, or as it was in round `step` (from 1).

    Raises ConfigError where there is none to read.
    """
    path = Path(folder) / "config.json"
    try:
        record = read_json(path)
        config = Config()
        for section, values in record["config"].items():
            for key, value in values.items():
                _assign(config, section, key, value, where=str(path))
        for entry in reversed(record.get("history", [])):
            if step is not None and entry["from_round"] > step:
                for name, (old, _) in entry["changed"].items():
                    section, _, key = name.partition(".")
                    _assign(config, section, key, old, where=str(path))
    except FileNotFoundError:
        raise ConfigError(f"{folder}: not a run folder: it has no config.json") from None
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        if e.args == ("config",) and "model_type" in read_json(path):
            raise ConfigError(f"{folder}: a model's folder, not a run's; eval.py takes a model as --planner") from None
        raise ConfigError(f"{path}: not the record of a run: {e}") from None
    return config


def _names(obj: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(obj)] if dataclasses.is_dataclass(obj) else []


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(known)}"


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
            raise ConfigError(f"{where}: --{section}.{key} needs a value ({type_name(kind)})")
        value = True
    setattr(target, key, _convert(value, kind, f"{where}: {section}.{key}"))
    config.set_by[f"{section}.{key}"] = where


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
        except (tomllib.TOMLDecodeError, RecursionError):
            raise ConfigError(f"{where}: expected {type_name(kind)}, got '{value}'") from None
    number = as_float(value) if plain is float else None  # 1 for 1.0; 10**400 is none
    value = value if number is None else number
    if type(value) is not plain:
        raise ConfigError(f"{where}: expected {type_name(kind)}, got {value!r}")
    if plain is list and not all(isinstance(v, typing.get_args(kind)[0]) for v in value):
        raise ConfigError(f"{where}: expected {type_name(kind)}, got {value!r}")
    return value


def type_name(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " | ".join(map(str, typing.get_args(kind)))
    return kind.__name__ if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) else str(kind)


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    return dataclasses.asdict(config)
