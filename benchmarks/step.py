"""One whole GRPO step beside TRL's GRPOTrainer: sampling, reward and one optimizer update, time and peak memory.

    python -m benchmarks.step [--steps 4] [--out benchmarks/results/step-cpu.json]

Shape: a 12.6 M-parameter Qwen2 (hidden 256, 6 layers, vocabulary 32,000), 4 prompts × 8
samples, 96 prompt tokens and exactly 64 new ones, one update, fp32. Both sides load the same random checkpoint and use
the same trivial reward (share of even token ids), so only the machinery is compared. Each side runs in a process of its
own, one after the other, and reports the median step after the first and its peak resident memory. The figure that
counts is the ratio. On a machine with other work look at the CPU seconds, under OMP_NUM_THREADS=1: waiting threads spin.
TRL comes from requirements-dev.txt; without it only our side is measured and the file says so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPTS, SAMPLES, PROMPT_TOKENS, NEW_TOKENS, VOCAB = 4, 8, 96, 64, 32_000


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def make_checkpoint(folder: Path) -> None:
    """Random weights in the benchmark's shape, with a word-level tokenizer whose words are w0, w1, ..."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from models import ModelConfig, Transformer, save_pretrained

    shape = ModelConfig(
        VOCAB, 256, 688, 6, 4, 2, 64, 2048, tied_head=True, qkv_bias=True, family="qwen2", rope_theta=1e6
    )
    save_pretrained(Transformer(shape).init_weights(0), folder)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "w1", "pad_token": "w2", "unk_token": "w0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "pad_token_id": 2}))


def prompts(step: int) -> list[list[int]]:
    """Prompt token ids of one step; no special tokens among them."""
    return [
        [3 + (7919 * (step * PROMPTS + p) + 104729 * t) % (VOCAB - 3) for t in range(PROMPT_TOKENS)]
        for p in range(PROMPTS)
    ]


def even_share(ids: list[int]) -> float:
    return sum(i % 2 == 0 for i in ids) / max(1, len(ids))


def ours(folder: Path, steps: int) -> dict:
    import torch

    import models
    from tracelift.config import load_config
    from tracelift.distributed.world import World
    from tracelift.rl.sample import Sample
    from tracelift.sampler import Sampler, SamplingParams
    from tracelift.tasks.task import Task
    from tracelift.training.learner import Learner
    from train import update_policy

    config = load_config(
        None,
        [
            "--grpo.problems",
            str(PROMPTS),
            "--planner.samples",
            str(SAMPLES),
            "--planner.max_new_tokens",
            str(NEW_TOKENS),
            "--optim.lr",
            "1e-6",
        ],
    )
    model = models.load_pretrained(folder)
    sampler = Sampler(model, eos_ids=set(), pad_id=2)  # no end token: every completion has its full length
    learner = Learner(model, config.optim, steps, World())
    seconds, cpu_seconds, phases = [], [], []
    for step in range(steps):
        started, cpu = time.perf_counter(), time.process_time()
        ids = prompts(step)
        params = SamplingParams(n=SAMPLES, max_new_tokens=NEW_TOKENS, temperature=1.0, seed=0)
        groups = []
        for prompt, completions in zip(
            ids, sampler.generate(ids, params, keys=[(step, i) for i in range(PROMPTS)]), strict=True
        ):
            task = Task("p", "", "0")
            groups.append([Sample(task, prompt, c, "", None, reward=even_share(c.tokens)) for c in completions])
        sampled = time.perf_counter()
        update_policy(groups, learner, None, config, step, 2)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu)
        phases.append(sampled - started)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "sampling_seconds": phases,
        "peak_gib": peak_gib(),
        "torch": torch.__version__,
    }


def trl(folder: Path, steps: int) -> dict:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    rows = [{"prompt": " ".join(f"w{i}" for i in ids)} for step in range(steps) for ids in prompts(step)]

    class Times(TrainerCallback):
        def __init__(self) -> None:
            self.marks = [(time.perf_counter(), time.process_time())]

        def on_step_end(self, *args, **kwargs) -> None:
            self.marks.append((time.perf_counter(), time.process_time()))

    def reward(completion_ids, **kwargs):
        return [even_share(ids) for ids in completion_ids]

    with tempfile.TemporaryDirectory() as out:
        args = GRPOConfig(
            output_dir=out,
            per_device_train_batch_size=PROMPTS * SAMPLES,
            num_generations=SAMPLES,
            max_completion_length=NEW_TOKENS,
            max_steps=steps,
            learning_rate=1e-6,
            beta=0.0,
            temperature=1.0,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=1,
            disable_tqdm=True,
            shuffle_dataset=False,
            generation_kwargs={"min_new_tokens": NEW_TOKENS},
        )
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=reward,
            args=args,
            train_dataset=Dataset.from_list(rows),
        )
        times = Times()
        trainer.add_callback(times)
        times.marks[0] = (time.perf_counter(), time.process_time())
        trainer.train()
    seconds, cpu_seconds = ([b[i] - a[i] for a, b in zip(times.marks, times.marks[1:], strict=False)] for i in (0, 1))
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_gib": peak_gib(),
        "torch": torch.__version__,
        "trl": importlib.metadata.version("trl"),
        "transformers": importlib.metadata.version("transformers"),
    }


def run_side(side: str, folder: Path, steps: int) -> dict | None:
    command = [sys.executable, "-m", "benchmarks.step", "--side", side, "--folder", str(folder), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TOKENIZERS_PARALLELISM": "false"})
    if done.returncode:
        print(f"{side}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    result = json.loads(done.stdout.strip().splitlines()[-1])
    after_first = result["seconds"][1:] or result["seconds"]
    result["median_s"] = statistics.median(after_first)
    result["median_cpu_s"] = statistics.median(result["cpu_seconds"][1:] or result["cpu_seconds"])
    print(
        f"{side}: {result['median_s']:.2f} s a step, {result['median_cpu_s']:.2f} s of CPU (medians of {len(after_first)}), peak {result['peak_gib']:.2f} GiB",
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=4, help="steps a side; the first is warm-up")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--side", choices=["ours", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps({"ours": ours, "trl": trl}[args.side](args.folder, args.steps)))
        return
    from benchmarks.meter import device_name

    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp) / "model"
        make_checkpoint(folder)
        sides = {side: run_side(side, folder, args.steps) for side in ("ours", "trl")}
    result = {
        "what": "one GRPO step, CPU fp32",
        "shape": f"{PROMPTS}x{SAMPLES} samples, {PROMPT_TOKENS}+{NEW_TOKENS} tokens",
        "command": "python -m benchmarks.step",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "device": device_name("cpu"),
        "load_average": round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d"),
        **sides,
    }
    if sides["ours"] and sides["trl"]:
        result["speedup"] = sides["trl"]["median_s"] / sides["ours"]["median_s"]
        result["cpu_ratio"] = sides["trl"]["median_cpu_s"] / sides["ours"]["median_cpu_s"]
        result["memory_ratio"] = sides["ours"]["peak_gib"] / sides["trl"]["peak_gib"]
        print(
            f"ours is {result['speedup']:.1f}x faster ({result['cpu_ratio']:.1f}x by CPU time) at {result['memory_ratio']:.2f} of the memory"
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
