"""What can go wrong, by name: every error a user is told of. Messages say why and what to do."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do. Earlier checkpoints are intact."""


class GroupError(ValueError):
    """A group that breaks the format; the message says which key is wrong and, read from a file, where."""
