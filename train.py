"""Train a planner to write reasoning that measurably helps a frozen executor (TraceLift, arXiv 2605.03862).

    torchrun --standalone --nproc_per_node=1 train.py [CONFIG.toml] [--section.key value ...] [--resume | --dry-run]

Read from top to bottom, `train_planner` is the algorithm:

    sample     z ~ π_θ(· | x), G traces a problem
    execute    the frozen executor E: E(x, z) end to end, once; E(x, z; seed_k), K runs; E(x; seed_k), K runs a problem
    verify     V(artifact) → PASS, FAIL or ERROR: e2e from the first, uplift = mean V with z − mean V without from the rest
    score      R(x, z) ∈ [0, 1]: the Reason RM
    reward     0.5·e2e + 0.5·R·uplift, or for programs exec + 0.2·R·c; in the paper's or the corrected variant, or an ablation
    resample   fresh problems where all rewards of a group are equal, if asked for
    update     GRPO on the group's advantages
    log, checkpoint

The other stages (`run.stage = "sft" | "reward_model"`) enter here too and live in tracelift/training/sft.py and
tracelift/reward_model/train.py; --dry-run is tracelift/dry_run/. Exit codes: 0 done, 1 bad configuration, data or
model, 2 training could not go on, 143 stopped by SIGTERM after saving. Left out: everything that has a room of its own
(tracelift/__init__.py is the map).
"""

from __future__ import annotations

import sys
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
    load_held_out,
    load_training_tasks,
    refuse_absent_servers,
)
from tracelift.config import Config, demo_defaults, help_text
from tracelift.config.schema import GrpoConfig
from tracelift.distributed.parallel import Parallel
from tracelift.distributed.world import World, end, join, leave, pick_device, set_threads
from tracelift.dry_run import dry_run
from tracelift.errors import ServerGone, Stopped
from tracelift.reward_model.train import run_reward_model
from tracelift.rl.flat_groups import replace_flat
from tracelift.rl.grpo import (
    BatchCounts,
    Reference,
    TrainedTokens,
    group_advantages,
    minibatches,
    policy_loss,
    trained_tokens,
)
from tracelift.rl.nan_dump import describe, keep_batch
from tracelift.rl.report import Report, Round
from tracelift.rl.rollout import grade_everywhere, runs_of
from tracelift.rl.sample import Sample, refuse_too_many_errors
from tracelift.rl.totals import UpdateTotals
from tracelift.runs.console import exit_of, from_any_rank, quiet_unless_main, reader_may_leave
from tracelift.runs.folder import RunFolder, asked_run, open_run
from tracelift.runs.signals import EXIT_STOPPED, StopSignal
from tracelift.tasks.task import Task
from tracelift.training.learner import Learner
from tracelift.training.memory_plan import say_memory_plan
from tracelift.training.packing import Row, micro_batches, pack
from tracelift.training.sft import run_sft

Say = Callable[[str], None]


