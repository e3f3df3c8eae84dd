"""Text ↔ token ids: tokenizer.json through `tokenizers`, or tokenizer.model through `sentencepiece`.

    encode(text)    what transformers gives for the same folder: special tokens spelled out in the text become their
                    ids, and a beginning-of-sequence token comes first where the post-processor in tokenizer.json says
                    so (for tokenizer.model: unless `add_bos_token` is false). Pass `add_special_tokens=False` for text
                    that continues a prompt, or that a chat template rendered.
    user_text(text) the same text for a prompt, in which it spells no special token (models/text/user_text.py).
    decode(ids)     text without special tokens; `skip_special=False` spells them out, `after=ids` decodes what goes on
                    from other tokens (models/text/continuation.py). `pieces(ids)` is the same token by token.
    eos_ids         every id that ends generation: the union of eos_token_id (one or a list) in generation_config.json
                    and config.json and of the tokenizer's own eos token.
    eos_id          the one to train and to append: the tokenizer's own (an instruct model's end of turn) where it has
                    one, else the least of eos_ids.
    pad_id          the pad token of the tokenizer, else of the model configs, else an end token, else 0; none that the
                    model has no row for. Padding is masked everywhere, so pad = eos is harmless.
    apply_chat_template(messages)   ids of the rendered template, which spells its own special tokens.

A folder's files are kept as bytes, so that saving gives back exactly what was loaded.

Left out on purpose: truncation and padding, training of tokenizers, tekken.json, vocab.json without tokenizer.json, and
`clean_up_tokenization_spaces` (it alters the text it decodes).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import tokenizers
from tokenizers import processors

from models.config_json import CheckpointError, parse_object, read_json
from models.hf_config import check_folder, other_contents
from models.text.added_tokens import LAST_ID, AddedTokens, is_id
from models.text.chat_template import render
from models.text.continuation import CONTEXT, pieces_after, text_after
from models.text.fast_backend import FastBackend
from models.text.sentencepiece_backend import SentencePieceBackend
from models.text.user_text import UserText

TOKENIZER_FILES = frozenset({
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "generation_config.json", "vocab.json", "merges.txt",
})  # fmt: skip
_READ = TOKENIZER_FILES - {"vocab.json", "merges.txt"}  # those two repeat what tokenizer.json says


class Encoder(Protocol):
    """What both libraries are asked for."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]: ...
    def decode(self, ids: Sequence[int], skip_special: bool) -> str: ...
    def token_to_id(self, token: str) -> int | None: ...
    def id_to_token(self, index: int) -> str | None: ...
    def size(self) -> int: ...
    def characters_per_token(self) -> int | None: ...
    @property
    def special_ids(self) -> Collection[int]: ...
    @property
    def user_text(self) -> UserText: ...


