"""What benchmarks/kernels.py measures: the tasks, and who takes part in each: ours, eager PyTorch, torch.compile, TRL, Liger.

A task from logits is log-prob + entropy (loss Σ g·log p + 0.1·Σ H, one random g a sample); one from hidden states the clipped
policy loss of one update, with the entropy (−0.1·Σ H) or without. Each rival's own interface is called here and nowhere else; one
that is not installed, or has no such function, is a sentence in its place.

Liger has two: its GRPO loss, without an entropy term, and its fused linear scaled cross-entropy, whose NLL and entropy are
differentiable token by token. On a Hopper GPU the second is one CuTe kernel (bf16, needs nvidia-cutlass-dsl); elsewhere, on a CPU
too, it is PyTorch 512 tokens at a time.

Left out: any measuring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import kernels

SEQUENCES = 8  # a task's tokens are this many samples, one advantage each: Liger's chunks are whole samples
BONUS = 0.1  # of the entropy
Data = dict[str, torch.Tensor]
Contender = Callable[[Data], torch.Tensor]  # inputs -> loss; gradients go to the inputs' .grad


@dataclass
class Task:
    """N tokens over V columns, from logits or from H hidden numbers a token."""

    name: str
    dtype: torch.dtype
    N: int
    V: int
    H: int | None = None  # None: from logits
    entropy: bool = True
    peaked: bool = False  # rows as sampling meets them: the target has p = 1 − 1e-4

    def inputs(self, device: str) -> Data:
        gen = torch.Generator(device).manual_seed(0)
        draw = lambda *s: torch.randn(*s, generator=gen, device=device)  # noqa: E731
        data = {
            "y": torch.randint(self.V, (self.N,), generator=gen, device=device),
            "g": draw(SEQUENCES).repeat_interleave(self.N // SEQUENCES),
        }
        if self.H is None:
            logits = 3 * draw(self.N, self.V)
            if self.peaked:
                logits.scatter_(1, data["y"][:, None], logits.logsumexp(-1, keepdim=True) + 9.2)
            data["logits"] = logits.to(self.dtype).requires_grad_()
        else:
            data["hidden"] = draw(self.N, self.H).to(self.dtype).requires_grad_()
            data["weight"] = (draw(self.V, self.H) * 3 / self.H**0.5).to(self.dtype).requires_grad_()
        return data

    def floor(self, backward: bool) -> float:
        """The least work: bytes from logits, FLOPs from hidden states."""
        if self.H is None:
            return (3.0 if backward else 1.0) * self.N * self.V * self.dtype.itemsize
        return (6.0 if backward else 2.0) * self.N * self.V * self.H

    def policy_loss(self, s: kernels.TokenScores, g: torch.Tensor) -> torch.Tensor:
        """On fresh samples the old log-prob is the present one; its value is taken inside, as trainers do."""
        ratio = (s.logprob - s.logprob.detach()).exp()
        loss = -torch.min(ratio * g, ratio.clamp(0.8, 1.2) * g).sum()
        return loss - BONUS * s.entropy.sum() if self.entropy else loss


def tasks(device: str, quick: bool = False) -> list[Task]:
    if quick:
        return [
            Task("logits", torch.float32, 64, 2048),
            Task("hidden", torch.float32, 64, 2048, 64, entropy=False),
            Task("hidden", torch.float32, 64, 2048, 64),
        ]
    if device == "cuda":
        return [
            Task("logits", torch.bfloat16, 8192, 151_936),
            Task("hidden", torch.bfloat16, 8192, 131_072, 4096, entropy=False),
            Task("hidden", torch.bfloat16, 8192, 131_072, 4096),
        ]
    return [
        Task("logits", torch.float32, 64, 151_936),
        Task("logits", torch.bfloat16, 64, 151_936),
        Task("hidden", torch.float32, 512, 32_000, 256, entropy=False),
        Task("hidden", torch.float32, 512, 32_000, 256),
        Task("hidden", torch.float32, 64, 151_936, 256, entropy=False),
    ]


def entropy_of(logp: torch.Tensor) -> torch.Tensor:
    return -(logp.exp() * logp).sum(-1)


def eager_logits(d: Data) -> torch.Tensor:
    logp = d["logits"].float().log_softmax(-1)
    lp = logp.gather(-1, d["y"][:, None]).squeeze(-1)
    return (lp * d["g"]).sum() + BONUS * entropy_of(logp).sum()


def ours_logits(d: Data) -> torch.Tensor:
    s = kernels.logprob_kl(d["logits"], d["y"])
    return (s.logprob * d["g"]).sum() + BONUS * s.entropy.sum()


def contenders(task: Task, device: str) -> dict[str, Contender | str]:
    """Callables, or the reason why one is not here."""
    table: dict[str, Contender | str] = {}
    if task.H is None:
        table |= {"ours": ours_logits, "eager PyTorch": eager_logits, "torch.compile": torch.compile(eager_logits)}
    else:

        def eager(d):
            logp = F.linear(d["hidden"], d["weight"]).float().log_softmax(-1)
            lp = logp.gather(-1, d["y"][:, None]).squeeze(-1)
            h = entropy_of(logp) if task.entropy else lp
            return task.policy_loss(kernels.TokenScores(lp, lp, h, None), d["g"])

        def fused(d):
            return kernels.linear_loss(d["hidden"], d["weight"], d["y"], task.policy_loss, d["g"])[0]

        def scored(d):
            return task.policy_loss(kernels.linear_logprob(d["hidden"], d["weight"], d["y"]), d["g"])

        table |= {"ours, linear_loss": fused, "ours, linear_logprob": scored}
        table |= {"eager PyTorch": eager, "torch.compile": torch.compile(eager)}
    add_trl(table, task)
    add_liger(table, task, device)
    return table


def add_trl(table: dict[str, Contender | str], task: Task) -> None:
    try:
        from trl.kernels.chunked_logprob import ChunkedLogProbFunction
        from trl.trainer.utils import selective_log_softmax_and_entropy
    except ImportError as error:
        table["TRL"] = f"not importable: {error}"
        return

    def from_logits(d):
        lp, entropy = selective_log_softmax_and_entropy(d["logits"], d["y"])
        return (lp.float() * d["g"]).sum() + BONUS * entropy.float().sum()

    def from_hidden(d):
        wanted = ("entropy",) if task.entropy else ()
        lp, h, *_ = ChunkedLogProbFunction.apply(d["hidden"], d["weight"], None, d["y"], 1.0, 8192, None, 1.0, wanted)
        return task.policy_loss(kernels.TokenScores(lp, lp, h, None), d["g"])

    table["TRL"] = from_logits if task.H is None else from_hidden


def add_liger(table: dict[str, Contender | str], task: Task, device: str) -> None:
    grpo, cross_entropy = "Liger, GRPO loss", "Liger, NLL + entropy" if task.entropy else "Liger, NLL"
    if task.H is None:
        table["Liger"] = "no log-prob + entropy from logits"
        return
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss
    except ImportError as error:
        table[grpo] = f"not importable: {error}"
    else:
        options = {"beta": 0.0, "use_ref_model": False, "compiled": device == "cuda", "loss_type": "grpo"}
        loss = LigerFusedLinearGRPOLoss(**options)

        def from_hidden(d):  # its mean over samples and tokens, all of one length, times N is our sum
            hidden, y, g = (d[k].unflatten(0, (SEQUENCES, -1)) for k in ("hidden", "y", "g"))
            return d["y"].numel() * loss(hidden, d["weight"], y, torch.ones_like(y), g[:, 0])[0]

        table[grpo] = "its GRPO loss has no entropy term" if task.entropy else from_hidden
    try:
        from liger_kernel.ops import LigerFusedLinearScaledCrossEntropyFunction as ScaledCrossEntropy
    except ImportError as error:
        table[cross_entropy] = f"not importable: {error}"
        return

    def from_nll(d):
        found = ScaledCrossEntropy.apply(d["hidden"], d["weight"], d["y"], return_entropy=task.entropy)
        nll, h = found if task.entropy else (found, found)
        return task.policy_loss(kernels.TokenScores(-nll, nll, h, None), d["g"])

    table[cross_entropy] = from_nll


def exact_gradients(task: Task, data: Data) -> Data:
    """Float64 gradients of the task's first 8 tokens by their inputs, on the device that holds the data."""
    if task.H is None:
        z = data["logits"].detach()[:8].double().requires_grad_()
        logp, sign, wanted = z.log_softmax(-1), 1.0, {"logits": z}
    else:
        h, w = (data[k].detach()[: None if k == "weight" else 8].double() for k in ("hidden", "weight"))
        logp, sign, wanted = F.linear(h.requires_grad_(), w).log_softmax(-1), -1.0, {"hidden": h}
    loss = sign * (logp.gather(-1, data["y"][:8, None])[:, 0] * data["g"][:8]).sum()
    if task.entropy:
        loss = loss + sign * BONUS * entropy_of(logp).sum()
    loss.backward()
    return {k: v.grad for k, v in wanted.items() if v.grad is not None}
