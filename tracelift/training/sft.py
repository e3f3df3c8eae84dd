"""Stage "sft": supervised fine-tuning on {prompt, completion} rows, which also makes the demo's planner and executor.

A completion is a text, or a list of pieces: [text, true] is learned, [text, false] is only read (another speaker's turn),
and [text, "tag"] is read while each of its tokens is to be answered by the one token `tag` (telling right words from
wrong ones, as ELECTRA's discriminator does; Clark et al. 2020). [text, "tag", "meant"] asks besides, before it is read,
for what should stand in its place, up to the first token of `meant` that differs. Several completions of one prompt, in
a list under "completions", read it once.

    loss = −mean log π(token | before) over completion tokens, the end token included, over the global batch

The same packing and kernels as the planner stage. Left out: loss on prompts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import kernels
import models
from models import ModelConfig, Tokenizer, Transformer
from tracelift.config import Config
from tracelift.distributed.world import World
from tracelift.errors import ConfigError, RowsError, naming
from tracelift.files import scan_rows
from tracelift.runs.folder import RunFolder
from tracelift.runs.summary import write_summary
from tracelift.tasks.epochs import round_places
from tracelift.training.fit import fit, read_split
from tracelift.training.learner import Learner
from tracelift.training.memory_plan import config_at
from tracelift.training.packing import Row, micro_batches, pack

_LAYER = re.compile(r"\.layers\.(\d+)\.")


Piece = tuple[str, bool | str] | tuple[str, str, str]
Completion = str | list[Piece]
Example = tuple[str, list[Completion]]  # a prompt, and what each of its continuations should be


def read_rows(path: str | Path) -> list[Example]:
    """(prompt, completions) of each row. Raises FileNotFoundError, or ValueError naming file and line."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"sft data '{path}': no such file (a JSONL file of {{prompt, completion}} rows)")
    rows = []
    for number, row in scan_rows(path):
        try:
            rows.append(_example(row))
        except (ValueError, KeyError, TypeError) as e:
            reason = f"no {e}" if isinstance(e, KeyError) else e
            raise ValueError(f'{path}:{number}: {reason}; expected {{"prompt": ..., "completion": ...}}') from None
    if not rows:
        raise ValueError(f"{path}: holds no row")
    return rows


def read_data(config: Config) -> tuple[list[Example], list[Example]]:
    """The rows of `sft.train` and of `sft.dev` (none without it). Raises ConfigError, or as `read_rows`, naming the key."""
    return read_split("sft", config.sft.train, config.sft.dev, "a JSONL file of {prompt, completion} rows", read_rows)


def text_of(example: Example) -> str:
    """A prompt with its first completion."""
    prompt, (first, *_) = example
    return prompt + (first if isinstance(first, str) else "".join(piece[0] for piece in first))


def _example(row: Any) -> Example:
    """A row as read from JSON, checked. Raises ValueError, KeyError or TypeError."""
    if isinstance(row, RowsError):
        raise row
    if not isinstance(row, dict):
        raise TypeError("not an object")
    prompt = row["prompt"]
    if not (isinstance(prompt, str) and prompt):
        raise ValueError("'prompt' must be a non-empty text")
    several = row["completions"] if "completions" in row else [row["completion"]]
    if not (isinstance(several, list) and several):
        raise ValueError("'completions' must be a list of at least one")
    return prompt, [_completion(c) for c in several]


