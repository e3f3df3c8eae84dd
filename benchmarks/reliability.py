"""How reliable one executor run is, and what the executor can do alone: measured on the demos, as data.

    python -m benchmarks.reliability --world math|code [--temperature 0.5,1.0] [-- --section.key value ...]

The demo's planner writes `--traces` traces of each of `--problems` fresh problems at its training temperature; the executor
answers from each `--runs` times at every temperature asked for, and as often without a trace. Run k of a problem has the
same seed whatever it reads, as in training, which tracelift/stats/reliability.py allows for. Figures go to
benchmarks/results/reliability-WORLD.json and a picture beside it (benchmarks/reliability_figures.py); docs/results.md is then
made by `python -m benchmarks.results`. What was measured is kept problem by problem in `--work` and never measured twice: stop
it, ask for more problems or another temperature, and give the command again. Words after `--` are the config's.
Left out: traces without a reasoning block, which no executor is asked about, and traces of which a run could not be judged;
both are counted.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.jobs import ROOT, WORLDS, claim, print_of, split_words
from benchmarks.reliability_figures import aggregate, draw, render_reliability
from tracelift.build import build_executor, build_planner, build_sampler, load_tasks
from tracelift.config import load_config
from tracelift.config.schema import Config
from tracelift.executor.executor import Executor, Run, RunItem
from tracelift.files import append_lines, json_line, read_log, write_text
from tracelift.rl.rollout import PlannerPrompt, sample_traces
from tracelift.runs.record import versions
from tracelift.sampler import SamplingParams
from tracelift.tasks.task import Task
from tracelift.verify.verdict import Verdict

BATCH = 8  # problems between two lines of the log
LETTERS = {Verdict.PASS: "1", Verdict.FAIL: "0", Verdict.ERROR: "-"}
Traces = dict[str, list[str | None]]  # by problem; None: a reply without a trace


def write_traces(config: Config, tasks: Sequence[Task], count: int) -> Traces:
    """`count` traces a problem, as training samples them; a problem's own, whichever problems come with it."""
    planner, tokenizer = build_planner(config, torch.device("cpu"))
    sampler, prompt, c = build_sampler(planner, tokenizer, config), PlannerPrompt(config, tokenizer), config.planner
    params = SamplingParams(
        n=count, max_new_tokens=c.max_new_tokens, temperature=c.temperature, seed=config.run.seed, stop=tuple(c.stop)
    )
    keys = [(0, i) for i in range(len(tasks))]
    groups = sample_traces(sampler, prompt, tasks, params, keys, config.executor.max_trace_chars)
    return {task.problem_id: [s.trace for s in group] for task, group in zip(tasks, groups, strict=True)}


def measure(executor: Executor, tasks: Sequence[Task], traces: Traces, runs: int) -> list[dict[str, Any]]:
    """One record a problem: the letters of every trace's runs and of those without a trace. Equal traces are run once."""
    items = []
    for task in tasks:
        seeds = tuple(executor.run_seed(task, k) for k in range(runs))
        given = [None, *(t for t in traces[task.problem_id] if t is not None)]
        items += [RunItem(task, trace, seeds, in_full=False) for trace in given]
    made: dict[str, list[list[str | None]]] = {task.problem_id: [] for task in tasks}
    for item, found in zip(items, executor.run(items), strict=True):
        made[item.task.problem_id].append([item.trace, letters(found)])
    return [
        {
            "problem": task.problem_id,
            "temperature": executor.settings.temperature,
            "baseline": made[task.problem_id][0][1],
            "traces": made[task.problem_id][1:],
            "formless": traces[task.problem_id].count(None),
        }
        for task in tasks
    ]


def letters(runs: Sequence[Run]) -> str:
    return "".join(LETTERS[run.judgement.verdict] for run in runs)


def measured(
    config: Config, tasks: Sequence[Task], temperatures: Sequence[float], args: argparse.Namespace
) -> list[dict]:
    """The records of all problems at all temperatures, in order; those that the log lacks are measured and added to it."""
    log = args.work / "runs.jsonl"
    known = {(r["problem"], r["temperature"]): r for r in read_log(log)} if log.exists() else {}
    wanted = [(task, t) for t in temperatures for task in tasks]
    todo = [(task, t) for task, t in wanted if (task.problem_id, t) not in known]
    if todo:
        traces = write_traces(config, tasks, args.traces)
        executor, started = build_executor(config, torch.device("cpu"), None), time.time()
        for t in temperatures:
            at = executor.variant(replace(executor.settings, temperature=t))
            mine = [task for task, other in todo if other == t]
            for start in range(0, len(mine), BATCH):
                records = measure(at, mine[start : start + BATCH], traces, args.runs)
                append_lines(log, [json_line(r) for r in records], "the runs")
                known |= {(r["problem"], r["temperature"]): r for r in records}
                done = len(tasks) - len(mine) + start + len(records)
                minutes = (time.time() - started) / 60
                print(f"temperature {t:g}: {done}/{len(tasks)} problems  ({minutes:.1f} min)", flush=True)
    return [known[task.problem_id, t] for task, t in wanted]


def main() -> None:
    words = sys.argv[1:]
    own, overrides = split_words(words)
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=about)
    parser.add_argument("--world", choices=sorted(WORLDS), default="math")
    parser.add_argument("--temperature", default="", help="of the executor, several by comma; default: the config's")
    parser.add_argument("--problems", type=int, default=150, help="fresh problems (default 150)")
    parser.add_argument("--traces", type=int, default=8, help="traces a problem (default 8)")
    parser.add_argument("--runs", type=int, default=32, help="runs a trace, and without one (default 32)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--work", type=Path, default=None, help="the runs' folder; default: runs/reliability/WORLD")
    parser.add_argument("--out", type=Path, default=None, help="default: benchmarks/results/reliability-WORLD.json")
    args = parser.parse_args(own)
    args.work = (args.work or Path("runs/reliability") / args.world).resolve()
    args.out = args.out or ROOT / "benchmarks" / "results" / f"reliability-{args.world}.json"
    torch.set_num_threads(args.threads)
    config = load_config(WORLDS[args.world], overrides)
    temperatures = [float(t) for t in args.temperature.split(",") if t] or [config.executor.temperature]

    models = {name: print_of(ROOT / getattr(config, name).path) for name in ("planner", "executor")}
    setup = {"config": print_of(ROOT / WORLDS[args.world]), "overrides": overrides, **models}
    claim(args.work, {**setup, "traces": args.traces, "runs": args.runs})
    tasks = load_tasks(config.data.source, config.data.eval_seed).first(args.problems)
    record: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.reliability", *words]),
        "versions": versions(),
        "world": args.world,
        "config": WORLDS[args.world],
        "overrides": overrides,
        "models": models,
        "seed": config.run.seed,
        "problem_seed": config.data.eval_seed,
        "planner_temperature": config.planner.temperature,
        "problems": args.problems,
        "traces": args.traces,
        "runs": args.runs,
        "reliability": aggregate(measured(config, tasks, temperatures, args), {t.problem_id: t for t in tasks}),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.out, json.dumps(record, indent=1) + "\n")
    picture = draw(record, args.out.with_suffix(".png"))
    print(f"\n{render_reliability(record)}\n\nfigures: {args.out}   picture: {picture}")


if __name__ == "__main__":
    main()
