"""Tokenizers give the ids transformers gives, find every end-of-sequence id, and keep their files on saving."""

import json
import re

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

import models
from models import CheckpointError, Tokenizer
from support.tokenizer_styles import sentencepiece_model

CORPUS = ["Natalia sold clips to 48 of her friends in April, and then half as many in May: 48 / 2 = 24."] * 3
TEXTS = [
    "Natalia sold 48 clips.", "", " ", "  two  spaces", "tab\tand\nnewline\n\n", "café 日本 😀", "<s> spelled </s>out",
    "a<|im_end|>\nb", "<|im_end|>", "trailing ", "x <|im_end|> y",
]  # fmt: skip
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCAB = 300
MESSAGES = [{"role": "user", "content": "How many? <b>&'"}]


def byte_level(special=("<s>", "</s>", "<|im_start|>", "<|im_end|>")) -> tokenizers.Tokenizer:
    tok = tokenizers.Tokenizer(BPE())
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=[*special], initial_alphabet=alphabet)
    tok.train_from_iterator(CORPUS, trainer)
    return tok


@pytest.fixture
def folder(tmp_path):
    """folder(config=…, generation=…, tokenizer_config=…, backend=…) writes the files of a tokenizer folder."""

    def write(tokenizer_config=None, config=None, generation=None, backend=None, **more):
        (tmp_path / "tokenizer.json").write_text((backend or byte_level()).to_str())
        files = {"tokenizer_config.json": tokenizer_config or {"eos_token": "</s>", "bos_token": "<s>"}}
        files |= {"config.json": config, "generation_config.json": generation, **more}
        for name, content in files.items():
            if content is not None:
                (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path

    return write


@pytest.fixture(scope="module")
def spm_model() -> bytes:
    return sentencepiece_model(CORPUS)


@pytest.mark.parametrize("text", [t for t in TEXTS if "<" not in t])
def test_decode_inverts_encode(folder, text):
    tok = models.load_tokenizer(folder())
    assert tok.decode(tok.encode(text)) == text


@pytest.mark.parametrize("flags", [{}, {"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": False}])
@pytest.mark.parametrize("post", [False, True])
def test_ids_are_those_of_transformers(folder, flags, post):
    """With and without a post-processor that adds <s>, which rules over the flags of tokenizer_config.json."""
    tf = pytest.importorskip("transformers")
    backend = byte_level()
    if post:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    path = folder(
        {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast", **flags},
        backend=backend,
    )
    ours, theirs = models.load_tokenizer(path), tf.AutoTokenizer.from_pretrained(path)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)
        ids = ours.encode(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids, clean_up_tokenization_spaces=False)
    assert (ours.encode("a")[0] == 0) == post


def test_truncation_and_padding_stored_in_the_file_are_ignored(folder):
    backend = byte_level()
    backend.enable_truncation(4)
    backend.enable_padding(length=50)
    tok, plain = models.load_tokenizer(folder(backend=backend)), byte_level()
    assert tok.encode(CORPUS[0]) == plain.encode(CORPUS[0]).ids


@pytest.mark.parametrize(
    "config, generation, eos",
    [
        (None, None, {1}),
        ({"eos_token_id": 2}, None, {1, 2}),
        ({"eos_token_id": [1, 2]}, {"eos_token_id": 3}, {1, 2, 3}),
        ({"eos_token_id": None}, {"eos_token_id": [3, 2]}, {1, 2, 3}),
    ],
)
def test_every_end_of_sequence_id_counts(folder, config, generation, eos):
    tok = models.load_tokenizer(folder(config=config, generation=generation))
    assert tok.eos_ids == eos and tok.eos_id == 1 and tok.bos_id == 0


@pytest.mark.parametrize(
    "tokenizer_config, config, pad",
    [
        ({"eos_token": "</s>", "pad_token": "<s>"}, {"pad_token_id": 3}, 0),
        ({"eos_token": {"content": "</s>"}}, {"pad_token_id": 3}, 3),
        ({"eos_token": "</s>", "pad_token": None}, {"pad_token_id": -1}, 1),
        ({}, {}, 0),
    ],
)
def test_padding_id(folder, tokenizer_config, config, pad):
    assert models.load_tokenizer(folder(tokenizer_config or {"x": 1}, config)).pad_id == pad


def test_chat_templates_render_as_in_transformers(folder):
    tf = pytest.importorskip("transformers")
    template = (
        "{{ bos_token }}{% generation %}x{% endgeneration %}\n"
        "{% for m in messages %}\n    {% if loop.index > 3 %}{% break %}{% endif %}\n{{ m | tojson }} {{ m.content }}\n"
        "{% endfor %}{% if add_generation_prompt %}>>{% endif %}{{ eos_token }}{{ tools is none }}{{ mood }}"
    )
    path = folder({"bos_token": "<s>", "eos_token": "</s>", "chat_template": template})
    ours, theirs = models.load_tokenizer(path), tf.AutoTokenizer.from_pretrained(path)
    messages = MESSAGES * 5 + [{"role": "assistant", "content": "é"}]
    for prompt in (True, False):
        want = theirs.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False, mood="calm")
        assert ours.render_chat(messages, add_generation_prompt=prompt, mood="calm") == want
        ids = theirs.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False, mood="calm")
        assert ours.apply_chat_template(messages, prompt, mood="calm") == ids


