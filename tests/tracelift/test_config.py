"""Configurations: what is written is what runs; what cannot be meant is refused with the place and the nearest key."""

import dataclasses
import json
import math
import re

import pytest

from tracelift.config import Config, config_of_run, help_text, load_config, to_dict
from tracelift.errors import ConfigError


def toml(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_defaults_file_and_command_line_in_that_order(tmp_path):
    path = toml(tmp_path, '[run]\nsteps = 7\nseed = 3\n[optim]\nlr = 1\n[executor]\nstop = ["a", "b"]\n')
    config = load_config(
        path, ["--run.steps", "9", "--run.resume", "--optim.warmup=0", "--reward.format_reward", "-0.25"]
    )
    assert (config.run.steps, config.run.seed, config.run.resume) == (9, 3, True)
    assert config.optim.lr == 1.0 and type(config.optim.lr) is float and config.optim.warmup == 0
    assert config.executor.stop == ["a", "b"] and config.reward.format_reward == -0.25
    untouched = dataclasses.replace(
        config, run=Config().run, optim=Config().optim, executor=Config().executor, reward=Config().reward
    )
    assert untouched == Config()


def test_two_configs_share_no_mutable_default():
    one, two = Config(), Config()
    one.executor.stop.append("x")
    one.sft.shape["hidden_size"] = 1
    assert two.executor.stop == ["\n"] and two.sft.shape == {}


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--run.out", "1e3"], ("run", "out", "1e3")),  # text stays text, whatever it looks like
        (["--run.out=a=b"], ("run", "out", "a=b")),
        (["--run.resume", "--run.steps", "2"], ("run", "resume", True)),
        (["--run.resume", "false"], ("run", "resume", False)),
        (["--executor.stop", '["\\n", "Q:"]'], ("executor", "stop", ["\n", "Q:"])),
        (["--sft.shape", "{hidden_size = 8}"], ("sft", "shape", {"hidden_size": 8})),
        (["--optim.lr", "1e-6"], ("optim", "lr", 1e-6)),
    ],
)
def test_command_line_words_by_type(words, kept):
    section, key, value = kept
    found = getattr(getattr(load_config(None, words), section), key)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run.stepz", "3"], r"unknown key 'run.stepz'; did you mean 'steps'"),
        (["--planner.lr", "3"], r"unknown key 'planner.lr'; did you mean 'optim.lr'"),
        (["--runn.steps", "3"], r"unknown section 'runn'; did you mean 'run'"),
        (["--run.steps", "many"], r"run.steps: expected int, got 'many'"),
        (["--run.steps", "2.5"], r"run.steps: expected int, got 2.5"),
        (["--run.steps", "true"], r"run.steps: expected int, got True"),
        (["--run.resume", "1"], r"run.resume: expected bool, got 1"),
        (["--run.steps"], r"--run.steps needs a value"),
        (["--run.out", "--run.resume"], r"--run.out needs a value"),
        (["--executor.stop", "[1]"], r"executor.stop: expected list"),
        (["--reward.mode", "uplift"], r"reward.mode: 'uplift' is none of tracelift, exec_only"),
        (["steps", "3"], r"expected --section.key, got 'steps'"),
        (["run.steps", "3"], r"got 'run.steps'; write --run.steps"),
        (["--config", "run.toml"], r"got '--config'; the config file stands first, without a flag"),
        (["--run.steps", "3", "run.toml"], r"got 'run.toml'; the config file stands first"),
        (["--zzz.steps", "3"], r"unknown section 'zzz'; there are: run, data, planner"),
        (["--data.qqqqqq", "3"], r"unknown key 'data.qqqqqq'; there are: source, verifier, seed"),
        (["--run.steps", "0"], r"command line: run.steps must be at least 1, got 0"),
        (["--optim.lr", "nan"], r"optim.lr must be finite and above 0 and at most 100, got"),
        (["--optim.lr", "inf"], r"optim.lr must be finite and above 0 and at most 100, got"),
        (["--optim.max_grad_norm", "0"], r"optim.max_grad_norm must be above 0, got"),
        (["--grpo.clip_low", "1.5"], r"grpo.clip_low must be between 0 and 1"),
        (["--executor.retries", "-1"], r"executor.retries must be at least 0"),
        (["--planner.samples", "1"], r"planner.samples must be at least 2"),
        (["--grpo.problems", "2", "--grpo.minibatches", "3"], r"cannot each hold one"),
        (
            ["--reward.runs", "pooled", "--reward.variant", "paper"],
            r"reward.runs = 'pooled' needs reward.variant = 'corr",
        ),
        (
            ["--reward.runs", "pooled", "--executor.uplift", "likelihood"],
            r"'pooled' needs .*executor.uplift = 'sampled'",
        ),
        (["--reward_model.path", ""], r"reward.mode = 'tracelift' needs reward_model.path"),
        (["--data.eval_seed", "1000"], r"evaluation would meet problems of training"),
        (["--grpo.kl_coef", "0.1", "--grpo.kl_estimator", "k1"], r"'k1' penalises nothing as a loss.*'k2', or 'exact'"),
        (["--lora.r", "8", "--lora.dropout", "0.1"], r"lora.dropout = 0.1 has no effect in run.stage = 'planner'"),
    ],
)
def test_what_cannot_be_meant_is_refused_on_the_command_line(words, said):
    with pytest.raises(ConfigError, match=said):
        load_config(None, words)


