"""Tagged pieces that both worlds' proofreaders are made of: + where a text is what is meant, else −.

What a Reason RM is fine-tuned from (ELECTRA's discriminator, Clark et al. 2020, with localized flaws for replaced
tokens). One verdict on a whole trace says too little about which digit was wrong: with verdicts alone, slips and
miscopied numbers stayed at chance. Beside its tag a piece names what is meant in its place, which the model learns to
predict before it reads the piece: the tag is then one comparison away. Without that it took twice the rounds.

Left out: what goes wrong, and what is meant; that is each world's own business.
"""

from __future__ import annotations

from collections.abc import Iterable

from tracelift.tasks.prompts import CLOSE
from tracelift.training.sft import Piece

RIGHT, WRONG = " +", " -"


def held(text: str, meant: str) -> Piece:
    return text, RIGHT if text == meant else WRONG, meant


def number(written: int, true: int, then: str, meant: str) -> list[Piece]:
    """A number digit by digit and `then`, which follows it where `meant` should.

    Only the first wrong digit is tagged: what is meant behind it nobody can say. A number cut short is wrong at `then`.
    """
    a, b = str(written), str(true)
    pieces: list[Piece] = []
    for k, digit in enumerate(a):
        space = " " * (k == 0)
        if k == len(b):
            pieces.append((digit, WRONG, meant))
            break
        pieces.append(held(space + digit, space + b[k]))
        if digit != b[k]:
            break
    else:
        return [*pieces, (then, WRONG, b[len(a)]) if len(b) > len(a) else held(then, meant)]
    return [*pieces, *((digit, False) for digit in a[len(pieces) :]), held(then, meant)]


def closed(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces as the whole of a trace: no space before the first, and the closing tag of the reasoning behind the last.

    That tag is answered by + where everything before it is: the verdict is gathered where the Reason RM will read it.
    """
    first, *rest = pieces
    verdict = WRONG if any(piece[1] == WRONG for piece in (first, *rest)) else RIGHT
    text = first[0].lstrip(" ")
    opening = (text, first[1], first[2].lstrip(" ")) if len(first) == 3 else (text, first[1])
    return [opening, *rest, (f"\n{CLOSE}", verdict)]
