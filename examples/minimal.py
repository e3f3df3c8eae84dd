"""The paper on one page: TraceLift (arXiv 2605.03862) with every step written out, the equation beside the code.

    python examples/minimal.py

A planner π_θ reads a problem x and writes a trace z. A frozen executor E answers x with z, and without it. A verifier V
says which answers are right, a Reason Reward Model R how sound the trace is. The planner learns by GRPO from

    r = ½·e2e + ½·R(x, z)·u        u = mean_k V(E(x, z; seed_k)) − mean_k V(E(x; seed_k)),  k = 1 … K

so that a right answer is not enough: a trace earns by being sound and by what it adds to what the executor can do alone.
Here that happens for two rounds on the embedded math demo, in some seconds on two cores. Start with `train`, at the end;
what it calls stands above it, in the order of the calls.

There are no options, no batches but the draws of one prompt, no cache but keys and values. Left out, and where it lives:

    all prompts at once, shared beginnings, pages, stop strings         tracelift/sampler/
    programs as answers, other rewards, a penalty for leaked answers    tracelift/rl/rewards.py, tracelift/programs/
    the cached baseline, chat models, servers, retries                  tracelift/executor/
    a KL penalty, other ratios and means, mini-batches, LoRA            tracelift/rl/grpo.py, models/lora.py
    packed batches, log-probs without a table of logits                 tracelift/training/packing.py, kernels/
    evaluation, checkpoints, many devices, your own data                train.py, README.md

Borrowed are the models, V, the problems and the draw, whose random numbers depend on their names alone. So train.py,
told the constants below, must find the same traces, rewards, advantages and gradients by its own means, and
tests/examples/test_minimal.py holds that it does.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that this file runs as it is, with nothing installed

from models import RewardModel, Tokenizer, Transformer, load_pretrained, load_reward_model, load_tokenizer
from tracelift.runs.console import reader_may_leave
from tracelift.sampler.sampling import invert, seed_words, stream_id, uniforms
from tracelift.verify import Verdict, verify_math
from tracelift.worlds.math import MathProblem, make_problem

MODELS = Path(__file__).parents[1] / "assets/math"
ROUNDS, PROBLEMS = 2, 4  # problems a round
G, TEMPERATURE, MAX_TRACE = 6, 0.7, 36  # traces a problem; how they are drawn; their longest in tokens: some are cut
K, EXECUTOR_TEMPERATURE, MAX_ANSWER = 3, 1.0, 8  # the same of the executor: runs with a trace, and as many without
FORMAT_REWARD = -0.5  # of a text without one complete reasoning block
EPOCHS, CLIP = 2, 0.2  # passes over a round: in the first every ratio is 1, so that only the second can meet the clip
LR, WARMUP, BETA1, BETA2, DECAY = 2e-4, 2, 0.9, 0.95, 0.1  # AdamW, and rounds of warm-up
MAX_NORM = 0.1  # of the gradient
SEED, PROBLEM_SEED = 0, 1000  # these name all draws, and the series of problems

# Prompts. The demo's models know no others; tracelift/tasks/prompts.py has some for models that follow instructions.
PLANNER = "{x}\n"
EXECUTOR = "{x}\nGuidance: {z}\nAnswer:"
BASELINE = "{x}\nAnswer:"
REASON_RM = "<task>math</task>\n<type>math</type>\n<problem>\n{x}\n</problem>\n<reasoning>\n{z}\n</reasoning>"


@dataclass
class Sample:
    """One trace and what becomes of it, from top to bottom."""

    x: MathProblem
    prompt: list[int]  # x as the planner reads it
    tokens: list[int]  # what it wrote, the end token included
    old: Tensor  # (tokens,) log π_old of each
    text: str
    z: str | None  # the trace in the text; None: a format failure, which no executor sees
    artifact: str = ""  # E(x, z) of the end-to-end run
    runs: list[str] = field(default_factory=list)  # E(x, z; seed_k)
    base_runs: list[str] = field(default_factory=list)  # E(x; seed_k)
    e2e: float = 0.0
    u: float = 0.0
    R: float = 0.0
    r: float = FORMAT_REWARD
    A: float = 0.0


# -- sample: z ~ π_θ(· | x) --------------------------------------------------------------------------------------------


def draw(seed: int, key: tuple[int, ...], sample: int, count: int) -> Tensor:  # -> (count,) float64 in [0, 1)
    """Uniform numbers that are a pure function of their name (seed, key, sample): nothing drawn before can move them."""
    stream = stream_id((1, *key), sample)  # 1: a key was given, as opposed to one made from the prompt
    return uniforms(torch.tensor([stream]), torch.tensor([seed_words(seed)]), torch.tensor([0]), count)[0]


class KVCache:
    """Causal attention that keeps each layer's keys and values: first a whole prompt's, then one token's at a time."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (B,T,heads,E) -> (B,T,heads,E)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        if layer in self.kept:
            k, v = (torch.cat(pair, dim=2) for pair in zip(self.kept[layer], (k, v), strict=True))
        self.kept[layer] = k, v
        return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1, enable_gqa=True).transpose(1, 2)


