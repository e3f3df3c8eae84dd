"""The program in a model's text: which block it is, where it ends, and that it is never mended or cut."""

from __future__ import annotations

import ast
import bisect
import heapq
import inspect
import json.decoder
import random
import statistics
import textwrap

import pytest

from tracelift.programs import CodeProblem, StdinTest, extract_program, fences
from tracelift.programs.extract import with_preamble
from tracelift.programs.fences import bare_blocks, complete, fenced_blocks, is_sentence

ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
SLOW = "a, b = map(int, input().split())\nwhile b:\n    a, b = a + 1, b - 1\nprint(a)\n"
TWICE = "def twice(x):\n    return x + x\n"


@pytest.mark.parametrize(
    "text",
    [
        ADD,
        f"```python\n{ADD}```",
        f"```py\n{ADD}```\nThis reads two numbers and prints their sum.",
        f"```\n{ADD}```",
        f"~~~python\n{ADD}~~~",
        f"Sure! Here is the program:\n\n```python\n{ADD}```\n\nExample:\n```\n3 4\n```\nIt prints 7.",
        f"The input is\n```\n3 4\n```\nand so\n```python\n{ADD}```",
        f"The input is\n```\n3 4\n```\nand so\n{ADD}",
        f"First install it:\n```bash\npip install numpy\n```\n```python\n{ADD}```",
        f"```python\n{ADD}",  # the fence is never closed
        f"```python\n{ADD}\nThis program reads two numbers.\n",  # nor is it, and prose follows
        f"1. Like this:\n   ```python\n   {ADD.replace(chr(10), chr(10) + '   ').rstrip()}\n   ```\n",
        f"Here is the solution:\n\n{ADD}\nI hope this helps, good luck!",
        f"{ADD}\n\nInput: 3 4\nOutput: 7",
        f"```Python\r\n{ADD.replace(chr(10), chr(13) + chr(10))}```",
        f"````python\n{ADD}````",
        f"```python\nfor i in range(3\n```\nOops, a bracket is missing. Again:\n```python\n{ADD}```",
        f"Here it is: ```python\n{ADD}```",
        f"```python\n{ADD.rstrip()}```",  # closed on the last code line
        f"```python\n{ADD.rstrip()} ```\nIt adds.",
        f" {ADD}",  # SentencePiece writes a blank before the first word
        f"\ufeff{ADD}",
        f"\u200b```python\n{ADD}```",
        f"```python\n\ufeff{ADD}```",
        f"<answer>\n{ADD}</answer>",
        f"```python\n{ADD}```</answer>",
        f"{ADD.rstrip()}</answer>",
        f"```python\n{SLOW}\n```python\n{ADD}```",  # begun anew without closing
    ],
)
def test_the_program_is_found(text):
    assert extract_program(text) == ADD


@pytest.mark.parametrize(
    "draft",
    [
        "import sys\nimport math\n",
        "n = 5\n",
        "n = 5\nnames = ['a', 'b']\n",
        SLOW,
        "def solve(a, b):\n    return a + b\n",
        "print(2 + 3)\n",
        "for i in range(3\n",
        'def solve():\n    """Half a docstring\n',
    ],
)
def test_a_draft_before_the_program_is_not_it(draft):
    assert extract_program(f"First:\n```python\n{draft}```\nFinally:\n```python\n{ADD}```\n") == ADD
    assert extract_program(f"First:\n```\n{draft}```\nFinally:\n```\n{ADD}```\n") == ADD


@pytest.mark.parametrize(
    "after",
    [
        "print(solve(3, 4))\n",  # what another block defines
        "print(2 + 3)  # 5\n",
        "import math\n",
        "n = 5\n",
        "$ python solve.py < in.txt\n",
        "7\n",
    ],
)
def test_what_is_shown_after_the_program_is_not_it(after):
    program = f"def solve(a, b):\n    return a + b\n\n{ADD.replace('a + b', 'solve(a, b)')}"
    assert extract_program(f"```python\n{program}```\nTry it:\n```python\n{after}```\n") == program
    assert extract_program(f"```python\n{program}```\nTry it:\n```\n{after}```\n") == program


def test_reasoning_is_no_place_for_the_answer():
    draft = f"```python\n{SLOW}```"
    final = f"```python\n{ADD}```"
    for text in (
        f"<think>\nPerhaps {draft}\n</think>\n{final}",
        f"Perhaps {draft}\nno.\n</think>\n{final}",  # the opening tag stood in the prompt
        f"<think>{draft}</think><thinking>{draft}</thinking>{final}",
    ):
        assert extract_program(text) == ADD
    assert extract_program(f"<think>\nPerhaps {final}\nand then") is None  # it never closes: no answer


