"""What one rollout's updates add up to: sums over micro-batches and ranks, and their means.

Left out: the loss (tracelift/rl/grpo.py), figures of the samples (tracelift/rl/metrics.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from tracelift.distributed.world import World

MEANS = ("clip_low", "clip_high", "kl_old", "entropy", "kl")  # a trained token's


class UpdateTotals:
    """Sums on this rank. `updates` counts those that are done."""

    def __init__(self) -> None:
        self.updates = 0
        self.loss = 0.0
        self.sums: dict[str, float] = dict.fromkeys((*MEANS, "tokens"), 0.0)
        self.fresh_sum, self.fresh_count, self.fresh_max = 0.0, 0, 0.0  # |ratio − 1| before the first update

    def add(self, sums: Mapping[str, Tensor]) -> None:
        """What `policy_loss` found over some tokens."""
        for name, value in sums.items():
            if name in self.sums:
                self.sums[name] += value.item()

    def compare(self, logprob: Tensor, old: Tensor) -> None:
        """Log-probs (N,) now and when sampled. Before the first update the policy is the rollout's own: every ratio
        should be 1."""
        if self.updates == 0:
            deviation = (logprob - old).exp().sub(1).abs()
            self.fresh_sum += deviation.sum().item()
            self.fresh_count += deviation.numel()
            self.fresh_max = max(self.fresh_max, deviation.max().item())

    def updated(self, losses: Sequence[tuple[list[int], float]]) -> None:
        """An update is done; losses: of its micro-batches, with their traces' ids."""
        self.loss += sum(loss for _, loss in losses)
        self.updates += 1

    def means(self, world: World) -> dict[str, float]:
        """Over all ranks: the loss an update, the others a trained token. Collective."""
        parts = world.gather((self.sums, self.loss, self.fresh_sum, self.fresh_count, self.fresh_max))
        tokens = max(1.0, sum(sums["tokens"] for sums, *_ in parts))
        out = {"loss": sum(loss for _, loss, *_ in parts) / self.updates}
        out |= {name: sum(sums[name] for sums, *_ in parts) / tokens for name in MEANS}
        out["fresh_ratio_deviation"] = sum(p[2] for p in parts) / max(1.0, float(sum(p[3] for p in parts)))
        out["fresh_ratio_deviation_max"] = max(p[4] for p in parts)
        return out
