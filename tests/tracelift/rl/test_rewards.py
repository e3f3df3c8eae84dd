"""The rewards against numbers worked out by hand, one test for each named fault of the paper's code."""

import itertools
from dataclasses import replace
from math import comb, nan

import pytest

from tracelift.rl.rewards import (
    CORRECTED,
    PAPER,
    RewardError,
    Variant,
    code_reward,
    exec_reward,
    math_reward,
)

# ------------------------------------------------------------------------------------------------------- math, paper


@pytest.mark.parametrize(
    "e2e,with_,base,rm,uplift,reward",
    [
        (1, 3, 0, 1.0, 1.0, 1.0),
        (1, 3, 0, 0.8, 1.0, 0.5 + 0.5 * 0.8),
        (0, 3, 0, 0.8, 1.0, 0.4),
        (1, 0, 3, 0.8, -1.0, 0.5 - 0.4),
        (0, 0, 3, 1.0, -1.0, -0.5),  # not clipped at 0: math has no clip
        (1, 2, 1, 0.6, 2 / 3 - 1 / 3, 0.5 + 0.5 * (0.6 * (2 / 3 - 1 / 3))),
        (1, 3, 2, 0.7, 1.0 - 2 / 3, 0.5 + 0.5 * (0.7 * (1.0 - 2 / 3))),  # 0.33333333333333337, not 1/3
        (1, 2, 2, 0.9, 0.0, 0.5),
        (1, 3, 0, 1.7, 1.0, 1.0),  # R is clipped to [0, 1] ...
        (1, 3, 0, -0.4, 1.0, 0.5),  # ... at both ends
    ],
)
def test_math_paper(e2e, with_, base, rm, uplift, reward):
    r = math_reward(e2e, with_, base, 3, rm)
    assert (r.reward, r.uplift, r.e2e) == (reward, uplift, e2e)  # exact: to the last digit
    assert (r.success_with, r.success_base, r.leak_penalty) == (with_ / 3, base / 3, 0.0)
    assert r.reason_score == min(1, max(0, rm)) and r.reason_reward == r.reason_score * uplift


@pytest.mark.parametrize(
    "mode,reward",
    [
        ("tracelift", 0.5 - 0.1),
        ("exec_only", 1.0),
        ("rm_only", 0.4),
        ("uplift_only", -0.5),
        ("product_only", -0.2),
        ("gated", 0.4),
        ("additive", 0.5 + 0.2),
        ("graded", 0.4 * 0.5),
    ],
)
def test_each_ablation_is_one_switch(mode, reward):
    r = math_reward(1, 1, 2, 2, 0.4, mode=mode)
    assert r.reward == pytest.approx(reward, abs=1e-15)
    assert (r.uplift, r.reason_score) == (-0.5, 0.4)  # the parts are logged in every mode


def test_exec_only_and_uplift_only_need_no_rm():
    assert math_reward(1, 0, 0, 3, None, mode="exec_only").reward == 1.0
    assert math_reward(1, 3, 0, 3, None, mode="uplift_only").reward == 1.0
    assert code_reward(0.3, 3, 0, 3, None, mode="exec_only").reward == 0.3
    for mode in ("tracelift", "rm_only", "product_only", "gated", "additive", "graded"):
        with pytest.raises(RewardError, match="needs an RM score"):
            math_reward(1, 3, 0, 3, None, mode=mode)


@pytest.mark.parametrize(
    ("mode", "exec_", "low", "reward"),
    [
        ("gated", 0.8, 0.0, 0.5 * 0.8),
        ("gated", 0.0, 0.0, 0.0),
        ("gated", -0.6, -1.0, 0.5 * 0.4),  # coderl: counted from its least value
        ("additive", 0.8, 0.0, 0.8 + 0.2 * 0.5),
        ("additive", -0.6, -1.0, -0.6 + 0.1),
        ("graded", 0.8, 0.0, 0.5 * 2 / 3),
    ],
)
def test_the_code_rewards_that_leave_one_thing_out(mode, exec_, low, reward):
    r = code_reward(exec_, 2, 0, 3, 0.5, mode=mode, variant="corrected", exec_range=(low, 1.0))
    assert r.reward == pytest.approx(reward, abs=1e-15)


def test_the_paper_clips_the_additive_code_reward_as_its_own():
    assert code_reward(1.0, 0, 0, 1, 1.0, mode="additive").reward == 1.0
    assert code_reward(1.0, 0, 0, 1, 1.0, mode="additive", variant="corrected").reward == 1.2
    scaled = replace(CORRECTED, clip="scale")
    assert code_reward(1.0, 0, 0, 1, 1.0, mode="additive", variant=scaled).reward == pytest.approx((1.2 + 0.2) / 1.4)


