"""The rewards: what one trace earns from the executor's runs and the Reason RM's score.

The paper's two task rewards and its shaped execution reward, to the last digit, and beside them a corrected variant.

    math   r = 0.5·e2e + 0.5·clip(R,0,1)·u                      u = success_with − success_base
    code   r = clip(exec + 0.2·clip(R,0,1)·c, 0, 1)             c ∈ {−1, 1, and on a tie a share of the successes}
    exec   binary, pass_rate, coderl, or hybrid = 0.8·pass_rate + 0.2·ran (0.05 where it stopped with an error)

Each thing that the corrected variant mends is one switch of `Variant`, so that `replace(CORRECTED, clip="unit")` is an
ablation of one fix. `mode` gives the baseline exec_only, the reward's factors alone, and the rewards that leave one thing out
(tracelift/config/modes.py lists them all):

    gated     R·e2e                R·(exec − the least exec)
    additive  ½·e2e + ½·R          exec + w·R
    graded    R·success_with       R·success_with

Left out on purpose: format rewards (prompts decide those before any run), group advantages (grpo), and any fallback
for a run that could not be judged. An ERROR has no reward here: asking for one raises, and the caller drops the sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tracelift.config.modes import MODES

STYLES = ("binary", "pass_rate", "coderl", "hybrid")
STATUSES = ("passed", "failed_test", "runtime_error", "timeout", "compile_error", "no_tests")
_CODERL = {"passed": 1.0, "failed_test": -0.3, "runtime_error": -0.6, "timeout": -0.6}
_VALIDITY = {"passed": 0.2, "failed_test": 0.2, "runtime_error": 0.05, "timeout": 0.05}


class RewardError(ValueError):
    """An input from which no reward may be made: an unjudged run, a score that is no number, a count out of range."""


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Variant:
    """The switches between the paper's rewards and the corrected ones, one named fault each.

    clip: what bounds the code reward. "unit" clips to [0, 1], which erases the RM wherever the primary run passed
        (1.0 whatever R) or failed with c < 0. "none" leaves it. "scale" maps the whole range onto [0, 1], order kept.
    coefficient: "sign" is the paper's c. A tie of all-passing runs earns 1 with no uplift at all, and with K = 3 and
        two equal success rates of one half the sign differs from 0 in 69% of draws. "uplift" is the difference itself.
    validity: "ran" pays hybrid's bonus to any program that ran, an empty one included. "output" pays it only to one
        that wrote output where a test asked for some.
    clip_all: whether exec_only is clipped like the full reward, without which the two arms cannot be compared.
    """

    clip: str = "unit"
    coefficient: str = "sign"
    validity: str = "ran"
    clip_all: bool = False

    def __post_init__(self) -> None:
        _one_of("clip", self.clip, ("unit", "none", "scale"))
        _one_of("coefficient", self.coefficient, ("sign", "uplift"))
        _one_of("validity", self.validity, ("ran", "output"))


PAPER = Variant()
CORRECTED = Variant(clip="none", coefficient="uplift", validity="output", clip_all=True)
VARIANTS = {"paper": PAPER, "corrected": CORRECTED}


@dataclass(frozen=True)
class MathReward:
    """The parts of a math reward. Successes are rates in [0, 1]; `reason_reward` is reason_score · uplift."""

    reward: float
    e2e: float
    success_with: float
    success_base: float
    uplift: float
    reason_score: float
    reason_reward: float
    leak_penalty: float


@dataclass(frozen=True)
class CodeReward:
    """The parts of a code reward. `reason_reward` is reason_score · coefficient, before the weight."""

    reward: float
    exec_reward: float
    success_with: float
    success_base: float
    uplift: float
    coefficient: float
    reason_score: float
    reason_reward: float


def math_reward(
    e2e: float,
    with_successes: float,
    base_successes: float,
    repeats: int,
    rm_score: float | None,
    variant: str | Variant = "paper",
    mode: str = "tracelift",
    *,
    e2e_weight: float = 0.5,
    reason_weight: float = 0.5,
    base_repeats: int | None = None,
    uplift: float | None = None,
    leaked: bool = False,
    leak_penalty: float = 0.0,
) -> MathReward:
    """`e2e_weight·e2e + reason_weight·clip(R,0,1)·u` (the paper's math reward), or the part of it that `mode` names.

    e2e: success of one separate run with the trace, in [0, 1].
    with_successes, base_successes: how many of `repeats` runs with, and of `base_repeats` (default: as many) without
        the trace succeeded; they may be fractional where each run is itself a mean.
    rm_score: the Reason RM's total; None only in the modes that do not use it (its parts then read 0). Runs that a mode does
        not ask for are given as 0 of 1.
    uplift: a likelihood uplift in place of the difference of success rates, clipped to [−1, 1]; not in "paper".
    leaked, leak_penalty: subtracts the penalty from a trace that gives its answer away; not in "paper".

    Raises RewardError on values from which no reward may be made, ValueError on unknown names.
    """
    variant = _variant(variant)
    _one_of("mode", mode, tuple(MODES))
    if variant == PAPER and leak_penalty:
        raise ValueError("leak_penalty belongs to the corrected variant: the paper's reward has none")
    _in_unit("e2e", e2e)
    counts = (with_successes, base_successes, repeats, base_repeats)
    success_with, success_base, measured = _uplift(*counts, variant, uplift)
    score = _score(rm_score, mode)
    product = score * measured
    penalty = leak_penalty if leaked else 0.0
    reward = {
        "tracelift": e2e_weight * float(e2e) + reason_weight * product,
        "exec_only": float(e2e),
        "rm_only": score,
        "uplift_only": measured,
        "product_only": product,
        "gated": score * float(e2e),
        "additive": e2e_weight * float(e2e) + reason_weight * score,
        "graded": score * success_with,
    }[mode]
    return MathReward(reward - penalty, float(e2e), success_with, success_base, measured, score, product, penalty)


def code_reward(
    exec_reward: float,
    with_successes: float,
    base_successes: float,
    repeats: int,
    rm_score: float | None,
    weight: float = 0.2,
    variant: str | Variant = "paper",
    mode: str = "tracelift",
    *,
    base_repeats: int | None = None,
    uplift: float | None = None,
    exec_range: tuple[float, float] = (0.0, 1.0),
) -> CodeReward:
    """`clip(exec + weight·clip(R,0,1)·c, 0, 1)` (the paper's code reward), or the part of it that `mode` names.

    exec_reward: the shaped reward of the primary run, which is not among the `repeats` runs. Successes, `rm_score`
    and `uplift` as in `math_reward`. exec_range: the lowest and highest exec_reward, used by clip = "scale" ((−1, 1)
    for the style coderl). Raises as `math_reward`.
    """
    variant = _variant(variant)
    _one_of("mode", mode, tuple(MODES))
    if uplift is not None and variant.coefficient == "sign":
        raise ValueError('uplift needs variant.coefficient = "uplift"; the paper\'s coefficient counts successes')
    _finite("exec_reward", exec_reward)
    counts = (with_successes, base_successes, repeats, base_repeats)
    success_with, success_base, measured = _uplift(*counts, variant, uplift)
    if uplift is None and base_repeats in (None, repeats):
        measured = (with_successes - base_successes) / repeats  # the code trainer divides last, the math trainer first
    if variant.coefficient == "uplift":
        coefficient = measured
    else:
        coefficient = _sign_coefficient(success_with, success_base, with_successes, repeats)
    score = _score(rm_score, mode)
    product = score * coefficient
    low, high = exec_range[0] - weight, exec_range[1] + weight
    if mode == "tracelift":
        reward = _bounded(exec_reward + weight * product, variant.clip, low, high)
    elif mode == "exec_only":
        reward = _bounded(float(exec_reward), variant.clip if variant.clip_all else "none", low, high)
    elif mode == "additive":
        reward = _bounded(exec_reward + weight * score, variant.clip, low, high)
    elif mode == "gated":  # a negative exec_reward times R would pay for worse reasoning
        reward = score * (exec_reward - exec_range[0])
    else:
        factors = {"rm_only": score, "uplift_only": measured, "product_only": product, "graded": score * success_with}
        reward = factors[mode]
    return CodeReward(reward, float(exec_reward), success_with, success_base, measured, coefficient, score, product)


def exec_reward(
    status: str,
    pass_rate: float,
    style: str = "hybrid",
    variant: str | Variant = "paper",
    produced_output: bool = True,
) -> float:
    """The shaped reward of one program run against its tests.

    status: one of STATUSES; "error" (the run could not be judged) raises RewardError. pass_rate: share of the tests
    passed, in [0, 1], 1 where status is "passed". produced_output: whether the program wrote output (or returned a
    value) where some test asked for it, which the corrected hybrid asks before it pays for validity.

    binary: 1 if passed. pass_rate: itself. coderl: 1, −0.3 (failed test), −0.6 (runtime error, timeout), −1.
    hybrid: 0.8·pass_rate + 0.2 if it ran through, 0.05 if it stopped with an error, 0 if it did not compile.
    """
    variant = _variant(variant)
    _one_of("style", style, STYLES)
    if status == "error":
        raise RewardError('status "error" has no reward: the sample leaves its group')
    _one_of("status", status, STATUSES)
    _in_unit("pass_rate", pass_rate)
    if status == "passed" and pass_rate != 1:
        raise RewardError(f'status "passed" with pass_rate {pass_rate}: all tests pass or some test failed')
    if style == "binary":
        return 1.0 if status == "passed" else 0.0
    if style == "pass_rate":
        return float(pass_rate)
    if style == "coderl":
        return _CODERL.get(status, -1.0)
    valid = variant.validity == "ran" or produced_output or status == "passed"
    return 0.8 * pass_rate + (_VALIDITY.get(status, 0.0) if valid else 0.0)


def _sign_coefficient(success_with: float, success_base: float, with_successes: float, repeats: int) -> float:
    """The paper's c: the sign of the uplift, and on a tie of s successes 0, 1, one half (1 of 3), or s/K."""
    if success_with != success_base:
        return 1.0 if success_with > success_base else -1.0
    if with_successes <= 0:
        return 0.0
    if with_successes >= repeats:
        return 1.0
    return 0.5 if repeats == 3 and with_successes == 1 else with_successes / repeats


def _uplift(
    with_successes: float,
    base_successes: float,
    repeats: int,
    base_repeats: int | None,
    variant: Variant,
    uplift: float | None,
) -> tuple[float, float, float]:
    """(success rate with the trace, without it, their difference or the given likelihood uplift)."""
    base_repeats = repeats if base_repeats is None else base_repeats
    for name, successes, runs in (("with", with_successes, repeats), ("base", base_successes, base_repeats)):
        if isinstance(runs, bool) or not isinstance(runs, int) or runs < 1:
            raise RewardError(f"{name} runs: {runs!r} repeats, expected a whole number of at least 1")
        _finite(f"{name}_successes", successes)
        if not 0 <= successes <= runs:
            raise RewardError(f"{name}_successes is {successes}, expected 0 to {runs}, the number of runs")
    success_with, success_base = with_successes / repeats, base_successes / base_repeats
    if uplift is None:
        return success_with, success_base, success_with - success_base
    if variant == PAPER:
        raise ValueError("uplift by likelihood belongs to the corrected variant: the paper's is a difference of rates")
    _finite("uplift", uplift)
    return success_with, success_base, min(1.0, max(-1.0, float(uplift)))


def _bounded(value: float, clip: str, low: float, high: float) -> float:
    if clip == "unit":
        return min(1.0, max(0.0, value))
    return (value - low) / (high - low) if clip == "scale" else value


def _score(rm_score: float | None, mode: str) -> float:
    if rm_score is None:
        if not MODES[mode].rm:
            return 0.0
        raise RewardError(f"mode {mode!r} needs an RM score; a failed RM call makes the sample leave its group")
    _finite("rm_score", rm_score)
    return min(1.0, max(0.0, float(rm_score)))


def _variant(variant: str | Variant) -> Variant:
    if isinstance(variant, Variant):
        return variant
    _one_of("variant", variant, tuple(VARIANTS))
    return VARIANTS[variant]


def _finite(name: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RewardError(f"{name} is {value!r}, expected a finite number")


def _in_unit(name: str, value: float) -> None:
    _finite(name, value)
    if not 0 <= value <= 1:
        raise RewardError(f"{name} is {value}, expected 0 to 1")
