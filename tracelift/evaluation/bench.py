"""What an evaluation works with, and its two results: a trace that was written, and an answer that was given.

Both results are kept on disk by `to_record`, whose keys are a file format, and read back by `from_record`.
Left out: what is run with them (traces.py, arms.py) and how records are kept (records.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tqdm import tqdm

from tracelift.config import Config
from tracelift.distributed.world import World
from tracelift.evaluation.records import Record, Records
from tracelift.evaluation.spending import Spent
from tracelift.evaluation.verdicts import RULES, RuleJudge
from tracelift.executor.executor import Executor, Run
from tracelift.reward_model.scorer import RMScore, Scorer
from tracelift.rl.rollout import PlannerPrompt, TraceFacts
from tracelift.rl.sample import Sample, refuse_errors
from tracelift.sampler import Sampler
from tracelift.verify.verdict import Verdict

NO_BLOCK = "no complete <reasoning> block; the executor was not called"
T = TypeVar("T")


def number_of(*parts: Any) -> int:
    """A 63-bit number that names `parts`: seeds and keys of random draws."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


@dataclass
class Planner:
    """A planner under evaluation. `fingerprint` changes with its weights."""

    label: str
    config: Config
    sampler: Sampler
    prompt: PlannerPrompt
    fingerprint: str


@dataclass
class Bench:
    """What all evaluations of one call share."""

    config: Config
    executor: Executor
    records: Records
    world: World
    judges: Mapping[str, RuleJudge]  # by kind of problem
    scorer: Scorer | None = None

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The Reason RM's, by name; empty without one."""
        return tuple(self.scorer.dimension_names) if self.scorer is not None else ()

    def samples(self, mode: str) -> int:
        return 1 if mode == "greedy" else self.config.eval.samples

    def known(self, key: str) -> Record:
        """The record of work that is done."""
        record = self.records.get(key)
        assert record is not None, key
        return record

    def refuse_errors(self, errors: Sequence[str], total: int, where: str, what: str) -> None:
        """Raises TrainingError where more than `eval.max_error_share` went wrong."""
        refuse_errors(errors, total, where, what, "eval.max_error_share", self.config.eval.max_error_share)

    def chunks(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        """`items` in parts of `eval.chunk`: after each, records are on disk."""
        size = self.config.eval.chunk
        return (items[i : i + size] for i in range(0, len(items), size))

    def progress(self, title: str, total: int, todo: Sequence[T]) -> Iterator[Sequence[T]]:
        """Chunks of `todo` under a bar over all `total` problems, those found among the records done already."""
        quiet = None if self.world.is_main else True
        with tqdm(total=total, desc=title, unit="problem", disable=quiet, leave=False) as bar:
            bar.update(total - len(todo))
            for chunk in self.chunks(todo):
                yield chunk
                bar.update(len(chunk))


@dataclass(frozen=True)
class WrittenTrace:
    """One reply of a planner, and what is known of the trace in it. On disk are the first four fields: facts are read
    anew, since a reference may be corrected, and scores have records of their own."""

    text: str
    trace: str | None  # None: a format failure, which the executor never sees
    tokens: int
    finish_reason: str
    facts: TraceFacts = TraceFacts()
    rm: RMScore | None = None  # None without Reason RM or trace; with `error` where it could not be scored

    @classmethod
    def of(cls, sample: Sample) -> WrittenTrace:
        completion = sample.completion
        return cls(sample.text, sample.trace, len(completion.tokens), completion.finish_reason)

    @property
    def score(self) -> RMScore | None:
        return None if self.rm is None or self.rm.error else self.rm

    @property
    def rm_error(self) -> str | None:
        return self.rm.error if self.rm is not None else None

    def to_record(self) -> Record:
        return {"text": self.text, "trace": self.trace, "tokens": self.tokens, "finish_reason": self.finish_reason}

    @classmethod
    def from_record(cls, record: Record) -> WrittenTrace:
        return cls(record["text"], record["trace"], record["tokens"], record["finish_reason"])


@dataclass(frozen=True)
class Answer:
    """One run of the executor under an arm, by every rule of its problem. On disk is all but `given`.

    `prompt_tokens` and `finish_reason` as the backend says (tracelift/executor/backend.py); a record of version 0.1 has
    neither."""

    given: str | None  # the trace it read; "" is none, None a format failure
    artifact: str | None  # None: it was not called
    tokens: int
    verdicts: dict[str, Verdict] = field(default_factory=dict)  # the headline first; empty where no text came
    detail: str = ""
    prompt_tokens: int | None = None
    finish_reason: str = ""

    @classmethod
    def of(cls, run: Run, given: str) -> Answer:
        r, j = run.reply, run.judgement
        return cls(given, r.text, r.tokens, dict(j.rules), j.detail, r.prompt_tokens, r.finish_reason)

    @classmethod
    def without_trace(cls, kind: str) -> Answer:
        """A format failure fails by every rule."""
        return cls(None, None, 0, dict.fromkeys(RULES[kind], Verdict.FAIL), NO_BLOCK, 0)

    @property
    def judged(self) -> bool:
        """Whether there is a verdict by every rule: neither the run nor its judge failed."""
        return bool(self.verdicts) and Verdict.ERROR not in self.verdicts.values()

    def passes(self, rule: str) -> bool:
        return self.verdicts[rule] is Verdict.PASS

    def to_record(self) -> Record:
        verdicts = {rule: verdict.name for rule, verdict in self.verdicts.items()}
        return {
            "artifact": self.artifact,
            "tokens": self.tokens,
            "verdicts": verdicts,
            "detail": self.detail,
            "prompt_tokens": self.prompt_tokens,
            "finish_reason": self.finish_reason,
        }

    @classmethod
    def from_record(cls, record: Record, given: str | None) -> Answer:
        verdicts = {rule: Verdict[name] for rule, name in record["verdicts"].items()}
        how = record["artifact"], record["tokens"], verdicts, record["detail"]
        return cls(given, *how, record.get("prompt_tokens"), record.get("finish_reason", ""))


Traces = list[list[WrittenTrace]]  # of each problem: its samples
Answers = list[list[Answer] | None]  # of each problem: its samples; None where the arm has nothing to give


@dataclass
class Found:
    """Everything about one benchmark, by label (of a planner, of an arm) and mode; lists are in the problems' order."""

    traces: dict[str, dict[str, Traces]] = field(default_factory=dict)
    arms: dict[str, dict[str, Answers]] = field(default_factory=dict)
    arm_costs: dict[str, dict[str, Spent]] = field(default_factory=dict)  # the executor's, of each arm
    trace_costs: dict[str, dict[str, Spent]] = field(default_factory=dict)  # of writing each planner's traces

    @property
    def modes(self) -> list[str]:
        return list(dict.fromkeys(mode for arm in self.arms.values() for mode in arm))

    def traces_of(self, arm: str) -> dict[str, Traces]:
        """By mode, the traces of the planner whose arm this is; none for an arm that reads no trace of its own problem."""
        name, _, planner = arm.partition(" ")
        return self.traces.get(planner or next(iter(self.traces), ""), {}) if name == "planner" else {}
