"""From seed problems to groups: reference traces, flaws, labels, filters, matched lengths, split and summary.

Every seed is worked on alone, with random draws keyed by (seed, problem_id), so that serial and parallel builds give
the same bytes and memory does not grow with the number of seeds (but for one small sketch a problem, kept to find
near-duplicates).

Lengths are matched so that a flawed trace cannot be told by its size. A *quotation*, one statement of the problem
word for word, may open a trace; the positive pool holds the reference with none to three of them, and each flawed
trace opens with as many as bring it close to a randomly drawn positive, on a randomly drawn side. Quotations are
harmless, and about as frequent on either side.

Left out on purpose: the flaws (`groups.flaws`), the labels (`groups.rubric`), and groups of code problems.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tracelift.groups import flaws
from tracelift.groups.dedup import NearDuplicates, words_of
from tracelift.groups.format import (
    MATH_DIMENSIONS,
    MAX_LABEL,
    Candidate,
    Group,
    GroupError,
    parse_json_line,
    split_of,
)
from tracelift.groups.rubric import place_of, rubric_of, sound_rubric
from tracelift.groups.trace import Trace, TraceError, clean_reference, parse_trace, write_number
from tracelift.leaks import announces_answer, leaks_answer

MAX_QUOTATIONS = 3


@dataclass(frozen=True)
class Settings:
    """How to build. Lengths are in characters (the paper's limits); `dev` is the share of problems held out."""

    source: str = "gsm8k"
    seed: int = 18
    dev: float = 0.1
    negatives: int = 8
    min_negatives: int = 4
    max_problem: int = 2500
    max_trace: int = 2000

    def __post_init__(self) -> None:
        if not 0 <= self.dev <= 1:
            raise GroupError(f"dev is {self.dev}, expected a share of the problems from 0 to 1")
        if not 1 <= self.min_negatives <= self.negatives:
            counts = f"negatives is {self.negatives} and min_negatives {self.min_negatives}"
            raise GroupError(f"{counts}: expected at least 1, and no more at least than at most")


@dataclass(frozen=True)
class Seed:
    row: int
    problem: str
    answer: str


@dataclass(frozen=True)
class Built:
    """What became of one seed: a group's line and its split, or the reason why there is none; and facts to count."""

    line: str | None
    split: str
    reason: str
    facts: Counter


def read_seeds(path: str | os.PathLike[str]) -> Iterator[tuple[int, Seed | str]]:
    """(line number, seed or what is wrong with the line) of a JSONL file with `question` and `answer` a line."""
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                row = parse_json_line(raw)
                if not isinstance(row, dict):
                    raise GroupError("the line is no object")
                problem, answer = row.get("question", row.get("problem")), row.get("answer", row.get("solution"))
                for key, value in (("question", problem), ("answer", answer)):
                    if not isinstance(value, str) or not value.strip():
                        raise GroupError(f"{key} is missing or no text")
            except GroupError as error:
                yield number, str(error)
                continue
            yield number, Seed(number - 1, problem.strip(), answer.strip())


def build_group(seed: Seed, settings: Settings) -> Built:
    """The group of one seed problem. Depends on the seed and the settings alone."""
    facts: Counter = Counter()
    problem_id = f"math_{settings.source}_{seed.row:06d}"
    split = split_of(settings.seed, problem_id, settings.dev)

    def dropped(reason: str) -> Built:
        return Built(None, split, reason, facts)

    head, marks, answer = seed.answer.rpartition("####")
    if not marks:
        return dropped("no #### answer line")
    if len(seed.problem) > settings.max_problem:
        return dropped("problem too long")
    try:
        trace = parse_trace(clean_reference(seed.answer), seed.problem, answer.strip())
    except TraceError as error:
        return dropped(f"trace not understood: {error}")
    if announces_answer(trace.text, answer):
        return dropped("reference announces its answer")

    digest = hashlib.sha256(f"{settings.seed}\0{problem_id}\0flaws".encode()).digest()
    rng = random.Random(digest)
    quotations = flaws.statements(seed.problem)[:MAX_QUOTATIONS]
    positives = [_candidate(trace, quotations[:n], None, answer) for n in range(len(quotations) + 1)]
    positives = [p for p in positives if len(p.reasoning) <= settings.max_trace]
    if not positives:
        return dropped("trace too long")
    targets = [len(p.reasoning) for p in positives]

    negatives: list[Candidate] = []
    reference, kept = words_of(trace.text), []
    for name in rng.sample(list(flaws.MAKERS), len(flaws.MAKERS)):
        flawed = flaws.make(name, trace, seed.problem, rng)
        if flawed is None:
            facts["no place", name] += 1
            continue
        words = words_of("\n".join(flawed.lines))
        if words == reference or any(_nearly_equal(words, other) for other in kept):
            facts["near duplicate", name] += 1
            continue
        options = [_candidate(trace, quotations[:n], flawed, answer) for n in range(len(quotations) + 1)]
        # A shortened trace cannot be lengthened past the last quotation, so its coin is loaded the other way.
        shortened = len("\n".join(flawed.lines)) < len(trace.text)
        candidate = _matched(options, rng.choice(targets), longer=rng.random() < (0.8 if shortened else 0.4))
        if len(candidate.reasoning) > settings.max_trace:
            facts["too long", name] += 1
            continue
        if announces_answer(candidate.reasoning, answer):
            facts["announces the answer", name] += 1
            continue
        kept.append(words)
        candidate.extra["negative_index"] = len(negatives)
        negatives.append(candidate)
        if len(negatives) == settings.negatives:
            break
    if len(negatives) < settings.min_negatives:
        return dropped("too few negatives")

    for candidate in negatives:
        flaw = candidate.extra["metadata"]["flaw"]
        facts["kind", candidate.negative_kind] += 1
        facts["answer changed", candidate.negative_kind] += flaw["answer_changed"]
        facts["place", flaw["place"]] += 1
        facts["negative length", len(candidate.reasoning)] += 1
        for name, label in candidate.rubric.dimensions.items():
            facts["label", name, label] += 1
    for candidate in positives:
        facts["positive length", len(candidate.reasoning)] += 1
    facts["negatives in a group", len(negatives)] += 1
    leak = leaks_answer(trace.text, answer)
    facts["reference", "yields its answer in a step" if not leak.unsupported else "states its answer unsupported"] += 1

    metadata = {
        "source_dataset": settings.source,
        "source_row_index": seed.row,
        "answer": answer.strip(),
        "negative_count": len(negatives),
        "builder": "tracelift.groups",
        "seed": settings.seed,
    }
    pools = tuple(positives), tuple(negatives)
    group = Group(problem_id, settings.source, "math", seed.problem, answer.strip(), *pools, metadata)
    return Built(group.to_line(), split, "", facts)


def _candidate(trace: Trace, quotations: list[str], flawed: flaws.Flawed | None, answer: str) -> Candidate:
    lines = flawed.lines if flawed else tuple(line.text for line in trace.lines)
    reasoning = "\n".join((*quotations, *lines))
    if flawed is None:
        extra = {"label": "positive", "metadata": {"quotations": len(quotations)}}
        return Candidate(reasoning, sound_rubric(), None, extra)
    place = place_of(flawed.line, len(flawed.lines))
    changed = flawed.final != trace.nodes[trace.final].value
    flaw: dict[str, Any] = {
        "line": flawed.line + len(quotations),
        "place": place,
        "note": flawed.note,
        "carried": flawed.carried,
        "answer_changed": changed,
        "final_answer": write_number(flawed.final, answer.strip()) or str(flawed.final),
    }
    extra = {"negative_index": 0, "label": "negative", "metadata": {"quotations": len(quotations), "flaw": flaw}}
    return Candidate(reasoning, rubric_of(flawed.kind, place, flawed.carried, changed), flawed.kind, extra)


def _matched(options: list[Candidate], goal: int, longer: bool) -> Candidate:
    """The option whose length is closest to `goal`: the same within a few characters if there is one, else one on the
    side that a coin chose, so that neither "shorter" nor "longer" is a mark of any kind of flaw."""
    closest = min(options, key=lambda c: abs(len(c.reasoning) - goal))
    if abs(len(closest.reasoning) - goal) <= 3:
        return closest
    side = [c for c in options if (len(c.reasoning) > goal) == longer]
    return min(side or options, key=lambda c: abs(len(c.reasoning) - goal))


def _nearly_equal(words: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two flawed traces differ in nothing or in one number: two slips at one place teach the same thing."""
    if len(words) != len(other):
        return False
    pairs = [(a, b) for a, b in zip(words, other) if a != b]
    return not pairs or (len(pairs) == 1 and all(w[0].isdigit() for w in pairs[0]))


def build(
    seeds: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: Settings,
    workers: int | None = None,
    limit: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Build `out`/train.jsonl, dev.jsonl and summary.json from a seed file; returns the summary.

    workers: processes (default: one a core); the files do not depend on it. limit: read only so many seeds.
    progress: called with the number of seeds done. The three files appear together at the end, by renaming.
    Raises GroupError where not a single group comes out.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    workers = workers or os.cpu_count() or 1
    tally = _Tally()
    files = {name: out / f"{name}.jsonl.{os.getpid()}.part" for name in ("train", "dev")}
    try:
        with open(files["train"], "w", encoding="utf-8") as train, open(files["dev"], "w", encoding="utf-8") as dev:
            handles = {"train": train, "dev": dev}
            for done, built in enumerate(_built(seeds, settings, workers, limit, tally), start=1):
                tally.add(built)
                if built.line is not None:
                    handles[built.split].write(built.line)
                progress(done)
        if not sum(tally.splits.values()):
            reasons = dict(tally.reasons) or {"broken lines": len(tally.broken)}
            raise GroupError(f"{seeds}: no group could be built ({json.dumps(reasons)})")
        summary = tally.summary(settings, Path(seeds).name)
        for name, path in files.items():
            os.replace(path, out / f"{name}.jsonl")
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)
    aside = out / f"summary.json.{os.getpid()}.part"
    aside.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, out / "summary.json")
    return summary


def _built(
    path: str | os.PathLike[str], settings: Settings, workers: int, limit: int | None, tally: _Tally
) -> Iterator[Built]:
    fresh = _fresh_seeds(path, limit, tally)
    work = functools.partial(build_group, settings=settings)
    if workers == 1:
        yield from map(work, fresh)
        return
    with multiprocessing.Pool(workers) as pool:
        # Chunks go out as results come back: imap would read the whole file ahead of slow workers.
        while chunk := list(itertools.islice(fresh, 64 * workers)):
            yield from pool.map(work, chunk, chunksize=16)


def _fresh_seeds(path: str | os.PathLike[str], limit: int | None, tally: _Tally) -> Iterator[Seed]:
    known = NearDuplicates()
    for number, seed in itertools.islice(read_seeds(path), limit):
        if isinstance(seed, str):
            tally.broken.append((number, seed))
        elif twin := known.seen(str(number), seed.problem):
            tally.repeated.append((number, int(twin[0]), twin[1]))
        else:
            yield seed


class _Tally:
    """Counts what became of the seeds; its size does not grow with them, but for lists of broken and repeated lines."""

    def __init__(self) -> None:
        self.broken: list[tuple[int, str]] = []
        self.repeated: list[tuple[int, int, float]] = []
        self.reasons: Counter = Counter()
        self.splits: Counter = Counter(train=0, dev=0)
        self.facts: Counter = Counter()

    def add(self, built: Built) -> None:
        if built.line is None:
            self.reasons[built.reason] += 1
        else:
            self.splits[built.split] += 1
            self.facts.update(built.facts)

    def summary(self, settings: Settings, seeds: str) -> dict[str, Any]:
        of = self._of
        kinds = of("kind")
        return {
            "seeds": seeds,
            "settings": asdict(settings),
            "read": sum(self.reasons.values()) + sum(self.splits.values()) + len(self.broken) + len(self.repeated),
            "groups": dict(self.splits),
            "dropped": dict(sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))),
            "broken_lines": [{"line": line, "reason": reason} for line, reason in self.broken[:50]],
            "broken_lines_count": len(self.broken),
            "repeated_problems": [
                {"line": line, "repeats": twin, "similarity": round(s, 3)} for line, twin, s in self.repeated[:50]
            ],
            "repeated_problems_count": len(self.repeated),
            "negatives": sum(kinds.values()),
            "negatives_in_a_group": {str(n): count for n, count in of("negatives in a group").items()},
            "kinds": {
                kind: {
                    "count": count,
                    "answer_changed": of("answer changed").get(kind, 0),
                    "no_place": of("no place").get(kind, 0),
                    "near_duplicate": of("near duplicate").get(kind, 0),
                    "too_long": of("too long").get(kind, 0),
                    "announced_the_answer": of("announces the answer").get(kind, 0),
                }
                for kind, count in kinds.items()
            },
            "places": of("place"),
            "labels_of_negatives": {
                name: {str(label): self.facts["label", name, label] for label in range(MAX_LABEL + 1)}
                for name in MATH_DIMENSIONS
            },
            "length_in_characters": {
                "positives": _spread(of("positive length")),
                "negatives": _spread(of("negative length")),
            },
            "references": of("reference"),
        }

    def _of(self, name: str) -> dict[Any, int]:
        return {key[1]: n for key, n in sorted(self.facts.items(), key=str) if key[0] == name and len(key) == 2}


def _spread(lengths: dict[int, int]) -> dict[str, float]:
    """Mean and percentiles of a histogram {length: count}."""
    count = sum(lengths.values())
    out = {"mean": round(sum(n * c for n, c in lengths.items()) / count, 1)}
    for percent in (5, 25, 50, 75, 95):
        below = 0
        for length in sorted(lengths):
            below += lengths[length]
            if 100 * below >= percent * count:
                out[f"p{percent}"] = length
                break
    return out
