"""Evaluate planner + executor in two stages, with controls and paired statistics; or the Reason RM by itself.

    python eval.py [CONFIG.toml] --run RUN … [--against RUN|MODEL …] [--section.key value ...]
    python eval.py [CONFIG.toml] --planner MODEL --executor.path MODEL --eval.benchmarks gsm8k:test.jsonl
    python eval.py reward-model --reward_model.path RM --eval.groups dev.jsonl
    torchrun --standalone --nproc_per_node=N eval.py …      shards the problems over ranks

In order: load benchmarks → planner writes a trace per problem → executor answers with no trace, with the planner's,
with the reference's, with another problem's → verdicts → RM scores → statistics → table, results.json, report.html.
An evaluation that was stopped goes on where it was when the same command is given again: finished work is kept in
records.*.jsonl, keyed by everything it depends on. Exit codes: 0 done, 1 bad configuration, data or model, 2 the
evaluation could not go on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tracelift.build import (
    MEMORY,
    build_executor,
    build_judge,
    build_planner,
    build_sampler,
    build_scorer,
    load_benchmark,
)
from tracelift.config import Config, demo_defaults, help_text
from tracelift.distributed.world import World, end, join, leave, pick_device, set_threads
from tracelift.errors import ConfigError, naming
from tracelift.evaluation import arms, table
from tracelift.evaluation.bench import Bench, Planner
from tracelift.evaluation.records import Records
from tracelift.evaluation.report.files import leave_files
from tracelift.evaluation.report.rm_picture import draw_rm
from tracelift.evaluation.rm import RECORD, evaluate_rm, folder_for, render_rm
from tracelift.evaluation.systems import (
    Flags,
    final_of,
    folder_of,
    label_of,
    notes_on,
    overlap_with_training,
    read_arguments,
    suffix_of,
    systems_of,
)
from tracelift.evaluation.verdicts import RULES, RuleJudge
from tracelift.executor.backend import Serving
from tracelift.executor.local import LocalBackend
from tracelift.files import json_text, without_nan, write_text
from tracelift.reward_model.group_format import Group, read_groups
from tracelift.rl.rollout import PlannerPrompt
from tracelift.rubrics import dimensions_of
from tracelift.runs.console import exit_of, quiet_unless_main, reader_may_leave
from tracelift.runs.lock import owned
from tracelift.runs.record import versions
from tracelift.tasks.benchmarks import CODE_FORMATS, Benchmark

USAGE = f"""{(__doc__ or "").split("In order")[0]}
  --run RUN …      a run folder: its config is the starting point, its final model (or newest checkpoint) the planner
  --planner PATH   a model folder or LoRA folder as planner, instead of planner.path
  --against PATH … a second run or model, evaluated on the same problems and random numbers, and compared pairwise.
                   Several runs of one arm on either side: the run is the unit of the comparison (exact permutation test).
                   It keeps its own prompt, length and temperature; executor and Reason RM are those of --run

