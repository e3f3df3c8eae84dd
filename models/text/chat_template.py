"""Chat templates: messages → the text an instruct model was trained on, through jinja2's immutable sandbox.

A template comes with the checkpoint and is therefore untrusted code: it runs in `ImmutableSandboxedEnvironment`, which
lets it format strings and nothing else, for SECONDS of processor time, and makes no text or list of more than LONGEST
items. The names templates expect from transformers are here: `raise_exception`, `strftime_now`, a `tojson` that does not
escape HTML, `{% break %}` and `{% continue %}`, and `{% generation %}` blocks, which are rendered as if the tags were absent.

Left out on purpose: masks of assistant tokens, turning Python functions into tool schemas (pass ready dicts), and a bound
on what one method of a text makes (`'x'.center(n)`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 5.0  # published templates take milliseconds
LONGEST = 2**24
_clock = threading.local()  # .until: the thread's processor time at which the template it renders is given up


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}` marks assistant text for loss masks; here it only renders its body."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Bounded(ImmutableSandboxedEnvironment):
    """Every round of a loop and every call looks at the clock; whatever can double a text looks at its length."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})  # intercepted, they are not folded while compiling either

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = _filtered("_ticking", loop.iter)
        for block in tree.find_all(nodes.AssignBlock):
            block.filter = _filtered("_bounded", block.filter)
        for concat in list(tree.find_all(nodes.Concat)):
            concat.nodes = [_filtered("_bounded", nodes.Concat(concat.nodes))]
        return tree

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        _tick()
        if isinstance(obj, LoopContext):  # of a recursive loop: its next level
            args = (_ticking(args[0]), *args[1:]) if args else args
        return _bounded(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _tick()
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, Sequence) and isinstance(times, int) and len(many) * times > LONGEST:
                    raise TemplateError(f"it repeats something {times} times")
        if operator == "**" and not all(isinstance(x, (int, float)) and abs(x) < 2**10 for x in (left, right)):
            raise TemplateError(f"it asks for a power of {left!r:.40}")
        return _bounded(super().call_binop(context, operator, left, right))


def _filtered(name: str, node: Any) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None)


def _tick() -> None:
    if time.thread_time() > _clock.until:
        raise TemplateError(f"it is not done after {SECONDS:g} s")


def _ticking(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _tick()
        yield item


def _bounded(value: Any) -> Any:
    if isinstance(value, (str, list, tuple)) and len(value) > LONGEST:
        raise TemplateError(f"it makes something of more than {LONGEST} items")
    return value


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
    env = _Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols])
    env.filters |= {"tojson": _tojson, "_ticking": _ticking, "_bounded": _bounded}
    env.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    del env.globals["lipsum"]  # loops outside the template's own code
    return env.from_string(template)


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool,
    extra: Mapping[str, Any],
) -> str:
    """The prompt text. `special_tokens` are the names a template may use (bos_token, ...); `extra` adds variables.

    Raises ValueError where the template is broken, steps outside the sandbox, goes on for SECONDS, fails in any other way, or
    itself refuses the messages.
    """
    names = {"tools": None, "documents": None, **special_tokens, **extra}
    _clock.until = time.thread_time() + SECONDS
    try:
        return _bounded(
            _compile(template).render(messages=messages, add_generation_prompt=add_generation_prompt, **names)
        )
    except Exception as e:  # untrusted code can raise what it likes
        raise ValueError(f"the chat template cannot render these messages: {type(e).__name__}: {e}") from e
