"""A look at the data: one group side by side, each flawed trace against the sound one it came from, the flaw marked.

Left out on purpose: colours beyond bold and red, and anything interactive.
"""

from __future__ import annotations

import difflib
import textwrap

from tracelift.reward_model.group_format import Candidate, Group
from tracelift.rubrics import dimensions_of


def show_group(group: Group, width: int = 120, color: bool = False, kind: str | None = None) -> str:
    """The group as text: the problem, the rubric of each trace, and reference and flawed lines side by side.

    `>` marks lines that differ; in colour the differing words are red. kind: show only flawed traces of this kind.
    """
    names = dimensions_of(group.task_type)
    out = [f"{group.problem_id}  ({group.source}, {group.type_text})", ""]
    out += textwrap.wrap(group.problem, width) + ["", f"answer: {group.reference_solution}", ""]
    for number, positive in enumerate(group.positive_pool):
        told = f": {positive.positive_kind}" if positive.positive_kind else ""
        out.append(f"sound trace {number}{told}   {_labels(positive, names)}")
        out += [f"    {line}" for raw in positive.reasoning.split("\n") for line in textwrap.wrap(raw, width - 4)]
        out.append("")
    for number, negative in enumerate(group.negative_bank):
        if kind is not None and negative.negative_kind != kind:
            continue
        out.append(f"flawed trace {number}: {negative.negative_kind}   {_labels(negative, names)}")
        out += _flaw(negative)
        out += _side_by_side(_closest(group, negative), negative.reasoning, width, color) + [""]
    return "\n".join(out)


def _labels(candidate: Candidate, names: tuple[str, ...]) -> str:
    labels = "  ".join(f"{name} {candidate.rubric.dimensions[name]}" for name in names)
    return f"total {candidate.rubric.total:.2f}  |  {labels}"


def _flaw(candidate: Candidate) -> list[str]:
    metadata = candidate.extra.get("metadata")
    flaw = metadata.get("flaw") if isinstance(metadata, dict) else None
    if not isinstance(flaw, dict):  # data built elsewhere does not say
        return []
    after = f"leads to {flaw.get('final_answer')}" if flaw.get("answer_changed") else "answer unchanged"
    if "answer_changed" in flaw and flaw["answer_changed"] is None:
        after = "what it does to the result is not known"
    return [f"    {flaw.get('place')}: {flaw.get('note')}; {after}"]


def _closest(group: Group, negative: Candidate) -> str:
    """The sound trace that shares most with the flawed one."""
    lines = set(negative.reasoning.split("\n"))
    return max((p.reasoning for p in group.positive_pool), key=lambda text: _overlap(set(text.split("\n")), lines))


def _overlap(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def _side_by_side(left: str, right: str, width: int, color: bool) -> list[str]:
    half = (width - 5) // 2
    a, b = left.split("\n"), right.split("\n")
    rows: list[str] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        for x in range(max(j - i, m - k)):
            one = a[i + x] if i + x < j else ""
            two = b[k + x] if k + x < m else ""
            cells = [textwrap.wrap(text, half) or [""] for text in (one, two)]
            for y in range(max(map(len, cells))):
                p, q = (cell[y] if y < len(cell) else "" for cell in cells)
                changed = tag != "equal"
                shown = _marked(p, q) if color and changed else q
                rows.append(f"  {p:<{half}} {'>' if changed else ' '} {shown}".rstrip())
    return rows


def _marked(before: str, after: str) -> str:
    """`after` with the words that `before` lacks in red."""
    a, b = before.split(" "), after.split(" ")
    out: list[str] = []
    for tag, _, _, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        words = " ".join(b[k:m])
        if words:
            out.append(words if tag == "equal" else f"\033[1;31m{words}\033[0m")
    return " ".join(out)
