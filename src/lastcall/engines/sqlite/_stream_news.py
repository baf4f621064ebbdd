"""Where free-standing streams stand, read for those who wait for news of them.

Who calls it: `_streams`, in the reader thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from .._stream_news import Heads

_HEADS = """SELECT name, id, last, closed, gone FROM lastcall_stream
    WHERE name IN (SELECT value FROM json_each(?))"""


def read_heads(connection: sqlite3.Connection, names: Sequence[str]) -> Heads:
    """In the reader thread: where these streams stand."""
    rows = connection.execute(_HEADS, (json.dumps(names),))
    return {name: (id, last, closed, gone) for name, id, last, closed, gone in rows}
