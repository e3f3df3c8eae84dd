"""A model's files as a stranger may have written them: each reader ends in one sentence that names the file, and soon."""

import json
import random
import struct

import pytest
import tokenizers
import torch
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordLevel

import models
from models import convert_gguf
from models.config_json import CheckpointError
from models.hf_config import read_config
from models.text import chat_template
from models.text.added_tokens import AddedTokens
from models.text.fast_backend import FastBackend
from models.text.length_bound import characters_per_token
from models.text.tokenizer import Tokenizer

DEEP = b"[" * 100_000
CONFIG = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def sentence(error) -> str:
    said = str(error.value)
    assert "\n" not in said and len(said) < 500, said
    return said


# -- config.json ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        DEEP,
        b'{"a": ' * 100_000,
        b'{"model_type": "llama", "x": ' + b"[" * 150 + b"]" * 150 + b"}",
        b'{"vocab_size": ' + b"9" * 5000 + b"}",
        b"\xff",
        b"",
        b"5",
        b'"' + b"[" * 300 + b'"',
        "{}".encode("utf-16"),
    ],
)
def test_json_that_is_none_or_too_deep(tmp_path, data):
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"config\.json") as error:
        read_config(tmp_path)
    sentence(error)


VALUES = (
    10**18,
    10**30,
    10**400,
    10**7,
    -1,
    0,
    1e999,
    -1e999,
    float("nan"),
    1e-320,
    True,
    "5",
    [],
    [5],
    {},
    {"a": 1},
    2.5,
)
KEYS = (*CONFIG, "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling",
        "rope_parameters", "sliding_window", "layer_types", "architectures", "tie_word_embeddings", "attention_bias",
        "hidden_act", "quantization_config", "partial_rotary_factor")  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_a_value_beyond_reason_is_refused_or_harmless(tmp_path, key):
    """Every key with every odd value, alone and inside rope_scaling: what is read can be built, and is built at once."""
    for value in VALUES:
        for raw in (
            CONFIG | {key: value},
            CONFIG | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, key: value}},
        ):
            (tmp_path / "config.json").write_text(json.dumps(raw))
            try:
                config, _ = read_config(tmp_path)
            except CheckpointError as error:
                assert "config.json" in str(error) and "\n" not in str(error) and len(str(error)) < 600
                continue
            assert config.num_layers * config.num_heads <= 2**24 and config.vocab_size <= 2**24
            if config.num_layers <= 8:
                with torch.device("meta"):
                    models.Transformer(config)


@pytest.mark.parametrize("key", ["num_hidden_layers", "vocab_size", "hidden_size", "num_attention_heads"])
def test_an_absurd_size_is_named_before_anything_is_built(tmp_path, key, monkeypatch):
    monkeypatch.setattr("models.checkpoint.Transformer", None)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {key: 10**7 * 10 ** (key != "num_hidden_layers")}))
    with pytest.raises(CheckpointError, match=f'"{key}" must be a positive integer of at most'):
        models.load_pretrained(tmp_path)


# -- tokenizers ----------------------------------------------------------------------------------------------------------


def byte_level(**changes) -> tokenizers.Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "Ġ"), ("ĠĠ", "ĠĠ")]
    words = [*letters, *("".join(m) for m in merges)]
    tok = tokenizers.Tokenizer(BPE({w: i for i, w in enumerate(words)}, merges))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for name, value in changes.items():
        setattr(tok, name, value)
    return tok


def files_of(tok: tokenizers.Tokenizer, **parts) -> dict[str, bytes]:
    return {"tokenizer.json": json.dumps(json.loads(tok.to_str()) | parts).encode(), "tokenizer_config.json": b"{}"}


