"""Cursors of lists: opaque to clients, and told from what is none. Pure.

Who calls it: the pages that list. A cursor grants nothing, so it is not signed; it has a check sum, so that a part of
one, one of another list and an invented one are errors, and not a page from nowhere.
"""

from __future__ import annotations

import base64
import zlib

from ..exceptions import BadCursor

# The longest place is the name of a stream, 1024 bytes.
_LONGEST = 1400


class CursorGone(LookupError):
    """What the cursor points at is not kept any more, and so its place in the list is lost."""


def make_cursor(kind: str, place: str) -> str:
    """The cursor of a place in a list of this kind."""
    return base64.urlsafe_b64encode(_checksum(kind, place) + place.encode()).decode().rstrip("=")


def read_cursor(kind: str, cursor: str) -> str:
    """The place. Raises `BadCursor` for one that was not given out by such a list."""
    try:
        if len(cursor) > _LONGEST:
            raise ValueError
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = raw[4:].decode()
        # The last check: of several texts that decode to the same bytes only one was given out.
        if raw[:4] != _checksum(kind, place) or make_cursor(kind, place) != cursor:
            raise ValueError
    except ValueError:
        raise BadCursor(
            f"the cursor {cursor[:100]!r} was not given out by this list; begin at the first page, and take the "
            "`next` of each page as it is"
        ) from None
    return place


def _checksum(kind: str, place: str) -> bytes:
    return zlib.crc32(f"lastcall {kind} {place}".encode()).to_bytes(4, "big")
