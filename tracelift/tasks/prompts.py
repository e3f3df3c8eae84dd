"""Prompts in our own words, replaceable by the user's files, and the reasoning tags.

The planner is asked for concise reasoning that helps *another* solver, inside `<reasoning> … </reasoning>`, without the
final answer (math) or final code (code). The executor is asked for nothing but the artifact, with the trace offered as
guidance; its baseline prompt is the same without the trace (docs/method.md). Instruct models get their chat template, base
models plain text. The "math" prompts ask for a number, as GSM8K's answers are; evaluation words them for MATH's
expressions (`asks_for_expression`). Left out: few-shot examples; a user's template file may hold them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import Tokenizer

OPEN, CLOSE = "<reasoning>", "</reasoning>"

PLANNER = {
    "demo": "{problem}\n",
    "math": (
        "Another solver will answer the problem below and will read your reasoning first. Write short, correct steps "
        "that lead to the right result: name the quantities, state each calculation, and stop before the last result. "
        "Do not state the final answer. Put everything between <reasoning> and </reasoning>.\n\nProblem:\n{problem}\n"
    ),
    "code": (
        "Another programmer will write the program for the task below and will read your plan first. Explain the "
        "approach in short steps: data structures, order of operations, edge cases. Do not write the program. Put "
        "everything between <reasoning> and </reasoning>.\n\nTask:\n{problem}\n"
    ),
}
EXECUTOR = {
    "demo": "{problem}\nGuidance: {trace}\nAnswer:",
    "demo-code": "{problem}\nGuidance: {trace}\nProgram:\n",
    "math": (
        "Solve the problem. Guidance from a colleague follows it; use it where it helps.\n\nProblem:\n{problem}\n\n"
        "Guidance:\n{trace}\n\nReply with the final number and nothing else.\nAnswer:"
    ),
    "code": (
        "Write one complete Python 3 program for the task. Guidance from a colleague follows it; use it where it "
        "helps.\n\nTask:\n{problem}\n\nGuidance:\n{trace}\n\nReply with the program and nothing else.\n"
    ),
}
_NUMBER, _EXPRESSION = (
    "Reply with the final number and nothing else.",
    "Reply with the final answer in LaTeX and nothing else.",
)
BASELINE = {
    "demo": "{problem}\nAnswer:",
    "demo-code": "{problem}\nProgram:\n",
    "math": "Solve the problem.\n\nProblem:\n{problem}\n\nReply with the final number and nothing else.\nAnswer:",
    "code": "Write one complete Python 3 program for the task.\n\nTask:\n{problem}\n\nReply with the program and nothing else.\n",
}


def load_template(name: str, builtin: dict[str, str], fields: tuple[str, ...]) -> str:
    """A built-in template by name, or a text file's content.

    Raises FileNotFoundError for neither, ValueError where the file lacks one of `fields` or names an unknown one.
    """
    if name in builtin:
        return builtin[name]
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"prompt '{name}': neither one of {', '.join(builtin)} nor a file")
    text = path.read_text()
    try:
        used = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as e:
        raise ValueError(f"{path}: {e}; write literal braces twice: {{{{ }}}}") from None
    if used != set(fields):
        raise ValueError(
            f"{path}: needs exactly the fields {', '.join('{' + f + '}' for f in fields)}, has {sorted(used)}"
        )
    return text


def asks_for_expression(template: str) -> str:
    """A built-in "math" template as problems whose answer may be any expression need it; every other template as it is."""
    return template.replace(_NUMBER, _EXPRESSION) if template in (EXECUTOR["math"], BASELINE["math"]) else template


def render(template: str, **fields: str) -> str:
    """Fill a template; braces inside the fields' text are left alone."""
    return template.format(**fields)


def use_chat(setting: str, tokenizer: Tokenizer) -> bool:
    """Resolve `chat = auto | on | off`. Raises ValueError for `on` with a tokenizer that has no template."""
    if setting == "on" and not tokenizer.chat_template:
        raise ValueError("chat = 'on', but this tokenizer has no chat template; use chat = 'off'")
    return setting == "on" or (setting == "auto" and bool(tokenizer.chat_template))


_CONTROL = re.compile(
    r"<(?=\||｜|/?s>|/?(?:bos|eos|pad|unk|mask|sep|cls)>|(?:start|end)_of_turn>)|\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_\w+|AVAILABLE_TOOLS)\])"
)


@dataclass(frozen=True)
class PromptFormat:
    """How template and fields become the prompt of one model: as plain text, or as one user turn of its chat template.

    Fields are a user's or a planner's text: where they spell a special token they stay text (models/text/user_text.py), so that a
    trace cannot end the turn it stands in. In a turn that goes for the template too; as plain text a template may spell
    special tokens. tokenizer: None where the model is behind a server; then what looks like a special token gets a space
    after its first character. options: variables of the chat template, as enable_thinking.
    """

    tokenizer: Tokenizer | None = None
    chat: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def add_special_tokens(self) -> bool:
        """Whether the tokenizer puts its own first token before a prompt: a chat template spells it itself."""
        return not self.chat

    def prompt(self, template: str, **fields: str) -> str:
        """The prompt's text. Raises ValueError as `Tokenizer.render_chat` does."""
        if self.tokenizer is None:
            return render(template, **{name: _CONTROL.sub(r"\g<0> ", text) for name, text in fields.items()})
        if not self.chat:
            return render(template, **{name: self.tokenizer.user_text(text) for name, text in fields.items()})
        turn = {"role": "user", "content": self.tokenizer.user_text(render(template, **fields))}
        return self.tokenizer.render_chat([turn], add_generation_prompt=True, **self.options)

    def encode(self, prompt: str) -> list[int]:
        """The token ids of `prompt`'s text, as the model reads it."""
        assert self.tokenizer is not None, "a server encodes its prompts itself"
        return self.tokenizer.encode(prompt, self.add_special_tokens)


_BLOCK = re.compile(re.escape(OPEN) + r"(.*?)" + re.escape(CLOSE), re.DOTALL)


def extract_trace(text: str, max_chars: int | None = None) -> str | None:
    """The text inside the one complete reasoning block, stripped.

    None (a format failure: the executor is not called) where there is no complete block, more than one opening or
    closing tag, nothing inside, or more than `max_chars` characters inside.
    """
    if text.count(OPEN) != 1 or text.count(CLOSE) != 1:
        return None
    match = _BLOCK.search(text)
    trace = match[1].strip() if match else ""
    if not trace or (max_chars is not None and len(trace) > max_chars):
        return None
    return trace
