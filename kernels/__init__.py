"""Fused log-prob, entropy and exact KL, from logits or from hidden states. Knows tensors and nothing else."""

from kernels.linear import linear_logprob
from kernels.linear_loss import linear_loss
from kernels.logits import TokenScores, logprob_kl
from kernels.sharded import sharded_logprob_kl

__all__ = ["TokenScores", "linear_logprob", "linear_loss", "logprob_kl", "sharded_logprob_kl"]