def train_planner(config: Config, run: RunFolder, world: World, device: torch.device, say: Say) -> None:
    # -- load: problems x, policy π_θ, executor E with verifier V, Reason RM R ----------------------------------------
    for line in demo_defaults(config):
        say(line)
    say_memory_plan(config, device, world.size, world.local_size, say)  # before any weight is read
    refuse_absent_servers(config)
    policy = build_policy(config, world, device)
    stop = StopSignal(config.run.stop_s)
    tell, give_up = from_any_rank(world.rank), lambda: stop.seen  # of a server that is gone; to stop waiting for it
    executor = build_executor(config, device, baseline_file(config, run, world), tell, give_up)
    scorer = build_scorer(config, device, tell, give_up)
    tasks = load_training_tasks(config, say, scorer.dimension_names if scorer else ())
    keep_bad = partial(keep_batch, run.path / "nan")  # a batch whose gradient is not finite is kept for study
    learner = Learner(policy.model, config.optim, config.run.steps, world, policy.parallel, keep_bad)
    report = Report(config, run, world, policy, executor, scorer, load_held_out(config, tasks, say), say)
    report.describe(learner)

    with stop.at_once("stopped on request in the evaluation before training; add --resume to go on"):
        report.before()  # of the starting planner: a checkpoint is loaded after it
    done = learner.resume(run, policy.read, say) if config.run.resume else 0
    save = partial(learner.save, run, keep=config.run.keep, write_model=policy.write)
    # A server starts on a trace while others are still being written.
    prefetch = partial(executor.begin, **runs_of(config)) if config.executor.url else None

    def draw(entry: Round, problems: list[tuple[int, Task]]) -> list[list[Sample]]:
        """Graded groups of (number in the round, problem), of every rank: the steps from sample to reward."""
        # -- sample: G traces z a problem, each rank for its share ----------------------------------------------------
        mine = policy.sample(entry.step, world.share(problems), prefetch)
        entry.lap("sample", token_count(mine))

        # -- execute, verify, score, reward: E(x, z), V, R(x, z); then every rank has every group ---------------------
        spent = entry.executor_cost.generated
        groups = grade_everywhere(mine, executor, scorer, config, world)
        entry.lap("grade", entry.executor_cost.generated - spent)
        return groups

    for step in range(done, config.run.steps):
        entry = report.round(step)

        # -- sample, execute, verify, score, reward; once more for fresh problems where groups are flat ---------------
        try:
            groups = draw(entry, list(enumerate(tasks.round(step, config.grpo.problems))))
            groups, replaced = replace_flat(groups, step, tasks, partial(draw, entry), config.grpo)
        except ServerGone as gone:  # on every rank alike; what was learned before this round is saved
            if step > done:
                save(step)
            raise unfinished(step, gone, world.any(stop.seen)) from None
        refuse_too_many_errors(groups + replaced, config.executor.max_error_share, step)

        # -- update: GRPO on the groups' advantages, each rank for its share ------------------------------------------
        mine = world.share(groups)
        metrics = update_policy(mine, learner, policy.reference, config, step, policy.tokenizer.pad_id)
        entry.lap("update", token_count(mine))

        # -- log, checkpoint ------------------------------------------------------------------------------------------
        metrics |= {"problems_drawn": len(groups + replaced), "groups_replaced": len(replaced)}
        entry.log(groups, metrics)
        stopping = world.any(stop.seen)
        if stopping or (step + 1) % config.run.save_every == 0 or step + 1 == config.run.steps:
            save(step + 1)
        if stopping:
            raise Stopped(f"stopped on request after round {step + 1}; add --resume to go on from here")

    policy.export(run.path, writes=world.is_main)
    with stop.at_once("stopped on request after the last round; add --resume to evaluate the model in final/"):
        report.after()


def update_policy(
    groups: list[list[Sample]], learner: Learner, reference: Reference | None, config: Config, step: int, pad_id: int
) -> dict[str, float]:
    """All optimizer updates on one rollout: `epochs` passes of `minibatches` updates. Returns metrics over all ranks.

    groups: this rank's. Every weight is divided by counts over the global minibatch before the first backward, so
    micro-batches and ranks change nothing but memory and time.
    """
    c, parallel, world = config.grpo, learner.parallel, learner.world
    advantage, trained = group_advantages(groups, c)  # (P', G): the P' problems of this rank
    traces = [s for group in groups for s in group]  # a trace's id is its place here
    by_trace = advantage.flatten()  # (P'·G,)
    totals, metrics = UpdateTotals(), dict[str, float]()
    objective = partial(tokens_objective, c, totals)
    idle = partial(take_part_idle, parallel, reference, config, pad_id)
    for epoch in range(c.epochs):
        for numbers in minibatches(c, config.run.seed, step, epoch):
            counts, rows = counts_and_rows(groups, world.local(numbers), trained, advantage, config, world)
            losses: list[tuple[list[int], float]] = []  # of each micro-batch, with its traces' ids
            for micro in parallel.paced(micro_batches(rows, config.optim.micro_tokens), idle):
                ids = [i for row in micro for i in row.sequence_ids]
                tokens = trained_tokens([traces[i] for i in ids], by_trace[ids], counts, c.aggregate, parallel.device)
                loss, logprob = score_tokens(parallel, reference, micro, config, pad_id, objective, tokens)
                loss.backward()
                losses.append((ids, loss.item()))
                totals.compare(logprob, tokens)
            # asked for if the gradient is bad
            evidence = partial(describe, rows, traces, by_trace.tolist(), losses, counts)
            metrics = learner.update(step, totals.updates, evidence)
            totals.updated(losses, metrics["grad_norm"])
    return metrics | totals.means(world, token_count(groups), c.epochs)


