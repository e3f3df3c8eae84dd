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
from tracelift.programs import load_problems
from tracelift.tasks.epochs import round_places
from tracelift.tasks.rows import Verifier, answer_of, checked, problem_of, row_id, scan_problems
from tracelift.tasks.task import Task
from tracelift.verify.math import states_number


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
    path: Path,
    seed: int,
    limit: int = 0,
    max_chars: int = 0,
    say: Callable[[str], None] = print,
    verifier: Verifier = "numeric",
) -> FileTasks:
    """Rows of problems and answers in any file that tracelift/tasks/rows.py reads; `verifier` judges their answers.

    Rows longer than `max_chars` characters are left out and counted aloud, and so are answers in words. Raises
    FileNotFoundError for a missing file, ValueError naming file and line for a broken row or an answer that the verifier
    cannot check, and ValueError for a file that yields no problem.
    """
    if not path.exists():
        raise FileNotFoundError(f"data source '{path}': no such file (a JSONL file, or demo:math)")
    tasks: list[Task] = []
    skipped = 0
    for number, row in scan_problems(path):
        task = task_of(row, f"{path}:{number}", f"{path.stem}-{number}", verifier)
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
    if wordy := [t for t in tasks if verifier == "numeric" and not states_number(t.reference)]:
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


def task_of(row: Any, where: str, default_id: str, verifier: Verifier) -> Task:
    """The task that a row states. Raises ValueError, naming the row, where it states none that `verifier` can check."""
    if isinstance(row, RowsError):
        raise ValueError(f"{where}: {row}")
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, got {type(row).__name__}")
    problem, answer = problem_of(row, where), answer_of(row, where)
    return Task(row_id(row, default_id), problem, checked(answer, where, verifier), verifier=verifier)
