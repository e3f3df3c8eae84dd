"""LoRA: the same function as PEFT's, files both ways, a base that is never touched, and gradients only where meant."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from models import CheckpointError, lora
from models.lora import LoRAConfig

# PEFT's ways to draw an adapter that change the base's weights, at each load again.
CHANGES_BASE = ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga")


def logits(model, tokens):
    with torch.no_grad():
        return model.logits(model(tokens))


def bits(model):
    return {name: p.detach().clone() for name, p in model.state_dict().items() if "lora_" not in name}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k].view(torch.uint8), b[k].view(torch.uint8)) for k in a)


def everything(model):
    """What a failed call must leave as it was: the bits, what trains, what each module is and in which mode."""
    state = {
        n: (p.dtype, tuple(p.shape), p.detach().flatten().view(torch.uint8).tolist())
        for n, p in model.state_dict().items()
    }
    trains = [(n, p.requires_grad, id(p)) for n, p in model.named_parameters()]
    return state, trains, [(n, type(m), m.training) for n, m in model.named_modules()]


@pytest.fixture
def make_adapted(make_model):
    """A tiny model whose adapters are random in A and B."""

    def make(dtype=torch.float32, **config):
        model = lora.attach(make_model().to(dtype), LoRAConfig(**{"r": 3, "alpha": 7.0, **config}), seed=1)
        for i, p in enumerate(lora.trainable(model).values()):
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) * 0.2
        return model.eval()

    return make


def test_fresh_adapters_change_nothing_and_train_alone(make_model, tokens):
    model = make_model()
    want, weight = logits(model, tokens), model.model.layers[0].mlp.up_proj.weight
    lora.attach(model, LoRAConfig(r=3))
    assert torch.equal(logits(model, tokens), want)
    assert model.model.layers[0].mlp.up_proj.weight is weight  # taken over, not copied
    names = lora.trainable(model)
    assert len(names) == 2 * 7 * 2 and all(n.endswith(("lora_a", "lora_b")) for n in names)
    model.logits(model(tokens)).square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_adapters_of_a_bfloat16_model_can_hold_a_small_update(make_model, tokens):
    model = lora.attach(make_model().to(torch.bfloat16), LoRAConfig(r=3))
    before = logits(model, tokens)
    for p in lora.trainable(model).values():
        old = p.detach().clone()
        p.data.add_(1e-6)
        assert p.dtype == torch.float32 and not torch.equal(p, old)
    assert logits(model, tokens).dtype == before.dtype == torch.bfloat16


def test_the_equation_in_float64(make_model):
    layer = torch.nn.Sequential(torch.nn.Linear(5, 4)).double()
    w, b = layer[0].weight.detach().clone(), layer[0].bias.detach().clone()
    lora.attach(layer, LoRAConfig(r=2, alpha=6, targets=("0",)))
    a_, b_ = layer[0].lora_a, layer[0].lora_b
    b_.data.normal_()
    assert a_.dtype == torch.float64 and a_.shape == (2, 5) and b_.shape == (4, 2)
    x = torch.randn(3, 5, dtype=torch.float64)
    want = x @ (w + 3.0 * b_ @ a_).T + b
    assert torch.allclose(layer(x), want, rtol=1e-12, atol=1e-12)
    assert LoRAConfig(r=16, alpha=32, rank_stabilized=True).scaling == 8.0


def test_adapters_off_is_the_base(make_model, make_adapted, tokens):
    base, model = logits(make_model(), tokens), make_adapted()
    tuned = logits(model, tokens)
    assert (tuned - base).abs().max() > 0.1
    with pytest.raises(ZeroDivisionError), lora.disabled(model):
        assert torch.equal(logits(model, tokens), base)
        raise ZeroDivisionError
    assert torch.equal(logits(model, tokens), tuned)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", [None, "cpu"])
def test_merging_computes_the_same_and_gives_the_bits_back(make_adapted, tokens, dtype, device):
    model = make_adapted(dtype)
    before, want, pointer = bits(model), logits(model, tokens), model.model.layers[0].mlp.up_proj.weight.data_ptr()
    scale = want.float().abs().max()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), lora.merged(model, backup_device=device):
            got = logits(model, tokens)
            assert (got - want).abs().max() / scale < (1e-5 if dtype == torch.float32 else 0.05)
            assert not same(bits(model), before)
            assert model.model.layers[0].mlp.up_proj.weight.data_ptr() == pointer  # in place
            raise ZeroDivisionError
        assert same(bits(model), before) and torch.equal(logits(model, tokens), want)
    with lora.merged(model), pytest.raises(RuntimeError, match="merged"), lora.disabled(model):
        pass


def test_merged_weights_are_rounded_once(make_adapted):
    layer = make_adapted(torch.bfloat16).model.layers[1].self_attn.q_proj
    exact = layer.weight.double() + 7.0 / 3 * layer.lora_b.double() @ layer.lora_a.double()
    assert layer.lora_a.dtype == torch.float32
    # fp32 may differ from fp64 just where a rounding boundary lies: nearly all elements must match exactly.
    assert (layer.merged_weight() == exact.to(torch.bfloat16)).float().mean() > 0.98


def test_saving_a_model_saves_what_it_computes(make_adapted, tokens, tmp_path):
    model = make_adapted()
    want, before = logits(model, tokens), bits(model)
    models.save_pretrained(model, tmp_path)
    assert not any("lora" in key for key in load_file(tmp_path / "model.safetensors"))
    assert torch.allclose(logits(models.load_pretrained(tmp_path), tokens), want, atol=1e-4)
    assert same(bits(model), before)
    plain = lora.merge_and_unload(model)
    assert not lora.adapted(plain) and all(p.requires_grad for p in plain.parameters())
    assert torch.equal(logits(plain, tokens), logits(models.load_pretrained(tmp_path), tokens))
    lora.attach(plain, LoRAConfig(r=2))  # and can be tuned again, with itself as the reference


def test_dropout_acts_only_in_training(make_adapted, tokens):
    model = make_adapted(dropout=0.5)
    assert torch.equal(logits(model, tokens), logits(model, tokens))
    model.train()
    assert not torch.equal(logits(model, tokens), logits(model, tokens))
    with lora.disabled(model):
        assert torch.equal(logits(model, tokens), logits(model, tokens))


def test_adapter_round_trip(make_model, make_adapted, tokens, tmp_path):
    model = make_adapted(targets=("q_proj", "down_proj"), dropout=0.1)
    models.save_pretrained(make_model(), tmp_path / "base")
    lora.save_adapter(model, tmp_path / "adapter", base_model="some/base")
    raw = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert raw["lora_alpha"] == 7 and raw["r"] == 3 and raw["base_model_name_or_path"] == "some/base"
    again = models.load_pretrained(tmp_path / "base", adapter=tmp_path / "adapter")
    assert torch.equal(logits(again, tokens), logits(model, tokens)) and lora.config_of(again) == lora.config_of(model)
    assert set(lora.trainable(again)) == set(lora.trainable(model)) and not again.training


@pytest.mark.parametrize(
    "config, words",
    [
        (dict(r=0), "r=0"),
        (dict(alpha=0), "alpha"),
        (dict(dropout=1.0), "dropout"),
        (dict(targets=("q_proj", "kproj")), "kproj.*Linear layers: .*k_proj"),
        (dict(targets=("embed_tokens",)), "Embedding"),
        (dict(targets=("lm_head",)), "lm_head"),
        (dict(also_train=("nothing",)), "nothing"),
        (dict(also_train=("norm", "nothing")), "nothing"),
    ],
)
def test_impossible_settings_change_nothing(make_model, config, words):
    model = make_model(tied_head=False)
    before = everything(model)
    with pytest.raises(ValueError, match=words):
        lora.attach(model, LoRAConfig(**config))
    assert everything(model) == before


def test_an_embedding_that_is_the_head_too_is_not_trained_in_full(make_model, make_adapted, tmp_path):
    """PEFT would train a copy of it, and the head would stay (its issue 2777)."""
    for also in (("embed_tokens",), ("model.embed_tokens",)):
        with pytest.raises(ValueError, match="embed_tokens.*tie_word_embeddings"):
            lora.attach(make_model(), LoRAConfig(also_train=also))
    untied = lora.attach(make_model(tied_head=False), LoRAConfig(r=3, also_train=("embed_tokens",)))
    lora.save_adapter(untied, tmp_path)
    model = make_model()
    before = everything(model)
    with pytest.raises(CheckpointError, match="adapter_config.json.*modules_to_save.*embed_tokens"):
        lora.load_adapter(model, tmp_path)
    assert everything(model) == before
    lora.load_adapter(make_model(tied_head=False), tmp_path)
    rm = models.RewardModel.from_transformer(
        make_model(), models.RewardConfig(("a",), (1.0,))
    )  # it has no head to move
    lora.attach(rm, LoRAConfig(r=3, also_train=("embed_tokens",)))


def test_no_second_adapter_and_nothing_to_save(make_model, make_adapted, tmp_path):
    with pytest.raises(ValueError, match="already"):
        lora.attach(make_adapted(), LoRAConfig())
    with pytest.raises(ValueError, match="no LoRA adapters"):
        lora.save_adapter(make_model(), tmp_path)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"lora_alpha": 0}, "alpha"),
        ({"r": 4}, r"lora_A.*shape|shape"),
        ({"target_modules": None}, "target_modules"),
        ({"target_modules": ["q_proj"]}, "unexpected"),
        ({"target_modules": ["w1"]}, "w1"),
        ({"modules_to_save": ["norm"]}, "missing"),
        *(({"init_lora_weights": init}, f"init_lora_weights.*{init}") for init in CHANGES_BASE),
        ({"init_lora_weights": "new in PEFT"}, "init_lora_weights.*new in PEFT"),
    ],
)
def test_adapters_that_do_not_fit_leave_the_model_as_it_was(make_model, make_adapted, tmp_path, change, words):
    lora.save_adapter(make_adapted(), tmp_path)
    raw = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**raw, **change}))
    model = make_model()
    before = everything(model)
    with pytest.raises(CheckpointError, match=words):
        lora.load_adapter(model, tmp_path)
    assert everything(model) == before


def test_missing_and_truncated_adapter_files(make_model, make_adapted, tmp_path):
    model = make_model()
    before = everything(model)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        lora.load_adapter(model, tmp_path / "no")
    lora.save_adapter(make_adapted(), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    state = load_file(file)
    gone = state.popitem()
    save_file(state, file)
    with pytest.raises(CheckpointError, match=f"missing.*{gone[0]}"):
        lora.load_adapter(model, tmp_path)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="truncated"):
        lora.load_adapter(model, tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="adapter_model"):
        lora.load_adapter(model, tmp_path)
    assert everything(model) == before


# --- PEFT as the oracle


@pytest.fixture
def peft_pair(make_model, tmp_path):
    peft, tf = pytest.importorskip("peft"), pytest.importorskip("transformers")
    models.save_pretrained(make_model(qkv_bias=True, family="qwen2"), tmp_path / "base")
    return peft, tf.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval(), tmp_path


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), lora.PROJECTIONS, r".*\.(self_attn\.o_proj|mlp\.up_proj)"])
@pytest.mark.parametrize("rslora", [False, True])
def test_peft_reads_ours(peft_pair, tokens, targets, rslora):
    peft, theirs, path = peft_pair
    ours = models.load_pretrained(path / "base")
    lora.attach(ours, LoRAConfig(r=4, alpha=12, targets=targets, rank_stabilized=rslora))
    gen = torch.Generator().manual_seed(2)
    for p in lora.trainable(ours).values():
        p.data.normal_(std=0.1, generator=gen)
    lora.save_adapter(ours, path / "adapter")
    theirs = peft.PeftModel.from_pretrained(theirs, path / "adapter").eval()
    with torch.no_grad():
        want = theirs(tokens).logits
    assert (logits(ours, tokens) - want).abs().max() / want.abs().max() < 1e-5
    with lora.disabled(ours), theirs.disable_adapter(), torch.no_grad():
        assert torch.allclose(logits(ours, tokens), theirs(tokens).logits, atol=1e-5)


@pytest.mark.parametrize("also", [None, ["norm"]])
def test_ours_reads_pefts(peft_pair, tokens, also):
    peft, theirs, path = peft_pair
    config = peft.LoraConfig(
        r=4,
        lora_alpha=12,
        lora_dropout=0.1,
        target_modules=["q_proj", "k_proj", "gate_proj"],
        modules_to_save=also,
        task_type="CAUSAL_LM",
    )
    theirs = peft.get_peft_model(theirs, config).eval()
    gen = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in theirs.parameters():
            if p.requires_grad:
                p.normal_(std=0.1, generator=gen)
        want = theirs(tokens).logits
    theirs.save_pretrained(path / "adapter")
    ours = models.load_pretrained(path / "base", adapter=path / "adapter")
    assert (logits(ours, tokens) - want).abs().max() / want.abs().max() < 1e-5
    assert lora.config_of(ours).dropout == 0.1 and len(lora.trainable(ours)) == 12 + 5 * bool(also)
    lora.save_adapter(ours, path / "again")
    a, b = (load_file(path / name / "adapter_model.safetensors") for name in ("adapter", "again"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "mica", "eva", "pissa", "olora"])
def test_an_adapter_is_read_right_or_refused_by_how_it_was_drawn(peft_pair, tokens, init):
    peft, theirs, path = peft_pair
    base = {n: p.clone() for n, p in theirs.state_dict().items()}
    config = peft.LoraConfig(r=4, lora_alpha=9, target_modules=["q_proj", "up_proj"], init_lora_weights=init)
    theirs = peft.get_peft_model(theirs, config).eval()
    kept = all(
        torch.equal(p, base[n.removeprefix("base_model.model.").replace(".base_layer", "")])
        for n, p in theirs.state_dict().items()
        if "lora_" not in n
    )
    assert kept == (init not in CHANGES_BASE)  # the sorting itself, from what PEFT does
    gen = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for n, p in theirs.named_parameters():
            if "lora_" in n:
                p.normal_(std=0.1, generator=gen)
        want = theirs(tokens).logits
    theirs.save_pretrained(path / "adapter")
    if not kept:
        with pytest.raises(CheckpointError, match="init_lora_weights"):
            models.load_pretrained(path / "base", adapter=path / "adapter")
        return
    ours = models.load_pretrained(path / "base", adapter=path / "adapter")
    assert (logits(ours, tokens) - want).abs().max() / want.abs().max() < 1e-5


def test_every_init_that_peft_names_is_sorted():
    import typing

    peft = pytest.importorskip("peft")
    hint = typing.get_type_hints(peft.LoraConfig)["init_lora_weights"]
    named = {value for part in typing.get_args(hint) for value in typing.get_args(part)}
    assert named and all(n in lora._INITS or n.split("_niter")[0] in CHANGES_BASE for n in named), named
