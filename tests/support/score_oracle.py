"""Float64 scores and closed-form gradients, written from the definitions, and the comparison every test shares.

Nothing here is imported from kernels/: log-probs come from float64 log-sum-exp, KL is the sum Σ p·log(p/q) term by
term, and gradients are the derivatives of the definitions, not autograd through a second copy of the code.
"""

from __future__ import annotations

import torch
from torch import Tensor

NAMES = ("logprob", "logsumexp", "entropy", "kl")


def exact_scores(logits, targets, ref=None, temperature=1.0) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """(scores (N,) float64, log p (N,V), log q (N,V)); −inf logits have probability 0 and 0·log 0 = 0."""
    logp, lse = log_softmax_exact(logits, temperature)
    p = logp.exp()
    weighted = lambda v: torch.where(p == 0, 0, p * v).sum(-1)  # noqa: E731
    scores = [logp.gather(-1, targets[:, None]).squeeze(-1), lse, -weighted(logp)]
    logq = None
    if ref is not None:
        logq = log_softmax_exact(ref, temperature)[0]
        scores.append(weighted(logp - logq))
    return scores, logp, logq


def log_softmax_exact(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:  # (N,V) -> (N,V), (N,)
    """Log-probs and log-sum-exp. torch.log_softmax would not do: even in float64 it loses 1 − p where p is near 1."""
    z = logits.detach().double() / temperature
    top, first = z.max(-1, keepdim=True)
    beside = (z - top).exp().scatter(-1, first, 0).sum(-1, keepdim=True)
    return z - top - torch.log1p(beside), (top + torch.log1p(beside)).squeeze(-1)


def exact_gradients(logp, logq, targets, temperature) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """For each score its derivative by the logits (N,V), and the sum of the absolute values of that formula's terms.

    The second is the yardstick: an element cannot be known better than the rounding of the terms it is a sum of.
    """
    p = logp.exp()
    hit = torch.zeros_like(p).scatter(-1, targets[:, None], 1)
    plogp = torch.where(p == 0, 0, p * logp)
    entropy = -plogp.sum(-1, keepdim=True)
    # off the target only p_j is involved, on it 1 − p_y, which expm1 gives without cancellation
    grads = {"logprob": torch.where(hit > 0, -torch.expm1(logp), -p), "logsumexp": p, "entropy": -(plogp + p * entropy)}
    sizes = {"logprob": grads["logprob"].abs(), "logsumexp": p, "entropy": plogp.abs() + p * entropy}
    if logq is not None:
        term = torch.where(p == 0, 0, p * (logp - logq))
        kl = term.sum(-1, keepdim=True)
        grads["kl"] = term - p * kl
        terms = torch.where(p == 0, 0, p * (logp.abs() + logq.abs()))
        sizes["kl"] = terms + p * terms.sum(-1, keepdim=True)
    return ({k: v / temperature for k, v in grads.items()}, {k: v / temperature for k, v in sizes.items()})


def exponents(x: Tensor, temperature: float | Tensor, softcap: float | None) -> tuple[Tensor, Tensor]:  # (N,V)
    """z = c·tanh(x / c) / T and dz/dx in float64; −inf stays."""
    x = x.detach().double()
    T = temperature.double()[:, None] if isinstance(temperature, Tensor) else temperature
    if softcap is None:
        return x / T, torch.ones_like(x) / T
    z = torch.where(x == -torch.inf, x, softcap * torch.tanh(x / softcap))
    return z / T, 1 / torch.cosh(x / softcap).square() / T


def rows(kinds: tuple[str, ...], V: int, dtype=torch.float32, seed: int = 0) -> Tensor:  # -> (len(kinds), V)
    """Logit rows of the kinds that have broken public kernels."""
    gen = torch.Generator().manual_seed(seed)
    out = []
    for kind in kinds:
        x = torch.randn(V, generator=gen, dtype=torch.float64)
        if kind == "flat":
            x *= 1e-3
        elif kind == "model":  # a trained head: a wide spread and a few likely tokens
            x = 3 * x
            x[torch.randint(V, (5,), generator=gen)] += 8
        elif kind == "peaked":  # 1 − p is far below the resolution of fp32 near 1
            x[V // 2] = x.max() + 25
        elif kind == "negative":  # a maximum started at 0 makes every exponential vanish
            x -= 300
        elif kind == "huge":  # (x − max) must be taken before dividing by the temperature
            x = 2000 + 20 * x
        elif kind == "tied":  # several maxima: the one left out of the sum must be one
            x = x.clamp(max=x.median()) if V > 2 else torch.ones_like(x)
        else:
            raise ValueError(kind)
        out.append(x)
    return torch.stack(out).to(dtype)


KINDS = ("flat", "model", "peaked", "negative", "huge", "tied")


def noisy(x: Tensor, scale: float = 0.02, seed: int = 1) -> Tensor:
    """A reference as GRPO meets it: the policy some steps ago."""
    gen = torch.Generator().manual_seed(seed)
    return (x.double() + scale * torch.randn(x.shape, generator=gen, dtype=torch.float64)).to(x.dtype)


def check(
    score,
    logits,
    targets,
    ref=None,
    temperature=1.0,
    only: tuple[str, ...] = NAMES,
    device="cpu",
    interpreted: bool = False,
    softcap: float | None = None,
) -> None:
    """Assert that `score(logits, targets, ref, temperature)` and its gradients are those of the definitions.

    fp32: log-prob within 1e-6 of its own size; the other scores within 1e-6 of the size of their terms; gradients
    within 1e-5 element by element, each output by itself and all together with random incoming gradients. Half
    precision: scores as above, for they are computed from the rounded inputs; gradients within their own rounding. A soft cap
    rounds each logit once more: all may be off by what that does to them.
    """
    z, slope = exponents(logits, temperature, softcap)
    scores, logp, logq = exact_scores(z, targets, None if ref is None else exponents(ref, temperature, softcap)[0])
    grads, sizes = ({k: v * slope for k, v in of.items()} for of in exact_gradients(logp, logq, targets, 1.0))
    on = lambda t: t.to(device) if isinstance(t, Tensor) else t  # noqa: E731
    x = logits.detach().to(device).requires_grad_()
    got = score(x, on(targets), on(ref), on(temperature))
    p = logp.exp()
    # exp(d) inherits the rounding of d, |d| times over: with two tokens 46 nats apart that is all there is to see.
    spread, spread2 = (torch.where(p == 0, 0, p * logp.abs() ** k).sum(-1) for k in (1, 2))
    bound = {
        "logprob": 1e-6 * scores[0].abs() + 1e-7 * spread + 1e-38,
        "logsumexp": 1e-6 * (scores[1].abs() + 1),
        "entropy": 1e-6 * spread + 1e-7 * spread2 + 1e-38,
        "kl": 1e-6 * (1 + scores[-1].abs()),
    }
    capped = 0 * scores[0] if softcap is None else 4e-7 * z.abs().masked_fill(z == -torch.inf, 0).amax(-1)
    slip = {"logprob": 2, "logsumexp": 1, "entropy": 2 * spread, "kl": 4 * (1 + scores[-1].abs())}
    bound = {name: limit + slip[name] * capped for name, limit in bound.items()}
    for name, want in zip(NAMES, scores, strict=False):
        have = getattr(got, name)
        assert have.dtype == torch.float32 and have.shape == targets.shape
        error = (have.detach().cpu().double() - want).abs()
        worst = int((error / bound[name]).argmax())
        assert bool((error <= bound[name]).all()), f"{name} row {worst}: {have[worst]} should be {want[worst]}"
    ulps = 2 if interpreted and logits.dtype == torch.bfloat16 else 1  # Triton's interpreter truncates to bf16
    half = ulps * {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}.get(logits.dtype, 0.0) * 1.01
    tiny = {torch.bfloat16: 1e-37, torch.float16: 2.0**-24, torch.float32: 1e-36}[logits.dtype]
    gen = torch.Generator().manual_seed(5)
    used = [n for n in only if n in grads]
    for names in ([n] for n in used) if len(used) == 1 else [*([n] for n in used), used]:
        incoming = {n: torch.randn(len(targets), generator=gen).double() for n in names}
        loss = sum((getattr(got, n) * incoming[n].float().to(device)).sum() for n in names)
        (have,) = torch.autograd.grad(loss, x, retain_graph=True)
        want = sum(incoming[n].float().double()[:, None] * grads[n] for n in names)
        size = sum(incoming[n].abs()[:, None] * sizes[n] for n in names)
        slack = 1e-5 * size + half * want.abs() + tiny
        slack += 4 * capped[:, None] * (size + sum(incoming[n].abs() for n in names)[:, None] * p * slope)
        error = (have.cpu().double() - want).abs()
        assert have.dtype == logits.dtype
        i, j = divmod(int((error / slack).argmax()), logits.shape[-1])
        assert bool((error <= slack).all()), (
            f"gradient of {'+'.join(names)} at row {i}, column {j} (target {int(targets[i])}): "
            f"{have[i, j].item()} should be {want[i, j].item()}"
        )
