"""AdamW whose states take less room: moments in bf16 or 8 bits, and an fp32 master beside weights in bf16.

    m ← β1 m + (1 − β1) g     v ← β2 v + (1 − β2) g²     w ← (1 − ηλ) w − η m̂ / (√v̂ + ε)     (Loshchilov & Hutter 2019)

All arithmetic is fp32; only what waits between two steps is compact. Bytes a parameter, beside the weight itself:

    moments     float32 8      bfloat16 4      int8 2.03      master of a bf16 weight 4

Rounding is stochastic and so unbiased: to nearest, a bf16 v could never decay (1 − β2 is below half its spacing) and an
8-bit one less so. The noise is a hash of (parameter, step, place in the whole matrix), not a generator's state: a run
resumed, or sharded over other ranks, rounds alike. The 8-bit code of x within a block of 256 columns of one row, s its
largest magnitude, is a power law, dense near zero where Adam's moments live (Dettmers et al. 2022 use a table):

    m ≈ s·sign(c)·(|c|/127)²      v ≈ s·(c/255)⁴, where c ≥ 1 for v > 0: a denominator may not vanish under a numerator

Blocks never cross a row and shards are whole rows, so sharding changes no code. Vectors (norms, biases) keep fp32.
Without a master (`optim.master_weights = false`) a bf16 weight is itself rounded stochastically: right on average, where
rounding to nearest would lose every update below 1/512 of a weight. Left out: paging, fused kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from tracelift.distributed.rows import first_row_of, is_sharded, local, zeros_like_rows_of

BLOCK = 256  # columns that share one scale
_ELEMENTS = 1 << 22  # worked on at once: a few temporaries of 16 MiB, whatever the size of the matrix
_MASK = 0xFFFFFFFF


def adamw(
    matrices: list[nn.Parameter],
    vectors: list[nn.Parameter],
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    state_dtype: str,
    master_weights: bool,
) -> torch.optim.Optimizer:
    """torch's own fused AdamW where weights and states are fp32, the compact one otherwise; decay on matrices only."""
    groups = []  # whole and sharded parameters apart: the fused optimizer does not mix them
    for params, decay in ((matrices, weight_decay), (vectors, 0.0)):
        for kind in ([p for p in params if not is_sharded(p)], [p for p in params if is_sharded(p)]):
            groups += [{"params": kind, "weight_decay": decay}] if kind else []
    if state_dtype == "float32" and all(p.dtype == torch.float32 for p in (*matrices, *vectors)):
        return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
    return CompactAdamW(groups, lr, betas, state_dtype=state_dtype, master_weights=master_weights)


def hashed_uniform(first: int, count: int, salt: int, device: torch.device) -> Tensor:  # -> (count,) fp32 in [0, 1)
    """Noise for places first … first + count − 1 of one tensor: murmur3's finaliser of place and salt."""
    x = torch.arange(first, first + count, dtype=torch.int64, device=device)
    x = (x * 0x9E3779B1 + salt * 0x632BE5AB + (x >> 32) * 0x27D4EB2F).bitwise_and_(_MASK)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x.bitwise_xor_(x >> shift) * factor).bitwise_and_(_MASK)
    return x.bitwise_xor_(x >> 16).bitwise_right_shift_(8).float().mul_(2.0**-24)


def to_bf16(x: Tensor, noise: Tensor) -> Tensor:
    """fp32 → bf16, up with the probability that makes the mean exact; not-finite values keep their kind."""
    bits = x.view(torch.int32) + (noise * 65536).to(torch.int32)
    up = (bits & -65536).view(torch.float32)
    return torch.where(x.isfinite(), up, x).to(torch.bfloat16)


def _columns(blocks: Tensor, width: int) -> Tensor:  # (R, blocks) -> (R, width): each block's scale for its columns
    return blocks.repeat_interleave(BLOCK, dim=1)[:, :width]


def to_8bit(x: Tensor, noise: Tensor, signed: bool) -> tuple[Tensor, Tensor]:  # (R,C) -> codes (R,C), scales (R,blocks)
    """fp32 → int8 (signed) or uint8 codes and fp32 block scales."""
    top, power = (127, 2) if signed else (255, 4)
    rows, width = x.shape
    size = x.abs()
    padded = nn.functional.pad(size, (0, -width % BLOCK)).view(rows, -1, BLOCK)
    scale = padded.amax(-1)
    share = size / _columns(scale, width).clamp_min(torch.finfo(torch.float32).tiny)
    low = (share ** (1 / power) * top).floor().clamp_(0, top - 1)
    floor, ceiling = (low / top) ** power, ((low + 1) / top) ** power
    code = low + (noise * (ceiling - floor) < share - floor)
    if signed:
        return (code * x.sign()).to(torch.int8), scale
    return code.clamp_min(1).mul_(x > 0).to(torch.uint8), scale