def counts_and_rows(
    groups: list[list[Sample]], picked: list[int], trained: Tensor, advantage: Tensor, config: Config, world: World
) -> tuple[BatchCounts, list[Row]]:
    """What a minibatch is divided by, counted over all ranks, and this rank's rows: one a group, its prompt once.

    picked: places in `groups`; trained, advantage: (P', G). Trained traces whose advantage is zero count but get no
    forward pass: they have no gradient, unless a KL or entropy term acts on all.
    """
    always = config.grpo.entropy_coef != 0 or config.grpo.kl_coef > 0
    counted = {g: [i for i in range(len(groups[g])) if trained[g, i]] for g in picked}
    tokens = sum(len(groups[g][i].completion.tokens) for g, members in counted.items() for i in members)
    ranks = world.gather((tokens, sum(map(len, counted.values()))))
    counts = BatchCounts(sum(t for t, _ in ranks), sum(n for _, n in ranks), config.planner.max_new_tokens)
    rows = []
    for g, members in counted.items():
        moving = [i for i in members if always or advantage[g, i] != 0]
        if moving:
            ids = [g * config.planner.samples + i for i in moving]
            rows.append(Row(groups[g][0].prompt_tokens, [groups[g][i].completion.tokens for i in moving], ids))
    return counts, rows


def tokens_objective(config: GrpoConfig, totals: UpdateTotals, scores: kernels.TokenScores, *columns: Tensor) -> Tensor:
    """The loss of some trained tokens, (), from their scores and the columns of their `TrainedTokens`, each (n,): whole, or
    one chunk of each, as `kernels.linear_loss` hands them out. What it finds on the way goes into the totals."""
    t = TrainedTokens(*columns)
    terms = {"entropy": scores.entropy, "ref_logprob": t.reference, "exact_kl": scores.kl}
    piece = policy_loss(scores.logprob, t.old, t.advantage, t.weight, t.sequence, config, **terms)
    totals.add(piece.sums)
    return piece.loss


def score_tokens(
    parallel: Parallel[Transformer],
    reference: Reference | None,
    rows: list[Row],
    config: Config,
    pad_id: int,
    objective: Callable[..., Tensor],
    tokens: TrainedTokens,
) -> tuple[Tensor, Tensor]:
    """The summed `objective` of every trained token of some rows, and the tokens' log-probs (N,), detached.

    The scores are those of the sampled distribution: temperature is part of them. Where tokens do not depend on one
    another, the objective is asked chunk by chunk and its gradient formed while the chunk's logits are at hand; a
    sequence's ratio needs them all first.
    """
    planner, T = parallel.policy, config.planner.temperature
    batch = pack(rows, pad_id, parallel.device)
    hidden = batch.predictors(planner(batch.tokens, batch.positions, batch.attend()))  # (N, D)
    ref_hidden, ref_weight = None, None
    if reference is not None:
        with torch.no_grad(), reference.active() as ref:
            ref_hidden = batch.predictors(ref(batch.tokens, batch.positions, batch.attend()))
            ref_weight = ref.head_weight
            ref_scores = kernels.linear_logprob(ref_hidden, ref_weight, batch.targets, temperature=T)
        tokens = tokens._replace(reference=ref_scores.logprob)
    if config.grpo.kl_estimator != "exact":
        ref_hidden, ref_weight = None, None
    data, head, y = tokens.columns(), planner.head_weight, batch.targets
    if config.grpo.importance == "token":
        loss, scores = kernels.linear_loss(
            hidden, head, y, objective, *data, temperature=T, ref_hidden=ref_hidden, ref_weight=ref_weight
        )
    else:
        scores = kernels.linear_logprob(hidden, head, y, temperature=T, ref_hidden=ref_hidden, ref_weight=ref_weight)
        loss = objective(scores, *data)
    return loss, scores.logprob.detach()