def slope(mode, *counts):
    low, high = (math_reward(*counts, R, mode=mode).reward for R in (0.2, 0.8))
    return (high - low) / 0.6


def test_a_better_rubric_never_costs_a_trace_but_through_the_baseline():
    """d reward / d R, for traces that pass and that fail: below zero in R·u alone, and there by exactly the baseline."""
    for e2e, won, lost in itertools.product((0, 1), range(4), range(4)):
        counts = (e2e, won, lost, 3)
        assert slope("gated", *counts) == pytest.approx(e2e) and slope("additive", *counts) == pytest.approx(0.5)
        assert slope("graded", *counts) == pytest.approx(won / 3)
        assert slope("product_only", *counts) == pytest.approx(slope("graded", *counts) - lost / 3)
    for style, low in (("hybrid", 0.0), ("coderl", -1.0)):
        for status in ("passed", "failed_test", "runtime_error", "compile_error"):
            shaped = exec_reward(status, float(status == "passed"), style)
            worse, better = (
                code_reward(shaped, 0, 0, 1, R, mode="gated", exec_range=(low, 1.0)).reward for R in (0.2, 0.8)
            )
            assert worse <= better


def test_where_the_executor_is_sure_and_alone_helpless_the_products_are_one():
    for passes, R in itertools.product((0, 1), (0.0, 0.3, 1.0)):
        one = {m: math_reward(passes, 3 * passes, 0, 3, R, mode=m).reward for m in ("gated", "graded", "product_only")}
        assert len(set(one.values())) == 1


# ------------------------------------------------------------------------------------------------------- code, paper


@pytest.mark.parametrize(
    "exec_,with_,base,repeats,rm,coefficient,reward",
    [
        (0.5, 3, 1, 3, 0.8, 1.0, 0.5 + 0.2 * 0.8),
        (0.5, 1, 3, 3, 0.8, -1.0, 0.5 - 0.2 * 0.8),
        (0.5, 0, 0, 3, 0.8, 0.0, 0.5),
        (0.5, 1, 1, 3, 0.8, 0.5, 0.5 + 0.2 * (0.8 * 0.5)),  # one of three is one half by decree, not 1/3
        (0.5, 2, 2, 3, 0.6, 2 / 3, 0.5 + 0.2 * (0.6 * (2 / 3))),
        (0.5, 3, 3, 3, 0.8, 1.0, 0.5 + 0.2 * 0.8),
        (0.5, 1, 1, 4, 0.8, 0.25, 0.5 + 0.2 * (0.8 * 0.25)),  # the decree is for K = 3 alone
        (1.0, 3, 0, 3, 1.0, 1.0, 1.0),  # clipped above
        (0.0, 0, 3, 3, 1.0, -1.0, 0.0),  # clipped below
        (0.05, 0, 1, 3, 1.0, -1.0, 0.0),
        (-1.0, 3, 0, 3, 1.0, 1.0, 0.0),  # coderl's range is clipped too
        (0.5, 3, 0, 3, 9.0, 1.0, 0.7),
    ],
)
def test_code_paper(exec_, with_, base, repeats, rm, coefficient, reward):
    r = code_reward(exec_, with_, base, repeats, rm)
    assert (r.reward, r.coefficient, r.uplift) == (reward, coefficient, (with_ - base) / repeats)
    assert r.reason_reward == min(1, rm) * coefficient and r.exec_reward == exec_


def test_code_paper_uplift_divides_last():
    # (3 − 2)/3 in the authors' code trainer, 3/3 − 2/3 in their math trainer: they differ in the last digit.
    assert code_reward(0.5, 3, 2, 3, 1.0).uplift == 1 / 3 != math_reward(1, 3, 2, 3, 1.0).uplift


def test_code_weight_and_modes():
    assert code_reward(0.25, 2, 1, 2, 0.5, weight=0.4).reward == 0.25 + 0.4 * 0.5
    values = {"exec_only": 0.25, "rm_only": 0.5, "uplift_only": 0.5, "product_only": 0.5 * 1.0}
    for mode, value in values.items():
        assert code_reward(0.25, 2, 1, 2, 0.5, mode=mode).reward == value


@pytest.mark.parametrize(
    "status,rate,binary,pass_rate,coderl,hybrid",
    [
        ("passed", 1.0, 1, 1, 1, 0.8 + 0.2),
        ("failed_test", 0.5, 0, 0.5, -0.3, 0.8 * 0.5 + 0.2),
        ("failed_test", 0.0, 0, 0, -0.3, 0.2),
        ("runtime_error", 0.25, 0, 0.25, -0.6, 0.8 * 0.25 + 0.05),
        ("timeout", 0.0, 0, 0, -0.6, 0.05),
        ("compile_error", 0.0, 0, 0, -1, 0.0),
        ("no_tests", 0.0, 0, 0, -1, 0.0),
    ],
)
def test_exec_reward_paper(status, rate, binary, pass_rate, coderl, hybrid):
    assert exec_reward(status, rate, "binary") == binary
    assert exec_reward(status, rate, "pass_rate") == pass_rate
    assert exec_reward(status, rate, "coderl") == coderl
    assert exec_reward(status, rate) == exec_reward(status, rate, "hybrid") == hybrid


