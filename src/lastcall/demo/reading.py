"""From bytes to text: a bounded read, the encoding, the kind, and what was wrong on the way."""

from __future__ import annotations

import codecs
import io
import tokenize
from dataclasses import dataclass
from pathlib import Path, PurePath

from lastcall.demo.corpus import Source

READ_BYTES_MAX = 1 << 20

_SNIFF_BYTES = 8192
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\b\x1b"))

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

_KINDS = {
    ".py": "python", ".pyi": "python", ".md": "markdown", ".markdown": "markdown", ".rst": "rst",
    ".txt": "text", ".json": "json", ".jsonl": "json", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml",
    ".ini": "ini", ".cfg": "ini", ".html": "html", ".htm": "html", ".xml": "xml", ".svg": "xml",
    ".css": "css", ".js": "javascript", ".mjs": "javascript", ".jsx": "javascript", ".ts": "typescript",
    ".tsx": "typescript", ".c": "c", ".h": "c", ".cc": "c++", ".cpp": "c++", ".hpp": "c++", ".rs": "rust",
    ".go": "go", ".java": "java", ".rb": "ruby", ".sh": "shell", ".bash": "shell", ".sql": "sql",
    ".csv": "csv", ".tsv": "csv", ".tex": "tex",
}  # fmt: skip


class NotText(Exception):
    """The file holds no text; the message says how that was seen."""


@dataclass(frozen=True, slots=True)
class Text:
    """A file's text. `trouble` names what a reader should know: bad bytes, a read that was cut short."""

    content: str
    kind: str
    encoding: str
    size_bytes: int
    trouble: tuple[str, ...]


def read_text(source: Source, *, bytes_max: int = READ_BYTES_MAX) -> Text:
    """Read at most `bytes_max` bytes of `source` as text.

    Broken encodings are read as far as they go and named in `trouble`.
    Raises :class:`NotText` for a binary file and :class:`OSError` for one that cannot be read.
    """
    with source.path.open("rb") as file:
        data = file.read(bytes_max + 1)
        size_bytes = max(file.seek(0, io.SEEK_END), len(data)) if len(data) > bytes_max else len(data)
    cut = len(data) > bytes_max
    data = data[:bytes_max]
    if looks_binary(data):
        raise NotText("binary")

    trouble = [f"only the first {bytes_max:,} of {size_bytes:,} bytes were read"] if cut else []
    kind = kind_of(source.path, data)
    encoding, content = _decode(data, kind, cut=cut, trouble=trouble)
    return Text(content.replace("\r\n", "\n").replace("\r", "\n"), kind, encoding, size_bytes, tuple(trouble))


def looks_binary(data: bytes) -> bool:
    """Tell whether `data` is something other than text: a zero byte, or many control characters."""
    head = data[:_SNIFF_BYTES]
    if any(head.startswith(bom) for bom, _ in _BOMS):
        return False
    control = len(head) - len(head.translate(None, _CONTROL))
    return b"\0" in head or control * 10 > len(head)


def kind_of(path: PurePath | Path, data: bytes) -> str:
    """Name the kind of text: by the file's ending, else by its first line."""
    kind = _KINDS.get(path.suffix.lower())
    if kind is not None:
        return kind
    first_line = data[:200].split(b"\n", 1)[0]
    if first_line.startswith(b"#!"):
        return "python" if b"python" in first_line else "shell" if b"sh" in first_line else "text"
    return "xml" if first_line.startswith(b"<?xml") else "text"


def _decode(data: bytes, kind: str, *, cut: bool, trouble: list[str]) -> tuple[str, str]:
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), "utf-8")
    if kind == "python" and encoding == "utf-8":
        encoding = _declared_encoding(data, trouble)
    try:
        # A read that was cut short may end in the middle of a character: that is no fault of the file.
        return encoding, codecs.getincrementaldecoder(encoding)().decode(data, final=not cut)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        trouble.append(f"not valid {encoding}: byte {data[error.start]:#04x} in line {line}")
        return encoding, data.decode(encoding, errors="replace")


def _declared_encoding(data: bytes, trouble: list[str]) -> str:
    try:
        return tokenize.detect_encoding(io.BytesIO(data).readline)[0]
    except SyntaxError as error:  # an encoding nobody knows, or a first line that is not UTF-8
        if "unknown encoding" in str(error):
            trouble.append(f"{error.msg}, read as utf-8")
        return "utf-8"