class Tokenizer:
    """See the module docstring. Build one with `load_tokenizer(folder)` or `Tokenizer.from_backend(...)`."""

    def __init__(
        self, files: Mapping[str, bytes], model_ids: Mapping[str, Any] | None = None, where: str = "tokenizer"
    ) -> None:
        """files: name → content of a tokenizer's files; model_ids: config.json's object, for its *_token_id keys."""
        self._files, self._where = dict(files), where
        config = self._json("tokenizer_config.json")
        added = AddedTokens(config, self._json("special_tokens_map.json"), self._json("added_tokens.json"), where)
        self.special_tokens = added.named
        self._backend: Encoder
        if "tokenizer.json" in files:
            self._backend = FastBackend(files["tokenizer.json"], added, where)
        elif "tokenizer.model" in files:
            self._backend = SentencePieceBackend(files["tokenizer.model"], config, added, where)
            self.special_tokens = {**self._backend.special_tokens, **self.special_tokens}
        else:
            raise FileNotFoundError(f"{where}: neither tokenizer.json nor tokenizer.model is there")
        self.vocab_size = self._backend.size()
        self.chat_template = self._template(config)
        self._set_ids(model_ids or {})

    @classmethod
    def from_backend(
        cls,
        backend: tokenizers.Tokenizer,
        eos_token: str,
        pad_token: str | None = None,
        bos_token: str | None = None,
        chat_template: str | None = None,
        add_bos: bool = False,
        eos_ids: Sequence[int] = (),
    ) -> Tokenizer:
        """Wrap a `tokenizers.Tokenizer` built in memory; the named tokens must be in its vocabulary.

        add_bos: make `encode` put bos_token first (sets the post-processor). eos_ids: the ends of generation, where
        they are not just eos_token.
        """
        names = {"eos_token": eos_token, "pad_token": pad_token, "bos_token": bos_token, "chat_template": chat_template}
        config = {k: v for k, v in names.items() if v is not None}
        config["tokenizer_class"] = "PreTrainedTokenizerFast"  # the generic class in every version of transformers
        config["clean_up_tokenization_spaces"] = False
        if add_bos:
            single, ids = f"{bos_token} $A", [(bos_token, backend.token_to_id(bos_token or ""))]
            backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
        files = {"tokenizer.json": backend.to_str(pretty=True).encode(), "tokenizer_config.json": _dump(config)}
        return cls(files, {"eos_token_id": list(eos_ids) or None})

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Text → ids; see the module docstring for what special tokens do."""
        return self._backend.encode(text, add_special_tokens)

    def user_text(self, text: str) -> str:
        """A user's text for a prompt. `encode` gives it no special token, and else what it gives the text itself."""
        return self._backend.user_text.marked(text)

    def spelt(self, prompt: str) -> str:
        """A prompt with `user_text` in it as a person reads it."""
        return self._backend.user_text.spelt(prompt)

    def decode(self, ids: Sequence[int], skip_special: bool = True, after: Sequence[int] = ()) -> str:
        """Ids → text, as it goes on from the text of `after`. Bytes that are no UTF-8 (a character cut in two) come out as
        U+FFFD."""
        ids, special = [int(i) for i in ids], self._backend.special_ids if skip_special else ()
        return text_after(self._spell, [i for i in ids if i not in special], self._context(after))

    def pieces(self, ids: Sequence[int], after: Sequence[int] = ()) -> list[str]:
        """What each token adds to the text; they join to `decode(ids, skip_special=False, after=after)`."""
        return pieces_after(self._spell, [int(i) for i in ids], self._context(after))

    def _spell(self, ids: Sequence[int]) -> str:
        return self._backend.decode(ids, skip_special=False)

    def _context(self, before: Sequence[int]) -> list[int]:
        """Without a first token that only says that a text begins."""
        ids = [int(i) for i in before[-CONTEXT:]]
        return ids[1:] if len(before) == len(ids) and ids[:1] == [self.bos_id] else ids

    @property
    def special_ids(self) -> Collection[int]:
        """Tokens that `decode` leaves out."""
        return self._backend.special_ids

    def token_to_id(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    def no_row(self, ids: Sequence[int], rows: int) -> str | None:
        """What is wrong with ids for a model of `rows` rows, the token spelt; None where it has a row for each."""
        top = max(ids, default=0)
        return f"{self.id_to_token(top)!r}, and the model of {rows} rows has none for it" if top >= rows else None

    @property
    def beyond(self) -> list[str]:
        """The tokens that the model of the same folder has no row for."""
        rows = self.vocab_size if self._rows is None else self._rows
        return [self.id_to_token(i) or f"<{i}>" for i in range(rows, self.vocab_size)]

    def id_to_token(self, index: int) -> str | None:
        return self._backend.id_to_token(index)

    @cached_property
    def _characters_per_token(self) -> int | None:
        return self._backend.characters_per_token()

    def most_characters(self, tokens: int) -> int | None:
        """No text of more characters has as few as `tokens` tokens; None where that is not known of this tokenizer."""
        return None if self._characters_per_token is None else tokens * self._characters_per_token

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **extra: Any
    ) -> str:
        """[{"role": …, "content": …}, …] → prompt text. `extra` reaches the template (`enable_thinking=False`, …)."""
        if self.chat_template is None:
            raise ValueError(f"{self._where}: this tokenizer has no chat template; use plain-text prompts")
        return render(self.chat_template, messages, self.special_tokens, add_generation_prompt, extra)

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **extra: Any
    ) -> list[int]:
        """As `render_chat`, tokenised. Raises ValueError without a template, or where it refuses the messages."""
        return self.encode(self.render_chat(messages, add_generation_prompt, **extra), add_special_tokens=False)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the tokenizer's files into `path`, beside whatever is there. Raises OSError."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        self.write_files(folder)

    def write_files(self, folder: Path) -> None:
        files = {**self._files}
        files.setdefault("generation_config.json", _dump(self.config_ids()))
        for name, data in files.items():
            (folder / name).write_bytes(data)

    def config_ids(self) -> dict[str, Any]:
        """The *_token_id entries of a config.json."""
        eos = sorted(self.eos_ids)
        return {
            "bos_token_id": self.bos_id,
            "eos_token_id": eos[0] if len(eos) == 1 else (eos or None),
            "pad_token_id": self.pad_id,
        }

    def _set_ids(self, model_ids: Mapping[str, Any]) -> None:
        generation = self._json("generation_config.json")
        ids = {name: self.token_to_id(token) for name, token in self.special_tokens.items()}
        own = {name: i for name, i in ids.items() if i is not None}
        self.eos_ids: set[int] = set()
        for source, ids in (("generation_config.json", generation), ("config.json", model_ids)):
            self.eos_ids |= _id_list(ids.get("eos_token_id"), f"{self._where}/{source}")
        eos = own.get("eos_token")
        self.eos_ids |= set() if eos is None else {eos}
        self.eos_id: int | None = min(self.eos_ids, default=None) if eos is None else eos
        self.bos_id: int | None = own.get("bos_token")
        rows = self._rows = model_ids.get("vocab_size") if is_id(model_ids.get("vocab_size")) else None
        for name in ("bos_token", "eos_token"):
            if rows is not None and own.get(name, 0) >= rows:
                raise CheckpointError(
                    f'{self._where}: "{name}" {self.special_tokens[name]!r} is in no vocabulary, and the model of {rows} '
                    "rows has none for it"
                )
        fallbacks = (own.get("pad_token"), generation.get("pad_token_id"), model_ids.get("pad_token_id"), self.eos_id)
        there = (i for i in fallbacks if is_id(i) and (rows is None or i < rows))
        self.pad_id: int = next(there, 0)

    def _template(self, config: Mapping[str, Any]) -> str | None:
        if "chat_template.jinja" in self._files:
            try:
                return self._files["chat_template.jinja"].decode("utf-8")
            except UnicodeDecodeError as e:
                raise CheckpointError(f"{self._where}/chat_template.jinja: not UTF-8 at byte {e.start}") from None
        template = config.get("chat_template")
        if isinstance(template, list) and all(isinstance(t, dict) for t in template):  # several named ones
            template = next((t.get("template") for t in template if t.get("name") == "default"), None)
        if template is not None and not isinstance(template, str):
            raise CheckpointError(
                f'{self._where}/tokenizer_config.json: "chat_template" is neither text nor a list of named templates'
            )
        return template

    def _json(self, name: str) -> dict[str, Any]:
        return parse_object(self._files[name], f"{self._where}/{name}") if name in self._files else {}


