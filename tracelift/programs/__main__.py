"""Judge programs on a file of code problems (HumanEval, MBPP, or input/output pairs).

    python -m tracelift.programs HumanEval.jsonl.gz                      the file's own solutions: all should pass
    python -m tracelift.programs HumanEval.jsonl.gz --texts texts.jsonl  models' texts: one object a line with task_id
                                                                         (or problem_id) and completion (or text)
    python -m tracelift.programs … --out results.jsonl                   one line a text: status, pass rate, trouble

Prints how many pass, and pass@k over the problems for every k that each problem has enough texts for.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path

from tracelift.errors import RowsError
from tracelift.files import json_line, scan_rows
from tracelift.programs import CodeProblem, ProblemError, ProgramResult, judge_many, load_problems
from tracelift.sandbox import Limits, Sandbox, SandboxError
from tracelift.stats import pass_at_k


def read_texts(path: Path, problems: list[CodeProblem]) -> list[tuple[CodeProblem, str]]:
    """Pairs of a problem and a text for it. Raises ProblemError naming the line."""
    known = {p.problem_id: p for p in problems}
    pairs = []
    for number, row in scan_rows(path):
        if isinstance(row, RowsError):
            raise ProblemError(f"{path}, line {number}: not JSON: {row}")
        try:
            name = str(row["task_id"] if "task_id" in row else row["problem_id"])
            pairs.append((known[name], str(row["completion"] if "completion" in row else row["text"])))
        except (KeyError, TypeError) as error:
            raise ProblemError(f"{path}, line {number}: no such key or problem: {error}") from None
    return pairs


def report(problems: list[str], results: list[ProgramResult]) -> str:
    judged = [(name, r) for name, r in zip(problems, results, strict=True) if r.status != "error"]
    passed: dict[str, list[bool]] = defaultdict(list)
    for name, result in judged:
        passed[name].append(result.passed)
    lines = [f"{sum(r.passed for r in results)} of {len(results)} pass, on {len(set(problems))} problems"]
    counts = Counter(r.status for r in results)
    lines.append("  " + ", ".join(f"{n} {status}" for status, n in counts.most_common()))
    most = min(map(len, passed.values()), default=0)
    for k in (k for k in (1, 2, 5, 10, 100) if k <= most):
        mean = sum(pass_at_k(len(p), sum(p), k) for p in passed.values()) / len(passed)
        lines.append(f"  pass@{k} {mean:.4f}")
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
    print(report(names, results))
    return 0 if args.texts or all(r.passed for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
