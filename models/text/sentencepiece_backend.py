"""tokenizer.model through `sentencepiece`, with the special tokens that the library itself leaves as plain text.

SentencePiece never parses control symbols such as `</s>` out of text. So the text is cut at special and added tokens,
and each stretch between them is encoded on its own. Whether a stretch after a special token gets SentencePiece's dummy
leading space is the "legacy" question of Llama-2-era tokenizers: `legacy: true` gives every stretch one, otherwise only
text at the very start gets it, as in transformers.

Left out on purpose: sampling (subword regularisation), normalisation beyond what the model file states, and the
`lstrip`/`rstrip` habits of added tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken

from models.config_json import CheckpointError
from models.text.added_tokens import AddedTokens
from models.text.user_text import UserText

# Appended to a serialised ModelProto, protobuf merges it in: normalizer_spec (field 3) { add_dummy_prefix (3): false }.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class SentencePieceBackend:
    def __init__(self, proto: bytes, config: Mapping[str, Any], added: AddedTokens, where: str) -> None:
        try:
            self._first = SentencePieceProcessor(model_proto=proto)
            bare = proto if config.get("legacy") else proto + _NO_DUMMY_PREFIX
            self._later = SentencePieceProcessor(model_proto=bare)
        except RuntimeError as e:
            raise CheckpointError(f"{where}/tokenizer.model: not a SentencePiece model: {e}") from None
        sp = self._first
        ids = {"unk_token": sp.unk_id(), "bos_token": sp.bos_id(), "eos_token": sp.eos_id(), "pad_token": sp.pad_id()}
        self.special_tokens = {name: sp.id_to_piece(i) for name, i in ids.items() if i >= 0}
        self.special_ids = {i for i in ids.values() if i >= 0}
        self.special_ids |= {i for i in range(sp.get_piece_size()) if sp.is_control(i)}
        self._to_id = {sp.id_to_piece(i): i for i in self.special_ids}
        for index, token in self._numbered(added).items():
            if token.special:
                self.special_ids.add(index)
            if index < sp.get_piece_size() and sp.id_to_piece(index) != token.content:
                raise CheckpointError(
                    f"{where}: added token {token.content!r} has the id {index}, which tokenizer.model gives to "
                    f"{sp.id_to_piece(index)!r}"
                )
            self._to_id[token.content] = index
        self._to_token = {i: t for t, i in self._to_id.items()}
        self.user_text = UserText(self._to_token[i] for i in self.special_ids if i in self._to_token)
        self._bare = SentencePieceProcessor(model_proto=proto + _NO_DUMMY_PREFIX)
        longest_first = sorted(self._to_id, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
        self._bos = [sp.bos_id()] if config.get("add_bos_token", True) and sp.bos_id() >= 0 else []
        self._eos = [sp.eos_id()] if config.get("add_eos_token", False) and sp.eos_id() >= 0 else []

    def _numbered(self, added: AddedTokens) -> dict[int, AddedToken]:
        """Added tokens by id: the stated one, the piece's own, or the next that is free."""
        out = dict(added.by_id)
        known = {token.content for token in out.values()}
        free = max(self._first.get_piece_size(), max(out, default=-1) + 1)
        for token in added.special:
            if token.content in known or token.content in self._to_id:
                continue
            index = self._first.piece_to_id(token.content)
            if index == self._first.unk_id():
                index, free = free, free + 1
            out[index] = token
            known.add(token.content)
        return out

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        ids = list(self._stretches(text))
        return [*self._bos, *ids, *self._eos] if add_special_tokens else ids

    def _stretches(self, text: str) -> Iterator[int]:
        sp = self._first
        for stretch in self._cut(text):
            if stretch in self._to_id:
                yield self._to_id[stretch]
            elif stretch in self.user_text.spelling:
                yield from self._bare.encode(self.user_text.spelling[stretch])
            elif stretch:
                yield from sp.encode(stretch)
            else:
                continue  # text that starts with a special token: what follows is no longer the start
            sp = self._later

    def _cut(self, text: str) -> list[str]:
        """The text cut at special and added tokens and at marks of users' text."""
        stretches = self._split.split(text) if self._split else [text]
        if not self.user_text.has_marks(text):
            return stretches
        return [part for stretch in stretches for part in self.user_text.split(stretch) or [""]]

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        if skip_special:
            ids = [i for i in ids if i not in self.special_ids]
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
