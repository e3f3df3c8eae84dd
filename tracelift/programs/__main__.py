"""Judge programs on a file of code problems (HumanEval, MBPP, or input/output pairs; docs/code-data.md).

    python -m tracelift.programs HumanEval.jsonl.gz                      the file's own solutions: all should pass
    python -m tracelift.programs HumanEval.jsonl.gz --texts texts.jsonl  models' texts: one object a line with task_id
                                                                         (or problem_id) and completion, solution or text
    python -m tracelift.programs … --out results.jsonl                   one line a text: status, pass rate, trouble

Prints how many pass, and pass@k over the problems for every k that each problem with texts has enough of. A problem
without a text counts as failed. A text without a verdict ("error") counts nowhere, and is said aloud.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tracelift.errors import RowsError
from tracelift.files import json_line, scan_rows
from tracelift.programs import CodeProblem, ProblemError, ProgramResult, judge_many, load_problems
from tracelift.sandbox import Limits, Sandbox, SandboxError
from tracelift.stats import pass_at_k

NAMES = ("task_id", "problem_id")
TEXTS = ("completion", "solution", "text")  # evalplus writes whole programs as solution


def read_texts(path: Path, problems: list[CodeProblem]) -> list[tuple[CodeProblem, str]]:
    """Pairs of a problem and a text for it. Raises ProblemError naming the line."""
    known = {p.problem_id: p for p in problems}
    pairs = []
    for number, row in scan_rows(path):
        where = f"{path}, line {number}"
        if not isinstance(row, dict):
            said = (
                f"not JSON: {row}" if isinstance(row, RowsError) else f"expected an object, found {type(row).__name__}"
            )
            raise ProblemError(f"{where}: {said}")
        name = next((row[k] for k in NAMES if row.get(k) is not None), None)
        text = next((row[k] for k in TEXTS if row.get(k) is not None), None)
        if name is None or not isinstance(text, str):
            raise ProblemError(f"{where}: needs {' or '.join(NAMES)}, and a text under {', '.join(TEXTS)}")
        if str(name) not in known:
            raise ProblemError(f"{where}: no problem has the id {str(name)!r}")
        pairs.append((known[str(name)], text))
    return pairs


def report(problems: Sequence[str], names: Sequence[str], results: Sequence[ProgramResult]) -> str:
    """What came of the texts. problems: the ids of all; names: the problem of each result."""
    passed: dict[str, list[bool]] = {}
    for name, result in zip(names, results, strict=True):
        passed.setdefault(name, [])
        if result.status != "error":
            passed[name].append(result.passed)
    judged = [ok for those in passed.values() for ok in those]
    missing = [name for name in problems if name not in passed]
    lines = [f"{sum(judged)} of {len(judged) + len(missing)} pass, on {len(problems)} problems"]
    counts = Counter(r.status for r in results)
    lines.append("  " + ", ".join(f"{n} {status}" for status, n in counts.most_common()))
    if counts["error"]:
        lines.append(f"  {counts['error']} without a verdict, which count neither as passed nor as failed")
    if missing:
        some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        lines.append(f"  {len(missing)} problems without a text, which count as failed ({some})")
    counted = {name: those for name, those in passed.items() if those}
    most = min(map(len, counted.values()), default=0)
    for k in (k for k in (1, 2, 5, 10, 100) if k <= most):
        total = sum(pass_at_k(len(those), sum(those), k) for those in counted.values())
        lines.append(f"  pass@{k} {total / (len(counted) + len(missing)):.4f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tracelift.programs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("problems", type=Path, help=".jsonl, .jsonl.gz or .json")
    parser.add_argument("--texts", type=Path, help="models' texts; default: the file's own solutions")
    parser.add_argument("--out", type=Path, help="write one result a line")
    parser.add_argument("--cpu-seconds", type=float, default=10.0, help="per program (default 10)")
    parser.add_argument("--workers", type=int, default=None, help="programs at once (default: one a core)")
    parser.add_argument("--allow-weak-sandbox", action="store_true", help="run though the kernel isolates too little")
    args = parser.parse_args()
    try:
        problems = load_problems(args.problems)
        if args.texts:
            pairs = [(p, p.program(text)) for p, text in read_texts(args.texts, problems)]
        else:
            pairs = [(p, p.solution) for p in problems if p.solution]
        limits = Limits(cpu_seconds=args.cpu_seconds, wall_seconds=6 * args.cpu_seconds)
        with Sandbox(args.workers, allow_weak_sandbox=args.allow_weak_sandbox) as sandbox:
            results = judge_many([(text, p.hidden) for p, text in pairs], sandbox=sandbox, limits=limits)
    except (ProblemError, SandboxError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    names = [p.problem_id for p, _ in pairs]
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:  # perhaps /dev/stdout, so it is not replaced
            for name, r in zip(names, results, strict=True):
                row = {"problem_id": name, "status": r.status, "pass_rate": r.pass_rate, "detail": r.summary()}
                f.write(json_line(row, ensure_ascii=True))
    for name, r in zip(names, results, strict=True):
        if not args.texts and not r.passed:
            print(f"{name}: {r.summary()}")
    longer = [p.problem_id for p in problems if p.time_limit is not None and p.time_limit > args.cpu_seconds]
    if longer:
        print(f"note: {len(longer)} problems allow more than --cpu-seconds {args.cpu_seconds:g} ({longer[0]}, …)")
    print(report([p.problem_id for p in problems], names, results))
    return 0 if args.texts or (len(results) == len(problems) and all(r.passed for r in results)) else 1


if __name__ == "__main__":
    sys.exit(main())
