"""The user's files of problems as sources of tasks, walked in a fresh order each epoch (tracelift/tasks/epochs.py).

Left out: the demo worlds (tracelift/worlds/tasks.py), benchmarks as they are published (tracelift/tasks/benchmarks.py),
streaming from the network, mixing several files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracelift.errors import RowsError
from tracelift.files import scan_rows
from tracelift.programs import load_problems
from tracelift.tasks.epochs import round_places
from tracelift.tasks.task import Task
from tracelift.verify.math import states_number, verify_math
from tracelift.verify.verdict import Verdict


@dataclass(frozen=True)
class FileTasks:
    """The rows of a file, shuffled anew each epoch."""

    tasks: list[Task]
    seed: int

    def round(self, step: int, count: int) -> list[Task]:
        return self._walked("order", step, count)

    def spare(self, nth: int, count: int) -> list[Task]:
        """From an order of its own over the same rows: a row that a round meets may also be met here."""
        return self._walked("spare", nth, count)

    def _walked(self, order: str, nth: int, count: int) -> list[Task]:
        return [self.tasks[at] for at in round_places(f"{order}:{self.seed}", len(self.tasks), nth, count)]

    def first(self, count: int) -> list[Task]:
        return self.tasks[:count]


def file_tasks(
    path: Path, seed: int, limit: int = 0, max_chars: int = 0, say: Callable[[str], None] = print
) -> FileTasks:
    """A JSONL file of {problem, answer} or GSM8K's {question, answer} rows (ids optional).

    Rows longer than `max_chars` characters are left out and counted aloud, and so are answers without a number. Raises
    FileNotFoundError for a missing file, ValueError naming file and line for a broken row, and ValueError for a file that
    yields no problem.
    """
    if not path.is_file():
        raise FileNotFoundError(f"data source '{path}': no such file (a JSONL file, or demo:math)")
    tasks: list[Task] = []
    skipped = 0
    for number, row in scan_rows(path):
        task = _parse_row(row, f"{path}:{number}", f"{path.stem}-{number}")
        if max_chars and len(task.problem) > max_chars:
            skipped += 1
            continue
        tasks.append(task)
        if limit and len(tasks) == limit:
            break
    if skipped:
        say(f"{path}: left out {skipped} problems longer than {max_chars} characters")
    if not tasks:
        raise ValueError(f"{path}: holds no problem to train on")
    if wordy := [t for t in tasks if not states_number(t.reference)]:
        say(
            f"note: {path}: {len(wordy)} of {len(tasks)} answers state no number ({wordy[0].problem_id}: "
            f"{wordy[0].reference[-40:]!r}); they are compared as text, so an executor that replies with a number fails them"
        )
    return FileTasks(tasks, seed)


def code_file_tasks(
    path: Path, seed: int, limit: int = 0, max_chars: int = 0, say: Callable[[str], None] = print
) -> FileTasks:
    """Programs with tests, in any format of tracelift/programs/formats.py. Raises as `file_tasks` does."""
    if not path.is_file():
        raise FileNotFoundError(f"data source 'code:{path}': no such file")
    problems = load_problems(path)
    kept = [p for p in problems if not max_chars or len(p.statement) <= max_chars]
    if len(kept) < len(problems):
        say(f"{path}: left out {len(problems) - len(kept)} problems longer than {max_chars} characters")
    if not kept:
        raise ValueError(f"{path}: holds no problem to train on")
    tasks = [Task(p.problem_id, p.statement, p.solution, "code", code=p) for p in kept]
    return FileTasks(tasks[:limit] if limit else tasks, seed)


def _parse_row(row: Any, where: str, default_id: str) -> Task:
    if isinstance(row, RowsError):
        raise ValueError(f"{where}: {row}")
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, got {type(row).__name__}")
    problem = row.get("problem", row.get("question"))
    answer = row.get("answer", row.get("reference"))
    if not isinstance(problem, str) or not problem.strip():
        raise ValueError(f"{where}: no 'problem' (or 'question') text; keys are {sorted(row)}")
    if not isinstance(answer, (str, int, float)) or isinstance(answer, bool) or not str(answer).strip():
        raise ValueError(f"{where}: no 'answer'; keys are {sorted(row)}")
    reference = str(answer)
    if verify_math(reference, reference) is not Verdict.PASS:
        raise ValueError(f"{where}: the answer {reference[-60:]!r} holds no number to check against")
    return Task(str(row.get("problem_id", default_id)), problem, reference)
