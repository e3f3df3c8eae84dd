"""What an update makes of groups and traces without a gradient: nothing computed, counted as asked, and metrics that do not
depend on it."""

import dataclasses
import math

import pytest

from support.updates import groups_of, update
from tracelift.distributed.world import World
from tracelift.rl.totals import UpdateTotals

ALONE = ("clip_low", "clip_high", "kl_old", "fresh_ratio_deviation", "fresh_ratio_deviation_max", "tokens_sampled")


def flat_among(groups, reward=0.8):
    """The second group's rewards are all equal, at a number whose fp32 mean is not itself."""
    for s in groups[1]:
        s.reward = reward
    return groups


def tokens_of(groups):
    return sum(len(s.completion.tokens) for g in groups for s in g)


def same(a, b):
    return all((x - y).norm() <= 1e-5 * y.norm() for x, y in zip(a, b, strict=True))


def with_completion(sample, **changes):
    return dataclasses.replace(sample, completion=dataclasses.replace(sample.completion, **changes))


def test_nothing_is_computed_of_what_has_no_gradient():
    groups = flat_among(groups_of(4, 7))
    moving = [g for g in groups if g is not groups[1]]  # none of whose traces stands at its group's mean
    metrics, _ = update(groups)
    assert metrics["tokens_computed"] == metrics["tokens_moving"] == tokens_of(moving)
    assert metrics["tokens_sampled"] == tokens_of(groups) > metrics["tokens_moving"]
    flat = [flat_among([[], g])[1] for g in groups_of(3, 7)]
    metrics, grads = update(flat, "--grpo.epochs", "2")
    assert metrics["tokens_computed"] == metrics["tokens_moving"] == 0 == metrics["grad_norm"] == metrics["loss"]
    assert all(g.abs().max() == 0 for g in grads), "no push, however small"
    assert "kl_old" not in metrics and "fresh_ratio_deviation" not in metrics, "nothing was compared: no figure, not 0"


@pytest.mark.parametrize(
    "settings", [("--grpo.kl_coef", "1e-9"), ("--grpo.entropy_coef", "1e-9"), ("--grpo.flat_groups", "drop")]
)
@pytest.mark.parametrize("passes", ["1", "2"])
def test_what_is_computed_beside_changes_no_metric(settings, passes):
    """A KL or entropy term computes all traces, dropping fewer count: shares and deviations are of the same tokens."""
    plain, _ = update(flat_among(groups_of(4, 4)), "--grpo.epochs", passes, "--optim.lr", "1e-9")
    other, _ = update(flat_among(groups_of(4, 4)), "--grpo.epochs", passes, "--optim.lr", "1e-9", *settings)
    assert (other["tokens_computed"] > plain["tokens_computed"]) == (settings[0] != "--grpo.flat_groups")
    for name in ALONE:
        assert math.isclose(plain[name], other[name], rel_tol=1e-5, abs_tol=1e-9), name
    assert plain["clip_low"] > 0 and plain["clip_high"] > 0 and ("kl" in other) == ("kl_coef" in settings[0])


def test_a_dropped_group_is_as_if_it_had_not_been_drawn():
    """Its tokens are in no denominator; counted, they are."""
    groups = flat_among(groups_of(4, 4))
    without = [g for g in groups if g is not groups[1]]
    for aggregate in ("token", "sequence", "constant"):
        settings = ("--grpo.aggregate", aggregate, "--optim.max_grad_norm", "1e9")
        _, expected = update(without, *settings)
        _, dropped = update(groups, *settings, "--grpo.flat_groups", "drop")
        _, counted = update(groups, *settings)
        share = tokens_of(without) / tokens_of(groups) if aggregate == "token" else 3 / 4
        assert share < 0.9 and same(dropped, expected) and same(counted, [g * share for g in expected])


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("term", [(), ("--grpo.kl_coef", "0.1", "--grpo.entropy_coef", "0.1")])
def test_a_masked_trace_is_compared_with_and_nothing_else(masked, term):
    """Whatever a cut trace says, and however long it is, moves nothing; its reward does."""
    settings = ("--grpo.mask_truncated", str(masked).lower(), *term)
    groups = groups_of(3, 4)
    groups[0][1] = with_completion(groups[0][1], finish_reason="length")
    _, plain = update(groups, *settings)
    groups[0][1] = with_completion(groups[0][1], tokens=[7] * 9, logprobs=[-5.0] * 9)
    _, other_words = update(groups, *settings)
    groups[0][1] = dataclasses.replace(groups[0][1], reward=-3.0)
    _, other_reward = update(groups, *settings)
    assert same(plain, other_words) == masked and not same(other_words, other_reward)


def test_the_norm_that_is_logged_is_of_all_updates():
    totals = UpdateTotals()
    for norm in (1.0, 3.0, math.nan):
        totals.updated([([0], 0.5)], norm)
    means = totals.means(World(), 10, 1)
    assert (means["grad_norm"], means["grad_norm_max"], means["loss"]) == (2.0, 3.0, 0.5)
    totals = UpdateTotals()
    totals.updated([], math.nan)
    assert math.isnan(totals.means(World(), 10, 1)["grad_norm"])
