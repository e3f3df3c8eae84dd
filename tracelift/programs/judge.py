"""The verifier V(a) for programs (equation 1 of the method): run a program on a problem's tests, and decide outside it.

Standard input: the output is compared here. Functions: where all tests are plain calls, the inputs go in and plain
values come out, compared here. Else the tests run as the code they are, in a second sandboxed process in which no line
of the program ever does, and call the program's functions through a pipe (sandbox/inside/examine.py). So a program
decides its answers and nothing else: there is no exit status, object, frame, builtin or printed word by which it could
pass.

ERROR is reserved for what no program can bring about: a broken sandbox, or tests that fail before they meet the
program.

Left out on purpose: rewards (tracelift/rl/rewards.py takes `.status` and `.pass_rate` from here).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum

from tracelift.programs.cases import Call, FunctionTests, StdinTest
from tracelift.sandbox import Execution, Limits, Sandbox, Status, default_sandbox
from tracelift.sandbox.inside import wire
from tracelift.verify.verdict import Verdict

PATIENCE = 3  # a program that hung or died in so many tests is not asked the rest: they count the same
IDLE = 0.05  # of the wall-clock limit: what a test may wait, beyond what its CPU time explains, without being counted
MARGIN = 5.0  # seconds of wall clock the examiner has beyond the program's own
ANSWER, VERDICT = 64, 2048  # bytes of an answer beside its value, and of one test's verdict


class CaseOutcome(str, Enum):
    """What became of one test, from best to worst; ERROR says nothing about the program."""

    PASSED = "passed"
    FAILED_TEST = "failed_test"
    RUNTIME_ERROR = "runtime_error"
    TIMEOUT = "timeout"
    COMPILE_ERROR = "compile_error"
    NO_TESTS = "no_tests"
    ERROR = "error"

    def __str__(self) -> str:
        return self.value


SEVERITY = list(CaseOutcome)
ENDINGS = {
    Status.TIMEOUT: CaseOutcome.TIMEOUT,
    Status.COMPILE_ERROR: CaseOutcome.COMPILE_ERROR,
    Status.ERROR: CaseOutcome.ERROR,
}  # all others are runtime errors


@dataclass(frozen=True)
class TestOutcome:
    outcome: CaseOutcome
    detail: str = ""  # one printable line for people, whatever characters the program put into its errors
    produced: bool = False  # the program wrote something, or returned something that is not None

    __test__ = False  # not for pytest to collect

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", "".join(c if c.isprintable() else "\ufffd" for c in self.detail))


@dataclass(frozen=True)
class ProgramResult:
    """One entry per test, in the tests' order."""

    outcomes: tuple[TestOutcome, ...]

    @property
    def status(self) -> str:
        """The worst outcome of any test, as `tracelift.rl.rewards.exec_reward` wants it: "passed", "failed_test",
        "runtime_error", "timeout", "compile_error", "no_tests" or "error"."""
        if not self.outcomes:
            return CaseOutcome.NO_TESTS.value
        return max((o.outcome for o in self.outcomes), key=SEVERITY.index).value

    @property
    def pass_rate(self) -> float:
        """The share of tests passed; 0 without tests."""
        return self.counts[CaseOutcome.PASSED] / len(self.outcomes) if self.outcomes else 0.0

    @property
    def counts(self) -> Counter[CaseOutcome]:
        return Counter(o.outcome for o in self.outcomes)

    @property
    def passed(self) -> bool:
        return self.status == CaseOutcome.PASSED.value

    @property
    def verdict(self) -> Verdict:
        """A problem without tests is ERROR: nothing can be judged by it."""
        if self.status in (CaseOutcome.ERROR.value, CaseOutcome.NO_TESTS.value):
            return Verdict.ERROR
        return Verdict.PASS if self.passed else Verdict.FAIL

    @property
    def produced_output(self) -> bool:
        """Whether the program wrote or returned anything where a test asked for it."""
        return any(o.produced for o in self.outcomes)

    def summary(self) -> str:
        shown = ", ".join(f"{n} {outcome}" for outcome, n in self.counts.items()) or "no tests"
        worst = next((o.detail for o in self.outcomes if o.outcome.value == self.status and o.detail), "")
        return f"{shown}{': ' + worst if worst and not self.passed else ''}"


def judge(
    program: str | None,
    tests: Sequence[StdinTest] | FunctionTests,
    *,
    sandbox: Sandbox | None = None,
    limits: Limits = Limits(),
) -> ProgramResult:
    """Run `program` against `tests`. Safe to call from many threads.

    program: the complete source, or None where the model wrote none: then every test is a compile error. Limits hold
    for each stdin test, and for all function tests of a program together, until one hangs: the rest then start anew.
    The bounds on output and answers grow with what the tests themselves expect.
    Raises SandboxError where the machine cannot run programs safely.
    """
    if not len(tests):
        return ProgramResult(())
    if program is None:
        return ProgramResult((TestOutcome(CaseOutcome.COMPILE_ERROR, "no program in the text"),) * len(tests))
    box = sandbox or default_sandbox()
    if not isinstance(tests, FunctionTests):
        return judge_stdin(program, tests, box, limits)
    calls = tests.calls
    if calls is not None:
        return in_rounds(len(tests), lambda first: call_round(program, calls[first:], box, limits))
    return in_rounds(len(tests), lambda first: examine_round(program, tests, first, box, limits))


