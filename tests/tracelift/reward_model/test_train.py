"""Stage "reward_model": it learns to rank, keeps its best, and kills, ranks and micro-batches leave no trace."""

import json
import math
import random
import re
from collections import Counter
from hashlib import sha256
from types import SimpleNamespace

import pytest
import torch

import models
from models import ModelConfig, RewardConfig, RewardModel, Transformer
from models.lora import adapted, load_adapter, save_adapter
from support.job_server import Hurt
from support.tiny_job import group_rows, rm_arguments, write_jsonl
from tracelift.config import load_config
from tracelift.config.schema import LoraConfig
from tracelift.distributed.world import World
from tracelift.reward_model.group_format import parse_group, read_groups
from tracelift.reward_model.train import SELECTION, RewardModelStage, draw, selection
from tracelift.rubrics import CODE_DIMENSIONS, MATH_DIMENSIONS
from tracelift.runs.folder import RunFolder
from tracelift.training.lora import attach_lora

STEPS = 16


def rounds(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def arguments(job, out, *extra, steps=STEPS):
    return [*rm_arguments(job, out, steps), "--run.save_every", "6", *extra]


@pytest.fixture(scope="module")
def undisturbed(job, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rm") / "run"
    server.done(*arguments(job, folder))
    return folder


def test_it_learns_and_leaves_its_best(undisturbed):
    metrics = rounds(undisturbed)
    assert not [name for m in metrics for name in m if "alternative" in name or "sound" in name], (
        "these groups have none"
    )
    first, last = (sum(m["loss"] for m in part) for part in (metrics[:4], metrics[-4:]))
    assert last < first
    evaluated = [m for m in metrics if "dev/pair_accuracy" in m]
    assert [m["step"] for m in evaluated] == [4, 8, 12, 16]
    assert {f"dev/mae/{d}" for d in MATH_DIMENSIONS} | {
        "dev/pair/off_by_1",
        "dev/rmse",
        "ce",
        "huber",
        "rank",
    } <= evaluated[-1].keys()
    assert evaluated[-1]["dev/rmse"] < evaluated[0]["dev/rmse"]
    rm = models.load_reward_model(undisturbed / "final")
    assert rm.reward.dimension_names == MATH_DIMENSIONS
    assert (undisturbed / "final" / "model.safetensors").read_bytes() == (
        undisturbed / "best" / "model.safetensors"
    ).read_bytes()
    models.load_tokenizer(undisturbed / "final")
    selected = json.loads((undisturbed / "best" / "selected.json").read_text())
    kept = next(m for m in evaluated if m["step"] == selected["step"])
    order = [(m["dev/group_accuracy"], m["dev/pair_accuracy"], -m["dev/mae"], m["step"]) for m in evaluated]
    assert max(order)[3] == selected["step"] and kept["dev/mae"] == selected["mae"]


def test_it_says_where_its_model_is_and_how_its_figures_went(undisturbed, job, server, out):
    text = (undisturbed / "summary.txt").read_text()
    evaluated = [m for m in rounds(undisturbed) if "dev/mae" in m]
    heading, *rows = text.splitlines()
    step = json.loads((undisturbed / "best" / "selected.json").read_text())["step"]
    assert "first, round 4" in heading and f"best, round {step}" in heading and "last, round 16" in heading
    mae = next(row.split() for row in rows if row.split()[0] == "mae")
    wanted = [next(m for m in evaluated if m["step"] == n) for n in (4, step, 16)]
    assert mae[1:] == [f"{m['dev/mae']:.4g}" for m in wanted]
    said = server.done(*arguments(job, out, steps=4))
    assert f"model: {out / 'final'}, of round 4" in said and str(out / "summary.txt") in said
    server.done(*arguments(job, out / "no dev", "--rm.dev", "", steps=2))
    assert "rank" in (out / "no dev" / "summary.txt").read_text()


NAN = math.nan
DEV = {  # (group accuracy, pair accuracy, MAE) of each evaluation → which of them, from 1, is left in final/
    "the only one": ([(0, 0.5, 0.2)], 1),
    "group accuracy before all": ([(0.1, 0.6, 0.3), (0.2, 0.5, 0.4), (0.1, 0.9, 0.1)], 2),
    "then pair accuracy": ([(0, 0.586, 0.195), (0, 0.621, 0.2), (0, 0.638, 0.21), (0, 0.6, 0.1)], 3),
    "then the smaller MAE": ([(0, 0.6, 0.3), (0, 0.6, 0.1), (0, 0.6, 0.2)], 2),
    "then the later one": ([(0, 0.6, 0.2), (0, 0.6, 0.2), (0, 0.6, 0.2), (0, 0.5, 0.1)], 3),
    "what is not finite is worst": ([(0, 0, NAN), (0, 0, 0.9), (0, 0, NAN)], 2),
    "also where nothing is finite": ([(0, 0, NAN), (0, 0, NAN)], 2),
}


@pytest.mark.parametrize("name", DEV)
def test_which_round_is_left_whatever_is_killed_between(job, tmp_path, name):
    """A run that goes on from any checkpoint, after a kill at any evaluation, leaves what a run never killed leaves."""
    figures, winner = DEV[name]

    def evaluate(out, first, last, *extra):
        config = load_config(None, [*arguments(job, out), *extra])
        stage = RewardModelStage(config, RunFolder(out), World(), torch.device("cpu"))
        for number in range(first, last + 1):
            with torch.no_grad():
                stage.rm.total_head.bias.fill_(number)  # which model it is
            stage.keep_best(
                number, dict(zip(("group_accuracy", "pair_accuracy", "mae"), figures[number - 1], strict=True))
            )

    def left(out):
        best = models.load_reward_model(out / "best")
        selected = json.loads((out / "best" / "selected.json").read_text(), parse_constant=pytest.fail)
        assert selected["step"] == best.total_head.bias.item()
        return selected["step"]

    evaluate(tmp_path / "whole", 1, len(figures))
    assert left(tmp_path / "whole") == winner
    for killed in range(1, len(figures) + 1):
        for again in range(1, killed + 2):
            out = tmp_path / f"{killed}-{again}"
            evaluate(out, 1, killed)
            evaluate(out, again, len(figures), "--run.resume", "true")
            assert left(out) == winner, (killed, again)


MOMENTS = {
    "before its first evaluation": Hurt("kill", "tracelift.runs.folder:RunFolder.log", 2),
    "best saved, its round not logged": Hurt("kill", "tracelift.runs.folder:RunFolder.log", 8),
    "while saving": Hurt("kill", "tracelift.runs.checkpoints:save_file", 2),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_equals_never_killed(job, server, undisturbed, out, moment):
    assert server.run(*arguments(job, out), hurt=MOMENTS[moment]).code == -9
    server.done(*arguments(job, out, "--resume"))
    for name in ("metrics.jsonl", "final/model.safetensors", "summary.txt", "best/selected.json"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_ranks_and_micro_batches_change_nothing(job, server, out):
    """Also where a rank has no group at all."""
    found = []
    for name, extra, ranks in (("one", (), 1), ("small", ("--optim.micro_tokens", "1"), 1), ("three", (), 3)):
        server.done(
            *arguments(job, out / name, "--rm.groups", "2", "--rm.negative_weight", "0.5", *extra, steps=4), ranks=ranks
        )
        found.append(rounds(out / name))
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            assert a.keys() == b.keys()
            assert all(math.isclose(a[k], b[k], rel_tol=5e-4, abs_tol=1e-5) for k in a), (a, b)


def test_an_earlier_reward_model_is_where_training_can_start(job, server, undisturbed, out):
    server.done(*arguments(job, out, "--rm.init", str(undisturbed / "final"), "--optim.lr", "1e-9", steps=1))
    best = max(m["dev/group_accuracy"] for m in rounds(undisturbed) if "dev/group_accuracy" in m)
    assert math.isclose(rounds(out)[0]["dev/group_accuracy"], best)


def test_lora_trains_adapters_and_heads_and_resumes(job, server, out):
    lora = ("--lora.r", "4", "--lora.targets", '["q_proj", "down_proj"]')
    server.done(*arguments(job, out / "a", *lora, steps=8))
    assert (
        server.run(
            *arguments(job, out / "b", *lora, steps=8), hurt=Hurt("kill", "tracelift.runs.folder:RunFolder.log", 8)
        ).code
        == -9
    )
    server.done(*arguments(job, out / "b", *lora, "--resume", steps=8))
    assert (out / "a" / "metrics.jsonl").read_bytes() == (out / "b" / "metrics.jsonl").read_bytes()
    models.load_reward_model(out / "a" / "final")


def with_alternatives(rows, kinds=("terms_exchanged", "reworded")):
    """Groups of the tiny job with sound traces told otherwise, in other words each."""
    for row in rows:
        (sound,) = row["positive_pool"]
        a, b = sound["reasoning"].split(" = ")[0].split(" + ")
        told = (f"{b} + {a} = {int(a) + int(b)}", f"= {int(a) + int(b)}")
        row["positive_pool"] += [
            {"reasoning": text, "positive_kind": kind, "rubric": sound["rubric"]}
            for kind, text in zip(kinds, told, strict=True)
        ]
    return rows


def drawn(groups, rounds, *extra):
    """What the stage draws, which needs no model."""
    config = load_config(None, ["--run.stage", "reward_model", "--rm.groups", "8", *extra])
    me = SimpleNamespace(config=config, groups=groups)
    return [each for step in range(rounds) for each in RewardModelStage.drawn(me, step)]


def test_files_without_alternatives_are_drawn_from_as_ever():
    """The digest is that of the version before there were alternatives; pools of one to four sound traces."""
    rows = group_rows(40)
    for i, row in enumerate(rows):
        (sound,) = row["positive_pool"]
        row["positive_pool"] += [{**sound, "reasoning": f"{q} {sound['reasoning']}"} for q in ("a", "b", "c")[: i % 4]]
    draws = drawn([parse_group(row) for row in rows], 12, "--run.seed", "3")
    told = json.dumps([(n, group.problem_id, [c.reasoning for c in traces]) for n, group, traces in draws])
    assert sha256(told.encode()).hexdigest() == "4b4397f1961d79074317cd7e1a35f361cde3ef1577524ec8d04d07ae2e8b3bd9"


def test_positives_are_drawn_from_the_whole_pool_by_key():
    groups = [parse_group(row) for row in with_alternatives(group_rows(40))]
    draws = drawn(groups, 120)
    kinds = Counter(traces[0].positive_kind for _, _, traces in draws)
    assert set(kinds) == {None, "terms_exchanged", "reworded"} and all(
        abs(n / 960 - 1 / 3) < 0.05 for n in kinds.values()
    )
    assert drawn(groups, 3) == draws[:24], "of a round, whatever was drawn before"
    assert drawn(groups, 3, "--run.seed", "1") != draws[:24]


def test_dev_figures_of_alternatives_choose_the_model_and_stand_on_one_line(job, server, out):
    """A round prints one line; metrics.jsonl has what it leaves out."""
    dev = write_jsonl(out.parent / "told.jsonl", with_alternatives(group_rows(10)))
    said = server.done(*arguments(job, out, "--rm.dev", str(dev), steps=8))
    evaluated = [m for m in rounds(out) if "dev/mae" in m]
    figures = {"dev/alternative_pair_accuracy", "dev/sound_group_accuracy", "dev/alternative/terms_exchanged"}
    assert all(figures <= m.keys() for m in evaluated) and evaluated
    selected = json.loads((out / "best" / "selected.json").read_text())
    assert list(selected) == ["step", *SELECTION]
    lines = [line for line in said.splitlines() if line.startswith("round ")]
    assert len(lines) == 8 and max(map(len, lines)) < 140
    shown = r"loss [\d.]+  dev: pairs right [\d.]+  of alternatives [\d.]+  groups right [\d.]+  MAE [\d.]+"
    assert re.fullmatch(rf"round 8/8  {shown}  \([\d.]+ s a round, 0.0 min left\)", lines[-1]), lines[-1]
    assert re.fullmatch(r"round 7/8  loss [\d.]+  \(.*\)", lines[-2])
    assert "alternative pair accuracy" in (out / "summary.txt").read_text()


TOLD = {  # (sound group, group, alternative pair, pair accuracy, MAE) of each evaluation → which of them is left
    "every sound trace before the reference alone": ([(0.1, 0.9, 0.2, 1, 0.1), (0.2, 0.5, 0.1, 0.9, 0.2)], 2),
    "then the reference's groups": ([(0, 0.9, 0.2, 0.9, 0.2), (0, 0.8, 0.9, 0.9, 0.1)], 1),
    "then the alternatives' pairs": ([(0, 0, 0.1, 0.9, 0.1), (0, 0, 0.2, 0.6, 0.2)], 2),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_model_that_knows_the_wording_alone_is_not_the_best(name):
    figures, winner = TOLD[name]
    ranked = [selection(dict(zip(SELECTION, row, strict=True))) for row in figures]
    assert ranked.index(max(ranked)) + 1 == winner


def test_drawing(job):
    group = read_groups(job / "groups.jsonl")[0]
    chosen = draw(group, 3, random.Random(0))
    assert [c.negative_kind is None for c in chosen] == [True, False, False, False]
    assert len({c.reasoning for c in chosen}) == 4 and len(draw(group, 99, random.Random(0))) == 5


def test_what_cannot_be_trained_is_refused_in_one_sentence(job, server, out):
    folder = out.parent
    rows = group_rows(2)
    for row in rows:
        for c in row["positive_pool"] + row["negative_bank"]:
            c["rubric"] = dict(zip(CODE_DIMENSIONS, (1, 2, 3, 4, 0), strict=True)) | {"total": 0.5}
        row["task_type"] = "code"
    code = write_jsonl(folder / "code.jsonl", rows)
    (folder / "broken.jsonl").write_text(json.dumps(group_rows(1)[0]) + "\n{\n")
    (folder / "empty.jsonl").write_text("")
    cases = [
        (("--rm.dev", str(code)), "code.jsonl: group 'g0' is rubricked for code"),
        (("--rm.train", str(folder / "broken.jsonl")), "broken.jsonl, line 2: broken JSON"),
        (("--rm.train", str(folder / "empty.jsonl")), "empty.jsonl holds no group"),
        (("--rm.train", str(folder / "nowhere.jsonl")), "nowhere.jsonl"),
        (("--rm.train", ""), "rm.train: give"),
        (("--rm.init", ""), "rm.init: give"),
        (("--rm.init", str(folder / "nowhere")), "nowhere"),
        (("--rm.max_tokens", "12"), "raise max_tokens"),
    ]
    for number, (extra, said) in enumerate(cases):
        ended = server.run(*arguments(job, out / str(number), *extra))
        assert ended.code == 1 and said in ended.message, ended


def test_adapters_may_begin_at_a_later_block(tmp_path):
    """Blocks below it get no gradient and take no part in the backward pass; the adapter loads again."""
    shape = ModelConfig(50, 32, 64, 3, 4, 2, 8, 128)

    def fresh():
        return RewardModel.from_transformer(Transformer(shape).init_weights(0, std=0.3), RewardConfig(MATH_DIMENSIONS))

    rm = fresh()
    attach_lora(rm, LoraConfig(r=4, from_block=2, targets=["q_proj", "down_proj"]), 0, ("dimension_heads",))
    assert [name for name, _ in adapted(rm)] == ["model.layers.2.self_attn.q_proj", "model.layers.2.mlp.down_proj"]
    entered = []
    rm.model.layers[2].register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0].requires_grad))
    tokens, lengths = torch.arange(1, 9)[None], torch.tensor([8])
    rm(tokens, lengths)[0].sum().backward()
    assert entered == [False]
    with torch.no_grad():
        for _, layer in adapted(rm):
            layer.lora_b.fill_(0.1)
    save_adapter(rm, tmp_path / "adapter")
    again = fresh()
    load_adapter(again, tmp_path / "adapter")
    torch.testing.assert_close(again.score(tokens, lengths).dimensions, rm.score(tokens, lengths).dimensions)
    with pytest.raises(ValueError, match="3 blocks count from 0"):
        attach_lora(fresh(), LoraConfig(r=4, from_block=3), 0)
