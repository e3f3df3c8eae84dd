"""examples/minimal.py and train.py, told the same settings, are the same algorithm: two writings, one set of numbers.

Over two rounds of the embedded math demo, with the same named draws: traces, artifacts and success rates are equal to
the letter, scores, rewards and advantages to the rounding of fp32, and so are the gradients and weights of all four
updates. Groups of equal rewards have advantage 0 in both. Then every step of the method is written wrong, in the one and
in the other, and the first thing that is found to differ is what that step makes.
"""

import ast
import contextlib
import io
import json
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import train
from examples import minimal
from support.mutants import mutant
from tracelift.rl.flat_groups import SAME
from tracelift.rl.grpo import advantages
from tracelift.training.learner import Learner

SETTINGS = {  # minimal.py's constants as train.py's flags
    "run.seed": minimal.SEED,
    "data.seed": minimal.PROBLEM_SEED,
    "planner.samples": minimal.G,
    "planner.temperature": minimal.TEMPERATURE,
    "planner.max_new_tokens": minimal.MAX_TRACE,
    "executor.repeats": minimal.K,
    "executor.temperature": minimal.EXECUTOR_TEMPERATURE,
    "executor.max_new_tokens": minimal.MAX_ANSWER,
    "executor.stop": [],
    "reward.format_reward": minimal.FORMAT_REWARD,
    "grpo.problems": minimal.PROBLEMS,
    "grpo.epochs": minimal.EPOCHS,
    "grpo.clip_low": minimal.CLIP,
    "grpo.clip_high": minimal.CLIP,
    "optim.lr": minimal.LR,
    "optim.warmup": minimal.WARMUP,
    "optim.beta1": minimal.BETA1,
    "optim.beta2": minimal.BETA2,
    "optim.weight_decay": minimal.DECAY,
    "optim.max_grad_norm": minimal.MAX_NORM,
    "data.eval_problems": 0,
    "run.device": "cpu",
    "run.threads": 1,
}
NAMES = ("tokens", "old", "text", "z", "artifact", "runs", "base_runs", "e2e", "u", "R", "r", "A")
# train.py reads a prompt once for all its traces, which moves last bits; an advantage is divided by a deviation, here of
# at least 0.01. Of log-probs samples.jsonl keeps four decimals.
ROUNDED = {"old": 2e-4, "R": 1e-6, "r": 1e-6, "A": 2e-5}
FIRST_GRADIENT, LATER_GRADIENTS = 1e-5, 1e-4  # relative to their norms; the later ones also by weights that differ
# Adam gives each weight a step of about the same size, be its gradient noise: those of words never met go astray.
WEIGHTS = 4e-3  # relative to how far an update moved them


