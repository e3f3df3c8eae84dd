"""The math demo's rubric as a judge: the truth's label for every kind of flaw, and noise that is wrong labels."""

import random

import pytest

from tracelift.reward_model.oracle import ROWS, OracleScorer, oracle, row_of
from tracelift.reward_model.scorer import ScoreItem
from tracelift.worlds.math import apply_flaw, check_trace, make_problem, rubric_of
from tracelift.worlds.math.flaws import FLAWS
from tracelift.worlds.tasks import Known

PROBLEMS = [make_problem(77, i) for i in range(120)]


def item(p, trace):
    return ScoreItem("math", p.text, trace, "math", truth=Known(p))


def test_sound_traces_get_full_marks_and_every_flaw_less():
    scorer = OracleScorer()
    for p in PROBLEMS[:40]:
        flaws = [f for kind in FLAWS if (f := apply_flaw(p, kind, random.Random(kind))) is not None]
        good, *bad = scorer.score([item(p, p.trace), *(item(p, f.trace) for f in flaws)])
        assert (good.total, good.derived, set(good.dimensions), good.error) == (1.0, 1.0, {4.0}, None)
        assert all(s.total < 1 and s.derived < 1 for s in bad)


def test_kinds_of_flaw_get_the_rubrics_own_labels():
    """Exact where a fault names its flaw, at least nine times in ten; of the right sort (answer kept or not) always."""
    for kind in ("answer_leaked", "duplicated_step", "slip_not_carried", "slip_carried", "wrong_reason"):
        flaws = [(p, f) for p in PROBLEMS if (f := apply_flaw(p, kind, random.Random(p.problem_id))) is not None]
        labels, total = rubric_of(kind)
        right = [row_of(p, f.trace) == (tuple(labels.values()), total) for p, f in flaws]
        assert len(flaws) > 20 and sum(right) >= 0.9 * len(flaws), (kind, sum(right), len(flaws))
    for kind in FLAWS:
        flaws = [(p, f) for p in PROBLEMS if (f := apply_flaw(p, kind, random.Random(p.problem_id))) is not None]
        kept = [row_of(p, f.trace)[1] for p, f in flaws if not f.changes_answer]
        lost = [row_of(p, f.trace)[1] for p, f in flaws if f.changes_answer]
        assert all(t >= 0.4 for t in kept) and all(t <= 0.6 for t in lost), kind


def test_noise_is_a_share_of_wrong_labels_and_stays_with_its_trace():
    sound = [item(p, p.trace) for p in PROBLEMS]
    noisy = OracleScorer(0.5)
    totals = [s.total for s in noisy.score(sound)]
    assert totals == [s.total for s in noisy.score(sound[::-1])][::-1]
    assert 0.3 < sum(t < 1 for t in totals) / len(totals) < 0.6
    assert all(s.total == 1 for s in OracleScorer(0.0).score(sound))


@pytest.mark.parametrize("fault", sorted(ROWS))
def test_a_blind_spot_is_one_fault_taken_for_sound_and_nothing_else(fault):
    """Over every kind of flaw that strikes: only traces whose first fault it is are scored otherwise, and those as sound."""
    blind, seeing = OracleScorer(blind=fault), OracleScorer()
    struck = [(p, f.trace) for p in PROBLEMS for kind in FLAWS if (f := apply_flaw(p, kind, random.Random(p.text)))]
    asked = [item(p, trace) for p, trace in struck]
    for (p, trace), theirs, ours in zip(struck, seeing.score(asked), blind.score(asked), strict=True):
        own = check_trace(p, trace).fault == fault
        assert ours.total == (1 if own else theirs.total), (trace, fault)
    unseen = sum(check_trace(p, trace).fault == fault for p, trace in struck)
    assert unseen > 0 or fault == "no_result", "the kind is met"


def test_what_it_does_not_know_is_an_error_and_never_a_score():
    (s,) = OracleScorer().score([ScoreItem("math", "What is 1 + 1?", "1 + 1", "math")])
    assert s.error is not None and "math demo" in s.error


def test_it_is_named_in_the_config():
    assert oracle("oracle").noise == 0 and oracle("oracle:0.25").noise == 0.25
    assert oracle("oracle").fingerprint != oracle("oracle:0.25").fingerprint
    assert oracle("oracle:blind-wrong_reason").blind == "wrong_reason"
    assert oracle("oracle").fingerprint != oracle("oracle:blind-wrong_reason").fingerprint
    for wrong in ("oracle:2", "oracle:much", "oracle:blind-", "oracle:blind-nothing"):
        with pytest.raises(ValueError, match="NOISE between 0 and 1"):
            oracle(wrong)
