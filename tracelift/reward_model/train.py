"""Stage "reward_model": train a Reason RM on TraceLift-Groups.

Each round takes a batch of groups: their positives (one drawn per group) and `rm.negatives` drawn negatives. Losses and
weights are those of tracelift/reward_model/loss.py. The best model by dev group accuracy is what the stage leaves in final/.
With `lora.r` above 0 the backbone is adapted and the heads trained in full. Metrics per kind of flaw and per dimension stand
in metrics.jsonl; calibration and intervals come from `eval.py reward-model`. Left out: judges, recalibration.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import models
from models import RewardConfig, RewardModel, Tokenizer
from models.lora import adapted, load_adapter, save_adapter
from models.reward import RewardScores
from tracelift.config import Config
from tracelift.distributed.world import World
from tracelift.errors import ConfigError
from tracelift.reward_model.group_format import Candidate, Group, read_groups
from tracelift.reward_model.loss import ranking_metrics, rm_loss
from tracelift.reward_model.prefix_tree import Tree
from tracelift.reward_model.scorer import RMTargets, pool, rm_tokens
from tracelift.rubrics import dimensions_of
from tracelift.runs.folder import RunFolder
from tracelift.runs.plots import draw_curves
from tracelift.training.fit import fit
from tracelift.training.learner import Learner
from tracelift.training.lora import attach_lora
from tracelift.training.packing import micro_batches


def initial_rm(config: Config, device: torch.device, task_type: str) -> tuple[RewardModel, Tokenizer]:
    """An earlier reward model, or a language model's backbone under fresh heads."""
    path = config.rm.init
    if not path:
        raise ConfigError("rm.init: give the backbone's folder")
    dtype = getattr(torch, config.run.dtype)
    tokenizer = models.load_tokenizer(path)
    try:
        lm = models.load_pretrained(path, dtype=dtype, device=device)
    except models.CheckpointError as e:
        if "Reason Reward Model" not in str(e):
            raise
        return models.load_reward_model(path, dtype=dtype, device=device), tokenizer
    return RewardModel.from_transformer(lm, RewardConfig(dimensions_of(task_type)), config.run.seed), tokenizer


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


def refuse_other_rubrics(rm: RewardModel, groups: list[Group], path: str) -> None:
    """Raise ValueError where a group's labels are of other dimensions than the heads that would learn them."""
    for group in groups:
        if dimensions_of(group.task_type) != rm.reward.dimension_names:
            raise ValueError(
                f"{path}: group {group.problem_id!r} is rubricked for {group.task_type}, but the model's heads are "
                f"{', '.join(rm.reward.dimension_names)}; train one model a task type"
            )


def draw(group: Group, negatives: int, rng: random.Random) -> list[Candidate]:
    """One positive and up to `negatives` negatives."""
    bank = list(group.negative_bank)
    return [rng.choice(group.positive_pool), *rng.sample(bank, min(negatives, len(bank)))]


