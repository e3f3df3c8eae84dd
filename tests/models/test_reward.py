"""The Reason RM: the released layout, the equations against a float64 sum, and refusal of heads that do not fit."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from models import CheckpointError, RewardConfig, RewardModel, lora

NAMES = ("task_understanding", "plan_quality", "step_coherence", "action_support", "non_leakage")
WEIGHTS = (0.3, 0.25, 0.2, 0.15, 0.1)
LENGTHS = torch.tensor([40, 13])


@pytest.fixture
def make_rm(make_model):
    def make(**changes) -> RewardModel:
        reward = RewardConfig(**{"dimension_names": NAMES, "dimension_weights": WEIGHTS, **changes})
        rm = RewardModel.from_transformer(make_model(qkv_bias=True, family="qwen2"), reward)
        for i, head in enumerate(rm.heads()):
            torch.nn.init.normal_(head.weight, std=0.3, generator=torch.Generator().manual_seed(i))
            torch.nn.init.normal_(head.bias, std=0.3, generator=torch.Generator().manual_seed(i + 50))
        return rm.eval()

    return make


def test_scores_follow_the_equations(make_rm, tokens):
    """Against sums written out in Python floats from the hidden states of each row alone, without padding."""
    rm = make_rm()
    got = rm.score(tokens, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        with torch.no_grad():
            h = rm.model(tokens[row : row + 1, :length])[0, -1].double()
        derived = 0.0
        for d, head in enumerate(rm.dimension_heads):
            p = (head.weight.double() @ h + head.bias.double()).exp()
            expected = sum(c * p[c].item() for c in range(5)) / p.sum().item()
            assert got.dimensions[row, d].item() == pytest.approx(expected, rel=1e-5)
            derived += WEIGHTS[d] * expected / 4
        logit = (rm.total_head.weight.double() @ h + rm.total_head.bias.double()).item()
        head = 1 / (1 + torch.tensor(-logit).exp().item())
        assert got.derived[row].item() == pytest.approx(derived, rel=1e-5)
        assert got.head[row].item() == pytest.approx(head, rel=1e-5)
        assert got.total[row].item() == pytest.approx((derived + head) / 2, rel=1e-5)


def test_padding_is_never_read(make_rm, tokens):
    rm = make_rm()
    other = tokens.clone()
    other[1, 13:] = 5
    assert torch.equal(rm.score(tokens, LENGTHS).total[1], rm.score(other, LENGTHS).total[1])
    other[1, 12] = (tokens[1, 12] + 1) % 61
    assert not torch.equal(rm.score(tokens, LENGTHS).total[1], rm.score(other, LENGTHS).total[1])


@pytest.mark.parametrize("lengths", [[0, 5], [41, 5], [5]])
def test_impossible_lengths(make_rm, tokens, lengths):
    with pytest.raises(ValueError, match="lengths"):
        make_rm().score(tokens, torch.tensor(lengths))


def test_the_flaws_of_its_training_are_part_of_the_folder_and_of_nothing_else(make_rm, tmp_path):
    rm = make_rm()
    models.save_reward_model(rm, tmp_path / "plain")
    assert "rm_flaw_kinds" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    rm.reward = dataclasses.replace(rm.reward, flaw_kinds=("slip", "swap"))
    models.save_reward_model(rm, tmp_path / "told")
    again = models.load_reward_model(tmp_path / "told")
    assert again.reward.flaw_kinds == ("slip", "swap") and repr(again.reward) == repr(make_rm().reward)


@pytest.mark.parametrize("use_total", [True, False])
def test_reloads_bit_equal_in_the_released_layout(make_rm, tmp_path, tokens, use_total):
    rm = make_rm(use_total_head=use_total)
    models.save_reward_model(rm, tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["architectures"] == ["Qwen2ForReasonRewardModel"] and raw["rm_use_total_head"] is use_total
    assert raw["rm_dimension_names"] == list(NAMES) and raw["rm_dimension_weights"] == list(WEIGHTS)
    keys = set(load_file(tmp_path / "model.safetensors"))
    heads = {f"dimension_heads.{i}.{k}" for i in range(5) for k in ("weight", "bias")}
    heads |= {"total_head.weight", "total_head.bias"} if use_total else set()
    assert {k for k in keys if not k.startswith("model.")} == heads
    again = models.load_reward_model(tmp_path)
    for a, b in zip(again.score(tokens, LENGTHS), rm.score(tokens, LENGTHS), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert (again.score(tokens, LENGTHS).head is None) != use_total


def test_heads_without_bias_are_read_as_such(make_rm, tmp_path, tokens):
    rm = make_rm()
    for head in rm.heads():
        head.bias.data.zero_()
    models.save_reward_model(rm, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {k: v for k, v in state.items() if not ("head" in k and k.endswith("bias"))}
    save_file(kept, tmp_path / "model.safetensors")
    assert torch.equal(models.load_reward_model(tmp_path).score(tokens, LENGTHS).total, rm.score(tokens, LENGTHS).total)


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("rm_dimension_names", None, "rm_dimension_names"),
        ("rm_flaw_kinds", "slip", "rm_flaw_kinds"),
        ("rm_dimension_weights", [0.2] * 4, "5 rubric dimension names against 4 weights"),
        ("rm_num_labels", 4, r"dimension_heads.0.*shape \[5"),
        ("rm_num_labels", "5", "rm_num_labels"),
        ("rm_use_total_head", False, "no place for: total_head"),
        ("architectures", ["Qwen2ForSequenceClassification"], "architectures"),
    ],
)
def test_heads_that_do_not_fit_are_refused(make_rm, tmp_path, key, value, words):
    models.save_reward_model(make_rm(), tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, key: value}))
    with pytest.raises(CheckpointError, match=words):
        models.load_reward_model(tmp_path)


def test_a_missing_head_and_a_language_model_are_refused(make_rm, make_model, tmp_path):
    models.save_reward_model(make_rm(), tmp_path / "rm")
    state = load_file(tmp_path / "rm" / "model.safetensors")
    del state["dimension_heads.4.bias"]
    save_file(state, tmp_path / "rm" / "model.safetensors")
    with pytest.raises(CheckpointError, match="missing.*dimension_heads.4.bias"):
        models.load_reward_model(tmp_path / "rm")
    with pytest.raises(CheckpointError, match="load_reward_model"):
        models.load_pretrained(tmp_path / "rm")
    models.save_pretrained(make_model(), tmp_path / "lm")
    with pytest.raises(CheckpointError, match="rm_dimension_names"):
        models.load_reward_model(tmp_path / "lm")


def test_lora_on_a_reward_model_saves_its_heads_too(make_rm, tmp_path, tokens):
    rm = make_rm()
    models.save_reward_model(rm, tmp_path / "base")
    lora.attach(rm, lora.LoRAConfig(r=2, also_train=("dimension_heads", "total_head")))
    assert {n.split(".")[0] for n in lora.trainable(rm)} == {"model", "dimension_heads", "total_head"}
    for p in lora.trainable(rm).values():
        p.data.add_(0.1)
    lora.save_adapter(rm, tmp_path / "adapter")
    models.save_reward_model(rm, tmp_path / "merged")
    want = rm.score(tokens, LENGTHS).total
    apart = models.load_reward_model(tmp_path / "base", adapter=tmp_path / "adapter").score(tokens, LENGTHS).total
    merged = models.load_reward_model(tmp_path / "merged").score(tokens, LENGTHS).total
    assert torch.equal(apart, want) and torch.allclose(merged, want, atol=1e-6)
    assert not torch.allclose(models.load_reward_model(tmp_path / "base").score(tokens, LENGTHS).total, want, atol=1e-4)


def test_scores_equal_a_transformers_model_of_the_released_layout(tmp_path, tokens):
    """Written here from the published layout: Qwen2Model, last unmasked token, five heads, one total head."""
    tf = pytest.importorskip("transformers")
    from transformers.models.qwen2.modeling_qwen2 import (
        Qwen2Model,
        Qwen2PreTrainedModel,
    )

    class Qwen2ForReasonRewardModel(Qwen2PreTrainedModel):
        def __init__(self, config):
            super().__init__(config)
            self.model = Qwen2Model(config)
            self.dimension_heads = torch.nn.ModuleList(
                [torch.nn.Linear(config.hidden_size, config.rm_num_labels) for _ in config.rm_dimension_names]
            )
            self.total_head = torch.nn.Linear(config.hidden_size, 1)
            self.post_init()

        def forward(self, input_ids, attention_mask):
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            pooled = hidden[torch.arange(len(hidden)), attention_mask.sum(-1) - 1]
            labels = torch.arange(self.config.rm_num_labels).float()
            expected = torch.stack([(h(pooled).softmax(-1) * labels).sum(-1) for h in self.dimension_heads], -1)
            weights = torch.tensor(self.config.rm_dimension_weights)
            derived = (expected * weights).sum(-1) / (self.config.rm_num_labels - 1)
            head = torch.sigmoid(self.total_head(pooled).squeeze(-1))
            return 0.5 * (derived + head), derived, head, expected

    config = tf.Qwen2Config(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    config.rm_dimension_names, config.rm_dimension_weights = list(NAMES), list(WEIGHTS)
    config.rm_num_labels, config.rm_use_total_head, config.classifier_dropout = 5, True, 0.0
    theirs = Qwen2ForReasonRewardModel(config).eval()
    gen = torch.Generator().manual_seed(0)
    for p in theirs.parameters():
        p.data = torch.randn(p.shape, generator=gen) * 0.25 + (p.dim() == 1)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = models.load_reward_model(tmp_path / "theirs")
    mask = (torch.arange(40) < LENGTHS[:, None]).long()
    with torch.no_grad():
        want = theirs(tokens, mask)
    for a, b in zip(ours.score(tokens, LENGTHS), want, strict=True):
        assert (a - b).abs().max() < 1e-5
    models.save_reward_model(ours, tmp_path / "ours")
    with torch.no_grad():
        again = Qwen2ForReasonRewardModel.from_pretrained(tmp_path / "ours").eval()(tokens, mask)
    assert all(torch.equal(a, b) for a, b in zip(again, want, strict=True))
