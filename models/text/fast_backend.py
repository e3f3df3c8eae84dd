"""tokenizer.json through `tokenizers`, with the tokens that tokenizer_config.json adds.

Left out on purpose: padding and truncation, which the file may ask for and callers do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import tokenizers
from tokenizers import AddedToken

from models.config_json import CheckpointError
from models.text.length_bound import characters_per_token
from models.text.user_text import UserText

_PROBE = "A probe: 12 + 34.5\n"
LAST_ID = 2**31 - 1


class FastBackend:
    """A `tokenizers.Tokenizer` read from tokenizer.json, told to neither pad nor truncate."""

    def __init__(self, data: bytes, config: Mapping[str, Any], where: str) -> None:
        with _told(f"{where}/tokenizer.json"):
            self.inner = tokenizers.Tokenizer.from_buffer(data)
            self.inner.no_padding()
            self.inner.no_truncation()
            with suppress(
                Exception
            ):  # text it has no token for; parts that do not fit together panic at their first use
                self.inner.decode(self.inner.encode(_PROBE).ids)
        self._where = where
        for index, token in sorted(added_tokens(config, where).items()):
            if self.inner.token_to_id(token.content) is None:
                with _told(f"{where}/tokenizer_config.json"):
                    self.inner.add_tokens([token])
            if self.inner.token_to_id(token.content) != index:
                raise CheckpointError(
                    f'{where}/tokenizer_config.json: "added_tokens_decoder" gives {token.content!r} the id {index}, '
                    f"tokenizer.json the id {self.inner.token_to_id(token.content)}"
                )

        decoder = self.inner.get_added_tokens_decoder()
        self._special_ids = frozenset(i for i, token in decoder.items() if token.special)
        self.user_text = UserText(decoder[i].content for i in self._special_ids)
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
        if not self._special_ids & set(ids):
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


def added_tokens(config: Mapping[str, Any], where: str) -> dict[int, AddedToken]:
    try:
        return {
            int(index): AddedToken(
                entry["content"],
                single_word=entry.get("single_word", False),
                lstrip=entry.get("lstrip", False),
                rstrip=entry.get("rstrip", False),
                normalized=entry.get("normalized", False),
                special=entry.get("special", False),
            )
            for index, entry in (config.get("added_tokens_decoder") or {}).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise CheckpointError(f'{where}/tokenizer_config.json: "added_tokens_decoder" is malformed: {e!r}') from None


def is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LAST_ID
