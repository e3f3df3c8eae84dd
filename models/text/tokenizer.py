"""Text ↔ token ids: tokenizer.json through `tokenizers`, or tokenizer.model through `sentencepiece`.

    encode(text)    what transformers gives for the same folder: special tokens spelled out in the text become their
                    ids, and a beginning-of-sequence token comes first where the post-processor in tokenizer.json says
                    so (for tokenizer.model: unless `add_bos_token` is false). Pass `add_special_tokens=False` for text
                    that continues a prompt, or that a chat template rendered.
    user_text(text) the same text for a prompt, in which it spells no special token (models/text/user_text.py).
    decode(ids)     text without special tokens; `skip_special=False` spells them out.
    eos_ids         every id that ends generation: the union of eos_token_id (one or a list) in generation_config.json
                    and config.json, else the tokenizer's own eos token.
    pad_id          the pad token of the tokenizer, else of the model configs, else an end token, else 0. Padding is
                    masked everywhere, so pad = eos is harmless.
    apply_chat_template(messages)   ids of the rendered template, which spells its own special tokens.

A folder's files are kept as bytes, so that saving gives back exactly what was loaded.

Left out on purpose: truncation and padding, training of tokenizers, tekken.json, vocab.json without tokenizer.json, and
`clean_up_tokenization_spaces` (it alters the text it decodes).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import tokenizers
from tokenizers import AddedToken, processors

from models.config_json import CheckpointError, parse_object, read_json
from models.hf_config import check_folder, other_contents
from models.text.chat_template import render
from models.text.fast_backend import LAST_ID, FastBackend, added_tokens, is_id
from models.text.sentencepiece_backend import SentencePieceBackend
from models.text.user_text import UserText

TOKENIZER_FILES = frozenset({
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "generation_config.json", "vocab.json", "merges.txt",
})  # fmt: skip
_READ = TOKENIZER_FILES - {"vocab.json", "merges.txt"}  # those two repeat what tokenizer.json says
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Encoder(Protocol):
    """What both libraries are asked for."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]: ...
    def decode(self, ids: Sequence[int], skip_special: bool) -> str: ...
    def token_to_id(self, token: str) -> int | None: ...
    def id_to_token(self, index: int) -> str | None: ...
    def size(self) -> int: ...
    def characters_per_token(self) -> int | None: ...
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
        self.special_tokens = _special_tokens(config, self._json("special_tokens_map.json"))
        self._backend: Encoder
        if "tokenizer.json" in files:
            self._backend = FastBackend(files["tokenizer.json"], config, where)
        elif "tokenizer.model" in files:
            added = added_tokens(config, where)
            if not added:
                plain = self._json("added_tokens.json")
                if not all(map(is_id, plain.values())):
                    raise CheckpointError(f"{where}/added_tokens.json: must map tokens to ids")
                added = {i: AddedToken(t, special=t in self.special_tokens.values()) for t, i in plain.items()}
            self._backend = SentencePieceBackend(files["tokenizer.model"], config, added, where)
            self.special_tokens = {**self._backend.special_tokens, **self.special_tokens}
        else:
            raise FileNotFoundError(f"{where}: neither tokenizer.json nor tokenizer.model is there")
        for name, token in self.special_tokens.items():
            if name in ("bos_token", "eos_token") and self._backend.token_to_id(token) is None:
                raise CheckpointError(f'{where}/tokenizer_config.json: "{name}" {token!r} is not in the vocabulary')
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

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Ids → text. Bytes that are no UTF-8 (a character cut in two) come out as U+FFFD."""
        return self._backend.decode([int(i) for i in ids], skip_special)

    def token_to_id(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

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
        own = {name: self.token_to_id(token) for name, token in self.special_tokens.items()}
        self.eos_ids: set[int] = set()
        for source, ids in (("generation_config.json", generation), ("config.json", model_ids)):
            self.eos_ids |= _id_list(ids.get("eos_token_id"), f"{self._where}/{source}")
        if not self.eos_ids and (eos := own.get("eos_token")) is not None:
            self.eos_ids = {eos}
        # The one to train and to append: the tokenizer's own (an instruct model's end of turn) where it has one.
        self.eos_id: int | None = own.get("eos_token", min(self.eos_ids, default=None))
        self.bos_id: int | None = own.get("bos_token")
        fallbacks = (own.get("pad_token"), generation.get("pad_token_id"), model_ids.get("pad_token_id"), self.eos_id)
        self.pad_id: int = next((i for i in fallbacks if isinstance(i, int) and is_id(i)), 0)

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

    Raises FileNotFoundError, NotADirectoryError, or CheckpointError naming the file that cannot be read.
    """
    folder = check_folder(path)
    files = {name: (folder / name).read_bytes() for name in sorted(_READ) if (folder / name).is_file()}
    if not files and (what := other_contents(folder)):
        raise FileNotFoundError(f"{folder}: holds no tokenizer; {what}")
    config: dict[str, Any] = {}
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
    return Tokenizer(files, config, str(folder))


def _special_tokens(config: Mapping[str, Any], fallback: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, ... as text; either file may write them as strings or as objects with "content"."""
    found: dict[str, str] = {}
    for source in (fallback, config):
        for name in _NAMED:
            token = source.get(name)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                found[name] = token
    return found


def _id_list(value: Any, where: str) -> set[int]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(v, bool) or not isinstance(v, int) or v > LAST_ID for v in values):
        raise CheckpointError(f'{where}: "eos_token_id" must be an id or a list of ids, found {json.dumps(value)[:80]}')
    return {v for v in values if v >= 0}


def _dump(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
