"""From seed problems to groups: reference traces, flaws, labels, filters, matched lengths, split and summary.

Every seed is worked on alone, with random draws keyed by (seed, problem_id), so that serial and parallel builds give
the same bytes and memory does not grow with the number of seeds (but for one small sketch a problem, kept to find
near-duplicates).

Lengths are matched so that a flawed trace cannot be told by its size. A *quotation*, one statement of the problem
word for word, may open a trace; the positive pool holds the reference with none to three of them, and each flawed
trace opens with as many as bring it close to a randomly drawn positive, on a randomly drawn side. Quotations are
harmless, and about as frequent on either side.

Left out on purpose: reading seeds (seeds.py), the flaws (flaws/), the labels (rubric.py).
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracelift.errors import GroupError
from tracelift.files import replaced_file, write_text
from tracelift.groups.dedup import words_of
from tracelift.groups.flaws import code
from tracelift.groups.flaws import math as flaws
from tracelift.groups.flaws.trace import Trace, TraceError, clean_reference, parse_trace, write_number
from tracelift.groups.flaws.wording import statements
from tracelift.groups.rubric import place_of, rubric_of, sound_rubric
from tracelift.groups.seeds import DEMO, Seed, fresh_seeds
from tracelift.groups.summary import Tally
from tracelift.reward_model.group_format import Candidate, Group, split_of
from tracelift.rubrics import TASK_TYPES
from tracelift.verify.leaks import announces_answer, leaks_answer
from tracelift.worlds.build.code_data import demo_group

MAX_QUOTATIONS = 3


@dataclass(frozen=True)
class Settings:
    """How to build. Lengths are in characters (the paper's limits); `dev` is the share of problems held out."""

    source: str = "gsm8k"
    domain: str = "math"
    seed: int = 18
    dev: float = 0.1
    negatives: int = 8
    min_negatives: int = 4
    max_problem: int = 2500
    max_trace: int = 2000

    def __post_init__(self) -> None:
        if self.domain not in TASK_TYPES:
            raise GroupError(f"domain {self.domain!r} is none of {', '.join(TASK_TYPES)}")
        if not 0 <= self.dev <= 1:
            raise GroupError(f"dev is {self.dev}, expected a share of the problems from 0 to 1")
        if not 1 <= self.min_negatives <= self.negatives:
            counts = f"negatives is {self.negatives} and min_negatives {self.min_negatives}"
            raise GroupError(f"{counts}: expected at least 1, and no more at least than at most")


@dataclass(frozen=True)
class Built:
    """What became of one seed: a group's line and its split, or the reason why there is none; and facts to count."""

    line: str | None
    split: str
    reason: str
    facts: Counter


def build_group(seed: Seed, settings: Settings) -> Built:
    """The group of one seed problem. Depends on the seed and the settings alone."""
    facts: Counter = Counter()
    problem_id = f"{settings.domain}_{settings.source}_{seed.row:06d}"
    split = split_of(settings.seed, problem_id, settings.dev)
    if seed.problem.startswith(DEMO):
        group = demo_group(seed.row, settings.seed, settings.negatives)
        return _counted(group, split_of(settings.seed, group.problem_id, settings.dev), facts, settings)
    if len(seed.problem) > settings.max_problem:
        return Built(None, split, "problem too long", facts)
    rng = random.Random(hashlib.sha256(f"{settings.seed}\0{problem_id}\0flaws".encode()).digest())
    found = (_math_offers if settings.domain == "math" else _code_offers)(seed, rng, facts)
    if isinstance(found, str):
        return Built(None, split, found, facts)
    positives = [p for p in found.positives if len(p.reasoning) <= settings.max_trace]
    if not positives:
        return Built(None, split, "trace too long", facts)
    negatives = _negatives(found, [len(p.reasoning) for p in positives], rng, settings, facts)
    if len(negatives) < settings.min_negatives:
        return Built(None, split, "too few negatives", facts)
    metadata = {
        "source_dataset": settings.source,
        "source_row_index": seed.row,
        **({"answer": found.answer} if settings.domain == "math" else {}),
        "negative_count": len(negatives),
        "builder": "tracelift.groups",
        "seed": settings.seed,
    }
    pools = tuple(positives), tuple(negatives)
    group = Group(problem_id, settings.source, settings.domain, seed.problem, found.answer, *pools, metadata)
    return _counted(group, split, facts, settings)


@dataclass(frozen=True)
class _Offers:
    """What can be made of a seed: sound traces, and flaws in random order, lazily, each as its kind, its text without
    quotations, and the candidates it makes with none to all quotations."""

    positives: list[Candidate]
    reference: str
    answer: str
    flaws: Iterator[tuple[str, str, list[Candidate]]]


def _math_offers(seed: Seed, rng: random.Random, facts: Counter) -> _Offers | str:
    _, marks, answer = seed.answer.rpartition("####")
    answer = answer.strip()
    if not marks:
        return "no #### answer line"
    try:
        trace = parse_trace(clean_reference(seed.answer), seed.problem, answer)
    except TraceError as error:
        return f"trace not understood: {error}"
    if announces_answer(trace.text, answer):
        return "reference announces its answer"
    quotations = statements(seed.problem)[:MAX_QUOTATIONS]
    leak = leaks_answer(trace.text, answer)
    facts["reference", "yields its answer in a step" if not leak.unsupported else "states its answer unsupported"] += 1

    def offers() -> Iterator[tuple[str, str, list[Candidate]]]:
        for name in rng.sample(list(flaws.MAKERS), len(flaws.MAKERS)):
            flawed = flaws.make(name, trace, seed.problem, rng)
            if flawed is None:
                facts["no place", name] += 1
            else:
                options = [_candidate(trace, quotations[:n], flawed, answer) for n in range(len(quotations) + 1)]
                yield name, "\n".join(flawed.lines), options

    positives = [_candidate(trace, quotations[:n], None, answer) for n in range(len(quotations) + 1)]
    return _Offers(positives, trace.text, answer, offers())


def _code_offers(seed: Seed, rng: random.Random, facts: Counter) -> _Offers | str:
    steps = code.steps_of(seed.trace)
    if len(steps) < 2:
        return "a plan of one step"
    if code.holds_code(seed.trace):
        return "reference holds code"
    quotations = code.quotations_of(seed.problem)[:MAX_QUOTATIONS]

    def offers() -> Iterator[tuple[str, str, list[Candidate]]]:
        for name in rng.sample(code.KINDS, len(code.KINDS)):
            flawed = code.make(name, steps, seed.answer, rng)
            if flawed is None:
                facts["no place", name] += 1
            else:
                options = [
                    code.candidate(seed.trace, quotations[:n], (name, flawed)) for n in range(len(quotations) + 1)
                ]
                yield name, code.joined(flawed[0], seed.trace), options

    positives = [code.candidate(seed.trace, quotations[:n], None) for n in range(len(quotations) + 1)]
    return _Offers(positives, code.joined(steps, seed.trace), seed.answer, offers())


def _negatives(
    found: _Offers, targets: list[int], rng: random.Random, settings: Settings, facts: Counter
) -> list[Candidate]:
    """The flaws that pass the filters, each opened with as many quotations as its length needs."""
    negatives: list[Candidate] = []
    reference, kept = words_of(found.reference), []
    for name, text, options in found.flaws:
        words = words_of(text)
        if words == reference or any(nearly_equal(words, other) for other in kept):
            facts["near duplicate", name] += 1
            continue
        # A shortened trace cannot be lengthened past the last quotation, so its coin is loaded the other way.
        shortened = len(text) < len(found.reference)
        candidate = _matched(options, rng.choice(targets), longer=rng.random() < (0.8 if shortened else 0.4))
        if len(candidate.reasoning) > settings.max_trace:
            facts["too long", name] += 1
            continue
        if settings.domain == "math" and announces_answer(candidate.reasoning, found.answer):
            facts["announces the answer", name] += 1
            continue
        kept.append(words)
        candidate.extra["negative_index"] = len(negatives)
        negatives.append(candidate)
        if len(negatives) == settings.negatives:
            break
    return negatives


def _counted(group: Group, split: str, facts: Counter, settings: Settings) -> Built:
    """The group's line, with what the summary counts."""
    if len(group.negative_bank) < settings.min_negatives:
        return Built(None, split, "too few negatives", facts)
    for candidate in group.negative_bank:
        flaw = (candidate.extra.get("metadata") or {}).get("flaw") or {}
        facts["kind", candidate.negative_kind] += 1
        facts["answer changed", candidate.negative_kind] += bool(
            flaw.get("answer_changed", candidate.extra.get("changes_result"))
        )
        facts["place", flaw.get("place", "not recorded")] += 1
        facts["negative length", len(candidate.reasoning)] += 1
        for name, label in candidate.rubric.dimensions.items():
            facts["label", name, label] += 1
    for candidate in group.positive_pool:
        facts["positive length", len(candidate.reasoning)] += 1
    facts["negatives in a group", len(group.negative_bank)] += 1
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


def nearly_equal(words: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two flawed traces differ in nothing or in one number: two slips at one place teach the same thing."""
    if len(words) != len(other):
        return False
    pairs = [(a, b) for a, b in zip(words, other, strict=True) if a != b]
    return not pairs or (len(pairs) == 1 and all(w[0].isdigit() for w in pairs[0]))


def build(
    seeds: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: Settings,
    workers: int | None = None,
    limit: int | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> dict[str, Any]:
    """Build `out`/train.jsonl, dev.jsonl and summary.json from a seed file; returns the summary.

    workers: processes (default: one a core); the files do not depend on it. limit: read only so many seeds.
    progress: called with the number of seeds done. The three files appear together at the end, by renaming.
    Raises GroupError where not a single group comes out.
    """
    out = Path(out)
    workers = workers or os.cpu_count() or 1
    tally = Tally()
    with replaced_file(out / "train.jsonl") as train, replaced_file(out / "dev.jsonl") as dev:
        files = {"train": train, "dev": dev}
        for done, built in enumerate(_built(seeds, settings, workers, limit, tally), start=1):
            tally.add(built)
            if built.line is not None:
                files[built.split].write(built.line)
            progress(done)
        if not sum(tally.splits.values()):
            reasons = dict(tally.reasons) or {"broken lines": len(tally.broken)}
            raise GroupError(f"{seeds}: no group could be built ({json.dumps(reasons)})")
        summary = tally.summary(settings, Path(seeds).name)
    write_text(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return summary


def _built(
    path: str | os.PathLike[str], settings: Settings, workers: int, limit: int | None, tally: Tally
) -> Iterator[Built]:
    fresh = fresh_seeds(path, limit, tally, settings.domain)
    work = functools.partial(build_group, settings=settings)
    if workers == 1:
        yield from map(work, fresh)
        return
    # Spawned, not forked: the caller may hold threads and signal handlers that a worker must not inherit.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        # Chunks go out as results come back: imap would read the whole file ahead of slow workers.
        while chunk := list(itertools.islice(fresh, 64 * workers)):
            yield from pool.map(work, chunk, chunksize=16)
