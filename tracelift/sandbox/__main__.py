"""python -m tracelift.sandbox --probe            which layers this machine grants, and the promises they keep
python -m tracelift.sandbox program.py < input    run one file in the sandbox, with its output and exit status"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

from tracelift.sandbox import Limits, SandboxError, probe, run_python


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tracelift.sandbox", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program", nargs="?", type=Path, help="a Python file to run, input from stdin")
    parser.add_argument(
        "--probe", action="store_true", help="print the active layers; exit status 1 if they do not suffice"
    )
    parser.add_argument("--cpu-seconds", type=float, default=2.0)
    parser.add_argument("--wall-seconds", type=float, default=10.0)
    parser.add_argument("--allow-weak-sandbox", action="store_true")
    args = parser.parse_args()
    try:
        if args.probe:
            layers = probe()
            print(f"Linux {platform.release()} {platform.machine()}, Python {platform.python_version()}")
            print(layers.report())
            return 1 if layers.missing else 0
        if args.program is None:
            parser.error("give --probe or a program to run")
        stdin = "" if sys.stdin.isatty() else sys.stdin.read()
        limits = Limits(cpu_seconds=args.cpu_seconds, wall_seconds=args.wall_seconds)
        result = run_python(args.program.read_text(), stdin, limits, allow_weak_sandbox=args.allow_weak_sandbox)
    except (SandboxError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    print(f"[{result.status}] {result.seconds:.3f} s, {result.cpu_seconds:.3f} s CPU. {result.detail}", file=sys.stderr)
    return 0 if result.status == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
