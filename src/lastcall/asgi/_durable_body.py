"""What is written to a stream, as entries; and entries as the body of an answer. Pure.

Who calls it: the face of Durable Streams. A JSON text becomes one entry for each element of an array at its top, as it
was written: read and written anew, large numbers would lose digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from json import JSONDecoder

from ..streams._policy import is_json
from ._body import parse

_decoder = JSONDecoder()
_BLANK = " \t\n\r"


def split(content_type: str, body: bytes) -> list[bytes]:
    """The entries of one write; none for an empty body, and for an empty array. Raises `BadBody`."""
    if not body:
        return []
    return _messages(body) if is_json(content_type) else [body]


def join(content_type: str, entries: Sequence[bytes]) -> bytes:
    """The body of an answer."""
    return b"[" + b",".join(entries) + b"]" if is_json(content_type) else b"".join(entries)


def _messages(body: bytes) -> list[bytes]:
    value = parse(body)
    text = body.decode()
    if not isinstance(value, list):
        return [_one_line(text.strip(_BLANK))]
    messages = []
    at = _skip(text, text.index("[") + 1)
    for _ in value:
        _, end = _decoder.raw_decode(text, at)
        messages.append(_one_line(text[at:end]))
        at = _skip(text, _skip(text, end) + 1)
    return messages


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _one_line(text: str) -> bytes:
    # A line break in JSON stands between words, never in one. Formats that write an entry in a line depend on this.
    return text.replace("\r", " ").replace("\n", " ").encode()
