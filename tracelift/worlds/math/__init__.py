"""Word problems of one to five steps, the ways to tell their derivations, flaws, and the check of a trace's truth."""

from tracelift.worlds.math.flaws import FLAWS, Flaw, apply_flaw, rubric_of
from tracelift.worlds.math.habits import misconceived_trace
from tracelift.worlds.math.problems import MathProblem, make_problem
from tracelift.worlds.math.validity import Validity, check_trace

__all__ = [
    "FLAWS",
    "Flaw",
    "MathProblem",
    "Validity",
    "apply_flaw",
    "check_trace",
    "make_problem",
    "misconceived_trace",
    "rubric_of",
]
