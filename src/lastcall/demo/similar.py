"""Files that are nearly the same.

Theory of operation. A text becomes the set of its runs of five words ("shingles"). Two texts are as alike
as the share of shingles they have in common (Jaccard). Keeping only the 128 smallest hash values of each
set (a "bottom-k sketch", one form of MinHash) estimates that share to within some per cent, and an index
from hash value to file finds the pairs worth comparing without trying all of them. The hash is BLAKE2, so
that the same files give the same answer in every process; the built-in `hash` would not.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

SHINGLE_WORDS = 5
SKETCH_SIZE = 128
ALIKE_MIN = 0.5

_SHINGLES_MIN = 20  # shorter texts are alike by accident
_BUCKET_COMPARED = 8  # boilerplate shared by thousands of files must not make thousands of thousands of pairs

Sketch = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Alike:
    """Files that are nearly the same. `similarity` is the weakest link that holds them together, 0 to 1."""

    names: tuple[str, ...]
    similarity: float


def sketch(words: Sequence[str]) -> Sketch:
    """Return the smallest hash values of the text's shingles, ascending; none if the text is too short."""
    runs = zip(*(words[at:] for at in range(SHINGLE_WORDS)), strict=False)
    shingles = set(map(" ".join, runs))
    if len(shingles) < _SHINGLES_MIN:
        return ()
    return tuple(heapq.nsmallest(SKETCH_SIZE, map(_hash, shingles)))


def similarity(one: Sketch, other: Sketch) -> float:
    """Estimate which share of their shingles two texts have in common, from 0 to 1."""
    if not one or not other:
        return 0.0
    smallest = heapq.nsmallest(SKETCH_SIZE, set(one) | set(other))
    return len(set(one) & set(other) & set(smallest)) / len(smallest)


def near_duplicates(sketches: Mapping[str, Sketch], *, alike_min: float = ALIKE_MIN) -> tuple[Alike, ...]:
    """Group the files whose similarity is at least `alike_min`; the largest and most alike groups first."""
    groups = _Groups()
    for one, other in _candidates(sketches):
        share = similarity(sketches[one], sketches[other])
        if share >= alike_min:
            groups.join(one, other, share)
    return tuple(sorted(groups.all(), key=lambda alike: (-len(alike.names), -alike.similarity, alike.names)))


def _candidates(sketches: Mapping[str, Sketch]) -> list[tuple[str, str]]:
    """Return the pairs that share a hash value, each once, in a stable order."""
    buckets: dict[int, list[str]] = defaultdict(list)
    for name in sorted(sketches):
        for value in sketches[name]:
            buckets[value].append(name)
    pairs = {
        (one, other)
        for names in buckets.values()
        for at, one in enumerate(names[:_BUCKET_COMPARED])
        for other in names[at + 1 :]
    }
    return sorted(pairs)


class _Groups:
    """Union-find over names, with the weakest link of each group."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._weakest: dict[str, float] = {}

    def join(self, one: str, other: str, share: float) -> None:
        a, b = self._root(one), self._root(other)
        weakest = min(share, self._weakest.get(a, 1.0), self._weakest.get(b, 1.0))
        self._parent[max(a, b)] = min(a, b)
        self._weakest[min(a, b)] = weakest

    def all(self) -> list[Alike]:
        members: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._parent):
            members[self._root(name)].append(name)
        return [Alike(tuple(names), round(self._weakest[root], 2)) for root, names in members.items()]

    def _root(self, name: str) -> str:
        while (parent := self._parent.setdefault(name, name)) != name:
            self._parent[name] = self._parent[parent]
            name = parent
        return name


def _hash(shingle: str) -> int:
    return int.from_bytes(blake2b(shingle.encode("utf-8", "replace"), digest_size=8).digest(), "big")
