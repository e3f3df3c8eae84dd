"""`logprob_kl`: log-prob, log-sum-exp, entropy and exact KL of given tokens from logits, all differentiable.

Checks the arguments, those of the forms from hidden states too, chooses the backend, and gives the results the shape of the
targets; the mathematics is in kernels/reference.py and kernels/triton_*.py. Left out: any policy-gradient algebra, which
belongs to the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import ops
from .reference import MaybeTensor, Scaling

BACKENDS = ("auto", "triton", "torch")


class TokenScores(NamedTuple):
    """Scores of one token each, in nats, fp32 (float64 for float64 inputs), in the shape of the targets."""

    logprob: Tensor  # log p(target)
    logsumexp: Tensor  # log Σ_j exp(z_j / T)
    entropy: Tensor  # −Σ_j p_j log p_j
    kl: Tensor | None  # Σ_j p_j log(p_j / q_j), None without a reference

    @classmethod
    def of(cls, scores: Sequence[Tensor]) -> TokenScores:
        """From three tensors, or from four where there is a reference."""
        logprob, logsumexp, entropy, *kl = scores
        return cls(logprob, logsumexp, entropy, kl[0] if kl else None)


def choose_backend(backend: str, tensor: Tensor) -> str:
    """ "auto" is Triton on a GPU and PyTorch elsewhere; float64 exists only in PyTorch."""
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: choose one of {', '.join(map(repr, BACKENDS))}")
    if backend == "triton" and tensor.dtype == torch.float64:
        raise TypeError("backend='triton' computes in fp32: pass float64 tensors to backend='torch'")
    if backend != "auto":
        return backend
    return "triton" if tensor.device.type == "cuda" and tensor.dtype != torch.float64 else "torch"


def check_targets(targets: Tensor, shape: torch.Size, vocab: int, ignore_index: int, what: str) -> Tensor:
    """Targets as (N,) int64; raises where they cannot be indices into `vocab` columns.

    Out-of-range values are looked for on the CPU only: on a GPU that would wait for the device, so there the kernels
    answer NaN for such a row instead of reading memory that is not theirs.
    """
    if targets.shape != shape:
        raise ValueError(f"targets have shape {tuple(targets.shape)}, but {what} asks for {tuple(shape)}")
    if targets.dtype.is_floating_point or targets.dtype.is_complex or targets.dtype == torch.bool:
        raise TypeError(f"targets must be integers (token ids), not {targets.dtype}")
    flat = targets.reshape(-1).long().contiguous()  # reshape alone may leave a stride
    if flat.device.type == "cpu" and not torch.compiler.is_compiling() and flat.numel():
        low, high = flat.aminmax()
        outside = int(low) < 0 or int(high) >= vocab  # which the ignored may be
        bad = (((flat < 0) | (flat >= vocab)) & (flat != ignore_index)).nonzero() if outside else flat[:0]
        if len(bad):
            i = int(bad[0])
            raise IndexError(
                f"target {int(flat[i])} at flat position {i} is outside the vocabulary of {vocab} "
                f"(and is not ignore_index={ignore_index})"
            )
    return flat


def check_scaling(
    temperature: float | Tensor, softcap: float | None, targets: Tensor, ignore_index: int, dtype: torch.dtype
) -> Scaling:
    """What divides and caps the logits of targets (...), whose rows may each have a temperature; `dtype` of the logits.

    A row's is looked at on the CPU only, as targets are: on a GPU one that is not positive and finite answers NaN.
    """
    for name, value in (("temperature", temperature), ("softcap", softcap)):
        if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name} requires grad, but it is a constant here: apply it to the logits, or detach it")
    cap = 0.0 if softcap is None else float(softcap)
    if softcap is not None and not 0 < cap < float("inf"):
        raise ValueError(f"softcap={cap}: must be positive and finite, or None for none")
    advice = "must be positive and finite (greedy decoding needs no log-probs)"
    if isinstance(temperature, Tensor) and temperature.dim() and temperature.shape == targets.shape:
        each = temperature.detach().reshape(-1).double()
        good = (each > 0) & (each < float("inf"))
        if each.device.type == "cpu" and not torch.compiler.is_compiling():
            bad = (~good & (targets.reshape(-1) != ignore_index)).nonzero()
            if len(bad):
                raise ValueError(f"temperature={float(each[bad[0]])} at flat position {int(bad[0])}: {advice}")
        inverse = torch.where(good, 1.0 / each, torch.nan)
        return Scaling(softcap=cap, row_inverse=inverse.to(torch.float64 if dtype == torch.float64 else torch.float32))
    if isinstance(temperature, Tensor) and temperature.numel() != 1:
        shapes = f"{tuple(temperature.shape)}, targets {tuple(targets.shape)}"
        raise ValueError(f"temperature has shape {shapes}: one number, or one a target")
    temperature = float(temperature)
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: {advice}")
    return Scaling(temperature, cap)


def logprob_kl(
    logits: Tensor,
    targets: Tensor,
    ref_logits: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    *,
    softcap: float | None = None,
    ignore_index: int = -100,
    vocab_size: int | None = None,
    inplace_grad: bool = False,
    backend: str = "auto",
) -> TokenScores:
    """Score `targets` under softmax(logits / temperature), and its exact KL from softmax(ref_logits / temperature).

    With a soft cap c, logits stand for c·tanh(logits / c).

    Args:
        logits: (..., V) fp32, bf16, fp16 or float64; any leading strides. The arithmetic is fp32 whatever the dtype.
        targets: (...) integer token ids. Rows whose target is `ignore_index` score 0, get no gradient, and are not
            read.
        ref_logits: (..., V), a constant: it gets no gradient.
        temperature: divides both; part of the distribution that is scored. In nats everything, not in units of T. A
            number, or a tensor in the shape of `targets` with one for each row. A head's logit scale s divides it by s.
        softcap: c of a head that caps its logits, those of the reference too; None for one that does not. With a logit
            scale s pass softcap=c / s and temperature=T / s.
        vocab_size: columns from here on are padding of the head: no probability and no gradient.
        inplace_grad: the backward pass overwrites `logits` with their gradient, saving V numbers a row. Autograd
            raises if anything else in the graph still needs the logits; a leaf, overlapping rows, and a reference in
            the same memory are refused.
        backend: "triton", "torch", or "auto": Triton on a GPU, PyTorch elsewhere.

    −inf logits are tokens of probability 0, capped or not. A target at −inf has log-prob −inf. A row of −inf alone is an empty
    distribution: log-prob and logsumexp −inf, entropy and KL 0, no gradient. KL is +inf, with a gradient of 0, where
    the reference gives probability 0 to a token that the policy can choose. NaN and +inf give NaN in that row only.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or options that do not fit together.
        IndexError: a target outside the vocabulary (checked on the CPU; NaN on a GPU).

    Source: Shao et al. 2024 (arXiv 2402.03300) for the roles of log-prob and KL in GRPO; derivation in docs/kernels.md.
    """
    if logits.dim() < 1 or logits.shape[-1] == 0:
        raise ValueError(f"logits have shape {tuple(logits.shape)}: the last dimension must be the vocabulary")
    if not logits.dtype.is_floating_point:
        raise TypeError(f"logits must be floating point, not {logits.dtype}")
    vocab = check_vocab(vocab_size, logits.shape[-1])
    flat = check_targets(targets, logits.shape[:-1], vocab, ignore_index, f"logits of shape {tuple(logits.shape)}")
    if ref_logits is not None:
        if ref_logits.shape != logits.shape:
            raise ValueError(f"ref_logits have shape {tuple(ref_logits.shape)}, logits {tuple(logits.shape)}")
        if ref_logits.requires_grad and torch.is_grad_enabled():
            raise ValueError("ref_logits require grad, but the reference is a constant here: pass ref_logits.detach()")
    if inplace_grad:
        check_own_memory(logits, ref_logits)
    logits, ref_logits = unit_stride(logits), unit_stride(ref_logits)
    scaling = check_scaling(temperature, softcap, targets, ignore_index, logits.dtype)
    out = ops.score(
        logits,
        flat,
        ref_logits,
        scaling.row_inverse,
        scaling.temperature,
        scaling.softcap,
        ignore_index,
        vocab,
        choose_backend(backend, logits),
        inplace_grad,
    )
    return TokenScores.of([o.view(targets.shape) for o in out[: 3 if ref_logits is None else 4]])


def check_own_memory(logits: Tensor, ref_logits: Tensor | None) -> None:
    """Raises where a gradient written over `logits` would also write over something else that is read."""
    if logits.is_leaf and logits.requires_grad:
        raise ValueError("inplace_grad=True would overwrite a parameter: these logits are a leaf of the graph")
    reach = 1  # of the dimensions so far, the nearest first; the next must step over it
    for stride, size in sorted((s, n) for s, n in zip(logits.stride(), logits.shape, strict=True) if n > 1):
        if stride < reach:
            raise ValueError(
                "inplace_grad=True needs rows of their own, but these logits are an expanded or overlapping view"
            )
        reach += stride * (size - 1)
    if ref_logits is None or torch.compiler.is_compiling():
        return
    (begin, end), (ref_begin, ref_end) = memory_of(logits), memory_of(ref_logits)
    if logits.device == ref_logits.device and begin < ref_end and ref_begin < end:
        raise ValueError("inplace_grad=True would overwrite ref_logits, which share memory with the logits: clone them")


def memory_of(x: Tensor) -> tuple[int, int]:
    """Addresses of the first byte of a tensor and behind its last; both 0 for one without elements."""
    if not x.numel():
        return 0, 0
    last = sum(s * (n - 1) for s, n in zip(x.stride(), x.shape, strict=True))
    return x.data_ptr(), x.data_ptr() + (last + 1) * x.element_size()


def check_vocab(vocab_size: int | None, columns: int) -> int:
    if vocab_size is None:
        return columns
    if not 0 < vocab_size <= columns:
        raise ValueError(f"vocab_size={vocab_size}: must lie between 1 and the {columns} columns of the logits")
    return vocab_size


def unit_stride(x: MaybeTensor) -> MaybeTensor:
    """Columns side by side, as the kernels want them; a transposed matrix is copied once."""
    return x if x is None or x.stride(-1) == 1 else x.contiguous()


class LinearInputs(NamedTuple):
    """Hidden states and heads, flat: N tokens, of a vocabulary of V."""

    hidden: Tensor  # (N,H)
    weight: Tensor  # (V,H)
    bias: Tensor | None  # (V,)
    targets: Tensor  # (N,)
    ref_hidden: Tensor | None  # (N,H')
    ref_weight: Tensor | None  # (V,H')
    ref_bias: Tensor | None  # (V,)


def check_linear(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    ref_hidden: Tensor | None,
    ref_weight: Tensor | None,
    ref_bias: Tensor | None,
    vocab_size: int | None,
    ignore_index: int,
) -> LinearInputs:
    if weight.dim() != 2 or hidden.dim() < 1 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} must be (..., H) and (V, H)")
    if torch.is_autocast_enabled(hidden.device.type):  # as F.linear would
        hidden, weight = autocast(hidden), autocast(weight)
        bias, ref_hidden, ref_weight, ref_bias = map(autocast, (bias, ref_hidden, ref_weight, ref_bias))
    if hidden.dtype != weight.dtype:
        raise TypeError(f"hidden is {hidden.dtype} and weight {weight.dtype}: cast one of them, or run under autocast")
    vocab = check_vocab(vocab_size, len(weight))
    chosen = check_targets(targets, hidden.shape[:-1], vocab, ignore_index, f"hidden of shape {tuple(hidden.shape)}")
    if ref_hidden is None and not (ref_weight is None and ref_bias is None):
        raise ValueError("ref_weight or ref_bias was given without ref_hidden")
    if ref_hidden is not None:
        if ref_weight is None:
            ref_weight = weight.detach()
            ref_bias = bias.detach() if ref_bias is None and bias is not None else ref_bias
        if (
            any(x is not None and x.requires_grad for x in (ref_hidden, ref_weight, ref_bias))
            and torch.is_grad_enabled()
        ):
            raise ValueError(
                "ref_hidden, ref_weight or ref_bias requires grad, but the reference is a constant: detach them"
            )
        if ref_hidden.shape[:-1] != hidden.shape[:-1] or ref_weight.shape != (len(weight), ref_hidden.shape[-1]):
            raise ValueError(
                f"ref_hidden {tuple(ref_hidden.shape)} and ref_weight {tuple(ref_weight.shape)} must be "
                f"(..., H') and (V, H') with the leading shape and V of hidden and weight"
            )
        ref_hidden = ref_hidden.reshape(-1, ref_hidden.shape[-1])
    for name, b in (("bias", bias), ("ref_bias", ref_bias)):
        if b is not None and (b.shape != weight.shape[:1] or b.dtype != weight.dtype):
            raise ValueError(f"{name} is {b.dtype} {tuple(b.shape)}: it must be {weight.dtype} ({len(weight)},)")
    # A slice that cuts nothing would still cost its backward pass a second gradient of the head.
    if vocab < len(weight):
        weight = weight[:vocab]
        bias, ref_weight, ref_bias = (x if x is None else x[:vocab] for x in (bias, ref_weight, ref_bias))
    flat = hidden.reshape(-1, hidden.shape[-1])
    return LinearInputs(flat, weight, bias, chosen, ref_hidden, ref_weight, ref_bias)


def autocast(x: MaybeTensor) -> MaybeTensor:  # float64 stays
    return x if x is None or x.dtype == torch.float64 else x.to(torch.get_autocast_dtype(x.device.type))
