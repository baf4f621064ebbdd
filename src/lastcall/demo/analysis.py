"""One file: everything that can be said of it without looking at the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from lastcall.demo.corpus import Skipped, Source, printable
from lastcall.demo.reading import NotText, Text, read_text
from lastcall.demo.similar import Sketch, sketch
from lastcall.demo.structure import Code, Definition, Heading, Unparsable, headings, parse_python
from lastcall.demo.summary import sentences, summarise
from lastcall.demo.terms import count_terms, words

_SAID_ONCE = 0.2  # a term said once is hardly what a text is about; said twice it weighs four times as much
_PROSE = frozenset({"markdown", "rst", "text", "tex"})


@dataclass(frozen=True, slots=True)
class FileAnalysis:
    """What one file holds. `terms`, `sketch` and `digest` are for comparing it with the others."""

    name: str
    kind: str
    encoding: str
    size_bytes: int
    lines: int
    words: int
    headings: tuple[Heading, ...]
    definitions: tuple[Definition, ...]
    summary: tuple[str, ...]
    trouble: tuple[str, ...]
    terms: Mapping[str, int]
    sketch: Sketch
    digest: str


def analyse_file(source: Source) -> FileAnalysis | Skipped:
    """Read and analyse one file. A file that cannot be analysed is an answer too: nothing is raised for it.

    Blocking, a few milliseconds for a file of usual size; the time is bounded because the read is.

    >>> analyse_file(Source("logo.png", "logo.png"))
    Skipped(name='logo.png', why='binary')
    """
    try:
        text = read_text(source)
    except NotText as error:
        return Skipped(source.name, str(error))
    except OSError as error:
        return Skipped(source.name, f"cannot be read: {error.strerror or error}")

    trouble = list(text.trouble)
    code = _parse(text, trouble)
    terms = count_terms(text.content)
    passages = code.docstrings if text.kind == "python" else (text.content,) if text.kind in _PROSE else ()
    weights = {term: _SAID_ONCE + math.log(times) for term, times in terms.items()}
    in_order = words(text.content)
    return FileAnalysis(
        name=source.name,
        kind=text.kind,
        encoding=text.encoding,
        size_bytes=text.size_bytes,
        lines=text.content.count("\n") + (not text.content.endswith("\n") and text.content != ""),
        words=len(text.content.split()),
        headings=tuple(
            Heading(h.level, printable(h.text), h.line) for h in headings(text.content, text.kind)
        ),
        definitions=code.definitions,
        summary=summarise(sentences(passages), weights),
        trouble=tuple(printable(line) for line in trouble),
        terms=terms,
        sketch=sketch(in_order),
        digest=blake2b(text.content.encode("utf-8", "replace"), digest_size=16).hexdigest(),
    )


def _parse(text: Text, trouble: list[str]) -> Code:
    if text.kind != "python":
        return Code((), ())
    try:
        return parse_python(text.content)
    except Unparsable as error:
        trouble.append(str(error))
        return Code((), ())
