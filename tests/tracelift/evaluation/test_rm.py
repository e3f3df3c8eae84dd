"""`eval.py reward-model` asks a Reason RM about sound traces told otherwise, and no RM overwrites the figures of another."""

import json
import random
from types import SimpleNamespace as Of

import pytest

import eval as evaluation
from support.evaluations import read
from support.tiny_job import group_rows, write_jsonl
from tracelift.evaluation.rm import evaluate_rm, folder_for, render_rm
from tracelift.evaluation.rm_picture import draw_rm
from tracelift.reward_model.group_format import parse_group
from tracelift.reward_model.scorer import RMScore
from tracelift.stats import wilson


def group(number, *, flawed=("slip", "swap"), told=(), quoted=0):
    """Traces are named by what they are: `sound`, `sound 1` with quotations, `told KIND`, `flawed KIND`."""
    (row,) = group_rows(1)
    (sound,) = row["positive_pool"]
    negative = row["negative_bank"][0]
    pool = [sound | {"reasoning": "sound"}]
    pool += [sound | {"reasoning": f"sound {n}", "metadata": {"quotations": n}} for n in range(1, quoted + 1)]
    for name in told:
        kind, _, opening = name.partition(" ")
        about = {"metadata": {"quotations": int(opening)}} if opening else {}
        pool.append(sound | {"reasoning": f"told {kind}", "positive_kind": kind} | about)
    bank = [negative | {"reasoning": f"flawed {kind}", "negative_kind": kind} for kind in flawed]
    row |= {"problem_id": f"g{number}", "positive_pool": pool, "negative_bank": bank}
    return parse_group(row, min_negatives=0)


def scorer(total):
    """An RM whose total is `total(reasoning)`."""
    return Of(score=lambda items: [RMScore(total(i.reasoning), 0.5, None, (2.0,) * 5) for i in items])


def test_figures_of_alternatives_by_hand():
    scores = {"sound": 0.9, "told a": 0.2, "told b": 0.9, "flawed slip": 0.2, "flawed swap": 0.5}
    groups = [group(0, told=("a", "b")), group(1, told=("a",)), group(2)] * 4
    found = evaluate_rm(scorer(scores.get), groups)
    assert (
        found["pair accuracy"]["value"] == 1
        and found["group accuracy"]["value"] == 1
        and found["pair accuracy"]["n"] == 12
    )
    told = found["alternatives"]
    assert (told["groups"], told["traces"], told["pairs"]) == (8, 12, 24)
    # a: level with the slip, below the swap; b above both. Two groups of three: 2.5 of 4 pairs and 0.5 of 2.
    assert told["pair accuracy"]["value"] == pytest.approx(3 / 6) and told["pair accuracy"]["n"] == 8
    assert told["group accuracy"]["value"] == 0 and told["group accuracy"]["high"] == pytest.approx(wilson(0, 8)[1])
    assert told["spread"]["value"] == pytest.approx((0.7 + 0.0 + 0.7) / 3)
    assert told["reference above"]["value"] == pytest.approx((1 + 0.5 + 1) / 3), "level counts half"
    a, b = told["per kind"]["a"], told["per kind"]["b"]
    assert list(told["per kind"]) == ["a", "b"] and (a["traces"], b["traces"]) == (8, 4) and a["pairs"] == 16
    assert (a["pair accuracy"]["value"], b["pair accuracy"]["value"]) == (0.25, 1)
    assert (a["spread"]["value"], b["spread"]["value"]) == (pytest.approx(0.7), 0)
    assert (a["reference above"]["value"], b["reference above"]["value"]) == (1, 0.5)
    assert found["per kind"]["slip"]["alternatives"]["value"] == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert found["per kind"]["swap"]["alternatives"]["value"] == pytest.approx(1 / 3)
    assert (found["per kind"]["slip"]["pair accuracy"], found["per kind"]["slip"]["pairs"]) == (1, 12)


@pytest.mark.parametrize(
    ("judge", "pair", "told"),
    [
        ("knows the wording", lambda t: float(t.startswith("sound")), (1, 0.5, 0)),
        ("knows soundness", lambda t: float(not t.startswith("flawed")), (1, 1, 1)),
        (
            "prefers what is told otherwise",
            lambda t: 0.5 * t.startswith("sound") + float(t.startswith("told")),
            (1, 1, 1),
        ),
    ],
)
def test_a_judge_of_wording_is_told_from_a_judge_of_soundness(judge, pair, told):
    found = evaluate_rm(scorer(pair), [group(i, told=("a", "b")) for i in range(12)])
    assert found["pair accuracy"]["value"] == told[0] == 1, "which the pairs of the reference cannot tell"
    others = found["alternatives"]
    assert (others["pair accuracy"]["value"], others["group accuracy"]["value"]) == told[1:]


def test_intervals_are_over_groups():
    """The interval of the same pairs is as wide whether a group's pairs are counted once or many times over."""
    rng = random.Random(0)
    lucky = [rng.random() < 0.4 for _ in range(40)]
    widths = []
    for copies in (1, 6):
        flawed = [f"slip{i}" for i in range(copies)]
        groups = [group(i, told=("a",) if yes else ("b",), flawed=flawed) for i, yes in enumerate(lucky)]
        found = evaluate_rm(
            scorer(lambda t: {"told a": 0.9, "sound": 0.95}.get(t, 0.5 - (t == "told b") * 0.1)), groups
        )
        figure = found["alternatives"]["pair accuracy"]
        assert figure["value"] == sum(lucky) / 40 and figure["n"] == 40
        widths.append(figure["high"] - figure["low"])
    assert widths[0] == pytest.approx(widths[1], rel=0.1) and widths[0] > 0.25


