"""What `train.py --help` and `eval.py --help` print: the usage, then every key. Left out: the keys' texts (schema.py)."""

from __future__ import annotations

import dataclasses
import typing

from tracelift.config.load import type_name
from tracelift.config.schema import Config

_LATER = {"no": "", "yes": "; resume", "grows": "; resume: upward", "moves": "; resume: to another address"}
USAGE = """usage: train.py [CONFIG.toml] [--section.key value ...] [--resume | --dry-run]
       torchrun --standalone --nproc_per_node=N train.py [CONFIG.toml] ...

Trains a planner for a frozen executor (run.stage = planner), or a model that this needs (sft, reward_model).

  train.py                                           the embedded math demo: the defaults below, a few minutes on two cores
  train.py configs/code-demo.toml                    the embedded code demo; configs/ holds more
  train.py --reward.mode exec_only --run.out runs/b  the demo by the baseline to beat
  train.py --resume                                  go on with a run that was stopped
  train.py CONFIG.toml --dry-run                     check config, data, prompts, memory and disk; load and write nothing

The command line goes over the file, the file over these defaults, or over the config of the run that --resume goes on with;
keys marked "resume" may differ from it. A list is written a,b,c, a switch by its name alone. The run
folder gets config.json, metrics.jsonl, samples.jsonl, checkpoints/, final/ (the model), summary.txt and, but for sft, curves.png.
Exit codes: 0 done, 1 bad configuration, data or model, 2 training could not go on, 143 stopped by SIGTERM after saving.
"""


def help_text(usage: str = USAGE) -> str:
    """Every key with its type, default, range and meaning; whether --resume may change it."""
    lines = [usage]
    for section in dataclasses.fields(Config):
        defaults = getattr(Config(), section.name)
        hints = typing.get_type_hints(type(defaults))
        lines.append(f"[{section.name}]")
        for f in dataclasses.fields(defaults):
            default, numbers = getattr(defaults, f.name), f.metadata["range"]
            of = f", {numbers}" if numbers else ""
            lines.append(
                f"  --{section.name}.{f.name}  ({type_name(hints[f.name])}, default {default!r}{of}{_LATER[f.metadata['later']]})"
            )
            lines.append(f"        {f.metadata['help']}")
        lines.append("")
    return "\n".join(lines)