# ------------------------------------------------------------------- the named faults: the paper's value, and the fix


def test_fault_the_clip_erases_the_rm_where_the_primary_run_passed():
    good, bad = (code_reward(1.0, 3, 0, 3, rm) for rm in (0.9, 0.1))
    assert good.reward == bad.reward == 1.0
    good, bad = (code_reward(1.0, 3, 0, 3, rm, variant="corrected") for rm in (0.9, 0.1))
    assert (good.reward, bad.reward) == (1.0 + 0.2 * 0.9, 1.0 + 0.2 * 0.1)


def test_fault_the_clip_erases_the_rm_where_the_primary_run_failed_and_the_trace_harmed():
    assert code_reward(0.0, 0, 3, 3, 0.9).reward == code_reward(0.0, 0, 3, 3, 0.1).reward == 0.0
    assert code_reward(0.0, 0, 3, 3, 0.9, variant="corrected").reward == -0.2 * 0.9


def test_the_scale_keeps_the_order_inside_the_unit_interval():
    scaled = replace(CORRECTED, clip="scale")
    cases = list(itertools.product((0.0, 0.25, 1.0), (0, 1, 3), (0, 2, 3), (0.0, 0.5, 1.0)))
    free = [code_reward(e, w, b, 3, rm, variant="corrected").reward for e, w, b, rm in cases]
    kept = [code_reward(e, w, b, 3, rm, variant=scaled).reward for e, w, b, rm in cases]
    assert min(kept) == pytest.approx(0.0) and max(kept) == pytest.approx(1.0)
    for (x, y), (p, q) in zip(itertools.combinations(free, 2), itertools.combinations(kept, 2), strict=True):
        assert (x < y) == (p < q) or x == pytest.approx(y)
    assert code_reward(-1.0, 0, 3, 3, 1.0, variant=scaled, exec_range=(-1, 1)).reward == pytest.approx(0.0)


def test_fault_a_tie_of_passing_runs_earns_the_full_coefficient_without_uplift():
    paper, mended = (code_reward(0.5, 3, 3, 3, 1.0, variant=v) for v in ("paper", "corrected"))
    assert (paper.uplift, paper.coefficient, paper.reward) == (0.0, 1.0, 0.7)
    assert (mended.uplift, mended.coefficient, mended.reward) == (0.0, 0.0, 0.5)


def test_fault_the_sign_is_noise_at_three_runs():
    # Two identical executors at success rate 1/2: the sign is not 0 in 44 of 64 draws, and each time worth ±1.
    weight = [comb(3, i) for i in range(4)]
    differs = sum(weight[i] * weight[j] for i in range(4) for j in range(4) if i != j) / 64
    assert differs == 0.6875
    for i, j in itertools.product(range(4), repeat=2):
        paper = code_reward(0.5, i, j, 3, 1.0).coefficient
        assert i == j or abs(paper) == 1.0
        assert code_reward(0.5, i, j, 3, 1.0, variant="corrected").coefficient == pytest.approx((i - j) / 3)


def test_a_baseline_of_many_runs_and_fractional_successes():
    r = math_reward(1, 2, 13, 4, 1.0, "corrected", base_repeats=52)
    assert (r.success_with, r.success_base, r.uplift, r.reward) == (0.5, 0.25, 0.25, 0.625)
    r = code_reward(0.5, 2, 13, 4, 1.0, variant="corrected", base_repeats=52)
    assert (r.uplift, r.coefficient, r.reward) == (0.25, 0.25, 0.55)
    # The sign compares rates, so that 2 of 4 is more than 13 of 52 although it is the smaller count.
    assert code_reward(0.5, 2, 13, 4, 1.0, base_repeats=52).coefficient == 1.0
    assert math_reward(1, 1.5, 0.75, 3, 1.0, "corrected").uplift == 0.25


def test_likelihood_uplift():
    assert math_reward(0, 0, 0, 3, 0.5, "corrected", uplift=0.3).reward == 0.5 * (0.5 * 0.3)
    assert math_reward(0, 0, 0, 3, 0.5, "corrected", uplift=-7.0).uplift == -1.0
    r = code_reward(0.5, 3, 3, 3, 0.5, variant="corrected", uplift=0.3)
    assert (r.coefficient, r.success_with) == (0.3, 1.0)
    for call in (lambda: math_reward(0, 0, 0, 3, 0.5, uplift=0.3), lambda: code_reward(0, 0, 0, 3, 0.5, uplift=0.3)):
        with pytest.raises(ValueError, match="paper"):
            call()


