"""Words: how a text is cut into terms, how often each occurs, and which ones tell it apart (tf-idf)."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

TERMS_PER_FILE_MAX = 500

_WORD = re.compile(r"\w+")
_LETTERS = re.compile(r"[^\W\d_]+")
_HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z]+|[A-Z]+")
_UNSPACED = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)  # scripts that put no space between words

_STOP_WORDS = frozenset(
    """
    about above after again against all also always among and another any are aren around because been
    before being below between both but came can cannot come could did does doesn doing don done down during
    each either else enough etc even ever every few first for from further get gets getting give given gives
    going got had has have having hence her here him his how however into isn its itself just keep kept last
    least less let like made make makes making many may maybe might more most much must near need needed
    needs never new next nor not nothing now off often old once one only onto other others otherwise our out
    over own per perhaps please put rather really same say says see seen set several shall she should show
    shown simply since some something still such sure take taken than that the their them then there these
    they thing things this those though through thus too toward two under until upon use used useful uses
    using usually very via want was way were what when where whether which while who whole whose why will
    with within without would yet you your
    """.split()
)

# Words that code of every kind is full of; they tell one file from another as little as "the" does.
_CODE_STOP_WORDS = frozenset(
    """
    abs arg args assert async attr await bool break bytes call called class cls code continue data def
    default del dict doc elif end error except exception false file finally float format func function
    functions getattr global hasattr http https impl import index info init int isinstance item items iter
    kwargs lambda len line list main map max method methods min mode module name names none nonlocal null
    number obj object objects optional org param params pass path print raise range repr result results
    return returned returns self setattr size start state staticmethod str string strings sub super test tmp
    true try tuple type types typing union val value values var void whatever with www yield key keys copy
    check read write
    """.split()
)


def words(content: str) -> list[str]:
    """Cut `content` into lower-case words, numbers and identifiers included, in order."""
    return _WORD.findall(content.lower())


def count_terms(content: str) -> Counter[str]:
    """Count the terms of `content`.

    Identifiers are split (`runInThread` and `run_in_thread` are the same three words), stop words left out.
    """
    counts: Counter[str] = Counter()
    for word, times in Counter(_LETTERS.findall(content)).items():
        for term in _split(word):
            if is_telling(term):
                counts[term] += times
    # The most common ones first, ties by name: the same text always gives the same terms.
    kept = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:TERMS_PER_FILE_MAX]
    return Counter(dict(kept))


def is_telling(term: str) -> bool:
    """Tell whether `term` can say something about a text: long enough, and no stop word."""
    if _UNSPACED.match(term):
        return len(term) > 1
    return 2 < len(term) < 30 and term not in _STOP_WORDS and term not in _CODE_STOP_WORDS


def inverse_frequencies(files: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Weigh each term by its rarity among `files`: 1 for one in every file, more the rarer it is."""
    occurs_in = Counter(term for counts in files for term in counts)
    total = len(files)
    return {term: 1 + math.log((1 + total) / (1 + times)) for term, times in occurs_in.items()}


def weigh(counts: Mapping[str, int], rarity: Mapping[str, float]) -> dict[str, float]:
    """Return the tf-idf weight of each term of one file, scaled so that long files do not outweigh short."""
    weights = {term: (1 + math.log(times)) * rarity[term] for term, times in counts.items()}
    length = math.sqrt(sum(weight * weight for weight in weights.values()))
    return {term: weight / length for term, weight in weights.items()}


def key_terms(weights: Mapping[str, float], *, count: int) -> tuple[str, ...]:
    """Return the `count` heaviest terms, ties by name."""
    return tuple(sorted(weights, key=lambda term: (-weights[term], term))[:count])


def corpus_terms(files: Iterable[Mapping[str, float]], *, count: int) -> tuple[str, ...]:
    """Return the terms that weigh most over all files.

    A term of one single file speaks for that file only, and one of nearly every file for none.
    """
    totals: defaultdict[str, float] = defaultdict(float)
    occurs_in: Counter[str] = Counter()
    total = 0
    for weights in files:
        total += 1
        for term, weight in weights.items():
            totals[term] += weight * weight  # squared: a topic of some files outweighs a filler of all
            occurs_in[term] += 1
    topics = {term: weight for term, weight in totals.items() if 1 < occurs_in[term] <= max(3, total // 4)}
    return key_terms(topics or totals, count=count)


def _split(word: str) -> Iterable[str]:
    if _UNSPACED.search(word):
        return (word[at : at + 2] for at in range(len(word) - 1))
    if word.islower() or word.isupper():
        return (word.lower(),)
    return (part.lower() for part in _HUMPS.findall(word))
