"""The sampler beside transformers' `generate`, on the same weights, in one run.

    python benchmarks/sampler.py                 # both workloads, results to benchmarks/results/sampler.json
    python benchmarks/sampler.py --quick         # a tiny model, to see that it runs
    python benchmarks/sampler.py --tokens        # only the count of prompt tokens, which no load can disturb

Two workloads on random weights of the 135 M Llama shape (30 layers of width 576, vocabulary 49,152), fp32 on a CPU:
  plain     16 prompts of 128 tokens that share nothing, 64 new tokens each: nothing to gain but overhead;
  executor  8 problems × 4 traces × 3 runs, and 3 baseline runs a problem; prompts of 128–256 tokens made of one
            instruction, a problem and a trace; answers of 1–64 tokens.
Lengths are fixed in advance and equal for both. Every measurement is its own process, ours and the rival's in turn, so
neither warms up the other; time is the best and the median of the repetitions, by the clock and by CPU time (the fairer
one on a machine that others use too), memory the process's peak resident set above what it held once the model was
loaded, and apart from it the anonymous part, without the pages of library code that a first call reads in. transformers pads on the left, samples with temperature 1 and neither
top-k nor top-p, and stops each row at its length by a StoppingCriteria.

Tokens: what one problem costs the executor in prompts, from the sampler's own counters, with the embedded math
executor, G = 4 traces and K = 3 runs, beside the 28 prompts that the authors' code prefills (docs/sampler.md).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from models.config import ModelConfig  # noqa: E402
from models.transformer import Transformer  # noqa: E402

SHAPES = {
    "135M": ModelConfig(49152, 576, 1536, 30, 9, 3, 64, 2048, norm_eps=1e-5),
    "tiny": ModelConfig(512, 128, 384, 3, 4, 2, 32, 2048, norm_eps=1e-5),
}
RIVAL_BATCH = 32  # rows of one `generate` call on the executor's workload


def workload(name: str, vocab: int) -> tuple[list[list[int]], list[int]]:
    """Prompts and the number of new tokens of each."""
    draw = random.Random(0)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(3, vocab) for _ in range(draw.randint(low, high))]

    if name == "plain":
        return [ids(128, 128) for _ in range(16)], [64] * 16
    prompts: list[list[int]] = []
    instruction = ids(64, 64)
    for _ in range(8):
        problem = instruction + ids(64, 96)
        for prompt in [problem] + [problem + ids(32, 96) for _ in range(4)]:
            prompts += [prompt] * 3
    return prompts, [draw.randint(1, 64) for _ in prompts]


def run_ours(model: Transformer, prompts: list[list[int]], lengths: list[int]) -> dict[str, int]:
    from tracelift.sampler import Sampler, SamplingParams

    params = [SamplingParams(max_new_tokens=n, seed=1) for n in lengths]
    answers = Sampler(model, (), 0).generate(prompts, params)
    assert [len(a.tokens) for (a,) in answers] == lengths
    return {}


def run_rival(model, prompts: list[list[int]], lengths: list[int]) -> dict[str, int]:
    from transformers import StoppingCriteria, StoppingCriteriaList

    class StopAtLength(StoppingCriteria):
        def __init__(self, prompt: int, rows: list[int]) -> None:
            self.ends = torch.tensor(rows) + prompt

        def __call__(self, input_ids, scores, **_):
            return input_ids.shape[1] >= self.ends

    batch = RIVAL_BATCH if len(prompts) > RIVAL_BATCH else len(prompts)
    for at in range(0, len(prompts), batch):
        some, rows = prompts[at : at + batch], lengths[at : at + batch]
        width = max(map(len, some))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in some])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in some])
        model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max(rows),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            pad_token_id=0,
            eos_token_id=None,
            stopping_criteria=StoppingCriteriaList([StopAtLength(width, rows)]),
        )
    return {"rows per call": batch}


def child(who: str, name: str, shape: str, threads: int) -> None:
    """One measurement; prints it as JSON."""
    torch.set_num_threads(threads)
    config = SHAPES[shape]
    model = Transformer(config).init_weights(0)
    prompts, lengths = workload(name, config.vocab_size)
    run = run_ours
    if who == "transformers":
        model, run = to_transformers(model), run_rival
    warm = [p[:8] for p in prompts[:2]]
    run(model, warm, [2, 2])
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew from what is resident now
    before, files = resident("VmHWM"), resident("RssFile")
    start, cpu = time.perf_counter(), time.process_time()
    notes = run(model, prompts, lengths)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    peak = resident("VmHWM") - before
    measured = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes_above_model": peak}
    measured["peak_anonymous_bytes"] = peak - (resident("RssFile") - files)
    print(json.dumps(measured | notes))


def to_transformers(model: Transformer):
    from transformers import LlamaConfig, LlamaForCausalLM

    c = model.config
    rival = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.hidden_size,
            intermediate_size=c.intermediate_size,
            num_hidden_layers=c.num_layers,
            num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            max_position_embeddings=c.max_positions,
            rms_norm_eps=c.norm_eps,
            tie_word_embeddings=True,
        )
    )
    missing, unexpected = rival.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected and missing in ([], ["lm_head.weight"]), (missing, unexpected)
    rival.tie_weights()
    return rival.eval()


def resident(what: str) -> int:
    """Bytes of this process: VmHWM, the peak of all that is resident, or RssFile, pages of files (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith(what + ":"))


