"""Tiny tokenizers in the styles of Llama 3, Qwen2.5, Qwen3, Mistral and SmolLM2, as model folders: byte-level or metaspace BPE, a
first token by the post-processor, by the template, by both or by neither, and a template with its turn marks; and a
SentencePiece model of its own."""

import io
import json
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

CORPUS = [
    "Natalia sold clips to 48 of her friends in April, and then half as many in May: 48 / 2 = 24.",
    "Problem: the trees. Guidance: rest in the shade. Answer: seven\n\n user assistant system <|im_ end|>",
] * 4
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% set text = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + "
    "'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN3 = (
    CHATML[: -len("{% endif %}")]
    + "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
MISTRAL = "{{ bos_token }}{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endfor %}"

STYLES = {  # special tokens, first token by the post-processor, metaspace, eos, chat template
    "llama3": (("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), True, False,
               "<|eot_id|>", LLAMA3),
    "qwen2.5": (("<|endoftext|>", "<|im_start|>", "<|im_end|>"), False, False, "<|im_end|>", CHATML),
    "qwen3": (("<|endoftext|>", "<|im_start|>", "<|im_end|>"), False, False, "<|im_end|>", QWEN3),
    "mistral": (("<s>", "</s>", "[INST]", "[/INST]"), True, True, "</s>", MISTRAL),
    "smollm2": (("<|endoftext|>", "<|im_start|>", "<|im_end|>"), False, False, "<|im_end|>", CHATML),
}  # fmt: skip
WITH_BOS = ("llama3", "mistral")


def backend_of(style: str) -> tokenizers.Tokenizer:
    special, post, metaspace, _, _ = STYLES[style]
    if metaspace:
        tok = tokenizers.Tokenizer(BPE(byte_fallback=True, unk_token="<unk>"))
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tok.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special = ("<unk>", *special, *(f"<0x{i:02X}>" for i in range(256)))
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", *STYLES[style][0]])
        tok.train_from_iterator(CORPUS, trainer)
        content = json.loads(tok.to_str())  # byte pieces are ordinary entries, as in converted SentencePiece models
        vocab = content["model"]["vocab"]
        for piece in special[-256:]:
            vocab.setdefault(piece, len(vocab))
        tok = tokenizers.Tokenizer.from_str(json.dumps(content))
    else:
        tok = tokenizers.Tokenizer(BPE())
        tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=list(special), initial_alphabet=alphabet)
        tok.train_from_iterator(CORPUS, trainer)
    if post:
        bos = STYLES[style][0][0]
        tok.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tok.token_to_id(bos))]
        )
    return tok


def write_style(folder: Path, style: str) -> Path:
    """tokenizer.json and tokenizer_config.json of a style."""
    folder.mkdir(parents=True, exist_ok=True)
    special, _, _, eos, template = STYLES[style]
    (folder / "tokenizer.json").write_text(backend_of(style).to_str())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "chat_template": template}
    if style in WITH_BOS:
        config["bos_token"] = special[0]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def sentencepiece_model(corpus=CORPUS) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus * 5),
        model_writer=out,
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        num_threads=1,
    )
    return out.getvalue()


def write_sentencepiece(folder: Path, legacy: bool) -> Path:
    """tokenizer.model and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": legacy}))
    return folder


EVERY_KIND = (*STYLES, "sentencepiece", "legacy")


def write_kind(folder: Path, kind: str) -> Path:
    """One of EVERY_KIND."""
    return write_style(folder, kind) if kind in STYLES else write_sentencepiece(folder, kind == "legacy")
