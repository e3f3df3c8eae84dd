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

import dataclasses
import re
import sys
from collections.abc import Callable
from contextlib import suppress
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
    load_training_tasks,
    trained_on,
)
from tracelift.config import Config, config_of_run, demo_defaults, help_text, load_config
from tracelift.distributed.world import World, end, join, leave, pick_device, set_threads
from tracelift.errors import ConfigError
from tracelift.evaluation import arms, table
from tracelift.evaluation.bench import Bench, Planner, number_of
from tracelift.evaluation.records import Records
from tracelift.evaluation.report.files import leave_files
from tracelift.evaluation.rm import RECORD, evaluate_rm, folder_for, render_rm
from tracelift.evaluation.rm_picture import draw_rm
from tracelift.evaluation.verdicts import RULES, RuleJudge
from tracelift.executor.backend import Serving
from tracelift.executor.local import LocalBackend
from tracelift.files import json_text, without_nan, write_text
from tracelift.reward_model.group_format import read_groups
from tracelift.rl.rollout import PlannerPrompt
from tracelift.rubrics import dimensions_of
from tracelift.runs.console import exit_of, quiet_unless_main, reader_may_leave
from tracelift.runs.folder import RunFolder
from tracelift.runs.lock import owned
from tracelift.runs.record import versions
from tracelift.tasks.benchmarks import CODE_FORMATS, Benchmark

