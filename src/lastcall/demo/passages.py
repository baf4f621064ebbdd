"""Where something is said: search over the files of an analysis, and reading a part of one. What answerers use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lastcall.demo.corpus import Source, find_files, printable
from lastcall.demo.reading import NotText, read_text
from lastcall.demo.terms import count_terms

_LINES_TOGETHER = 6
_LINES_READ_MAX = 60
_FILES_LOOKED_INTO = 12


@dataclass(frozen=True, slots=True)
class Passage:
    """Some lines of a file, from `line` on."""

    file: str
    line: int
    text: str


class Library:
    """The files of one analysis. `names`: those that it could read; others are not there.

    Blocking: each search reads all files, about a second for a few hundred of them.
    """

    def __init__(self, folder: Path | None, names: Sequence[str]) -> None:
        wanted = set(names)
        self._sources = {s.name: s for s in find_files(folder).sources if s.name in wanted}

    def search(self, query: str, count: int = 5) -> list[Passage]:
        """Return the passages that say most of `query`, at most one of each file, the best first.

        >>> library.search("how is a lease renewed")[0].file
        'jobs.md'
        """
        terms = sorted(count_terms(query))
        texts = {name: _content(source).splitlines() for name, source in self._sources.items()}
        found = {name: _counts(lines, terms) for name, lines in texts.items()}
        rarity = {
            term: math.log(1 + len(found) / (1 + sum(counts[at] > 0 for counts in found.values())))
            for at, term in enumerate(terms)
        }
        worth = {
            name: sum(rarity[term] * (1 + math.log(n)) for term, n in zip(terms, counts, strict=True) if n)
            for name, counts in found.items()
        }
        best = sorted((name for name in worth if worth[name]), key=lambda name: (-worth[name], name))
        passages = [_best_passage(name, texts[name], rarity) for name in best[:_FILES_LOOKED_INTO]]
        passages.sort(key=lambda scored: -scored[0])
        return [passage for _, passage in passages[:count]]

    def read(self, file: str, line: int = 1, lines: int = 20) -> Passage | None:
        """Return `lines` lines of a file from `line` on, at most 60; None if there is no such file."""
        source = self._sources.get(file)
        if source is None:
            return None
        all_lines = _content(source).splitlines()
        first = max(1, min(line, len(all_lines)))
        return _passage(file, all_lines, first, max(1, min(lines, _LINES_READ_MAX)))


def _content(source: Source) -> str:
    """What is in it now; nothing, if it is gone or no text any more."""
    try:
        return read_text(source).content
    except (NotText, OSError):
        return ""


def _counts(lines: Sequence[str], terms: Sequence[str]) -> list[int]:
    content = "\n".join(lines).lower()
    return [content.count(term) for term in terms]


def _best_passage(name: str, lines: Sequence[str], rarity: dict[str, float]) -> tuple[float, Passage]:
    """The few lines together that say most of the terms, each counted once, and a little for being said again."""
    said = [{term for term in rarity if term in line.lower()} for line in lines]
    best, best_at = 0.0, 0
    for at in range(len(lines)):
        if not said[at]:
            continue
        window = said[at : at + _LINES_TOGETHER]
        once = set().union(*window)
        score = sum(rarity[term] for term in once) + 0.1 * sum(
            rarity[term] for line in window for term in line
        )
        if score > best:
            best, best_at = score, at
    return best, _passage(name, lines, best_at + 1, _LINES_TOGETHER)


def _passage(name: str, lines: Sequence[str], first: int, count: int) -> Passage:
    chosen = lines[first - 1 : first - 1 + count]
    return Passage(name, first, "\n".join(printable(line.expandtabs()) for line in chosen).rstrip())
