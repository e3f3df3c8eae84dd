"""What can go wrong, by name: every error a user is told of. Messages say why and what to do."""

from __future__ import annotations


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
    """A file that holds no rows, or a row that is none: says file and line, or what is wrong with the line alone."""
