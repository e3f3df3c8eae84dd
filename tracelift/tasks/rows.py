r"""Rows as people have them → problem, answer, id: one reading of fields for train.py and eval.py.

    files      JSON lines, a JSON list, either gzipped; a parquet file; a folder of Hugging Face `datasets` (`save_to_disk`)
               or of parquet files, which need pyarrow
    problem    problem, question (GSM8K, MATH), Body and Question (SVAMP)
    answer     answer, reference, Answer, final_answer, or the last \boxed{…} of a solution (MATH)
    id         problem_id, unique_id, id, ID, task_id

An answer must be one that its verifier can check. Left out: the reference traces of benchmarks (benchmarks.py), streaming
from the network, splits chosen by name.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from tracelift.errors import RowsError
from tracelift.files import scan_rows
from tracelift.verify.math import reference_kind

Verifier = Literal["numeric", "latex"]
IDS = ("problem_id", "unique_id", "id", "ID", "task_id")
ANSWERS = ("answer", "reference", "Answer", "final_answer")
_TABLES = (".parquet", ".arrow")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?<=\s)(?=\S)|(?=\d))")


def scan_problems(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, or place from 1; its value, or a RowsError that says what is wrong with it) of a file or folder of rows.

    Raises RowsError naming a file that is damaged as a whole, or that needs pyarrow where it is not installed.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in _TABLES)
        if not files:
            inside = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir())) or "nothing of the kind"
            raise RowsError(f"{path}: a folder must hold .arrow or .parquet files; it holds {inside}")
        place = 0
        for file in files:
            for _, row in _table(file):
                place += 1
                yield place, row
    elif path.suffix in _TABLES:
        yield from _table(path)
    else:
        yield from scan_rows(path)


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if importlib.util.find_spec("pyarrow") is None:
        raise RowsError(f"{path}: parquet and arrow files need pyarrow, which is not installed: pip install pyarrow")
    import pyarrow as pa
    import pyarrow.parquet

    place = 0
    try:
        if path.suffix == ".parquet":
            batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        else:
            source = pa.memory_map(str(path))
            try:
                batches = pa.ipc.open_stream(source)
            except pa.ArrowInvalid:
                table = pa.ipc.open_file(source)
                batches = (table.get_batch(i) for i in range(table.num_record_batches))
        for batch in batches:
            for row in batch.to_pylist():
                place += 1
                yield place, row
    except (pa.ArrowInvalid, OSError) as e:
        raise RowsError(f"{path}: cannot be read as a table: {e}") from None


def field(row: dict[str, Any], where: str, *names: str) -> str:
    """The first of `names` that the row has with content, as text. Raises ValueError where there is none."""
    for name in names:
        value = row.get(name)
        if isinstance(value, float) and math.isfinite(value):
            return str(int(value)) if value.is_integer() else str(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value
    raise ValueError(f"{where}: no {' or '.join(repr(n) for n in names)}; keys are {sorted(row)}")


def row_id(row: dict[str, Any], default: str) -> str:
    return str(next((row[k] for k in IDS if row.get(k) is not None), default))


def problem_of(row: dict[str, Any], where: str) -> str:
    """The statement: `problem` or `question`, after SVAMP's `Body` where there is one. Raises ValueError without one."""
    body = next((row[k] for k in ("Body", "body") if isinstance(row.get(k), str) and row[k].strip()), None)
    if body is None:
        return field(row, where, "problem", "question", "Question")
    question = field(row, where, "Question", "question")
    return f"{body.strip()}{'' if body.rstrip().endswith(('.', ',', '?', '!')) else '.'} {question.strip()}"


def answer_of(row: dict[str, Any], where: str) -> str:
    """The reference: an answer field, or the last box of a MATH solution. Raises ValueError without one."""
    solution = row.get("solution")
    if isinstance(solution, str) and all(row.get(k) in (None, "") for k in ANSWERS):
        boxed_answer = boxed(solution)
        if not boxed_answer or not boxed_answer.strip():
            raise ValueError(f"{where}: neither an 'answer' nor a \\boxed{{…}} in its solution")
        return boxed_answer
    return field(row, where, *ANSWERS)


def checked(reference: str, where: str, verifier: Verifier) -> str:
    """`reference`, where its verifier can check it. Raises ValueError, with the line and the way out, where not."""
    if verifier == "numeric" and reference_kind(reference) == "none":
        raise ValueError(
            f"{where}: the answer {reference.strip()[-60:]!r} holds no number, word or choice that the numeric verifier can check "
            "against; data.verifier = 'latex' judges expressions"
        )
    return reference


def boxed(text: str) -> str | None:
    """The content of the last \\boxed{…} or \\fbox{…}, braces matched, or of \\boxed 2, up to the formula's end; None where
    there is none, or none that closes."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    if text[start - 1] != "{":
        return re.split(r"\$|\\\)|\\\]|\n", text[start:])[0].strip(" .") or None
    depth = 1
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start:i]
    return None


def before_box(solution: str) -> str | None:
    """The sentences before the one that boxes the answer; None where the box is in the first."""
    boxes = list(_BOX.finditer(solution))
    head = solution[: boxes[-1].start()] if boxes else solution
    ends = [m.end() for m in re.finditer(r"[.!?](?=\s)|\n\n", head)]
    return (head[: ends[-1]].strip() or None) if ends else None
