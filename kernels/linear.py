"""`linear_logprob`: the same four scores from hidden states and the output head, logits never materialised.

Tokens are taken some hundreds at a time: one matrix product gives a chunk of logits, the row kernels reduce it to a
few numbers a token, and the buffer is used again. The backward pass forms the chunk once more, turns it into its own
gradient in place, and multiplies that into hidden and weight:

    dh = dz·W        dW = Σ_chunks dzᵀ·h   (summed in fp32 whatever the weight's dtype)

Multiply-adds a token, counted as 2 FLOPs: 2VH forward, 6VH backward with the recomputation, 2VH less where the head is
frozen; a reference adds 2VH to each pass that needs it. Where the loss is a sum over tokens, `kernels.linear_loss`
forms the gradient while the forward chunk is at hand and so needs 6VH in all, not 8VH.

The logits of a chunk are rounded to the dtype of `hidden`, as the head's own output would be, so that sampler and
trainer score the same numbers; `logits_dtype=torch.float32` keeps the accumulator of the product instead.

Left out: biases, soft-capping, and a product fused with its reduction (docs/kernels.md says what it would save).

Shape letters: N tokens, n tokens of one chunk, H hidden, V vocabulary.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import cpu_linear, ops
from .logits import TokenScores, check_targets, check_temperature, check_vocab, choose_backend
from .reference import MaybeTensor, RowStats

# Logits of one chunk. A CPU wants the chunk near its last-level cache; a GPU wants enough tokens for each pass over
# the weight to be limited by arithmetic (a few hundred), and can spare half a gigabyte.
CPU_CHUNK_ELEMENTS = 1 << 22
GPU_CHUNK_ELEMENTS = 1 << 28


def chunk_rows(hidden: Tensor, vocab: int, override: int | None = None) -> int:
    if override is not None and override > 0:
        return override
    cpu = hidden.device.type == "cpu"
    rows = (CPU_CHUNK_ELEMENTS if cpu else GPU_CHUNK_ELEMENTS) // vocab
    return min(max(rows, 32 if cpu else 256), 4096)


def product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:  # (n,K), (K,m) -> out (n,m)
    """a·b into `out`, whose dtype may be wider than theirs: then the fp32 accumulator is kept."""
    if out.dtype == a.dtype:
        return torch.mm(a, b, out=out)
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=out.dtype, out=out)
    return torch.mm(a.to(out.dtype), b.to(out.dtype), out=out)


def accumulate(total: Tensor, a: Tensor, b: Tensor) -> None:  # (V,H) fp32 += (V,n)·(n,H)
    """Add a product in the dtype of the running sum: bf16 sums of chunk products drift within dozens of steps."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif total.device.type == "cuda":
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype))


class Head:
    """The chunks of one head: hidden states in, logits out, of which one chunk at a time should be held."""

    def __init__(self, hidden: Tensor, weight: Tensor, rows: int, dtype: torch.dtype) -> None:
        self.hidden, self.weight, self.dtype = hidden, weight, dtype
        self.shape, self.buffer = (min(rows, len(hidden)), len(weight)), None

    def logits(self, rows: slice) -> Tensor:  # -> (n,V), overwritten by the next call
        h = self.hidden[rows]
        if h.device.type == "cpu" and h.dtype == self.dtype == torch.float32:
            return cpu_linear.linear(h, self.weight)  # the library that model.logits uses, so the same bits
        if self.buffer is None:
            self.buffer = torch.empty(self.shape, dtype=self.dtype, device=h.device)
        return product(h, self.weight.t(), self.buffer[: len(h)])


def kept_rows(targets: Tensor, ignore_index: int) -> Tensor | None:
    """Indices of the tokens that count, None where all do. A stream being captured cannot ask, so there all are kept:
    the row kernels skip ignored rows by themselves, and only their share of the product is wasted."""
    if targets.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return None
    kept = (targets != ignore_index).nonzero().squeeze(1)
    return None if len(kept) == len(targets) else kept


def take(x: MaybeTensor, kept: Tensor | None) -> MaybeTensor:
    return x if x is None or kept is None else x.index_select(0, kept)


