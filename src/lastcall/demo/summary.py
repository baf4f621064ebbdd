"""An extractive summary: the sentences of a text that say most, in the order they stand there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lastcall.demo.corpus import printable
from lastcall.demo.terms import count_terms

SENTENCES_PER_FILE_MAX = 200

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(\u00c0-\u00de])|(?<=[\u3002\uff01\uff1f])")
_BLANK_LINES = re.compile(r"\n[ \t]*\n")
_MARKUP = re.compile(r"^\s*(?:[#>*|+=~`-]|\d+[.)]\s|\.\. |:\w+:|>>>)|```|^\s{4,}\S.*[=({\[]")
_LETTER = re.compile(r"[^\W\d_]")

_WORDS_MIN, _WORDS_MAX = 6, 45
_LETTERS_MIN = 0.85  # of what is not a space: code and paths have fewer
_WORTH_ADDING = 0.25  # of what the first chosen sentence says
_SAID_BEFORE = 0.25  # what a term still weighs in the next sentence
_EARLIER_IS_BETTER = 1.0  # the weight of a text's first sentence over its last, added to 1


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a text, and where it stands: 0 for the beginning, 1 for the end."""

    text: str
    position: float


def sentences(passages: Iterable[str]) -> tuple[Sentence, ...]:
    """Cut prose into sentences. Tables, lists, code and fragments are left out: they do not read aloud."""
    found: list[str] = []
    for passage in passages:
        for paragraph in _BLANK_LINES.split(passage):
            if _MARKUP.search(paragraph.strip("\n")):
                continue
            line = printable(" ".join(paragraph.split()))
            found.extend(text for text in _SENTENCE_END.split(line) if _reads_aloud(text))
        if len(found) >= SENTENCES_PER_FILE_MAX:
            break
    kept = found[:SENTENCES_PER_FILE_MAX]
    return tuple(Sentence(text, at / len(kept)) for at, text in enumerate(kept))


def summarise(
    candidates: Sequence[Sentence], weights: Mapping[str, float], *, count: int = 2
) -> tuple[str, ...]:
    """Pick the `count` sentences that cover most of the text's weight, each counted for what it adds."""
    open_weights = dict(weights)
    terms = {sentence: frozenset(count_terms(sentence.text)) for sentence in candidates}
    chosen: list[Sentence] = []
    worth_min = 0.0
    while len(chosen) < count:
        scores = {s: _score(s, terms[s], open_weights) for s in terms if s not in chosen}
        best = max(scores, key=scores.__getitem__, default=None)
        if best is None or scores[best] <= worth_min:
            break
        chosen.append(best)
        worth_min = worth_min or scores[best] * _WORTH_ADDING
        for term in terms[best] & open_weights.keys():
            open_weights[term] *= _SAID_BEFORE
    return tuple(sentence.text for sentence in sorted(chosen, key=lambda sentence: sentence.position))


def _score(sentence: Sentence, terms: frozenset[str], weights: Mapping[str, float]) -> float:
    said = sum(weights.get(term, 0.0) for term in terms)
    length = math.sqrt(max(len(terms), 4))  # long sentences gather weight by length alone
    return said / length * (1 + _EARLIER_IS_BETTER * (1 - sentence.position))


def _reads_aloud(text: str) -> bool:
    if text.endswith(("\u3002", "\uff01", "\uff1f")):
        return 10 <= len(text) <= 200
    spoken = text.split()
    letters = len(_LETTER.findall(text))
    is_prose = letters > _LETTERS_MIN * sum(map(len, spoken))
    return is_prose and text.endswith((".", "!", "?")) and _WORDS_MIN <= len(spoken) <= _WORDS_MAX