def load_tokenizer(path: str | PathLike[str]) -> Tokenizer:
    """A folder with tokenizer.json or tokenizer.model (and config.json, if any) → Tokenizer.

    Warns where the tokenizer has more tokens than config.json rows. Raises FileNotFoundError, NotADirectoryError, or
    CheckpointError naming the file that cannot be read.
    """
    folder = check_folder(path)
    files = {name: (folder / name).read_bytes() for name in sorted(_READ) if (folder / name).is_file()}
    if not files and (what := other_contents(folder)):
        raise FileNotFoundError(f"{folder}: holds no tokenizer; {what}")
    config: dict[str, Any] = {}
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
    tokenizer = Tokenizer(files, config, str(folder))
    if beyond := tokenizer.beyond:
        warnings.warn(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model rows for {tokenizer.vocab_size - len(beyond)}; "
            f"text that spells {', '.join(map(repr, beyond[:3]))}{', …' * (len(beyond) > 3)} cannot be read",
            stacklevel=2,
        )
    return tokenizer


def _id_list(value: Any, where: str) -> set[int]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(v, bool) or not isinstance(v, int) or v > LAST_ID for v in values):
        raise CheckpointError(f'{where}: "eos_token_id" must be an id or a list of ids, found {json.dumps(value)[:80]}')
    return {v for v in values if v >= 0}


def _dump(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
