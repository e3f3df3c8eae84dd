"""Word problems of two to five steps, their reference traces, their flaws, and the check of a trace's truth."""

from tracelift.worlds.math.flaws import FLAWS, Flaw, apply_flaw, misconceived_trace, rubric_of
from tracelift.worlds.math.problems import MathProblem, make_problem, render_trace
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
    "render_trace",
    "rubric_of",
]