def test_what_acts_in_another_stage_or_not_at_all_is_not_refused():
    assert load_config(None, ["--run.stage", "reward_model", "--lora.dropout", "0.1"]).lora.dropout == 0.1
    for key in ("--lora.dropout", "--lora.r"):
        with pytest.raises(ConfigError, match="run.stage = 'sft' trains every weight"):
            load_config(None, ["--run.stage", "sft", key, "0.5" if key.endswith("out") else "4"])
    assert load_config(None, ["--grpo.kl_estimator", "k1"]).grpo.kl_coef == 0
    penalised = load_config(None, ["--grpo.kl_coef", "0.1"])
    assert penalised.grpo.kl_estimator in ("k2", "exact"), "the default has the KL's own gradient"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run]\nsteps = ", r"run.toml: not valid TOML"),
        ("steps = 3\n", r"run.toml: 'steps' stands outside a section"),
        ("[run]\nstep = 3\n", r"run.toml: unknown key 'run.step'; did you mean 'steps'"),
        ("[run]\nsteps = 3.5\n", r"run.toml: run.steps: expected int, got 3.5"),
        ("[run]\nout = 3\n", r"run.toml: run.out: expected text in quotes, got 3"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_file(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        load_config(toml(tmp_path, text))


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match="nowhere.toml: no such config file"):
        load_config("nowhere.toml")


def test_a_key_or_a_folder_in_the_place_of_a_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="'run.steps' is a key: write --run.steps VALUE"):
        load_config("run.steps", ["--run.seed", "2"])
    with pytest.raises(ConfigError, match="run.nosuch: no such config file"):
        load_config("run.nosuch")
    with pytest.raises(ConfigError, match="is a folder; a config is a TOML file"):
        load_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"[run]\nout = '\xe9'\n")
    with pytest.raises(ConfigError, match="latin.toml: not valid TOML: not UTF-8 at byte 13"):
        load_config(tmp_path / "latin.toml")


def test_an_ablation_that_needs_no_reward_model_runs_without_one():
    assert load_config(None, ["--reward_model.path", "", "--reward.mode", "uplift_only"]).reward_model.path == ""


def test_help_lists_every_key_with_type_default_and_meaning():
    text = help_text()
    for section in dataclasses.fields(Config):
        for field in dataclasses.fields(section.default_factory):
            assert f"  --{section.name}.{field.name}  (" in text
            assert field.metadata["help"] and field.metadata["help"] in text
    assert "--run.stage  (planner | sft | reward_model, default 'planner')" in text


