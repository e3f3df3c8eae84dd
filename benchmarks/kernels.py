"""Our kernels beside eager PyTorch, torch.compile, TRL's and Liger's, in one run on whatever device there is.

    python benchmarks/kernels.py            # measure; writes benchmarks/results/kernels_{cpu,gpu}.json and the tables
    python benchmarks/kernels.py --table    # only rewrite the tables of docs/kernels.md from the JSON files

The first line is the whole command, on a machine with a GPU too. Whether the goals of the project's design are met stands
below the tables (benchmarks/kernels_report.py).

Two tasks, each forward alone (without gradients) and forward with backward: from logits, log-prob + entropy (loss Σ g·log p + 0.1·Σ H, one random g a sample);
from hidden states, the clipped policy loss of one update, whose gradient Liger and `linear_loss` form going forward.
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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

import kernels
from benchmarks.kernels_report import RESULTS, render, write_tables
from benchmarks.meter import Meter, ceilings, device_name, versions
from kernels import linear

SEQUENCES = 8  # a task's tokens are this many samples, one advantage each: Liger's chunks are whole samples
Contender = Callable[[dict[str, torch.Tensor]], torch.Tensor]  # inputs -> loss; gradients go to the inputs' .grad


@dataclass
class Task:
    name: str
    dtype: torch.dtype
    N: int
    V: int
    H: int | None = None  # None: from logits

    def inputs(self, device: str) -> dict[str, torch.Tensor]:
        gen = torch.Generator(device).manual_seed(0)
        draw = lambda *s: torch.randn(*s, generator=gen, device=device)  # noqa: E731
        data = {
            "y": torch.randint(self.V, (self.N,), generator=gen, device=device),
            "g": draw(SEQUENCES).repeat_interleave(self.N // SEQUENCES),
        }
        if self.H is None:
            data["logits"] = (3 * draw(self.N, self.V)).to(self.dtype).requires_grad_()
        else:
            data["hidden"] = draw(self.N, self.H).to(self.dtype).requires_grad_()
            data["weight"] = (draw(self.V, self.H) * 3 / self.H**0.5).to(self.dtype).requires_grad_()
        return data

    def floor(self, backward: bool) -> float:
        """The least work: bytes from logits, FLOPs from hidden states."""
        if self.H is None:
            return (3.0 if backward else 1.0) * self.N * self.V * self.dtype.itemsize
        return (6.0 if backward else 2.0) * self.N * self.V * self.H


def policy_loss(s: kernels.TokenScores, g: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    ratio = (s.logprob - old).exp()
    return -torch.min(ratio * g, ratio.clamp(0.8, 1.2) * g).sum()


def eager_logits(d):
    logp = d["logits"].float().log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    return (logp.gather(-1, d["y"][:, None]).squeeze(-1) * d["g"]).sum() + 0.1 * entropy.sum()


def eager_hidden(d):
    logp = F.linear(d["hidden"], d["weight"]).float().log_softmax(-1)
    lp = logp.gather(-1, d["y"][:, None]).squeeze(-1)
    return policy_loss(kernels.TokenScores(lp, lp, lp, None), d["g"], lp.detach())


def ours_logits(d, inplace=False):
    logits = d["logits"] * 1 if inplace else d["logits"]
    s = kernels.logprob_kl(logits, d["y"], inplace_grad=inplace)
    return (s.logprob * d["g"]).sum() + 0.1 * s.entropy.sum()


def ours_linear(d):
    s = kernels.linear_logprob(d["hidden"], d["weight"], d["y"])
    return policy_loss(s, d["g"], s.logprob.detach())


def ours_linear_loss(d):
    # On fresh samples the old log-prob is the present one; its value is taken inside, as trainers do.
    return kernels.linear_loss(
        d["hidden"], d["weight"], d["y"], lambda s, g: policy_loss(s, g, s.logprob.detach()), d["g"]
    )[0]


def contenders(task: Task, device: str) -> dict[str, Contender | str]:
    """Callables, or the reason why one is not here."""
    table: dict[str, Contender | str] = {}
    if task.H is None:
        table["ours"] = ours_logits
        table["eager PyTorch"] = eager_logits
        table["torch.compile"] = torch.compile(eager_logits)
    else:
        table["ours, linear_loss"] = ours_linear_loss
        table["ours, linear_logprob"] = ours_linear
        table["eager PyTorch"] = eager_hidden
        table["torch.compile"] = torch.compile(eager_hidden)
    add_trl(table, task)
    add_liger(table, task, device)
    return table


def add_trl(table, task: Task) -> None:
    try:
        from trl.kernels.chunked_logprob import ChunkedLogProbFunction
        from trl.trainer.utils import selective_log_softmax_and_entropy
    except ImportError as error:
        table["TRL"] = f"not importable: {error}"
        return

    def from_logits(d):
        lp, entropy = selective_log_softmax_and_entropy(d["logits"], d["y"])
        return (lp.float() * d["g"]).sum() + 0.1 * entropy.float().sum()

    def from_hidden(d):
        lp = ChunkedLogProbFunction.apply(d["hidden"], d["weight"], None, d["y"], 1.0, 8192, None, 1.0, ())[0]
        return policy_loss(kernels.TokenScores(lp, lp, lp, None), d["g"], lp.detach())

    table["TRL"] = from_logits if task.H is None else from_hidden


def add_liger(table, task: Task, device: str) -> None:
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss
    except ImportError as error:
        table["Liger"] = f"not importable: {error}"
        return
    if task.H is None:
        table["Liger"] = "no log-prob + entropy from logits"
        return
    loss = LigerFusedLinearGRPOLoss(beta=0.0, use_ref_model=False, compiled=device == "cuda", loss_type="grpo")

    def from_hidden(d):  # its mean over samples and tokens, all of one length, times N is our sum
        hidden, y, g = (d[k].unflatten(0, (SEQUENCES, -1)) for k in ("hidden", "y", "g"))
        return d["y"].numel() * loss(hidden, d["weight"], y, torch.ones_like(y), g[:, 0])[0]

    table["Liger"] = from_hidden


def exact_gradients(task: Task, data) -> dict[str, torch.Tensor]:
    """Float64 gradients of the task, on the CPU or GPU that holds the data, some rows at a time."""
    if task.H is None:
        z = data["logits"].detach()[:8].double().requires_grad_()
        eager64 = z.log_softmax(-1)
        loss = (eager64.gather(-1, data["y"][:8, None])[:, 0] * data["g"][:8]).sum()
        (loss - 0.1 * (eager64.exp() * eager64).sum()).backward()
        return {"logits": z.grad}
    h, w = (data[k].detach()[: None if k == "weight" else 8].double().requires_grad_() for k in ("hidden", "weight"))
    lp = F.linear(h, w).log_softmax(-1).gather(-1, data["y"][:8, None])[:, 0]
    (-(lp * data["g"][:8])).sum().backward()
    return {"hidden": h.grad}


def clear(data) -> None:
    for t in data.values():
        t.grad = None


def measure(task: Task, device: str, rounds: int) -> list[dict]:
    meter, data, rows = Meter(device), task.inputs(device), []
    exact, table = exact_gradients(task, data), contenders(task, device)
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

    try:
        from triton.runtime.jit import JITFunction
    except ImportError:
        return counters["stats"]["unique_graphs"]
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


def tasks(device: str, quick: bool = False) -> list[Task]:
    if quick:
        return [Task("logits", torch.float32, 64, 2048), Task("hidden", torch.float32, 64, 2048, 64)]
    if device == "cuda":
        return [Task("logits", torch.bfloat16, 8192, 151_936), Task("hidden", torch.bfloat16, 8192, 131_072, 4096)]
    return [
        Task("logits", torch.float32, 64, 151_936),
        Task("logits", torch.bfloat16, 64, 151_936),
        Task("hidden", torch.float32, 512, 32_000, 256),
        Task("hidden", torch.float32, 64, 151_936, 256),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only rewrite docs/kernels.md from the recorded results")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two small tasks, printed only, to see that it runs")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; with more than 1 the time is wall time")
    args = parser.parse_args()
    if not args.table:
        torch.set_num_threads(args.threads)
        todo = tasks(args.device, args.quick)
        roof, record = ceilings(args.device, {t.dtype for t in todo if t.H}), []
        for task in todo:
            rows = measure(task, args.device, args.rounds)
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
        }
        file = RESULTS / f"kernels_{'gpu' if args.device == 'cuda' else 'cpu'}.json"
        if not args.quick:
            file.write_text(json.dumps(result, indent=1) + "\n")
        print(render(result))
    if not args.quick:
        write_tables()


if __name__ == "__main__":
    main()
