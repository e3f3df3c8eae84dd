"""How one reward came about, replayed from a run's own record: `python -m tracelift.explain RUN --step N --problem ID`.

    problem → traces → executor outputs with and without → verdicts → RM → reward → advantage → per-token loss weights

Nothing is sampled again. Verdicts of numbers, rewards, advantages and weights are computed anew by the very functions
training used, from the record in samples.jsonl, and compared with what was logged: a line that begins with `!` says
where they differ. Without --problem it lists the round's problems; without --step, the rounds.
Left out: the gradient itself, which depends on the other traces of the batch through nothing but these weights.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import models
from tracelift.errors import ConfigError
from tracelift.explain.prose import explain
from tracelift.explain.replay import ExplainError, grouped, read_round, replay_rewards
from tracelift.rl.flat_groups import has_spread


def overview(run: Path, step: int | None) -> str:
    """What there is to ask about: the rounds, or one round's problems."""
    steps, records = read_round(run, step)
    if step is None:
        return f"{run}: rounds {steps[0]} to {steps[-1]}; add --step N" if steps else f"{run}: no round was logged yet"
    lines = [f"{run}, round {step}; add --problem ID", f"  {'problem':<24} {'right':>6} {'rewards':>18}  spread"]
    groups = grouped(records)
    known = replay_rewards(groups)
    for g, spread in zip(groups, has_spread(known.reward, known.valid).tolist(), strict=True):
        rewards = [r["reward"] for r in g if r["reward"] is not None]
        low, high = (min(rewards), max(rewards)) if rewards else (math.nan, math.nan)
        right = f"{sum(r['e2e'] == 'PASS' for r in g)}/{len(g)}"
        lines.append(f"  {g[0]['problem_id']:<24} {right:>6} {low:8.3f} {high:8.3f}   {'yes' if spread else 'no'}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tracelift.explain", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, help="run folder of the planner stage")
    parser.add_argument("--step", type=int, help="round, counted from 1; without it the rounds are listed")
    parser.add_argument("--problem", help="problem id; without it the round's problems are listed")
    parser.add_argument("--sample", type=int, help="one trace, counted from 1, token by token")
    args = parser.parse_args(argv)
    try:
        if args.step is None or args.problem is None:
            print(overview(args.run, args.step))
        else:
            width = min(120, shutil.get_terminal_size((100, 24)).columns)
            print(explain(args.run, args.step, args.problem, args.sample, width))
    except (ExplainError, ConfigError, models.CheckpointError) as e:
        print(f"tracelift.explain: {e}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