Flags = dict[str, list[str]]  # --run, --planner and --against, as given
SAYS_NOTHING = re.compile(r"final|best|planner|reward_model|adapter|model|checkpoints|step-\d+")  # folders of any run
USAGE = f"""{(__doc__ or "").split("In order")[0]}
  --run RUN …      a run folder: its config is the starting point, its final model (or newest checkpoint) the planner
  --planner PATH   a model folder or LoRA folder as planner, instead of planner.path
  --against PATH … a second run or model, evaluated on the same problems and random numbers, and compared pairwise.
                   Several runs of one arm on either side: the run is the unit of the comparison (exact permutation test)

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
        config, flags = read_arguments(argv[1:] if about_rm else argv)
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
    shared = overlap_with_training(config, benchmarks, say)
    ours, theirs = systems_of(config, flags)
    out = folder_of(config, flags, f"eval-{label_of(config.planner.adapter or config.planner.path)}")
    with owned(out, world, say):
        bench = open_bench(config, out, world, device, say)
        planners = [load_planner(label, c, device) for label, c in {**ours, **theirs}.items()]
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


def systems_of(config: Config, flags: Flags) -> tuple[dict[str, Config], dict[str, Config]]:
    """The planners by label, those of --run and those of --against. Each keeps its own prompt, length and temperature;
    executor, RM, problems and seeds are shared."""
    runs = flags.get("run") or flags.get("planner") or [config.planner.path]
    ours = {label_of(runs[0]): config}
    for path in runs[1:]:
        ours[_fresh(label_of(path), ours)] = system_at(config, path)
    theirs: dict[str, Config] = {}
    for path in flags.get("against", []):
        theirs[_fresh(label_of(path), {**ours, **theirs}, "against")] = system_at(config, path)
    return ours, theirs


def _fresh(label: str, taken: dict[str, Config], mark: str = "again") -> str:
    while label in taken:
        label = f"{label} ({mark})"
    return label


def system_at(config: Config, path: str) -> Config:
    """`config` with the planner of another run or model."""
    other = config_of_run(path) if (Path(path) / "config.json").exists() and is_run(path) else config
    own = {"planner": dataclasses.replace(other.planner), "lora": dataclasses.replace(other.lora)}
    second = dataclasses.replace(config, **own)
    point_at(second, path)
    return second


def suffix_of(ours: list[str], theirs: list[str]) -> str:
    """What the files of a comparison have before their endings; nothing for one planner alone."""
    parts = ["with", *ours[1:]] if ours[1:] else []
    parts += ["against", *theirs] if theirs else []
    name = "-".join(["", *parts])
    return name if len(name) <= 120 else f"{name[:100]}-{len(parts)}-{number_of(name):x}"


def overlap_with_training(
    config: Config, benchmarks: list[Benchmark], say: Callable[[str], None]
) -> dict[str, int | None]:
    """Of each benchmark, how many problems stand in the planner's training file too, and one line where any do; None where
    that is not known, as without a file that can be read."""
    source, training = config.data.source, None
    if config.run.stage == "planner" and not source.startswith("demo:"):
        with suppress(OSError, ValueError):
            training = load_training_tasks(config, lambda line: None)
    shared: dict[str, int | None] = dict.fromkeys(b.name for b in benchmarks)
    for b in benchmarks if training is not None else ():
        shared[b.name] = trained_on(training, [p.task for p in b.problems])
        if shared[b.name]:
            say(f"note: {shared[b.name]} problems of {b.name} are in data.source = {source} too: {MEMORY}")
    return shared


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
    if config.run.stage == "reward_model" and "run" in flags:
        config.reward_model.path = str(final_of(Path(flags["run"][0])))
    source = config.eval.groups or config.rm.dev
    if not source:
        raise ConfigError("eval.groups: give a TraceLift-Groups JSONL to judge the Reason RM on")
    scorer = build_scorer(config, device)
    if scorer is None:
        raise ConfigError("reward_model.path: give the Reason RM to judge")
    groups = read_groups(source)
    groups = groups[: config.eval.limit] if config.eval.limit else groups
    if wrong := [g for g in groups if dimensions_of(g.task_type) != tuple(scorer.dimension_names)]:
        raise ValueError(
            f"{source}: {wrong[0].problem_id} is a {wrong[0].task_type} group, "
            f"but the RM judges {', '.join(scorer.dimension_names)}"
        )
    figures, model = evaluate_rm(scorer, groups), config.reward_model.url or config.reward_model.path
    out = folder_of(config, flags, f"eval-rm-{label_of(model)}")
    if not config.eval.out:
        out = folder_for(out, scorer.fingerprint)
    out.mkdir(parents=True, exist_ok=True)
    made = {"command": sys.argv, "versions": versions(), "reward_model": model, "fingerprint": scorer.fingerprint}
    write_text(out / RECORD, json_text(without_nan({**made, "groups_file": source, **figures}), indent=2))
    picture = draw_rm(figures, out / "reward_model.png")
    say(f"Reason RM {model} on {source}: {render_rm(figures)}\n\nfigures: {out / RECORD}, picture: {picture}")


# -- arguments, folders and names --------------------------------------------------------------------------------------


def read_arguments(argv: list[str]) -> tuple[Config, Flags]:
    """The config in force, and --run, --planner, --against as given."""
    words, flags, path = list(argv), Flags(), None
    rest: list[str] = []
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name in ("--run", "--planner", "--against"):
            if not equals and (not words or words[0].startswith("--")):
                raise ConfigError(f"{name}: give a folder")
            flags[name[2:]] = [value if equals else words.pop(0)]
            while name != "--planner" and words and not words[0].startswith("--") and not words[0].endswith(".toml"):
                flags[name[2:]].append(words.pop(0))
        elif not rest and path is None and not word.startswith("--"):
            path = word
        else:
            rest.append(word)
            if word.startswith("--") and not equals and words and not words[0].startswith("--"):
                rest.append(words.pop(0))
    base = config_of_run(flags["run"][0]) if "run" in flags else None
    config = load_config(path, rest, base, training=False)
    for flag in ("run", "planner"):
        if flag in flags and not (flag == "run" and config.run.stage == "reward_model"):
            point_at(config, flags[flag][0])
    return config, flags


def point_at(config: Config, path: str) -> None:
    """Make a run folder's model, a Hugging Face folder or a LoRA folder the planner."""
    folder = final_of(Path(path)) if (Path(path) / "metrics.jsonl").exists() else Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: no such folder (a run, a model, or a LoRA adapter)")
    if (folder / "adapter_config.json").exists():
        config.planner.adapter = str(folder)
    else:
        config.planner.path, config.planner.adapter = str(folder), ""
    config.lora.r = 0  # an adapter of its own is on disk; a fresh one would be noise


def final_of(run: Path) -> Path:
    """The model a run left: final/, or that of its newest checkpoint. Raises FileNotFoundError where there is
    neither."""
    if (run / "final").is_dir():
        return run / "final"
    checkpoints = RunFolder(run, writes=False).checkpoints()
    if not checkpoints:
        raise FileNotFoundError(f"{run}: holds neither final/ nor a checkpoint")
    return checkpoints[-1] / "model"


def folder_of(config: Config, flags: Flags, name: str) -> Path:
    """Where results go: eval.out, RUN/eval, or runs/`name`."""
    return Path(config.eval.out or (Path(flags["run"][0]) / "eval" if "run" in flags else f"runs/{name}"))


def is_run(path: str) -> bool:
    return (Path(path) / "metrics.jsonl").exists()


def label_of(path: str) -> str:
    """A short name for a run or model folder: its own, after its parents' as far as those below say nothing; for a URL all
    of it but the scheme."""
    if "://" in path:
        return re.sub(r"\W+", "-", path.partition("://")[2]).strip("-")
    p = Path(path).resolve()
    name = p.name
    while p.parent != p.parent.parent and SAYS_NOTHING.fullmatch(p.name):
        p = p.parent
        name = name if p.name == "checkpoints" else f"{p.name}-{name}"
    return name


if __name__ == "__main__":
    end(main(sys.argv[1:]))
