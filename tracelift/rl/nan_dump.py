"""The batch behind a gradient that is not finite, kept for study: RUN/nan/step-000007.update-0.rank-0.jsonl

Each rank writes its own rows, just before the update is skipped or the run stops (`optim.on_nan`): first one line with
the gradient's norm, every parameter's own, the loss of every micro-batch and the counts its weights were divided by;
then one line a sample, as in samples.jsonl, with prompt tokens, trained tokens (the targets), their log-probs when
sampled, advantage and reward. A figure that is not finite is spelled "nan" or "inf", which float() reads. Weights are
not in it: a run is named by its seed, so `--resume` from the checkpoint before repeats the round, and the batch,
exactly. At most `optim.nan_batches` files a rank are kept, the first ones: later ones mostly follow from the first.

`python -m tracelift.explain.nan RUN` shows it. Left out: activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tracelift.files import json_line, spelled, write_text
from tracelift.rl.grpo import BatchCounts
from tracelift.rl.sample import Sample
from tracelift.training.packing import Row


def describe(
    rows: Sequence[Row],
    samples: Sequence[Sample],
    advantage: Sequence[float],
    losses: Sequence[tuple[list[int], float]],
    counts: BatchCounts,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(head, samples) for `keep_batch`: the rows of one update, their ids being places in `samples` and `advantage`.

    losses: each micro-batch's sample ids and loss.
    """
    head = {"micro_batches": [{"samples": ids, "loss": loss} for ids, loss in losses], "counts": asdict(counts)}
    ids = [i for row in rows for i in row.sequence_ids]
    return head, [
        samples[i].record()
        | {
            "id": i,
            "advantage": float(advantage[i]),
            "prompt_token_ids": list(samples[i].prompt_tokens),
            "token_ids": list(samples[i].completion.tokens),
            "logprobs": list(samples[i].completion.logprobs),
        }
        for i in ids
    ]


def keep_batch(
    folder: Path,
    limit: int,
    step: int,
    update: int,
    rank: int,
    head: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
) -> Path | None:
    """Write one rank's part of a bad batch; None where this rank has its `limit` of them (a round run again is not new).

    step: 0-based round; update: its number within the round. Raises OSError if the file cannot be written.
    """
    path = folder / f"step-{step + 1:06d}.update-{update}.rank-{rank}.jsonl"
    if not path.exists() and len(list(folder.glob(f"*.rank-{rank}.jsonl"))) >= limit:
        return None
    lines = [{"step": step + 1, "update": update, "rank": rank, **head}, *samples]
    write_text(path, "".join(map(json_line, map(spelled, lines))))
    return path