def _completion(value: object) -> Completion:
    """A completion as read from JSON, checked. Raises ValueError or TypeError."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and all(map(_is_piece, value)) and any(piece[1] for piece in value):
        return [tuple(piece) for piece in value]
    raise ValueError("a completion must be a non-empty text or a list of [text, learned], at least one of them learned")


def _is_piece(value: object) -> bool:
    match value:
        case [str(text), bool()]:
            return text != ""
        case [str(text), str(tag)]:
            return "" not in (text, tag)
        case [str(text), str(tag), str(meant)]:
            return "" not in (text, tag, meant)
    return False


def initial_shape(config: Config) -> tuple[ModelConfig, Tokenizer]:
    """The shape of the model to fine-tune, and its tokenizer: that of `sft.init` with `sft.layers`, or `sft.shape`.

    Reads config.json and tokenizer files, no weights. Raises ConfigError, or as `models` does, naming the key.
    """
    s = config.sft
    if bool(s.init) == bool(s.shape):
        raise ConfigError("sft: give either sft.init (a folder) or sft.shape (a fresh model)")
    if s.shape and not s.tokenizer:
        raise ConfigError("sft.tokenizer: give the folder of the fresh model's tokenizer")
    with naming("sft.tokenizer" if s.tokenizer else "sft.init", s.tokenizer or s.init):
        tokenizer = models.load_tokenizer(s.tokenizer or s.init)
    if s.init:
        shape = config_at("sft.init", s.init)
        if 0 < s.layers < shape.num_layers:
            raise ConfigError(f"sft.layers = {s.layers}: the model of sft.init has {shape.num_layers} already")
        return dataclasses.replace(shape, num_layers=s.layers or shape.num_layers), tokenizer
    defaults = {"vocab_size": tokenizer.vocab_size, "num_kv_heads": s.shape.get("num_heads")}
    try:
        return ModelConfig(**(defaults | s.shape)), tokenizer
    except TypeError as e:
        raise ConfigError(f"sft.shape: {e}") from None


def initial_model(config: Config, device: torch.device) -> tuple[Transformer, Tokenizer]:
    """The model to fine-tune: `sft.init`, or a fresh one of `sft.shape` with the tokenizer of `sft.tokenizer`."""
    shape, tokenizer = initial_shape(config)
    dtype, init = getattr(torch, config.run.dtype), config.sft.init
    if not init:
        return Transformer(shape).init_weights(config.run.seed, std=0.05).to(device, dtype), tokenizer
    with naming("sft.init", init):
        model = models.load_pretrained(init, dtype=dtype, device=device)
    return model if shape == model.config else deepen(model, shape.num_layers, config.run.seed), tokenizer


def deepen(model: Transformer, layers: int, seed: int) -> Transformer:
    """The same function with more layers: new blocks go on top and add nothing until they are trained.

    Their residual outputs (o_proj, down_proj) start at zero.
    """
    deeper = (
        Transformer(dataclasses.replace(model.config, num_layers=layers))
        .init_weights(seed, std=0.05)
        .to(model.device, model.dtype)
    )
    with torch.no_grad():
        for name, p in deeper.named_parameters():
            match = _LAYER.search(name)
            if match and int(match[1]) >= model.config.num_layers:
                if ".o_proj." in name or ".down_proj." in name:
                    p.zero_()
            else:
                p.copy_(model.get_parameter(name))
    return deeper


def encode(rows: Sequence[Example], tokenizer: Tokenizer, limit: int, vocab: int | None = None) -> list[Row]:
    """Rows as tokens, each completion closed by the end token that generation stops at. Raises ValueError on one that
    `limit` tokens cannot hold, or with a token that a model of `vocab` rows has none for."""
    if tokenizer.eos_id is None:
        raise ValueError("the tokenizer names no end token; add eos_token_id to generation_config.json")
    end = tokenizer.eos_id
    out, number = [], 0
    for text, completions in rows:
        prompt = tokenizer.encode(text)
        samples, targets = zip(*(_scored(c, tokenizer, end) for c in completions), strict=True)
        longest = len(prompt) + max(map(len, samples))
        for ids in (prompt, *samples):
            if vocab is not None and (wrong := tokenizer.no_row(ids, vocab)):
                raise ValueError(f"a row holds {wrong}: {text[:60]!r}...")
        if longest > limit:
            raise ValueError(f"a row of {longest} tokens exceeds the model's context of {limit}: {text[:60]!r}...")
        out.append(Row(prompt, samples, range(number, number + len(samples)), targets))
        number += len(samples)
    return out


def _scored(completion: Completion, tokenizer: Tokenizer, end: int) -> tuple[list[int], list[tuple[int, int]]]:
    """A completion's tokens, the end token behind them, and what is asked for after how many of them (Row.targets)."""
    sample: list[int] = []
    targets: list[tuple[int, int]] = []
    for text, learned, *meant in [(completion, True)] if isinstance(completion, str) else completion:
        piece = tokenizer.encode(text, add_special_tokens=False)
        if isinstance(learned, str):
            tag = tag_id(tokenizer, learned)
            targets += [(len(sample) + j + 1, tag) for j in range(len(piece))]
        if learned is True or meant:
            wanted = tokenizer.encode(meant[0], add_special_tokens=False) if meant else piece
            agreed = next(
                (j for j, (a, b) in enumerate(zip(piece, wanted, strict=False)) if a != b), min(len(piece), len(wanted))
            )
            targets += [(len(sample) + j, token) for j, token in enumerate(wanted[: agreed + 1])]
        sample += piece
    if isinstance(completion, str) or completion[-1][1] is True:
        targets.append((len(sample), end))
    return [*sample, end], targets


