r"""Values and expressions in the dress that people and models give them, for properties of answer reading.

The oracle is the construction: a value or an expression is drawn first and then written in one of many ways, so what it
states is known without any parser. Left out: wrong dress (a value half written), languages other than English.
"""

import random
from fractions import Fraction

# No two of these state the same, and none states a number.
EXPRESSIONS = [
    r"\pi/2", r"2\pi", r"\frac{\pi}{2}", "x+7", "y-7", "x - 7", "5x", "x^5", "5^x", "5^{n}", "5/x", "x/5", "5(x+1)", "5(3)",
    r"\sqrt{5}", r"2\sqrt{3}", r"3\sqrt{2}", r"\sqrt[3]{5}", "(5!)", r"\binom{5}{2}", "n(n+1)/2", "n(n-1)/2", "x>5", "x<5",
    r"x\ge 5", r"[5,\infty)", r"(5,\infty)", r"(-\infty,5]", r"(-\infty,8]", "(1,2)", "(2,1)", "[1,2]", r"\{1,2\}", "3:30",
    "3:45", "x=1 or x=2", "x = 2 or x = -5", r"\pm 5", r"5\pm 2", "1011_2", "1011_3", "52_8", r"5\cdot x", "5 - x", "5x+2",
    "2x+5", "y=2x+5", "2x=5", "f(5)", r"\log 5", r"\log_2 5", "e^5", "5e", "5i", "3+5i", "5:2", "2:5", "5 mod 7", "5 or 6",
    "5 and 6", "5, 6", "6, 5", "between 5 and 6", "not 5", "more than 5", "at least 5", "less than 5", "half of 10", "twice 5",
    "5 dozen", "5 AM", "5 PM", "5 choose 2", "5 squared", "5 hours 30 minutes", "5 feet 3 inches", "5+6", "6+5", "5-6", "6-5",
    r"5 \times 6", "5/6/7", "10-5", r"0.\overline{5}", r"\begin{pmatrix}5\\2\end{pmatrix}", r"5\infty", "5ab", "5 and a half",
]  # fmt: skip

MARKED = ["\\boxed{{{}}}", "The answer is {}.", "#### {}", "Answer: {}", "<answer>{}</answer>", "<think>5</think>\n{}", "{}",
          "so 9. </think>The final answer is {}.", "\\fbox{{{}}}", "2 hours pass.\nThe answer is {}", "[THINK]5[/THINK]\n{}",
          "So the answer is:\n\\[\n{}\n\\]", "$$\n{}\n$$", "```\n{}\n```", "{}\n---", "so 9.</answer>\n<answer>{}</answer>",
          "Therefore, $\\boxed{{{}}}$.", "We add all.\n\\therefore \\boxed{{{}}}", "It comes to $x = \\boxed{{{}}}$ now.",
          "<|channel|>analysis<|message|>5<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>"]  # fmt: skip
# Around a piece that states a value, each makes it state nothing, or another value.
TRAPS = [
    "not {}", "It is not: {}", "At least: {}", "The wrong answer is {}.", "Incorrect answer: {}", "It is not true that the answer is {}.",
    "The answer is 987 or the answer is {}", "987 or\n{}", "Not\n{}", "x = 987 -\n{}", "\\boxed{{987}} or \\boxed{{{}}}", "2\\boxed{{{}}}",
    "\\boxed{{{}}}\\pi", "\\boxed{{{}}}/2", "\\boxed{{{}}}^3", "\\sqrt{{\\boxed{{{}}}}}", "The answer is not \\boxed{{{}}}", "half of {}",
    "anything but {}", "far from {}", "Twice the answer is {}.", "\\boxed{{\\text{{reciprocal}}: {}}}", "\\pi = {}", "x \\to {}",
    "987 * {}%", "987, {}", "{} or 987", "The answer is more than {}", "\\frac{{1}}{{\\boxed{{{}}}}}",
]  # fmt: skip
# After a number of digits these make another number of it.
BEHIND = ["sixths", "eighths", "twentieths", "lakh", "crores", "quadrillion", "sextillion", "grand", "gross", "doubled", "halved", "cubed",
          "in binary", "in hexadecimal", "point two", "hundredfold", "dozen", "\\pi", "x", "^2", "mod 7", "choose 2"]  # fmt: skip
SENTENCES = [
    "She has a total of {} now.",
    "So she has {} in the end.",
    "First 3 + 4 = 7.\nThus the total is {} now.",
    "So it makes {}.",
]
PLAIN = [
    "So, {}",
    "Therefore, {}",
    "It's {}",
    "-> {}",
    "\\therefore {}",
    "# {}",
    "{}</answer>",
    "{} apples",
    "{}.",
    " {} ",
    "= {}",
    "x = {}",
    "**{}**",
    "$\\boxed{{{}}}$.",
    "(1)\nFirst 70 + 2.\nThe answer is {}",
]


def draw_value(rng: random.Random) -> Fraction:
    size = rng.choice([10, 100, 10_000, 10_000_000])
    return Fraction(rng.randrange(-size, size) * rng.choice([100, 100, 50, 25, 1]), 100)


def written(value: Fraction, rng: random.Random) -> str:
    """One of the many ways in which `value` (with at most two decimals) is written exactly."""
    size = abs(value)
    sign = rng.choice(["-", "-", "−", "－", "﹣", "‒", "minus ", "negative "]) if value < 0 else ""
    minus = "-" if value < 0 else ""
    whole, rest = divmod(size, 1)
    top, bottom = size.numerator, size.denominator
    if bottom == 1:
        n = int(size)
        grouped = rng.choice([",", "{,}", ",\\!", "'", "\\,", "\u202f", "，"])
        wide = "".join(chr(0xFF10 + int(d)) for d in str(n))
        forms = [f"{sign}{n}", f"{sign}{n:,}".replace(",", grouped), f"{sign}{n}.0", f"{minus}${n:,}", f"{sign}{wide}",
                 f"{sign}\\text{{{n}}}", f"\\frac{{{minus}{2 * n}}}{{2}}", f"{sign}{n}/1", f"{minus}\\left({n}\\right)",
                 f"\\sqrt{{36}} = {minus}{n}", f"{sign}{n} \\text{{ cm}}^2", f"\\underline{{{minus}{n}}}"]  # fmt: skip
        forms += [f"{sign}{n}e0", f"{sign}{n} \\times 10^{{0}}", f"{{{minus}{n} \\over 1}}"]
    else:
        decimal = f"{float(size):.2f}"
        forms = [f"{sign}{decimal}", f"{minus}${decimal}", f"{sign}{float(size):,.2f}", f"{sign}{decimal}0", f"{sign}{top}/{bottom}",
                 f"{sign}\\frac{{{top}}}{{{bottom}}}", f"{sign}\\dfrac{{{top}}}{{{bottom}}}", f"{{{minus}{top} \\over {bottom}}}"]  # fmt: skip
        if whole:
            forms += [f"{sign}{whole} {rest.numerator}/{rest.denominator}"]
            forms += [f"{sign}{whole}\\frac{{{rest.numerator}}}{{{rest.denominator}}}"]
        if top < 10 and bottom < 10:
            forms += [f"{sign}\\frac{top}{bottom}", f"{sign}\\tfrac{top}{{{bottom}}}"]
    return rng.choice(forms)
