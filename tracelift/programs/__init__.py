"""Code problems, the programs in models' texts, and the verdicts on them.

Reading order: formats (what a problem is), extract (the program a model wrote), judge (what becomes of it).

    problems = load_problems("HumanEval.jsonl.gz")
    result = judge(problems[0].program(text_of_the_model), problems[0].hidden)
    result.status, result.pass_rate                      # what tracelift.rl.rewards.exec_reward takes
"""

from tracelift.programs.cases import Call, FunctionTests, ProblemError, StdinTest, parse_tests
from tracelift.programs.examples import examples_in
from tracelift.programs.extract import extract_program
from tracelift.programs.formats import CodeProblem, load_problems, read_problem
from tracelift.programs.judge import CaseOutcome, ProgramResult, TestOutcome, judge, judge_many
from tracelift.programs.leaks import leaks_program

__all__ = [
    "Call",
    "CodeProblem",
    "FunctionTests",
    "CaseOutcome",
    "ProblemError",
    "ProgramResult",
    "StdinTest",
    "TestOutcome",
    "examples_in",
    "extract_program",
    "judge",
    "judge_many",
    "leaks_program",
    "load_problems",
    "parse_tests",
    "read_problem",
]