def judge_many(
    jobs: Sequence[tuple[str | None, Sequence[StdinTest] | FunctionTests]],
    *,
    sandbox: Sandbox | None = None,
    limits: Limits = Limits(),
) -> list[ProgramResult]:
    """Judge (program, tests) pairs, as many at once as the sandbox has workers; results in the order of the jobs."""
    box = sandbox or default_sandbox()
    with ThreadPoolExecutor(box.workers) as threads:
        return list(threads.map(lambda job: judge(job[0], job[1], sandbox=box, limits=limits), jobs))


# -- standard input and output ---------------------------------------------------------------------------------------


def judge_stdin(program: str, tests: Sequence[StdinTest], box: Sandbox, limits: Limits) -> ProgramResult:
    outcomes: list[TestOutcome] = []
    waited = 0.0  # in wall-clock limits: a test that hung counts as one, one that slept nearly as long as nearly one
    for test in tests:
        if waited >= PATIENCE or (outcomes and outcomes[-1].outcome is CaseOutcome.COMPILE_ERROR):
            outcomes.append(not_run(outcomes[-1], waited >= PATIENCE))
            continue
        room = max(limits.output_bytes, 2 * len(test.expected.encode("utf-8", "surrogatepass")))
        execution = box.run(program, test.stdin, replace(limits, output_bytes=room))
        outcomes.append(compare_output(execution, test))
        waited += 1.0 if outcomes[-1].outcome is CaseOutcome.TIMEOUT else idle_share(execution, limits)
    return ProgramResult(tuple(outcomes))


def not_run(before: TestOutcome, out_of_time: bool) -> TestOutcome:
    if out_of_time and before.outcome is not CaseOutcome.TIMEOUT:
        return TestOutcome(CaseOutcome.TIMEOUT, f"not run: the tests before waited for {PATIENCE} wall-clock limits")
    return replace(before, detail=f"not run: {before.detail.removeprefix('not run: ')}")


def idle_share(execution: Execution, limits: Limits) -> float:
    """What a run waited, in wall-clock limits. A busy machine stretches CPU time, which the wall-clock limit allows for
    by its ratio to the CPU limit, and starts slowly: neither is counted."""
    explained = execution.cpu_seconds * limits.wall_seconds / limits.cpu_seconds + IDLE * limits.wall_seconds
    return max(0.0, execution.seconds - explained) / limits.wall_seconds


def compare_output(execution: Execution, test: StdinTest) -> TestOutcome:
    produced = bool(execution.stdout.strip())
    if execution.status is not Status.OK:
        return TestOutcome(ending(execution), explain(execution), produced)
    if test.accepts(execution.stdout):
        return TestOutcome(CaseOutcome.PASSED, produced=True)
    detail = f"printed {execution.stdout[:60]!r}, expected {test.expected[:60]!r}"
    return TestOutcome(CaseOutcome.FAILED_TEST, detail, produced)


def ending(execution: Execution) -> CaseOutcome:
    return ENDINGS.get(execution.status, CaseOutcome.RUNTIME_ERROR)


def explain(execution: Execution) -> str:
    """The last line of the traceback where there is one: it names the exception."""
    lines = execution.stderr.strip().splitlines()
    told = execution.status in (Status.RUNTIME_ERROR, Status.COMPILE_ERROR) and lines
    if execution.status is Status.OK:
        return "the program ended before it answered"
    return (lines[-1] if told else execution.detail)[:300]


# -- functions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Round:
    """One life of the program's process: the outcomes it got to. `lost`: it went away in the test after them; with
    `loaded` false, before any test could be asked."""

    outcomes: list[TestOutcome]
    lost: TestOutcome | None = None
    loaded: bool = True


def in_rounds(count: int, play: Callable[[int], Round]) -> ProgramResult:
    """Repeat from the test after the one in which the program's process went away. play(first) → Round."""
    outcomes: list[TestOutcome] = []
    losses = 0
    while len(outcomes) < count:
        played = play(len(outcomes))
        outcomes += played.outcomes
        if played.lost is None:
            break
        losses += 1
        left = count - len(outcomes)
        give_up = not played.loaded or losses == PATIENCE or played.lost.outcome is CaseOutcome.ERROR
        outcomes += [played.lost] * (left if give_up else min(left, 1))
    missing = count - len(outcomes)
    return ProgramResult(tuple(outcomes[:count] + [TestOutcome(CaseOutcome.ERROR, "no verdict came back")] * missing))


