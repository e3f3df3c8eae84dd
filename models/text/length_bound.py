"""How much text a token of tokenizer.json can stand for.

A text of N characters has at least N / (f·L) tokens, so that one which cannot fit is known without tokenising it: L is
the longest token of the vocabulary in characters, f the most characters that the normalizer can put into one (4 for
composition: no character's canonical decomposition is longer; 1 where no step shortens). It holds where no character can
vanish or be lumped with others into one unknown token, which is read off the tokenizer's own description. Of every other
tokenizer nothing is known.

Left out: SentencePiece files, whose normalizers may drop spaces.
"""

from __future__ import annotations

import math
from typing import Any

import tokenizers
from tokenizers.pre_tokenizers import ByteLevel

from models.config_json import parse_object

_NORMALIZERS = {"NFC": 4, "NFKC": 4, "NFD": 1, "NFKD": 1, "Lowercase": 1, "Prepend": 1, "ByteLevel": 1}
_KEEPING = (
    "ByteLevel",
    "Digits",
    "Metaspace",
    "Split",
    "Punctuation",
)  # pre-tokenizers; the last two may be told to drop


def characters_per_token(tokenizer: tokenizers.Tokenizer) -> int | None:
    """The most characters of text that one token stands for; None where no bound is known."""
    told = parse_object(tokenizer.to_str().encode(), "tokenizer.json")
    shrink = _shrinkage(told.get("normalizer"))
    splits, model = _steps(told.get("pre_tokenizer"), "pretokenizers"), told["model"]
    keeps = all(s["type"] in _KEEPING and s.get("behavior") != "Removed" for s in splits)
    added = list(tokenizer.get_added_tokens_decoder().values())
    widening = any(token.lstrip or token.rstrip for token in added)  # such a token takes the spaces beside it
    if (
        shrink is None
        or not keeps
        or widening
        or not _knows_all(model, splits)
        or not _has_text(told["post_processor"])
    ):
        return None
    words = [*tokenizer.get_vocab(with_added_tokens=True)]
    if (normalizer := tokenizer.normalizer) is not None:  # where it lengthens a token, the token matches that
        words += [normalizer.normalize_str(token.content) for token in added]
    return shrink * max(map(len, words), default=1)


def _steps(step: dict[str, Any] | None, members: str) -> list[dict[str, Any]]:
    """A step of the description, or the steps that a sequence of them is made of."""
    if step is None:
        return []
    return [s for inner in step[members] for s in _steps(inner, members)] if step["type"] == "Sequence" else [step]


def _shrinkage(normalizer: dict[str, Any] | None) -> int | None:
    factors = []
    for step in _steps(normalizer, "normalizers"):
        pattern = step.get("pattern", {}).get("String")
        if step["type"] == "Replace" and pattern is not None and len(step["content"]) >= len(pattern):
            factors.append(1)
        elif step["type"] in _NORMALIZERS:
            factors.append(_NORMALIZERS[step["type"]])
        else:
            return None
    return math.prod(factors)


def _knows_all(model: dict[str, Any], splits: list[dict[str, Any]]) -> bool:
    """Whether every character becomes a token, or at least an unknown token of its own."""
    vocabulary = model.get("vocab", {})
    if model["type"] == "Unigram":
        vocabulary = {word for word, _ in vocabulary}
    elif model["type"] != "BPE":
        return False
    if any(s["type"] == "ByteLevel" for s in splits):
        return all(letter in vocabulary for letter in ByteLevel.alphabet())
    if model.get("byte_fallback"):
        return all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    return model["type"] == "BPE" and model.get("unk_token") is not None and not model.get("fuse_unk")


def _has_text(processor: dict[str, Any] | None) -> bool:
    """Whether the post-processor leaves the text's tokens where they are: a template may leave them out."""
    templates = [s for s in _steps(processor, "processors") if s["type"] == "TemplateProcessing"]
    return all(any("Sequence" in piece for piece in s["single"]) for s in templates)
