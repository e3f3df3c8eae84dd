"""One full GRPO step of a planner in Qwen2.5-1.5B's shape (random weights, LoRA on all projections), on a CPU or a GPU.

    python -m benchmarks.scale_step [--dtype bfloat16] [--out benchmarks/results/scale_step.json]
    python -m benchmarks.scale_step --device cuda --problems 8 --samples 8 --prompt 256 --new 256

Sample G traces a problem, reward them (share of even token ids: the reward is not what is measured), backward through
recomputed blocks, one AdamW update of the adapters with 8-bit moments. Weights are drawn in place, nothing is read from
disk. Executor and Reason RM are not in this process, as with `executor.url`. Reports the peak of resident memory (on a GPU:
of what is allocated there) beside the memory plan's figure, and seconds, which on a shared CPU say little. On a CPU the
question is whether it fits 24 GiB.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import time
from pathlib import Path

import torch

from benchmarks.meter import device_name
from models import ModelConfig, Transformer
from models.lora import LoRAConfig, attach, trainable
from tracelift.config import load_config
from tracelift.distributed.world import World
from tracelift.rl.sample import Sample
from tracelift.sampler import Sampler, SamplingParams
from tracelift.tasks.task import Task
from tracelift.training.learner import Learner
from tracelift.training.memory_plan import GiB, planner_plan, size
from train import update_policy

QWEN_1_5B = ModelConfig(151_936, 1536, 8960, 28, 12, 2, 128, 32_768, rope_theta=1e6, qkv_bias=True, family="qwen2")


TINY = ModelConfig(4096, 64, 160, 2, 4, 2, 16, 2048, qkv_bias=True, family="qwen2")


def random_model(shape: ModelConfig, dtype: torch.dtype, device: str = "cpu") -> Transformer:
    """Weights N(0, 0.02²) in `dtype`, drawn where they lie: no second copy at any time."""
    with torch.device("meta"):
        model = Transformer(shape)
    model = model.to(dtype).to_empty(device=device)
    gen = torch.Generator(device).manual_seed(0)
    residual = 0.02 / math.sqrt(2 * shape.num_layers)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                p.normal_(std=residual if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02, generator=gen)
    return model.eval()


def measure(
    dtype: str, problems: int, samples: int, prompt: int, new: int, device: str = "cpu", shape: ModelConfig = QWEN_1_5B
) -> dict:
    config = load_config(
        None,
        [
            "--run.dtype",
            dtype,
            "--lora.r",
            "16",
            "--planner.samples",
            str(samples),
            "--planner.max_new_tokens",
            str(new),
            "--grpo.problems",
            str(problems),
            "--optim.lr",
            "1e-5",
            "--optim.warmup",
            "0",
            "--optim.checkpoint_activations",
            "--optim.state_dtype",
            "int8",
            "--optim.micro_tokens",
            str(prompt + samples * new),
            "--executor.url",
            "http://elsewhere",
            "--executor.memory_mb",
            "1024",
            "--reward_model.path",
            "",
            "--reward.mode",
            "exec_only",
            "--planner.max_problem_chars",
            str(3 * prompt),
        ],
    )
    plan = planner_plan(config, device, 1, shape)
    print(plan.render(), flush=True)
    seconds, clock = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        if device == "cuda":
            torch.cuda.synchronize()
        seconds[name], clock = time.perf_counter() - clock, time.perf_counter()
        print(f"{name}: {seconds[name]:.1f} s, peak so far {size(peak(device))}", flush=True)

    before = peak(device)
    model = random_model(shape, getattr(torch, dtype), device)
    attach(model, LoRAConfig(16, 32.0), seed=0)
    lap("make the model")
    learner = Learner(model, config.optim, 1, World())
    started = {name: p.detach().clone() for name, p in trainable(model).items()}
    ids = [[(7919 * i + 104_729 * t) % (shape.vocab_size - 1936) for t in range(prompt)] for i in range(problems)]
    sampler = Sampler(model, eos_ids=set(), pad_id=0, memory_bytes=config.executor.memory_mb << 20)
    answers = sampler.generate(
        ids, SamplingParams(n=samples, max_new_tokens=new, seed=0), keys=[(0, i) for i in range(problems)]
    )
    groups = [
        [Sample(Task(f"p{i}", "", "0"), p, c, "", None, reward=sum(t % 2 == 0 for t in c.tokens) / new) for c in cs]
        for i, (p, cs) in enumerate(zip(ids, answers, strict=True))
    ]
    lap("sample")
    metrics = update_policy(groups, learner, None, config, 0, 0)
    lap("update")
    moved = sum((p.detach() - started[name]).abs().sum().item() for name, p in trainable(model).items())
    if not (moved > 0 and math.isfinite(metrics["grad_norm"]) and metrics["grad_norm"] > 0):
        raise SystemExit(f"the step did not train: {metrics}")
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in learner.names),
        "seconds": seconds,
        "peak_resident_gib": peak(device) / GiB,
        "resident_before_gib": before / GiB,
        "planned_gib": plan.peak / GiB,
        "metrics": {k: metrics[k] for k in ("loss", "grad_norm", "fresh_ratio_deviation_max")},
    }


def peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_step", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--problems", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=32, help="prompt tokens")
    parser.add_argument("--new", type=int, default=8, help="new tokens a sample")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="a tiny shape, to see that it runs")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    how = (args.dtype, args.problems, args.samples, args.prompt, args.new, args.device)
    result = measure(*how, TINY if args.quick else QWEN_1_5B)
    where = device_name(args.device) if args.device == "cuda" else "no GPU"
    result |= {
        "what": f"one GRPO step, {'tiny' if args.quick else 'Qwen2.5-1.5B'} shape, random weights, LoRA r 16, {where}",
        "dtype": args.dtype,
        "shape": f"{args.problems} problems x {args.samples} samples, {args.prompt}+{args.new} tokens",
        "command": "python -m benchmarks.scale_step",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
