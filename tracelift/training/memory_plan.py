"""The memory plan of a planner run, from config.json files and arithmetic alone: printed before anything is loaded.

    python -m tracelift.training.memory_plan [CONFIG.toml] [--section.key value ...] [--ranks N]

A round has two peaks. While sampling: all weights, optimizer states, the sampler's keys, values and workspace. While
updating: all weights, optimizer states, gradients, the activations of one micro-batch, one chunk of logits. What a token
leaves behind in a block for the backward pass, in elements of the activations' dtype:

    inputs of block and MLP 2D, norms 2D (+ 2D where their weights train, + 4 bytes a norm input in bf16), queries H·E,
    keys and values 2G·E, attention out 2H·E, the MLP's four products 4F, LoRA: the rank of each adapter

and with checkpointing D, once per block, beside one whole block at a time. tests/tracelift/training/test_memory_plan.py measures the
peak of real passes against this. Left out: the allocator's fragmentation and CUDA's own context (allow 5 to 10%), the
interpreter, and backends other than those here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from kernels.linear import chunk_rows
from models import ModelConfig, Transformer
from models.hf_config import read_config
from models.lora import PROJECTIONS, read_adapter_config
from tracelift.config import Config, load_config
from tracelift.distributed.world import device_named
from tracelift.errors import ConfigError, naming
from tracelift.training.optimizer import BLOCK

GiB, MiB = 1 << 30, 1 << 20


@dataclass(frozen=True)
class Shape:
    """A model's parameter counts: all, those within one block, those that stay fp32 vectors, and LoRA's beside them."""

    config: ModelConfig
    total: int
    block: int
    vectors: int
    lora: int

    @classmethod
    def of(cls, config: ModelConfig, rank: int = 0, targets: tuple[str, ...] = ()) -> Shape:
        with torch.device("meta"):
            model = Transformer(config)
        linears = [
            m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n.rpartition(".")[2] in targets
        ]
        return cls(
            config,
            sum(p.numel() for p in model.parameters()),
            sum(p.numel() for p in model.model.layers[0].parameters()),
            sum(p.numel() for p in model.parameters() if p.dim() < 2),
            rank * sum(m.in_features + m.out_features for m in linears),
        )


@dataclass
class Plan:
    """Bytes on one device, by what holds them. `always` is there throughout, the other two take turns."""

    always: dict[str, int] = field(default_factory=dict)
    sampling: dict[str, int] = field(default_factory=dict)
    updating: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def peak(self) -> int:
        return sum(self.always.values()) + max(sum(self.sampling.values()), sum(self.updating.values()))

    def render(self, available: int | None = None) -> str:
        lines = ["memory plan, one device (estimates; see tracelift/training/memory_plan.py):"]
        for title, part in (
            ("always", self.always),
            ("while sampling", self.sampling),
            ("while updating", self.updating),
        ):
            lines += [f"  {title:15} {size(b):>10}  {name}" for name, b in part.items() if b]
        lines.append(
            f"  {'peak':15} {size(self.peak):>10}" + (f"  of {size(available)} available" if available else "")
        )
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def size(n: int) -> str:
    return f"{n / GiB:.2f} GiB" if n >= GiB // 10 else f"{n / MiB:.1f} MiB"


def block_activation_bytes(shape: Shape, itemsize: int, lora: bool, rank: int = 0, adapters: int = 0) -> int:
    """Bytes that one token leaves behind in one block (module docstring)."""
    c = shape.config
    D, F, HE, GE = c.hidden_size, c.intermediate_size, c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    norms = 2 * D if lora else 4 * D
    elements = 2 * D + norms + 3 * HE + 2 * GE + 4 * F + rank * adapters
    widened = 0 if itemsize == 4 else 2 * D * 4
    if c.qk_norm:
        elements += (HE + GE) * (1 if lora else 2)
        widened += 0 if itemsize == 4 else (HE + GE) * 4
    return elements * itemsize + widened


def activation_bytes(
    shape: Shape,
    tokens: int,
    longest_row: int,
    itemsize: int,
    *,
    checkpointing: bool,
    lora: bool,
    rank: int = 0,
    adapters: int = 0,
    shared_prompt: bool = True,
) -> int:
    """Activations of one micro-batch of `tokens` positions whose rows hold `longest_row`, at the end of its forward."""
    c = shape.config
    one = tokens * block_activation_bytes(shape, itemsize, lora, rank, adapters)
    # Samples that share a prompt need a mask: boolean once, and as numbers beside every layer that is kept. Where
    # tracelift/training/packed_attention.py takes blocks instead, each layer keeps its samples' copies of the prompt's keys: less.
    mask = tokens * longest_row * itemsize if shared_prompt else 0
    ends = tokens * c.hidden_size * (4 if itemsize == 4 else 4 + 4 / itemsize) * itemsize
    if checkpointing:
        return int(c.num_layers * tokens * c.hidden_size * itemsize + one + mask * 1.25 + ends)
    return int(c.num_layers * (one + mask) + mask // 4 + ends)


def optimizer_bytes(shape: Shape, trained: int, vectors: int, itemsize: int, config: Config) -> int:
    """AdamW's states (tracelift/training/optimizer.py)."""
    per = {"float32": 8.0, "bfloat16": 4.0, "int8": 2 + 8 / BLOCK}[config.optim.state_dtype]
    master = 4 * trained if itemsize == 2 and config.optim.master_weights else 0
    return int((trained - vectors) * per + vectors * 8 + master)