@torch.no_grad()
def generate(
    model: Transformer, tokenizer: Tokenizer, prompt: list[int], U: Tensor, temperature: float
) -> list[tuple[list[int], Tensor]]:
    """Continue a prompt once for each row of U, (draws, longest): tokens, the end token included, and their log-probs.

    y_t ~ p_t = softmax(logits_t / temperature), namely y_t = min{i : Σ_j≤i p_t(j) > U_t}
    """
    cache, new, positions = KVCache(), torch.tensor([prompt] * len(U)), torch.arange(len(prompt))[None]
    tokens: list[list[int]] = [[] for _ in U]
    logprobs: list[list[float]] = [[] for _ in U]
    live = range(len(U))
    for u in U.T:
        logits = model.logits(model(new, positions, cache)[:, -1]) / temperature
        y = invert(logits.softmax(-1), u)
        logp = logits.log_softmax(-1).gather(-1, y[:, None])[:, 0]
        for i in live:
            tokens[i].append(int(y[i]))
            logprobs[i].append(float(logp[i]))
        live = [i for i in live if tokens[i][-1] not in tokenizer.eos_ids]
        if not live:
            break
        new, positions = y[:, None], positions[:, -1:] + 1
    return [(ids, torch.tensor(values)) for ids, values in zip(tokens, logprobs, strict=True)]


def sample_traces(planner: Transformer, tokenizer: Tokenizer, x: MathProblem, step: int, number: int) -> list[Sample]:
    """G traces of problem `number` of a round."""
    prompt = tokenizer.encode(PLANNER.format(x=x.text))
    U = torch.stack([draw(SEED, (step, number), i, MAX_TRACE) for i in range(G)])
    written = [(*w, tokenizer.decode(w[0])) for w in generate(planner, tokenizer, prompt, U, TEMPERATURE)]
    return [Sample(x, prompt, tokens, logprobs, text, extract_trace(text)) for tokens, logprobs, text in written]


def extract_trace(text: str) -> str | None:
    """What stands in the one complete reasoning block; None where there is none, or another tag of its kind."""
    found = re.search("<reasoning>(.*?)</reasoning>", text, re.DOTALL)
    once = text.count("<reasoning>") == text.count("</reasoning>") == 1
    return found[1].strip() or None if found and once else None


# -- execute: E(x, z; seed_k) and E(x; seed_k), and verify: V(artifact) ∈ {0, 1} ---------------------------------------

END_TO_END = 1_000_000  # the run that e2e is measured on is none of the K


def execute(executor: Transformer, tokenizer: Tokenizer, prompt: str, x: MathProblem, runs: Iterable[int]) -> list[str]:
    """The frozen executor's artifacts. Run k meets the same random numbers with a trace and without."""
    seeds = [hashlib.sha256(f"executor:{SEED}:{x.problem_id}:{k}".encode()).digest()[:8] for k in runs]
    U = torch.stack([draw(int.from_bytes(seed, "little"), (), 0, MAX_ANSWER) for seed in seeds])
    written = generate(executor, tokenizer, tokenizer.encode(prompt), U, EXECUTOR_TEMPERATURE)
    return [tokenizer.decode(tokens) for tokens, _ in written]


def success(x: MathProblem, artifacts: Sequence[str]) -> float:
    """mean_k V(artifact_k)"""
    return sum(verify_math(a, str(x.answer)) is Verdict.PASS for a in artifacts) / len(artifacts)


# -- score: R(x, z) ∈ [0, 1] -------------------------------------------------------------------------------------------


@torch.no_grad()
def score(rm: RewardModel, tokenizer: Tokenizer, x: MathProblem, z: str) -> float:
    """R = ½·(Σ_d w_d·E[label_d] / 4 + σ(total)): five rubric heads d with labels 0 … 4, all w_d = 0.2, and a total head."""
    ids = torch.tensor([tokenizer.encode(REASON_RM.format(x=x.text, z=z))])
    label_logits, total_logit = rm(ids, torch.tensor([ids.shape[1]]))  # (1, 5, 5), (1,)
    expected_label = label_logits[0].softmax(-1) @ torch.arange(5.0)  # (5,)
    return float(0.5 * ((0.2 * expected_label).sum() / 4 + total_logit[0].sigmoid()))


# -- reward, and its advantage over the group --------------------------------------------------------------------------

SAME = (
    1e-5  # rewards no further apart are equal: they teach nothing, and a rounded mean must not make it look otherwise
)


def advantages(r: Tensor) -> Tensor:  # (G,) -> (G,)
    """A_i = (r_i − mean r) / (std r + ε), exactly 0 where all rewards are equal."""
    spread = r.max() - r.min() > SAME * max(1.0, float(r.abs().max()))
    return (r - r.mean()) / (r.std() + 1e-4) if spread else torch.zeros_like(r)


