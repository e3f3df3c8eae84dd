"""The demo's defaults beside parts of one's own: which are told, which Reason RM is loaded, which is refused."""

import json
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from tracelift.config import Config, config_of_run, demo_defaults, load_config, modes, to_dict
from tracelift.config.demo import DEMO_DEFAULTS
from tracelift.config.schema import RewardFormulaConfig
from tracelift.errors import ConfigError

ROOT = Path(__file__).parents[3]
PLANNER = ("--planner.path", "mine")
EXECUTOR = ("--executor.path", "mine")
SERVER = ("--executor.url", "http://there")
DATA = (
    "--data.source",
    "mine.jsonl",
    "--reward_model.url",
    "http://rm",
)  # a reward from elsewhere: the file is allowed
PROMPTS = {"executor.prompt", "executor.baseline_prompt", "executor.stop"}
TOLD = {
    "the demo": ((), set()),
    "the demo, longer": (("--run.steps", "500", "--planner.max_new_tokens", "200"), set()),
    "planner": (PLANNER, {"planner.prompt", "reward_model.path"}),
    "adapter": (("--planner.adapter", "mine"), {"planner.prompt", "reward_model.path"}),
    "executor": (EXECUTOR, PROMPTS),
    "server": (SERVER, PROMPTS),
    "data": (DATA, {"planner.path", "executor.path", "planner.prompt"} | PROMPTS),
    "data and server": ((*DATA, *SERVER), {"planner.path", "planner.prompt"} | PROMPTS),
    "all": ((*PLANNER, *EXECUTOR, *DATA), {"planner.prompt"} | PROMPTS),
}


def keys_of(lines):
    return {line.split()[1] for line in lines}


@pytest.mark.parametrize("case", TOLD)
def test_each_default_that_meets_a_part_of_ones_own_is_told_once_with_its_key(case):
    words, wanted = TOLD[case]
    lines = demo_defaults(load_config(None, words))
    assert keys_of(lines) == wanted and len(lines) == len(wanted)
    assert all(f"--{line.split()[1]} (" in line for line in lines)


@pytest.mark.parametrize("name", DEMO_DEFAULTS)
def test_a_default_that_is_given_by_name_is_meant(name):
    section, _, key = name.partition(".")
    value = getattr(getattr(Config(), section), key)
    of_data, of_planner = ("planner.path", "executor.path"), ("reward_model.path",)
    own = DATA if name in of_data else PLANNER if name in of_planner else (*PLANNER, *EXECUTOR)
    before = keys_of(demo_defaults(load_config(None, own)))
    named = f"--{name}={json.dumps(value) if isinstance(value, list) else value}"
    assert name in before and keys_of(demo_defaults(load_config(None, [*own, named]))) == before - {name}


def test_what_ships_with_the_project_names_what_it_means():
    for path in sorted((ROOT / "configs").rglob("*.toml")):
        config = load_config(path)
        assert config.run.stage != "planner" or demo_defaults(config) == [], path


MODES = {
    mode: mode not in ("exec_only", "uplift_only") for mode in get_args(get_type_hints(RewardFormulaConfig)["mode"])
}


def test_every_mode_that_can_be_asked_for_is_in_the_table():
    assert list(MODES) == list(modes.MODES) and {m: needs.rm for m, needs in modes.MODES.items()} == MODES


DEFAULT = Config().reward_model.path


@pytest.mark.parametrize("mode", MODES)
def test_a_reason_rm_is_there_where_the_reward_needs_it_or_it_is_named(mode, tmp_path):
    words = ["--reward.mode", mode]
    config = load_config(None, words)
    assert config.reward_model.path == (DEFAULT if MODES[mode] else "")
    assert load_config(None, [*words, "--reward_model.path", DEFAULT]).reward_model.path == DEFAULT
    (tmp_path / "config.json").write_text(json.dumps({"config": to_dict(config)}))
    assert load_config(None, [], config_of_run(tmp_path)) == config, "a run that goes on has the Reason RM it had"


@pytest.mark.parametrize("mode", MODES)
def test_a_reward_on_data_of_ones_own_is_never_made_with_the_demo_s_reason_rm_by_default(mode):
    words = ["--data.source", "mine.jsonl", "--reward.mode", mode]
    if MODES[mode]:
        with pytest.raises(
            ConfigError, match="the demo's Reason RM, which is only the default: give reward_model.path"
        ):
            load_config(None, words)
    else:
        assert load_config(None, words).reward_model.path == ""
    for more in (
        ["--reward_model.path", DEFAULT],
        ["--reward_model.path", "mine"],
        ["--reward_model.url", "http://there"],
    ):
        load_config(None, [*words, *more])
    load_config(None, words, training=False)


def test_evaluation_tells_by_its_benchmarks():
    config = load_config(None, training=False)
    assert demo_defaults(config, own_data=False) == [] and keys_of(demo_defaults(config, own_data=True)) == set(
        DEMO_DEFAULTS
    )