def tokens_computed(problems: int = 8, traces: int = 4, repeats: int = 3) -> dict[str, float]:
    """Prompt tokens of one problem's executor runs, by the sampler's counters, and by the authors' way of running them."""
    import models
    from tracelift.executor.executor import Executor, ExecutorSettings
    from tracelift.executor.local import LocalBackend
    from tracelift.tasks.prompts import BASELINE, EXECUTOR
    from tracelift.worlds.tasks import DemoTasks

    tokenizer = models.load_tokenizer(ROOT / "assets/math/executor")
    backend = LocalBackend(models.load_pretrained(ROOT / "assets/math/executor"), tokenizer)
    settings = ExecutorSettings(EXECUTOR["math"], BASELINE["math"], repeats, repeats, max_new_tokens=8)
    executor = Executor(backend, settings)
    items, theirs, prompts = [], 0, 0
    for task in DemoTasks(seed=4242).first(problems):
        mine = [(task, f"{task.truth.trace} Variant {i}.") for i in range(traces)]
        lengths = [len(tokenizer.encode(executor.trace_prompt(*item))) for item in mine]
        # Each trace: one end-to-end run, K with the trace, and the K baselines sampled anew.
        theirs += (1 + repeats) * sum(lengths) + traces * repeats * len(
            tokenizer.encode(executor.baseline_prompt(task))
        )
        prompts += traces * (1 + 2 * repeats)
        items += mine
    executor.evaluate(items)
    ours = backend.sampler.prefilled_tokens
    return {
        "problems": problems,
        "traces": traces,
        "repeats": repeats,
        "released code: prompts a problem": prompts / problems,
        "released code: prompt tokens a problem": theirs / problems,
        "prompt tokens computed a problem": ours / problems,
        "share": ours / theirs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, results printed only")
    parser.add_argument("--tokens", action="store_true", help="count prompt tokens only, and print them")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each side (default 1)")
    parser.add_argument("--workloads", nargs="+", default=["plain", "executor"], choices=["plain", "executor"])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/sampler.json")
    parser.add_argument("--child", nargs=3, metavar=("WHO", "WORKLOAD", "SHAPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child, threads=args.threads)
        return
    torch.set_num_threads(args.threads)
    tokens = tokens_computed()
    print(json.dumps(tokens))
    if args.tokens:
        return
    import transformers

    shape = "tiny" if args.quick else "135M"
    report = {
        "benchmark": "sampler",
        "command": "python benchmarks/sampler.py " + " ".join(sys.argv[1:]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "shape": shape,
        "dtype": "float32",
        "threads": args.threads,
        "load average before": os.getloadavg(),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "tokens": tokens,
        "workloads": {},
    }
    for name in args.workloads:
        runs: dict[str, list[dict]] = {"ours": [], "transformers": []}
        for _ in range(args.repeats):
            for who, seen in runs.items():
                command = [sys.executable, __file__, "--child", who, name, shape, "--threads", str(args.threads)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{who} failed on {name}:\n{done.stderr}")
                seen.append(json.loads(done.stdout.splitlines()[-1]))
                print(
                    f"{name:9s} {who:13s} {seen[-1]['seconds']:8.2f} s, {seen[-1]['cpu_seconds']:8.2f} s of CPU",
                    flush=True,
                )
        report["workloads"][name] = entry = {}
        for who, seen in runs.items():
            times = [r["seconds"] for r in seen]
            peak = max(r["peak_bytes_above_model"] for r in seen)
            anonymous = max(r["peak_anonymous_bytes"] for r in seen)
            entry[who] = {"seconds": times, "best": min(times), "median": statistics.median(times), "peak bytes": peak}
            entry[who]["peak anonymous bytes"] = anonymous
            cpu = [r["cpu_seconds"] for r in seen]
            entry[who] |= {"cpu seconds": cpu, "best cpu": min(cpu), "median cpu": statistics.median(cpu)}
        ours, rival = entry["ours"], entry["transformers"]
        entry["speedup (best)"] = round(rival["best"] / ours["best"], 2)
        entry["speedup (median)"] = round(rival["median"] / ours["median"], 2)
        entry["speedup (median cpu)"] = round(rival["median cpu"] / ours["median cpu"], 2)
        entry["memory ratio"] = round(ours["peak bytes"] / max(1, rival["peak bytes"]), 2)
        print(
            f"{name}: {entry['speedup (median)']}× transformers (median), {entry['speedup (best)']}× (best), "
            f"{entry['speedup (median cpu)']}× by CPU time, "
            f"peak memory {ours['peak bytes'] / 1e6:.0f} MB against {rival['peak bytes'] / 1e6:.0f} MB"
        )
    if not args.quick:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")
        print(f"wrote {args.out}")


def _cpu() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0]}, {torch.backends.cpu.get_cpu_capability()}" if names else platform.processor()


if __name__ == "__main__":
    main()
