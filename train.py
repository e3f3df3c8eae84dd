"""Train a planner to write reasoning that measurably helps a frozen executor (TraceLift, arXiv 2605.03862).

    torchrun --standalone --nproc_per_node=1 train.py [CONFIG.toml] [--section.key value ...]

Read from top to bottom, `train_planner` is the algorithm:

    sample     z ~ π_θ(· | x), G traces a problem
    execute    E(x, z; seed_k) and, once per problem, E(x; seed_k): the frozen executor, K runs an arm
    verify     V(artifact) → PASS, FAIL or ERROR
    score      R(x, z) ∈ [0, 1]: the Reason RM
    reward     0.5·e2e + 0.5·R·uplift, or for programs exec + 0.2·R·c; in the paper's or the corrected variant, or an ablation
    update     GRPO on the group's advantages
    log, checkpoint

The other stages (`run.stage = "sft" | "reward_model"`) enter here too and live in tracelift/training/sft.py and
tracelift/reward_model/train.py. Exit codes: 0 done, 1 bad configuration, data or model, 2 training could not go on,
143 stopped by SIGTERM after saving.
"""

from __future__ import annotations

import os
import random
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import kernels
from models import Transformer
from tracelift.build import (
    build_executor,
    build_policy,
    build_scorer,
    check_references,
    from_any_rank,
    load_held_out,
    load_tasks,
    quiet_unless_main,
)
from tracelift.config import Config, help_text, load_config
from tracelift.distributed.parallel import Parallel
from tracelift.distributed.world import World, join, leave, lost_contact, pick_device, restarted, set_threads
from tracelift.errors import ConfigError, ServerGone, TrainingError
from tracelift.reward_model.train import run_reward_model
from tracelift.rl.grpo import BatchCounts, Reference, advantages, policy_loss, token_weights
from tracelift.rl.nan_dump import describe, keep_batch
from tracelift.rl.report import Report
from tracelift.rl.rollout import grade_everywhere, needs_uplift
from tracelift.rl.sample import Sample, refuse_too_many_errors
from tracelift.runs.folder import RunFolder, choose_folder
from tracelift.runs.signals import EXIT_STOPPED, StopSignal
from tracelift.sandbox import SandboxError
from tracelift.training.learner import Learner
from tracelift.training.memory_plan import announce
from tracelift.training.packing import Row, micro_batches, pack
from tracelift.training.sft import run_sft


