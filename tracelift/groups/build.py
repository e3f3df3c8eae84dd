"""From seed problems to groups: reference traces, flaws, labels, filters, matched lengths, split and summary.

Every seed is worked on alone, with random draws keyed by (seed, problem_id), so that serial and parallel builds give
the same bytes and memory does not grow with the number of seeds (but for one small sketch a problem, kept to find
near-duplicates).

Lengths are matched so that a flawed trace cannot be told by its size. A *quotation*, one statement of the problem
word for word, may open a trace; the positive pool holds the reference with none to three of them, and each flawed
trace opens with as many as bring it close to a randomly drawn positive, on a randomly drawn side. Quotations are
harmless, and about as frequent on either side.

Alternatives, sound traces told otherwise, have draws of their own: without them a group is what it was before there were any.

Left out on purpose: reading seeds (seeds.py), what can be made of one (offers.py), the labels (rubric.py).
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
from tracelift.files import json_line, replaced_file, write_text
from tracelift.groups.dedup import words_of
from tracelift.groups.offers import Dropped, Offers, code_offers, math_offers
from tracelift.groups.seeds import DEMOS, NoSeed, Seed, fresh_seeds
from tracelift.groups.summary import Tally
from tracelift.reward_model.group_format import Candidate, Group, split_of
from tracelift.rubrics import TASK_TYPES
from tracelift.verify.leaks import announces_answer
from tracelift.worlds.build import code_data, math_data

LONGEST_DETAIL = 200  # characters of what is said about a dropped seed


@dataclass(frozen=True)
class Settings:
    """How to build. Lengths are in characters (the paper's limits); `dev` is the share of problems held out; `alternatives`:
    whether sound traces told otherwise join the positive pool."""

    source: str = "gsm8k"
    domain: str = "math"
    seed: int = 18
    dev: float = 0.1
    negatives: int = 8
    min_negatives: int = 4
    max_problem: int = 2500
    max_trace: int = 2000
    alternatives: bool = True

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
    """What became of one seed: a group's line and its split, or why there is none; and facts to count."""

    problem_id: str
    split: str
    facts: Counter
    line: str | None = None
    dropped: Dropped | None = None
    no_seed: NoSeed | None = None

    def dropped_line(self) -> str:
        """A line of dropped.jsonl; "" where there is a group."""
        if self.dropped is None:
            return ""
        about = {"reason": self.dropped.reason, "detail": self.dropped.detail[:LONGEST_DETAIL]}
        return json_line({"problem_id": self.problem_id, **about})


def build_group(seed: Seed | NoSeed, settings: Settings) -> Built:
    """The group of one seed problem. Depends on the seed and the settings alone."""
    problem_id = f"{settings.domain}_{settings.source}_{seed.row:06d}"
    if isinstance(seed, NoSeed):
        return Built(problem_id, "", Counter(), dropped=Dropped(seed.reason, seed.detail), no_seed=seed)
    facts: Counter = Counter()
    made = _made(seed, problem_id, settings, facts)
    if isinstance(made, Group):
        problem_id, bank = made.problem_id, made.negative_bank
        if len(bank) < settings.min_negatives:
            kinds = ", ".join(str(c.negative_kind) for c in bank)
            made = Dropped("too few negatives", f"{len(bank)} of {settings.min_negatives}: {kinds}")
    split = split_of(settings.seed, problem_id, settings.dev)
    if isinstance(made, Dropped):
        return Built(problem_id, split, facts, dropped=made)
    _count(made, facts)
    return Built(problem_id, split, facts, made.to_line())


_WORLDS = {"demo:math": math_data.demo_group, "demo:code": code_data.demo_group}


def _made(seed: Seed, problem_id: str, settings: Settings, facts: Counter) -> Group | Dropped:
    if seed.problem in DEMOS:
        return _WORLDS[seed.problem](seed.row, settings.seed, settings.negatives, settings.alternatives)
    if len(seed.problem) > settings.max_problem:
        return Dropped("problem too long", f"{len(seed.problem)} characters of at most {settings.max_problem}")
    flaws_rng, told_rng = (
        random.Random(hashlib.sha256(f"{settings.seed}\0{problem_id}\0{what}".encode()).digest())
        for what in ("flaws", "alternatives")
    )
    if settings.domain == "math":
        found = math_offers(seed, flaws_rng, facts, told_rng if settings.alternatives else None)
    else:
        found = code_offers(seed, flaws_rng, facts)
    if isinstance(found, Dropped):
        return found
    positives = [p for p in found.positives if len(p.reasoning) <= settings.max_trace]
    if not any(p.positive_kind is None for p in positives):
        return Dropped("trace too long", f"{len(found.sound[0])} characters of at most {settings.max_trace}")
    negatives = _negatives(found, [len(p.reasoning) for p in positives], flaws_rng, settings, facts)
    metadata = {
        "source_dataset": settings.source,
        "source_row_index": seed.row,
        **({"answer": found.answer} if settings.domain == "math" else {}),
        "negative_count": len(negatives),
        "builder": "tracelift.groups",
        "seed": settings.seed,
    }
    pools = tuple(positives), tuple(negatives)
    return Group(problem_id, settings.source, settings.domain, seed.problem, found.answer, *pools, metadata)


def _negatives(
    found: Offers, targets: list[int], rng: random.Random, settings: Settings, facts: Counter
) -> list[Candidate]:
    """The flaws that pass the filters, each opened with as many quotations as its length needs."""
    negatives: list[Candidate] = []
    sound, kept = [words_of(text) for text in found.sound], []
    for name, text, options in found.flaws:
        words = words_of(text)
        if words in sound or any(nearly_equal(words, other) for other in kept):
            facts["near duplicate", name] += 1
            continue
        # A shortened trace cannot be lengthened past the last quotation, so its coin is loaded the other way.
        shortened = len(text) < len(found.sound[0])
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


def _count(group: Group, facts: Counter) -> None:
    """What the summary counts."""
    for candidate in group.negative_bank:
        flaw = (candidate.extra.get("metadata") or {}).get("flaw") or {}
        facts["kind", candidate.negative_kind] += 1
        facts["answer changed", candidate.negative_kind] += bool(
            flaw.get("answer_changed", candidate.extra.get("changes_result"))
        )
        facts["place", flaw.get("place", "not recorded")] += 1
        if told := flaw.get("told") or candidate.extra.get("told"):
            facts["flawed alternative", told] += 1
        facts["negative length", len(candidate.reasoning)] += 1
        for name, label in candidate.rubric.dimensions.items():
            facts["label", name, label] += 1
    for candidate in group.positive_pool:
        facts["positive length", len(candidate.reasoning)] += 1
        if candidate.positive_kind is not None:
            facts["alternative", candidate.positive_kind] += 1
    facts["negatives in a group", len(group.negative_bank)] += 1


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
    """Build `out`/train.jsonl, dev.jsonl, dropped.jsonl and summary.json from a seed file; returns the summary.

    dropped.jsonl: a line {problem_id, reason, detail} for each seed without a group, in the seeds' order.
    workers: processes (default: one a core); the files do not depend on it. limit: read only so many seeds.
    progress: called with the number of seeds done. The files appear together at the end, by renaming.
    Raises GroupError where not a single group comes out.
    """
    out = Path(out)
    workers = workers or os.cpu_count() or 1
    tally = Tally()
    with (
        replaced_file(out / "train.jsonl") as train,
        replaced_file(out / "dev.jsonl") as dev,
        replaced_file(out / "dropped.jsonl") as dropped,
    ):
        files = {"train": train, "dev": dev}
        for done, built in enumerate(_built(seeds, settings, workers, limit), start=1):
            tally.add(built)
            if built.line is not None:
                files[built.split].write(built.line)
            dropped.write(built.dropped_line())
            progress(done)
        if not sum(tally.splits.values()):
            reasons = dict(tally.reasons) or {"broken lines": len(tally.broken)}
            raise GroupError(f"{seeds}: no group could be built ({json.dumps(reasons)})")
        summary = tally.summary(settings, Path(seeds).name)
    write_text(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return summary


def _built(path: str | os.PathLike[str], settings: Settings, workers: int, limit: int | None) -> Iterator[Built]:
    fresh = fresh_seeds(path, limit, settings.domain)
    work = functools.partial(build_group, settings=settings)
    if workers == 1:
        yield from map(work, fresh)
        return
    # Spawned, not forked: the caller may hold threads and signal handlers that a worker must not inherit.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        # Chunks go out as results come back: imap would read the whole file ahead of slow workers.
        while chunk := list(itertools.islice(fresh, 64 * workers)):
            yield from pool.map(work, chunk, chunksize=16)
