"""Likelihood uplift: how much likelier the trace makes the reference answer, without sampling.

    u(z) = log p(a* | x, z) − log p(a* | x)        in nats, by teacher forcing through the frozen executor

An alternative to the difference of success rates (docs/method.md), which with K = 3 is a multiple of one third. p(a* | ·) is
the probability, at the executor's temperature, that it writes the reference and then ends. It is at most the success
rate: an executor that is right in other words is not counted, so this suits short answers, and programs only where
the executor has learned the reference's style.

Left out: servers (the protocol has no agreed way to score a given text), and truncated distributions.
"""

from __future__ import annotations

from tracelift.tasks.task import Task
from tracelift.verify.math import reference_answer


def spellings(task: Task, stop: tuple[str, ...]) -> tuple[str, ...]:
    """The ways to write the reference whose probabilities add up. A number: as it stands, and after a space, since
    prompts end in "Answer:". A program: as it stands, and with a line break at its end.

    Raises ValueError naming the problem where there is no reference, or one that a stop string would cut.
    """
    if task.code is not None:
        text = task.reference.rstrip()
        ways = (text, text + "\n")
    else:
        text = reference_answer(task.reference).strip()
        ways = (text, " " + text)
    if not text:
        kind = "program" if task.code is not None else "answer"
        raise ValueError(
            f"{task.problem_id}: executor.uplift = 'likelihood' needs a reference {kind}, and this problem has none; "
            "leave it out, or use executor.uplift = 'sampled'"
        )
    ways = tuple(way for way in ways if not any(s in way for s in stop))
    if not ways:
        raise ValueError(
            f"{task.problem_id}: executor.stop = {list(stop)} would cut the reference {text[:40]!r}, so the executor "
            "can never write it; shorten executor.stop, or use executor.uplift = 'sampled'"
        )
    return ways
