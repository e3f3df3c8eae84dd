"""`linear_logprob`: the same four scores from hidden states and the output head, logits never materialised.

Tokens are taken some hundreds at a time: one matrix product gives a chunk of logits, the row kernels reduce it to a
few numbers a token, and the buffer is used again. The backward pass forms the chunk once more, turns it into its own
gradient in place, and multiplies that into hidden and weight:

    dh = dz·W        dW = Σ_chunks dzᵀ·h        db = Σ dz   (the two summed in fp32 whatever the weight's dtype)

Multiply-adds a token, counted as 2 FLOPs: 2VH forward, 6VH backward with the recomputation, 2VH less where the head is
frozen; a reference adds 2VH to each pass that needs it. Where the loss is a sum over tokens, `kernels.linear_loss`
forms the gradient while the forward chunk is at hand and so needs 6VH in all, not 8VH.

The logits of a chunk are rounded to the dtype of `hidden`, as the head's own output would be, so that sampler and
trainer score the same numbers; `logits_dtype=torch.float32` keeps the accumulator of the product instead.

Left out: a product fused with its reduction (docs/kernels.md says what it would save).

Shape letters: N tokens, n tokens of one chunk, H hidden, V vocabulary.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import cpu_linear, ops
from .logits import TokenScores, check_linear, check_scaling, choose_backend
from .reference import MaybeTensor, RowStats, Scaling

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


def accumulate(total: Tensor, a: Tensor, b: Tensor) -> None:  # (n,m) += (n,K)·(K,m)
    """Add a product in the dtype of the running sum: bf16 sums of chunk products drift within dozens of steps."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif total.device.type == "cuda":
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype))


class Head:
    """The chunks of one head: hidden states in, logits out, of which one chunk at a time should be held."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: int, dtype: torch.dtype) -> None:
        self.hidden, self.weight, self.bias, self.dtype = hidden, weight, bias, dtype
        self.shape, self.buffer = (min(rows, len(hidden)), len(weight)), None

    def logits(self, rows: slice) -> Tensor:  # -> (n,V), overwritten by the next call
        h = self.hidden[rows]
        if h.device.type == "cpu" and h.dtype == self.dtype == torch.float32:
            return cpu_linear.linear(h, self.weight, self.bias)  # the library that model.logits uses, so the same bits
        if self.buffer is None:
            self.buffer = torch.empty(self.shape, dtype=self.dtype, device=h.device)
        out = self.buffer[: len(h)]
        if self.bias is None:
            return product(h, self.weight.t(), out)
        accumulate(out.copy_(self.bias), h, self.weight.t())  # rounded once, with the bias in
        return out


def heads(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_hidden: Tensor | None,
    ref_weight: Tensor | None,
    ref_bias: Tensor | None,
    rows: int,
    dtype: torch.dtype,
) -> tuple[Head, Head | None]:
    """The policy's and, where there are both of its tensors, the reference's."""
    head = Head(hidden, weight, bias, rows, dtype)
    if ref_hidden is None or ref_weight is None:
        return head, None
    return head, Head(ref_hidden, ref_weight, ref_bias, rows, dtype)


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
    bias: Tensor | None,
    targets: Tensor,
    ref_hidden: Tensor | None,
    ref_weight: Tensor | None,
    ref_bias: Tensor | None,
    row_inverse: Tensor | None,
    temperature: float,
    softcap: float,
    ignore_index: int,
    backend: str,
    logits_dtype: torch.dtype,
    rows: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # (N,H), (V,H), (V,), (N,), (N,H'), (V,H'), (V,), (N,)
    n, vocab = len(targets), len(weight)
    kept = kept_rows(targets, ignore_index)
    hidden, ref_hidden, chosen = take(hidden, kept), take(ref_hidden, kept), take(targets, kept)
    scaling = Scaling(temperature, softcap, take(row_inverse, kept))
    head, ref = heads(hidden, weight, bias, ref_hidden, ref_weight, ref_bias, rows, logits_dtype)
    parts = []
    for i in range(0, len(chosen), rows):
        chunk = slice(i, i + rows)
        parts.append(
            ops.implementation(backend).forward(
                head.logits(chunk),
                chosen[chunk],
                None if ref is None else ref.logits(chunk),
                scaling.of(chunk),
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
def _(hidden, weight, bias, targets, ref_hidden, *_):
    shapes = ops.stats_shapes(targets.numel(), ref_hidden is not None)
    return tuple(hidden.new_empty(shape, dtype=ops.compute_dtype(hidden)) for shape in shapes)


def _gradients(
    needed: list[bool],
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    ref_hidden: Tensor | None,
    ref_weight: Tensor | None,
    ref_bias: Tensor | None,
    row_inverse: Tensor | None,
    stats: list[Tensor],
    g_logprob: Tensor | None,
    g_logsumexp: Tensor | None,
    g_entropy: Tensor | None,
    g_kl: Tensor | None,
    temperature: float,
    softcap: float,
    ignore_index: int,
    backend: str,
    logits_dtype: torch.dtype,
    rows: int,
) -> tuple[Tensor, Tensor, Tensor]:  # -> dh (N,H), dW (V,H), db (V,); (0,) where not needed
    vocab, kept = len(weight), kept_rows(targets, ignore_index)
    h, ref_h, chosen = take(hidden, kept), take(ref_hidden if g_kl is not None else None, kept), take(targets, kept)
    scaling = Scaling(temperature, softcap, take(row_inverse, kept))
    stats = [s if kept is None or not s.numel() else s.index_select(-1, kept) for s in stats]
    incoming = [take(g, kept) for g in (g_logprob, g_logsumexp, g_entropy, g_kl)]
    head, ref = heads(h, weight, bias, ref_h, ref_weight, ref_bias, rows, logits_dtype)
    sums = Gradients(h, weight, *needed)
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
            scaling.of(chunk),
            ignore_index,
            vocab,
        )
        sums.add(logits, chunk)
    dh, dw, db = sums.finished(len(hidden), kept)
    none = h.new_empty(0)
    return none if dh is None else dh, none if dw is None else dw, none if db is None else db


class Gradients:
    """d loss / d hidden, weight and bias, of those that are wanted, from the chunks' d loss / d logits."""

    def __init__(self, h: Tensor, weight: Tensor, need_h: bool, need_weight: bool, need_bias: bool) -> None:
        wide = ops.compute_dtype(weight)
        self.h, self.weight = h, weight
        self.dh = torch.zeros_like(h) if need_h else None
        self.dw = weight.new_zeros(weight.shape, dtype=wide) if need_weight else None
        self.db = weight.new_zeros(len(weight), dtype=wide) if need_bias else None

    def add(self, dz: Tensor, chunk: slice) -> None:  # (n,V)
        if self.db is not None:
            self.db += dz.sum(0, dtype=self.db.dtype)
        dz = dz.to(self.weight.dtype)  # the width of the tensor cores; no copy unless logits_dtype was wider
        if self.dh is not None and dz.device.type == "cpu":
            self.dh[chunk] = cpu_linear.linear(dz, self.weight.t())
        elif self.dh is not None:
            torch.mm(dz, self.weight, out=self.dh[chunk])
        if self.dw is not None:
            accumulate(self.dw, dz.t(), self.h[chunk])

    def finished(self, n: int, kept: Tensor | None) -> list[Tensor | None]:
        """dh of all n tokens, dW, db, each in its tensor's dtype."""
        dh = self.dh
        if dh is not None and kept is not None:
            dh = dh.new_zeros(n, dh.shape[1]).index_copy_(0, kept, dh)
        return [dh, *(None if g is None else g.to(self.weight.dtype) for g in (self.dw, self.db))]


