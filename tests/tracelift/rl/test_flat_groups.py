"""Groups of equal rewards: told alike everywhere, counted as asked, replaced by problems that depend on nothing but their place."""

import random

import pytest

from tracelift.build import load_tasks
from tracelift.config.schema import GrpoConfig
from tracelift.rl.flat_groups import group_rewards, replace_flat, rewards_of, trained_traces
from tracelift.rl.metrics import group_metrics
from tracelift.rl.sample import Sample
from tracelift.sampler import Completion
from tracelift.tasks.task import Task

P, G, ROUNDS = 5, 3, 4
CUT = "length"


def group(task, rewards, logprob=-1.0):
    return [
        Sample(task, [1], Completion([2, 3], [logprob, 0.0], finish_reason="stop"), "z", "z", reward=r) for r in rewards
    ]


class Numbered:
    """A source whose spare problems say which they are."""

    def spare(self, nth, count):
        return [Task(f"spare-{nth}-{i}", "", "0") for i in range(count)]


def resampled(step, flat, flat_again, mode="resample"):
    """One call of replace_flat: (groups, replaced, what was drawn by attempt). flat: places that start out flat;
    flat_again(number in the round): whether a fresh problem turns out flat."""
    groups = [group(Task(f"first-{i}", "", "0"), [0.8] * G if i in flat else [0.0, 1.0, 0.8]) for i in range(P)]
    drawn = []

    def draw(problems):
        drawn.append(dict(problems))
        return [group(task, [0.3] * G if flat_again(number) else [0.0, 0.5, 1.0]) for number, task in problems]

    config = GrpoConfig(problems=P, flat_groups=mode, resample_rounds=ROUNDS)
    kept, replaced = replace_flat(groups, step, Numbered(), draw, config)
    assert [g[0].task.problem_id for g in groups] == [f"first-{i}" for i in range(P)], "what was given is left as it is"
    return kept, replaced, drawn


def ids(groups):
    return [g[0].task.problem_id for g in groups]


def test_only_flat_groups_are_replaced_and_only_until_none_is():
    kept, replaced, drawn = resampled(0, {1, 3}, lambda number: number == P + 3)  # place 3 is flat once more
    assert ids(kept) == ["first-0", "spare-0-1", "first-2", "spare-1-3", "first-4"]
    assert ids(replaced) == ["first-1", "first-3", "spare-0-3"]
    assert [sorted(d) for d in drawn] == [[P + 1, P + 3], [2 * P + 3]]
    kept, replaced, drawn = resampled(0, set(), lambda _: True)
    assert drawn == [] == replaced and ids(kept) == [f"first-{i}" for i in range(P)]
    for mode in ("count", "drop"):
        assert resampled(0, {1, 3}, lambda _: False, mode)[1:] == ([], [])


def test_it_ends_and_what_is_flat_then_is_not_counted():
    kept, replaced, drawn = resampled(0, {2}, lambda _: True)
    assert len(drawn) == ROUNDS == len(replaced) and ids(kept)[2] == f"spare-{ROUNDS - 1}-2"
    trained = trained_traces(rewards_of(kept), GrpoConfig(flat_groups="resample")).tolist()
    assert trained == [[i != 2] * G for i in range(P)]


def test_a_fresh_problem_depends_on_its_place_alone_and_is_drawn_under_a_number_of_its_own():
    """Whatever else is flat, and however the others turn out; nothing is drawn twice under one (step, number)."""
    rng, known = random.Random(0), {}
    for _ in range(200):
        step, flat = rng.randrange(3), {i for i in range(P) if rng.random() < 0.6}
        again = {n for n in range(P * (ROUNDS + 1)) if rng.random() < 0.5}
        for drawn in resampled(step, flat, again.__contains__)[2]:
            for number, task in drawn.items():
                assert number >= P and known.setdefault((step, number), task.problem_id) == task.problem_id
    assert len(set(known.values())) == len(known) > 3 * P * ROUNDS * 0.9, "no two places share a problem"


@pytest.mark.parametrize(
    ("mode", "mask", "expected"),
    [
        ("count", False, [[1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 0]]),
        ("count", True, [[1, 0, 1], [1, 1, 0], [1, 0, 1], [1, 0, 0]]),
        ("drop", False, [[1, 1, 1], [0, 0, 0], [1, 0, 1], [0, 0, 0]]),
        ("drop", True, [[1, 0, 1], [0, 0, 0], [1, 0, 1], [0, 0, 0]]),
        ("resample", False, [[1, 1, 1], [0, 0, 0], [1, 0, 1], [0, 0, 0]]),
    ],
)
def test_which_traces_the_loss_is_a_mean_over(mode, mask, expected):
    rewards = group_rewards(
        [
            [(0.8, ""), (-0.5, CUT), (0.8, "")],  # the cut one is all the spread there is
            [(0.8, ""), (0.8, ""), (0.8, CUT)],
            [(0.8, ""), (None, CUT), (0.1, "")],
            [(0.8, "")],  # shorter than the others
        ]
    )
    found = trained_traces(rewards, GrpoConfig(flat_groups=mode, mask_truncated=mask))
    assert found.int().tolist() == expected


def test_the_round_s_share_of_flat_groups_is_the_update_s():
    """Rewards that differ in their last digits, a lone one, and ones that rounding to nine digits would tell apart."""
    task = Task("p", "", "0")
    groups = [group(task, r) for r in ([0.5, 0.5 + 1e-7], [0.5, 0.51], [0.25, 0.25], [0.1 + 0.2, 0.3])]
    groups.append(group(task, [0.1, 0.9]))
    groups[-1][1].error = "down"
    metrics = group_metrics(groups, ())
    assert metrics["zero_spread"] == pytest.approx(4 / 5)
    assert sum(trained_traces(rewards_of(groups), GrpoConfig(flat_groups="drop")).any(-1).tolist()) == 1
    assert group_metrics([], ())["zero_spread"] is None


def test_entropy_is_that_of_all_sampled_tokens_flat_or_not():
    task = Task("p", "", "0")
    flat, moving = group(task, [0.8, 0.8], logprob=-1.5), group(task, [0.0, 1.0], logprob=-0.5)
    assert group_metrics([flat], ())["entropy"] == pytest.approx(0.75)
    assert group_metrics([flat, moving], ())["entropy"] == pytest.approx(0.5)
    moving[0].error = "down"
    assert group_metrics([flat, moving], ())["entropy"] == pytest.approx(0.5), "an ERROR's tokens were sampled too"


def test_spare_problems_are_other_ones_and_take_nothing_from_the_rounds(tmp_path):
    demo = load_tasks("demo:math", 3)
    met = {t.problem_id for step in range(50) for t in demo.round(step, 8)}
    spare = [t for nth in range(20) for t in demo.spare(nth, 8)]
    assert len({t.problem_id for t in spare}) == 160 and not met & {t.problem_id for t in spare}
    assert demo.named(spare[-1].problem_id) == spare[-1], "tracelift.explain finds it by its id"
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"problem": "What is {i} + 1?", "answer": {i + 1}}}\n' for i in range(40)))
    asked, silent = (load_tasks(str(path), 3) for _ in range(2))
    lots = [asked.spare(nth, 8) for nth in range(5)]
    assert [asked.round(step, 8) for step in range(5)] == [silent.round(step, 8) for step in range(5)]
    assert lots == [silent.spare(nth, 8) for nth in range(5)] != [silent.round(nth, 8) for nth in range(5)]
    assert len({t.problem_id for lot in lots for t in lot}) == 40, "each row once before any comes again"