def test_the_function_asked_for_is_preferred():
    text = "```python\ndef helper(x):\n    return x\n```\nand\n```python\ndef wanted(x):\n    return 2 * x\n```"
    assert extract_program(text, "helper") == "def helper(x):\n    return x\n"
    assert extract_program(text, "wanted") == extract_program(text) == "def wanted(x):\n    return 2 * x\n"
    again = f"```python\n{TWICE}```\nBetter:\n```python\ndef twice(x):\n    return 2 * x\n```"
    assert "2 * x" in (extract_program(again, "twice") or "")
    for better in (
        "class Solution:\n    def twice(self, x):\n        return 2 * x\n",
        "twice = lambda x: 2 * x\n",
        "async def twice(x):\n    return 2 * x\n",
    ):
        text = f"```python\n{TWICE}```\nIn the form that is asked for:\n```python\n{better}```\nSo:\n```python\nprint(twice(4))\n```"
        assert extract_program(text, "twice") == better
    used = f"```python\n{TWICE}```\nUse it so:\n```python\nprint(twice(3))\n```\n"
    assert extract_program(used, "twice") == TWICE


def test_a_name_that_the_program_is_handed_need_not_be_bound():
    ours, theirs = "def f(x: List[int]):\n    return x\n", "def f(x):\n    return x[:]\n"
    text = f"```python\n{theirs}```\n```python\n{ours}```"
    assert extract_program(text, "f") == theirs and extract_program(text, "f", given=["List"]) == ours


@pytest.mark.parametrize(
    "program",
    [
        'def f(x):\n    """Double.\n\n    ```\n    f(2) == 4\n    ```\n    """\n    return 2 * x\n',
        'def f(x):\n    """Double.\n```python\nf(2)\n```\n    """\n    return 2 * x\n',
        "TEXT = '''\n```\n'''\ndef f(x):\n    return TEXT\n",
        "def f(x):\n    # don't stop at \"\"\" here\n    return '```'\n",
        'def f(x):\n    """One: ```x```"""\n    return r"\\"\n',
        "def f(x):\n    return '''\nThis is said to a reader.\n'''\n",
    ],
)
@pytest.mark.parametrize("frame", ["```python\n{}```", "```python\n{}```\nNow `f(3)` is 6.", "```python\n{}", "{}"])
def test_a_fence_or_a_sentence_in_a_string_ends_nothing(program, frame):
    assert extract_program(frame.format(program), "f") == program


@pytest.mark.parametrize(
    "broken",
    [
        "x = int(input()\nprint(x)\n",
        "x = int(input())\nif x > 3 print(x)\nprint(1)\n",
        "def f(x)\n    return x\nprint(f(1))\n",
        "print(1)\nx = = 2\n",
        "print(1)\nfor i in range(3):\nprint(i)\n",
        "print(1)\n  print(2)\n",
        "print(1)\nprint 'done'\n",
        "print(1)\nelse if x:\n    pass\n",
        "print(1)\nreturn 2\n",
        "a = int(input())\nprint(a",  # cut off
        'print(1)\n"""never closed\n',
    ],
)
def test_a_program_that_does_not_compile_is_never_cut_to_what_does(broken):
    for text in (f"```python\n{broken}\n```", f"```python\n{broken}", broken, f"So:\n\n{broken}"):
        found = extract_program(text)
        assert found is not None and complete(found) is None and found.split() == broken.split()
    assert extract_program(f"```python\nimport math\n```\nThen:\n```python\n{broken}\n```\n").split() == broken.split()


def test_comments_are_kept_those_with_three_marks_too():
    program = "### Solution\nx = int(input())\n### Step 2: double it\n\nprint(2 * x)  # done\n#### end\n"
    assert extract_program(program) == program
    assert extract_program(f"```python\n{program}```") == program


def test_a_base_model_that_goes_on_is_cut_where_it_speaks_again():
    text = (
        ADD
        + "\n### Problem 2\nWrite a program that multiplies two numbers.\n\n### Solution\na, b = 1, 2\nprint(a * b)\n"
    )
    assert extract_program(text).rstrip().startswith(ADD.rstrip()) and "multiplies" not in extract_program(text)


@pytest.mark.parametrize(
    "text", ["", "   \n", "I cannot solve this problem.", "The answer is 42.", "```\n3 4\n```", "```text\nno code\n```"]
)
def test_where_there_is_no_program_none_is_made_up(text):
    assert extract_program(text) is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("This program reads two numbers.", True),
        ("Output: 7", True),
        ("Explanation:", True),
        ("**Note** it is slow", True),
        ("- It reads", True),
        ("1. First, read", True),
        ("and so it is linear in the input.", True),
        ("Time complexity: O(n)", True),
        ("Это программа.", True),
        ("</s>", True),
        ("```", True),
        ("N, M = map(int, input().split())", False),
        ("N: int = 5", False),
        ("Print(x)", False),
        ("print x and y and z.", False),
        ("if x is not done:", False),
        ("return the sum of all.", False),
        ("    This is indented.", False),
        ("α = 3", False),
        ("# Note that", False),
        ("", False),
        ("X = [Y", False),
    ],
)
def test_what_is_a_sentence(line, said):
    assert is_sentence(line) is said


# -- continuing a prompt ---------------------------------------------------------------------------------------------

