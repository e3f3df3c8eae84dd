"""Chat templates: messages → the text an instruct model was trained on, through jinja2's immutable sandbox.

A template comes with the checkpoint and is therefore untrusted code: it runs in `ImmutableSandboxedEnvironment`, which
lets it format strings and nothing else. The names templates expect from transformers are here: `raise_exception`,
`strftime_now`, a `tojson` that does not escape HTML, `{% break %}` and `{% continue %}`, and `{% generation %}` blocks,
which are rendered as if the tags were absent.

Left out on purpose: masks of assistant tokens, and turning Python functions into tool schemas (pass ready dicts).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}` marks assistant text for loss masks; here it only renders its body."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


@lru_cache(maxsize=32)
def _compile(template: str) -> Template:
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    env.filters["tojson"] = _tojson
    env.globals["raise_exception"] = _raise_exception
    env.globals["strftime_now"] = _strftime_now
    return env.from_string(template)


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool,
    extra: Mapping[str, Any],
) -> str:
    """The prompt text. `special_tokens` are the names a template may use (bos_token, ...); `extra` adds variables.

    Raises ValueError where the template is broken, steps outside the sandbox, or itself refuses the messages.
    """
    names = {"tools": None, "documents": None, **special_tokens, **extra}
    try:
        return _compile(template).render(messages=messages, add_generation_prompt=add_generation_prompt, **names)
    except TemplateError as e:
        raise ValueError(f"the chat template cannot render these messages: {type(e).__name__}: {e}") from e
