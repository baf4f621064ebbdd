"""All files together: the report, as data for JSON and as a text that can be read out word by word."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lastcall.demo.analysis import FileAnalysis
from lastcall.demo.corpus import Skipped
from lastcall.demo.similar import Alike, near_duplicates
from lastcall.demo.structure import Definition, Heading
from lastcall.demo.summary import Sentence, summarise
from lastcall.demo.terms import corpus_terms, inverse_frequencies, key_terms, weigh

_TERMS_PER_FILE = 6
_TERMS_OF_ALL = 16
_SENTENCES_OF_ALL = 6
_LONGEST_SHOWN = 8


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file, as the report shows it."""

    name: str
    kind: str
    encoding: str
    size_bytes: int
    lines: int
    words: int
    key_terms: tuple[str, ...]
    headings: tuple[Heading, ...]
    definitions: tuple[Definition, ...]
    summary: tuple[str, ...]
    trouble: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LongDefinition:
    """A class or function that stands out by its length, and the file it is in."""

    file: str
    definition: Definition


@dataclass(frozen=True, slots=True)
class Report:
    """What was found below `root`."""

    root: str
    files_found: int
    size_bytes: int
    lines: int
    words: int
    kinds: dict[str, int]
    definitions: dict[str, int]
    key_terms: tuple[str, ...]
    identical: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[Alike, ...]
    longest_functions: tuple[LongDefinition, ...]
    summary: str
    files: tuple[FileReport, ...]
    skipped: tuple[Skipped, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain dictionaries and lists."""
        return asdict(self)


def build_report(root: str, results: Iterable[FileAnalysis | Skipped]) -> Report:
    """Put the results together, in the order of the files' names, whatever order they came in.

    Blocking: about a second for a few hundred files.
    """
    results = list(results)
    files = sorted((r for r in results if isinstance(r, FileAnalysis)), key=lambda file: file.name)
    skipped = sorted((r for r in results if isinstance(r, Skipped)), key=lambda skip: skip.name)

    rarity = inverse_frequencies([file.terms for file in files])
    weights = {file.name: weigh(file.terms, rarity) for file in files}
    identical, originals = _identical(files)
    report = Report(
        root=root,
        files_found=len(results),
        size_bytes=sum(file.size_bytes for file in files),
        lines=sum(file.lines for file in files),
        words=sum(file.words for file in files),
        kinds=dict(Counter(file.kind for file in files).most_common()),
        definitions=dict(Counter(d.kind for file in files for d in file.definitions).most_common()),
        key_terms=corpus_terms(weights.values(), count=_TERMS_OF_ALL),
        identical=identical,
        near_duplicates=near_duplicates({file.name: file.sketch for file in originals}),
        longest_functions=_longest(files),
        summary="",
        files=tuple(
            _file_report(file, key_terms(weights[file.name], count=_TERMS_PER_FILE)) for file in files
        ),
        skipped=tuple(skipped),
    )
    return _with_summary(report)


def human_size(size_bytes: float) -> str:
    """Return a size as people write it: 1023 B, 4.2 KB, 17 MB."""
    units = ["B", "KB", "MB", "GB"]
    unit = units.pop(0)
    while size_bytes >= 1024 and units:
        size_bytes /= 1024
        unit = units.pop(0)
    return f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 10 else f"{size_bytes:.1f} {unit}"


def _identical(files: Sequence[FileAnalysis]) -> tuple[tuple[tuple[str, ...], ...], list[FileAnalysis]]:
    """Return the groups of files with the same text, and one file of each text."""
    by_digest: dict[str, list[FileAnalysis]] = defaultdict(list)
    for file in files:
        by_digest[file.digest].append(file)
    groups = [tuple(f.name for f in same) for same in by_digest.values() if len(same) > 1 and same[0].words]
    return tuple(sorted(groups, key=lambda names: (-len(names), names))), [
        same[0] for same in by_digest.values()
    ]


def _longest(files: Sequence[FileAnalysis]) -> tuple[LongDefinition, ...]:
    found = [LongDefinition(file.name, d) for file in files for d in file.definitions if d.kind != "class"]
    found.sort(key=lambda long: (-long.definition.lines, long.file, long.definition.line))
    return tuple(found[:_LONGEST_SHOWN])


def _file_report(file: FileAnalysis, terms: tuple[str, ...]) -> FileReport:
    return FileReport(
        name=file.name,
        kind=file.kind,
        encoding=file.encoding,
        size_bytes=file.size_bytes,
        lines=file.lines,
        words=file.words,
        key_terms=terms,
        headings=file.headings,
        definitions=file.definitions,
        summary=file.summary,
        trouble=file.trouble,
    )


def _with_summary(report: Report) -> Report:
    values = {name: getattr(report, name) for name in Report.__slots__}
    return Report(**(values | {"summary": "\n\n".join(_paragraphs(report))}))


def _paragraphs(report: Report) -> Iterable[str]:
    if not report.files:
        yield f"There is no text to speak of in {report.root}."
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    yield (
        f"{report.root} holds {_count(len(report.files), 'text file')} ({kinds}): "
        f"{_count(report.lines, 'line')} and {_count(report.words, 'word')}, {human_size(report.size_bytes)}."
    )
    if report.longest_functions:
        longest = report.longest_functions[0]
        functions = report.definitions.get("function", 0) + report.definitions.get("method", 0)
        yield (
            f"The code defines {_count(report.definitions.get('class', 0), 'class', 'classes')} and "
            f"{_count(functions, 'function')}. The longest is {longest.definition.name} in {longest.file}, "
            f"{_count(longest.definition.lines, 'line')}."
        )
    if report.key_terms:
        yield f"It is about {', '.join(report.key_terms[:8])}."
    alike = len(report.identical) + len(report.near_duplicates)
    if alike:
        yield f"{_count(alike, 'group')} of files {'is' if alike == 1 else 'are'} the same or nearly so."
    quotes = _quotes(report)
    if quotes:
        yield "In its own words: " + " ".join(quotes)


def _quotes(report: Report) -> list[str]:
    """Pick the sentences that, together, cover most of what all files are about."""
    said_in: dict[str, str] = {}
    for file in report.files:
        for text in file.summary[:1]:
            said_in.setdefault(text, file.name)
    counts = Counter(term for file in report.files for term in file.key_terms)
    by_weight = {term: float(count) for term, count in counts.items()}
    by_weight |= {term: len(report.files) / (4 + at) for at, term in enumerate(report.key_terms)}
    candidates = [Sentence(text, 1.0) for text in said_in]
    chosen = summarise(candidates, by_weight, count=_SENTENCES_OF_ALL)
    return [
        f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK} ({said_in[text]})"
        for text in chosen
    ]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
