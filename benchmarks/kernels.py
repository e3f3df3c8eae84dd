"""Our kernels beside eager PyTorch, torch.compile, TRL's and Liger's, in one run on whatever device there is.

    python benchmarks/kernels.py            # measure; writes benchmarks/results/kernels_{cpu,gpu}.json and the tables
    python benchmarks/kernels.py --table    # only rewrite the tables of docs/kernels.md from the JSON files

The first line is the whole command, on a machine with a GPU too. Whether the goals of the project's design are met stands
below the tables (benchmarks/kernels_report.py).

The tasks, and who takes part, are in benchmarks/kernels_rivals.py; each is timed forward alone (without gradients) and forward with
backward. On a CPU ours and eager PyTorch are compared at ten shapes more (benchmarks/kernels_shapes.py).

Contenders take turns, round after round, and the best round counts: on a shared machine the noise is one-sided. On a
CPU the time is the process's CPU time on one thread, so that other load does not count against whoever it hits; wall
time is in the JSON too. Memory is the peak above the inputs: CUDA's own count, or the kernel's high-water mark.

Compiled variants are counted over three numbers of tokens: Triton's and torch.compile's. From hidden states the row
kernels are timed alone as well: a third of their bytes is what a policy loss fused into one sweep would save.

Ceilings come from the same run: bytes/s of a copy, FLOP/s of a square product in the task's dtype. Shares of them count
the *least* work the task needs (logits read twice, the gradient written once; 6VH FLOPs a token), not what was done.

Left out: the sampler and the training step, which have benchmarks of their own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import kernels
from benchmarks.kernels_report import RESULTS, render, write_tables
from benchmarks.kernels_rivals import SEQUENCES, Contender, Task, contenders, exact_gradients, tasks
from benchmarks.kernels_shapes import measure_shapes
from benchmarks.meter import Meter, ceilings, device_name, versions
from kernels import linear


def clear(data) -> None:
    for t in data.values():
        t.grad = None


def measure(task: Task, device: str, rounds: int, leave_out: tuple[str, ...] = ()) -> list[dict]:
    meter, data, rows = Meter(device), task.inputs(device), []
    exact, table = exact_gradients(task, data), contenders(task, device)
    table = {name: c for name, c in table.items() if name not in leave_out}
    live: dict[str, Contender] = {}
    for name, contender in table.items():
        row = {"contender": name, "seconds": None}
        rows.append(row)
        if isinstance(contender, str):
            row["absent"] = contender
            continue
        run = lambda c=contender: c(data).backward()  # noqa: E731
        before = compiled_variants()
        try:
            clear(data)
            run()  # compiles, warms up
            with torch.no_grad():
                contender(data)
        except Exception as error:  # a rival that cannot run here is a result, with its reason
            if name.startswith("ours"):
                raise
            row["absent"] = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
            continue
        row["variants"] = compiled_variants() - before
        row["error"] = max(
            ((data[k].grad[:8].double() - g).abs().max() / g.abs().max()).item() for k, g in exact.items()
        )
        clear(data)
        row["peak_bytes"] = meter.peak(run)
        live[name] = contender
    never = (float("inf"), float("inf"))
    best, forward = dict.fromkeys(live, never), dict.fromkeys(live, never)
    for i in range(rounds):
        for name, contender in live.items():
            clear(data)
            best[name] = tuple(map(min, best[name], meter(lambda c=contender: c(data).backward())))
            clear(data)
            with torch.no_grad():
                forward[name] = tuple(map(min, forward[name], meter(lambda c=contender: c(data))))
        print(f"  {task.name}: round {i + 1} of {rounds}", file=sys.stderr)
    for row in rows:
        name = row["contender"]
        if name not in live:
            continue
        row["seconds"], row["wall_seconds"] = best[name]
        row["forward_seconds"], row["forward_wall_seconds"] = forward[name]
        before = compiled_variants()
        for tokens in (
            task.N - SEQUENCES,
            task.N - 2 * SEQUENCES,
        ):  # after the timing: a shape-generic graph may be slower
            live[name]({k: v if k == "weight" else v[:tokens] for k, v in data.items()}).backward()
        row["variants"] += compiled_variants() - before
    return rows


def compiled_variants() -> int:
    """Kernels that Triton has compiled in this process, and graphs that torch.compile has."""
    from torch._dynamo.utils import counters

    if not torch.cuda.is_available():  # Triton compiles nothing, and a look at every object takes a while
        return counters["stats"]["unique_graphs"]
    from triton.runtime.jit import JITFunction

    kernels_seen = [o for o in gc.get_objects() if issubclass(type(o), JITFunction)]
    return counters["stats"]["unique_graphs"] + sum(len(c[0]) for k in kernels_seen for c in k.device_caches.values())


def row_kernel_seconds(task: Task, device: str, rounds: int) -> float:
    """Forward and backward of the row kernels over all the task's logits, a chunk at a time as `linear_loss` has them."""
    meter, data = Meter(device), task.inputs(device)
    rows = min(linear.chunk_rows(data["hidden"], task.V), task.N)
    logits = (3 * torch.randn(rows, task.V, device=device)).to(task.dtype).requires_grad_()
    y = data["y"][:rows]

    def once():
        kernels.logprob_kl(logits * 1, y, inplace_grad=True).logprob.sum().backward()
        logits.grad = None

    def copies():
        (logits * 1).backward(logits.detach())
        logits.grad = None

    def fastest(call):
        return min(meter(call)[0] for _ in range(rounds + 1))

    return max(0.0, fastest(once) - fastest(copies)) * task.N / rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only rewrite docs/kernels.md from the recorded results")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--shape-rounds", type=int, default=21, help="rounds of the ten shapes on a CPU; 0 leaves them out"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small tasks without torch.compile, printed only, to see that it runs"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; with more than 1 the time is wall time")
    args = parser.parse_args()
    if not args.table:
        torch.set_num_threads(args.threads)
        todo = tasks(args.device, args.quick)
        roof, record = ceilings(args.device, {t.dtype for t in todo if t.H}), []
        for task in todo:
            rows = measure(task, args.device, args.rounds, ("torch.compile",) if args.quick else ())
            entry = {
                **asdict(task),
                "dtype": str(task.dtype).split(".")[-1],
                "floor": task.floor(True),
                "forward_floor": task.floor(False),
                "unit": "FLOP" if task.H else "bytes",
                "ceiling": roof[f"FLOP {task.dtype}"] if task.H else roof["bytes"],
                "rows": rows,
            }
            if task.H:
                entry["row_kernel_seconds"] = row_kernel_seconds(task, args.device, args.rounds)
            if args.device == "cpu" and args.threads > 1:
                for r in rows:
                    r["seconds"], r["forward_seconds"] = r.get("wall_seconds"), r.get("forward_wall_seconds")
            record.append(entry)
        shapes = []
        if args.device == "cpu" and args.shape_rounds:
            few = {"rounds": 2, "shapes": ((64, 128),)} if args.quick else {"rounds": args.shape_rounds}
            shapes = measure_shapes(args.threads, **few)
        clock = (
            "GPU time"
            if args.device == "cuda"
            else "CPU time of one thread"
            if args.threads == 1
            else f"wall time of {args.threads} threads"
        )
        result = {
            "device": device_name(args.device),
            "time": clock,
            "date": time.strftime("%Y-%m-%d"),
            "command": "python benchmarks/kernels.py" + "".join(f" {a}" for a in sys.argv[1:]),
            "load_average": os.getloadavg()[0],
            "cores": os.cpu_count(),
            "versions": versions("torch", "triton", "trl", "liger_kernel"),
            "ceilings": roof,
            "rounds": args.rounds,
            "tasks": record,
            "shape_rounds": args.shape_rounds,
            "shapes": shapes,
        }
        file = RESULTS / f"kernels_{'gpu' if args.device == 'cuda' else 'cpu'}.json"
        if not args.quick:
            file.write_text(json.dumps(result, indent=1) + "\n")
        print(render(result))
    if not args.quick:
        write_tables()


if __name__ == "__main__":
    main()