def _forward(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    ref_hidden: Tensor | None,
    ref_weight: Tensor | None,
    temperature: float,
    ignore_index: int,
    backend: str,
    logits_dtype: torch.dtype,
    rows: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # (N,H), (V,H), (N,), (N,H'), (V,H')
    n, vocab = len(targets), len(weight)
    kept = kept_rows(targets, ignore_index)
    hidden, ref_hidden, chosen = take(hidden, kept), take(ref_hidden, kept), take(targets, kept)
    head = Head(hidden, weight, rows, logits_dtype)
    ref = None if ref_hidden is None or ref_weight is None else Head(ref_hidden, ref_weight, rows, logits_dtype)
    parts = []
    for i in range(0, len(chosen), rows):
        chunk = slice(i, i + rows)
        parts.append(
            ops.implementation(backend).forward(
                head.logits(chunk),
                chosen[chunk],
                None if ref is None else ref.logits(chunk),
                temperature,
                ignore_index,
                vocab,
            )
        )
    shapes = ops.stats_shapes(n, ref is not None)
    whole = [hidden.new_zeros(shape, dtype=ops.compute_dtype(hidden)) for shape in shapes]
    for out, pieces in zip(whole, zip(*parts, strict=True), strict=False):  # no pieces where every token is ignored
        joined = torch.cat(pieces, -1)
        if out.numel() and kept is not None:
            out.index_copy_(-1, kept, joined)
        elif out.numel():
            out.copy_(joined)
    logprob, logsumexp, entropy, kl, norm = whole
    return logprob, logsumexp, entropy, kl, norm


linear_score_rows = torch.library.custom_op("tracelift::linear_score_rows", _forward, mutates_args=())


@linear_score_rows.register_fake
def _(hidden, weight, targets, ref_hidden, ref_weight, temperature, ignore_index, backend, logits_dtype, rows):
    shapes = ops.stats_shapes(targets.numel(), ref_hidden is not None)
    return tuple(hidden.new_empty(shape, dtype=ops.compute_dtype(hidden)) for shape in shapes)


def _gradients(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    ref_hidden: Tensor | None,
    ref_weight: Tensor | None,
    stats: list[Tensor],
    g_logprob: Tensor | None,
    g_logsumexp: Tensor | None,
    g_entropy: Tensor | None,
    g_kl: Tensor | None,
    temperature: float,
    ignore_index: int,
    backend: str,
    logits_dtype: torch.dtype,
    rows: int,
    need_hidden: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor]:  # -> dh (N,H), dW (V,H); (0,) where not needed
    vocab, kept = len(weight), kept_rows(targets, ignore_index)
    h, ref_h, chosen = take(hidden, kept), take(ref_hidden if g_kl is not None else None, kept), take(targets, kept)
    stats = [s if kept is None or not s.numel() else s.index_select(-1, kept) for s in stats]
    incoming = [take(g, kept) for g in (g_logprob, g_logsumexp, g_entropy, g_kl)]
    head = Head(h, weight, rows, logits_dtype)
    ref = None if ref_h is None or ref_weight is None else Head(ref_h, ref_weight, rows, logits_dtype)
    dh = torch.empty_like(h) if need_hidden else h.new_empty(0)
    dw = weight.new_zeros(weight.shape, dtype=ops.compute_dtype(weight)) if need_weight else h.new_empty(0)
    for i in range(0, len(chosen), rows):
        chunk = slice(i, i + rows)
        logits = None  # lets go of the last chunk before the next is made
        logits = head.logits(chunk)
        ops.implementation(backend).backward(
            logits,
            logits,
            chosen[chunk],
            None if ref is None else ref.logits(chunk),
            RowStats(*(s[..., chunk] for s in stats)),
            [None if g is None else g[chunk] for g in incoming],
            temperature,
            ignore_index,
            vocab,
        )
        spread(logits, h[chunk], weight, dh[chunk] if need_hidden else None, dw if need_weight else None)
    if need_hidden and kept is not None:
        dh = torch.zeros_like(hidden).index_copy_(0, kept, dh)
    return dh, dw.to(weight.dtype)


def spread(dz: Tensor, h: Tensor, weight: Tensor, dh: Tensor | None, dw: Tensor | None) -> None:
    """Carry d loss / d logits of one chunk (n,V) into its rows of dh (n,H) and the running sum dW (V,H)."""
    dz = dz.to(weight.dtype)  # the width of the tensor cores; no copy unless logits_dtype was wider
    if dh is not None and dz.device.type == "cpu":
        dh.copy_(cpu_linear.linear(dz, weight.t()))
    elif dh is not None:
        torch.mm(dz, weight, out=dh)
    if dw is not None:
        accumulate(dw, dz.t(), h)


linear_score_rows_backward = torch.library.custom_op(
    "tracelift::linear_score_rows_backward", _gradients, mutates_args=()
)


@linear_score_rows_backward.register_fake
def _(
    hidden,
    weight,
    targets,
    ref_hidden,
    ref_weight,
    stats,
    g_logprob,
    g_logsumexp,
    g_entropy,
    g_kl,
    temperature,
    ignore_index,
    backend,
    logits_dtype,
    rows,
    need_hidden,
    need_weight,
):
    return (
        torch.empty_like(hidden) if need_hidden else hidden.new_empty(0),
        torch.empty_like(weight) if need_weight else weight.new_empty(0),
    )


def _save(ctx, inputs, output) -> None:
    hidden, weight, targets, ref_hidden, ref_weight, *ctx.scalars = inputs
    ctx.save_for_backward(hidden, weight, targets, ref_hidden, ref_weight, *output)
    ctx.mark_non_differentiable(output[4])
    ctx.set_materialize_grads(False)


def _backward(gradients, ctx, *incoming):
    hidden, weight, targets, ref_hidden, ref_weight, *stats = ctx.saved_tensors
    used = ops.used_gradients(incoming, ref_hidden is not None)
    need_hidden, need_weight = ctx.needs_input_grad[:2]
    if all(g is None for g in used) or not (need_hidden or need_weight):
        return (None,) * 10
    dh, dw = gradients(
        hidden, weight, targets, ref_hidden, ref_weight, stats, *used, *ctx.scalars, need_hidden, need_weight
    )
    return (dh if need_hidden else None, dw if need_weight else None) + (None,) * 8


linear_score_rows.register_autograd(partial(_backward, linear_score_rows_backward), setup_context=_save)


class LinearScoreRows(torch.autograd.Function):
    """The same pair without the dispatcher, as kernels.ops.ScoreRows."""

    forward = staticmethod(_forward)
    setup_context = staticmethod(_save)
    backward = staticmethod(once_differentiable(partial(_backward, _gradients)))  # pyright: ignore[reportAssignmentType]  ctx comes by position


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    *,
    ref_hidden: Tensor | None = None,
    ref_weight: Tensor | None = None,
    ignore_index: int = -100,
    vocab_size: int | None = None,
    logits_dtype: torch.dtype | None = None,
    chunk: int | None = None,
    backend: str = "auto",
) -> TokenScores:
    """Score `targets` under softmax(hidden·weightᵀ / temperature) without an N × V buffer.

    Args:
        hidden: (..., H) final hidden states; gradient where it requires one.
        weight: (V, H) output head, same dtype; its gradient is summed in fp32, and not computed for a frozen head.
        targets: (...) integer token ids; tokens at `ignore_index` score 0, get no gradient, and cost no product.
        temperature: divides the logits; part of the distribution that is scored.
        ref_hidden, ref_weight: (..., H'), (V, H') of the reference, constants, for `.kl`; `ref_weight` is by default `weight`.
        vocab_size: rows of `weight` from here on are padding: no probability, no gradient, no product.
        logits_dtype: dtype that a chunk's logits are rounded to; default that of `hidden` before autocast.
        chunk: tokens a chunk; default by device (the buffer holds chunk × V logits).
        backend: "triton", "torch", or "auto", as for `logprob_kl`, whose conventions for −inf and NaN hold here too.

    Raises:
        ValueError, TypeError, IndexError: as `logprob_kl`, and where hidden and weight do not fit together.
    """
    flat, head, chosen, ref = check_linear(hidden, weight, targets, ref_hidden, ref_weight, vocab_size, ignore_index)
    score = linear_score_rows if ops.traced(hidden) else LinearScoreRows.apply
    out = score(
        flat,
        head,
        chosen,
        *ref,
        check_temperature(temperature),
        ignore_index,
        choose_backend(backend, hidden),
        logits_dtype or hidden.dtype,
        chunk_rows(hidden, len(head), chunk),
    )
    return TokenScores.of([o.view(targets.shape) for o in out[: 3 if ref[0] is None else 4]])