def train_planner(
    config: Config, run: RunFolder, world: World, device: torch.device, say: Callable[[str], None]
) -> int:
    # -- load: policy π_θ, executor E with verifier V, Reason RM R, problems x ----------------------------------------
    announce(config, device, world.size, world.local_size, say)  # the memory plan, before any weight is read
    policy = build_policy(config, world, device)
    stop = StopSignal(config.run.stop_s)
    heard = from_any_rank(world), lambda: stop.seen  # who hears that a server is waited for, and what ends the wait
    executor = build_executor(config, device, baseline_file(config, run, world), *heard)
    scorer = build_scorer(config, device, *heard)
    tasks = load_tasks(config.data.source, config.data.seed, config.data.limit, config.planner.max_problem_chars, say)
    check_references(config, tasks)
    learner = Learner(
        policy.model, config.optim, config.run.steps, world, policy.parallel, partial(keep_batch, run.path / "nan")
    )
    report = Report(
        config, run, world, policy.prompt, policy.sampler, executor, scorer, load_held_out(config, say), say
    )
    say(describe_run(config, learner))

    done = learner.resume_run(run, policy.read, say) if config.run.resume else 0
    report.start(done)
    save = partial(learner.save, run, keep=config.run.keep, write_model=policy.write, state={})
    early = partial(executor.begin, need_repeats=needs_uplift(config)) if config.executor.url else None

    for step in range(done, config.run.steps):
        round = report.round(step)

        # -- sample: G traces z a problem -----------------------------------------------------------------------------
        problems = world.share(list(enumerate(tasks.round(step, config.grpo.problems))))  # with their global number
        groups = policy.sample(step, problems, early)
        round.lap("sample", trained_tokens(groups))

        # -- execute, verify, score, reward: E(x, z), V, R(x, z), in place --------------------------------------------
        try:
            everyone = grade_everywhere(groups, executor, scorer, config, world)
        except ServerGone as e:  # on every rank alike: this round is not finished, what was learned is saved
            if step > done:
                save(step)
            if not world.any(stop.seen):
                raise ServerGone(f"round {step + 1} was not finished: {e}") from None
            say(f"stopped on request in round {step + 1}; add --resume to go on with it")
            return EXIT_STOPPED
        refuse_too_many_errors(everyone, config.executor.max_error_share, step)
        round.lap("grade", round.executor_tokens)

        # -- update: GRPO on the groups' advantages -------------------------------------------------------------------
        metrics = update_policy(
            policy.parallel.policy, groups, learner, policy.reference, config, world, step, policy.tokenizer.pad_id
        )
        round.lap("update", trained_tokens(groups))

        # -- log, checkpoint ------------------------------------------------------------------------------------------
        round.log(everyone, metrics)
        stopping = world.any(stop.seen)
        if stopping or (step + 1) % config.run.save_every == 0 or step + 1 == config.run.steps:
            save(step + 1)
        if stopping:
            say(f"stopped on request after round {step + 1}; add --resume to go on from here")
            return EXIT_STOPPED

    policy.export(run.path, writes=world.is_main)
    report.after()
    return 0


def trained_tokens(groups: list[list[Sample]]) -> int:
    return sum(len(s.completion.tokens) for g in groups for s in g)


def baseline_file(config: Config, run: RunFolder, world: World) -> Path:
    return Path(config.executor.cache or run.path / f"baseline_cache.{world.rank}.jsonl")


def describe_run(config: Config, learner: Learner) -> str:
    return (
        f"planner {config.planner.path}: {sum(p.numel() for p in learner.names) / 1e6:.2f} M trained parameters; "
        f"{config.grpo.problems} problems x {config.planner.samples} traces a round, {config.run.steps} rounds, "
        f"reward {config.reward.mode} ({config.reward.variant})"
    )


IDLE = Row([0], [[0]], [0])  # the smallest row there is