def test_templates_spell_their_own_first_token():
    tok = Tokenizer.from_backend(byte_level(), "</s>", bos_token="<s>", add_bos=True, chat_template="{{ bos_token }}hi")
    assert tok.encode("hi")[0] == 0 and tok.apply_chat_template(MESSAGES) == tok.encode("hi")


def test_where_templates_are_found(folder, tmp_path):
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    tok = models.load_tokenizer(folder({"eos_token": "</s>", "chat_template": named}))
    assert tok.render_chat(MESSAGES) == "yes"
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    tok = models.load_tokenizer(tmp_path)
    assert tok.render_chat(MESSAGES).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert tok.apply_chat_template(MESSAGES)[0] == tok.token_to_id("<|im_start|>") == 2
    with pytest.raises(ValueError, match="no chat template"):
        Tokenizer({"tokenizer.json": byte_level().to_str().encode()}).render_chat(MESSAGES)


@pytest.mark.parametrize(
    "template, words",
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "chat template"),
        ("{{ messages.append(1) }}", "chat template"),
        ("{% for %}", "chat template"),
    ],
)
def test_templates_cannot_leave_the_sandbox(template, words):
    tok = Tokenizer.from_backend(byte_level(), "</s>", chat_template=template)
    with pytest.raises(ValueError, match=words):
        tok.render_chat(MESSAGES)


def test_strftime_now():
    tok = Tokenizer.from_backend(byte_level(), "</s>", chat_template="{{ strftime_now('%Y') }}")
    assert 2024 < int(tok.render_chat(MESSAGES)) < 2100


def test_saving_keeps_ids_files_and_template(folder, tmp_path, make_model):
    generation = {"eos_token_id": [1], "top_p": 0.8}
    path = folder({"eos_token": "</s>", "chat_template": CHATML}, {"eos_token_id": 3}, generation)
    tok = models.load_tokenizer(path)
    models.save_pretrained(make_model(), tmp_path / "out", tok)
    again = models.load_tokenizer(tmp_path / "out")
    assert again.eos_ids == {1, 3} and again.pad_id == tok.pad_id and again.chat_template == CHATML
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (path / "tokenizer.json").read_bytes()
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["top_p"] == 0.8
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == [1, 3]
    models.save_pretrained(make_model(seed=1), tmp_path / "out")  # without a tokenizer: the one there stays
    assert models.load_tokenizer(tmp_path / "out").encode("48 clips") == tok.encode("48 clips")


def test_from_backend_round_trip(tmp_path):
    start = dict(pad_token="<s>", bos_token="<s>", add_bos=True)
    tok = Tokenizer.from_backend(byte_level(), "<|im_end|>", eos_ids=[1, 3], **start)
    tok.save(tmp_path)
    again = models.load_tokenizer(tmp_path)
    assert (again.eos_ids, again.eos_id, again.pad_id, again.vocab_size) == ({1, 3}, 3, 0, VOCAB)
    assert again.encode("hello") == tok.encode("hello") and again.encode("hello")[0] == 0