Without any of them the embedded demo's starting planner is evaluated. CONFIG.toml and --section.key go over
--run's config.
"""


def main(argv: list[str]) -> int:
    if any(word in ("-h", "--help") for word in argv):
        with reader_may_leave():
            print(help_text(USAGE))
        return 0
    config = Config()
    try:
        about_rm = bool(argv) and argv[0] == "reward-model"
        config, flags = read_arguments(argv[1:] if about_rm else argv, about_rm)
        device = pick_device(config.run.device)
        world = join(device.type, config.parallel.timeout_s)
        set_threads(world, config.run.threads)
        judge = judge_reward_model if about_rm else judge_planners
        judge(config, flags, world, device, quiet_unless_main(world.is_main))
        return 0
    except Exception as error:
        code, sentence = exit_of(error, config.parallel.timeout_s)  # raises again what is no message to a user
        print(f"eval.py: {sentence}", file=sys.stderr)
        return code
    finally:
        leave()


# -- planners ---------------------------------------------------------------------------------------------------------


def judge_planners(
    config: Config, flags: Flags, world: World, device: torch.device, say: Callable[[str], None]
) -> None:
    """The two-stage evaluation: every benchmark with every planner, then figures, files and a table (rank 0)."""
    check(config)
    benchmarks = read_benchmarks(config, say)
    ours, theirs = systems_of(config, flags)
    systems = {**ours, **theirs}
    notes_on(systems, "run" in flags, say)
    shared = overlap_with_training(systems, benchmarks, say)
    out = folder_of(config, flags, f"eval-{label_of(config.planner.adapter or config.planner.path)}")
    with owned(out, world, say):
        bench = open_bench(config, out, world, device, say)
        planners = [load_planner(label, c, device) for label, (c, _) in systems.items()]
        try:
            found = {b.name: arms.evaluate(bench, planners, b.problems, say) for b in benchmarks}
        finally:
            for judge in bench.judges.values():
                judge.close()
        if world.is_main:
            suffix = suffix_of(list(ours), list(theirs))
            sides = list(ours), list(theirs)
            results = leave_files(bench, out, planners, benchmarks, found, sides, shared, suffix)
            say("\n" + table.render(results))
            say(
                f"\nfigures: {out / f'results{suffix}.json'}   every sample: {out / f'samples{suffix}.jsonl'}   "
                f"to read: {out / f'report{suffix}.html'}"
            )


def check(config: Config) -> None:
    """What an evaluation asks of its own section. Raises ConfigError."""
    e = config.eval
    for key, values, known in (("arms", e.arms, arms.ARMS), ("modes", e.modes, arms.MODES)):
        if wrong := [v for v in values if v not in known] or ([] if values else ["nothing"]):
            raise ConfigError(f"eval.{key}: '{wrong[0]}' is none of {', '.join(known)}")
    if wrong_k := [k for k in e.k if not 1 <= k <= e.samples]:
        raise ConfigError(f"eval.k: pass@{wrong_k[0]} needs 1 to eval.samples = {e.samples} samples")
    if not e.benchmarks:
        raise ConfigError("eval.benchmarks: name at least one")
    code = [b for b in e.benchmarks if b.partition(":")[0] in CODE_FORMATS]
    if code and any(s.strip(" ") == "\n" for s in config.executor.stop):
        raise ConfigError(
            f"{code[0]}: executor.stop holds a line break, which ends a program after its first line; "
            "use configs/eval-code.toml, or set executor.stop"
        )


def read_benchmarks(config: Config, say: Callable[[str], None]) -> list[Benchmark]:
    benchmarks = [load_benchmark(spec, config, say) for spec in config.eval.benchmarks]
    if doubled := [b.name for i, b in enumerate(benchmarks) if b.name in [x.name for x in benchmarks[:i]]]:
        raise ConfigError(f"eval.benchmarks: '{doubled[0]}' is named twice")
    if lines := demo_defaults(config, any(b.name != "demo:math" for b in benchmarks)):
        say("\n".join([*lines, "configs/eval-math.toml and configs/eval-code.toml hold prompts with instructions"]))
    return benchmarks


def open_bench(config: Config, out: Path, world: World, device: torch.device, say: Callable[[str], None]) -> Bench:
    """Executor, Reason RM and verdict rules, and what earlier evaluations left in `out`."""
    executor, scorer, judge = build_executor(config, device, None), build_scorer(config, device), build_judge(config)
    for key, url, part in (
        ("executor", config.executor.url, executor.backend),
        ("reward_model", config.reward_model.url, scorer),
    ):
        if url and not (isinstance(part, Serving) and part.served):
            say(
                f"note: {key}.url does not say what it serves, so its address stands for the model: "
                "give eval.out another folder when you put another model there"
            )
    world.barrier()  # no rank appends before every rank has read what was there
    records = Records(out, world.rank)
    world.barrier()
    say(f"results in {out}: {len(records)} finished records found" if len(records) else f"results in {out}")
    return Bench(config, executor, records, world, {kind: RuleJudge(kind, judge) for kind in RULES}, scorer)


def load_planner(label: str, config: Config, device: torch.device) -> Planner:
    model, tokenizer = build_planner(config, device)
    model.eval()
    fingerprint = LocalBackend(model, tokenizer).fingerprint
    return Planner(
        label, config, build_sampler(model, tokenizer, config), PlannerPrompt(config, tokenizer), fingerprint
    )


# -- the Reason RM by itself ------------------------------------------------------------------------------------------


def judge_reward_model(
    config: Config, flags: Flags, world: World, device: torch.device, say: Callable[[str], None]
) -> None:
    """Pair and group accuracy, alternatives, calibration and dimensions of a Reason RM on TraceLift-Groups (rank 0 alone)."""
    if not world.is_main:
        return
    of_run = config.run.stage == "reward_model" and "run" in flags
    if of_run:
        config.reward_model.path = str(final_of(Path(flags["run"][0])))
    source = config.eval.groups or config.rm.dev
    if not source:
        raise ConfigError("eval.groups: give a TraceLift-Groups JSONL to judge the Reason RM on")
    with naming("eval.groups" if config.eval.groups else "rm.dev"):
        groups = read_groups(source)
    groups = groups[: config.eval.limit] if config.eval.limit else groups
    scorer = build_scorer(config, device)
    if scorer is None:
        raise ConfigError("reward_model.path: give the Reason RM to judge")
    if wrong := [g for g in groups if dimensions_of(g.task_type) != tuple(scorer.dimension_names)]:
        raise ValueError(
            f"{source}: {wrong[0].problem_id} is a {wrong[0].task_type} group, "
            f"but the RM judges {', '.join(scorer.dimension_names)}"
        )
    figures, model = evaluate_rm(scorer, groups, scorer.flaw_kinds), config.reward_model.url or config.reward_model.path
    out = folder_of(config, flags, f"eval-rm-{label_of(model)}")
    if not config.eval.out:
        out = folder_for(out, scorer.fingerprint)
    out.mkdir(parents=True, exist_ok=True)
    made = {"command": sys.argv, "versions": versions(), "reward_model": model, "fingerprint": scorer.fingerprint}
    made |= {"groups_file": source, "groups_trained_on": known_groups(config, groups, say) if of_run else None}
    write_text(out / RECORD, json_text(without_nan({**made, **figures}), indent=2))
    picture = draw_rm(figures, out / "reward_model.png")
    say(f"Reason RM {model} on {source}: {render_rm(figures)}\n\nfigures: {out / RECORD}, picture: {picture}")


def known_groups(config: Config, groups: Sequence[Group], say: Callable[[str], None]) -> int | None:
    """How many of the groups' problems a run of stage reward_model was trained on, and a line where any are, or where the model
    was chosen by these groups; None where its training groups cannot be read."""
    if config.rm.dev and Path(config.eval.groups or config.rm.dev).resolve() == Path(config.rm.dev).resolve():
        say(
            "note: of this run's models the one kept is the best on these very groups, so its figures flatter it a little"
        )
    try:
        learned = {g.problem for g in read_groups(config.rm.train)}
    except (OSError, ValueError):
        return None
    if n := sum(g.problem in learned for g in groups):
        say(f"note: the problems of {n} of {len(groups)} groups are in rm.train = {config.rm.train} too: {MEMORY}")
    return n


if __name__ == "__main__":
    end(main(sys.argv[1:]))