def test_fault_hybrid_pays_an_empty_program():
    assert exec_reward("failed_test", 0.0, produced_output=False) == 0.2
    assert exec_reward("failed_test", 0.0, variant="corrected", produced_output=False) == 0.0
    assert exec_reward("runtime_error", 0.0, variant="corrected", produced_output=False) == 0.0
    # One that answered wrongly, or passed some tests, still earns its validity.
    assert exec_reward("failed_test", 0.0, variant="corrected", produced_output=True) == 0.2
    assert exec_reward("passed", 1.0, variant="corrected") == 1.0
    assert exec_reward("runtime_error", 0.5, variant="corrected") == 0.8 * 0.5 + 0.05


@pytest.mark.parametrize("style", ["binary", "pass_rate", "coderl", "hybrid"])
@pytest.mark.parametrize("variant", ["paper", "corrected"])
def test_fault_an_error_never_becomes_a_reward(style, variant):
    with pytest.raises(RewardError, match="error"):
        exec_reward("error", 0.0, style, variant)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ((1, 3, None, 3, 0.5), "base_successes is None"),  # a failed baseline call is not zero successes
        ((1, nan, 0, 3, 0.5), "with_successes is nan"),
        ((None, 3, 0, 3, 0.5), "e2e is None"),
        ((1, 3, 0, 3, nan), "rm_score is nan"),  # a failed RM call is not 0.5
        ((1, 4, 0, 3, 0.5), "with_successes is 4, expected 0 to 3"),
        ((1, 1, -1, 3, 0.5), "base_successes is -1"),
        ((1, 0, 0, 0, 0.5), "at least 1"),
        ((2, 0, 0, 3, 0.5), "e2e is 2"),
    ],
)
def test_fault_failed_calls_raise_uplift(arguments, message):
    with pytest.raises(RewardError, match=message):
        math_reward(*arguments)
    if "e2e" not in message:
        with pytest.raises(RewardError, match=message):
            code_reward(*arguments)


def test_fault_the_two_arms_are_clipped_differently():
    assert code_reward(-0.3, 0, 0, 3, None, mode="exec_only").reward == -0.3
    assert code_reward(-0.3, 0, 0, 3, 0.5).reward == 0.0
    for clip in ("none", "unit", "scale"):  # whatever the bound, equal inputs get equal rewards at R = 0
        variant = replace(CORRECTED, clip=clip)
        arms = [code_reward(-0.3, 2, 1, 3, 0.0, variant=variant, mode=m).reward for m in ("exec_only", "tracelift")]
        assert arms[0] == arms[1]


def test_fault_nothing_hinders_a_leaked_answer_in_math():
    assert math_reward(1, 3, 0, 3, 1.0, leaked=True).reward == 1.0
    r = math_reward(1, 3, 0, 3, 1.0, "corrected", leaked=True, leak_penalty=0.25)
    assert (r.reward, r.leak_penalty) == (0.75, 0.25)
    assert math_reward(1, 3, 0, 3, 1.0, "corrected", leaked=False, leak_penalty=0.25).reward == 1.0
    with pytest.raises(ValueError, match="corrected"):
        math_reward(1, 3, 0, 3, 1.0, leaked=True, leak_penalty=0.25)


def test_every_fix_is_a_switch_of_its_own():
    assert Variant() == PAPER and set(vars(PAPER)) == {"clip", "coefficient", "validity", "clip_all"}
    assert all(getattr(PAPER, name) != getattr(CORRECTED, name) for name in vars(PAPER))
    only_clip = replace(PAPER, clip="none")
    assert code_reward(1.0, 3, 3, 3, 0.5, variant=only_clip).reward == 1.1  # the tie still pays
    only_tie = replace(PAPER, coefficient="uplift")
    assert code_reward(1.0, 3, 0, 3, 0.5, variant=only_tie).reward == 1.0  # the clip still erases


def test_unknown_names_are_refused_with_the_known_ones():
    for call in (
        lambda: math_reward(1, 3, 0, 3, 0.5, "faithful"),
        lambda: math_reward(1, 3, 0, 3, 0.5, mode="exec"),
        lambda: exec_reward("passed", 1.0, "shaped"),
        lambda: exec_reward("ok", 1.0),
        lambda: Variant(clip="soft"),
    ):
        with pytest.raises(ValueError, match="expected one of"):
            call()
    with pytest.raises(RewardError, match="all tests pass"):
        exec_reward("passed", 0.5)


def test_results_are_frozen():
    with pytest.raises(AttributeError):
        math_reward(1, 3, 0, 3, 0.5).reward = 2.0
