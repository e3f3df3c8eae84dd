"""Attention inside a packed row `prompt | sample | sample | …`: each sample sees its prompt and itself, no sibling.

Under one dense mask a row of L tokens costs L² products, most of them masked. Here the prompt is one causal block and
the samples are a batch of their own, each over the keys of its prompt and its own:

    L² = (P + S·T)²    against    P² + S·T·(P + T)        P = 96, S = 8, T = 63:  360,000 against 89,000

The prompt's keys are repeated by a broadcast, whose gradient is a sum, so nothing depends on the order of atomic adds.
Samples are padded to the longest of the batch; where they are so uneven that this costs more than the mask would, the
dense mask it is. Left out: block-sparse kernels, which on a GPU would need neither padding nor mask.

Shape letters: B rows of L positions, P longest prompt, S most samples a row, T longest sample; H, G, E as in the model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.transformer import Attend, causal_attention


def packed_attention(owner: Tensor) -> Attend:
    """The attention function of a layout: owner (B, L) int64 is 0 in the prompt, 1 + i in sample i, −1 in padding."""
    device, owner = owner.device, owner.cpu()
    S = int(owner.max())
    if S <= 1:  # one sample a row: plain causal attention is the same and needs no mask
        return causal_attention
    L = owner.shape[1]
    lengths = (owner[:, None] == torch.arange(S + 1)[:, None]).sum(-1)  # (B, 1+S) tokens of the prompt and each sample
    P, T = int(lengths[:, 0].max()), int(lengths[:, 1:].max())
    if P * P + S * T * (P + T) < L * L:
        return Blocks(owner, lengths, P, T, device)
    causal = torch.ones(L, L, dtype=torch.bool).tril()
    visible = causal & (
        (owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None])
    )  # padding sees padding: no NaN
    return masked_attention(visible.to(device))


def masked_attention(visible: Tensor) -> Attend:  # (B, L query, L key) bool
    """Attention under one dense mask a row, for any layout."""
    mask = visible[:, None]
    return lambda layer, q, k, v: _masked(q, k, v, mask)


def _masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:  # (B,T,H,E), (B,S,G,E), (B,1,T,S) -> (B,T,H,E)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1]).transpose(1, 2)


class Blocks:
    """`attend` where prompts and samples are computed apart. lengths (B, 1+S): tokens of each prompt and sample."""

    def __init__(self, owner: Tensor, lengths: Tensor, P: int, T: int, device: torch.device) -> None:
        (B, L), S = owner.shape, lengths.shape[1] - 1
        first = (lengths.cumsum(1) - lengths)[:, 1:, None] + L * torch.arange(B)[:, None, None]  # (B,S,1) into B·L
        step = torch.arange(T)
        real = step < lengths[:, 1:, None]  # (B,S,T); what is not real reads position 0 and is read by nobody
        own = torch.where(real, first + step, 0)
        back = torch.zeros(B, L, dtype=torch.int64)  # place of each position among B·P prompt and B·S·T sample outputs
        back[:, :P] = torch.arange(B * P).view(B, P)
        back.view(-1)[own[real]] = B * P + real.flatten().nonzero()[:, 0]
        prompt = (torch.arange(P) < lengths[:, :1])[:, None, None].expand(B, S, T, P)
        causal = real[:, :, None] & (step <= step[:, None])  # (B,S,T,T); a padded query sees its prompt: no NaN
        mask = torch.cat((prompt, causal), -1).view(B * S, 1, T, P + T)
        self.shape, self.own, self.back, self.mask = (
            (B, S, P),
            own.view(-1).to(device),
            back.view(-1).to(device),
            mask.to(device),
        )
        self.added: Tensor | None = None

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (B,L,H,E), (B,L,G,E) -> (B,L,H,E)
        if self.added is None or self.added.dtype != q.dtype:  # an additive mask once, not a conversion in every layer
            self.added = torch.zeros(self.mask.shape, dtype=q.dtype, device=q.device).masked_fill_(
                ~self.mask, -torch.inf
            )
        B, S, P = self.shape
        of_prompt = causal_attention(layer, q[:, :P], k[:, :P], v[:, :P])
        queries = self._samples(q).flatten(0, 1)  # (B·S,T,H,E)
        keys, values = (
            torch.cat((x[:, None, :P].expand(-1, S, -1, -1, -1), self._samples(x)), 2).flatten(0, 1) for x in (k, v)
        )
        of_samples = _masked(queries, keys, values, self.added)
        out = torch.cat((of_prompt.flatten(0, 1), of_samples.flatten(0, 1)))
        return out.index_select(0, self.back).view(q.shape)

    def _samples(self, x: Tensor) -> Tensor:  # (B,L,*,E) -> (B,S,T,*,E)
        B, S, _ = self.shape
        return x.flatten(0, 1).index_select(0, self.own).view(B, S, -1, *x.shape[2:])