def run_reward_model(
    config: Config, run: RunFolder, world: World, device: torch.device, say: Callable[[str], None]
) -> Path:
    """Train, and leave the best model in run/final. Returns that folder."""
    c = config.rm
    if not c.train:
        raise ConfigError("rm.train: give a TraceLift-Groups file")
    groups = read_groups(c.train)
    dev = read_groups(c.dev) if c.dev else []
    rm, tokenizer = initial_rm(config, device, groups[0].task_type)
    for path, each in ((c.train, groups), (c.dev, dev)):
        refuse_other_rubrics(rm, each, path)
    attach_lora(rm, config.lora, config.run.seed, also_train=("dimension_heads", "total_head"))
    limit = min(c.max_tokens, rm.config.max_positions)
    learner = Learner(rm, config.optim, config.run.steps, world)
    say(
        f"reward model: {sum(p.numel() for p in learner.names) / 1e6:.2f} M trained parameters, {len(groups)} groups, {len(dev)} held out"
    )
    orders: dict[int, list[int]] = {}

    def chosen_for(step: int) -> list[tuple[int, Group, list[Candidate]]]:
        picked = []
        for position in range(step * c.groups, (step + 1) * c.groups):
            epoch, at = divmod(position, len(groups))
            if epoch not in orders:
                orders.clear()
                orders[epoch] = random.Random(f"rm:{config.run.seed}:{epoch}").sample(range(len(groups)), len(groups))
            group = groups[orders[epoch][at]]
            rng = random.Random(f"rm:{config.run.seed}:{position}")
            picked.append((position, group, draw(group, c.negatives, rng)))
        return picked

    def pieces(chosen: list[tuple[int, Group, list[Candidate]]]) -> Iterator[list[Encoded]]:
        """This rank's groups, those of like length together, within the token budget."""
        encoded = (encode(*item, tokenizer, limit) for item in world.share(chosen))
        return micro_batches(encoded, config.optim.micro_tokens)

    def round_loss(step: int) -> dict[str, float]:
        everything = chosen_for(step)
        traces = sum(len(cs) for _, _, cs in everything)
        counts = (traces, traces - len(everything))
        sums: dict[str, float] = {}
        for piece in pieces(everything):
            logits, scores, targets = judged(rm, piece, tokenizer.pad_id)
            parts = rm_loss(
                logits,
                scores,
                targets,
                counts,
                total_weight=c.total_weight,
                rank_weight=c.rank_weight,
                negative_weight=c.negative_weight,
                negative_margin=c.negative_margin,
            )
            parts["loss"].backward()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.item()
        shares = world.gather(sums)  # a rank without a group has no names
        return {name: sum(part.get(name, 0.0) for part in shares) for name in max(shares, key=len)}

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        everything = [(i, g, [*g.positive_pool, *g.negative_bank]) for i, g in enumerate(dev)]
        rows: list[tuple[float, float, int, bool, str | None, list[float], list[int]]] = []
        for piece in pieces(everything):
            _, scores, t = judged(rm, piece, tokenizer.pad_id)
            kinds = [x.negative_kind for each in piece for x in each.traces]
            rows.extend(
                zip(
                    scores.total.tolist(),
                    t.total.tolist(),
                    t.group.tolist(),
                    t.positive.tolist(),
                    kinds,
                    scores.dimensions.tolist(),
                    t.labels.tolist(),
                    strict=True,
                )
            )
        rows = [row for part in world.gather(rows) for row in part]
        total, gold, owner, positive, kinds, dims, labels = (list(x) for x in zip(*rows, strict=True))
        metrics = ranking_metrics(total, gold, owner, positive, kinds)
        for d, name in enumerate(rm.reward.dimension_names):
            metrics[f"mae/{name}"] = sum(abs(a[d] - b[d]) for a, b in zip(dims, labels, strict=True)) / len(rows)
        return metrics

    best_folder, best = run.path / "best", [-1.0]
    if run.writes and (best_folder / "config.json").exists() and config.run.resume:
        best[0] = max(
            (r["dev/group_accuracy"] for r in run.read("metrics.jsonl") if "dev/group_accuracy" in r), default=-1.0
        )

    def keep_best(step: int, metrics: dict[str, float]) -> None:
        if metrics["group_accuracy"] > best[0]:
            best[0] = metrics["group_accuracy"]
            if world.is_main:
                models.save_reward_model(rm, best_folder, tokenizer)

    def write_model(folder: Path) -> None:
        if adapted(rm):
            save_adapter(rm, folder, c.init)
        else:
            models.save_reward_model(rm, folder, tokenizer)

    def read_model(folder: Path) -> RewardModel:
        if not adapted(rm):
            return models.load_reward_model(folder, dtype=rm.dtype, device=device)
        base, _ = initial_rm(config, device, groups[0].task_type)
        load_adapter(base, folder)
        return base

    fit(
        config,
        run,
        world,
        learner,
        round_loss=round_loss,
        write_model=write_model,
        read_model=read_model,
        evaluate=evaluate if dev else None,
        eval_every=c.eval_every,
        say=say,
        on_eval=keep_best,
    )
    final = run.path / "final"
    if world.is_main:
        draw_curves(run.path)
        kept = models.load_reward_model(best_folder, dtype=rm.dtype) if dev else rm
        models.save_reward_model(kept.to(getattr(torch, c.save_dtype)), final, tokenizer)
    world.barrier()
    say(f"reward model saved in {final}" + (f", best dev group accuracy {best[0]:.3f}" if dev else ""))
    return final
