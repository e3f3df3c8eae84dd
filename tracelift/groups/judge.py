"""A model as judge: rubric scores from any OpenAI-compatible endpoint, cached, resumable, never guessed.

The judge reads problem, reference answer and trace, and returns one JSON object: a score from 0 to 10 for each
dimension of the rubric and for the whole (the paper's judging protocol). A score becomes the label
min(4, floor(score / 2)), the total score / 10. An answer that is not that object is asked for again; a trace that
still has none after all tries stays unjudged and is counted. No failed call ever becomes a score.

Every judgement is appended to a cache file the moment it arrives, keyed by model, prompt and temperature, so that a
run that was killed goes on where it stopped and no call is paid for twice.

Left out on purpose: streaming, batching endpoints, how a call is made and tried again (executor/remote/transport.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracelift.errors import GroupError, RowsError
from tracelift.executor.remote.transport import Failure, Transport, parse_url, reply_json, start_of
from tracelift.files import append_lines, as_float, is_text, json_line, parse_json, read_log
from tracelift.reward_model.group_format import Candidate, Group, Rubric, parse_rubric
from tracelift.rubrics import MAX_LABEL, dimensions_of

MAX_SCORE = 10
SYSTEM = "You grade reasoning traces. You answer with one JSON object and nothing else."
PROMPT = """\
Grade the reasoning below, which was written to help another solver reach the right result. Read every step; a trace
may be wrong although its last number is right, and right although it stops before the answer.

Problem:
{problem}

Right result:
{reference}

Reasoning to grade:
{reasoning}

Give each of these a score from 0 (useless) to 10 (flawless): {dimensions}, and total for the whole.
Answer with one JSON object with exactly these keys, their scores, and "reason", one short sentence: {keys}
"""


class JudgeError(RuntimeError):
    """The endpoint gave no usable judgement; the message says what it gave instead."""


@dataclass(frozen=True)
class JudgeEndpoint:
    """Where the judge is and how it is asked. `url` is the API's base, such as http://127.0.0.1:8000/v1.

    tries: calls for one trace at most. backoff: seconds before the second try, doubled for each further one.
    """

    url: str
    model: str
    key: str | None = None
    temperature: float = 0.0
    max_tokens: int = 300
    timeout: float = 120.0
    tries: int = 4
    backoff: float = 1.0


def render(group: Group, candidate: Candidate, prompt: str = PROMPT) -> str:
    """The judge's prompt. Fields of `prompt`: {problem} {reference} {reasoning} {dimensions} {keys}."""
    names = dimensions_of(group.task_type)
    fields = {
        "problem": group.problem,
        "reference": group.reference_solution,
        "reasoning": candidate.reasoning,
        "dimensions": ", ".join(names),
        "keys": ", ".join((*names, "total", "reason")),
    }
    try:
        return prompt.format_map(fields)
    except (KeyError, IndexError, ValueError) as error:
        raise GroupError(f"the judge prompt has a field that is not one of {', '.join(fields)}: {error}") from error


def parse_scores(content: str, names: Sequence[str]) -> dict[str, Any]:
    """The judge's JSON object, checked: each dimension and `total` from 0 to 10. Raises JudgeError on anything else."""
    try:
        scores = parse_json(content, anything=True)
    except ValueError as error:
        raise JudgeError(f"not JSON: {content[:80]!r}") from error
    if not isinstance(scores, dict) or not is_text(scores):  # half a character in it could not be kept
        raise JudgeError(f"no JSON object: {content[:80]!r}")
    wanted = {*names, "total"}
    if wanted - scores.keys() or scores.keys() - wanted - {"reason"}:
        missing, surplus = sorted(wanted - scores.keys()), sorted(scores.keys() - wanted - {"reason"})
        raise JudgeError(f"wrong keys: missing {missing}, surplus {surplus}")
    for name in wanted:
        score = as_float(scores[name])
        if score is None or not 0 <= score <= MAX_SCORE:
            raise JudgeError(f"{name} is {scores[name]!r:.80}, expected a number from 0 to {MAX_SCORE}")
    return scores


