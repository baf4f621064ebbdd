"""The words of the Durable Streams protocol: offsets, cursors, times to live, producers, forks. Pure.

Who calls it: the other `_durable` files. Text comes in, values go out; what cannot be understood raises `Malformed`,
whose text tells the client which word it is and how it should look.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qs, quote, unquote

from ..streams._port import START, Fork, Position, Producer

NOW: Final = "now"
BEGINNING: Final = "-1"

# The largest number that JavaScript counts to.
_MOST = 2**53 - 1

_OFFSET = re.compile(r"[0-9]{16}_[0-9]{16}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")

# Readers at the same place ask with the same cursor, so that a cache between them and us answers them together; a
# cursor stands for so many seconds, counted from here.
_CURSOR_SECONDS = 20
_CURSOR_EPOCH = 1_728_432_000
_CURSOR_JITTER = 180


class Malformed(ValueError):
    """A request that cannot be understood; nothing was done."""


def query_of(raw: bytes) -> dict[str, list[str]]:
    """The query; parameters of others are not our business. Raises `Malformed` for one of ours that is given twice."""
    query = parse_qs(raw.decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
    for name in ("offset", "live", "cursor"):
        if len(query.get(name, ())) > 1:
            raise Malformed(f"{name} is given more than once")
    return query


def path_of(base: str, name: str) -> str | None:
    """The path of a stream below `base`, which ends with a slash; None if a client would take the name for a place."""
    if name in (".", ".."):
        return None
    # Clients resolve such segments, and proxies join what an empty one parts.
    is_one_word = any(segment in ("", ".", "..") for segment in name.split("/"))
    marks = ":@!$&'()*+,;=-._~"
    return quote(base, safe=f"/{marks}") + quote(name, safe=marks if is_one_word else f"/{marks}")


def parse_offset(text: str | None) -> Position | None:
    """Where to read from; None: at the end. Raises `Malformed`."""
    if text is None or text == BEGINNING:
        return START
    if text == NOW:
        return None
    if not _OFFSET.fullmatch(text):
        raise Malformed(f"offset must be one of ours, or {BEGINNING}, or {NOW}, not {text[:100]!r}")
    seq, _, end = text.partition("_")
    return Position(int(seq), int(end))


def format_offset(position: Position) -> str:
    """As text that sorts as the positions do."""
    return f"{position.seq:016d}_{position.end:016d}"


def next_cursor(given: str | None, now: float, jitter: float) -> str:
    """The cursor to answer with: behind the one given, or a cache would give this answer to the next request.

    `jitter` (0 to 1) parts readers that came with the same cursor.
    """
    current = int(now - _CURSOR_EPOCH) // _CURSOR_SECONDS
    if given is not None and _NUMBER.fullmatch(given) and int(given) >= current:
        return str(int(given) + 1 + int(jitter * _CURSOR_JITTER))
    return str(current)


def parse_number(name: str, text: str) -> int:
    """A whole number, 0 or more, in plain digits. Raises `Malformed`."""
    if not _NUMBER.fullmatch(text) or int(text) > _MOST:
        raise Malformed(
            f"{name} must be a whole number, 0 or more, in digits and no leading zero, not {text[:100]!r}"
        )
    return int(text)


def parse_end(ttl: str | None, expires_at: str | None) -> tuple[int | None, float | None]:
    """`Stream-TTL` and `Stream-Expires-At`. Raises `Malformed`."""
    if ttl is not None and expires_at is not None:
        raise Malformed("give either Stream-TTL or Stream-Expires-At")
    if ttl is not None:
        return parse_number("Stream-TTL", ttl), None
    return None, None if expires_at is None else _parse_time(expires_at)


def _parse_time(text: str) -> float:
    if _TIME.fullmatch(text):
        try:
            return datetime.fromisoformat(text.upper()).timestamp()
        except (ValueError, OverflowError):
            pass
    raise Malformed(f"Stream-Expires-At must look like 2030-01-31T12:00:00Z, not {text[:100]!r}")


def format_time(at: float) -> str:
    """As RFC 3339 has it, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_producer(id: str | None, epoch: str | None, seq: str | None) -> Producer | None:
    """The three producer headers: all or none. Raises `Malformed`."""
    if id is None and epoch is None and seq is None:
        return None
    if id is None or epoch is None or seq is None:
        raise Malformed(
            "Producer-Id, Producer-Epoch and Producer-Seq belong together; give all of them or none"
        )
    if not id:
        raise Malformed("Producer-Id is empty")
    return Producer(id, parse_number("Producer-Epoch", epoch), parse_number("Producer-Seq", seq))


def parse_fork(source: str | None, at: str | None, further: str | None, base: str) -> Fork | None:
    """`Stream-Forked-From`, `Stream-Fork-Offset`, `Stream-Fork-Sub-Offset`. `base`: the path of all streams.

    The source is told by its path; below `base`, or as it stands behind it. Raises `Malformed`.
    """
    if source is None:
        if at is not None or further is not None:
            raise Malformed("Stream-Fork-Offset and Stream-Fork-Sub-Offset need a Stream-Forked-From")
        return None
    name = unquote(source).removeprefix(base).lstrip("/")
    if not name:
        raise Malformed("Stream-Forked-From is empty")
    position = None
    if at is not None:
        position = parse_offset(at)
    count = 0 if further is None else parse_number("Stream-Fork-Sub-Offset", further)
    if count and position is None:
        raise Malformed("Stream-Fork-Sub-Offset goes on from a Stream-Fork-Offset; give that, too")
    return Fork(name, position, count)


def is_true(headers: Mapping[str, str], name: str) -> bool:
    """Whether a header says `true`."""
    return headers.get(name, "").lower() == "true"