STUB = 'import math\n\n\ndef twice(x):\n    """ Double. """\n'
PROBLEM = CodeProblem("p", "Double.", (StdinTest("", "1"),), (), "twice", "import math", STUB)


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("    return x + x\n", "    return x + x\n"),
        ("\n    return x + x\n\n\nNow we test it:\nprint(twice(2))\n", "\n    return x + x\n"),
        ("    return y(x)\n\n\ndef y(x):\n    return x + x\n", "    return y(x)\n\n\ndef y(x):\n    return x + x\n"),
        ('    return x + x\n\n\ndef more(x):\n    """ Cut off', "    return x + x\n"),
        ("    return x + x\n\n\nfor i in range(3", "    return x + x\n"),
        ("    return x +\n", "    return x +\n"),
        ("    return x +\n\nprint(1)\n", "    return x +\n"),
    ],
)
def test_a_continuation_ends_with_its_function(text, body):
    assert PROBLEM.program(text) == STUB + body


def test_a_text_that_repeats_the_head_is_no_continuation():
    for text in (TWICE, f"```python\n{TWICE}```", f"  Here it is:\n```python\n{TWICE}```"):
        assert PROBLEM.program(text) == f"import math\n{TWICE}"


@pytest.mark.parametrize(
    ("program", "place"),
    [
        ("x = 1\n", 0),
        ("# from __future__ import annotations\nx = 1\n", 0),
        ("from __future__ import annotations\nx = 1\n", 1),
        ('"""A text."""\nfrom __future__ import annotations\nfrom __future__ import division\nx = 1\n', 3),
    ],
)
def test_a_preamble_stands_after_what_must_be_first(program, place):
    lines = program.split("\n")
    assert with_preamble("import math", program).split("\n") == [*lines[:place], "import math", *lines[place:]]
    assert complete(with_preamble("import math", program)) is not None


# -- properties ------------------------------------------------------------------------------------------------------

PIECES = [
    ADD, SLOW, TWICE, "```python\n", "```\n", "```", "~~~\n", '"""', "'''", '"', "'", "<think>", "</think>", "<answer>", "\n",
    "</answer>", "This is said.\n", "    return 1\n", "x = (", ")", "print(1)", "#", "\\", "\u200b", " ", "\t", "def f(x):\n", "`",
]  # fmt: skip


def test_any_text_is_read_without_a_word_and_nothing_is_made_up():
    rng = random.Random(7)
    for _ in range(600):
        text = "".join(rng.choices(PIECES, k=rng.randrange(1, 25)))
        for entry in (None, "twice"):
            found = extract_program(text, entry)
            if found is not None:
                assert found.endswith("\n") and all(line.strip() in text for line in found.split("\n"))
        PROBLEM.program(text)
        for block in (*fenced_blocks(text), *bare_blocks(text)):
            assert all(line.strip() in text for line in block.body.split("\n"))


def test_a_program_in_a_block_comes_out_as_it_is():
    """Whatever it is, as long as it compiles: definitions of the standard library are the sample."""
    modules = (textwrap, heapq, bisect, json.decoder, statistics)
    definitions = [n for m in modules for n in ast.parse(inspect.getsource(m)).body if hasattr(n, "body")]
    assert len(definitions) > 60
    for node in definitions:
        program = ast.unparse(node) + "\n"
        for text in (program, f"So:\n```python\n{program}```\n", f"```\n{program}", f"Here:\n\n{program}\nThat is it."):
            assert extract_program(text) == program


HOSTILE = [
    "x = (", "```python\n", "```", "def f():\n", "import os\nA sentence here.\n", "`", '"""\n', "```python\n\"\"\"\n", "\\", "'\\",
    "```a`\n", "a" * 50 + "`", "if x:\n", "x = 1\nNot this.\n", "f(\n```\n", "a,", "x[", "]a", "<think>", "<answer>", " ", "- ",
    "```python\n'\'\'\n```\n", '"""\n```\n"""\n', "Aa", "é", "#\n", "\u200b", "x = 1;", "(" * 30 + "\n", '"\\', "A b.\n",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_the_work_is_linear_in_the_text(piece, monkeypatch):
    """Counted in characters given to the compiler and lines looked at, for a text eight times as long."""
    done = {"characters": 0, "lines": 0}

    def counted(function, key, size):
        def wrapper(*args):
            done[key] += size(args[0])
            return function(*args)

        return wrapper

    monkeypatch.setattr(fences, "parse", counted(fences.parse, "characters", len))
    monkeypatch.setattr(fences, "open_string", counted(fences.open_string, "lines", lambda line: 1))

    def work(size: int) -> dict[str, int]:
        done.update(characters=0, lines=0)
        text = piece * (size // len(piece))
        extract_program(text, "f")
        extract_program("```python\n" + text)
        PROBLEM.program("    " + text)
        return dict(done)

    small, large = work(2_000), work(16_000)
    assert all(large[key] <= 16 * small[key] + 60_000 for key in done)


def test_long_and_hostile_texts_take_no_time():
    """What regular expressions do is not counted above; were one of these quadratic, the test would not end."""
    for piece in HOSTILE:
        extract_program(piece * (100_000 // len(piece)), "f")
