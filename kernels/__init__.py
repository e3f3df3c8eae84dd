"""Fused log-prob, entropy and exact KL, from logits or from hidden states. Knows tensors and nothing else."""

from kernels.linear import linear_logprob
from kernels.logits import TokenScores, logprob_kl

__all__ = ["TokenScores", "linear_logprob", "logprob_kl"]
