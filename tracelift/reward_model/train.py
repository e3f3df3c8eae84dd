"""Stage "reward_model": train a Reason RM on TraceLift-Groups.

Each round takes a batch of groups: their positives (one drawn per group, reference or alternative, all alike) and
`rm.negatives` drawn negatives. Losses and weights are those of tracelift/reward_model/loss.py. The best model on the dev
groups (`selection`) is what the stage leaves in final/.
With `lora.r` above 0 the backbone is adapted and the heads trained in full. Metrics per kind of flaw and per dimension stand
in metrics.jsonl; calibration and intervals come from `eval.py reward-model`. Left out: judges, recalibration.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import models
from models import ModelConfig, RewardConfig, RewardModel, Tokenizer
from models.hf_config import holds_reward_model, read_config
from models.lora import adapted, load_adapter, save_adapter
from models.reward import RewardScores, read_reward_config
from tracelift.config import Config
from tracelift.distributed.world import World
from tracelift.errors import ConfigError, naming
from tracelift.files import read_json
from tracelift.reward_model.group_format import Candidate, Group, read_groups
from tracelift.reward_model.loss import ranking_metrics, rm_loss
from tracelift.reward_model.prefix_tree import Tree
from tracelift.reward_model.scorer import RMTargets, pool, rm_tokens
from tracelift.rubrics import dimensions_of
from tracelift.runs.folder import RunFolder
from tracelift.runs.plots import draw_curves
from tracelift.runs.summary import write_summary
from tracelift.tasks.epochs import round_places
from tracelift.training.fit import fit, read_split
from tracelift.training.learner import Learner
from tracelift.training.lora import attach_lora
from tracelift.training.packing import micro_batches

# The order of importance; -1: the smaller the better. The first and the third are there with alternatives in the dev groups.
SELECTION = {
    "sound_group_accuracy": 1,
    "group_accuracy": 1,
    "alternative_pair_accuracy": 1,
    "pair_accuracy": 1,
    "mae": -1,
}
SELECTED = "selected.json"  # in best/: the round of the best model, and the figures it was chosen by
SHOWN = {  # in a progress line; parts of the loss and figures by kind and dimension are in metrics.jsonl
    "loss": "loss",
    "dev/pair_accuracy": "dev: pairs right",
    "dev/alternative_pair_accuracy": "of alternatives",
    "dev/group_accuracy": "groups right",
    "dev/mae": "MAE",
}
_PARTS = ("loss", "ce", "huber", "rank", "negative_rank")  # of the loss


def initial_rm(config: Config, device: torch.device, task_type: str) -> tuple[RewardModel, Tokenizer]:
    """An earlier reward model, or a language model's backbone under fresh heads."""
    (_, heads, earlier), path, dtype = (
        initial_heads(config, task_type),
        config.rm.init,
        getattr(torch, config.run.dtype),
    )
    with naming("rm.init", path):
        tokenizer = models.load_tokenizer(path)
        if earlier:
            return models.load_reward_model(path, dtype=dtype, device=device), tokenizer
        lm = models.load_pretrained(path, dtype=dtype, device=device)
    return RewardModel.from_transformer(lm, heads, config.run.seed), tokenizer


def initial_heads(config: Config, task_type: str) -> tuple[ModelConfig, RewardConfig, bool]:
    """Backbone and heads of the model to train, and whether `rm.init` is an earlier reward model: from config.json alone.

    Raises ConfigError without `rm.init`, or as `models` does, naming the key.
    """
    path = config.rm.init
    if not path:
        raise ConfigError("rm.init: give the backbone's folder")
    with naming("rm.init", path):
        backbone, raw = read_config(path)
        if holds_reward_model(raw):
            return *read_reward_config(path), True
    return backbone, RewardConfig(dimensions_of(task_type)), False


@dataclass(frozen=True)
class Encoded:
    """Some traces of one group, ready to be computed: their tokens as a tree, and their gold."""

    tree: Tree
    number: int
    traces: tuple[Candidate, ...]
    names: tuple[str, ...]

    @property
    def length(self) -> int:
        return self.tree.length

    def halves(self) -> list[Encoded]:
        return [self]  # its traces are ranked against each other, so a group is computed whole


def encode(number: int, group: Group, chosen: list[Candidate], tokenizer: Tokenizer, max_tokens: int) -> Encoded:
    """Raises ValueError where a trace does not fit `max_tokens`."""
    ids = [
        rm_tokens(tokenizer, max_tokens, group.task_type, group.problem, c.reasoning, group.type_text) for c in chosen
    ]
    tree = Tree(tuple(map(tuple, ids)), tuple(range(len(ids))))
    return Encoded(tree, number, tuple(chosen), dimensions_of(group.task_type))


