"""One trace on its way to a reward, and everything that is known about it.

Training, evaluation, the logs and `tracelift.explain` read the same record. Left out: who fills it in (tracelift/rl/rollout.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tracelift.errors import TrainingError
from tracelift.executor.outcome import Outcome
from tracelift.reward_model.scorer import RMScore
from tracelift.rl.rewards import CodeReward, MathReward
from tracelift.sampler import Completion
from tracelift.tasks.task import Task
from tracelift.verify.verdict import Verdict


@dataclass
class Sample:
    """One trace on its way to a reward. Fields fill from top to bottom; `error` set means it leaves its group."""

    task: Task
    prompt_tokens: list[int]
    completion: Completion
    text: str
    trace: str | None  # None: a format failure, the executor is not called
    outcome: Outcome | None = None
    rm: RMScore | None = None
    parts: MathReward | CodeReward | None = None
    reward: float | None = None
    leaked: bool = False  # the final value is stated, or the program or a line of it
    leaked_unsupported: bool = False  # a value without the steps that yield it
    valid: bool | None = None  # every step true and grounded; None where the truth is unknown
    fault: str | None = None  # the first thing wrong in a trace that is not valid
    error: str | None = None

    @property
    def correct(self) -> bool:
        return self.outcome is not None and self.outcome.e2e is Verdict.PASS

    def record(self, tokens: bool = False) -> dict[str, Any]:
        """Everything about this sample, for samples.jsonl; with `tokens` also the trained tokens and their log-probs."""
        o, r, c = self.outcome, self.rm, self.completion
        trained = {"token_ids": c.tokens, "logprobs": [round(x, 4) for x in c.logprobs]} if tokens else {}
        ran = (
            {}
            if o is None or o.judgement is None or self.task.code is None
            else {
                "status": o.judgement.status,
                "pass_rate": o.judgement.pass_rate,
                "visible_rate": o.judgement.visible_rate,
                "detail": o.judgement.detail,
            }
        )
        return ran | {
            "problem_id": self.task.problem_id,
            "problem": self.task.problem,
            "reference": self.task.reference,
            "text": self.text,
            "trace": self.trace,
            "tokens": len(self.completion.tokens),
            "finish_reason": self.completion.finish_reason,
            "artifact": o.artifact if o else None,
            "runs": list(o.runs) if o else [],
            "verdicts": list(o.verdicts) if o else [],
            "base_runs": [list(run) for run in o.base_runs] if o else [],
            "e2e": o.e2e.name if o else None,
            "success_with": o.success_with if o else None,
            "success_base": o.success_base if o else None,
            "uplift": o.uplift if o else None,
            "likelihoods": list(o.logprobs) if o and o.logprobs else None,
            "rm_total": r.total if r else None,
            "rm_derived": r.derived if r else None,
            "rm_head": r.head if r else None,
            "rm_dimensions": list(r.dimensions) if r else None,
            "leaked": self.leaked,
            "leaked_unsupported": self.leaked_unsupported,
            "valid": self.valid,
            "fault": self.fault,
            "parts": asdict(self.parts) if self.parts else None,
            "reward": self.reward,
            "error": self.error,
            **trained,
        }


def reached_executor(samples: Iterable[Sample]) -> list[Sample]:
    """Those whose trace the executor was asked about: a format failure cannot end in an ERROR."""
    return [s for s in samples if s.trace is not None]


def refuse_too_many_errors(groups: list[list[Sample]], allowed: float, step: int) -> None:
    """Stop where ERROR verdicts are no longer the exception: what is left would be a biased choice of samples."""
    asked = reached_executor(s for g in groups for s in g)
    errors = [s.error for s in asked if s.error is not None]
    what = "samples that reached the executor ended in an ERROR verdict"
    refuse_errors(errors, len(asked), f"round {step + 1}", what, "executor.max_error_share", allowed)


def refuse_errors(errors: Sequence[str], total: int, where: str, what: str, key: str, allowed: float) -> None:
    """Raises TrainingError, with the first of `errors`, where they are more than the share `allowed` (config key `key`)
    of `total`."""
    if len(errors) > allowed * total:
        raise TrainingError(
            f"{where}: {len(errors)} of {total} {what}, more than {key} = {allowed}. The first: {errors[0]}"
        )
