"""A model as judge: rubric scores from any OpenAI-compatible endpoint, cached, resumable, never guessed.

The judge reads problem, reference answer and trace, and returns one JSON object: a score from 0 to 10 for each
dimension of the rubric and for the whole (the paper's judging protocol). A score becomes the label
min(4, floor(score / 2)), the total score / 10. An answer that is not that object is asked for again; a trace that
still has none after all tries stays unjudged and is counted. No failed call ever becomes a score.

Every judgement is appended to a cache file the moment it arrives, keyed by model, prompt and temperature, so that a
run that was killed goes on where it stopped and no call is paid for twice.

Left out on purpose: streaming, batching endpoints, and any client library.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracelift.errors import GroupError
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
        scores = json.loads(content)
    except ValueError as error:
        raise JudgeError(f"not JSON: {content[:80]!r}") from error
    if not isinstance(scores, dict):
        raise JudgeError(f"no JSON object: {content[:80]!r}")
    wanted = {*names, "total"}
    if wanted - scores.keys() or scores.keys() - wanted - {"reason"}:
        missing, surplus = sorted(wanted - scores.keys()), sorted(scores.keys() - wanted - {"reason"})
        raise JudgeError(f"wrong keys: missing {missing}, surplus {surplus}")
    for name in wanted:
        score = scores[name]
        if type(score) not in (int, float) or not math.isfinite(score) or not 0 <= score <= MAX_SCORE:
            raise JudgeError(f"{name} is {score!r}, expected a number from 0 to {MAX_SCORE}")
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
        if self.path.exists():
            raw = self.path.read_bytes()
            whole = raw[: raw.rfind(b"\n") + 1]
            if len(whole) < len(raw):  # the run was killed while writing
                self.path.write_bytes(whole)
            for number, line in enumerate(whole.splitlines(), start=1):
                try:
                    entry = json.loads(line)
                    self._scores[entry["key"]] = entry["scores"]
                except (ValueError, KeyError, TypeError) as error:
                    raise GroupError(f"{self.path}, line {number}: no judgement ({error}); delete the line") from error

    def get(self, key: str) -> dict[str, Any] | None:
        return self._scores.get(key)

    def put(self, key: str, scores: dict[str, Any]) -> None:
        with self._lock:
            self._scores[key] = scores
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "scores": scores}, ensure_ascii=False) + "\n")


def ask(
    endpoint: JudgeEndpoint, prompt: str, names: Sequence[str], sleep: Callable[[float], None] = time.sleep
) -> dict:
    """One judgement. Tries again on time-outs, 408, 429, 5xx and answers that are not the object asked for.

    Raises JudgeError after the last try, or at once where trying again cannot help (another 4xx status).
    """
    body = {
        "model": endpoint.model,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}],
        "temperature": endpoint.temperature,
        "max_tokens": endpoint.max_tokens,
        "response_format": {"type": "json_object"},
    }
    problem = ""
    for attempt in range(endpoint.tries):
        if attempt:
            sleep(endpoint.backoff * 2 ** (attempt - 1))
        try:
            return parse_scores(_content(_post(endpoint, body)), names)
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code}: {error.read(200).decode(errors='replace')}"
            if error.code < 500 and error.code not in (408, 429):
                break
        except (OSError, JudgeError, ValueError) as error:  # unreachable, timed out, or no usable answer
            problem = str(error)
    raise JudgeError(f"{endpoint.url}: {problem}")


def _post(endpoint: JudgeEndpoint, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{endpoint.url.rstrip('/')}/chat/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if endpoint.key:
        request.add_header("Authorization", f"Bearer {endpoint.key}")
    local = urllib.parse.urlsplit(endpoint.url).hostname in ("127.0.0.1", "localhost", "::1")
    handlers = [urllib.request.ProxyHandler({})] if local else []
    with urllib.request.build_opener(*handlers).open(request, timeout=endpoint.timeout) as response:
        return json.loads(response.read(1_000_000))


def _content(response: Any) -> str:
    try:
        content = response["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise JudgeError(f"no choices[0].message.content in {str(response)[:80]!r}") from error
    if not isinstance(content, str):
        raise JudgeError(f"the message's content is {content!r}")
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
