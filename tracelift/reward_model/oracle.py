"""The math demo's rubric as a judge: what a Reason RM would say if it saw the truth, and the same with wrong labels.

The first fault of a trace (tracelift/worlds/math/validity.py) names the row of RUBRIC that its flaw is labelled by;
whether the final value survived decides between rows that differ in just that. `noise` is the share of traces whose row
is drawn at random instead, always the same one for a trace: wrong labels, not jitter. With `blind` it takes one kind of
fault for sound, always: a systematic error. With neither it is the best Reason RM there can be here, so runs with it, with a
trained RM, with noise and with a blind spot show what the RM's quality is worth (benchmarks/study.py). Left out: the code demo; anything that could be used outside a world whose truth is known.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tracelift.reward_model.scorer import RMScore, ScoreItem, no_score
from tracelift.worlds.math.flaws import DIMENSIONS, RUBRIC
from tracelift.worlds.math.problems import MathProblem
from tracelift.worlds.math.validity import check_trace, final_value
from tracelift.worlds.tasks import Known

Row = tuple[tuple[int, ...], float]

# fault: the rubric's row where the final value is still the answer, and where it is not
ROWS: dict[str, tuple[str, str]] = {
    "false_arithmetic": ("slip_not_carried", "slip_carried"),
    "no_result": ("slip_not_carried", "slip_carried"),
    "ungrounded": ("irrelevant_step", "wrong_operator"),
    "wrong_reason": ("wrong_reason", "wrong_quantity"),
    "duplicate": ("duplicated_step", "duplicated_step"),
    "missing_step": ("wrong_reason", "step_dropped"),
    "answer_leaked": ("answer_leaked", "answer_leaked"),
}
UNREADABLE: Row = ((0, 0, 0, 0, 0), 0.0)


def row_of(problem: MathProblem, trace: str, blind: str | None = None) -> Row:
    """Labels 0–4 in the order of DIMENSIONS and the total in [0, 1] of a trace, by the truth; by one who takes the fault `blind`
    for sound, where it is given."""
    fault = check_trace(problem, trace).fault
    if fault == "unreadable":
        return UNREADABLE
    if fault is None or fault == blind:
        return RUBRIC[None]
    return RUBRIC[ROWS[fault][final_value(trace) != problem.answer]]


class OracleScorer:
    """A Reason RM that knows (tracelift.reward_model.scorer.Scorer). `noise`: share of traces with another row's labels;
    `blind`: the fault, of ROWS, of which a trace that has it first is taken for sound."""

    dimension_names: tuple[str, ...] = DIMENSIONS
    flaw_kinds: tuple[str, ...] = ()

    def __init__(self, noise: float = 0.0, blind: str | None = None) -> None:
        """Raises ValueError on a noise outside [0, 1] and on a fault that is none."""
        if not 0 <= noise <= 1:
            raise ValueError(f"noise is {noise:g}, expected a share between 0 and 1")
        if blind is not None and blind not in ROWS:
            raise ValueError(f"blind to '{blind}', expected one of {', '.join(ROWS)}")
        self.noise, self.blind = noise, blind

    @property
    def fingerprint(self) -> str:
        return f"oracle of the math demo, noise {self.noise:g}" + (f", blind to {self.blind}" if self.blind else "")

    def score(self, items: Sequence[ScoreItem]) -> list[RMScore]:
        return [self._one(item) for item in items]

    def _one(self, item: ScoreItem) -> RMScore:
        problem = item.truth.problem if isinstance(item.truth, Known) else None
        if not isinstance(problem, MathProblem):
            return no_score("the oracle judges the math demo's problems only (data.source = 'demo:math')")
        rng = random.Random(f"oracle:{item.problem}:{item.reasoning}")
        labels, total = (
            rng.choice(list(RUBRIC.values()))
            if rng.random() < self.noise
            else row_of(problem, item.reasoning, self.blind)
        )
        return RMScore(total, sum(labels) / (4 * len(labels)), None, tuple(map(float, labels)))


def is_oracle(path: str) -> bool:
    """Whether reward_model.path asks for the oracle and not for a folder."""
    return path.partition(":")[0] == "oracle"


def oracle(path: str) -> OracleScorer:
    """`oracle`, `oracle:NOISE` or `oracle:blind-FAULT`. Raises ValueError on anything else after the colon."""
    _, colon, word = path.partition(":")
    try:
        if word.startswith("blind-"):
            return OracleScorer(blind=word.removeprefix("blind-"))
        return OracleScorer(float(word) if colon else 0.0)
    except ValueError as e:
        raise ValueError(
            f"reward_model.path = '{path}': expected oracle, oracle:NOISE with NOISE between 0 and 1, or oracle:blind-FAULT "
            f"with FAULT of {', '.join(ROWS)}"
        ) from e
