"""What can go wrong, by name: every error a user is told of. Messages say why and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do. Earlier checkpoints are intact."""


class Stopped(Exception):
    """The run was asked to stop and has saved what there is. The message says where, and how to go on."""


class GroupError(ValueError):
    """A group that breaks the format; the message says which key is wrong and, read from a file, where."""


class ConfigError(ValueError):
    """A configuration that cannot be meant: says file and key, and what to write instead."""


class ServerGone(ConnectionError):
    """A server did not come back in the time allowed, or the wait was called off. Nothing was decided meanwhile."""


class RowsError(ValueError):
    """A file that holds no rows or no JSON, or a row that is none: says file and line, or what is wrong with the line
    alone."""


def printable(text: str) -> str:
    """What others sent, for a log or a terminal: whatever is no visible character (escape sequences, marks that turn the
    direction of writing, line breaks) is spelled out, never obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def naming(key: str, path: str | PathLike[str] = "") -> Iterator[None]:
    """Errors about a file or folder, raised inside, also name the config key that gives it.

    path: what the key gives. Where it is a run's folder and a model was wanted, the message says where that run's model is.
    """
    final = Path(path) / "final"

    def named(said: object) -> str:
        told = not path or not (final / "config.json").is_file() or f"its model is {final}" in str(said)
        return f"{key}: {said}" + ("" if told else f"; this is the folder of a run, its model is {final}")

    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
        raise FileNotFoundError(named(f"{e.filename}: {e.strerror}" if e.filename else e)) from None
    except ValueError as e:
        e.args = (named(e),)
        raise