def take_part_idle(parallel: Parallel[Transformer], reference: Reference | None, config: Config, pad_id: int) -> None:
    """A forward and backward pass that trains nothing, for a rank out of rows: the others' passes may be collectives."""
    nothing = torch.zeros(1, device=parallel.device)
    tokens = TrainedTokens(nothing, nothing, nothing, nothing.long())
    smallest = [Row([0], [[0]], [0])]
    zero, _ = score_tokens(
        parallel, reference, smallest, config, pad_id, lambda scores, *_: 0 * scores.logprob.sum(), tokens
    )
    zero.backward()


def token_count(groups: list[list[Sample]]) -> int:
    return sum(len(s.completion.tokens) for group in groups for s in group)


def baseline_file(config: Config, run: RunFolder, world: World) -> Path:
    return Path(config.executor.cache or run.path / f"baseline_cache.{world.rank}.jsonl")


def unfinished(step: int, gone: ServerGone, asked: bool) -> Exception:
    """What ends a run in a round whose server is gone: a request to stop, or that it did not come back."""
    if asked:
        return Stopped(f"stopped on request in round {step + 1}; add --resume to go on with it")
    return ServerGone(f"round {step + 1} was not finished: {gone}")


STAGES: dict[str, Callable[[Config, RunFolder, World, torch.device, Say], object]] = {
    "planner": train_planner,
    "sft": run_sft,
    "reward_model": run_reward_model,
}


def main(argv: list[str]) -> int:
    if any(word in ("-h", "--help") for word in argv):
        with reader_may_leave():
            print(help_text())
        return 0
    argv = ["--run.resume" if word == "--resume" else word for word in argv]
    dry = "--dry-run" in argv
    argv = [word for word in argv if word != "--dry-run"]
    path = argv.pop(0) if argv and not argv[0].startswith("--") else None
    config = Config()
    try:
        config, folder = asked_run(path, argv)
        if dry:
            dry_run(config, folder)
            return 0
        device = pick_device(config.run.device)
        world = join(device.type, config.parallel.timeout_s)
        config, folder = world.gather((config, folder))[0]  # machines need not share a file system
        say = quiet_unless_main(world.is_main)
        set_threads(world, config.run.threads)
        torch.manual_seed(config.run.seed)
        with open_run(config, folder, world, say) as run:
            ranks, threads = f"{world.size} rank{'s' * (world.size > 1)}", f"{torch.get_num_threads()} threads"
            say(f"run folder {run.path}  ({config.run.stage}, {device}, {ranks}, {threads})")
            try:
                STAGES[config.run.stage](config, run, world, device, say)
            except Stopped as stopped:
                say(str(stopped))
                return EXIT_STOPPED
        return 0
    except Exception as error:
        code, sentence = exit_of(error, config.parallel.timeout_s)  # raises again what is no message to a user
        print(f"train.py: {sentence}", file=sys.stderr)
        return code
    finally:
        leave()


if __name__ == "__main__":
    end(main(sys.argv[1:]))