def test_a_run_s_record_gives_its_config_back(tmp_path):
    import json

    config = load_config(None, ["--run.steps", "5", "--executor.stop", '["x"]'])
    (tmp_path / "config.json").write_text(json.dumps({"config": to_dict(config)}))
    assert config_of_run(tmp_path) == config
    with pytest.raises(ConfigError, match="not a run folder"):
        config_of_run(tmp_path / "none")


def test_the_configs_that_ship_with_the_project_are_read():
    from pathlib import Path

    found = sorted((Path(__file__).parents[2] / "configs").rglob("*.toml"))
    assert found
    for path in found:
        load_config(path)


@pytest.mark.parametrize(
    ("words", "instead"), [(("--executor.ranks", "2"), "executor.url"), (("--parallel.shard_head",), "fsdp")]
)
def test_a_key_of_an_earlier_version_says_what_to_use_instead(words, instead, tmp_path):
    with pytest.raises(ConfigError, match=rf"{words[0][2:]} is no longer there; .*{instead}"):
        load_config(None, list(words))
    old = {"executor": {"ranks": 0}, "parallel": {"shard_head": False}}
    (tmp_path / "config.json").write_text(json.dumps({"config": old}))
    assert config_of_run(tmp_path) == Config(), "switched off, as it was in every record of a run that did not use it"


def numeric_keys():
    for section in dataclasses.fields(Config):
        for f in dataclasses.fields(section.default_factory):
            default = f.default_factory() if f.default is dataclasses.MISSING else f.default
            of = default[0] if isinstance(default, list) and default else default
            if type(of) in (int, float):
                yield f"{section.name}.{f.name}", type(of), type(default) is list, f.metadata["range"]


NUMERIC = list(numeric_keys())


def test_every_numeric_key_has_a_range_and_no_other_key_has_one():
    assert [name for name, _, _, numbers in NUMERIC if numbers is None] == []
    ranged = {
        f"{s.name}.{f.name}"
        for s in dataclasses.fields(Config)
        for f in dataclasses.fields(s.default_factory)
        if f.metadata["range"]
    }
    assert ranged == {name for name, *_ in NUMERIC}


@pytest.mark.parametrize(("name", "kind", "many", "numbers"), NUMERIC, ids=[n[0] for n in NUMERIC])
def test_a_number_out_of_its_range_is_refused_by_key(name, kind, many, numbers):
    wrong = ["nan", "inf", "-inf"] if kind is float else []
    if numbers.low > -math.inf:
        wrong.append(kind(numbers.low) if numbers.above else kind(numbers.low) - 1)
    if numbers.high < math.inf:
        wrong.append(kind(numbers.high) if numbers.below else kind(numbers.high) + 1)
    for value in wrong:
        with pytest.raises(ConfigError, match=rf"{re.escape(name)} must be .*{re.escape(str(numbers))}, got"):
            load_config(None, [f"--{name}={[value] if many else value}".replace("'", "")])


def test_every_default_lies_in_its_range():
    load_config(None, training=False)


@pytest.mark.parametrize(
    ("key", "good", "bad", "words"),
    [
        ("executor.temperature", (0, 0.001, 0.5, 1000), (-1, 1e-300, 0.0005, 1001), "0 or between 0.001 and 1000"),
        ("planner.temperature", (0.001, 1), (0, 1e-9, 1e300), "between 0.001 and 1000"),
        ("executor.likelihood_nats", (0.001, 1, 1000), (0, 1e-12, 1e9), "between 0.001 and 1000"),
    ],
)
def test_values_that_make_a_model_greedy_or_every_group_flat_in_all_but_name_are_refused(key, good, bad, words):
    for value in good:
        load_config(None, [f"--{key}", str(value)])
    for value in bad:
        with pytest.raises(ConfigError, match=f"{key} must be {words}, got "):
            load_config(None, [f"--{key}", str(value)])
