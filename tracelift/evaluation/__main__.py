"""An evaluation's samples for other tools:

    python -m tracelift.evaluation export FOLDER --format lm-eval --out DIR [--arm planner --mode greedy]

`export` writes samples.jsonl in the layouts of lm-evaluation-harness (--format lm-eval) or EvalPlus (--format evalplus).
Left out: evaluating (eval.py). Exit codes: 0 done, 1 nothing to export, or a file that cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tracelift.evaluation.export import FORMATS, export
from tracelift.runs.console import reader_may_leave


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tracelift.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sub = commands.add_parser("export", help="samples.jsonl in the layout of lm-evaluation-harness or EvalPlus")
    sub.add_argument("samples", metavar="FOLDER|FILE", help="an evaluation's folder, or a samples*.jsonl of one")
    sub.add_argument("--format", required=True, choices=FORMATS)
    sub.add_argument("--out", required=True, metavar="DIR", help="where the files go")
    sub.add_argument("--arm", action="append", default=[], help="only this arm, as `planner`; may be given again")
    sub.add_argument("--mode", action="append", default=[], choices=("greedy", "sampled"), help="only this mode")
    arguments = parser.parse_args(argv)
    try:
        path = Path(arguments.samples)
        samples = path / "samples.jsonl" if path.is_dir() else path
        files = export(samples, arguments.format, Path(arguments.out), arguments.arm, arguments.mode)
        with reader_may_leave():
            print(*files, sep="\n")
    except (OSError, ValueError) as error:
        print(f"python -m tracelift.evaluation: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