def rubric_from_scores(scores: dict[str, Any], names: Sequence[str]) -> Rubric:
    """0-10 scores as labels 0-4 and a total in [0, 1]."""
    labels = {name: min(MAX_LABEL, math.floor(scores[name] / 2)) for name in names}
    return Rubric(labels, round(scores["total"] / MAX_SCORE, 6))


class Cache:
    """Judgements on disk, one JSON object a line, appended as they come. A half-written last line is dropped."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._scores: dict[str, dict[str, Any]] = {}
        try:
            entries = read_log(self.path) if self.path.exists() else []
        except RowsError as error:
            raise GroupError(f"{error}; delete the line") from None
        for number, entry in enumerate(entries, start=1):
            try:
                self._scores[entry["key"]] = entry["scores"]
            except (KeyError, TypeError) as error:
                raise GroupError(f"{self.path}, line {number}: no judgement ({error}); delete the line") from error

    def get(self, key: str) -> dict[str, Any] | None:
        return self._scores.get(key)

    def put(self, key: str, scores: dict[str, Any]) -> None:
        with self._lock:
            self._scores[key] = scores
            append_lines(self.path, [json_line({"key": key, "scores": scores})], "the judgements")


class _Chat(Transport):
    """The endpoint, asked as the paper asks its judge; its pauses are the ones the endpoint's settings name."""

    answered, jitter = "HTTP", 0.0

    def __init__(self, endpoint: JudgeEndpoint, sleep: Callable[[float], None]) -> None:
        super().__init__(
            parse_url(endpoint.url, "", "/chat/completions"),
            endpoint.key,
            timeout_s=endpoint.timeout,
            retries=endpoint.tries - 1,
            backoff_s=endpoint.backoff,
            sleep=sleep,
            proxies=True,  # hosted judges may be out of reach without
        )
        self.endpoint = endpoint

    def judgement(self, prompt: str, names: Sequence[str]) -> dict[str, Any]:
        """One attempt. Raises Failure."""
        body = {
            "model": self.endpoint.model,
            "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}],
            "temperature": self.endpoint.temperature,
            "max_tokens": self.endpoint.max_tokens,
            "response_format": {"type": "json_object"},
        }
        data = self.exchange("POST", self.server.path, json.dumps(body).encode())
        try:
            return parse_scores(_content(data), names)
        except JudgeError as error:
            raise Failure(str(error)) from error