def call_round(program: str, calls: Sequence[Call], box: Sandbox, limits: Limits) -> Round:
    """All tests as data: requests in a file, answers through a pipe, the comparison here."""
    requests = [
        wire.line(
            {
                "call": c.name,
                "args": [wire.encode(a) for a in c.args],
                "kwargs": {k: wire.encode(v) for k, v in c.kwargs},
            }
        )
        for c in calls
    ]
    if not all(wire.fits(request, limits.memory_bytes) for request in requests):
        detail = f"a test passes {max(map(len, requests))} bytes, more than Limits.memory_bytes can hold"
        return Round([], TestOutcome(CaseOutcome.ERROR, detail))
    expected = sum(ANSWER + 4 * len(wire.line({"value": wire.encode(c.expected)})) for c in calls)
    execution = box.serve(program, b"".join(requests), limits, limits.output_bytes + expected)
    loaded, *answers = execution.channel.split(b"\n")[:-1] or [b""]  # what follows the last newline is incomplete
    outcomes = [compare_answer(call, answer) for call, answer in zip(calls, answers, strict=False)]
    if len(outcomes) == len(calls):
        return Round(outcomes)
    return Round(outcomes, TestOutcome(ending(execution), explain(execution)), loaded=bool(loaded))


def compare_answer(call: Call, answer: bytes) -> TestOutcome:
    """`answer` is written by the program's process, and may hold anything."""
    try:
        message = json.loads(answer)
        if "raised" in message:
            return TestOutcome(CaseOutcome.RUNTIME_ERROR, f"{message['raised'][0]}: {message['text']}"[:300])
        item = message["value"]
        produced = item is not None
        merely_true = call.relation in ("true", "false")
        sizes = {wire.size(wire.encode(expected)) for expected in call.accepted}
        alike = merely_true or wire.size(item) in sizes  # else it is not even built
        if alike and call.holds(wire.decode(wire.hollow(item) if merely_true else item, lambda handle: object())):
            return TestOutcome(CaseOutcome.PASSED, produced=True)
        shown = json.dumps(item)[:80]
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        return TestOutcome(CaseOutcome.RUNTIME_ERROR, f"an answer that cannot be read: {type(error).__name__}")
    wanted = f"something {call.relation}" if merely_true else json.dumps(wire.encode(call.expected))[:60]
    return TestOutcome(CaseOutcome.FAILED_TEST, f"{call.name}(…) gave {shown}, expected {wanted}", produced)


def examine_round(program: str, tests: FunctionTests, first: int, box: Sandbox, limits: Limits) -> Round:
    """Tests as code, in a process of their own, from test number `first` on."""
    own, theirs = box.examine(
        program,
        as_text(tests, first, limits),
        limits,
        replace(limits, wall_seconds=limits.wall_seconds + MARGIN),
        limits.output_bytes + VERDICT * len(tests),
    )
    if Status.ERROR in (own.status, theirs.status):
        trouble = own if own.status is Status.ERROR else theirs
        return Round([], TestOutcome(CaseOutcome.ERROR, trouble.detail))
    outcomes: list[TestOutcome] = []
    why = explain(theirs)
    for line in theirs.channel.split(b"\n")[:-1]:
        number, outcome = read_verdict(line)
        if outcome == "lost":
            return Round(outcomes, TestOutcome(ending(own), explain(own)), loaded=number >= 0)
        if isinstance(outcome, TestOutcome) and outcome.outcome is CaseOutcome.ERROR:
            return Round(outcomes, outcome)
        if not isinstance(outcome, TestOutcome) or number != first + len(outcomes):
            why = "what came of the tests cannot be read"
            break
        outcomes.append(outcome)
    if len(outcomes) == len(tests) - first:
        return Round(outcomes)
    # The tests' process died over an answer (too large to hold, too long to compare), or over its own work: since the
    # program can bring the first about, it is not excused.
    return Round(outcomes, TestOutcome(ending(theirs), f"while its answer was examined: {why}"))


def as_text(tests: FunctionTests, first: int, limits: Limits) -> str:
    """The tests as the examiner reads them (sandbox/inside/examine.py)."""
    values = {
        "TOOLS": tests.owners.tools,
        "SETUP": tests.setup,
        "ASKS": tests.owners.setup_asks,
        "TESTS": [[s.source, s.is_test] for s in tests.statements],
        "ENTRY": list(tests.entry),
        "NAMES": list(tests.free_names),
        "AWAITS": tests.awaits,
        "START": first,
        "MEMORY": limits.memory_bytes,
    }
    return json.dumps(values)


def read_verdict(line: bytes) -> tuple[int, TestOutcome | str]:
    """One line of the examiner's → (number of the test, its outcome), "lost" or "unreadable". The tests' process runs no
    line of the program's, but it holds its answers: what comes out of it is read like any of these."""
    try:
        message = json.loads(line)
        number, outcome = int(message["test"]), message["outcome"]
        if outcome == "lost":
            return number, "lost"
        return number, TestOutcome(CaseOutcome(outcome), str(message["detail"]), message["produced"] is True)
    except (ValueError, TypeError, LookupError, RecursionError):
        return -1, "unreadable"
