"""The recipe of the embedded models: its data are readable, its stages are commands that parse, another seed shares nothing."""

import json
from pathlib import Path

import pytest

from tracelift.config import load_config
from tracelift.reward_model.group_format import read_groups
from tracelift.training.sft import read_rows
from tracelift.worlds.build import __main__ as recipe

WORLDS = ("math", "code")


@pytest.fixture(scope="module", params=WORLDS)
def made(request, tmp_path_factory):
    """(world, work folders of asset seeds 0 and 1) with next to no rows."""
    folders = []
    for seed in (0, 1):
        work = tmp_path_factory.mktemp(f"{request.param}-{seed}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recipe, "LEAST", 20)
            recipe.write_data(request.param, work, 0.0, seed)
        folders.append(work)
    return request.param, folders


def test_the_data_are_readable_and_another_seed_has_other_problems(made):
    _, folders = made
    problems = []
    for work in folders:
        assert (work / "data-complete").exists() and (work / "tokenizer" / "tokenizer.json").exists()
        rows = {name: read_rows(work / f"{name}.jsonl") for name in ("base", "planner", "executor", "dev", "proofread")}
        groups = read_groups(work / "groups.jsonl") + read_groups(work / "groups-dev.jsonl")
        assert all(len(r) == 20 for r in rows.values()) and len(groups) == 40
        problems.append({prompt for r in rows.values() for prompt, _ in r} | {g.problem for g in groups})
    assert not problems[0] & problems[1]


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("world", WORLDS)
def test_stages_are_commands_that_parse_and_build_on_each_other(world, seed, tmp_path, monkeypatch):
    """In place of train.py a stand-in that reads its arguments as train.py would and leaves what the next stage starts from."""
    ran = []

    def stage(command, check):
        assert check and command[1] == "train.py"
        config = load_config(command[2], [word for word in command[3:] if word != "--resume"])
        ran.append(config)
        for source in (config.sft.init, config.rm.init):
            assert not source or (Path(source) / "config.json").exists(), "starts from an earlier stage"
        for file in (config.sft.train, config.sft.dev, config.rm.train, config.rm.dev):
            assert not file or Path(file).exists()
        final = Path(config.run.out) / "final"
        final.mkdir(parents=True)
        (final / "config.json").write_text(json.dumps({"stage": config.run.stage}))

    work = tmp_path / "work"
    work.mkdir()
    for name in ("base", "planner", "executor", "dev", "proofread", "groups", "groups-dev"):
        (work / f"{name}.jsonl").touch()
    (work / "data-complete").touch()
    monkeypatch.setattr(recipe.subprocess, "run", stage)
    recipe.build(world, tmp_path / "out", work, 1.0, threads=1, asset_seed=seed)
    assert [Path(c.run.out).name for c in ran] == ["base", "planner", "executor", "proofreader", "reward_model"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["executor", "planner", "reward_model"]
    for config, name in zip(ran, ("base", "planner", "executor", "proofreader", "reward-model"), strict=True):
        assert config.run.seed == load_config(f"configs/assets/{world}-{name}.toml").run.seed + 1000 * seed
    recipe.build(world, tmp_path / "out", work, 1.0, threads=1, asset_seed=seed)
    assert len(ran) == 5, "what is done is kept"
