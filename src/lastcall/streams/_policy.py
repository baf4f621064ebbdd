"""Pure decisions about streams, which stores ask for inside their transactions.

Who calls it: `_verbs`. No clock, no store: rows in, words out.
"""

from __future__ import annotations

from typing import NamedTuple

from ._port import NewStream, Outcome, Producer, StreamRow, Write

BYTES = "application/octet-stream"
JSON = "application/json"

# The end of a stream with a time to live moves with each read. One that was moved less than this share of its time
# ago is not worth a write.
_WORTH = 0.05

# Names that begin with less are lastcall's own.
_FIRST_NAME = " "
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


def media_type(content_type: str) -> str:
    """Without parameters, in lower case: what content types are compared by."""
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether its entries are JSON texts."""
    return media_type(content_type) == JSON


def is_expired(row: StreamRow, now: float) -> bool:
    """Whether its time is over."""
    return row.due is not None and row.due <= now


def due_at(ttl_seconds: int | None, expires_at: float | None, now: float) -> float | None:
    """When a stream that is used now expires."""
    return expires_at if ttl_seconds is None else now + ttl_seconds


def is_worth_touching(row: StreamRow, now: float) -> bool:
    """Whether a read at this time should move the stream's end."""
    if row.ttl_seconds is None or row.due is None:
        return False
    return now + row.ttl_seconds - row.due > row.ttl_seconds * _WORTH


def is_as_asked(row: StreamRow, new: NewStream) -> bool:
    """Whether a stream that exists is the one that is to be created. What a fork did not say it has from its source."""
    inherits = new.fork is not None
    return (
        row.fork == new.fork
        and new.closed in (None, row.closed)
        and _same_type(row, new, inherits)
        and (
            (row.ttl_seconds, row.expires_at) == (new.ttl_seconds, new.expires_at)
            or (inherits and _no_end(new))
        )
    )


def _same_type(row: StreamRow, new: NewStream, inherits: bool) -> bool:
    if new.content_type is None:
        return inherits or media_type(row.content_type) == BYTES
    return media_type(row.content_type) == media_type(new.content_type)


def _no_end(new: NewStream) -> bool:
    return new.ttl_seconds is None and new.expires_at is None


def judge(row: StreamRow, known: Producer | None, write: Write) -> Outcome:
    """What becomes of a write to a stream that is there. `known`: the last that this producer wrote here, if anything.

    A producer is told of its own past first: that its write was taken before, or that it is shut out, is true whatever
    has happened to the stream since.
    """
    numbers = Outcome.APPLIED if write.producer is None else _judge_producer(known, write.producer)
    if numbers in (Outcome.OLD_EPOCH, Outcome.DUPLICATE):
        return numbers
    if row.closed:
        only_closes = write.close and not write.entries and write.producer is None
        return Outcome.DUPLICATE if only_closes else Outcome.CLOSED
    if write.entries and not _fits(row.content_type, write.content_type):
        return Outcome.WRONG_TYPE
    if numbers is not Outcome.APPLIED:
        return numbers
    if write.writer_seq is not None and row.writer_seq is not None:
        # As bytes: words of digits with different lengths are in no other order.
        if write.writer_seq.encode() <= row.writer_seq.encode():
            return Outcome.OLD_SEQ
    return Outcome.APPLIED


class Span(NamedTuple):
    """A part of all names in their order: from `first` on, itself only if it `is_in`, and before `end` (None: all)."""

    first: str
    is_in: bool
    end: str | None


def span_of(prefix: str, after: str) -> Span:
    """The names that begin with `prefix` and come behind `after`. One bound on each side, so that an index is entered
    at the first of them, and not at the first of the prefix."""
    first = max(prefix, _FIRST_NAME)
    end = _behind(prefix)
    return Span(after, False, end) if after >= first else Span(first, True, end)


def _behind(prefix: str) -> str | None:
    """The first text behind all that begin so; None, if there is none."""
    kept = prefix.rstrip(chr(_LAST_CHARACTER))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    # Half of a pair is no character, and no database takes it.
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)


def _fits(content_type: str, given: str | None) -> bool:
    if given is None:
        return not is_json(content_type)
    return media_type(given) == media_type(content_type)


def _judge_producer(known: Producer | None, given: Producer) -> Outcome:
    if known is None:
        return Outcome.APPLIED if given.seq == 0 else Outcome.SEQ_GAP
    if given.epoch < known.epoch:
        return Outcome.OLD_EPOCH
    if given.epoch > known.epoch:
        return Outcome.APPLIED if given.seq == 0 else Outcome.BAD_EPOCH
    if given.seq <= known.seq:
        return Outcome.DUPLICATE
    return Outcome.APPLIED if given.seq == known.seq + 1 else Outcome.SEQ_GAP
