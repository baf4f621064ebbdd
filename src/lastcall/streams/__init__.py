"""Streams: ordered logs that are read by number, across reconnects, deploys and crashes.

General layout: `_log` is what a reader sees; everything else is where the entries come from and how they are written.
"""

from ._log import Entry, Log, LogPage, follow
from ._text import TextView

__all__ = ["Entry", "Log", "LogPage", "TextView", "follow"]
