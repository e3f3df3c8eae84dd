"""Words and numbers as flaws change them: statements and names of a problem, a step without its calculation, misread digits.

Changes are easy to overlook: a wrong number has the length of the right one, a sentence reads on, a name
is exchanged for another of the problem. Left out on purpose: where in a trace a flaw strikes, and what follows (math.py).
"""

from __future__ import annotations

import random
import re
from fractions import Fraction
from itertools import pairwise

from tracelift.verify.arithmetic import find_equations, plain

_NOT_NOUNS = frozenset(
    "and the are was were has had for from per with each more less times than that who how but they then can will "
    "would could out does did into only left percent other minus plus equals because while when which his her their "
    "its not also this these those there since after before during every about all any too years".split()
)
_NOT_NAMES = frozenset(
    "The She He They It In If How What When Then There This That These Those His Her Their Its And But For So At On "
    "Each After Before By To From As An You We One Two Three Four Five Six Seven Eight Nine Ten Every All Both Some "
    "Half Once During While With Of Because Although Given Not Find Calculate Together Out Now Assume Since Another "
    "Next A I Later First Second Third Last Today Tomorrow Yesterday However Finally Initially Additionally Also My "
    "Our Your Mr Mrs Ms Dr Over Per Are Is Was Were Do Does Did Will Can Through Between Within Until Suppose Let "
    "Unfortunately Luckily Originally Usually Currently Only Most Many Several Few Any No Yes Who Where Which".split()
)
_CALENDAR = frozenset(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August "
    "September October November December".split()
)


def shuffled(items: list, rng: random.Random) -> list:
    return rng.sample(items, len(items))


def statements(problem: str) -> list[str]:
    """The problem's sentences that state something, with a number in digits in them."""
    sentences = re.split(r"(?<=[.!?])\s+", plain(problem).replace("\n", " ").strip())
    return [s for s in sentences if s.endswith(".") and 20 <= len(s) <= 200 and re.search("[0-9]", s)]


def nouns_in(text: str) -> dict[Fraction, str]:
    """number → the noun that follows it somewhere in the text."""
    found = re.findall(r"(?<![\w.,/$])([0-9]{1,9}) ([a-z]{3,})\b", plain(text))
    return {Fraction(n): word for n, word in found if word not in _NOT_NOUNS and word.endswith("s")}


def names_in(problem: str) -> list[str]:
    """Names in the problem: of people and the like, or else of days and months, never both in one list."""
    words = set(re.findall(r"\b[A-Z][a-z]{2,}\b", problem)) - _NOT_NAMES
    people = sorted(words - _CALENDAR)
    return people if len(people) > 1 else sorted(words & _CALENDAR)


def without_calculation(text: str, k: int, hedge: str = "") -> str | None:
    """`text` with its k-th calculation reduced to the result, or None where the line would not read on."""
    equations = [e for e in find_equations(text) if len(e.left.tokens) > 1]
    if not 0 <= k < len(equations):
        return None
    start, end = equations[k].left.start, equations[k].right.start
    start -= start > 0 and text[start - 1] in "$€£"
    end -= text[end - 1] in "$€£"
    if not re.search(r"[^\W\d_]{2,}", text[:start] + text[end:]):  # nothing but the calculation stands in the line
        return None
    result = re.escape(text[equations[k].right.start : equations[k].right.end])
    left = f"{text[:start]}{hedge}{text[end:]}"
    # `48 pieces because 32 + 16 = 48` has said its result already.
    return re.sub(rf"(?<={result})([^0-9]*)\s+(?:because|since|as)\s+{hedge}\$?{result}(?=\.?$)", r"\1", left)


def mid_sentence(text: str) -> str:
    """A sentence as it reads after "So ": without its own connective, its first word small unless it is a name."""
    text = re.sub(r"^(?:(?:So|Then|Thus|Therefore|Hence|That means|This means|Now|Next|First)\b,?\s*)+", "", text)
    first = re.match(r"[A-Z][a-z]*", text)
    return text[0].lower() + text[1:] if first and first[0] in _NOT_NAMES and first[0] != "I" else text


def miscopies(text: str, rng: random.Random) -> list[Fraction]:
    """Numbers that `text` may be misread as, of the same length: two digits swapped, or one digit another."""
    digits = [i for i, c in enumerate(text) if c.isdigit()]
    wrong = set()
    for i, j in pairwise(digits):
        wrong.add(text[:i] + text[j] + text[i + 1 : j] + text[i] + text[j + 1 :])
    for i in digits[:2]:
        wrong |= {text[:i] + d + text[i + 1 :] for d in "23456789" if text[i] != "0"}
    values = {Fraction(w.replace(",", "")) for w in wrong if w != text and w[0] != "0"}
    return shuffled(sorted(v for v in values if v > 1), rng)


def slips(text: str, rng: random.Random) -> list[Fraction]:
    """Results that a slip may give in place of `text`: off by a little, by a carry, or with a digit wrong."""
    places = len(text.partition(".")[2])
    units = int(Fraction(text.replace(",", "")) * 10**places)
    steps = [1, 2, 10] if units > 20 else [1, 2]
    wrong = {units + sign * step * 10 ** (places // 2) for step in steps for sign in (-1, 1)}
    if units >= 1000:
        wrong |= {units + 100, units - 100}
    return shuffled([Fraction(w, 10**places) for w in sorted(wrong) if w > 0 and len(str(w)) == len(str(units))], rng)
