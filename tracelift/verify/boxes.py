r"""The last `\boxed{…}` or `\fbox{…}` of a text, with what stands beside it taken into account.

Shared by both judges (where.py, latex.py). Left out: what the content means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tracelift.verify.beside import box_changed

BOX = re.compile(r"\\(?:boxed|fbox)\s*(?P<open>\{)?")


@dataclass(frozen=True)
class Box:
    """`content`: what it says, a minus right before it included. `changed`: a neighbour makes something else of it.
    `line`: the line it stands in."""

    content: str
    changed: bool
    line: str


def last_box(text: str) -> Box | None:
    r"""The last box that has any content, braces matched, or `\boxed 5`; else None. Linear in the text."""
    closing = _closing_braces(text) if "\\boxed" in text or "\\fbox" in text else {}
    for match in reversed(list(BOX.finditer(text))):
        if match["open"]:
            end = closing.get(match.end() - 1)
            content = "" if end is None else text[match.end() : end]
            end = match.end() if end is None else end + 1
        else:
            content = re.split(r"\$|\\\)|\\\]|\n|[.,](?:\s|$)", text[match.end() : match.end() + 200])[0]
            end = match.end() + len(content)
        content = content.strip()
        if content.endswith("\\"):  # `72\ `
            content = content[:-1].strip()
        if not content:
            continue
        changed = box_changed(text, match.start(), end)
        if changed == "-":
            content = f"-{content}" if content[0].isdigit() or content.startswith("\\") else f"-({content})"
        stop = text.find("\n", end)
        line = text[text.rfind("\n", 0, match.start()) + 1 : stop if stop >= 0 else len(text)].strip()
        return Box(content, changed is True, line)
    return None


def _closing_braces(text: str) -> dict[int, int]:
    """{place of an opening brace: place of the brace that closes it}."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            found[opened.pop()] = match.start()
    return found
