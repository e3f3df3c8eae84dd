"""Tokens that the files beside tokenizer.json or tokenizer.model name: which there are, their ids, which are special.

    tokenizer_config.json   added_tokens_decoder: id → token with its habits; bos_token, eos_token, … and every other
                            "*_token"; additional_special_tokens or extra_special_tokens, a list or named ones
    special_tokens_map.json the same names; read, as in transformers, only without an added_tokens_decoder, and then first
    added_tokens.json       token → id, likewise

All of them are matched as wholes in text. A token that no vocabulary holds gets the next free id, as in transformers: it
may lie beyond what the model has rows for.

Left out: `split_special_tokens`, by which a config may ask that no special token is ever read from text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from tokenizers import AddedToken

from models.config_json import CheckpointError

LAST_ID = 2**31 - 1
_STANDARD = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("extra_special_tokens", "additional_special_tokens")


class AddedTokens:
    """named: bos_token, eos_token, … as text. by_id: tokens whose id a file states. special: the tokens that are named, by
    these names or in a list."""

    def __init__(
        self, config: Mapping[str, Any], special_map: Mapping[str, Any], plain: Mapping[str, Any], where: str
    ) -> None:
        """The contents of the three files, {} for one that is not there. Raises CheckpointError."""
        self.decoder_given = config.get("added_tokens_decoder") is not None
        told = config if self.decoder_given else {**config, **special_map}
        names = [*_STANDARD, *(name for name in told if name.endswith("_token") and name not in _STANDARD)]
        tokens = {name: _token(told.get(name)) for name in names}
        found = {name: token for name, token in tokens.items() if token is not None}
        self.named = {name: token.content for name, token in found.items()}
        for name in _LISTS:
            listed = told.get(name)
            values = list(listed.values()) if isinstance(listed, dict) else listed or []
            if not isinstance(values, list) or None in (extra := [_token(v) for v in values]):
                raise CheckpointError(
                    f'{where}/tokenizer_config.json: "{name}" is neither a list of tokens nor named ones'
                )
            found |= {f"{name} {i}": token for i, token in enumerate(extra) if token is not None}
        self.by_id = _decoder(config, where)
        if not self.decoder_given:
            if not all(map(is_id, plain.values())):
                raise CheckpointError(f"{where}/added_tokens.json: must map tokens to ids")
            special = {token.content for token in found.values()}
            self.by_id = {i: AddedToken(t, special=t in special, normalized=t not in special) for t, i in plain.items()}
        known = {token.content: token for token in self.by_id.values()}
        self.special = [known.get(token.content, token) for token in found.values()]

    def missing(self, there: Mapping[int, AddedToken]) -> list[AddedToken]:
        """What a tokenizer with the added tokens `there` lacks, or has with other habits, in the order of adding."""
        habits = {repr(token) for token in there.values()}
        stated = [(i, t) for i, t in sorted(self.by_id.items()) if self.decoder_given or i not in there]
        out = [token for _, token in stated if repr(token) not in habits]
        known = {token.content for token in (*there.values(), *out)}
        for token in self.special:
            if token.content not in known:
                out.append(token)
                known.add(token.content)
        for token in out:
            token.special = token.special or token.content in self.named.values()
        return out


def _token(value: Any) -> AddedToken | None:
    """A special token as the files spell one: text, or an object with "content" and its habits."""
    if isinstance(value, str) and value:
        return AddedToken(value, special=True, normalized=False)
    if isinstance(value, dict) and isinstance(value.get("content"), str) and value["content"]:
        return _described(value, special=True)
    return None


def _described(entry: Mapping[str, Any], special: bool) -> AddedToken:
    return AddedToken(
        entry["content"],
        single_word=entry.get("single_word", False),
        lstrip=entry.get("lstrip", False),
        rstrip=entry.get("rstrip", False),
        normalized=entry.get("normalized", False),
        special=special,
    )


def _decoder(config: Mapping[str, Any], where: str) -> dict[int, AddedToken]:
    try:
        entries = (config.get("added_tokens_decoder") or {}).items()
        return {int(index): _described(entry, entry.get("special", False)) for index, entry in entries}
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise CheckpointError(f'{where}/tokenizer_config.json: "added_tokens_decoder" is malformed: {e!r}') from None


def is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LAST_ID