def judged(rm: RewardModel, piece: list[Encoded], pad_id: int) -> tuple[Tensor, RewardScores, RMTargets]:
    """The heads' logits (S, dims, C), what they add up to, and gold, for all traces of some groups in order."""
    _, pooled = pool(rm, [each.tree for each in piece], pad_id)
    logits, total_logit = rm.judge(pooled)
    traces = [(each, c) for each in piece for c in each.traces]
    labels = torch.tensor([[c.rubric.dimensions[name] for name in each.names] for each, c in traces], device=rm.device)
    targets = RMTargets(
        labels,
        torch.tensor([c.rubric.total for _, c in traces], device=rm.device),
        torch.tensor([each.number for each, _ in traces], device=rm.device),
        torch.tensor([c.negative_kind is None for _, c in traces], device=rm.device),
    )
    return logits, rm.combine(logits, total_logit), targets


def read_data(config: Config) -> tuple[list[Group], list[Group]]:
    """The groups of `rm.train` and of `rm.dev` (none without it). Raises ConfigError, or as `read_groups`, naming the key."""
    return read_split("rm", config.rm.train, config.rm.dev, "a TraceLift-Groups file", read_groups)


def refuse_other_rubrics(names: tuple[str, ...], groups: list[Group], path: str) -> None:
    """Raise ValueError where a group's labels are of other dimensions than the heads that would learn them."""
    for group in groups:
        if dimensions_of(group.task_type) != names:
            raise ValueError(
                f"{path}: group {group.problem_id!r} is rubricked for {group.task_type}, but the model's heads are "
                f"{', '.join(names)}; train one model a task type"
            )


def selection(figures: Mapping[str, float | None]) -> tuple[float, ...]:
    """What the best of several models is chosen by, the greater the better: group accuracy; of equals the pair accuracy;
    of equals the (smaller) MAE of the total. Where dev groups hold alternatives, group and pair accuracy with these come
    before the same without. A figure that is None or not finite is the worst. Of models that are equal in all of them the
    later one is taken: it was trained on more."""
    signed = [(figures[name], sign) for name, sign in SELECTION.items() if name in figures]
    return tuple(x * sign if x is not None and math.isfinite(x) else -math.inf for x, sign in signed)


Drawn = tuple[int, Group, list[Candidate]]  # position among all that are ever drawn, group, traces


def draw(group: Group, negatives: int, rng: random.Random) -> list[Candidate]:
    """One positive and up to `negatives` negatives."""
    bank = list(group.negative_bank)
    return [rng.choice(group.positive_pool), *rng.sample(bank, min(negatives, len(bank)))]


