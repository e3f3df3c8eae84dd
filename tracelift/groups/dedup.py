"""Exact and near duplicates: of problems across a file, and of traces within a group.

Problems are compared by their word trigrams with numbers masked (the same story with other numbers is the same
problem for a split): Jaccard similarity, candidates found by min-hashing (Broder, 1997) so that a file is read once.

Left out on purpose: embeddings, and paraphrases that share few words.
"""

from __future__ import annotations

import re
import zlib
from array import array


def words_of(text: str) -> tuple[str, ...]:
    """The words and numbers of a text, case and punctuation aside; arithmetic signs count as words."""
    return tuple(re.findall(r"[0-9]+(?:[.,][0-9]+)*|[^\W\d_]+|[-+*/=%]", text.casefold()))


class NearDuplicates:
    """Remembers problems and tells whether a new one was seen before, exactly or nearly.

    Memory: about half a kilobyte a problem. threshold: the least Jaccard similarity of trigram sets that counts as
    near. rows × bands min-hashes find a pair of similarity s as a candidate with probability 1 − (1 − s^rows)^bands:
    99.96% at 0.85.
    """

    BANDS, ROWS = 8, 4

    def __init__(self, threshold: float = 0.85) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold}, expected a similarity above 0 and up to 1")
        self.threshold = threshold
        self._shingles: list[array] = []
        self._names: list[str] = []
        self._bands: dict[tuple[int, ...], list[int]] = {}

    def seen(self, name: str, text: str) -> tuple[str, float] | None:
        """(name, similarity) of an earlier text that this one repeats, else None; then this one is remembered."""
        shingles = _shingles(text)
        keys = [(band, *_minima(shingles, band)) for band in range(self.BANDS)]
        candidates = {i for key in keys for i in self._bands.get(key, ())}
        for i in sorted(candidates):
            other = set(self._shingles[i])
            similarity = len(shingles & other) / len(shingles | other)
            if similarity >= self.threshold:
                return self._names[i], similarity
        for key in keys:
            self._bands.setdefault(key, []).append(len(self._names))
        self._shingles.append(array("Q", sorted(shingles)))
        self._names.append(name)
        return None


def _shingles(text: str) -> set[int]:
    words = [re.sub("[0-9].*", "0", word) for word in words_of(text)]
    grams = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
    return {zlib.crc32(gram.encode()) for gram in grams}


_MULTIPLIERS = [0x9E3779B97F4A7C15 * (2 * i + 1) % 2**64 | 1 for i in range(NearDuplicates.BANDS * NearDuplicates.ROWS)]


def _minima(shingles: set[int], band: int) -> tuple[int, ...]:
    """The min-hashes of one band: multiplicative hashing, upper bits."""
    rows = NearDuplicates.ROWS
    return tuple(
        min((s * m >> 16) & 0xFFFFFFFF for s in shingles) for m in _MULTIPLIERS[band * rows : (band + 1) * rows]
    )