def autocast(x: Tensor) -> Tensor:  # float64 stays
    return x if x.dtype == torch.float64 else x.to(torch.get_autocast_dtype(x.device.type))


def check_linear(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    ref_hidden: Tensor | None,
    ref_weight: Tensor | None,
    vocab_size: int | None,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor | None, Tensor | None]]:
    """Arguments as flat tensors: (N,H), (V,H), (N,), ((N,H'), (V,H')) or (None, None)."""
    if weight.dim() != 2 or hidden.dim() < 1 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} must be (..., H) and (V, H)")
    if torch.is_autocast_enabled(hidden.device.type):  # as F.linear would
        hidden, weight = autocast(hidden), autocast(weight)
        ref_hidden, ref_weight = (None if x is None else autocast(x) for x in (ref_hidden, ref_weight))
    if hidden.dtype != weight.dtype:
        raise TypeError(f"hidden is {hidden.dtype} and weight {weight.dtype}: cast one of them, or run under autocast")
    vocab = check_vocab(vocab_size, len(weight))
    chosen = check_targets(targets, hidden.shape[:-1], vocab, ignore_index, f"hidden of shape {tuple(hidden.shape)}")
    ref: tuple[Tensor | None, Tensor | None] = (None, None)
    if ref_hidden is not None:
        ref_weight = weight.detach() if ref_weight is None else ref_weight
        if (ref_hidden.requires_grad or ref_weight.requires_grad) and torch.is_grad_enabled():
            raise ValueError("ref_hidden or ref_weight requires grad, but the reference is a constant: detach them")
        if ref_hidden.shape[:-1] != hidden.shape[:-1] or ref_weight.shape != (len(weight), ref_hidden.shape[-1]):
            raise ValueError(
                f"ref_hidden {tuple(ref_hidden.shape)} and ref_weight {tuple(ref_weight.shape)} must be "
                f"(..., H') and (V, H') with the leading shape and V of hidden and weight"
            )
        ref = (ref_hidden.reshape(-1, ref_hidden.shape[-1]), ref_weight[:vocab])
    elif ref_weight is not None:
        raise ValueError("ref_weight was given without ref_hidden")
    # A slice that cuts nothing would still cost its backward pass a second gradient of the head.
    head = weight if vocab == len(weight) else weight[:vocab]
    return hidden.reshape(-1, hidden.shape[-1]), head, chosen, ref
