"""The words beside a number: which are units, which change what it means, and number words themselves.

A unit is any word or abbreviation that leaves the number as it is ("72 clips in total"). The tables below list what does
not: signs, scales, operators, comparisons, negations, parts. Left out: languages other than English, units' sizes.

    converted     "1.5 million" → 1500000, "5 hundred" → 500; "5 dollars and 25 cents" → 5.25
    text          "5 hours 30 minutes", "5 feet 3 inches" and every other quantity in two units; "5 dozen", "half of 10"
"""

from __future__ import annotations

from collections.abc import Sequence

SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBER_WORDS = {word: i for i, word in enumerate(_ONES.split())}
NUMBER_WORDS |= {word: 20 + 10 * i for i, word in enumerate(_TENS.split())}

NEGATIVE, POSITIVE = frozenset({"negative", "minus"}), frozenset({"positive", "plus"})
CURRENCIES = frozenset("usd us eur gbp rs inr aud cad".split())
FILLERS = frozenset(
    "about approximately approx around roughly exactly equal equals to is it so thus hence therefore then just "
    "simply only the a total of answer final it's that's here's".split()
)
NEGATIONS = frozenset(
    "not never cannot neither nor without wrong incorrect incorrectly false impossible except unless untrue no "
    "ain't nobody none nothing".split()
)
VERBS = frozenset(
    "is are was were be equals equal has have had gets get got makes make made costs cost pays pay paid needs need "
    "leaves leave takes take took earns earn earned sold sells sell spends spend spent becomes gives give reads "
    "contains contain receives receive saves save uses use eats eat ate runs run ran owes owe weighs weigh".split()
)
# Beside a number these words make another number of it, or none: it is an operand, a bound, a choice or a part.
CHANGES = NEGATIONS | NEGATIVE | POSITIVE | frozenset(SCALES) | frozenset(
    "than least most between or and plus times over divided multiplied by mod modulo base choose squared cubed power "
    "root factorial pi log ln sin cos tan infinity half halves third thirds quarter quarters fourth fourths fifth "
    "fifths tenth tenths hundredth hundredths thousandth thousandths twice thrice double triple dozen dozens "
    "hundreds thousands millions billions score am pm bc ad bce ce binary octal hexadecimal hex ternary to through but less fewer under below above greater "
    "larger smaller exceeding minimum maximum up until either maybe perhaps alpha beta theta lambda sqrt".split()
)  # fmt: skip
# Functions of the number beside them or of the answer they are said of.
OPERATES = frozenset(
    "twice half double doubled triple tripled quadruple quadrupled halved squared cubed increased decreased reduced raised "
    "multiplied divided added subtracted rounded inverted reversed backwards reciprocal opposite inverse square cube root "
    "negation negative minus plus times thrice complement supplement conjugate logarithm sine cosine tangent factorial".split()
)
DOUBTS = frozenset("possible potential guess guessed previous old naive tempting common intermediate partial trial candidate other "
                   "alternative alleged supposed unlikely doubtful if unless".split())  # fmt: skip
TOTALS = frozenset("total amount average mean cost price profit distance length width height area volume speed rate age weight "
                   "balance discount savings revenue income".split())  # "a total of 72"  # fmt: skip
VARIABLES = frozenset("alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
                      "upsilon phi varphi chi psi omega ell angle Delta Omega Theta Phi Gamma Lambda Sigma".split())  # fmt: skip
LENGTHS = frozenset("m cm mm km dm ft in yd mi".split())
_SHORT = frozenset(
    "km cm mm kg mg ml kl cl oz lb lbs ft in mi yd hr hrs min mins sec secs mph kmh kph gal pt qt sq cu st nd rd th "
    "kw kwh kb mb gb hz pts pct of on for deg rad ms dl".split()
)
_LETTERS = frozenset("mgshlLCFKJNWV")  # 5 m, 5 s; other single letters are variables
_LETTERS_ATTACHED = frozenset("mgshlL")
MAX_UNIT = 6  # words


def fraction_of(words: Sequence[str]) -> int | None:
    """The value of number words such as ["seventy-two"] or ["one", "hundred", "and", "five"]; None where they are none."""
    total, part, last, joined = 0, None, 0, False
    for word in [part for written in words for part in written.casefold().split("-")]:
        if word in NUMBER_WORDS:
            number = NUMBER_WORDS[word]
            if (
                part is not None
                and not (part % 100 == 0 and part)
                and not (part % 10 == 0 and part % 100 >= 20 and 0 < number < 10)
            ):
                return None
            if joined and number == 0:
                return None
            part = (part or 0) + number
        elif word == "hundred" and part is not None and 0 < part < 100:
            part *= 100
        elif word in SCALES and word != "hundred" and part and (not last or SCALES[word] < last):
            total, part, last = total + part * SCALES[word], None, SCALES[word]
        elif word != "and" or joined or not (part % 100 == 0 if part else total) or word == words[-1].casefold():
            return None  # "and" stands after a hundred or a scale alone
        else:
            joined = True
    return total + (part or 0) if part is not None or total else None


_NUMBER_STEMS = frozenset("third four fif six seven eigh nin ten eleven twelf thir".split()) | frozenset(
    w.removesuffix("y") + "ie" if w.endswith("y") else w for w in NUMBER_WORDS if len(w) > 4
)
_NUMERALS = frozenset(
    "lakh lac crore grand gros gross myriad googol googolplex binary octal hexadecimal hex ternary unary quaternary "
    "squared cubed dozenth quintuple quadruple".split()
)


def single(word: str) -> bool:
    """Whether a word may be a variable, or changes the number after it."""
    return len(word) == 1 or word.casefold() in CHANGES or word.casefold() in OPERATES


def counts(word: str) -> bool:
    """Whether a word (in lower case) is a numeral, a scale, a part or a multiple: `two`, `point`, `sixth`, `lakhs`."""
    stem = word.removesuffix("s")
    return (
        word == "point" or stem in NUMBER_WORDS or (stem.endswith("th") and stem[:-2] in _NUMBER_STEMS) or scales(word)
    )


def scales(word: str) -> bool:
    """Whether a word makes another number of the one before it, wherever it stands: `quadrillion`, `sixths`, `threefold`."""
    stem = word.removesuffix("s")
    return (
        stem in _NUMERALS
        or stem.endswith(("illion", "illionth", "hundredth", "thousandth"))
        or (word.endswith("ths") and word[:-3] in _NUMBER_STEMS)
        or (stem.endswith("fold") and len(stem) > 4)
    )


def is_unit_word(word: str, attached: bool) -> bool:
    """Whether a word after a number leaves it as it is. attached: no space stands between, as in 5km."""
    lower = word.casefold()
    if lower in CHANGES or "n't" in lower or lower in OPERATES - {"square"} or any(map(counts, lower.split("-"))):
        return False
    if len(word) == 1:
        return word in (_LETTERS_ATTACHED if attached else _LETTERS)
    if len(word) == 2 or attached and len(word) == 3:
        return lower in _SHORT
    return lower in _SHORT or any(c in "aeiouy" for c in lower) or not lower.isascii()
