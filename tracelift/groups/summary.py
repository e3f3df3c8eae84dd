"""What became of the seeds of a build: counts that become summary.json.

Left out: anything about single groups; `show` has that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from tracelift.groups.seeds import BROKEN, NoSeed
from tracelift.rubrics import ALTERNATIVES, MAX_LABEL, dimensions_of


class Tally:
    """Counts what became of the seeds; its size does not grow with them, but for lists of broken and repeated lines."""

    def __init__(self) -> None:
        self.broken: list[tuple[int, str]] = []
        self.repeated: list[tuple[int, int, float]] = []
        self.reasons: Counter = Counter()
        self.splits: Counter = Counter(train=0, dev=0)
        self.facts: Counter = Counter()

    def add(self, built: Any) -> None:
        no_seed: NoSeed | None = built.no_seed
        if no_seed is not None and no_seed.reason == BROKEN:
            self.broken.append((no_seed.row + 1, no_seed.detail))
        elif no_seed is not None:
            self.repeated.append((no_seed.row + 1, no_seed.repeats, no_seed.similarity))
        elif built.dropped is not None:
            self.reasons[built.dropped.reason] += 1
        else:
            self.splits[built.split] += 1
            self.facts.update(built.facts)

    def summary(self, settings: Any, seeds: str) -> dict[str, Any]:
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
            "dropped_seeds_file": "dropped.jsonl",
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
            "alternatives": {
                kind: {
                    "count": count,
                    "no_place": of("no alternative").get(kind, 0),
                    "struck_by_a_flaw": of("flawed alternative").get(kind, 0),
                }
                for kind in ALTERNATIVES
                if (count := of("alternative").get(kind, 0)) or kind in of("no alternative")
            },
            "places": of("place"),
            "labels_of_negatives": {
                name: {str(label): self.facts["label", name, label] for label in range(MAX_LABEL + 1)}
                for name in dimensions_of(settings.domain)
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
