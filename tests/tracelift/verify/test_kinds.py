r"""What changes an answer from beside it, and dress that changes nothing: a table of kinds.

PASS and FAIL are of `verify_math`. Which wrong readers would still pass? One that knows these words only; the property of
tests/tracelift/verify/test_dress.py draws from open lists of numerals, scales and ordinals.
"""

import pytest

from tracelift.verify.math import extract_answer, reference_kind, verify_math

P, F = "PASS", "FAIL"
CASES = [
    # neighbours of a box
    (F, '5', ['-\\boxed{5}', '$x = -\\boxed{5}$', '\\boxed{5}\\pi', '\\boxed{5}/2', '\\boxed{5} million',
        '2\\boxed{5}', 'The answer is not \\boxed{5}', '\\boxed{6} or \\boxed{5}',
        '$\\boxed{6}$, $\\boxed{5}$', '\\boxed{5}^2', 'It is \\boxed{5} or 6', 'more than \\boxed{5}',
        'half of \\boxed{5}', '\\boxed{5} is wrong', '$-\\boxed{5}$', '\\sqrt{\\boxed{5}}',
        '\\frac{1}{\\boxed{5}}', 'Either \\boxed{6}\nor \\boxed{5}', 'x\\boxed{5}', 'not\n\\boxed{5}']),
    (P, '-5', ['-\\boxed{5}', '$x = -\\boxed{5}$']),
    (P, '72', ['The final answer is: $\\boxed{72}$. I hope it is correct.', '$$\\boxed{72}$$',
        'Therefore, Natalia sold $\\boxed{72}$ clips altogether in April and May.', '$x = \\boxed{72}$',
        '\\[ 48+24=\\boxed{72} \\]', '$\\boxed{72}$ cm', 'There are $\\boxed{72}$ more boys than girls.',
        '\\boxed{72}\\text{ cm}', '\\boxed{72}\\%', '\\$\\boxed{72}', '\\boxed{72} dollars',
        'So \\boxed{70}. Wait, \\boxed{72}.', '\\therefore \\boxed{72}', '**\\boxed{72}**', '- \\boxed{72}',
        '70 + 2 \\implies \\boxed{72}', '\\boxed{72}^\\circ', '\\(\\boxed{72}\\) square feet']),
    # a minus in a reference
    (F, '- 5', ['5']),
    (P, '- 5', ['-5', '\\boxed{-5}']),
    (P, '- \\frac{3}{4}', ['-3/4']),
    (F, '- \\frac{3}{4}', ['3/4']),
    (P, '-5', ['<answer>- 5</answer>']),
    (F, '5', ['<answer>- 5</answer>']),
    (P, '5', ['- 5']),
    # percent in products
    (F, '2000', ['200 * 10%']),
    (F, '3000', ['300*10%']),
    (F, '30', ['3 \\times 10\\%', '3(10)', '3 \\times 10']),
    (P, '30', ['30 (300*10%)']),
    (P, '20', ['200 * 10% = 20']),
    (P, '3000', ['3 \\times 10^3', '3 * 10^3']),
    # bold
    (F, '8', ['**2** 3', '**2** (3)']),
    (P, '72', ['**72** (48 + 24)', '**72** (in total)', '**72** clips', '**Answer:** **72**']),
    (P, '8', ['2**3', '2 ** 3']),
    # a colon is no pause
    (F, '5', ['It is not: 5', 'At least: 5', 'She has less than: 5', 'She does not have, 5', 'It is minus: 5',
        'Half of: 5', 'It is 6, or: 5']),
    # before the mark
    (F, '5', ['It is not true that the answer is 5.', 'The wrong answer is 5.', 'Incorrect answer: 5',
        'The answer is 6 or the answer is 5', 'Not\n5', 'minus\n5', '6 or\n5', 'x = -\n5',
        "It isn't so that the answer is 5", 'Possible answer: 5', 'A guess at the answer is 5',
        'She does not have\n5', 'It is not:\n5', 'The answer is 6, the answer is 5', 'Half the answer is 5',
        'It is not true that\nthe answer is 5']),
    (P, '72', ['After 2 hours the answer is 72.', 'Answer: The answer is 72.', 'The correct answer is 72.',
        'Thus, our final answer is 72.', 'It is not 70. The answer is 72.', 'Final answer: 72',
        'So the answer is 72', 'We add:\n72', 'The total is\n72', '48 + 24 =\n72',
        'So the correct answer is: 72', 'I am not sure. The answer is 72']),
    # a letter taken back
    (F, 'C', ['C) or D', 'C) is wrong', 'C: not D', 'C) or (D) or (E)', 'Option C: false', 'C) incorrect',
        'C, D', 'C and D', '(C) or (D)', 'C) D', 'C, or D', 'C is wrong', 'C is not correct',
        'The answer is C or D', 'C) 5 or D) 6', 'not C']),
    (P, 'C', ['C', 'C) 72', '(C) 72 clips', 'C. 72', 'C) none of the above', 'C: the last']),
    # numerals, parts and scales
    (F, '5', ['5 point two', '5 sixths', '5 eighths', '5 ninths', '5 lakh', '5 crore', '5 quadrillion',
        '5 grand', '5 gross', '5 doubled', '5 halved', '5 tripled', 'anything but 5', 'all but 5',
        'far from 5', '5 twelfths', '5 sextillion', '5 hundredfold', '5 increased', '5 apples halved',
        '5 myriad', '5 twentieths', '5 backwards', 'It is 5 doubled.', 'She has 5 lakh rupees.',
        'She ate 5 sixths of it.']),
    (F, '101', ['101 in binary', '101 in octal', 'It is 101 in hexadecimal.']),
    (P, '72', ['72 colored pencils', '72 clips needed', '72 clips in April and May', '72 points',
        '72 clips sold in total', '72 grams', '72 months']),
    # functions of the answer
    (F, '5', ['\\boxed{reciprocal: 5}', '\\boxed{opposite: 5}', '\\boxed{square: 5}', '\\pi = 5', '\\log = 5',
        'Twice the answer is 5.', 'The answer squared is 5.', '\\boxed{inverse = 5}',
        'The square of the answer is 5.', '\\sin = 5']),
    (P, '5', ['\\theta = 5', '\\boxed{Total: 5}', 'Half of them is 5.', '\\angle = 5', '\\alpha = 5',
        '5 square feet']),
    # decimals with an exponent
    (F, '1/1000', ['1.000099e-3']),
    (F, '3/1000', ['3.000299 \\times 10^{-3}']),
    (P, '1/3000', ['3.33333333e-4']),
    # powers, mixed numbers, ties, number words
    (F, '64', ['2^3^2']),
    (F, '1.5', ['3¹⁄₂']),
    (P, '7/2', ['3¹⁄₂']),
    (F, '10200', ['10~200']),
    (F, '5000', ['$5k$']),
    (F, '3100', ['thirty and one hundred']),
    (F, '25', ['twenty and five']),
    (F, '7', ['5 and 6/3', '5 6/3', '5\\frac{6}{3}']),
    (P, '105', ['one hundred and five', 'one hundred five']),
    (P, '1005', ['one thousand and five']),
    (P, '5000', ['$5k']),
    (P, '12', ['~12', '~ 12', '12~cm']),
    # words in \text
    (P, 'Evelyn', ['\\boxed{\\text{Evelyn}}', '\\text{Evelyn}', 'Evelyn.', '$\\boxed{\\textbf{Evelyn}}$']),
    (P, 'no solution', ['\\boxed{\\text{no solution}}', '\\boxed{\\text{No solution}}']),
    (P, '\\text{Evelyn}', ['Evelyn']),
    (P, '\\text{odd}', ['odd', '\\boxed{odd}']),
    (F, '\\text{odd}', ['even']),
    # displayed formulas and fences
    (P, '72', ['\\[\n72\n\\]', '$$\n72\n$$', 'Thus\n\\[\n48+24=72.\n\\]', 'So the answer is:\n\\[\n72\n\\]',
        '```\n72\n```', '72\n---', 'The answer is\n\n$$\n\\boxed{72}\n$$',
        '\\begin{align*}\n72\n\\end{align*}', 'So\n\\[ 72 \\]']),
    # the usual dress of choices
    (P, 'C', ['\\boxed{\\textbf{(C)}\\ 72}', '\\boxed{\\textbf{(C) }72}', 'C is correct.',
        'Option C is correct.', 'The answer is C because it is so.', 'The answer is C, 72 clips.',
        'C is the right answer', '\\boxed{\\textbf{(C)}}', '$\\boxed{\\text{C}}$']),
    # openers, arrows, units
    (P, '72', ['So, 72.', 'Therefore, 72', "It's 72", '-> 72', '\\therefore 72', '# 72', '### 72',
        '72 (seventy-two)', '$72/hour', '72 m2', 'R$72', 'HK$72', '72</answer>', '\\boxed{72\\ }',
        '#### She sold 72 clips.', '=> 72', '→ 72', '∴ 72', 'Thus, the total is 72', 'US$72', '72 km/h',
        '72/day']),
    (F, '5', ['x \\to 5', 'x -> 5', '72/x']),
    # a total of
    (P, '72', ['Natalia sold a total of 72 clips.', 'She has an average of 72 points.']),
    (F, '72', ['She has half of 72 now.', '1 out of 72 is red.', 'She sold some of 72 clips']),
    # place
    (P, '72', ['#### Step 1: 24 clips in May\n#### 72',
        '2 hours pass\nQuestion 1: how many?\nThe answer is 72', '<seed:think>5</seed:think>72',
        '[THINK]5 \\boxed{5}[/THINK]72',
        '<|begin_of_thought|>\\boxed{5}<|end_of_thought|><|begin_of_solution|>72<|end_of_solution|>',
        '<|channel|>analysis<|message|>\\boxed{5}<|end|><|start|>assistant<|channel|>final<|message|>72<|return|>',
        '5<|end|><|start|>assistant<|channel|>final<|message|>72',
        '<|begin_of_thought|>5<|end_of_thought|>\nThe answer is 72']),
    (F, '5', ['<|channel|>analysis<|message|>5', '[THINK]5', '<seed:think>5']),
    # fractions
    (P, '3/4', ['\\nicefrac{3}{4}', '\\sfrac{3}{4}', '^{3}/_{4}', '³⁄₄', '3/4 (0.75)', '0.75 (3/4)',
        '\\boxed{^3/_4}']),
    (P, '7/2', ['3 {1\\over2}', '3 and \\frac12', '3 and 1/2', '3{1 \\over 2}']),
]  # fmt: skip


@pytest.mark.parametrize(("verdict", "reference", "said"), [(v, r, s) for v, r, group in CASES for s in group])
def test_kinds(verdict, reference, said):
    assert verify_math(said, reference).name == verdict, extract_answer(said)


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("NaN", "none"), ("2^3^2", "none"), ("5 lakh", "none"), ("The value is x+5 for all 3 cases.", "none"),
        (r"\text{odd}", "words"), (r"\text{Evelyn}", "words"), ("So she has 18 eggs.", "number"), ("not 5", "none"),
    ],
)  # fmt: skip
def test_what_references_load_as(reference, kind):
    assert reference_kind(reference) == kind
