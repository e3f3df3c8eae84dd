"""tokenizer.json through `tokenizers`, with the tokens that the files beside it add.

Left out on purpose: padding and truncation, which the file may ask for and callers do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import tokenizers
from tokenizers import AddedToken

from models.config_json import CheckpointError
from models.text.added_tokens import AddedTokens
from models.text.length_bound import characters_per_token
from models.text.user_text import UserText

_PROBE = "A probe: 12 + 34.5\n"


class FastBackend:
    """A `tokenizers.Tokenizer` read from tokenizer.json, told to neither pad nor truncate."""

    def __init__(self, data: bytes, added: AddedTokens, where: str) -> None:
        with _told(f"{where}/tokenizer.json"):
            self.inner = tokenizers.Tokenizer.from_buffer(data)
            self.inner.no_padding()
            self.inner.no_truncation()
            with suppress(
                Exception
            ):  # text it has no token for; parts that do not fit together panic at their first use
                self.inner.decode(self.inner.encode(_PROBE).ids)
        self._where = where
        with _told(f"{where}/tokenizer_config.json"):
            for token in added.missing(self.inner.get_added_tokens_decoder()):
                self.inner.add_tokens([token])
        for index, token in added.by_id.items():
            if (given := self.inner.token_to_id(token.content)) != index:
                file, key = "added_tokens.json", "it"
                if added.decoder_given:
                    file, key = "tokenizer_config.json", '"added_tokens_decoder"'
                raise CheckpointError(
                    f"{where}/{file}: {key} gives {token.content!r} the id {index}, tokenizer.json the id {given}"
                )

        decoder = self.inner.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in decoder.items() if token.special)
        self.user_text = UserText(decoder[i].content for i in self.special_ids)
        self._with_marks: tokenizers.Tokenizer | None = None

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        with _told(f"{self._where}/tokenizer.json"):
            if self.user_text.has_marks(text):
                return self._encode_marked(text, add_special_tokens)
            return self.inner.encode(text, add_special_tokens=add_special_tokens).ids

    def _encode_marked(self, text: str, add_special_tokens: bool) -> list[int]:
        """By a copy in which a mark is a token, so that text is cut beside it as beside a special token."""
        if self._with_marks is None:
            self._with_marks = tokenizers.Tokenizer.from_str(self.inner.to_str())
            self._with_marks.add_tokens([AddedToken(mark, normalized=False) for mark in self.user_text.spelling])
        found = self._with_marks.encode(text, add_special_tokens=add_special_tokens)
        letters = {mark: self._letters(spelling) for mark, spelling in self.user_text.spelling.items() if mark in text}
        pairs = zip(found.ids, found.tokens, strict=True)
        return [i for index, token in pairs for i in letters.get(token, [index])]

    def _letters(self, spelling: str) -> list[int]:
        """Tokens of a special token's spelling, none of them special: as a whole or, where that finds one, by halves."""
        self.inner.encode_special_tokens = True
        try:
            ids = self.inner.encode(spelling, add_special_tokens=False).ids
        finally:
            self.inner.encode_special_tokens = False
        if not self.special_ids & set(ids):
            return ids
        half = len(spelling) // 2
        return [*self._letters(spelling[:half]), *self._letters(spelling[half:])] if half else []

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        with _told(f"{self._where}/tokenizer.json"):
            return self.inner.decode(list(ids), skip_special_tokens=skip_special)

    def token_to_id(self, token: str) -> int | None:
        return self.inner.token_to_id(token)

    def id_to_token(self, index: int) -> str | None:
        return self.inner.id_to_token(index)

    def size(self) -> int:
        return max(self.inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def characters_per_token(self) -> int | None:
        return characters_per_token(self.inner)


@contextmanager
def _told(where: str) -> Iterator[None]:
    """What the Rust side raises inside, bare Exceptions and panics (no Exceptions at all), as a CheckpointError."""
    try:
        yield
    except BaseException as e:
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        said = " ".join(str(e).split())[:300]
        raise CheckpointError(f"{where}: the `tokenizers` library cannot read or use it: {said}") from None