BROKEN = {
    "a normalizer that panics": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "a template of unknown tokens": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    },
    "no model": {"model": 1},
    "a regex that is none": {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
    "an id beyond an integer": {"added_tokens": [{"id": 2**70, "content": "a", "special": True}]},
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_tokenizer_that_panics_says_so_when_it_is_loaded(case):
    with pytest.raises(CheckpointError, match=r"x/tokenizer\.json") as error:
        Tokenizer(files_of(byte_level(), **BROKEN[case]), where="x")
    sentence(error)


def test_text_that_a_tokenizer_has_no_token_for_is_an_error_of_that_text():
    file = tokenizers.Tokenizer(WordLevel({"a": 0}, unk_token="?")).to_str().encode()
    backend = FastBackend(file, AddedTokens({}, {}, {}, "x"), "x")
    assert backend.encode("a", True) == [0]
    with pytest.raises(CheckpointError, match=r"x/tokenizer\.json: .*UNK"):
        backend.encode("b", True)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer.json", DEEP),
        ("tokenizer_config.json", DEEP),
        ("tokenizer_config.json", b'{"chat_template": [5]}'),
        ("tokenizer_config.json", b'{"chat_template": 5}'),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "default", "template": [1]}]}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": [1]}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"1": 5}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"1": {"content": 5}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {"content": "a"}}}'),
        ("special_tokens_map.json", b"[]"),
        ("generation_config.json", DEEP),
        ("generation_config.json", b'{"eos_token_id": ' + b"9" * 30 + b"}"),
        ("generation_config.json", b'{"eos_token_id": [[1]]}'),
        ("chat_template.jinja", b"\xff\xfe"),
    ],
)
def test_files_beside_a_tokenizer(name, data):
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")) as error:
        Tokenizer(files_of(byte_level()) | {name: data}, where="x")
    sentence(error)


@pytest.mark.parametrize("pad", [10**30, -5, True, "1", [1], None])
def test_a_padding_id_that_is_none_is_passed_over(pad):
    assert Tokenizer(files_of(byte_level()), {"pad_token_id": pad, "eos_token_id": 7}).pad_id == 7 or pad == 7


# -- a bound on tokens without tokenising ------------------------------------------------------------------------------

WORDS = {c: i for i, c in enumerate("▁abcdefgh ") } | {"abc": 10, "▁▁▁▁": 11, "<unk>": 12}  # fmt: skip
BPE_WORDS = dict(vocab=WORDS, merges=[])
BOUNDED = {
    "byte level": byte_level(),
    "NFC": byte_level(normalizer=normalizers.NFC()),
    "NFKC and lower case": byte_level(normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
    "digits and a regex": byte_level(
        pre_tokenizer=pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(),
                pre_tokenizers.Split(Regex(r"\s+"), "isolated"),
                pre_tokenizers.ByteLevel(use_regex=False),
            ]
        )
    ),
    "unknown ones each by itself": tokenizers.Tokenizer(BPE(**BPE_WORDS, unk_token="<unk>")),
    "spaces spelled": byte_level(normalizer=normalizers.Replace(" ", "▁")),
}
UNBOUNDED = {
    "spaces stripped": byte_level(normalizer=normalizers.Strip()),
    "spaces collapsed": byte_level(normalizer=normalizers.Replace(Regex(" +"), " ")),
    "a text replaced by less": byte_level(normalizer=normalizers.Replace("aaaa", "a")),
    "accents dropped": byte_level(normalizer=normalizers.StripAccents()),
    "splits dropped": byte_level(pre_tokenizer=pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(" "), "removed"), pre_tokenizers.ByteLevel()])),
    "spaces between words dropped": byte_level(pre_tokenizer=pre_tokenizers.Whitespace()),
    "unknown ones lumped": tokenizers.Tokenizer(BPE(**BPE_WORDS, unk_token="<unk>", fuse_unk=True)),
    "unknown ones dropped": tokenizers.Tokenizer(BPE(**BPE_WORDS)),
    "whole words": tokenizers.Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>")),
    "unigram": tokenizers.Tokenizer(Unigram([("<unk>", 0.0), ("a", -1.0)], 0, False)),
    "a template without the text": byte_level(post_processor=processors.TemplateProcessing(
        single="h:0", special_tokens=[("h", 1)])),
}  # fmt: skip


def wide(tok):
    """One whose added token takes the spaces beside it."""
    tok.add_special_tokens([AddedToken("<x>", lstrip=True)])
    return tok


def texts(seed: int, count: int):
    draw = random.Random(seed)
    alphabet = [" ", "a", "h", "e", "l", "o", "1", "\n", "é", "e\u0301", "ᾂ", "α\u0313\u0300\u0345", "한", "\u1112\u1161\u11ab",
                "ﷺ", "日", "😀", "hello", "    ", "aaaa", "<x>", "▁", "İ", "\u0301"]  # fmt: skip
    for _ in range(count):
        few = draw.sample(alphabet, draw.randrange(1, 5))
        yield "".join(draw.choices(few, k=draw.randrange(1, 60)))


