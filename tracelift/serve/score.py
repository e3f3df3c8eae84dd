"""`/score`: the Reason RM in the authors' schema.

    {"items": [{"problem", "reasoning", "task_name", "task_type"}], "max_length", "batch_size"} -> {"scores": [total, ...]}

`task_name` is what the input text calls <task> (math or code), `task_type` its <type>. Beside the schema an item may hold
`tests`, and the reply holds `details` (derived, head, dimensions, or the error), `dimension_names` and the weights'
`fingerprint`. An item that cannot be scored, a trace that does not fit `max_length`, has null for a score: never a number
in the middle. Traces are tokenised by the thread of their request, and a long request is several parts of work: neither
holds the requests beside it.

Left out: heads of other models than the one served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracelift.reward_model.scorer import Inputs, LocalScorer, RMScore, ScoreItem
from tracelift.serve.fields import Refused, bad, refuse_unknown, text, whole

ITEM = ("problem", "reasoning", "task_name", "task_type", "tests")


PART = 64  # items of one request in one call at most; a call may hold parts of several


@dataclass(frozen=True)
class Batch:
    """Part of a request."""

    items: tuple[ScoreItem, ...]
    inputs: Inputs  # the tokens of the items
    max_tokens: int
    batch_tokens: int


class Scores:
    """A Reason RM as an endpoint."""

    def __init__(self, scorer: LocalScorer, name: str, most: int = 1024) -> None:
        """most: items of one request."""
        self.scorer, self.name, self.most = scorer, name, most
        self.fingerprint = scorer.fingerprint

    def read(self, body: Mapping[str, Any]) -> list[Batch]:
        """The parts of a request; traces of a problem that stand together go together. Raises Refused with 400."""
        refuse_unknown(body, ("items", "max_length", "batch_size", "model"))
        items = body.get("items")
        if not isinstance(items, list):
            raise bad("items", "must be a list of objects with problem, reasoning, task_name and task_type")
        if len(items) > self.most:
            raise bad("items", f"holds {len(items)} items; at most {self.most} are scored at once")
        limit = self.scorer.max_tokens
        max_tokens = min(whole(body, "max_length", limit, 1, 2**31 - 1), limit)
        size = whole(
            body, "batch_size", 0, 1, 2**31 - 1
        )  # the most traces in one forward pass; absent, the server's choice
        budget = self.scorer.batch_tokens
        bounds = max_tokens, min(budget, size * max_tokens) if size else budget
        read, scorer = tuple(map(_item, range(len(items)), items)), self._scorer(*bounds)
        parts = [read[i : i + PART] for i in range(0, len(read), PART)]
        return [Batch(part, scorer.inputs(part), *bounds) for part in parts]

    def run(self, batches: Sequence[Batch]) -> list[list[RMScore]]:
        """Requests of equal bounds in one call, so that they share problems."""
        found: list[list[RMScore]] = [[] for _ in batches]
        for bounds in dict.fromkeys((b.max_tokens, b.batch_tokens) for b in batches):
            members = [i for i, b in enumerate(batches) if (b.max_tokens, b.batch_tokens) == bounds]
            scores = self._scorer(*bounds).judge({k: v for i in members for k, v in batches[i].inputs.items()})
            for i in members:
                found[i] = [scores[item] for item in batches[i].items]
        return found

    def _scorer(self, max_tokens: int, batch_tokens: int) -> LocalScorer:
        return LocalScorer(self.scorer.rm, self.scorer.tokenizer, max_tokens, batch_tokens)

    def reply(self, scores: Sequence[RMScore]) -> dict[str, Any]:
        details = [
            {"error": s.error}
            if s.error is not None
            else {"total": s.total, "derived": s.derived, "head": s.head, "dimensions": s.dimensions}
            for s in scores
        ]
        return {
            "scores": [None if s.error is not None else s.total for s in scores],
            "details": details,
            "dimension_names": self.scorer.dimension_names,
            "fingerprint": self.fingerprint,
        }


def _item(number: int, item: Any) -> ScoreItem:
    where = f"items[{number}]: "
    if not isinstance(item, Mapping):
        raise Refused(400, f"{where}must be an object", "items")
    refuse_unknown(item, ITEM, where)
    return ScoreItem(
        text(item, "task_name", where),
        text(item, "problem", where),
        text(item, "reasoning", where),
        text(item, "task_type", where, ""),
        text(item, "tests", where, ""),
    )
