"""What a run's record says of a run that goes on: which keys may differ, and which value held in which round."""

import copy
import dataclasses
import random

import pytest

from tracelift.config import Config, config_of_run, load_config
from tracelift.config.resume import changes, permitted_changes
from tracelift.errors import ConfigError
from tracelift.runs.folder import RunFolder
from tracelift.runs.record import record_resume, write_record

MAY_CHANGE = """run.save_every run.keep run.log_tokens run.device run.stop_s run.threads data.eval_source data.eval_seed
    data.eval_problems executor.device executor.key_env executor.retries executor.patience_s executor.max_error_share
    executor.cache executor.memory_mb reward_model.key_env reward_model.timeout_s reward_model.retries reward_model.device
    sandbox.workers sandbox.allow_weak_sandbox optim.micro_tokens optim.checkpoint_activations optim.on_nan
    optim.nan_batches parallel.mode parallel.timeout_s run.steps executor.url reward_model.url""".split()


def keys():
    for section in dataclasses.fields(Config):
        for f in dataclasses.fields(section.default_factory):
            yield section.name, f.name


def other(value, kind):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    return [*value, value[0] if value else "x"] if isinstance(value, list) else {"hidden_size": 8}


@pytest.mark.parametrize(("section", "key"), list(keys()), ids=lambda x: x)
def test_a_key_may_change_only_where_the_table_says_so(tmp_path, section, key):
    old, new = Config(), Config()
    for config in (old, new):
        config.executor.url = config.reward_model.url = "http://here"
    setattr(getattr(new, section), key, other(getattr(getattr(new, section), key), key))
    name = f"{section}.{key}"
    if name in ("run.out", "run.resume"):
        assert permitted_changes(tmp_path, old, new) == []
    elif name in MAY_CHANGE or section == "eval":
        assert [c.key for c in permitted_changes(tmp_path, old, new)] == [name]
    else:
        was, now = (repr(getattr(getattr(c, section), key)) for c in (old, new))
        with pytest.raises(ConfigError) as refused:
            permitted_changes(tmp_path, old, new)
        assert f"{name} was {was} and is now {now}" in str(refused.value)


def with_keys(**values):
    config = Config()
    for name, value in values.items():
        section, _, key = name.partition("__")
        setattr(getattr(config, section), key, value)
    return config


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"run__steps": 8}, {"run__steps": 6}, "run.steps was 8 and is now 6"),
        ({"executor__url": ""}, {"executor__url": "http://b"}, "executor.url was '' and is now"),
        ({"executor__url": "http://b"}, {"executor__url": ""}, "executor.url was 'http://b' and is now ''"),
        ({"run__steps": 8, "optim__schedule": "cosine"}, {"run__steps": 9, "optim__schedule": "cosine"}, "learning rate"),
        ({"run__steps": 8, "optim__schedule": "linear"}, {"run__steps": 9, "optim__schedule": "linear"}, "learning rate"),
        ({"run__steps": 8}, {"run__steps": 9}, None),
        ({"run__seed": 1, "optim__lr": 1e-4}, {"run__seed": 2, "optim__lr": 1e-3}, "run.seed was 1 .*optim.lr was 0.0001"),
    ],
)  # fmt: skip
def test_what_a_direction_or_a_schedule_forbids(tmp_path, old, new, said):
    if said is None:
        assert permitted_changes(tmp_path, with_keys(**old), with_keys(**new))
    else:
        with pytest.raises(ConfigError, match=said):
            permitted_changes(tmp_path, with_keys(**old), with_keys(**new))


@pytest.mark.parametrize("seed", range(20))
def test_the_record_gives_back_the_values_of_every_round(tmp_path, seed):
    """A run resumed at random, also from before an earlier resume, against a plain list of one config a round."""
    rng = random.Random(seed)
    config = load_config(None)
    write_record(tmp_path, config, {})
    held = {}  # round → config
    done = 0
    for _ in range(rng.randrange(1, 6)):
        for step in range(done + 1, done + rng.randrange(1, 8)):
            held[step] = copy.deepcopy(config)
        before = copy.deepcopy(config)
        for section, key, values in (
            ("run", "save_every", (1, 2, 3)),
            ("optim", "micro_tokens", (100, 200)),
            ("executor", "cache", ("", "a", "b")),
        ):
            if rng.random() < 0.6:
                setattr(getattr(config, section), key, rng.choice(values))
        done = rng.randrange(0, max(held, default=0) + 1)  # the checkpoint it goes on from
        held = {step: c for step, c in held.items() if step <= done}
        record_resume(tmp_path, config, changes(before, config), done)
    held[done + 1] = config
    for step, then in held.items():
        assert config_of_run(tmp_path, step) == then, step
    assert config_of_run(tmp_path) == config


def test_a_refusal_writes_nothing(tmp_path):
    run = RunFolder(tmp_path)
    run.prepare(load_config(None))
    run.log("metrics.jsonl", {"step": 1, "loss": 0.5})
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="optim.lr was"):
        RunFolder(tmp_path).prepare(load_config(None, ["--optim.lr", "1", "--run.resume"]))
    with pytest.raises(ConfigError, match="already holds a run; add --resume"):
        RunFolder(tmp_path).prepare(load_config(None))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files


def test_logged_rounds_without_their_checkpoints_are_not_cut_away(tmp_path):
    run = RunFolder(tmp_path)
    run.prepare(load_config(None, ["--run.save_every", "2"]))
    run.log("metrics.jsonl", *({"step": step} for step in (1, 2)))
    RunFolder(tmp_path).prepare(load_config(None, ["--run.save_every", "2", "--run.resume"]))  # killed before it saved
    run.log("metrics.jsonl", {"step": 3})
    with pytest.raises(ConfigError, match="3 rounds are logged and no checkpoint is left"):
        RunFolder(tmp_path).prepare(load_config(None, ["--run.save_every", "2", "--run.resume"]))


def test_figures_that_are_not_finite_are_null_and_say_why(tmp_path):
    run = RunFolder(tmp_path)
    run.log("metrics.jsonl", {"step": 1, "loss": float("nan"), "parts": {"a": [1.0, float("-inf")]}, "lr": 0.1})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert run.read("metrics.jsonl") == [
        {
            "step": 1,
            "loss": None,
            "parts": {"a": [1.0, None]},
            "lr": 0.1,
            "not_finite": {"loss": "nan", "parts.a.1": "-inf"},
        }
    ]
