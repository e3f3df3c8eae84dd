"""Fused log-prob, entropy and exact KL, from logits or from hidden states. Knows tensors and nothing else.

It imports itself relatively: a copy of this folder works under any name.
"""

from .linear import linear_logprob
from .linear_loss import linear_loss
from .logits import TokenScores, logprob_kl
from .sharded import sharded_logprob_kl

if __name__ == "kernels":  # transformers may look for Hugging Face's package of this name
    from .namesake import attribute as __getattr__  # noqa: F401

__all__ = ["TokenScores", "linear_logprob", "linear_loss", "logprob_kl", "sharded_logprob_kl"]