def from_8bit(codes: Tensor, scale: Tensor) -> Tensor:  # codes (R,C), scales (R,blocks) -> (R,C) fp32
    signed = codes.dtype == torch.int8
    share = codes.float() / (127 if signed else 255)
    return (share * share.abs() if signed else share**4) * _columns(scale, codes.shape[1])


class CompactAdamW(torch.optim.Optimizer):
    """See the module docstring. States are named tensors (`exp_avg`, `exp_avg_scale`, ..., `step`, `master`), sharded
    as their parameter is, so they are saved and restored like those of torch's AdamW."""

    def __init__(
        self,
        params: Iterable,
        lr: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        state_dtype: str = "float32",
        master_weights: bool = True,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.state_dtype, self.master_weights = state_dtype, master_weights

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  takes none
        number = 0
        for group in self.param_groups:
            for p in group["params"]:
                number += 1
                if p.grad is not None:
                    self._update(p, p.grad, group, number)

    def start(self, p: nn.Parameter) -> None:
        """Empty state for one parameter."""
        state = self.state[p]
        state["step"] = torch.zeros((), dtype=torch.float32)
        for name, small in (("exp_avg", torch.int8), ("exp_avg_sq", torch.uint8)):
            dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": small}[self.state_dtype]
            state[name] = zeros_like_rows_of(p, p.shape, torch.float32 if p.dim() < 2 else dtype)
            if p.dim() >= 2 and dtype == small:
                state[f"{name}_scale"] = zeros_like_rows_of(p, (p.shape[0], -(-p[0].numel() // BLOCK)), torch.float32)
        if self.master_weights and p.dtype != torch.float32:
            state["master"] = zeros_like_rows_of(p, p.shape, torch.float32)
            local(state["master"]).copy_(local(p))

    def _update(self, p: nn.Parameter, grad: Tensor, group: dict, number: int) -> None:
        if not self.state[p]:
            self.start(p)
        state, (beta1, beta2) = self.state[p], group["betas"]
        state["step"] += 1
        t = int(state["step"].item())
        tensors = {k: _rows(local(v)) for k, v in state.items() if k != "step"}
        weight, gradient, first_row = _rows(local(p)), _rows(local(grad)), first_row_of(p)
        width = weight.shape[1]
        chunk = max(1, _ELEMENTS // width)
        for at in range(0, len(weight), chunk):
            rows = slice(at, at + chunk)
            w, g = weight[rows], gradient[rows].float()
            place = first_row if p.dim() < 2 else (first_row + at) * width
            noise = partial(_noise, place, w, 3 * (number + 65_537 * t))
            m = _read(tensors, "exp_avg", rows).lerp_(g, 1 - beta1)
            v = _read(tensors, "exp_avg_sq", rows).mul_(beta2).addcmul_(g, g, value=1 - beta2)
            wide = tensors["master"][rows] if "master" in tensors else w.float()
            wide.mul_(1 - group["lr"] * group["weight_decay"])
            denominator = (v.sqrt() / (1 - beta2**t) ** 0.5).add_(group["eps"])
            wide.addcdiv_(m, denominator, value=-group["lr"] / (1 - beta1**t))
            w.copy_(wide if "master" in tensors or w.dtype == torch.float32 else to_bf16(wide, noise(2)))
            _write(tensors, "exp_avg", rows, m, noise, 0)
            _write(tensors, "exp_avg_sq", rows, v, noise, 1)


def _noise(place: int, like: Tensor, salt: int, kind: int) -> Tensor:
    return hashed_uniform(place, like.numel(), salt + kind, like.device).view_as(like)


def _read(tensors: dict[str, Tensor], name: str, rows: slice) -> Tensor:
    if f"{name}_scale" in tensors:
        return from_8bit(tensors[name][rows], tensors[f"{name}_scale"][rows])
    return tensors[name][rows].to(torch.float32, copy=True)


def _write(
    tensors: dict[str, Tensor], name: str, rows: slice, value: Tensor, noise: Callable[[int], Tensor], kind: int
) -> None:
    target = tensors[name]
    if target.dtype == torch.bfloat16:
        value = to_bf16(value, noise(kind))
    elif f"{name}_scale" in tensors:
        value, scale = to_8bit(value, noise(kind), signed=target.dtype == torch.int8)
        tensors[f"{name}_scale"][rows] = scale
    target[rows] = value


def _rows(x: Tensor) -> Tensor:  # (n,) -> (1,n); (R, ...) -> (R, C)
    return x.view(1, -1) if x.dim() < 2 else x.view(x.shape[0], -1) if x.numel() else x.reshape(0, 1)
