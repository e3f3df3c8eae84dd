"""`linear_loss`: a per-token loss from hidden states whose gradient is formed while the forward chunk is at hand.

For a loss that is a sum over tokens, L = Σ_i ℓ(scores_i), everything about a chunk of tokens can be known before the
next chunk is touched: logits → scores → the caller's ℓ in ordinary PyTorch → dℓ/dscores → dz in place of the logits →
dh and dW. Three products of 2VH FLOPs a token, 6VH in all, where `linear_logprob` followed by a loss needs 8VH because
its backward pass forms the logits again. `loss.backward()` then only scales what is already there.

The price: the gradient is computed even if backward is never called (not under torch.no_grad), it is handed out once, and a loss that couples
tokens across chunks (sequence-level ratios, a normalisation by the sum of the scores) cannot be written this way: use
`linear_logprob`.

Under torch.compile it is one graph break and runs as it stands; under autocast the product is cast and nothing after it.
In fp16 it is refused: the gradient is rounded before backward() brings the loss scale that fp16 needs.

Left out: gradients through anything but hidden, weight and bias (per-token tensors, parameters of the loss), which are refused;
double backward.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import ops
from .linear import Gradients, chunk_rows, heads, kept_rows, take
from .logits import LinearInputs, TokenScores, check_linear, check_scaling, choose_backend
from .reference import RowStats, Scaling

# loss(scores of n tokens, *per-token tensors of n tokens) -> their summed loss, a scalar
TokenLoss = Callable[..., Tensor]


class LinearLoss(torch.autograd.Function):
    """Forward returns the loss and the scores, and keeps dh and dW for the one backward pass to scale."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, rest: LinearInputs, loss_fn, data, scaling: Scaling, options):
        ignore_index, backend, logits_dtype, rows, differentiable = options
        rowwise, vocab, kept = ops.implementation(backend), len(weight), kept_rows(rest.targets, ignore_index)
        h, ref_h, y = take(hidden, kept), take(rest.ref_hidden, kept), take(rest.targets, kept)
        data, scaling = [take(d, kept) for d in data], scaling if kept is None else scaling.of(kept)
        head, ref_head = heads(h, weight, bias, ref_h, rest.ref_weight, rest.ref_bias, rows, logits_dtype)
        needed = [need and differentiable for need in ctx.needs_input_grad[:3]]
        sums = Gradients(h, weight, *needed)
        wide = ops.compute_dtype(hidden)
        total, whole = hidden.new_zeros((), dtype=wide), []
        for i in range(0, len(y), rows):
            chunk = slice(i, i + rows)
            logits = ref_logits = None  # lets go of the last chunk before the next is made
            logits = head.logits(chunk)
            ref_logits = None if ref_head is None else ref_head.logits(chunk)
            part = scaling.of(chunk)
            stats = rowwise.forward(logits, y[chunk], ref_logits, part, ignore_index, vocab)
            value, incoming = differentiate(loss_fn, stats, [d[chunk] for d in data], any(needed))
            total += value
            whole.append(stats[: 3 if ref_head is None else 4])
            if any(g is not None for g in incoming):
                rowwise.backward(logits, logits, y[chunk], ref_logits, stats, incoming, part, ignore_index, vocab)
                sums.add(logits, chunk)
        ctx.gradients = sums.finished(len(hidden), kept)
        outputs = [hidden.new_zeros(len(hidden), dtype=wide) for _ in range(3 if ref_head is None else 4)]
        for out, pieces in zip(outputs, zip(*whole, strict=True), strict=False):  # no pieces of no tokens
            out.index_copy_(0, kept, torch.cat(pieces)) if kept is not None else out.copy_(torch.cat(pieces))
        ctx.mark_non_differentiable(*outputs)
        return total, *outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, g_loss, *_):  # pyright: ignore[reportIncompatibleMethodOverride]  ctx comes by position
        if ctx.gradients is None:
            raise RuntimeError(
                "linear_loss hands out its gradient once: call backward a single time, or use "
                "linear_logprob where the graph must be kept"
            )
        # Scaled in place and let go of, so that autograd can take them as .grad without a second head-sized copy.
        gradients, ctx.gradients = ctx.gradients, None
        if g_loss.device.type != "cpu" or g_loss != 1:  # asking a GPU would wait for it
            gradients = (None if g is None else g.mul_(g_loss.to(g.dtype)) for g in gradients)
        return *gradients, *(None,) * 5


P = ParamSpec("P")
R = TypeVar("R")


