"""What a person sees of a run: live progress, the table of before and after, sample traces, and the picture.

The held-out problems are the same before and after, greedy and sampled, so every difference comes with an exact paired
test. Results of the evaluation before training are kept in the run folder: a resumed run does not repeat them.
Left out: comparison across runs (benchmarks/compare.py) and the HTML report (eval.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracelift.config import Config
from tracelift.distributed.world import World
from tracelift.executor.cost import Cost
from tracelift.executor.executor import Executor
from tracelift.files import json_text, read_json, write_text
from tracelift.reward_model.scorer import Scorer
from tracelift.rl.held_out import evaluate_planner, paired, summarise
from tracelift.rl.metrics import group_metrics
from tracelift.rl.policy import Policy
from tracelift.rl.progress import SUMMARISED, explain_labels, no_trace_at_all, progress_line
from tracelift.rl.sample import Sample
from tracelift.runs.clock import Clock
from tracelift.runs.folder import EVAL_BEFORE, RunFolder
from tracelift.runs.plots import draw_curves
from tracelift.runs.summary import cost_line, write_summary_of_parts
from tracelift.runs.tensorboard import TensorBoard
from tracelift.tasks.task import Task
from tracelift.training.learner import Learner

MODES = ("greedy", "sampled")
_SHOWN = 3  # problems whose traces are printed before and after
LEGEND = """accuracy: planner and executor together. baseline accuracy: the executor without a trace. uplift: how much more often it is
right with the trace than without; a reply that is no trace is right in none of its runs. trace validity: every step true and
grounded in the problem. wrong-reason rate: the share of right answers whose trace is not valid. Brackets are 95% intervals over
the problems whose number stands behind them; other training seeds differ too."""


class Round(Clock):
    """One round's figures: phases as they end, then everything that is logged of it."""

    def __init__(self, report: Report, step: int) -> None:
        super().__init__()
        self.report, self.step = report, step
        self._before = report.executor.cost

    @property
    def executor_cost(self) -> Cost:
        """Of this rank's executor in this round; less where baselines are cached."""
        return self.report.executor.cost - self._before

    def log(self, all_groups: list[list[Sample]], metrics: dict[str, float]) -> None:
        """metrics, samples and timings as JSON lines, curves for TensorBoard, one line for the person who waits."""
        r, step = self.report, self.step
        figures = group_metrics(all_groups, r.scorer.dimension_names if r.scorer else ()) | metrics
        r.run.log("metrics.jsonl", {"step": step + 1, **figures})
        r.run.log(
            "samples.jsonl",
            *(
                {"step": step + 1, "group": i, "sample": j, **s.record(r.config.run.log_tokens)}
                for i, group in enumerate(all_groups)
                for j, s in enumerate(group)
            ),
        )
        r.run.log("timings.jsonl", {"step": step + 1, **self.record(), **self._spent()})
        if r.board is None:
            r.board = TensorBoard(r.run.path / "tensorboard", step, writes=r.world.is_main)
        r.board.log(step + 1, figures)
        r.progress(step, figures, self)

    def _spent(self) -> dict[str, Any]:
        """What the round took on all ranks, by what it was for."""
        r = self.report
        costs, cpu = zip(*r.world.gather((self.executor_cost, self.cpu)), strict=True)
        cost = sum(costs, Cost())
        return {
            "cpu_s": sum(cpu),
            "gpu_s": self.seconds * r.world.size if r.policy.sampler.model.device.type == "cuda" else 0.0,
            "executor_runs": cost.calls,
            "executor_prompt_tokens": cost.prompt,
            "executor_tokens": cost.generated,
            "executor_scored_tokens": cost.scored,
            "executor_computed_positions": cost.computed,
        }