def test_spread_compares_traces_that_open_alike():
    """Quotations are no way of telling a trace otherwise: what they do to a score is not spread."""
    scores = {"sound": 0.9, "sound 1": 0.3, "sound 2": 0.6, "told a": 0.35, "told b": 0.8}
    found = evaluate_rm(scorer(lambda t: scores.get(t, 0.1)), [group(0, told=("a 1", "b 0"), quoted=2)])
    told = found["alternatives"]
    assert (
        told["per kind"]["a"]["spread"]["value"] == pytest.approx(0.05)
        and told["per kind"]["a"]["reference above"]["value"] == 0
    )
    assert (
        told["per kind"]["b"]["spread"]["value"] == pytest.approx(0.1)
        and told["per kind"]["b"]["reference above"]["value"] == 1
    )


def test_files_without_alternatives_say_nothing_of_them(tmp_path):
    found = evaluate_rm(scorer(len), [group(i) for i in range(3)])
    assert found["alternatives"] is None and "alternatives" not in found["per kind"]["slip"]
    assert "alternative" not in render_rm(found) and "told" not in render_rm(found)
    assert draw_rm(found, tmp_path / "a.png").stat().st_size > 5_000


def test_groups_that_lack_a_side_are_left_out_of_its_figures(tmp_path):
    lone = group(0, told=("a",))
    lone = Of(**{**vars(lone), "candidates": (lone.candidates[1],), "type_text": "math"})  # nothing but the alternative
    found = evaluate_rm(scorer(lambda t: 0.5), [lone, group(1), group(2, told=("b",), flawed=())])
    told = found["alternatives"]
    assert (
        found["pair accuracy"]["n"] == 1 and told["pair accuracy"]["n"] == 0 and told["pair accuracy"]["value"] is None
    )
    assert told["spread"] == {**told["spread"], "value": 0, "n": 1}
    assert "-" in render_rm(found) and draw_rm(found, tmp_path / "a.png").exists()


@pytest.fixture(scope="module")
def told_groups(job):
    rows = group_rows(10)
    for row in rows:
        (sound,) = row["positive_pool"]
        a, b = sound["reasoning"].split(" = ")[0].split(" + ")
        told = {
            "reasoning": f"{b} + {a} = {int(a) + int(b)}",
            "positive_kind": "terms_exchanged",
            "rubric": sound["rubric"],
        }
        row["positive_pool"].append(told)
    return write_jsonl(job / "groups-told.jsonl", rows)


def judge(job, groups, *extra, model="reward_model"):
    path = ["--reward_model.path", str(job / model), "--eval.groups", str(groups), "--run.threads", "1"]
    return evaluation.main(["reward-model", *path, *extra])


def test_text_picture_and_json_show_alternatives(job, told_groups, tmp_path, capsys):
    assert judge(job, told_groups, "--eval.out", str(tmp_path)) == 0
    said, found = capsys.readouterr().out, read(tmp_path, "reward_model.json")
    assert found["alternatives"]["groups"] == 10 and found["alternatives"]["traces"] == 10
    for words in (
        "10 sound traces told otherwise, of 10 groups",
        "pair accuracy, alternatives",
        "terms_exchanged",
        "reference above",
    ):
        assert words in said
    for figure in (
        found["alternatives"]["pair accuracy"],
        found["alternatives"]["per kind"]["terms_exchanged"]["spread"],
    ):
        assert f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]" in said
    assert (tmp_path / "reward_model.png").stat().st_size > 10_000


def test_no_model_overwrites_the_figures_of_another(job, told_groups, tmp_path, monkeypatch):
    """Also where both are called reward_model, or lie in folders of one name."""
    import models

    monkeypatch.chdir(tmp_path)
    rm, tokenizer = models.load_reward_model(job / "reward_model"), models.load_tokenizer(job / "reward_model")
    places = ["a/reward_model", "b/reward_model", "c/mine/final", "d/mine/final"]
    for n, place in enumerate(places):
        rm.total_head.bias.data.fill_(float(n))
        models.save_reward_model(rm, tmp_path / place, tokenizer)
    found = {}
    for place in [*places, places[0]]:
        assert judge(tmp_path, told_groups, model=place) == 0
        for record in (tmp_path / "runs").rglob("reward_model.json"):
            found.setdefault(record.parent.name, json.loads(record.read_text())["reward_model"])
    assert list(found)[:3] == ["eval-rm-a-reward_model", "eval-rm-b-reward_model", "eval-rm-mine-final"]
    assert sorted(found.values()) == sorted(str(tmp_path / place) for place in places), (
        "the same model goes where it was"
    )
    for name, path in found.items():
        assert json.loads((tmp_path / "runs" / name / "reward_model.json").read_text())["reward_model"] == path


def test_a_url_is_a_name_too():
    assert evaluation.label_of("http://10.0.0.7:8000/score") == "10-0-0-7-8000-score"
    assert evaluation.label_of("http://10.0.0.8:8000/score") != evaluation.label_of("http://10.0.0.7:8000/score")


def test_the_folder_is_kept_by_the_model_that_has_it(tmp_path):
    assert folder_for(tmp_path / "x", "f" * 64) == tmp_path / "x"
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "reward_model.json").write_text(json.dumps({"fingerprint": "f" * 64}))
    assert folder_for(tmp_path / "x", "f" * 64) == tmp_path / "x"
    assert folder_for(tmp_path / "x", "e" * 64) == tmp_path / "x-eeeeeeee"