class RewardModelStage:
    """A Reason RM in training: its groups, its model, and what one round of it computes."""

    def __init__(self, config: Config, run: RunFolder, world: World, device: torch.device) -> None:
        """Raises ConfigError without data, ValueError where groups and heads have other dimensions."""
        c = config.rm
        self.config, self.run, self.world, self.device = config, run, world, device
        self.groups, self.dev = read_data(config)
        self.rm, self.tokenizer = initial_rm(config, device, self.groups[0].task_type)
        for path, each in ((c.train, self.groups), (c.dev, self.dev)):
            refuse_other_rubrics(self.rm.reward.dimension_names, each, path)
        attach_lora(self.rm, config.lora, config.run.seed, also_train=("dimension_heads", "total_head"))
        self.limit = min(c.max_tokens, self.rm.config.max_positions)
        self.best_folder = run.path / "best"
        self.best = self._best_before()

    def drawn(self, step: int) -> list[Drawn]:
        """The groups of a round, on every rank alike: (position, group, its positive and negatives)."""
        c, seed = self.config.rm, self.config.run.seed
        places = round_places(f"rm:{seed}", len(self.groups), step, c.groups, from_end=True)
        picked = []
        for position, at in enumerate(places, start=step * c.groups):
            group = self.groups[at]
            picked.append((position, group, draw(group, c.negatives, random.Random(f"rm:{seed}:{position}"))))
        return picked

    def pieces(self, chosen: Sequence[Drawn]) -> Iterator[list[Encoded]]:
        """This rank's groups, those of like length together, within the token budget."""
        encoded = (encode(*item, self.tokenizer, self.limit) for item in self.world.share(list(chosen)))
        return micro_batches(encoded, self.config.optim.micro_tokens)

    def round_loss(self, step: int) -> dict[str, float]:
        """Forward and backward over this rank's share of a round; the loss's parts over all ranks."""
        c, everything = self.config.rm, self.drawn(step)
        traces = sum(len(candidates) for _, _, candidates in everything)
        counts = (traces, traces - len(everything))
        sums: dict[str, float] = {}
        for piece in self.pieces(everything):
            parts = rm_loss(
                *judged(self.rm, piece, self.tokenizer.pad_id),
                counts,
                total_weight=c.total_weight,
                rank_weight=c.rank_weight,
                negative_weight=c.negative_weight,
                negative_margin=c.negative_margin,
            )
            parts["loss"].backward()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.item()
        shares = self.world.gather(sums)  # a rank without a group has no names
        return {name: sum(part.get(name, 0.0) for part in shares) for name in max(shares, key=len)}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """How the dev groups are ranked, and each dimension's mean absolute error."""
        rows: list[tuple[float, float, int, bool, str | None, str | None, list[float], list[int]]] = []
        for piece in self.pieces([(i, g, [*g.positive_pool, *g.negative_bank]) for i, g in enumerate(self.dev)]):
            _, scores, t = judged(self.rm, piece, self.tokenizer.pad_id)
            kinds = [x.negative_kind for each in piece for x in each.traces]
            told = [x.positive_kind for each in piece for x in each.traces]
            columns = (scores.total, t.total, t.group, t.positive, kinds, told, scores.dimensions, t.labels)
            rows.extend(zip(*(x if isinstance(x, list) else x.tolist() for x in columns), strict=True))
        rows = [row for part in self.world.gather(rows) for row in part]
        total, gold, owner, positive, kinds, told, dims, labels = (list(x) for x in zip(*rows, strict=True))
        metrics = ranking_metrics(total, gold, owner, positive, kinds, told)
        for d, name in enumerate(self.rm.reward.dimension_names):
            metrics[f"mae/{name}"] = sum(abs(a[d] - b[d]) for a, b in zip(dims, labels, strict=True)) / len(rows)
        return metrics

    def keep_best(self, step: int, metrics: dict[str, float]) -> None:
        """Keep the model of round `step` where none before is better. Its figures lie beside its weights and are replaced
        with them, so that a run which was killed and goes on compares with the model that is there."""
        there = [name for name in SELECTION if name in metrics]
        figures = {name: metrics[name] if math.isfinite(metrics[name]) else None for name in there}
        if self.best is not None and selection(figures) < selection(self.best):
            return
        self.best = {"step": step, **figures}
        if self.world.is_main:
            notes = {SELECTED: json.dumps(self.best, indent=2) + "\n"}
            models.save_reward_model(self.rm, self.best_folder, self.tokenizer, notes=notes)

    def _best_before(self) -> dict[str, Any] | None:
        """Round and figures of the best model so far of the run that is gone on with; None where there is none."""
        file = self.best_folder / SELECTED
        there = self.world.is_main and self.config.run.resume and file.exists()
        return self.world.gather(read_json(file) if there else None)[0]

    def write(self, folder: Path) -> None:
        """A checkpoint's model: adapter and heads alone where the backbone is adapted."""
        if adapted(self.rm):
            save_adapter(self.rm, folder, self.config.rm.init)
        else:
            models.save_reward_model(self.rm, folder, self.tokenizer)

    def read(self, folder: Path) -> RewardModel:
        if not adapted(self.rm):
            return models.load_reward_model(folder, dtype=self.rm.dtype, device=self.device)
        base, _ = initial_rm(self.config, self.device, self.groups[0].task_type)
        load_adapter(base, folder)
        return base

    def export(self) -> Path:
        """The best model, or without dev groups the last, as run/final. Returns that folder on every rank."""
        final = self.run.path / "final"
        if self.world.is_main:
            kept = models.load_reward_model(self.best_folder, dtype=self.rm.dtype) if self.dev else self.rm
            models.save_reward_model(kept.to(getattr(torch, self.config.rm.save_dtype)), final, self.tokenizer)
        self.world.barrier()
        return final


def run_reward_model(
    config: Config, run: RunFolder, world: World, device: torch.device, say: Callable[[str], None]
) -> Path:
    """Train, and leave the best model in run/final. Returns that folder."""
    stage = RewardModelStage(config, run, world, device)
    learner = Learner(stage.rm, config.optim, config.run.steps, world)
    say(f"reward model: {learner.millions}, {len(stage.groups)} groups, {len(stage.dev)} held out")
    fit(
        config,
        run,
        world,
        learner,
        round_loss=stage.round_loss,
        write_model=stage.write,
        read_model=stage.read,
        evaluate=stage.evaluate if stage.dev else None,
        eval_every=config.rm.eval_every,
        shown=SHOWN,
        say=say,
        on_eval=stage.keep_best,
    )
    final = stage.export()
    if world.is_main:
        draw_curves(run.path)
        names = [f"dev/{name}" for name in (*SELECTION, "rmse")] if stage.dev else _PARTS
        say("\n" + write_summary(run.path, "reward model", names, best["step"] if (best := stage.best) else None))
    kept = f", of round {stage.best['step']}, the best on {len(stage.dev)} dev groups" if stage.best else ""
    say(f"model: {final}{kept}   figures: {run.path / 'summary.txt'}   picture: {run.path / 'curves.png'}")
    return final