def update_policy(
    planner: Transformer,
    groups: list[list[Sample]],
    learner: Learner,
    reference: Reference | None,
    config: Config,
    world: World,
    step: int,
    pad_id: int,
) -> dict[str, float]:
    """All optimizer updates on one rollout: `epochs` passes of `minibatches` updates. Returns metrics.

    Every weight is divided by counts over the global minibatch before the first backward, so micro-batches and ranks
    change nothing but memory and time.
    """
    c, device, parallel = config.grpo, planner.device, learner.parallel
    rewards = torch.tensor([[s.reward if s.reward is not None else 0.0 for s in g] for g in groups])  # (P', G)
    valid = torch.tensor([[s.error is None for s in g] for g in groups], dtype=torch.bool)  # (P', G)
    if not groups:
        rewards, valid = rewards.view(0, 1), valid.view(0, 1)
    advantage = advantages(rewards, valid, c.advantage_scale)
    flat = [s for g in groups for s in g]  # a sequence's id is its place here
    flat_advantage = advantage.flatten()
    always = c.entropy_coef != 0 or c.kl_coef > 0  # terms that act on groups without spread too
    sums: dict[str, float] = defaultdict(float)
    metrics: dict[str, float] = {}
    loss_sum, passes = 0.0, 0
    fresh_sum, fresh_count, fresh_max = 0.0, 0.0, 0.0

    for epoch in range(c.epochs):
        order = list(range(c.problems))  # over all ranks, so that a minibatch is the same whoever computes it
        if c.minibatches > 1:
            random.Random(f"minibatch:{config.run.seed}:{step}:{epoch}").shuffle(order)
        for part in range(c.minibatches):
            picked = [i // world.size for i in order[part :: c.minibatches] if i % world.size == world.rank]
            counts, rows = minibatch(groups, picked, valid, advantage, always, config, world)
            losses: list[tuple[list[int], float]] = []
            for micro in parallel.paced(micro_batches(rows, config.optim.micro_tokens)):
                if (
                    micro is None
                ):  # out of rows before other ranks are: forward and backward may be collectives, so take part
                    score_tokens(
                        parallel, reference, [IDLE], pad_id, config, lambda scores, *_: 0 * scores.logprob.sum()
                    )[0].backward()
                    continue
                ids = [i for row in micro for i in row.sequence_ids]
                samples = [flat[i] for i in ids]
                lengths = torch.tensor([len(s.completion.tokens) for s in samples], device=device)
                old = torch.tensor([x for s in samples for x in s.completion.logprobs], device=device)
                by_sample = flat_advantage[torch.tensor(ids)].to(device)
                local = torch.repeat_interleave(torch.arange(len(ids), device=device), lengths)
                weight = token_weights(local, lengths, counts, c.aggregate)

                def objective(scores: kernels.TokenScores, *data: Tensor) -> Tensor:
                    """The loss of some tokens; data: old, advantage, weight, sequence and, with a reference, its log-prob."""
                    piece = policy_loss(
                        scores.logprob,
                        *data[:4],
                        c,
                        entropy=scores.entropy,
                        exact_kl=scores.kl,
                        ref_logprob=data[4] if reference else None,
                    )
                    for name, value in piece.sums.items():
                        sums[name] += value.item()
                    return piece.loss

                loss, logprob = score_tokens(
                    parallel, reference, micro, pad_id, config, objective, old, by_sample[local], weight, local
                )
                loss.backward()
                losses.append((ids, loss.item()))
                if passes == 0:  # the rollout's own policy: every ratio should be 1
                    deviation = (logprob - old).exp().sub(1).abs()
                    fresh_sum, fresh_count = fresh_sum + deviation.sum().item(), fresh_count + deviation.numel()
                    fresh_max = max(fresh_max, deviation.max().item())
            metrics |= learner.update(
                step, passes, lambda: describe(rows, flat, flat_advantage.tolist(), losses, counts)
            )
            loss_sum += sum(loss for _, loss in losses)
            passes += 1

    names = ("clip_low", "clip_high", "ratio_deviation", "kl_old", "tokens", "entropy", "kl")
    parts = world.gather(({n: sums.get(n, 0.0) for n in names}, loss_sum, fresh_sum, fresh_count, fresh_max))
    total = {n: sum(p[0][n] for p in parts) for n in names}
    tokens = max(1.0, total["tokens"])
    metrics["loss"] = sum(p[1] for p in parts) / passes
    for n in ("clip_low", "clip_high", "kl_old", "entropy", "kl"):
        metrics[n] = total[n] / tokens
    metrics["fresh_ratio_deviation"] = sum(p[2] for p in parts) / max(1.0, sum(p[3] for p in parts))
    metrics["fresh_ratio_deviation_max"] = max(p[4] for p in parts)
    return metrics


def minibatch(
    groups: list[list[Sample]],
    picked: list[int],
    valid: Tensor,
    advantage: Tensor,
    always: bool,
    config: Config,
    world: World,
) -> tuple[BatchCounts, list[Row]]:
    """Global counts of a minibatch and this rank's rows; a sequence's id is G·group + sample.

    Samples whose advantage is zero count in the denominators but are not computed: they have no gradient.
    """
    kept = [(g, [i for i in range(len(groups[g])) if valid[g, i]]) for g in picked]
    tokens = sum(len(groups[g][i].completion.tokens) for g, members in kept for i in members)
    sequences = sum(len(members) for _, members in kept)
    totals = world.gather((tokens, sequences))
    counts = BatchCounts(sum(t for t, _ in totals), sum(n for _, n in totals), config.planner.max_new_tokens)
    rows = []
    for g, members in kept:
        moving = [i for i in members if always or advantage[g, i] != 0]
        if moving:
            samples = [groups[g][i].completion.tokens for i in moving]
            rows.append(Row(groups[g][0].prompt_tokens, samples, [g * config.planner.samples + i for i in moving]))
    return counts, rows


def score_tokens(
    parallel: Parallel,
    reference: Reference | None,
    rows: list[Row],
    pad_id: int,
    config: Config,
    objective: Callable[..., Tensor],
    *data: Tensor,
) -> tuple[Tensor, Tensor]:
    """`objective` of every trained token's scores, *data and the reference's log-probs, summed; and the log-probs, detached.

    The scores are those of the sampled distribution. Where tokens do not depend on one another, the objective is asked
    chunk by chunk and its gradient formed while the chunk's logits are at hand; a sequence's ratio needs them all first.
    """
    planner, T = parallel.policy, config.planner.temperature
    batch = pack(rows, pad_id, planner.device)
    hidden = batch.predictors(planner(batch.tokens, batch.positions, batch.attend()))  # (N, D)
    exact = {}
    if reference is not None:
        with torch.no_grad(), reference.active() as ref:
            ref_hidden = batch.predictors(ref(batch.tokens, batch.positions, batch.attend()))
            ref_weight = ref.head_weight
            data += (kernels.linear_logprob(ref_hidden, ref_weight, batch.targets, temperature=T).logprob,)
        if config.grpo.kl_estimator == "exact":
            exact = {"ref_hidden": ref_hidden, "ref_weight": ref_weight}
    if config.grpo.importance == "token":
        loss, scores = kernels.linear_loss(
            hidden, planner.head_weight, batch.targets, objective, *data, temperature=T, **exact
        )
    else:
        scores = kernels.linear_logprob(hidden, planner.head_weight, batch.targets, temperature=T, **exact)
        loss = objective(scores, *data)
    return loss, scores.logprob.detach()


def main(argv: list[str]) -> int:
    if any(word in ("-h", "--help") for word in argv):
        print(help_text())
        return 0
    argv = ["--run.resume" if word == "--resume" else word for word in argv]
    path = argv.pop(0) if argv and not argv[0].startswith("--") else None
    world = World()
    try:
        config = load_config(path, argv)
        if restarted():
            config.run.resume = True
        device = pick_device(config.run.device)
        world = join(device.type, config.parallel.timeout_s)
        say = quiet_unless_main(world.is_main)
        set_threads(world, config.run.threads)
        torch.manual_seed(config.run.seed)
        run = RunFolder(Path(world.gather(str(choose_folder(config, path)))[0]), writes=world.is_main)
        run.prepare(config)
        world.barrier()
        say(
            f"run folder {run.path}  ({config.run.stage}, {device}, {world.size} rank{'s' * (world.size > 1)}, "
            f"{torch.get_num_threads()} threads)"
        )
        if config.run.stage == "sft":
            run_sft(config, run, world, device, say)
            return 0
        if config.run.stage == "reward_model":
            run_reward_model(config, run, world, device, say)
            return 0
        return train_planner(config, run, world, device, say)
    except (ConfigError, FileNotFoundError, ValueError) as e:
        print(f"train.py: {e}", file=sys.stderr)
        return 1
    except (TrainingError, SandboxError, OSError) as e:
        print(f"train.py: {e}", file=sys.stderr)
        return 2
    except RuntimeError as e:
        if (why := lost_contact(e)) is None:
            raise
        print(
            f"train.py: rank {os.environ.get('RANK', 0)} of {os.environ.get('WORLD_SIZE', 1)} lost another rank, which died or was "
            f"silent for parallel.timeout_s = {config.parallel.timeout_s:g} s; --resume goes on from the last checkpoint ({why})",
            file=sys.stderr,
        )
        return 2
    finally:
        leave()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
