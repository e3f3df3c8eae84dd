"""The row kernels in Triton as PyTorch calls them: where rows lie in memory, block sizes, one launch a pass.

`forward` and `backward` are those of kernels/reference.py; what runs on the device is in kernels/triton_forward.py and
kernels/triton_backward.py.
Left out: float64, which only the reference computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from .reference import RowStats, Scaling
from .triton_backward import backward_kernel
from .triton_forward import forward_kernel

# Multiply and add are contracted to one fused instruction: fewer roundings and fewer issues. Said out loud because the
# default differs between Triton releases, and compiled results should not. Not where logits are capped: two places of a kernel
# must make the same number of one logit, bit for bit, and the compiler contracts each as it likes.
FP_FUSION = True
# A lane is a thread and takes one 16-byte piece of a row at a time, two where there is no reference: what it keeps then
# fits 32 to 40 registers, so that 6 to 8 programs of this many lanes share a multiprocessor, and 32 to 48 KB of loads are
# under way on each (benchmarks/kernel_resources.py records it).
MAX_LANES = 256


def row_layout(x: Tensor) -> tuple[int, int, int] | None:
    """(inner, outer stride, inner stride) that place row i at i // inner · outer + i % inner · inner stride."""
    groups: list[tuple[int, int]] = []  # (size, stride) of the leading dimensions, merged where memory allows
    for size, stride in zip(x.shape[:-1], x.stride()[:-1], strict=True):
        if size == 1:
            continue
        if groups and groups[-1][1] == size * stride:
            groups[-1] = (groups[-1][0] * size, stride)
        else:
            groups.append((size, stride))
    if len(groups) > 2 or (x.shape[-1] > 1 and x.stride(-1) != 1):
        return None
    if len(groups) == 2:
        return groups[1][0], groups[0][1], groups[1][1]
    return (groups[0][0], 0, groups[0][1]) if groups else (1, 0, 0)


def laid_out(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """x with its row layout; a copy where three or more strides would be needed."""
    layout = row_layout(x)
    if layout is None:
        x = x.contiguous()
        layout = row_layout(x)
    assert layout is not None
    return x, layout


def launch_options(
    columns: int, itemsize: int, has_ref: bool, warp_size: int = 32, capped: bool = False
) -> dict[str, int | bool]:
    """Lanes, pieces a lane and warps for rows of this many columns: fewer lanes only where a row has too few pieces."""
    depth = 1 if has_ref else 2
    pieces = triton.cdiv(columns * itemsize, 16 * depth)
    lanes = min(MAX_LANES, max(warp_size, triton.next_power_of_2(pieces)))
    whole = columns * itemsize % 16 == 0
    return {
        "LANES": lanes,
        "DEPTH": depth,
        "WHOLE": whole,
        "num_warps": lanes // warp_size,
        "enable_fp_fusion": FP_FUSION and not capped,
    }


def constants(vocab: int, has_ref: bool, scaling: Scaling, *tensors: Tensor) -> dict[str, Any]:
    """What a launch is compiled for."""
    warp_size = 32
    if tensors[0].device.type == "cuda":  # the interpreter has no driver to ask
        target = triton.runtime.driver.active.get_current_target()
        warp_size = target.warp_size  # pyright: ignore[reportAttributeAccessIssue]  Triton declares no return type
    capped = scaling.softcap > 0
    options = launch_options(vocab, tensors[0].element_size(), has_ref, warp_size, capped)
    return {
        "HAS_REF": has_ref,
        "ALIGNED": aligned(*tensors),
        "CAPPED": capped,
        "ROW_T": scaling.row_inverse is not None,
        **options,
    }


def on_device(x: Tensor) -> AbstractContextManager:
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()


def forward(
    logits: Tensor, targets: Tensor, ref_logits: Tensor | None, scaling: Scaling, ignore_index: int, vocab: int
) -> RowStats:  # (..., V), (N,), (..., V)
    """As kernels.reference.forward."""
    n, has_ref = targets.numel(), ref_logits is not None
    out = torch.zeros(8 if has_ref else 5, n, dtype=torch.float32, device=logits.device)
    x, x_layout = laid_out(logits)
    r, r_layout = (x, x_layout) if ref_logits is None else laid_out(ref_logits)
    if n:
        with on_device(x):
            forward_kernel[(n,)](
                x,
                r,
                targets,
                out,
                n,
                vocab,
                scaling.inverse,
                scaling.softcap,
                ignore_index,
                *x_layout,
                *r_layout,
                **constants(vocab, has_ref, scaling, x, r),
            )
    # One allocation, handed on in pieces that do not share storage: operators may not return two views of one.
    fields = (out[0], out[1], out[2], out[7] if has_ref else out.new_empty(0), out[3:7] if has_ref else out[3:5])
    return RowStats(*(f.clone() for f in fields))


def backward(
    grad: Tensor,
    logits: Tensor,
    targets: Tensor,
    ref_logits: Tensor | None,
    stats: RowStats,
    incoming: Sequence[Tensor | None],
    scaling: Scaling,
    ignore_index: int,
    vocab: int,
) -> None:
    """As kernels.reference.backward."""
    n = targets.numel()
    if not n:
        return
    g_layout = row_layout(grad)
    if g_layout is None:  # only inplace_grad on oddly strided logits comes here
        whole = torch.empty_like(grad, memory_format=torch.contiguous_format)
        backward(whole, logits, targets, ref_logits, stats, incoming, scaling, ignore_index, vocab)
        grad.copy_(whole)
        return
    has_ref = incoming[3] is not None
    weights = row_weights(stats, incoming)
    x, x_layout = laid_out(logits)
    r, r_layout = laid_out(ref_logits) if has_ref and ref_logits is not None else (x, x_layout)
    with on_device(x):
        backward_kernel[(n,)](
            grad,
            x,
            r,
            targets,
            stats.norm.contiguous(),
            weights,
            n,
            vocab,
            grad.shape[-1],
            scaling.inverse,
            scaling.softcap,
            ignore_index,
            *x_layout,
            *r_layout,
            *g_layout,
            **constants(vocab, has_ref, scaling, grad, x, r),
        )
    torch.autograd.graph.increment_version(grad)  # a kernel writes behind autograd's back; in-place must be seen


def row_weights(stats: RowStats, incoming: Sequence[Tensor | None]) -> Tensor:  # -> (3 or 4, N) fp32
    """g, level, slope and tilt of each row: dz_j·T = p_j (level + slope·log p_j + tilt·log(p_j/q_j)) + 1{j=y} g."""
    zero = torch.zeros_like(stats.entropy)
    g_lp, g_lse, g_h, g_kl = (zero if g is None else g for g in incoming)
    level, rows = g_lse - g_lp - g_h * stats.entropy, []
    if incoming[3] is not None:  # an infinite KL says so in the loss; as a gradient it would be inf − inf
        endless = stats.kl == torch.inf
        g_kl = g_kl.masked_fill(endless, 0)
        level = level - g_kl * stats.kl.masked_fill(endless, 0)
        rows = [g_kl]
    return torch.stack([g_lp, level, -g_h, *rows]).float()


def aligned(*tensors: Tensor) -> bool:
    """Whether every row starts at a multiple of 16 bytes, so that loads may be wide.

    Asked of all strides, also those of dimensions of size 1: the answer then hangs on the vocabulary and not on how
    many tokens this batch happens to have.
    """
    return all(
        x.data_ptr() % 16 == 0 and all(s * x.element_size() % 16 == 0 for s in (x.stride()[:-1] or (x.shape[-1],)))
        for x in tensors
    )
