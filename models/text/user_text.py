"""Text of users in a prompt: where it spells a special token, it stays text.

A problem or a trace may hold "<|im_end|>". Spelt into a prompt and encoded, it would end the turn, and what follows would
speak in the template's voice: a planner could write the executor's answer for it. So each spelling in such text is
replaced by one private-use character before it goes into the prompt, which chat templates carry along like any other. An
encoder turns that character into the tokens of the spelling as letters. The rest of the prompt is encoded as ever; text is
cut at a mark as at the token itself, so a tokenizer that puts a space after special tokens puts one there.

Left out: servers, whose special tokens are not known here (tracelift/tasks/prompts.py); added tokens that are not special,
such as tags, which text may use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FIRST = 0x100000  # plane 16, private use: no script has characters there
_MARKS = re.compile(f"[{chr(_FIRST)}-{chr(0x10FFFD)}]")


class UserText:
    """Marks for the spellings of one tokenizer's special tokens."""

    def __init__(self, spellings: Iterable[str]) -> None:
        longest_first = sorted(set(spellings) - {""}, key=lambda s: (-len(s), s))
        self._mark = {spelling: chr(_FIRST + i) for i, spelling in enumerate(longest_first)}
        self.spelling = {mark: spelling for spelling, mark in self._mark.items()}
        self._any = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def marked(self, text: str) -> str:
        """`text` with a mark for each spelling, for the prompt it goes into."""
        return self._any.sub(lambda found: self._mark[found[0]], text) if self._any else text

    def has_marks(self, text: str) -> bool:
        return any(mark in self.spelling for mark in _MARKS.findall(text))

    def spelt(self, text: str) -> str:
        """The same prompt as a person reads it: each mark as its spelling."""
        return _MARKS.sub(lambda found: self.spelling.get(found[0], found[0]), text)

    def split(self, text: str) -> list[str]:
        """Stretches of text and single marks, in order."""
        return [part for part in re.split(f"({_MARKS.pattern})", text) if part]
