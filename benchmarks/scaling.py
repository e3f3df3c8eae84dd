"""Step time and memory of 1.5 B, 7 B and 32 B planners on 1, 8 and 64 H200s, from arithmetic: makes docs/scaling.md's table.

    python -m benchmarks.scaling [--check] [--json FILE]

    update     (6 or, with LoRA, 4) FLOPs per weight and token, 2 more for recomputed blocks; attention 4·H·E a pair of
               positions forward and twice that back; the head 8 a weight (kernels/linear.py). At MFU of the peak.
    sampling   a decode step reads all weights and the keys and values of its sequences: bytes / bandwidth, or FLOPs / peak
               where that is more
    executor   the same model as the planner, frozen: 1 + K runs a trace and K a problem without one, prompt and trace
               computed once for all runs of a trace
    sharding   FSDP gathers the weights twice and scatters gradients once per micro-batch; what is not hidden behind the
               arithmetic counts. The sampler's copy is gathered once a round.
    memory     tracelift.training.memory_plan's plan

These are predictions: no figure here was measured on a GPU. `--check` compares the arithmetic with what can be counted on
a CPU: FLOPs by torch's own counter, and CPU seconds of tiny shapes predicted from another's.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models import ModelConfig, Transformer
from tracelift.config import Config, load_config
from tracelift.training.memory_plan import GiB, Shape, planner_plan

SHAPES = {
    "1.5 B": ModelConfig(151_936, 1536, 8960, 28, 12, 2, 128, 32_768, rope_theta=1e6, qkv_bias=True, family="qwen2"),
    "7 B": ModelConfig(
        152_064, 3584, 18_944, 28, 28, 4, 128, 32_768, rope_theta=1e6, qkv_bias=True, family="qwen2", tied_head=False
    ),
    "32 B": ModelConfig(
        152_064, 5120, 27_648, 64, 40, 8, 128, 32_768, rope_theta=1e6, qkv_bias=True, family="qwen2", tied_head=False
    ),
}  # Qwen2.5
NODE = 8  # GPUs that share NVLink


@dataclass(frozen=True)
class Device:
    """An H200 by its data sheet (dense bf16, HBM3e, NVLink one way, one 400 Gbit/s port a GPU), and shares of it assumed."""

    flops: float = 989e12
    hbm: float = 4.8e12
    nvlink: float = 450e9
    network: float = 50e9
    memory: int = 139 * GiB
    mfu: float = 0.40  # assumed for updates and prefill
    streaming: float = 0.60  # assumed share of HBM bandwidth while decoding
    links: float = 0.70  # assumed share of link bandwidth in collectives


@dataclass(frozen=True)
class Job:
    """One round. The paper's limits: 512 new tokens for a trace, 256 for an answer, K = 3."""

    problems: int = 128
    samples: int = 8
    prompt: int = 200
    new: int = 512
    answer: int = 256
    repeats: int = 3


def body_flops(shape: Shape, tokens: float, pairs: float, lora: bool, recompute: bool) -> float:
    """Forward and backward of everything but the head. pairs: (query, key) positions that see each other."""
    c = shape.config
    weights = c.num_layers * (shape.block - _block_vectors(shape))
    passes = 2 + (2 if lora else 4) + (2 if recompute else 0)
    attention = 4 * c.num_heads * c.head_dim * c.num_layers * pairs
    adapters = 6 * shape.lora * tokens
    return passes * weights * tokens + attention * (3 + (1 if recompute else 0)) + (adapters if lora else 0)


def _block_vectors(shape: Shape) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(shape.config).model.layers[0].parameters() if p.dim() < 2)


def head_flops(c: ModelConfig, tokens: float, trains: bool) -> float:
    return (8 if trains else 6) * c.vocab_size * c.hidden_size * tokens


def decode_seconds(shape: Shape, d: Device, sequences: float, context: float, tokens: int) -> float:
    """`tokens` decode steps of `sequences` at once, each reading `context` positions on average."""
    if sequences <= 0:
        return 0.0
    c = shape.config
    cache = 2 * c.num_layers * c.num_kv_heads * c.head_dim * 2 * context * sequences
    reading = (2 * shape.total + cache) / (d.hbm * d.streaming)
    return tokens * max(reading, 2 * shape.total * sequences / (d.flops * d.mfu))


def predict(name: str, gpus: int, lora: bool, states: str = "float32") -> dict:
    """Seconds of each phase, and bytes on one device with the executor in this process and without it."""
    job, d, rank = Job(), Device(), 16 if lora else 0
    shape = Shape.of(SHAPES[name], rank, tuple(Config().lora.targets))
    c = shape.config
    weight_bytes = 2 * shape.total
    sharded = gpus > 1 and not lora
    problems = max(1.0, job.problems / gpus)
    # A GPU without a problem of its own idles: 128 problems are enough for 64 GPUs here.
    traces = problems * job.samples
    prefill = 2 * shape.total / (d.flops * d.mfu)
    sample = prefill * problems * job.prompt + decode_seconds(shape, d, traces, job.prompt + job.new / 2, job.new)
    runs = traces * (1 + job.repeats) + problems * job.repeats
    execute = prefill * (traces * (job.prompt + job.new) + problems * job.prompt) + decode_seconds(
        shape, d, runs, job.prompt + job.new + job.answer / 2, job.answer
    )
    tokens = problems * (job.prompt + job.samples * job.new)
    pairs = problems * (job.prompt**2 / 2 + job.samples * (job.new * job.prompt + job.new**2 / 2))
    arithmetic = (body_flops(shape, tokens, pairs, lora, True) + head_flops(c, traces * job.new, not lora)) / (
        d.flops * d.mfu
    )
    config = run_config(lora, sharded, states, job)
    micros = max(1.0, tokens / config.optim.micro_tokens)
    link = (d.nvlink if gpus <= NODE else d.network) * d.links
    moved = (
        micros * (2 * weight_bytes + 2 * weight_bytes) if sharded else 4 * shape.lora * 2 if gpus > 1 else 0
    )  # fp32 gradients
    update = max(arithmetic, moved / link)
    gather = weight_bytes / link if sharded else 0.0
    local, remote = (plan_bytes(config, gpus, c, own) for own in (True, False))
    return {
        "model": name,
        "gpus": gpus,
        "trains": "LoRA" if lora else "all" if states == "float32" else f"all, {states} states",
        "sample_s": sample,
        "execute_s": execute,
        "update_s": update,
        "gather_s": gather,
        "step_s": sample + execute + update + gather,
        "bound_by": "links" if moved / link > arithmetic else "arithmetic",
        "local_bytes": local,
        "remote_bytes": remote,
        "fits": "here" if local <= d.memory else "remote" if remote <= d.memory else "no",
    }


