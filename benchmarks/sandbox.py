"""What the sandbox costs: latency and throughput beside a bare interpreter, and the parent's price of a flood.

    python benchmarks/sandbox.py                 # about a minute; results to benchmarks/results/sandbox.json
    python benchmarks/sandbox.py --quick         # fewer repetitions, nothing written

Latency: one small program at a time, by turns in a bare interpreter (`python -I -S program.py`, captured by
subprocess.run), in the sandbox, and in sandboxes with some layers left off, so that all see the same state of the
machine. The aim is no more than 25 ms over the bare interpreter. Throughput: as many programs at once as there are
cores, both ways. Verdicts: function tests of ten calls each. Flood: the largest resident set of a parent, above its own, while a
program prints without end, with subprocess.run (stopped after half a second) and with the sandbox (stopped at 1 MiB).

Other work on the machine shows in all columns; the load average is recorded.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tracelift.programs import judge_many, parse_tests  # noqa: E402
from tracelift.sandbox import Limits, Sandbox  # noqa: E402
from tracelift.sandbox.inside.confine import NAMESPACES  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "sandbox.json"
PROGRAM = "n = int(input())\nprint(sum(i * i for i in range(n)))\n"
STDIN, EXPECTED = "100\n", "328350\n"
AIM_MS = 25.0
VARIANTS = {
    "sandbox": (),
    "without Landlock and seccomp": ("landlock", "seccomp"),
    "without namespaces": NAMESPACES,
}
FLOOD = "while True: print('flood' * 2000)"


def bare(path: str) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", path], input=STDIN, capture_output=True, text=True, timeout=60)
    assert done.stdout == EXPECTED, done


def boxed(box: Sandbox) -> None:
    result = box.run(PROGRAM, STDIN)
    assert result.stdout == EXPECTED, result


def milliseconds(action) -> float:
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e3


def summary(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median_ms": round(statistics.median(ordered), 2),
        "best_ms": round(ordered[0], 2),
        "p95_ms": round(ordered[int(0.95 * (len(ordered) - 1))], 2),
    }


def latency(path: str, repeats: int) -> dict[str, dict[str, float]]:
    boxes = {name: Sandbox(workers=1, without=without) for name, without in VARIANTS.items()}
    ways = {"bare interpreter": lambda: bare(path)}
    ways |= {name: lambda box=box: boxed(box) for name, box in boxes.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(repeats + 3):
        for name, action in ways.items():
            taken = milliseconds(action)
            if i >= 3:  # the first rounds fill caches
                times[name].append(taken)
    for box in boxes.values():
        box.close()
    return {name: summary(taken) for name, taken in times.items()}


def throughput(path: str, programs: int) -> dict[str, float]:
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as threads:
        bare_ms = milliseconds(lambda: list(threads.map(lambda _: bare(path), range(programs))))
    with Sandbox(workers) as box:
        box_ms = milliseconds(lambda: box.run_many([(PROGRAM, STDIN)] * programs))
        calls = parse_tests([f"assert f({i}) == {i * i}" for i in range(10)])
        code = parse_tests([f"assert abs(f({i}) - {i * i}) < 1e-9" for i in range(10)])
        text = "def f(x):\n    return x * x\n"
        call_ms = milliseconds(lambda: judge_many([(text, calls)] * programs, sandbox=box))
        code_ms = milliseconds(lambda: judge_many([(text, code)] * programs, sandbox=box))
    return {
        "at_once": workers,
        "bare_ms_a_program": round(bare_ms / programs, 2),
        "sandbox_ms_a_program": round(box_ms / programs, 2),
        "sandbox_programs_a_second": round(programs / box_ms * 1e3, 1),
        "verdict_on_ten_calls_ms": round(call_ms / programs, 2),
        "verdict_on_ten_code_tests_ms": round(code_ms / programs, 2),
    }


def flood_parent(way: str) -> None:
    """Runs in a process of its own and prints its largest resident set above the start, in MiB."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if way == "sandbox":
        with Sandbox(workers=1) as box:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            box.run(FLOOD, limits=Limits(cpu_seconds=5, wall_seconds=10))
    else:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-I", "-S", "-c", FLOOD], capture_output=True, timeout=0.5)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def flood() -> dict[str, float]:
    command = [sys.executable, __file__, "--flood"]
    run = {
        way: subprocess.run([*command, way], capture_output=True, text=True, check=True) for way in ("bare", "sandbox")
    }
    return {f"{way}_parent_mib": round(float(done.stdout), 1) for way, done in run.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions; write nothing")
    parser.add_argument("--flood", choices=("bare", "sandbox"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.flood:
        return flood_parent(args.flood)
    scale = 0.1 if args.quick else 1.0
    load = os.getloadavg()[0]
    with Sandbox(workers=1) as box:
        layers = sorted(box.layers.active)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "program.py")
        Path(path).write_text(PROGRAM)
        times = latency(path, int(200 * scale))
        rates = throughput(path, int(400 * scale))
    record = {
        "machine": f"{os.cpu_count()} cores {platform.machine()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "load_average_at_start": round(load, 2),
        "layers": layers,
        "latency": times,
        "over_bare_interpreter_ms": round(times["sandbox"]["median_ms"] - times["bare interpreter"]["median_ms"], 2),
        "aim_ms": AIM_MS,
        "throughput": rates,
        "flood": flood(),
    }
    print(json.dumps(record, indent=2))
    over = record["over_bare_interpreter_ms"]
    print(
        f"sandbox: {over:+.1f} ms a program over a bare interpreter (aim: at most +{AIM_MS:.0f} ms): "
        f"{'reached' if over <= AIM_MS else 'MISSED'}"
    )
    if load > 0.5 * (os.cpu_count() or 1):
        print(f"the machine was busy (load average {load:.1f}): compare the columns, and trust no single figure")
    if not args.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(record, indent=2) + "\n")
        print(f"written to {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
