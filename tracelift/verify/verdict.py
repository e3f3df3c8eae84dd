"""PASS, FAIL or ERROR: what a verifier says of an artifact."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """PASS and FAIL judge the answer. ERROR says that none could be given: it is never turned into a reward."""

    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"
