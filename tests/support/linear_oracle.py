"""Problems for the kernels that start at hidden states, and what float64 says of them."""

import torch

NAMES = ("logprob", "logsumexp", "entropy", "kl")


def problem(N=5, H=24, V=301, dtype=torch.float32, seed=0, scale=0.5):
    gen = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=gen)  # noqa: E731
    h, w, rh, rw = draw(3, N, H), scale * draw(V, H), draw(3, N, H - 5), scale * draw(V, H - 5)
    y = torch.randint(V, (3, N), generator=gen)
    y[0, 3:9] = -100
    return [t.to(dtype) for t in (h, w, rh, rw)] + [y, [draw(3, N) for _ in range(4)]]


def oracle(h, w, y, weights, temperature, rh=None, rw=None, names=("logprob", "logsumexp", "entropy", "kl")):
    """Scores, dh and dW in float64, by autograd through log_softmax of the whole matrix of logits."""
    h, w = (t.detach().double().cpu().requires_grad_() for t in (h, w))
    kept = (y != -100).cpu()
    z = (h @ w.t() / temperature)[kept]
    logp = z.log_softmax(-1)
    p = logp.exp()
    scores = {
        "logprob": logp.gather(-1, y.cpu()[kept][:, None])[:, 0],
        "logsumexp": z.logsumexp(-1),
        "entropy": -(p * logp).sum(-1),
    }
    if rh is not None:
        logq = (rh.double().cpu() @ rw.double().cpu().t() / temperature)[kept].log_softmax(-1)
        scores["kl"] = (p * (logp - logq)).sum(-1)
    sum(
        (scores[n] * g.double()[kept]).sum() for n, g in zip(NAMES, weights, strict=True) if n in names and n in scores
    ).backward()
    return scores, h.grad, w.grad


def close(have, want, tolerance):
    """Within `tolerance` of the largest element: a product's error is set by its terms, not by their sum."""
    have = have.detach().cpu().double()
    assert (have - want).abs().max() <= tolerance * want.abs().max(), (have - want).abs().max() / want.abs().max()
