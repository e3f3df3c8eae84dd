"""Everything that waits for a GPU, in one command that fits into 12 minutes: `make gpu`. No network is needed.

    python -m benchmarks.gpu [--out runs/gpu] [--minutes 12] [--base SMOLLM2_FOLDER]
    python -m benchmarks.gpu --dry          # the same parts on a CPU in tiny shapes: `make gpu-dry`

Most important first, each part a process of its own with a time limit, after which it and its children are killed. What
came of a part is in OUT/summary.json as soon as it ends, so that a machine that is taken away leaves what was done:

    tests    `pytest -m gpu`: kernels, static decoding with recorded graphs, fused updates, bf16, FSDP on one rank
    kernels  the table of docs/kernels.md: shares of the run's own ceilings, peak bytes, errors against float64
    sampler  tokens a second at batch 1, 16, 64, 256 and the share of the bandwidth floor, beside transformers' `generate`
    step     one GRPO step of a 1.5 B planner beside its memory plan (docs/scaling.md)
    compare  as much of the SmolLM2 comparison as time is left, where --base gives the model; it resumes

Left out: what needs several GPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.meter import device_name, versions
from tracelift.files import write_text

ROOT = Path(__file__).resolve().parents[1]
LAST_LINES = 40  # of a part's output that the summary keeps
SPARE_S = 15.0  # a part that would get less is not begun


@dataclass(frozen=True)
class Part:
    """One process: its words after `python`, and the most seconds it may take."""

    name: str
    words: tuple[str, ...]
    limit_s: float


def parts(out: Path, dry: bool, base: Path | None) -> list[Part]:
    """In the order of what is most worth knowing."""
    device = "cpu" if dry else "cuda"
    json_of = {name: str(out / f"{name}.json") for name in ("sampler", "step")}
    quick = ("--quick",) if dry else ()
    shape = ("--problems", "8", "--samples", "8", "--prompt", "256", "--new", "256") if not dry else ()
    found = [
        Part("tests", ("-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests"), 170),
        Part("kernels", ("benchmarks/kernels.py", "--device", device, "--rounds", "1" if dry else "7", *quick), 200),
        Part("sampler", ("-m", "benchmarks.throughput", "--device", device, "--out", json_of["sampler"], *quick), 120),
        Part("step", ("-m", "benchmarks.scale_step", "--device", device, "--out", json_of["step"], *shape, *quick), 90),
    ]
    if base is not None:
        words = ("-m", "benchmarks.pretrained", "--base", str(base), "--jobs", "1", "--seeds", "1")
        found.append(Part("compare", (*words, "--", "--run.dtype", "bfloat16"), 3600))
    return found


def run(part: Part, log: Path, seconds: float) -> dict:
    """The part's end: exit status (None where it was killed), seconds, last lines. Its whole output goes to `log`."""
    started = time.monotonic()
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, *part.words], cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    lines = log.read_text(errors="replace").splitlines()
    return {"status": status, "seconds": round(time.monotonic() - started, 1), "tail": lines[-LAST_LINES:]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs/gpu", help="folder of logs and figures (default: runs/gpu)"
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="for everything (default 12)")
    parser.add_argument("--base", type=Path, help="folder of SmolLM2-135M-Instruct, for the comparison")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on a CPU, to see that every part runs")
    args = parser.parse_args()
    if not (args.dry or torch.cuda.is_available()):
        parser.error("no CUDA device is here; --dry runs the same parts on a CPU in tiny shapes")
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * args.minutes
    summary: dict = {
        "device": device_name("cpu" if args.dry else "cuda"),
        "dry": args.dry,
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions("torch", "triton", "transformers"),
        "parts": {},
    }
    for part in parts(out, args.dry, args.base):
        left = deadline - time.monotonic()
        if left < SPARE_S:
            result: dict = {"status": None, "seconds": 0.0, "tail": ["not begun: no time was left"]}
        else:
            print(f"{part.name}: at most {min(part.limit_s, left):.0f} s", flush=True)
            result = run(part, out / f"{part.name}.log", min(part.limit_s, left))
        if (figures := out / f"{part.name}.json").is_file():
            result["figures"] = json.loads(figures.read_text())
        summary["parts"][part.name] = result
        write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
        how = {None: "stopped", 0: "done"}.get(result["status"], f"failed with {result['status']}")
        print(f"{part.name}: {how} after {result['seconds']} s: {(result['tail'] or [''])[-1]}", flush=True)
    failed = [name for name, r in summary["parts"].items() if r["status"] not in (0, None)]
    print(f"written: {out / 'summary.json'}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
