"""What one rollout's updates add up to: sums over micro-batches and ranks, and the means that are logged.

    clip_low, clip_high        share of all sampled tokens that the clip held back, mean over passes. Tokens that are not
                               computed have no advantage, and such are never clipped: so it is exact without them
    kl_old, fresh_ratio_*      over the tokens that have an advantage, since only these are computed in every run; not
                               there in a round that has none
    kl                         over all trained tokens, where there is a penalty: then all are computed
    loss, grad_norm            mean over the updates of the round; grad_norm_max is the largest
    tokens_*                   a pass: sampled; with an advantage (moving); with a forward and backward pass (computed)

Left out: the loss (tracelift/rl/grpo.py), figures of the samples, entropy among them (tracelift/rl/metrics.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from tracelift.distributed.world import World
from tracelift.rl.grpo import TrainedTokens


class UpdateTotals:
    """Sums on this rank. `updates` counts those that are done."""

    def __init__(self) -> None:
        self.updates = 0
        self.loss = 0.0
        self.norms: list[float] = []
        # Of `policy_loss`, () fp64: read once, at the end, since a GPU waits for that.
        self.sums: dict[str, Tensor] = {}
        self.fresh_sum, self.fresh_count, self.fresh_max = 0.0, 0, 0.0  # |ratio − 1| before the first update

    def add(self, sums: Mapping[str, Tensor]) -> None:
        """What `policy_loss` found over some tokens."""
        self.sums |= {name: self.sums.get(name, 0) + value for name, value in sums.items()}

    def compare(self, logprob: Tensor, tokens: TrainedTokens) -> None:
        """Log-probs (N,) now. Before the first update the policy is the rollout's own: every ratio should be 1."""
        deviation = (logprob - tokens.old)[tokens.advantage != 0].exp().sub(1).abs()
        if self.updates == 0 and len(deviation):
            self.fresh_sum += deviation.sum().item()
            self.fresh_count += len(deviation)
            self.fresh_max = max(self.fresh_max, deviation.max().item())

    def updated(self, losses: Sequence[tuple[list[int], float]], grad_norm: float) -> None:
        """An update is done; losses: of its micro-batches, with their traces' ids."""
        self.loss += sum(loss for _, loss in losses)
        self.norms.append(grad_norm)
        self.updates += 1

    def means(self, world: World, sampled: int, passes: int) -> dict[str, float]:
        """Over all ranks; sampled: tokens of this rank's traces. An update whose gradient was not finite has no norm in
        the mean; of none that had one it is NaN. Collective."""
        mine = {name: value.item() for name, value in self.sums.items()}
        parts = world.gather((mine, self.loss, self.fresh_sum, self.fresh_count, self.fresh_max, sampled))
        sums = {name: sum(part[0].get(name, 0.0) for part in parts) for name in {n for part in parts for n in part[0]}}
        fresh, tokens = sum(part[3] for part in parts), sum(part[5] for part in parts)
        norms = [n for n in self.norms if math.isfinite(n)] or [math.nan]
        out = {
            "loss": sum(part[1] for part in parts) / self.updates,
            "grad_norm": sum(norms) / len(norms),
            "grad_norm_max": max(norms),
            "tokens_sampled": float(tokens),
            "tokens_moving": sums.get("moving", 0.0) / passes,
            "tokens_computed": sums.get("computed", 0.0) / passes,
        }
        for name in ("clip_low", "clip_high"):
            out[name] = sums.get(name, 0.0) / max(1, tokens * passes)
        if sums.get("moving"):
            out["kl_old"] = sums["kl_old"] / sums["moving"]
        if fresh:
            out["fresh_ratio_deviation"] = sum(part[2] for part in parts) / fresh
            out["fresh_ratio_deviation_max"] = max(part[4] for part in parts)
        if "kl" in sums:
            out["kl"] = sums["kl"] / sums["computed"]
        return out