def tag_id(tokenizer: Tokenizer, tag: str) -> int:
    """The one token of a tag. Raises ValueError where the tokenizer needs more."""
    ids = tokenizer.encode(tag, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"the tag {tag!r} is {len(ids)} tokens in this tokenizer; a tag must be one")
    return ids[0]


def token_logprobs(model: Transformer, rows: list[Row], pad_id: int) -> Tensor:
    """log π of every trained token of the rows, (N,) fp32."""
    batch = pack(rows, pad_id, model.device)
    hidden = batch.predictors(model(batch.tokens, batch.positions, batch.attend()))
    return kernels.linear_logprob(hidden, model.head_weight, batch.targets).logprob


def run_sft(config: Config, run: RunFolder, world: World, device: torch.device, say: Callable[[str], None]) -> Path:
    """Train, and leave the model in run/final. Returns that folder."""
    model, tokenizer = initial_model(config, device)
    rows, dev = read_data(config)
    limit, vocab = model.config.max_positions, model.config.vocab_size
    dev_rows = encode(dev, tokenizer, limit, vocab)
    learner = Learner(model, config.optim, config.run.steps, world)
    size = config.sft.batch_size
    say(f"sft: {learner.millions}, {len(rows)} rows, {size} a round")

    def round_loss(step: int) -> dict[str, float]:
        places = round_places(f"sft:{config.run.seed}", len(rows), step, size, from_end=True)
        encoded = encode([rows[at] for at in places], tokenizer, limit, vocab)
        total = sum(len(t) for row in encoded for t in row.targets or ())  # every rank knows the global count
        loss_sum = 0.0
        for micro in micro_batches(world.share(encoded), config.optim.micro_tokens):
            loss = -token_logprobs(model, micro, tokenizer.pad_id).sum() / total
            loss.backward()
            loss_sum += loss.item()
        return {"loss": sum(world.gather(loss_sum))}

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        nll, tokens = 0.0, 0
        for micro in micro_batches(world.share(dev_rows), config.optim.micro_tokens):
            logprob = token_logprobs(model, micro, tokenizer.pad_id)
            nll -= logprob.sum().item()
            tokens += logprob.numel()
        return {"loss": sum(world.gather(nll)) / max(1, sum(world.gather(tokens)))}

    def write(folder: Path) -> None:
        models.save_pretrained(model, folder, tokenizer)

    fit(
        config,
        run,
        world,
        learner,
        round_loss=round_loss,
        write_model=write,
        read_model=lambda folder: models.load_pretrained(folder, dtype=model.dtype, device=device),
        evaluate=evaluate if dev else None,
        eval_every=config.sft.eval_every,
        shown={name: name for name in ("loss", "grad_norm", "lr", "dev/loss")},
        say=say,
    )
    final = run.path / "final"
    if world.is_main:
        models.save_pretrained(model.to(getattr(torch, config.sft.save_dtype)), final, tokenizer)
        evaluated = [r for r in run.read("metrics.jsonl") if r.get("dev/loss") is not None]
        best = min(evaluated, key=lambda r: r["dev/loss"])["step"] if evaluated else None
        say("\n" + write_summary(run.path, "sft", ("dev/loss",) if evaluated else ("loss",), best))
    world.barrier()
    say(f"model: {final}, of the last round   figures: {run.path / 'summary.txt'}")
    return final
