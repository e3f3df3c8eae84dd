"""The Reason Reward Model at work: its input text, and scoring in batches.

Left out: the architecture (models/reward.py), losses and metrics (tracelift/reward_model/loss.py), the training stage
(tracelift/reward_model/train.py), calibration after training.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from models import RewardModel, Tokenizer
from models.reward import RewardScores
from tracelift.reward_model.prefix_tree import Tree, pack_trees, trees
from tracelift.training.packing import micro_batches


def rm_text(task_type: str, problem: str, reasoning: str, type_text: str = "", tests: str = "") -> str:
    """The RM's input, one field a line, as the authors' released models read it."""
    lines = [f"<task>{task_type}</task>", f"<type>{type_text}</type>", "<problem>", problem, "</problem>"]
    if tests:
        lines += ["<tests>", tests, "</tests>"]
    return "\n".join([*lines, "<reasoning>", reasoning, "</reasoning>"])


def rm_tokens(
    tokenizer: Tokenizer,
    max_tokens: int,
    task_type: str,
    problem: str,
    reasoning: str,
    type_text: str = "",
    tests: str = "",
) -> list[int]:
    """`rm_text` in at most `max_tokens` tokens. Too long: the problem loses its beginning; the reasoning is never cut.

    Special tokens spelt in any of them are text. Raises ValueError where the reasoning and the frame alone exceed
    `max_tokens`.
    """
    problem, reasoning, type_text, tests = map(tokenizer.user_text, (problem, reasoning, type_text, tests))
    kept, most = problem, tokenizer.most_characters(max_tokens)
    too_long = ValueError(
        f"a trace of {len(reasoning)} characters does not fit the RM's {max_tokens} tokens; raise max_tokens"
    )
    if most is not None:  # said, and shortened, without the time it takes to tokenise what cannot fit
        if len(rm_text(task_type, "", reasoning, type_text, tests)) > most:
            raise too_long
        kept = problem[-most:]
    ids = tokenizer.encode(rm_text(task_type, kept, reasoning, type_text, tests))
    while len(ids) > max_tokens:
        if not kept:
            raise too_long
        excess = len(ids) - max_tokens
        kept = kept[max(16, 2 * excess) :]
        ids = tokenizer.encode(rm_text(task_type, kept, reasoning, type_text, tests))
    return ids


@dataclass(frozen=True)
class RMScore:
    """total, derived, head in [0, 1]; `dimensions` are expected labels 0–4. `error` set: no score could be had."""

    total: float
    derived: float
    head: float | None
    dimensions: tuple[float, ...]
    error: str | None = None


def no_score(error: str) -> RMScore:
    """An ERROR: whoever reads it drops the sample."""
    return RMScore(0.0, 0.0, None, (), error)


@dataclass(frozen=True)
class ScoreItem:
    """What there is to judge. `tests` and `type_text` may be empty; `truth`, a demo world's own record of the problem, is
    for judges that know it, and no part of what the item is."""

    task_type: str
    problem: str
    reasoning: str
    type_text: str = ""
    tests: str = ""
    truth: object = field(default=None, compare=False, repr=False)


Inputs = dict[ScoreItem, list[int] | RMScore]  # what each item is to a model: tokens, or why it has none


class Scorer(Protocol):
    """A Reason RM, local or behind a server. `fingerprint` changes with whatever its scores depend on."""

    dimension_names: tuple[str, ...]  # empty where a server does not say
    flaw_kinds: tuple[str, ...]  # those of its training; empty where unknown

    @property
    def fingerprint(self) -> str: ...

    def score(self, items: Sequence[ScoreItem]) -> list[RMScore]: ...


class LocalScorer:
    """Scores with a model in this process: equal items once, and traces of one problem share their common tokens."""

    def __init__(
        self, rm: RewardModel, tokenizer: Tokenizer, max_tokens: int = 2048, batch_tokens: int = 16384
    ) -> None:
        self.rm, self.tokenizer = rm.eval(), tokenizer
        self.max_tokens, self.batch_tokens = min(max_tokens, rm.config.max_positions), batch_tokens
        self.dimension_names, self.flaw_kinds = rm.reward.dimension_names, rm.reward.flaw_kinds

    @property
    def fingerprint(self) -> str:
        """sha256 over architecture, weights and the tokenizer's behaviour."""
        digest = hashlib.sha256(repr((self.rm.config, self.rm.reward, self.max_tokens)).encode())
        with torch.no_grad():
            for name, p in self.rm.named_parameters():
                sums = p.double().sum().item(), p.double().square().sum().item()
                digest.update(f"{name} {tuple(p.shape)} {p.dtype} {sums[0]!r} {sums[1]!r}".encode())
        probe = "A probe: 12 + 34.5 = 46.5;\n<reasoning></reasoning>"
        digest.update(repr(self.tokenizer.encode(probe)).encode())
        return digest.hexdigest()

    def score(self, items: Sequence[ScoreItem]) -> list[RMScore]:
        known = self.judge(self.inputs(items))
        return [known[item] for item in items]

    def inputs(self, items: Sequence[ScoreItem]) -> Inputs:
        """Each distinct item's tokens, or the ERROR of one that does not fit."""
        found: Inputs = {}
        for item in dict.fromkeys(items):
            try:
                found[item] = rm_tokens(
                    self.tokenizer,
                    self.max_tokens,
                    item.task_type,
                    item.problem,
                    item.reasoning,
                    item.type_text,
                    item.tests,
                )
            except ValueError as e:
                found[item] = no_score(str(e))
        return found

    def judge(self, inputs: Inputs) -> dict[ScoreItem, RMScore]:
        """The score of each item; one that is an ERROR already stays so."""
        known = {item: ids for item, ids in inputs.items() if isinstance(ids, RMScore)}
        encoded = [(item, ids) for item, ids in inputs.items() if not isinstance(ids, RMScore)]
        problems = {item.problem: i for i, (item, _) in enumerate(encoded)}
        rows = trees([ids for _, ids in encoded], [problems[item.problem] for item, _ in encoded])
        for micro in micro_batches(rows, self.batch_tokens):
            with torch.no_grad():
                ids, pooled = pool(self.rm, micro, self.tokenizer.pad_id)
                scores = self.rm.combine(*self.rm.judge(pooled))
            for i, row in zip(ids.tolist(), _rows(scores), strict=True):
                known[encoded[i][0]] = row
        return known


def pool(rm: RewardModel, rows: Sequence[Tree], pad_id: int) -> tuple[Tensor, Tensor]:  # -> (S,) int64, (S, D)
    """Sequence ids and last hidden states: what the traces of a group have in common is read once."""
    batch = pack_trees(rows, pad_id, rm.device)
    return batch.ids, batch.last(rm.model(batch.tokens, batch.positions, batch.attend()))


def _rows(scores: RewardScores) -> list[RMScore]:
    total, derived, dimensions = scores.total.tolist(), scores.derived.tolist(), scores.dimensions.tolist()
    head = scores.head.tolist() if scores.head is not None else [None] * len(total)
    return [
        RMScore(t, d, h, tuple(x))
        if math.isfinite(t)
        else no_score("the Reason RM's score is not finite: its weights hold NaN or overflow")
        for t, d, h, x in zip(total, derived, head, dimensions, strict=True)
    ]


@dataclass(frozen=True)
class RMTargets:
    """Gold for B traces: labels (B, dims) int64 0–4, total (B,) fp32 in [0, 1], group (B,) int64, positive (B,) bool."""

    labels: Tensor
    total: Tensor
    group: Tensor
    positive: Tensor
