"""Tokens a second of the sampler by batch size, beside the bandwidth floor and transformers' `generate`.

    python -m benchmarks.throughput [--device cuda] [--quick] [--out FILE]

Random weights of SmolLM2-135M's shape, bf16 on a GPU (static decoding with recorded graphs) and fp32 on a CPU; prompts of
128 tokens that share nothing, 128 new tokens each, no end token. What is timed is one whole call, prefill included: the
same for both sides, the second of two calls, so that recording and compiling stay out. The floor of a decode step is the
bytes it must read (all weights once, the keys and values of every sequence at half its final length) over the bytes a
second of a copy in the same run; the share of it counts decode steps alone, so prefill is charged to the share.

Left out: latency of a single token, prompts that share a beginning (benchmarks/sampler.py has those).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.meter import ceilings, device_name, versions
from models import ModelConfig, Transformer, save_pretrained
from tracelift.sampler import Sampler, SamplingParams

SMOLLM2 = ModelConfig(49152, 576, 1536, 30, 9, 3, 64, 8192, norm_eps=1e-5, tied_head=True)
TINY = ModelConfig(512, 64, 160, 2, 4, 2, 16, 512, norm_eps=1e-5, tied_head=True)
BATCHES = (1, 16, 64, 256)


def wall(call, device: str) -> float:
    """Seconds of the second of two calls."""
    for _ in range(2):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    return seconds


def floor_seconds(model: Transformer, batch: int, prompt: int, new: int, bandwidth: float) -> float:
    """Of `new` decode steps of `batch` sequences: the least bytes over the copy's bytes a second."""
    c = model.config
    weights = sum(p.nbytes for p in model.parameters())
    kept = 2 * c.num_layers * c.num_kv_heads * c.head_dim * model.dtype.itemsize
    return new * (weights + batch * (prompt + new / 2) * kept) / bandwidth


def rival(model: Transformer):
    """transformers' model of the same weights; None where it is not installed."""
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype).to(model.device).eval()


def measure(device: str, quick: bool) -> dict:
    shape, batches, prompt, new = (TINY, (1, 4), 16, 8) if quick else (SMOLLM2, BATCHES, 128, 128)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = Transformer(shape).init_weights(0).to(device, dtype).eval().requires_grad_(False)
    bandwidth = ceilings(device, set())["bytes"]
    theirs = rival(model)
    sampler = Sampler(model, (), 0, memory_bytes=(1 << 28) if quick else 16 << 30, max_batch=max(batches))
    rows, params = [], SamplingParams(max_new_tokens=new, seed=0)
    how = {"do_sample": True, "top_k": 0, "max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 0}
    for batch in batches:
        prompts = [[3 + (7919 * i + 104_729 * t) % (shape.vocab_size - 3) for t in range(prompt)] for i in range(batch)]
        seconds = wall(lambda p=prompts: sampler.generate(p, params), device)
        floor = floor_seconds(model, batch, prompt, new, bandwidth)
        row = {"batch": batch, "tokens_per_s": batch * new / seconds, "share_of_floor": floor / seconds}
        if theirs is not None:
            ids = torch.tensor(prompts, device=device)
            with torch.inference_mode():
                took = wall(lambda x=ids: theirs.generate(x, attention_mask=torch.ones_like(x), **how), device)
            row["transformers_tokens_per_s"] = batch * new / took
        rows.append(row)
        print(json.dumps(row), flush=True)
    return {
        "what": "the sampler's tokens a second by batch size",
        "device": device_name(device),
        "dtype": str(dtype).split(".")[-1],
        "shape": f"{'tiny' if quick else 'SmolLM2-135M'}, {prompt} prompt and {new} new tokens",
        "copy_bytes_per_s": bandwidth,
        "versions": versions("torch", "triton", "transformers"),
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="a tiny model and two batches, to see that it runs")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    result = measure(args.device, args.quick)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