def test_bad_files(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        models.load_tokenizer(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="tokenizer.model"):
        models.load_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match="tokenizer_config.json.*JSON"):
        models.load_tokenizer(folder(**{"tokenizer_config.json": "{,}"}))
    with pytest.raises(CheckpointError, match="eos_token.*<gone>"):
        models.load_tokenizer(folder({"eos_token": "<gone>"}, config={"vocab_size": VOCAB}))
    with pytest.raises(CheckpointError, match="id 9"):
        models.load_tokenizer(folder({"eos_token": "</s>", "added_tokens_decoder": {"9": {"content": "</s>"}}}))
    with pytest.raises(CheckpointError, match="eos_token_id"):
        models.load_tokenizer(folder(config={"eos_token_id": "2"}))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(CheckpointError, match="tokenizer.json"):
        models.load_tokenizer(tmp_path)


def test_tokens_added_by_the_config(folder):
    extra = {VOCAB: {"content": "<reasoning>", "special": False}, VOCAB + 1: {"content": "[PAD]", "special": True}}
    tok = models.load_tokenizer(folder({"eos_token": "</s>", "pad_token": "[PAD]", "added_tokens_decoder": extra}))
    assert tok.encode("<reasoning>") == [VOCAB] and tok.pad_id == VOCAB + 1 and tok.vocab_size == VOCAB + 2
    assert tok.decode([VOCAB, VOCAB + 1]) == "<reasoning>"


# --- sentencepiece


def spm_folder(path, proto, **config):
    (path / "tokenizer.model").write_bytes(proto)
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **config}))
    return models.load_tokenizer(path)


def test_sentencepiece_plain_text_is_the_librarys_own(tmp_path, spm_model):
    tok = spm_folder(tmp_path, spm_model)
    sp = sentencepiece.SentencePieceProcessor(model_proto=spm_model)
    for text in TEXTS:
        if "<" not in text:
            assert tok.encode(text) == [1, *sp.encode(text)] and tok.encode(text, False) == sp.encode(text)
            assert tok.decode(tok.encode(text)) == text
    assert (tok.bos_id, tok.eos_ids, tok.vocab_size) == (1, {2}, 330)
    quiet = spm_folder(tmp_path, spm_model, add_bos_token=False, add_eos_token=True)
    assert quiet.encode("May") == [*sp.encode("May"), 2]


@pytest.mark.parametrize("legacy", [False, True])
def test_sentencepiece_special_tokens_are_those_of_transformers(tmp_path, spm_model, legacy):
    """transformers' own conversion needs protobuf; its LlamaTokenizer is built here from the same pieces and merges."""
    tf = pytest.importorskip("transformers")
    sp = sentencepiece.SentencePieceProcessor(model_proto=spm_model)
    vocab = {sp.id_to_piece(i): i for i in range(330)}
    merges = sorted(
        (
            (a, piece[len(a) :])
            for piece in vocab
            for a in (piece[:k] for k in range(1, len(piece)))
            if a in vocab and piece[len(a) :] in vocab and not piece.startswith("<")
        ),
        key=lambda m: vocab["".join(m)],
    )
    added = {"330": {"content": "<|im_end|>", "special": True, "normalized": False}}
    theirs = tf.LlamaTokenizer(vocab=vocab, merges=merges, legacy=legacy, add_bos_token=True)
    theirs.add_tokens([tokenizers.AddedToken("<|im_end|>", special=True, normalized=False)])
    ours = spm_folder(tmp_path, spm_model, legacy=legacy, added_tokens_decoder=added)
    assert ours.token_to_id("<|im_end|>") == theirs.convert_tokens_to_ids("<|im_end|>") == 330
    for text in TEXTS:
        # Where a stretch with a dummy space begins with a space of its own, transformers drops the dummy;
        # sentencepiece, whose file this is, does not.
        if text.startswith(" ") or (legacy and re.search(r"> ", text)):
            continue
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.decode(ours.encode(text)) == theirs.decode(ours.encode(text), skip_special_tokens=True), text


def test_sentencepiece_saves_and_refuses(tmp_path, spm_model):
    tok = spm_folder(tmp_path, spm_model)
    tok.save(tmp_path / "copy")
    assert models.load_tokenizer(tmp_path / "copy").encode("48 clips") == tok.encode("48 clips")
    with pytest.raises(CheckpointError, match="tokenizer.model"):
        spm_folder(tmp_path, b"not a model")
    with pytest.raises(CheckpointError, match="<x>.*id 5"):
        spm_folder(tmp_path, spm_model, added_tokens_decoder={"5": {"content": "<x>"}})