@dataclass
class Run:
    """What either program made: samples by the names of minimal.Sample, (gradient, weights) of each update."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    updates: list[tuple[list[Tensor], list[Tensor]]] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)  # train.py's, by round
    rounds: list[list[minimal.Sample]] = field(default_factory=list)  # minimal.py's


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """train.py sets the number of threads and notes signals: both are given back."""
    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Run:
    return run_train(tmp_path_factory.mktemp("real") / "run", minimal.ROUNDS)


@pytest.fixture(scope="module")
def mine(real) -> Run:
    return run_minimal(minimal, real)


# -- running both ------------------------------------------------------------------------------------------------------


def run_train(folder, rounds: int) -> Run:
    made, advantages = Run(), []
    plain_advantages, plain_update = train.group_advantages, Learner.update

    def noted_advantages(*args):
        found, valid = plain_advantages(*args)
        advantages.extend(found.flatten().tolist())
        return found, valid

    def noted_update(self, *args):
        gradient = copies(p.grad for p in self.model.parameters())
        metrics = plain_update(self, *args)
        made.updates.append((gradient, copies(self.model.parameters())))
        return metrics

    flags = [word for key, value in SETTINGS.items() for word in (f"--{key}", str(value))]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(train, "group_advantages", noted_advantages)
        patch.setattr(Learner, "update", noted_update)
        assert train.main([*flags, "--run.out", str(folder), "--run.steps", str(rounds)]) == 0
    rows, made.metrics = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("samples.jsonl", "metrics.jsonl")
    )
    made.samples = [as_sample(row, A) for row, A in zip(rows, advantages, strict=True)]
    return made


def as_sample(row: dict[str, Any], A: float) -> dict[str, Any]:
    """A line of samples.jsonl by the names of minimal.Sample."""
    ran = row["e2e"] is not None
    return {
        "tokens": row["token_ids"],
        "old": row["logprobs"],
        "text": row["text"],
        "z": row["trace"],
        "artifact": row["artifact"] or "",
        "runs": row["runs"],
        "base_runs": [text for text, _ in row["base_runs"]],
        "e2e": float(row["e2e"] == "PASS"),
        "u": row["uplift"] if ran else 0.0,
        "R": row["rm_total"] if ran else 0.0,
        "r": row["reward"],
        "A": A,
    }


def run_minimal(module, expected: Run, replayed: Run | None = None) -> Run:
    """Runs it to its end or to the first thing that is not as expected; replayed: rounds to learn from, not sampled anew."""
    made, plain_grade, plain_step = Run(), module.grade, module.AdamW.step

    def noted_grade(group, *args):
        plain_grade(group, *args)
        first = len(made.samples)
        made.samples += [{name: getattr(s, name) for name in NAMES} | {"old": s.old.tolist()} for s in group]
        same_samples(made, expected, first)

    def noted_step(self, gradient, lr):
        plain_step(self, gradient, lr)
        made.updates.append((copies(gradient), copies(self.parameters)))
        same_update(made, expected, len(made.updates) - 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.AdamW, "step", noted_step)
        patch.setattr(module, "grade", noted_grade)
        if replayed:
            G = module.G
            patch.setattr(module, "sample_traces", lambda *a: replayed.rounds[a[3]][a[4] * G : (a[4] + 1) * G])
            patch.setattr(module, "grade", lambda *_: None)
        made.rounds = list(module.train())
    return made


def copies(tensors) -> list[Tensor]:
    return [t.detach().clone() for t in tensors]


# -- comparing them ----------------------------------------------------------------------------------------------------


def same_samples(found: Run, expected: Run, first: int) -> None:
    """Step by step for all samples from this one on, so that what is reported is what differs first."""
    pairs = list(zip(found.samples[first:], expected.samples[first:], strict=False))
    for name in NAMES:
        for i, (a, b) in enumerate(pairs, start=first):
            wanted = pytest.approx(b[name], rel=0, abs=ROUNDED[name]) if name in ROUNDED else b[name]
            assert a[name] == wanted, f"{name} of sample {i}"


def same_update(found: Run, expected: Run, i: int) -> None:
    (g, theta), (g_expected, theta_expected) = found.updates[i], expected.updates[i]
    tolerance = LATER_GRADIENTS if i else FIRST_GRADIENT
    for n, (a, b) in enumerate(zip(g, g_expected, strict=True)):
        assert (a - b).norm() <= tolerance * b.norm(), f"gradient {n} of update {i}"
    before = expected.updates[i - 1][1] if i else STARTED
    for n, (a, b, start) in enumerate(zip(theta, theta_expected, before, strict=True)):
        assert (a - b).norm() <= WEIGHTS * (b - start).norm(), f"weights {n} after update {i}"


STARTED = copies(minimal.load_pretrained(minimal.MODELS / "planner").parameters())


def test_two_rounds_are_equal(real, mine):
    assert len(mine.samples) == len(real.samples) == minimal.ROUNDS * minimal.PROBLEMS * minimal.G
    assert len(mine.updates) == len(real.updates) == minimal.ROUNDS * minimal.EPOCHS


def test_the_first_gradient_agrees_to_five_digits(real, mine):
    a, b = (torch.cat([g.flatten() for g in run.updates[0][0]]) for run in (mine, real))
    assert (a - b).norm() <= 1e-5 * b.norm() and b.norm() > minimal.MAX_NORM


def test_what_is_printed_is_what_train_py_logs(real, mine):
    for n, (samples, m) in enumerate(zip(mine.rounds, real.metrics, strict=True), start=1):
        means = f"reward {m['reward']:.3f}   accuracy {m['accuracy']:.3f}   uplift {m['uplift']:+.3f}"
        assert means in minimal.report(n, samples)


def test_equal_rewards_have_no_advantage_in_either():
    """Rewards whose fp32 mean is not themselves, and such as differ by rounding alone, which two rounds may not meet."""
    assert minimal.SAME == SAME
    for n in range(2, 17):
        for k in range(-500, 1001):
            assert minimal.advantages(torch.full((n,), k / 1000)).abs().max() == 0
    near = torch.tensor([0.8, 0.8 + 0.9 * SAME, 0.8]), torch.tensor([0.8, 0.8 + 1.2 * SAME, 0.8])
    for r, moves in zip(near, (False, True), strict=True):
        for found in (minimal.advantages(r), advantages(r[None], torch.ones(1, 3, dtype=torch.bool))[0]):
            assert (found.abs().max() > 0) == moves


def test_every_branch_is_met(real):
    """Without which the comparison would show less than it seems to."""
    rows = real.samples
    assert (
        any(s["z"] is None for s in rows) and any(0 < abs(s["u"]) < 1 for s in rows) and any(s["u"] < 0 for s in rows)
    )
    assert any(s["z"] and s["artifact"] != s["runs"][1] for s in rows)
    assert all(m["clip_low"] > 0 and m["clip_high"] > 0 for m in real.metrics)
    assert all(torch.stack([g.norm() for g in gradient]).norm() > minimal.MAX_NORM for gradient, _ in real.updates)


def test_it_is_short_and_borrows_nothing_of_the_method():
    source = Path(minimal.__file__).read_text()
    imported = {
        name
        for node in ast.walk(ast.parse(source))
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    borrowed = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    allowed = {"tracelift.sampler.sampling", "tracelift.verify", "tracelift.worlds.math", "tracelift.runs.console"}
    assert borrowed == {"torch", "torch.nn.functional", "models", *allowed}
    assert source.count("\n") <= 300


# -- written wrong -----------------------------------------------------------------------------------------------------

# What is found to differ first, the text to mutate, what it becomes.
GRADED = {
    "drawn at temperature 1": ("tokens", "U, TEMPERATURE)", "U, 1.0)"),
    "the same numbers for every problem": ("tokens", "draw(SEED, (step, number)", "draw(SEED, (step, 0)"),
    "the same numbers for every trace": ("tokens", "(step, number), i,", "(step, number), 0,"),
    "cut text taken for a trace": ("z", "if found and once else None", "if found and once else text"),
    "tags left in the trace": ("z", "return found[1]", "return found[0]"),
    "executor at the planner's temperature": ("runs", "U, EXECUTOR_TEMPERATURE", "U, TEMPERATURE"),
    "end-to-end run is one of the K": ("artifact", "END_TO_END = 1_000_000", "END_TO_END = 1"),
    "problems share the executor's seeds": ("base_runs", ":{x.problem_id}:", ":math-1000-0:"),
    "baseline with other seeds": ("base_runs", "x=x.text), x, range(K))", "x=x.text), x, range(K, 2 * K))"),
    "K runs counted as K − 1": ("u", "/ len(artifacts)", "/ max(1, len(artifacts) - 1)"),
    "uplift the wrong way round": (
        "u",
        "success(x, s.runs) - success(x, base_runs)",
        "success(x, base_runs) - success(x, s.runs)",
    ),
    "e2e from the K runs": ("e2e", "success(x, [s.artifact])", "success(x, s.runs)"),
    "labels from 1": ("R", "torch.arange(5.0)", "torch.arange(1.0, 6.0)"),
    "most likely label": ("R", "label_logits[0].softmax(-1)", "(100 * label_logits[0]).softmax(-1)"),
    "total head alone": ("R", "0.5 * ((0.2 * expected_label).sum() / 4 + total", "(total"),
    "Reason RM without the problem": ("R", "REASON_RM.format(x=x.text", 'REASON_RM.format(x=""'),
    "reward without uplift": ("r", " * s.R * s.u", " * s.R"),
    "reward without e2e": ("r", "0.5 * s.e2e + ", ""),
    "reward without R": ("r", " * s.R * s.u", " * s.u"),
    "format failures for free": ("r", "r: float = FORMAT_REWARD", "r: float = 0.0"),
    "advantage not centred": ("A", "(r - r.mean())", "r"),
    "advantage not scaled": ("A", " / (r.std() + 1e-4)", ""),
    "deviation of a population": ("A", "r.std()", "r.std(correction=0)"),
}
UPDATED = {
    "end token left out": ("gradient", "    return -torch.min", "    ratio = ratio[:-1]\n    return -torch.min"),
    "temperature not in the score": ("gradient", " / TEMPERATURE).log_softmax", ").log_softmax"),
    "mean by trace, then over traces": ("gradient", ".sum() / N", ".mean() / (PROBLEMS * G)"),
    "mean over the trained traces only": ("gradient", "for s in samples)", "for s in samples if s.z)"),
    "no clip": ("gradient", "ratio.clamp(1 - CLIP, 1 + CLIP)", "ratio"),
    "clip without the minimum": ("gradient", "torch.minimum(ratio * s.A, ratio.clamp", "(ratio.clamp"),
    "clip above only": ("gradient", "clamp(1 - CLIP, 1 + CLIP)", "clamp(max=1 + CLIP)"),
    "ratio always 1": (
        "gradient",
        "    return -torch.min",
        "    ratio = ratio / ratio.detach()\n    return -torch.min",
    ),
    "no warm-up": ("weights", "LR * min(1.0, (step + 1) / WARMUP)", "LR"),
    "gradient not clipped": ("weights", "min(1.0, MAX_NORM / norm)", "1.0"),
    "moments not corrected": ("weights", "m / (1 - BETA1**self.t), v / (1 - BETA2**self.t)", "m, v"),
    "β1 for β2": ("weights", "1 - BETA2**self.t", "1 - BETA1**self.t"),
    "no weight decay": ("weights", "(DECAY if p.dim() >= 2 else 0.0)", "0.0"),
    "weight decay on vectors": ("weights", "(DECAY if p.dim() >= 2 else 0.0)", "DECAY"),
    "moments forgotten between rounds": (
        "weights",
        "        N = sum",
        "        optimizer.__init__(planner.parameters())\n        N = sum",
    ),
}
# The same in what train.py calls: what differs first, the module, the text, what it becomes, and who is given the mutant.
REAL = {
    "drawn at another temperature": (
        "tokens",
        "tracelift.sampler.sampling",
        ("wide / plan.temperature", "wide"),
        "tracelift.sampler.scheduler:select",
    ),
    "baseline with other seeds": (
        "base_runs",
        "tracelift.executor.executor",
        ("task, k) for k in range(self.settings.baseline", "task, k + 9) for k in range(self.settings.baseline"),
        "tracelift.build:Executor",
    ),
    "Reason RM without the type": (
        "R",
        "tracelift.reward_model.scorer",
        ("<type>{type_text}</type>", "<type></type>"),
        "tracelift.build:LocalScorer",
    ),
    "reward without uplift": (
        "r",
        "tracelift.rl.rewards",
        ("product = score * measured\n    penalty", "product = score\n    penalty"),
        "tracelift.rl.rollout:math_reward",
    ),
    "advantage not centred": (
        "A",
        "tracelift.rl.grpo",
        ("r - r.sum(-1, keepdim=True) / count.clamp(min=1)", "r"),
        "train:group_advantages",
    ),
    "traces see their siblings": (
        "gradient",
        "tracelift.training.packing",
        ("owner[b, at : at + n] = s + 1", "owner[b, at : at + n] = 1"),
        "train:pack",
    ),
    "clip without the minimum": (
        "gradient",
        "tracelift.rl.grpo",
        ("torch.minimum(ratio * advantage, clipped * advantage)", "clipped * advantage"),
        "train:policy_loss",
    ),
}


def edited(name: str, module: str, old: str, new: str, path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # which minimal.py adds to
    return mutant(name, module, (old, new), path)


@pytest.mark.parametrize("name", GRADED)
def test_minimal_mutated_up_to_the_advantage_is_caught(name, real, mine, tmp_path, monkeypatch):
    difference, old, new = GRADED[name]
    wrong = edited(name, "examples.minimal", old, new, tmp_path, monkeypatch)
    wrong.MODELS = minimal.MODELS
    with pytest.raises(AssertionError, match=rf"^{difference} of sample"):
        run_minimal(wrong, real)


@pytest.mark.parametrize("name", ["nothing", *UPDATED])
def test_minimal_mutated_in_the_update_is_caught(name, real, mine, tmp_path, monkeypatch):
    difference, old, new = UPDATED.get(name, ("", "", ""))
    wrong = edited(name, "examples.minimal", old, new, tmp_path, monkeypatch)
    wrong.MODELS = minimal.MODELS
    if name == "nothing":
        run_minimal(wrong, real, mine)
    else:
        with pytest.raises(AssertionError, match=rf"^{difference} \d+ (of|after) update"):
            run_minimal(wrong, real, mine)


@pytest.mark.parametrize("name", REAL)
def test_train_py_mutated_is_caught(name, mine, tmp_path, monkeypatch):
    difference, module, edit, place = REAL[name]
    owner, attribute = place.split(":")
    wrong = mutant(name, module, edit, tmp_path)
    monkeypatch.setattr(sys.modules[owner], attribute, getattr(wrong, attribute))
    found = run_train(tmp_path / "run", rounds=1)
    with pytest.raises(AssertionError, match=rf"^{difference} "):
        same_samples(found, mine, 0)
        for i in range(len(found.updates)):
            same_update(found, mine, i)
