"""Every family, on random tiny checkpoints, computes, writes, generates, trains and adapts as transformers and PEFT do.

The checks are in tests/support/families.py. Fields that a family adds are also shown to matter: a model that ignores one
is far from transformers.
"""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import models
from models.config import FAMILIES, ModelConfig
from support import families
from support.families import CHECKS, SEEDS, Pair, distance

pytest.importorskip("transformers")
pytest.importorskip("peft")

ROOT = Path(__file__).resolve().parents[2]
NEUTRAL = {"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "attention_multiplier": None, "logits_scaling": 1.0}
# The greatest relative error in fp32; a gradient sums over tokens and layers, and is compared tensor by tensor.
MOST = dict.fromkeys(CHECKS, 1e-5) | {"train a step": 1e-4}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_checkpoint_behaves_as_in_transformers(family, seed, tmp_path):
    pair = Pair(family, seed, tmp_path)
    found = {name: check(pair) for name, check in CHECKS.items()}
    assert all(found[name] <= MOST[name] for name in CHECKS), found


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("smollm3", [dict(rope_free_layers=())]),
        ("granite", [{key: value} for key, value in NEUTRAL.items()]),
        ("olmo2", []),
    ],
)
def test_a_model_that_ignored_a_field_would_be_seen(family, changes, tmp_path):
    pair = Pair(family, 1, tmp_path)
    for change in changes:
        wrong = models.Transformer(replace(pair.ours.config, **change)).eval()
        wrong.load_state_dict(pair.ours.state_dict())
        with torch.no_grad():
            assert distance(wrong.logits(wrong(pair.ids)), pair.theirs(pair.ids).logits) > 1e-3, change
    if family == "olmo2":  # another place of the norms has other parameters
        for change in (dict(post_norm=False), dict(qk_norm_whole=False)):
            wrong = models.Transformer(replace(pair.ours.config, **change))
            assert {n: p.shape for n, p in wrong.named_parameters()} != {
                n: p.shape for n, p in pair.ours.named_parameters()
            }


def test_phi3_is_read_as_a_llama_of_split_weights(tmp_path):
    pair = Pair("phi3", 2, tmp_path)
    assert pair.ours.config.family == "llama"
    c, layer = pair.ours.config, pair.ours.model.layers[1]
    fused = pair.theirs.model.layers[1]
    assert torch.equal(
        torch.cat([p.weight for p in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)]),
        fused.self_attn.qkv_proj.weight,
    )
    assert torch.equal(layer.mlp.up_proj.weight, fused.mlp.gate_up_proj.weight[c.intermediate_size :])
    assert all(p.is_contiguous() and p.untyped_storage().nbytes() == p.nbytes for p in pair.ours.parameters())


def test_the_draws_reach_every_field():
    """Over the seeds each family's fields, each rope, tied and untied heads appear: the test above sees them."""
    import transformers  # noqa: F401  the draws are of its models

    seen: dict[str, set] = {f.name: set() for f in fields(ModelConfig)}
    ropes = set()
    for family in FAMILIES:
        for seed in SEEDS:
            raw = families.draw(family, seed).config.to_dict()
            config = models.hf_config.parse_config({**raw, "architectures": None})
            ropes.add(type(config.rope_scaling).__name__)
            for name in seen:
                seen[name].add(getattr(config, name))
    assert ropes == {"NoneType", "LinearScaling", "RopeScaling", "YarnScaling"}
    assert not [name for name, values in seen.items() if len(values) < 2 and name != "max_positions"]


def test_the_table_of_the_documentation_names_every_family_and_check():
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = {cells[0]: cells[1:] for line in text.splitlines() if len(cells := _cells(line)) == len(CHECKS) + 1}
    assert rows["family"] == list(CHECKS)
    for family in FAMILIES:
        assert all(float(cell) <= MOST[name] for cell, name in zip(rows[family], CHECKS, strict=True))


def test_the_worked_example_of_the_documentation_is_in_the_source():
    """Its lines are there, in this order; a number may lag behind edits elsewhere in the file by some lines.

    `python -m tests.support.families --write` renews the numbers.
    """
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+\.py):(\d+) `(.+?)` \|", text, re.MULTILINE)
    assert [(path, code) for path, _, code in rows] == [(path, code) for path, code, _ in families.EXAMPLE]
    for path, number, code in rows:
        assert abs(families.line_of(path, code) - int(number)) <= 30, (path, number, code)


def _cells(line: str) -> list[str]:
    return [c.strip() for c in re.sub(r"^\||\|$", "", line).split("|")]