def grade(group: list[Sample], executor: Transformer, rm: RewardModel, tokenizer: Tokenizer) -> None:
    """r = ½·e2e + ½·R·u for each trace of a problem, then their advantages."""
    x = group[0].x
    base_runs = execute(executor, tokenizer, BASELINE.format(x=x.text), x, range(K))
    for s in group:
        if s.z is None:
            continue
        prompt = EXECUTOR.format(x=x.text, z=s.z)
        s.artifact, *s.runs = execute(executor, tokenizer, prompt, x, [END_TO_END, *range(K)])
        s.base_runs = base_runs
        s.e2e = success(x, [s.artifact])
        s.u = success(x, s.runs) - success(x, base_runs)
        s.R = score(rm, tokenizer, x, s.z)
        s.r = 0.5 * s.e2e + 0.5 * s.R * s.u
    for s, advantage in zip(group, advantages(torch.tensor([s.r for s in group])).tolist(), strict=True):
        s.A = advantage


# -- update: GRPO's clipped loss, AdamW --------------------------------------------------------------------------------


def loss(planner: Transformer, s: Sample, N: int) -> Tensor:
    """−1/N · Σ_t min(ρ_t·A, clip(ρ_t, 1 − ε, 1 + ε)·A), with ρ_t = π_θ(y_t) / π_old(y_t) and N the tokens of the round.

    π is the distribution that was drawn from, its temperature included; the end token is trained like any other.
    """
    ids = torch.tensor([s.prompt + s.tokens])
    hidden = planner(ids[:, :-1])[0, len(s.prompt) - 1 :]  # (tokens, D): of each token what came before it
    p = (planner.logits(hidden) / TEMPERATURE).log_softmax(-1)
    ratio = (p.gather(-1, ids[0, len(s.prompt) :, None])[:, 0] - s.old).exp()
    return -torch.minimum(ratio * s.A, ratio.clamp(1 - CLIP, 1 + CLIP) * s.A).sum() / N


class AdamW:
    """m ← β1·m + (1 − β1)·g    v ← β2·v + (1 − β2)·g²    θ ← (1 − ηλ)·θ − η·m̂ / (√v̂ + ε), λ = 0 for vectors"""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters, self.t = list(parameters), 0
        self.m = [torch.zeros_like(p) for p in self.parameters]
        self.v = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradient: Sequence[Tensor], lr: float) -> None:
        self.t += 1
        norm = float(torch.stack([g.norm() for g in gradient]).norm())
        for p, g, m, v in zip(self.parameters, gradient, self.m, self.v, strict=True):
            g = g * min(1.0, MAX_NORM / norm)
            m.lerp_(g, 1 - BETA1)
            v.lerp_(g.square(), 1 - BETA2)
            m_hat, v_hat = m / (1 - BETA1**self.t), v / (1 - BETA2**self.t)
            p *= 1 - lr * (DECAY if p.dim() >= 2 else 0.0)
            p -= lr * m_hat / (v_hat.sqrt() + 1e-8)


# -- the loop ----------------------------------------------------------------------------------------------------------


def train() -> Iterator[list[Sample]]:
    """Yields each round's samples once the planner has learned from them."""
    tokenizer = load_tokenizer(MODELS / "planner")  # the demo's three models have the same
    planner = load_pretrained(MODELS / "planner")
    executor = load_pretrained(MODELS / "executor")
    rm = load_reward_model(MODELS / "reward_model")
    optimizer = AdamW(planner.parameters())
    for step in range(ROUNDS):
        samples: list[Sample] = []
        for number in range(PROBLEMS):
            x = make_problem(PROBLEM_SEED, step * PROBLEMS + number)
            group = sample_traces(planner, tokenizer, x, step, number)  # z ~ π_θ(· | x)
            grade(group, executor, rm, tokenizer)  # E, V, R → r, A
            samples += group
        N = sum(len(s.tokens) for s in samples)
        for _ in range(EPOCHS):
            L = torch.stack([loss(planner, s, N) for s in samples]).sum()
            optimizer.step(torch.autograd.grad(L, optimizer.parameters), LR * min(1.0, (step + 1) / WARMUP))
        yield samples


def report(number: int, samples: list[Sample]) -> str:
    """A round's means, and its best trace."""
    reward, accuracy = (sum(values) / len(samples) for values in ([s.r for s in samples], [s.e2e for s in samples]))
    uplift = [s.u for s in samples if s.z is not None]
    best = max(samples, key=lambda s: s.r)
    return (
        f"round {number}   reward {reward:.3f}   accuracy {accuracy:.3f}   uplift {sum(uplift) / len(uplift):+.3f}\n"
        f"    problem      {best.x.text}\n    trace        {best.z}\n"
        f"    answers      with it{','.join(best.runs)}, without{','.join(best.base_runs)}, right {best.x.answer}\n"
        f"    so           e2e {best.e2e:.0f}, uplift {best.u:+.2f}, Reason RM {best.R:.2f}, reward {best.r:.2f}\n"
    )


if __name__ == "__main__":
    with reader_may_leave():
        for number, samples in enumerate(train(), start=1):
            print(report(number, samples))