def _uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """torch.compiler.disable, applied once torch.compile is about: its machinery takes as long to import as torch does."""
    known: list[Callable[P, R]] = []

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not known:
            known.append(cast(Callable[P, R], torch.compiler.disable(function)))
        return known[0](*args, **kwargs)

    return call


def differentiate(
    loss_fn: TokenLoss, stats: RowStats, data: list[Tensor], wanted: bool
) -> tuple[Tensor, Sequence[Tensor | None]]:
    """The loss of one chunk, and its derivative with respect to each of the four scores, None where unused."""
    with torch.enable_grad():
        leaves = [s.detach().requires_grad_(wanted) for s in stats[:4] if s.numel()]
        value = loss_fn(TokenScores.of(leaves), *data)
        if value.dim() != 0:
            raise ValueError(f"loss returned shape {tuple(value.shape)}: it must be a scalar, the sum over its tokens")
        if not (wanted and value.requires_grad):
            return value.detach(), (None, None, None, None)
        refuse_others(value, leaves)
        grads = torch.autograd.grad(value, leaves, allow_unused=True)
    return value.detach(), (*grads, None)[:4]


def refuse_others(value: Tensor, leaves: Sequence[Tensor]) -> None:
    """Raises where the loss depends on a leaf beside the scores: its gradient would be lost without a word."""
    nodes, seen = [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)  # of the node that adds to a leaf's .grad
        if leaf is not None and not any(leaf is s for s in leaves):
            raise ValueError(
                f"the loss depends on a tensor of shape {tuple(leaf.shape)} that requires grad: only hidden, weight and bias "
                "get one here; detach it, or use linear_logprob"
            )
        nodes += [following for following, _ in node.next_functions]


@_uncompiled  # the caller's loss is Python and runs once a chunk: one graph break, not one a line
def linear_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    loss: TokenLoss,
    *data: Tensor,
    temperature: float | Tensor = 1.0,
    bias: Tensor | None = None,
    softcap: float | None = None,
    ref_hidden: Tensor | None = None,
    ref_weight: Tensor | None = None,
    ref_bias: Tensor | None = None,
    ignore_index: int = -100,
    vocab_size: int | None = None,
    logits_dtype: torch.dtype | None = None,
    chunk: int | None = None,
    backend: str = "auto",
) -> tuple[Tensor, TokenScores]:
    """Σ over tokens of `loss(scores, *data)`, and the scores (detached) for metrics.

    Args:
        hidden, weight, targets, temperature, bias, softcap, ref_hidden, ref_weight, ref_bias, ignore_index, vocab_size,
            logits_dtype, chunk, backend: as for `linear_logprob`.
        loss: called with the `TokenScores` of some tokens, each field (n,), and the matching (n,) pieces of `data`;
            returns the sum of their losses, a scalar. It must be additive over tokens: divide by a count that is
            fixed beforehand over the whole batch, never by one taken from the chunk. Tokens at `ignore_index` do not
            reach it. Called once a chunk; not at all for zero tokens.
        data: per-token tensors in the shape of `targets`: advantages, old log-probs, weights; constants.

    Returns:
        loss: () fp32, differentiable with respect to hidden, weight and bias.
        scores: TokenScores in the shape of `targets`, without gradient.

    Raises:
        ValueError, TypeError, IndexError: as `linear_logprob`; a loss that is no scalar or depends on another tensor that
            requires grad; and fp16 where a gradient is wanted.
    """
    given = check_linear(hidden, weight, bias, targets, ref_hidden, ref_weight, ref_bias, vocab_size, ignore_index)
    for i, d in enumerate(data):
        if d.shape != targets.shape:
            raise ValueError(f"data[{i}] has shape {tuple(d.shape)}, targets {tuple(targets.shape)}: one value a token")
        if d.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"data[{i}] requires grad, but only hidden, weight and bias get one here: detach it")
    trained = given[:3]
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in trained)
    if wanted and torch.float16 in (given.hidden.dtype, given.weight.dtype, logits_dtype):
        raise TypeError(
            "linear_loss forms its gradient before a loss scale is known, and fp16 cannot hold it unscaled: "
            "use bfloat16, or linear_logprob with fp16"
        )
    options = (
        ignore_index,
        choose_backend(backend, hidden),
        logits_dtype or hidden.dtype,
        chunk_rows(hidden, len(given.weight), chunk),
        torch.is_grad_enabled(),
    )
    scaling = check_scaling(temperature, softcap, targets, ignore_index, hidden.dtype)
    columns = [d.detach().reshape(-1) for d in data]
    total, *scores = LinearLoss.apply(*trained, given, loss, columns, scaling, options)
    return total, TokenScores.of([s.view(targets.shape) for s in scores])
