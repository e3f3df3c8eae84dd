"""Flawed traces written by a model: sampled as a planner's traces are, and kept only where a flaw is known.

A rule's flaws are those somebody thought of; a model's own are the ones a Reason RM will meet. Of what it writes, kept is

    generated_slip           a trace with a calculation that does not hold, whatever its result
    generated_wrong_result   all calculations hold, and what the trace leads to is not the answer

Dropped are traces that may be sound (they lead to the answer and every calculation holds), that lead to no number, that
announce the answer, and near repetitions. Labels are those of the rule's nearest kinds: slip_carried or slip_repaired at
the slip's place, wrong_operator for a wrong result of unknown cause.

Left out: groups of code problems (what is wrong with a written plan is not known without a judge; `judge` asks one).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from tracelift.errors import GroupError
from tracelift.groups.build import nearly_equal
from tracelift.groups.dedup import words_of
from tracelift.groups.rubric import place_of, rubric_of
from tracelift.reward_model.group_format import Candidate, Group
from tracelift.rl.rollout import PlannerPrompt, sample_traces
from tracelift.sampler import Sampler, SamplingParams
from tracelift.tasks.task import Task
from tracelift.verify.arithmetic import Equation, ExpressionError, evaluate, find_equations, plain
from tracelift.verify.leaks import announces_answer
from tracelift.verify.math import read_reference

_EXPRESSION = re.compile(r"[$(]*[0-9][0-9.,]*\)?(?:\s*[-+*/×]\s*[$(]*[0-9][0-9.,]*\)?)+")
CHUNK = 32  # groups sampled in one call


def generate(
    groups: Sequence[Group],
    sampler: Sampler,
    prompt: PlannerPrompt,
    params: SamplingParams,
    most: int,
    max_trace: int,
    progress: Callable[[int], object] = lambda done: None,
) -> Iterator[tuple[Group, Counter]]:
    """Each group with up to `most` of the model's flawed traces added, and what became of all it wrote.

    Deterministic: draws are keyed by (params.seed, place of the group in the file). Raises GroupError on a code group or
    one without a number for an answer.
    """
    for start in range(0, len(groups), CHUNK):
        chunk = groups[start : start + CHUNK]
        tasks = [Task(g.problem_id, g.problem, answer_of(g)) for g in chunk]
        samples = sample_traces(sampler, prompt, tasks, params, [(start + i,) for i in range(len(chunk))], max_trace)
        for i, (group, task, written) in enumerate(zip(chunk, tasks, samples, strict=True)):
            yield extended(group, task.reference, [s.trace for s in written], most)
            progress(start + i + 1)


def answer_of(group: Group) -> str:
    if group.task_type != "math":
        raise GroupError(
            f"{group.problem_id} is a {group.task_type} group; what is wrong with a written plan is not known"
        )
    answer = str(group.metadata.get("answer", group.reference_solution))
    if read_reference(answer) is None:
        raise GroupError(
            f"{group.problem_id} has no single number for an answer: {answer[:60]!r} (metadata.answer, or reference_solution)"
        )
    return answer


def extended(group: Group, answer: str, traces: Sequence[str | None], most: int) -> tuple[Group, Counter]:
    """The group with the first `most` traces that pass the filters; counts by kind and by reason."""
    facts: Counter = Counter()
    known = [words_of(c.reasoning) for c in group.candidates]
    added: list[Candidate] = []
    for trace in traces:
        made = flawed(trace, answer) if trace is not None else "no complete reasoning block"
        words = words_of(trace or "")
        if isinstance(made, Candidate) and any(nearly_equal(words, other) for other in known):
            made = "near repetition"
        if isinstance(made, Candidate) and len(added) == most:
            made = "one more than asked for"
        if isinstance(made, str):
            facts[made] += 1
            continue
        known.append(words)
        made.extra["negative_index"] = len(group.negative_bank) + len(added)
        added.append(made)
        facts[made.negative_kind] += 1
    return replace(group, negative_bank=(*group.negative_bank, *added)), facts


def flawed(trace: str, answer: str) -> Candidate | str:
    """The trace as a flawed candidate, or why it is none."""
    if announces_answer(trace, answer):
        return "announces the answer"
    text = plain(trace)
    final = conclusion(text)
    if final is None:
        return "leads to no number"
    right = read_reference(answer)
    changed = right is None or final not in (right.value, right.unit_value)
    wrong = next((e for e in find_equations(text) if not _holds(e)), None)
    if wrong is None and not changed:
        return "may be sound"
    if wrong is None:
        kind, place, line, note = "generated_wrong_result", "middle", None, f"leads to {_shown(final)}"
        rubric = rubric_of("wrong_operator", place, True, True)
    else:
        parts = [text.count(mark, 0, wrong.left.start) for mark in ("\n", ". ")]
        line, steps = sum(parts), 1 + sum(text.rstrip().count(mark) for mark in ("\n", ". "))
        kind, place = "generated_slip", place_of(min(line, steps - 1), steps)
        note = f"the result is {_shown(wrong.left.value)}, not {_shown(wrong.right.value)}"
        rubric = rubric_of("slip_carried" if changed else "slip_repaired", place, changed, changed)
    flaw = {
        "line": line,
        "place": place,
        "note": note,
        "carried": changed,
        "answer_changed": changed,
        "final_answer": _shown(final),
    }
    return Candidate(
        trace, rubric, kind, {"negative_index": 0, "label": "negative", "metadata": {"generated": True, "flaw": flaw}}
    )


def conclusion(text: str) -> Fraction | None:
    """What a trace leads to: its last equation's result, or the expression after it that it leaves to the reader."""
    equations = find_equations(text)
    rest = text[equations[-1].right.end :] if equations else text
    for match in reversed(list(_EXPRESSION.finditer(rest))):
        try:
            return evaluate(match[0].rstrip(".,"))
        except ExpressionError:
            continue
    return equations[-1].right.value if equations else None


def _holds(equation: Equation) -> bool:
    """Also where the result is rounded: `10 / 3 = 3.33`, `10 / 3 = 3`."""
    left, right = equation.left.value, equation.right.value
    ends = (left * 1000).denominator == 1
    return left == right or (not ends and abs(left - right) < (1 if right.denominator == 1 else Fraction(1, 100)))


def _shown(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):g}"