class Report:
    """Evaluates before and after training and writes summary.json, summary.txt and curves.png."""

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        world: World,
        policy: Policy,
        executor: Executor,
        scorer: Scorer | None,
        held_out: list[Task],
        say: Callable[[str], None],
    ) -> None:
        self.config, self.run, self.world, self.say = config, run, world, say
        self.policy, self.executor, self.scorer, self.tasks = policy, executor, scorer, held_out
        self.board: TensorBoard | None = None  # from the first round that is logged
        self.told = False  # what to do where no reply is a trace

    def describe(self, learner: Learner) -> None:
        """One line on what is about to be trained."""
        c = self.config
        self.say(
            f"planner {c.planner.path}: {learner.millions}; {c.grpo.problems} problems x {c.planner.samples} "
            f"traces a round, {c.run.steps} rounds, reward {c.reward.mode} ({c.reward.variant})"
        )

    def before(self) -> None:
        """Evaluate the starting planner, so call it before a checkpoint is loaded. What an earlier start of this run left
        on file stands if it is of the same problems. Collective."""
        c = self.config
        if self.tasks and (found := self.world.gather(self._on_file())[0]) != self.made_of:
            if found is not None:
                self.say(f"{EVAL_BEFORE} is of other problems, or damaged: the starting planner is evaluated again")
            records = self._evaluate() | {"made_of": self.made_of}
            if self.world.is_main:
                write_text(self.run.path / EVAL_BEFORE, json_text(records))
                for mode in MODES:
                    self.say(f"before training, {mode}: {_line(records[mode]['summary'])}")
        if not c.run.resume:
            self.say(explain_labels())

    @property
    def made_of(self) -> dict[str, Any]:
        """What an evaluation is of: where its problems come from, and a hash of them, in order."""
        d = self.config.data
        rows = [(t.problem_id, t.problem, t.reference) for t in self.tasks]
        return {
            "source": d.eval_source or d.source,
            "seed": d.eval_seed,
            "problems": len(self.tasks),
            "sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        }

    def _on_file(self) -> dict[str, Any] | None:
        """What the evaluation on file is of, {} where it does not say; None without one."""
        path = self.run.path / EVAL_BEFORE
        try:
            record = read_json(path) if path.exists() else None
        except ValueError:
            record = {}
        return record.get("made_of", {}) if isinstance(record, dict) else record and {}

    def round(self, step: int) -> Round:
        return Round(self, step)

    def progress(self, step: int, metrics: Mapping[str, float | None], clock: Clock) -> None:
        laps = " ".join(f"{name} {seconds:.1f}" for name, (seconds, _) in clock.laps.items())
        seconds = clock.record()["seconds"]
        left = (self.config.run.steps - step - 1) * seconds
        self.say(
            f"{step + 1:4d}/{self.config.run.steps}  {progress_line(metrics)}  {seconds:.1f}s ({laps})  ~{left / 60:.1f} min left"
        )
        if not self.told and (advice := no_trace_at_all(step, metrics)):
            self.say(advice)
            self.told = True

    def after(self) -> None:
        """Evaluate again, print and write the table, samples and picture; say where everything lies."""
        if self.board is not None:
            self.board.close()
        if not self.tasks:
            if self.world.is_main:
                self.say("\n" + write_summary_of_parts(self.run.path, "means over training problems", SUMMARISED))
                self._close()
            return
        after = self._evaluate()
        if not self.world.is_main:
            return
        before = read_json(self.run.path / EVAL_BEFORE)
        tests = {mode: paired(before[mode]["correct"], after[mode]["correct"]) for mode in MODES}
        summary = {
            mode: {"before": before[mode]["summary"], "after": after[mode]["summary"], "paired": tests[mode]}
            for mode in MODES
        }
        write_text(self.run.path / "summary.json", json_text(summary, indent=2))
        write_text(self.run.path / "eval_after.json", json_text(after | {"made_of": self.made_of}))
        text = "\n\n".join(render_table(mode, summary[mode]) for mode in MODES)
        text += (
            "\n\n"
            + cost_line(self.run.path)
            + "\n\n"
            + LEGEND
            + "\n\n"
            + show_pairs(before["greedy"]["samples"], after["greedy"]["samples"])
        )
        write_text(self.run.path / "summary.txt", text + "\n")
        self.say("\n" + text)
        self._close()

    def _close(self) -> None:
        """Draw the curves; say where they and everything else lies."""
        draw_curves(self.run.path)
        self.say(
            f"\npicture: {self.run.path / 'curves.png'}   table: {self.run.path / 'summary.txt'}   "
            f"traces: {self.run.path / 'samples.jsonl'}   model: {self.run.path / 'final'}"
        )
        self.say(
            f"why a trace earned its reward: python -m tracelift.explain {self.run.path}\n"
            f"more problems, controls and a page: python eval.py --run {self.run.path}"
        )

    def _evaluate(self) -> dict[str, Any]:
        sampler, prompt = self.policy.sampler, self.policy.prompt
        sampler.model.eval()
        out: dict[str, Any] = {}
        share = self.world.share(list(enumerate(self.tasks)))
        for mode in MODES:
            mine = evaluate_planner(sampler, prompt, self.executor, self.scorer, share, self.config, mode == "greedy")
            samples: list[Sample] = self.world.merge(mine)
            out[mode] = {
                "summary": summarise(samples),
                "correct": [s.correct for s in samples],
                "samples": [s.record() for s in samples[: 4 * _SHOWN]],
            }
        return out


def _line(summary: dict[str, dict[str, float]]) -> str:
    names = ("accuracy", "baseline accuracy", "uplift", "RM score", "trace validity", "wrong-reason rate")
    return ", ".join(f"{name} {summary[name]['value']:.3f}" for name in names if name in summary)


def render_table(mode: str, summary: dict[str, Any]) -> str:
    """Before → after, each figure with its 95% interval, and the paired test on accuracy."""
    before, after, test = summary["before"], summary["after"], summary["paired"]
    lines = [f"{mode} decoding, {test['n']} held-out problems{'':<4}{'before':>32}{'after':>32}"]
    width = len(lines[0]) - 64
    for name in _names(before, after):
        cells = [_cell(side.get(name)) for side in (before, after)]
        lines.append(f"  {name:<{width - 2}}{cells[0]:>32}{cells[1]:>32}")
    lines.append(
        f"  accuracy {test['points']:+.1f} points: {test['gained']} problems gained, {test['lost']} lost, "
        f"exact McNemar p = {test['p']:.2g}"
    )
    return "\n".join(lines)


def _names(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The figures of either side: those of `after` in their order, each that only `before` has behind its own neighbour."""
    names = list(after)
    for i, name in enumerate(earlier := list(before)):
        if name not in names:
            names.insert(names.index(earlier[i - 1]) + 1 if i else 0, name)
    return names


def _cell(figure: dict[str, float] | None) -> str:
    if figure is None:
        return "-"
    interval = f" [{figure['low']:.3f}, {figure['high']:.3f}]" if figure["low"] is not None else ""
    return f"{figure['value']:.3f}{interval} of {figure['n']:>3}"


def show_pairs(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> str:
    """Traces of the same problems before and after; those that changed first."""
    pairs = sorted(zip(before, after, strict=True), key=lambda p: p[0]["trace"] == p[1]["trace"])
    lines = ["sample traces, greedy"]
    for old, new in pairs[:_SHOWN]:
        program = "status" in old or "status" in new
        lines.append(f"\n  {old['problem']}" + ("" if program else f"   (answer {old['reference'][-20:]})"))
        for label, record in (("before", old), ("after", new)):
            verdict = f"{record['e2e']}, trace {'valid' if record['valid'] else 'invalid' if record['valid'] is False else 'unchecked'}"
            rm = f", RM {record['rm_total']:.2f}" if record["rm_total"] is not None else ""
            trace = record["trace"] or repr(record["text"])
            if program:
                lines += [f"    {label:<7}{trace}  → {verdict}{rm}{_why(record)}", *_indented(record["artifact"] or "")]
            else:
                lines.append(f"    {label:<7}{trace!r}  → {record['artifact']!r}: {verdict}{rm}")
    return "\n".join(lines)


def _why(record: dict[str, Any]) -> str:
    """What the tests said of a program that failed."""
    return f" ({record['detail']})" if record.get("detail") and record["e2e"] != "PASS" else ""


def _indented(program: str) -> list[str]:
    return [f"           | {line}" for line in program.split("\n")]
