"""Behind a `Tokenizer`: tokenizer.model through `sentencepiece`, and how much text a token of tokenizer.json can stand for.

SentencePiece never parses control symbols such as `</s>` out of text. So the text is cut at special and added tokens,
and each stretch between them is encoded on its own. Whether a stretch after a special token gets SentencePiece's dummy
leading space is the "legacy" question of Llama-2-era tokenizers: `legacy: true` gives every stretch one, otherwise only
text at the very start gets it, as in transformers.

A text of N characters has at least N / (f·L) tokens, so that one which cannot fit is known without tokenising it: L is
the longest token of the vocabulary in characters, f the most characters that the normalizer can put into one (4 for
composition: no character's canonical decomposition is longer; 1 where no step shortens). It holds where no character can
vanish or be lumped with others into one unknown token, which is read off the tokenizer's own description. Of every other
tokenizer, and of SentencePiece files, whose normalizers may drop spaces, nothing is known.

Left out on purpose: sampling (subword regularisation), normalisation beyond what the model file states, and the
`lstrip`/`rstrip` habits of added tokens in SentencePiece files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import tokenizers
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel

from models.hf_config import CheckpointError, parse_object

# Appended to a serialised ModelProto, protobuf merges it in: normalizer_spec (field 3) { add_dummy_prefix (3): false }.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class SentencePieceBackend:
    def __init__(self, proto: bytes, config: Mapping[str, Any], added: Mapping[int, AddedToken], where: str) -> None:
        try:
            self._first = SentencePieceProcessor(model_proto=proto)
            bare = proto if config.get("legacy") else proto + _NO_DUMMY_PREFIX
            self._later = SentencePieceProcessor(model_proto=bare)
        except RuntimeError as e:
            raise CheckpointError(f"{where}/tokenizer.model: not a SentencePiece model: {e}") from None
        sp = self._first
        ids = {"unk_token": sp.unk_id(), "bos_token": sp.bos_id(), "eos_token": sp.eos_id(), "pad_token": sp.pad_id()}
        self.special_tokens = {name: sp.id_to_piece(i) for name, i in ids.items() if i >= 0}
        self._special_ids = {i for i in ids.values() if i >= 0}
        self._special_ids |= {i for i in range(sp.get_piece_size()) if sp.is_control(i)}
        self._special_ids |= {i for i, token in added.items() if token.special}
        self._to_id = {sp.id_to_piece(i): i for i in self._special_ids if i < sp.get_piece_size()}
        for index, token in added.items():
            if index < sp.get_piece_size() and sp.id_to_piece(index) != token.content:
                raise CheckpointError(
                    f"{where}: added token {token.content!r} has the id {index}, which tokenizer.model gives to "
                    f"{sp.id_to_piece(index)!r}"
                )
            self._to_id[token.content] = index
        self._to_token = {i: t for t, i in self._to_id.items()}
        longest_first = sorted(self._to_id, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
        self._bos = [sp.bos_id()] if config.get("add_bos_token", True) and sp.bos_id() >= 0 else []
        self._eos = [sp.eos_id()] if config.get("add_eos_token", False) and sp.eos_id() >= 0 else []

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        ids = list(self._stretches(text))
        return [*self._bos, *ids, *self._eos] if add_special_tokens else ids

    def _stretches(self, text: str) -> Iterator[int]:
        sp = self._first
        for stretch in self._split.split(text) if self._split else [text]:
            if stretch in self._to_id:
                yield self._to_id[stretch]
            elif stretch:
                yield from sp.encode(stretch)
            else:
                continue  # text that starts with a special token: what follows is no longer the start
            sp = self._later

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        if skip_special:
            ids = [i for i in ids if i not in self._special_ids]
        text, sp = [], self._first
        for is_added, run in groupby(ids, key=lambda i: i in self._to_token):
            some = list(run)
            text.append("".join(self._to_token[i] for i in some) if is_added else sp.decode(some))
            sp = self._later
        return "".join(text)

    def token_to_id(self, token: str) -> int | None:
        if token in self._to_id:
            return self._to_id[token]
        index = self._first.piece_to_id(token)
        return None if index == self._first.unk_id() else index

    def id_to_token(self, index: int) -> str | None:
        if index in self._to_token:
            return self._to_token[index]
        return self._first.id_to_piece(index) if 0 <= index < self._first.get_piece_size() else None

    def size(self) -> int:
        return max(self._first.get_piece_size(), max(self._to_token, default=-1) + 1)

    def characters_per_token(self) -> None:
        """Not known."""


# -- how much text a token can stand for ------------------------------------------------------------------------------

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
