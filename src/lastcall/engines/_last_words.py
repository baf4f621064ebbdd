"""The one thing that is told to a store right before it closes, as each engine's own way to its rows carries it out."""

from __future__ import annotations

from ..streams import _verbs
from ..streams._port import NewStream, Outcome, Write, Written


def add_or_create(rows: _verbs.Rows, now: float, write: Write) -> Written:
    """Append, or create the stream with these entries. In a transaction in which nobody else creates one."""
    written = _verbs.append(rows, now, write)
    if written.outcome is not Outcome.UNKNOWN:
        return written
    new = NewStream(write.name, write.content_type, None, None, None, None, write.entries)
    return _verbs.create(rows, now, new)