def run_config(lora: bool, sharded: bool, states: str, job: Job) -> Config:
    return load_config(
        None,
        [
            "--run.dtype",
            "bfloat16",
            "--lora.r",
            "16" if lora else "0",
            "--optim.checkpoint_activations",
            "--optim.micro_tokens",
            "16384",
            "--optim.state_dtype",
            states,
            "--planner.samples",
            str(job.samples),
            "--planner.max_new_tokens",
            str(job.new),
            "--grpo.problems",
            str(job.problems),
            "--planner.max_problem_chars",
            str(3 * job.prompt),
            "--executor.memory_mb",
            "16384",
            "--reward_model.path",
            "",
            "--reward.mode",
            "exec_only",
            "--parallel.mode",
            "fsdp" if sharded else "none",
            "--executor.url",
            "http://elsewhere",
        ],
    )


def plan_bytes(config: Config, gpus: int, planner: ModelConfig, executor_here: bool) -> int:
    plan = planner_plan(config, "cuda", gpus, planner)
    return plan.peak + (2 * Shape.of(planner).total if executor_here else 0)


def table(rows: list[dict]) -> str:
    head = "| planner | trains | H200s | sample | executor | update | gather | a round | bound by | GiB, executor here | GiB, executor remote | executor |"
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    place = {"here": "fits beside the planner", "remote": "**remote**", "no": "**does not fit**"}
    for r in rows:
        seconds = " | ".join(f"{r[k]:.1f} s" for k in ("sample_s", "execute_s", "update_s", "gather_s", "step_s"))
        lines.append(
            f"| {r['model']} | {r['trains']} | {r['gpus']} | {seconds} | {r['bound_by']} | {r['local_bytes'] / GiB:.0f} | "
            f"{r['remote_bytes'] / GiB:.0f} | {place[r['fits']]} |"
        )
    return "\n".join(lines)


# -- what a CPU can check --------------------------------------------------------------------------------------------


def counted_flops(c: ModelConfig, tokens: int) -> tuple[int, float]:
    """FLOPs of one forward and backward of the body: by torch's counter, and by `body_flops`."""
    from torch.utils.flop_counter import FlopCounterMode

    model = Transformer(c).init_weights(0).double()  # fp64: every product goes through operators the counter knows
    with FlopCounterMode(display=False) as counter:
        model(torch.arange(tokens)[None] % c.vocab_size, attend=plain_attention).square().sum().backward()
    return counter.get_total_flops(), body_flops(
        Shape.of(c), tokens, tokens**2, False, False
    )  # the counter counts unseen pairs


def plain_attention(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (B,T,H,E), (B,T,G,E) -> (B,T,H,E)
    """Attention as two products, which the counter sees; it knows no fused attention on a CPU."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    return ((q @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2)


def timed_update(c: ModelConfig, tokens: int, repeats: int = 5) -> float:
    """Least CPU seconds of one forward and backward on one thread: whoever else uses the machine costs time, not these."""
    model = Transformer(c).init_weights(0)
    x = torch.arange(tokens)[None] % c.vocab_size
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        model(x).square().mean().backward()
        best = min(best, time.process_time() - started)
    return best


def check() -> dict:
    torch.set_num_threads(1)
    shapes = {
        n: ModelConfig(512, n, 4 * n, layers, n // 32, n // 64, 32, 2048)
        for n, layers in ((128, 2), (256, 2), (384, 4))
    }
    flops = {}
    for n, c in shapes.items():
        counted, predicted = counted_flops(c, 256)
        flops[n] = {"counted": counted, "predicted": predicted, "ratio": predicted / counted}
    work = {n: body_flops(Shape.of(c), 256, 256**2 / 2, False, False) for n, c in shapes.items()}
    seconds = {n: timed_update(c, 256) for n, c in shapes.items()}
    rate = work[256] / seconds[256]
    return {
        "flops": flops,
        "seconds": {n: {"measured": seconds[n], "predicted_from_256": work[n] / rate} for n in shapes},
        "gflops_per_s": rate / 1e9,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare the arithmetic with counts and times on this CPU")
    parser.add_argument("--json", type=Path, help="write the rows (and the check) here too")
    args = parser.parse_args()
    rows = [predict(name, gpus, lora) for name in SHAPES for lora in (False, True) for gpus in (1, 8, 64)]
    rows += [predict("7 B", 1, False, "int8"), predict("32 B", 8, False, "int8")]
    print(table(rows))
    result: dict = {"rows": rows}
    if args.check:
        result["check"] = check()
        print(json.dumps(result["check"], indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