def logits_bytes(c: ModelConfig, device: str, itemsize: int, head_trains: bool, tokens: int) -> int:
    """One chunk of logits, and the head's gradient summed in fp32 before it is rounded."""
    probe = torch.empty(0, device="meta" if device != "cpu" else "cpu")
    rows = min(tokens, chunk_rows(probe, c.vocab_size))
    return 2 * rows * c.vocab_size * itemsize + (c.vocab_size * c.hidden_size * 4 if head_trains else 0)


def planner_plan(config: Config, device: str = "cpu", ranks: int = 1, planner: ModelConfig | None = None) -> Plan:
    """The plan of `run.stage = "planner"`. Reads config.json of planner, executor and Reason RM, nothing else.

    planner: the shape, where there is no folder yet. Raises FileNotFoundError or CheckpointError as models do.
    """
    itemsize = getattr(torch, config.run.dtype).itemsize
    rank, targets = adapter_of(config)
    lora = rank > 0
    c = planner or config_at("planner.path", config.planner.path)
    shape = Shape.of(c, rank, targets)
    trained, vectors = (shape.lora, 0) if lora else (shape.total, shape.vectors)
    train_size = 4 if lora else itemsize  # adapters are fp32
    sharded = config.parallel.mode == "fsdp"
    shards = ranks if sharded else 1
    plan = Plan()
    held = shape.total * itemsize + shape.lora * 4
    plan.always["planner weights" + (f", 1/{ranks} of them" if sharded and ranks > 1 else "")] = held // shards
    states = optimizer_bytes(shape, trained, vectors, train_size, config)
    plan.always["optimizer states"] = states // shards
    if sharded:
        plan.always["the sampler's whole copy"] = held
    if config.grpo.kl_coef > 0 and not lora:
        plan.always["KL reference"] = shape.total * itemsize // shards
    if config.grpo.kl_coef > 0 and config.planner.adapter:
        again = shape.total * itemsize // shards if sharded else 0  # shards of the base are not shared
        plan.always["KL reference: the starting adapter"] = shape.lora * 4 // shards + again
    _frozen(plan, config, itemsize)

    budget = config.executor.memory_mb * MiB
    plan.sampling["keys, values and workspace (executor.memory_mb)"] = budget
    if lora:
        plan.sampling["weights set aside while adapters are merged"] = _adapted(shape, targets) * itemsize

    G, new = config.planner.samples, config.planner.max_new_tokens
    prompt = -(-config.planner.max_problem_chars // 3)  # tokens: about 3.5 characters each, and the prompt's own words
    row = min(prompt + G * (new - 1), max(config.optim.micro_tokens, prompt + new - 1))
    tokens = min(max(config.optim.micro_tokens, row), row * -(-config.grpo.problems // ranks))
    plan.updating["gradients"] = trained * train_size // shards
    if ranks > 1 and not sharded:
        plan.updating["gradient messages"] = trained * 4
    if sharded:
        plan.updating["gathered blocks"] = (2 * shape.block + shape.total - c.num_layers * shape.block) * itemsize
    plan.updating[
        f"activations of a micro-batch ({tokens:,} tokens{', checkpointed' if config.optim.checkpoint_activations else ''})"
    ] = activation_bytes(
        shape,
        tokens,
        row,
        itemsize,
        checkpointing=config.optim.checkpoint_activations,
        lora=lora,
        rank=rank,
        adapters=len(targets),
    )
    plan.updating["a chunk of logits" + ("" if lora else ", the head's gradient")] = logits_bytes(
        c, device, itemsize, not lora, tokens
    )
    return plan


def config_at(key: str, path: str) -> ModelConfig:
    """The architecture in a model folder's config.json. Raises as `models` does, naming the key that gives the folder."""
    with naming(key, path):
        return read_config(path)[0]


def adapter_of(config: Config) -> tuple[int, tuple[str, ...]]:
    """(rank, targets) of the adapters that will be trained; rank 0: every weight is. Raises as `read_adapter_config`."""
    if not config.planner.adapter:
        return config.lora.r, tuple(config.lora.targets)
    with naming("planner.adapter", config.planner.adapter):
        found = read_adapter_config(config.planner.adapter)
    return found.r, PROJECTIONS if isinstance(found.targets, str) else found.targets  # an expression: at most all seven


def _adapted(shape: Shape, targets: tuple[str, ...]) -> int:
    with torch.device("meta"):
        model = Transformer(shape.config)
    return sum(
        m.weight.numel()
        for n, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and n.rpartition(".")[2] in targets
    )


def _frozen(plan: Plan, config: Config, itemsize: int) -> None:
    """Executor and Reason RM, where they are on this device. An RM counts as its backbone: its heads are a few vectors."""
    e, r = config.executor, config.reward_model
    if e.url:
        plan.notes.append(f"the executor is remote ({e.url}): nothing of it is held here")
    elif e.device:
        plan.notes.append(f"the executor is on {e.device}, which is not planned for here")
    else:
        plan.always["executor weights"] = Shape.of(config_at("executor.path", e.path)).total * itemsize
    if r.device and not r.url:
        plan.notes.append(f"the Reason RM is on {r.device}, which is not planned for here")
    elif r.path and not r.url and Path(r.path).exists():
        plan.always["Reason RM weights"] = Shape.of(config_at("reward_model.path", r.path)).total * itemsize


def available_bytes(device: torch.device, local_ranks: int = 1) -> int | None:
    """Memory this rank may use: free on its GPU, or its share of the machine's; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else None
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
        group = Path("/sys/fs/cgroup")
        if (group / "memory.max").exists() and (most := (group / "memory.max").read_text().strip()) != "max":
            limits.append(int(most) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        return None
    return min(limits) // local_ranks if limits else None


def advice(config: Config, device: str, ranks: int, peak: int) -> list[str]:
    """Single switches that lower the peak, with the peak they lead to, best first."""
    tries = {
        "optim.checkpoint_activations = true": ("optim", "checkpoint_activations", True),
        "optim.micro_tokens halved": ("optim", "micro_tokens", max(1, config.optim.micro_tokens // 2)),
        "optim.state_dtype = 'int8'": ("optim", "state_dtype", "int8"),
        "lora.r = 16": ("lora", "r", 16),
        "run.dtype = 'bfloat16'": ("run", "dtype", "bfloat16"),
        "executor.memory_mb halved": ("executor", "memory_mb", max(1, config.executor.memory_mb // 2)),
        "parallel.mode = 'fsdp'": ("parallel", "mode", "fsdp"),
    }
    found = []
    for text, (section, key, value) in tries.items():
        part = getattr(config, section)
        before = getattr(part, key)
        if before == value or (key == "r" and before):
            continue
        setattr(part, key, value)
        try:
            found.append((planner_plan(config, device, ranks).peak, text))
        finally:
            setattr(part, key, before)
    return [f"{text}: {size(p)}" for p, text in sorted(found) if p < 0.98 * peak]


def say_memory_plan(
    config: Config, device: torch.device, ranks: int, local_ranks: int, say: Callable[[str], None]
) -> Plan:
    """Print the plan, and what will not fit with what would help."""
    plan = planner_plan(config, device.type, ranks)
    available = available_bytes(device, local_ranks)
    say(plan.render(available))
    if available is not None and plan.peak > available:
        say(
            f"  will not fit: {size(plan.peak)} planned, {size(available)} available on {device}. Peak after one change:\n"
            + "\n".join(f"    {line}" for line in advice(config, device.type, ranks, plan.peak))
        )
    return plan


def main(argv: list[str]) -> int:
    if any(word in ("-h", "--help") for word in argv):
        print(
            "usage: python -m tracelift.training.memory_plan [CONFIG.toml] [--section.key value ...] [--ranks N]\n\n"
            "The memory plan of a planner run with this config; nothing is loaded. train.py --help lists the keys."
        )
        return 0
    try:
        ranks = 1
        if "--ranks" in argv:
            at = argv.index("--ranks")
            if at + 1 == len(argv) or not argv[at + 1].isdigit() or int(argv[at + 1]) < 1:
                raise ConfigError("command line: --ranks needs a number of at least 1")
            ranks = int(argv[at + 1])
            argv = argv[:at] + argv[at + 2 :]
        path = argv.pop(0) if argv and not argv[0].startswith("--") else None
        config = load_config(path, argv)
        if config.run.stage != "planner":
            raise ConfigError(f"run.stage = '{config.run.stage}': the plan knows the planner stage only")
        device = device_named(config.run.device, "run.device")
        here = torch.cuda.device_count() if device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
        say_memory_plan(config, device, ranks, min(ranks, max(1, here)), print)
        return 0
    except (ConfigError, OSError, ValueError) as e:
        print(f"tracelift.training.memory_plan: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
