"""Graceful shutdown for any ASGI app, without a framework and without a dependency.

General layout: `_middleware` is the entry and sorts by scope type. `_lifespan` wraps the app's lifespan;
`_watch` hears of the shutdown (signals, `_hypercorn`'s event); `_servers` knows the servers and their limits.
`_http` and `_websocket` are one call in flight each, `_calls` what the layers inside see of it.
`_face` is everything below the prefix: `_access` says who may, `_pages` what a route is, `_problems` what went wrong;
`_tasks_face`, `_jobs_face`, `_overview_face`, `_drain_face` are its pages, `_live_face` and `_history` what is looked
at all the time, `_models`, `_examples`, `_schema`, `_openapi` its description; `_redact`, `_places`, `_cursor`,
`_abort` help.
`_stream`, `_framing` are StreamResponse.
`_log_response` is LogResponse, any log over HTTP: `_log_request` is what its reader asks, `_log_wire` how it is
written, `_log_page` and `_log_reader` one reader each (`_log_waiter`), `_log_readers` what they share (`_log_tail`,
`_log_keep_alive`, `_log_audience`), `_log_problem` why not.
`_durable_streams` is the Durable Streams protocol: `_durable_words` its words, `_durable_sources` what can be read,
`_durable_reads` how, `_durable_body` how entries stand in a body.
`_background` runs a framework's background tasks as tasks of the manager.
"""

from ._access import Access as Access
from ._access import Challenge as Challenge
from ._access import Shown as Shown
from ._access import allow_local as allow_local
from ._durable_streams import DurableStreams as DurableStreams
from ._framing import EndReason as EndReason
from ._framing import Event as Event
from ._log_response import LogResponse as LogResponse
from ._middleware import Lastcall as Lastcall
from ._servers import KILL_AFTER_VARIABLE as KILL_AFTER_VARIABLE
from ._stream import StreamResponse as StreamResponse
from ._websocket import WebSocketClosed as WebSocketClosed

__all__ = [
    "KILL_AFTER_VARIABLE",
    "Access",
    "Challenge",
    "EndReason",
    "Event",
    "Lastcall",
    "LogResponse",
    "Shown",
    "StreamResponse",
    "WebSocketClosed",
    "allow_local",
]
