"""Examples found in a statement: the sample inputs and outputs it shows to the reader.

Read as they are written in the wild: "Sample Input 1", "Input:", "**Output**", "-----Examples-----", "### Example 2",
one after another or in fences. "Input" is also the heading of the *description* of the input. So once a statement has
a heading that announces examples, nothing before the first of them counts; without one, a block that reads like prose
does not.

These tests are visible to planner and executor. Rewards should come from hidden ones where there are any: formats.py
keeps the two apart.
"""

from __future__ import annotations

import re

from tracelift.programs.cases import ProblemError, StdinTest

DECORATION = r"[\s\-=*_#>`]*"
NUMBER = r"(?:\s*[#№]?\s*\(?\d+\)?)?"
SAMPLE = r"(?:sample|example|test|demo)s?"
HEADING = re.compile(
    rf"^{DECORATION}(?:"
    rf"(?P<sample_input>{SAMPLE}{NUMBER}\s*[-:]?\s*inputs?|inputs?\s+{SAMPLE})|"
    rf"(?P<sample_output>{SAMPLE}{NUMBER}\s*[-:]?\s*outputs?|outputs?\s+{SAMPLE}|expected\s+outputs?)|"
    rf"(?P<input>(?:standard\s+)?inputs?|stdin)|(?P<output>(?:standard\s+)?outputs?|stdout)|"
    rf"(?P<examples>{SAMPLE}(?:\s*(?:cases?|tests?|inputs?\s*(?:and|/|&)\s*outputs?))?)|"
    r"(?P<other>notes?|explanations?|constraints?|hints?|limits?|scoring|subtasks?|follow[- ]up|remarks?|input format|"
    r"output format|time limit|memory limit|tags?|source|language)"
    rf"){NUMBER}\s*(?P<end>[:\-=*_#`\s]*)(?P<rest>.*)$",
    re.IGNORECASE,
)
FENCE_LINE = re.compile(r"^\s*(```|~~~)[\w+-]*\s*$")
ASSIGNMENT = re.compile(r"^\s*[A-Za-z_]\w*\s*=[^=]")


def heading(line: str) -> tuple[str, str] | None:
    """(kind, text on the same line) where the line is a heading. Words after it need a colon between."""
    match = HEADING.match(line)
    if match is None or len(line) > 200:
        return None
    rest = match["rest"].strip()
    if rest and ":" not in match["end"]:
        return None  # "Input consists of …" is a sentence
    kind = next(name for name in match.re.groupindex if name not in ("end", "rest") and match[name] is not None)
    return kind, rest


def is_prose(text: str) -> bool:
    """Whether a block describes data rather than being it: a line with five words or more, most of them lower-case."""
    for line in text.split("\n"):
        words = re.findall(r"[A-Za-z][A-Za-z']*", line)
        if (
            len(words) >= 5
            and sum(w.islower() for w in words) >= 4
            and re.search(r"[.,:;)]|\b(the|of|is|are|a)\b", line)
        ):
            return True
    return False


def sections(statement: str) -> list[tuple[str, str]]:
    """(kind, content) of each headed section, fences removed."""
    found: list[tuple[str, list[str]]] = []
    fenced = False
    for line in statement.replace("\r\n", "\n").split("\n"):
        if FENCE_LINE.match(line):
            fenced = not fenced
            if not fenced and found:
                found.append(("closed", []))  # what comes after a fence is not the example any more
            continue
        head = heading(line)
        if head is not None and not (fenced and head[0] == "other"):
            found.append((head[0], [head[1]] if head[1] else []))
        elif found:
            found[-1][1].append(line)
    return [(kind, "\n".join(lines)) for kind, lines in found]


def first_block(text: str) -> str:
    """Content up to where prose begins after a blank line."""
    blocks = re.split(r"\n\s*\n", text.strip("\n"))
    kept = []
    for i, block in enumerate(blocks):
        if i and is_prose(block):
            break
        kept.append(block)
    return "\n\n".join(kept).strip("\n").rstrip()


def examples_in(statement: str) -> list[StdinTest]:
    """The sample input/output pairs of a statement, in order; [] if it has none in a form known here."""
    parts = [part for part in sections(statement)]
    announced = [i for i, (kind, _) in enumerate(parts) if kind in ("examples", "sample_input")]
    if announced:
        parts = parts[announced[0] :]
    found: list[StdinTest] = []
    waiting: str | None = None
    for kind, content in parts:
        if kind in ("input", "sample_input"):
            text = first_block(content)
            waiting = None if not announced and is_prose(text) or ASSIGNMENT.match(text) else text
        elif kind in ("output", "sample_output") and waiting is not None:
            text = first_block(content)
            if text.strip() and not is_prose(text):
                try:
                    test = StdinTest(waiting + "\n" if waiting else "", text + "\n")
                except ProblemError:
                    continue
                if test not in found:
                    found.append(test)
            waiting = None
        elif kind != "closed":
            waiting = None
    return found
