"""The row kernels as torch.library operators: what torch.compile, CUDA graphs and autograd see of them.

`tracelift::score_rows` maps logits to per-row statistics and `tracelift::score_rows_backward` fills d loss / d logits.
Each has a fake implementation (shapes without data) and the pair is tied by register_autograd, so a compiled graph
holds them as two opaque nodes and never recompiles for a new number of rows.

Left out: double backward (the backward operator has no derivative of its own) and vmap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import reference
from .reference import RowStats, Scaling, compute_dtype


def implementation(backend: str):
    """The module that computes: both offer the same `forward` and `backward`."""
    if backend == "triton":
        from . import triton_rows  # imported on first use: CPU training needs no Triton

        return triton_rows
    return reference


def stats_shapes(n: int, with_ref: bool) -> tuple[tuple[int, ...], ...]:
    """Shapes of the fields of RowStats for n rows."""
    return (n,), (n,), (n,), (n if with_ref else 0,), (4 if with_ref else 2, n)


def _forward(
    logits: Tensor,
    targets: Tensor,
    ref_logits: Tensor | None,
    row_inverse: Tensor | None,
    temperature: float,
    softcap: float,
    ignore_index: int,
    vocab: int,
    backend: str,
    inplace_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Statistics of each row: logits (..., V), targets (N,), ref_logits (..., V), row_inverse (N,) -> the fields of RowStats.

    row_inverse, temperature and softcap are the fields of `Scaling`, for an operator takes no tuple of them."""
    scaling = Scaling(temperature, softcap, row_inverse)
    stats = implementation(backend).forward(logits, targets, ref_logits, scaling, ignore_index, vocab)
    return stats.logprob, stats.logsumexp, stats.entropy, stats.kl, stats.norm


score_rows = torch.library.custom_op("tracelift::score_rows", _forward, mutates_args=())


@score_rows.register_fake
def _(logits, targets, ref_logits, *_):
    shapes = stats_shapes(targets.numel(), ref_logits is not None)
    return tuple(logits.new_empty(shape, dtype=compute_dtype(logits)) for shape in shapes)


def _fill(
    grad: Tensor,
    logits: Tensor | None,
    targets: Tensor,
    ref_logits: Tensor | None,
    stats: list[Tensor],
    g_logprob: Tensor | None,
    g_logsumexp: Tensor | None,
    g_entropy: Tensor | None,
    g_kl: Tensor | None,
    row_inverse: Tensor | None,
    temperature: float,
    softcap: float,
    ignore_index: int,
    vocab: int,
    backend: str,
) -> None:
    """Fills `grad`. Without `logits`, `grad` holds them on entry and is overwritten."""
    implementation(backend).backward(
        grad,
        grad if logits is None else logits,
        targets,
        ref_logits,
        RowStats(*stats),
        (g_logprob, g_logsumexp, g_entropy, g_kl),
        Scaling(temperature, softcap, row_inverse),
        ignore_index,
        vocab,
    )


score_rows_backward = torch.library.custom_op("tracelift::score_rows_backward", _fill, mutates_args=("grad",))


@score_rows_backward.register_fake
def _(*_):
    return None


def _save(ctx, inputs, output) -> None:
    logits, targets, ref_logits, row_inverse, *ctx.scalars, ctx.inplace = inputs
    ctx.save_for_backward(logits, targets, ref_logits, row_inverse, *output)
    ctx.mark_non_differentiable(output[4])
    ctx.set_materialize_grads(False)  # an output that was not used costs nothing: no reference row is read for it


def used_gradients(incoming: tuple[Tensor | None, ...], with_ref: bool) -> list[Tensor | None]:
    """The four incoming gradients with memory behind them (autograd may send expanded ones); none for an absent kl."""
    return [None if g is None else g.contiguous() for g in incoming[: 3 + with_ref]] + [None] * (not with_ref)


def _backward(fill, ctx, *incoming):
    logits, targets, ref_logits, row_inverse, *stats = ctx.saved_tensors
    used = used_gradients(incoming, ref_logits is not None)
    if all(g is None for g in used):
        return (None,) * 10
    if ctx.inplace:
        grad, source = logits.detach(), None  # shares the version counter: whoever else saved these logits will know
    else:
        grad, source = torch.empty_like(logits, memory_format=torch.contiguous_format), logits
    fill(grad, source, targets, ref_logits, stats, *used, row_inverse, *ctx.scalars)
    return (grad,) + (None,) * 9


score_rows.register_autograd(partial(_backward, score_rows_backward), setup_context=_save)


def saving(forward: Callable[..., Any], save: Callable[..., None]) -> Callable[..., Any]:
    """`forward` of an autograd.Function from an operator's implementation and its setup_context."""

    def both(ctx, *inputs):
        output = forward(*inputs)
        save(ctx, inputs, output)
        return output

    return both


class ScoreRows(torch.autograd.Function):
    """The same pair without the dispatcher: it costs 0.3 ms a call, which small vocabularies would feel. So would they PyTorch's
    look at a signature, which a setup_context asks for."""

    forward = staticmethod(saving(_forward, _save))
    backward = staticmethod(once_differentiable(partial(_backward, _fill)))  # pyright: ignore[reportAssignmentType]  ctx comes by position


def traced(x: Tensor) -> bool:
    """Whether a compiler looks on, for which the work must be one operator."""
    return torch.compiler.is_compiling() or type(x) not in (Tensor, torch.nn.Parameter)


def score(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Arguments and results of `score_rows`, by the operator where a compiler looks on and directly where none does."""
    return score_rows(logits, *rest) if traced(logits) else ScoreRows.apply(logits, *rest)
