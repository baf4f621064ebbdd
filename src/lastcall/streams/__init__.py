"""Streams: ordered logs that are read by number, across reconnects, deploys and crashes.

General layout: `_log` is what a reader sees, `_text` what it shows. `_streams` are free-standing streams as programs
use them; `_port` is the port to where they are stored, `_verbs` what any store does (deciding by `_policy`), `_memory`
the one in memory, `_wakeups` who waits.
"""

from ._log import Entry, Log, LogPage, follow
from ._memory import MemoryStore
from ._port import Producer, StreamStore
from ._streams import Stream, StreamInfo, Streams
from ._text import TextView

__all__ = [
    "Entry",
    "Log",
    "LogPage",
    "MemoryStore",
    "Producer",
    "Stream",
    "StreamInfo",
    "StreamStore",
    "Streams",
    "TextView",
    "follow",
]