@pytest.mark.parametrize("name", BOUNDED)
def test_no_text_has_fewer_tokens_than_the_bound_says(name):
    tok = Tokenizer(files_of(BOUNDED[name]))
    assert tok.most_characters(1) is not None and tok.most_characters(7) == 7 * tok.most_characters(1)
    for text in texts(3, 400):
        assert len(text) <= tok.most_characters(len(tok.encode(text))), text
    assert tok.most_characters(1) <= 4 * max(len(w) for w in BOUNDED[name].get_vocab()), "and it is a bound of some use"


@pytest.mark.parametrize("name", UNBOUNDED)
def test_where_text_can_vanish_nothing_is_known(name):
    """Each of them takes texts of any length in a few tokens, or might: a bound would refuse what fits."""
    assert Tokenizer(files_of(UNBOUNDED[name])).most_characters(1) is None


def test_an_added_token_that_takes_spaces_is_no_bound_and_others_count_as_they_are_matched():
    tok = wide(byte_level())
    assert len(tok.encode("a" + " " * 1000 + "<x>").ids) == 2 and characters_per_token(tok) is None
    long = byte_level(normalizer=normalizers.NFKC())
    long.add_tokens([AddedToken("ﷺ" * 2, normalized=True)])
    assert characters_per_token(long) == 4 * 36, "what it matches is 36 characters, not 2"


# -- chat templates ------------------------------------------------------------------------------------------------------

LOOPS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a loop that makes nothing": "{% for a in range(99999) if not range(99999)|list %}{% endfor %}",
    "two calls of itself": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a recursive loop": "{% for x in range(2) recursive %}{% if loop.depth < 40 %}{{ loop(range(2)) }}{% endif %}{% endfor %}",
    "doubled by ~": "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubled by +": "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "a doubled list": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "a doubled block": "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
    "a doubling macro": "{% macro d(s) %}{{ s }}{{ s }}{% endmacro %}{% set n = namespace(x='x') %}{% for i in range(60) %}"
    "{% set n.x = d(n.x) %}{% endfor %}",
    "a power": "{{ 9**9**9 }}",
    "a product": "{{ 'x' * 10**9 }}",
    "a product of lists": "{{ ([1] * 10000000000)|length }}",
    "filler": "{{ lipsum(n=100000) }}",
    "another template": "{% include 'x' %}",
    "a sum of kinds": "{{ 1 + 'a' }}",
    "nothing divided": "{{ 1 / 0 }}",
    "a float too large": "{{ 10.0 ** 400 }}",
    "brackets": "{{ " + "(" * 100_000,
    "signs": "{{ " + "-" * 50_000 + "1 }}",
    "blocks in blocks": "{% for i in [1] %}" * 60 + "{% endfor %}" * 60,
}  # fmt: skip


@pytest.mark.parametrize("case", LOOPS)
def test_a_template_that_goes_on_or_fails_is_one_sentence(case, monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 0.3)
    monkeypatch.setattr(chat_template, "LONGEST", 2**16)
    tok = Tokenizer(files_of(byte_level()) | {"chat_template.jinja": LOOPS[case].encode()})
    with pytest.raises(ValueError, match="the chat template cannot render these messages: "):
        tok.render_chat([{"role": "user", "content": "hi"}])


def test_what_bounds_a_template_does_not_change_what_it_says():
    """Loop variables, filters on them, recursion and joins as jinja2 itself renders them."""
    from jinja2 import Environment

    messages = [{"role": r, "content": c} for r, c in (("system", "s"), ("user", " a "), ("assistant", "b"))]
    template = """{% for m in messages if m.role != 'system' %}{{ loop.index0 ~ '/' ~ loop.length }}{{ loop.first }}{{ loop.last }}
{{ (loop.previtem or {}).role }}{{ (loop.nextitem or {}).role }}{{ m.role + ': ' + m['content'] | trim }}{{ loop.cycle('x', 'y') }}
{% else %}none{% endfor %}{% for k, v in messages[0] | dictsort %}{{ k }}={{ v }};{% endfor %}{% for x in [] %}{% else %}empty{% endfor %}
{% for x in [[1, [2]], [3]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{{ loop.depth }}{% endif %}{% endfor %}
{% set out %}{{ messages | length * 2 }}{{ 'ab' * 2 }}{{ '%s-%d' % ('a', 3) }}{{ 2 ** 5 }}{% endset %}[{{ out | upper }}]
{% macro f(n, tail='') %}{% if n %}{{ n }}{{ f(n - 1, tail) }}{% else %}{{ tail }}{% endif %}{% endmacro %}{{ f(3, tail='.') }}
{% macro g(n) %}<{{ caller(n) }}>{% endmacro %}{% call(x) g(7) %}{{ x }}{% endcall %}{% filter upper %}{% for c in 'abc' %}{{ c }}{% endfor %}{% endfilter %}"""
    plain = Environment(trim_blocks=True, lstrip_blocks=True).from_string(template).render(messages=messages)
    assert chat_template.render(template, messages, {}, True, {}) == plain


