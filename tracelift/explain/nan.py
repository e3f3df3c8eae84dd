"""What was kept of a batch whose gradient was not finite: `python -m tracelift.explain.nan RUN [FILE]`.

Names the parameters and micro-batches that are not finite and the samples in them. Left out: what is kept, and when
(tracelift/rl/nan_dump.py).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracelift.files import read_log

_SHOWN = 12  # most parameters and micro-batches listed


def show(path: Path) -> str:
    """What is in one file, most telling first. Raises ValueError where it is no such file."""
    records = read_log(path)
    if not records or "grad_norms" not in records[0]:
        raise ValueError(f"{path}: is not a batch kept by keep_batch")
    head, samples = records[0], records[1:]
    norms = {name: float(norm) for name, norm in head["grad_norms"].items()}  # "nan", "inf" are spelled out
    bad = [name for name, norm in norms.items() if not math.isfinite(norm)]
    finite = sorted(((n, name) for name, n in norms.items() if math.isfinite(n)), reverse=True)
    lines = [
        f"round {head['step']}, update {head['update']}, rank {head['rank']}: gradient norm {head['grad_norm']}",
        f"gradients that are not finite: {len(bad)} of {len(norms)} parameters",
        *_some(f"  {name}" for name in bad),
    ]
    if finite:
        lines += ["largest finite ones:", *(f"  {norm:.4g}  {name}" for norm, name in finite[:5])]
    suspects: set[int] = set()
    odd = [m for m in head["micro_batches"] if not math.isfinite(float(m["loss"]))]
    lines.append(f"micro-batches whose loss is not finite: {len(odd)} of {len(head['micro_batches'])}")
    for m in odd:
        suspects |= set(m["samples"])
    lines += _some(f"  loss {m['loss']} on samples {m['samples']}" for m in odd)
    lines.append(
        f"{'sample':>8}{'tokens':>8}{'advantage':>11}{'reward':>9}{'least log-prob':>16}  problem  (* in such a micro-batch)"
    )
    for s in sorted(samples, key=lambda s: (s["id"] not in suspects, s["id"])):
        least = min(map(float, s["logprobs"]), default=0.0)
        reward = "none" if s["reward"] is None else f"{s['reward']:.3f}"
        lines.append(
            f"{s['id']:>7}{'*' if s['id'] in suspects else ' '}{len(s['token_ids']):>8}{s['advantage']:>11.3f}{reward:>9}"
            f"{least:>16.3f}  {s['problem_id']}  {s['text'][:60]!r}"
        )
    return "\n".join(lines)


def _some(lines: Any) -> list[str]:
    listed = list(lines)
    more = [f"  ... and {len(listed) - _SHOWN} more"] if len(listed) > _SHOWN else []
    return listed[:_SHOWN] + more


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help") or len(argv) > 2:
        print(
            "usage: python -m tracelift.explain.nan RUN [FILE]\n\n"
            "Show a batch whose gradient was not finite; without FILE list those the run kept."
        )
        return 0 if argv and argv[0] in ("-h", "--help") else 1
    folder = Path(argv[0]) / "nan"
    found = sorted(folder.glob("*.jsonl"))
    try:
        if len(argv) == 2:
            path = Path(argv[1])
            print(show(path if path.exists() else folder / argv[1]))
        elif len(found) == 1:
            print(show(found[0]))
        else:
            print("\n".join(p.name for p in found) or f"{folder}: no batch was kept; every gradient was finite")
        return 0
    except (OSError, ValueError, KeyError, TypeError) as e:
        print(f"tracelift.explain.nan: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
