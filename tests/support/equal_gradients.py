"""One rank's side of the equality tests: loss, gradients, norm and update of many set-ups against one process.

`main([OUT, CASES])` runs inside a job of any number of ranks; CASES is a JSON list of set-ups (the fields of `Case`), and
OUT/RANK.json gets what was found. The reference is always the same: every row in one batch, in one process, no sharding.
"""

import json
from dataclasses import asdict, dataclass

import torch

import kernels
from models import ModelConfig, Transformer
from models.lora import LoRAConfig, attach, merged
from support.random_models import FIELDS
from tracelift.config.schema import OptimConfig
from tracelift.distributed.parallel import Parallel
from tracelift.distributed.world import World, join, leave
from tracelift.training.learner import Learner
from tracelift.training.packing import Row, micro_batches, pack

SHAPE = {"vocab_size": 211, "hidden_size": 32, "intermediate_size": 48, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2,
         "head_dim": 8, "max_positions": 256, "qkv_bias": True, "family": "qwen2"}  # fmt: skip
IDLE = Row([0], [[0]], [0])


@dataclass(frozen=True)
class Case:
    mode: str
    lora: int = 0
    checkpointing: bool = False
    packed: bool = True  # samples share their prompt
    tokens: int = 40  # a micro-batch; 40 makes several a rank
    tied: bool = True
    dtype: str = "float32"
    family: str = ""  # its fields instead of Qwen2's bias


def rows():
    gen = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(211, (n,), generator=gen).tolist()  # noqa: E731
    return [
        Row(draw(5 + i % 3), [draw(4 + (i + j) % 5) for j in range(3)], [3 * i + j for j in range(3)]) for i in range(5)
    ]


def build(case):
    # No bias there: one of keys that do not turn moves no probability, and its gradient is rounding alone.
    own = {"qkv_bias": False, **FIELDS[case.family]} if case.family else {}
    shape = ModelConfig(**{**SHAPE, "tied_head": case.tied, **own})
    model = Transformer(shape).init_weights(0, std=0.1).to(getattr(torch, case.dtype))
    if case.lora:
        attach(model, LoRAConfig(case.lora, 8.0), seed=1)
        noise = torch.Generator().manual_seed(2)
        for name, p in model.named_parameters():
            if name.endswith("lora_b"):
                p.data.normal_(std=0.05, generator=noise)
    return model


def loss_of(parallel, micro, total):
    b = pack(micro, 0)
    hidden = b.predictors(parallel.policy(b.tokens, b.positions, b.attend()))
    s = kernels.linear_logprob(hidden, parallel.policy.head_weight, b.targets, temperature=0.7)
    return (s.entropy - s.logprob).sum() / total  # both scores of the objective


def full(x):
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def wide(x):
    return full(x.detach()).double()


def optim(case, **more):
    return OptimConfig(lr=0.01, warmup=0, state_dtype="int8" if case.packed else "float32", max_grad_norm=0.5, **more)


def examine(case: Case, world: World) -> dict:
    together = rows()
    total = sum(len(s) for r in together for s in r.samples)
    separate = [Row(r.prompt, [s], [i]) for r in together for s, i in zip(r.samples, r.sequence_ids, strict=True)]
    alone = build(case)
    single = Learner(alone, optim(case), 10, World())
    expected = loss_of(single.parallel, together, total)
    expected.backward()
    model = build(case)
    parallel = Parallel(model, case.mode, world)
    learner = Learner(model, optim(case, checkpoint_activations=case.checkpointing), 10, world, parallel)
    loss, turns = 0.0, 0

    def idle():
        (0 * loss_of(parallel, [IDLE], total)).backward()

    for micro in parallel.paced(micro_batches(world.share(together if case.packed else separate), case.tokens), idle):
        turns += 1
        piece = loss_of(parallel, micro, total)
        piece.backward()
        loss += piece.item()
    parallel.sum_gradients(learner.names)
    parallel.sum_gradients = lambda names: None  # done: the update shall find them as they are compared here
    exact = {name: wide(p.grad) for p, name in single.names.items()}
    errors = {
        name: ((wide(p.grad) - exact[name]).norm() / exact[name].norm()).item() for p, name in learner.names.items()
    }
    shards = {
        name: p.to_local().numel() / p.numel()
        for p, name in learner.names.items()
        if hasattr(p, "to_local") and p.dim() > 1
    }
    metrics, alone_metrics = learner.update(0), single.update(0)
    parallel.gather()
    after, wanted = dict(parallel.whole.named_parameters()), dict(alone.named_parameters())
    apart = {name: ((wide(after[name]) - wide(q)).norm().item(), q.numel()) for name, q in wanted.items()}
    moved = max(norm / (0.01 * n**0.5) for norm, n in apart.values())  # in learning rates, of the worst parameter
    moved_all = (sum(norm**2 for norm, _ in apart.values()) / sum(n for _, n in apart.values())) ** 0.5 / 0.01
    with (
        torch.no_grad(),
        merged(parallel.whole) as folded,
    ):  # what is sampled from and saved; without LoRA the model itself
        merged_loss = loss_of(Parallel(folded, "none", World()), together, total).item()
        moved_loss = loss_of(single.parallel, together, total).item()
    where = max(errors, key=errors.get)
    return {
        "loss": [sum(world.gather(loss)), expected.item()],
        "error": errors[where],
        "where": where,
        "turns": turns,
        "moved": moved,
        "moved_all": moved_all,
        "norm": [metrics["grad_norm"], alone_metrics["grad_norm"]],
        "names": sorted(errors) == sorted(exact),
        "shards": shards,
        "kept": all(after[name].shape == q.shape for name, q in wanted.items()),
        "merged": [merged_loss, moved_loss],
    }


def main(argv):
    out, cases = argv
    world = join("cpu")
    found = [asdict(case) | examine(case, world) for case in (Case(**c) for c in json.loads(cases))]
    leave()
    with open(f"{out}/{world.rank}.json", "w") as f:
        json.dump(found, f)
    return 0