# -- GGUF ----------------------------------------------------------------------------------------------------------------

gguf = pytest.importorskip("gguf")
STRING, ARRAY, U8, U32 = 8, 9, 0, 4


def text(words: str) -> bytes:
    return struct.pack("<Q", len(words)) + words.encode()


def header(*pairs: bytes, tensors: int = 0, keys: int | None = None) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(pairs) if keys is None else keys) + b"".join(pairs)


def array(kind: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<IIQ", ARRAY, kind, count) + data


GGUF = {
    "empty": b"",
    "a magic alone": b"GGUF",
    "an array of 2**40": header(text("a") + array(U8, 2**40, b"x" * 50)),
    "an array of 2**40 texts": header(text("a") + array(STRING, 2**40, text("x") * 9)),
    "2**60 keys": header(text("a") + struct.pack("<II", U32, 1), keys=2**60),
    "2**60 tensors": header(tensors=2**60),
    "a text of 2**63": header(struct.pack("<Q", 2**63)),
    "arrays in arrays": header(text("a") + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 20_000),
    "an unknown kind": header(text("a") + struct.pack("<I", 99)),
    "a key that is no text": header(struct.pack("<Q", 2) + b"\xff\xff" + struct.pack("<II", U32, 1)),
    "a tensor of 2**32 sides": header(text("t") + struct.pack("<I", 2**32 - 1), tensors=1),
    "a tensor beyond the end": header(text("t") + struct.pack("<IQIQ", 1, 2**62, 0, 0), tensors=1),
    "a tensor of an unknown kind": header(text("t") + struct.pack("<IQIQ", 1, 2, 999, 0), tensors=1),
}


@pytest.mark.parametrize("case", GGUF)
def test_a_gguf_header_that_lies(tmp_path, case):
    path = tmp_path / "x.gguf"
    path.write_bytes(GGUF[case])
    with pytest.raises(CheckpointError, match=r"x\.gguf: truncated or not a GGUF file") as error:
        convert_gguf.read_gguf(path)
    sentence(error)


META = {
    "general.architecture": "llama",
    "llama.attention.head_count": 2,
    "llama.embedding_length": 8,
    "llama.context_length": 64,
    "llama.feed_forward_length": 8,
    "llama.block_count": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": 3,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt2",
    "tokenizer.ggml.tokens": ["a", "b", "ab"],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 0,
}


@pytest.mark.parametrize("key", META)
def test_metadata_of_another_kind(key, monkeypatch, tmp_path):
    """Every key gone, and of every odd value: nothing but a sentence, and no folder."""
    for value in ("x", 0, -1, 10**9, 10**30, 1.5, [], [5], ["q q"], None, True):
        meta = {k: v for k, v in (META | {key: value}).items() if v is not None}
        monkeypatch.setattr(convert_gguf, "read_gguf", lambda source, meta=meta: (meta, {}))
        with pytest.raises((CheckpointError, ValueError)) as error:  # it has no tensor in any case
            convert_gguf.convert("x.gguf", tmp_path / "out")
        sentence(error)
        assert not (tmp_path / "out").exists()


# -- adapters ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 10**9}, {"r": 10**30}, {"r": 1e999}, {"r": "x"}, {"r": None}, {"r": []}, {"lora_alpha": 10**400},
        {"lora_alpha": "x"}, {"lora_dropout": "x"}, {"target_modules": "("}, {"target_modules": [5]}, {"target_modules": 5},
        {"modules_to_save": 5}, {"modules_to_save": [5]},
    ],
    ids=str,
)  # fmt: skip
def test_adapter_settings_of_another_kind(make_model, tmp_path, changes):
    from models.lora import LoRAConfig, attach, load_adapter, save_adapter

    save_adapter(attach(make_model(), LoRAConfig(r=3), seed=1), tmp_path, "base")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match="adapter_config") as error:
        load_adapter(make_model(), tmp_path)
    sentence(error)
