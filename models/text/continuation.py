"""The text of tokens that go on from others, and what each of them adds to it.

SentencePiece-style decoders drop the first space of whatever they are given, and one character may span several tokens.
So a reply is decoded together with the last tokens before it, whose own text is then taken off: " tree" after "The old"
keeps its space, the body of a function its indentation, and a character cut between prompt and reply is whole.

Left out: streaming; here all tokens are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Spell = Callable[[Sequence[int]], str]  # ids → text, as if they began one

CONTEXT = 64  # tokens before that decide how the next are spelt: far more than a character has
_TAIL = 8  # of them enough for nearly every text
_CUT = "\ufffd"  # bytes that are no whole character


def text_after(spell: Spell, ids: Sequence[int], before: Sequence[int]) -> str:
    """What `ids` add to the text of `before`."""
    tail, known = _tail(spell, before)
    if not tail:
        return spell(ids)
    whole = spell([*tail, *ids])
    return whole[len(known if whole.startswith(known) else known.rstrip(_CUT)) :]


def _tail(spell: Spell, before: Sequence[int]) -> tuple[Sequence[int], str]:
    """The last few tokens of `before` and their text; more of them where those begin within a character."""
    count = _TAIL
    while True:
        tail = before[-count:]
        known = spell(tail) if tail else ""
        if not known.startswith(_CUT) or count >= min(CONTEXT, len(before)):
            return tail, known
        count *= 2


def pieces_after(spell: Spell, ids: Sequence[int], before: Sequence[int]) -> list[str]:
    """One piece of text a token; they join to `text_after`. A character that spans tokens is the last one's."""
    text = text_after(spell, ids, before)
    known = [*before[-CONTEXT:], *ids]
    first = len(known) - len(ids)
    out: list[str] = []
    at = start = 0  # of what is given out: characters, tokens
    for end in range(1, len(ids)):
        so_far = known[max(0, first + start - CONTEXT) : first + start]
        new = text_after(spell, ids[start:end], so_far)
        if new.endswith(_CUT) or not text.startswith(new, at):  # not whole yet
            out.append("")
        else:
            out.append(new)
            at, start = at + len(new), end
    return [*out, text[at:]] if ids else []