def ask(
    endpoint: JudgeEndpoint, prompt: str, names: Sequence[str], sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """One judgement. Tries again on all that may pass (executor/remote/transport.py) and on answers that are not the object
    asked for.

    Raises JudgeError after the last try, or at once where trying again cannot help.
    """
    try:
        chat = _Chat(endpoint, sleep)
        return chat.persist(lambda: chat.judgement(prompt, names))
    except (Failure, ValueError) as error:
        raise JudgeError(f"{endpoint.url}: {error}") from None


def _content(data: bytes) -> str:
    try:
        content = reply_json(data)["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise JudgeError(f"no choices[0].message.content in {start_of(data, 80)!r}") from error
    if not isinstance(content, str):
        raise JudgeError(f"the message's content is {content!r:.80}")
    return content


def judge_groups(
    groups: Sequence[Group],
    endpoint: JudgeEndpoint,
    cache: Cache,
    workers: int = 4,
    prompt: str = PROMPT,
    replace_labels: bool = False,
    progress: Callable[[], object] = lambda: None,
) -> Iterator[tuple[Group, list[str]]]:
    """(group with judgements, reasons of its unjudged traces), in order.

    A judgement stands in each trace's `judge` key, in the rubric's layout with the judge's `reason`. replace_labels:
    it becomes the rubric instead, and the rule's labels stand in `rule_rubric`.
    """
    jobs = [(group, candidate) for group in groups for candidate in group.candidates]

    def one(job: tuple[Group, Candidate]) -> Candidate | str:
        group, candidate = job
        names, text = dimensions_of(group.task_type), render(*job, prompt)
        key = hashlib.sha256(json.dumps([endpoint.model, endpoint.temperature, SYSTEM, text]).encode()).hexdigest()
        try:
            scores = cache.get(key)
            if scores is None:
                scores = ask(endpoint, text, names)
                cache.put(key, scores)
        except JudgeError as error:
            return str(error)
        finally:
            progress()
        rubric = rubric_from_scores(scores, names)
        if replace_labels:
            beside = {"rule_rubric": candidate.rubric.to_json(), "rubric_reason": scores.get("reason")}
            extra = candidate.extra | beside
            return replace(candidate, rubric=rubric, extra=extra)
        judged = {**rubric.to_json(), "reason": scores.get("reason")}
        return replace(candidate, extra={**candidate.extra, "judge": judged})

    pool = ThreadPoolExecutor(workers)
    try:
        results = pool.map(one, jobs)
        for group in groups:
            found = [next(results) for _ in group.candidates]
            failed = [r for r in found if isinstance(r, str)]
            kept = [c if isinstance(r, str) else r for c, r in zip(group.candidates, found, strict=True)]
            count = len(group.positive_pool)
            yield replace(group, positive_pool=tuple(kept[:count]), negative_bank=tuple(kept[count:])), failed
    finally:  # a caller who stops early does not wait, or pay, for calls not yet made
        pool.shutdown(cancel_futures=True)


# --------------------------------------------------------------------------------------------------------- agreement


@dataclass(frozen=True)
class Agreement:
    """Rule against judge in one dimension: shares equal and within one, weighted kappa (quadratic), and the confusion
    matrix [rule][judge] of labels 0-4. Kappa is nan where either side gives one label only."""

    dimension: str
    traces: int
    equal: float
    within_one: float
    kappa: float
    confusion: tuple[tuple[int, ...], ...]


def agreement(groups: Sequence[Group]) -> list[Agreement]:
    """Compare the two sets of labels that `judge_groups` leaves in a trace. Raises GroupError where there are none."""
    tables: dict[str, list[list[int]]] = {}
    for group in groups:
        for candidate in group.candidates:
            rule, judge = _both(candidate, group.problem_id)
            if rule is None or judge is None:
                continue
            for name, label in rule.dimensions.items():
                table = tables.setdefault(name, [[0] * (MAX_LABEL + 1) for _ in range(MAX_LABEL + 1)])
                table[label][judge.dimensions[name]] += 1
    if not tables:
        raise GroupError("no trace carries both rule and judge labels: run `judge` first")
    return [_agreement(name, table) for name, table in tables.items()]


def _both(candidate: Candidate, problem_id: str) -> tuple[Rubric | None, Rubric | None]:
    if "rule_rubric" in candidate.extra:
        return parse_rubric(candidate.extra["rule_rubric"], f"{problem_id}: rule_rubric"), candidate.rubric
    if "judge" in candidate.extra:
        return candidate.rubric, parse_rubric(candidate.extra["judge"], f"{problem_id}: judge")
    return None, None


def _agreement(name: str, table: list[list[int]]) -> Agreement:
    labels = range(MAX_LABEL + 1)
    n = sum(map(sum, table))
    rows, columns = [sum(table[i]) for i in labels], [sum(table[i][j] for i in labels) for j in labels]
    observed = sum(table[i][j] * (i - j) ** 2 for i in labels for j in labels) / n
    expected = sum(rows[i] * columns[j] * (i - j) ** 2 for i in labels for j in labels) / n**2
    constant = max(rows) == n or max(columns) == n
    return Agreement(
        name,
        n,
        sum(table[i][i] for i in labels) / n,
        sum(table[i][j] for i in labels for j in labels if abs(i - j) <= 1) / n,
        math.nan if constant else 1 - observed / expected,
        tuple(map(tuple, table)),
    )


def agreement_text(rows: Sequence[Agreement]) -> str:
    out = ["| dimension | traces | equal | within one | weighted kappa |", "|---|---|---|---|---|"]
    out += [f"| {r.dimension} | {r.traces} | {r.equal:.3f} | {r.within_one:.3f} | {r.kappa:.3f} |" for r in rows]
    for row in rows:
        out += ["", f"{row.dimension}: rule (down) against judge (across), labels 0-4"]
        out += ["    " + " ".join(f"{count:6d}" for count in line) for line in row.confusion]
    return "\n".join(out) + "\n"