linear_score_rows_backward = torch.library.custom_op(
    "tracelift::linear_score_rows_backward", _gradients, mutates_args=()
)


@linear_score_rows_backward.register_fake
def _(needed, hidden, weight, *_):
    shapes = [hidden.shape, weight.shape, weight.shape[:1]]
    return tuple(hidden.new_empty(shape if need else 0) for shape, need in zip(shapes, needed, strict=True))


def _save(ctx, inputs, output) -> None:
    hidden, weight, bias, targets, ref_hidden, ref_weight, ref_bias, row_inverse, *ctx.scalars = inputs
    given = (hidden, weight, bias, targets, ref_hidden, ref_weight, ref_bias, row_inverse)
    ctx.save_for_backward(*given, *output)
    ctx.mark_non_differentiable(output[4])
    ctx.set_materialize_grads(False)


def _backward(gradients, ctx, *incoming):
    given, stats = ctx.saved_tensors[:8], list(ctx.saved_tensors[8:])
    used, needed = ops.used_gradients(incoming, given[4] is not None), list(ctx.needs_input_grad[:3])
    if all(g is None for g in used) or not any(needed):
        return (None,) * 14
    found = gradients(needed, *given, stats, *used, *ctx.scalars)
    return (*(g if need else None for g, need in zip(found, needed, strict=True)), *(None,) * 11)


linear_score_rows.register_autograd(partial(_backward, linear_score_rows_backward), setup_context=_save)


class LinearScoreRows(torch.autograd.Function):
    """The same pair without the dispatcher, as kernels.ops.ScoreRows."""

    forward = staticmethod(ops.saving(_forward, _save))
    backward = staticmethod(once_differentiable(partial(_backward, _gradients)))  # pyright: ignore[reportAssignmentType]  ctx comes by position


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float | Tensor = 1.0,
    *,
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
) -> TokenScores:
    """Score `targets` under softmax((hidden·weightᵀ + bias) / temperature) without an N × V buffer.

    Args:
        hidden: (..., H) final hidden states; gradient where it requires one.
        weight: (V, H) output head, same dtype; its gradient is summed in fp32, and not computed for a frozen head.
        targets: (...) integer token ids; tokens at `ignore_index` score 0, get no gradient, and cost no product.
        temperature, softcap: as for `logprob_kl`.
        bias: (V,) of the head, same dtype; gradient as the weight's.
        ref_hidden, ref_weight, ref_bias: (..., H'), (V, H'), (V,) of the reference, constants, for `.kl`; weight and
            bias are by default the policy's.
        vocab_size: rows of `weight` from here on are padding: no probability, no gradient, no product.
        logits_dtype: dtype that a chunk's logits are rounded to; default that of `hidden` before autocast.
        chunk: tokens a chunk; default by device (the buffer holds chunk × V logits).
        backend: "triton", "torch", or "auto", as for `logprob_kl`, whose conventions for −inf and NaN hold here too.

    Raises:
        ValueError, TypeError, IndexError: as `logprob_kl`, and where hidden and weight do not fit together.
    """
    given = check_linear(hidden, weight, bias, targets, ref_hidden, ref_weight, ref_bias, vocab_size, ignore_index)
    scaling = check_scaling(temperature, softcap, targets, ignore_index, hidden.dtype)
    score = linear_score_rows if ops.traced(hidden) else LinearScoreRows.apply
    out = score(
        *given,
        scaling.row_inverse,
        scaling.temperature,
        scaling.softcap,
        ignore_index,
        choose_backend(backend, hidden),
        logits_dtype or hidden.dtype,
        chunk_rows(hidden, len(given[1]), chunk),
    )
    return TokenScores.of([o.view(targets.shape) for o in out[: 3 if ref_hidden is None else 4]])
