"""Small programs to plan: problems told out of order, plans and their tellings, programs that run, flaws, and the check of a plan's truth."""

from tracelift.worlds.code.cases import make_cases
from tracelift.worlds.code.flaws import FLAWS, HELD_OUT, Flaw, all_flaws, apply_flaw, rubric_of
from tracelift.worlds.code.habits import misconceived_plan
from tracelift.worlds.code.plans import Plan, read_plan
from tracelift.worlds.code.problems import PlanProblem, make_problem
from tracelift.worlds.code.tellings import retold
from tracelift.worlds.code.validity import Validity, check_plan

__all__ = [
    "FLAWS",
    "HELD_OUT",
    "Flaw",
    "Plan",
    "PlanProblem",
    "Validity",
    "all_flaws",
    "apply_flaw",
    "check_plan",
    "make_cases",
    "make_problem",
    "misconceived_plan",
    "read_plan",
    "retold",
    "rubric_of",
]
