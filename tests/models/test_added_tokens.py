"""Special tokens that only the files beside tokenizer.json name are those of transformers, whichever file names them."""

import json
import random
import warnings

import pytest

import models
from support.tokenizer_styles import write_style

WORDS = ["the", "Answer", "48", "<end>", "[PAD]", "<|turn|>", "trees", "ĠMay"]
TEXTS = ["the trees<end>the", "Answer: 48 <end> [PAD]<|turn|>\nthe trees", " <|turn|> May the", "trees48"]
NAMES = ["bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "image_token"]


def spelt(rng, content):
    """As text, or as an object with habits."""
    if rng.random() < 0.5:
        return content
    habits = {h: rng.random() < 0.3 for h in ("lstrip", "rstrip", "single_word")}
    return {"content": content, "normalized": False, "__type": "AddedToken", **habits}


def drawn(rng, backend):
    """Random contents of the three files, and added tokens of tokenizer.json itself."""
    size = backend["size"]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    special_map, plain = {}, {}
    where = rng.choice(["config", "decoder", "map", "both"])
    unused = rng.sample(WORDS, len(WORDS))  # one token of two names with two habits is nobody's file
    for name in rng.sample(NAMES, rng.randint(0, 3)):
        token = unused.pop()
        if where in ("config", "decoder", "both"):
            config[name] = token if name == "image_token" else spelt(rng, token)
        if where in ("map", "both") and name != "image_token":
            special_map[name] = spelt(rng, unused.pop())
    if rng.random() < 0.5:
        config[rng.choice(["additional_special_tokens", "extra_special_tokens"])] = unused[: rng.randint(0, 2)]
    new = [w for w in WORDS if w not in backend["vocab"]]
    if where == "decoder":
        config["added_tokens_decoder"] = {
            str(backend["vocab"].get(w, size + new.index(w) if w in new else None)): {
                "content": w, "special": rng.random() < 0.5, "normalized": False, "lstrip": rng.random() < 0.3,
                "rstrip": False, "single_word": False,
            }
            for w in [*new, *rng.sample([w for w in WORDS if w in backend["vocab"]], rng.randint(0, 2))]
        }  # fmt: skip
    elif rng.random() < 0.4:
        plain = {w: size + i for i, w in enumerate(new)}
    return config, special_map, plain


@pytest.mark.parametrize("seed", range(60))
def test_as_in_transformers(tmp_path, seed):
    tf = pytest.importorskip("transformers")
    rng = random.Random(seed)
    folder = write_style(tmp_path / "t", "qwen2.5")
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    config, special_map, plain = drawn(rng, {"vocab": vocab, "size": max(vocab.values()) + 1})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for name, content in (("special_tokens_map.json", special_map), ("added_tokens.json", plain)):
        if content:
            (folder / name).write_text(json.dumps(content))
    theirs, ours = tf.AutoTokenizer.from_pretrained(folder), models.load_tokenizer(folder)
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids, (text, config, special_map, plain)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), (text, ids, config, special_map)
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids, skip_special_tokens=False)
    assert ours.vocab_size == len(theirs)
    for name in ("bos_token", "eos_token", "pad_token"):
        assert ours.special_tokens.get(name) == getattr(theirs, name)


def test_a_tokenizer_larger_than_the_model_is_said(tmp_path):
    folder = write_style(tmp_path / "t", "smollm2")
    size = models.load_tokenizer(folder).vocab_size
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "[PAD]"}))
    (folder / "config.json").write_text(json.dumps({"vocab_size": size + 1}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = models.load_tokenizer(folder)
    assert fits.pad_id == size == fits.encode("[PAD]")[0] and fits.beyond == []
    (folder / "config.json").write_text(json.dumps({"vocab_size": size}))
    with pytest.warns(UserWarning, match=rf"{size + 1} tokens, the model rows for {size}.*'\[PAD\]' cannot be read"):
        larger = models.load_tokenizer(folder)
    assert larger.beyond == ["[PAD]"] and larger.pad_id < size, "padding needs a row"


def test_bad_lists_of_tokens_are_refused_by_name(tmp_path):
    folder = write_style(tmp_path / "t", "smollm2")
    for bad in (["a", 3], "a", [""]):
        (folder / "tokenizer_config.json").write_text(json.dumps({"additional_special_tokens": bad}))
        with pytest.raises(models.CheckpointError, match="additional_special_tokens"):
            models.load_tokenizer(folder)
