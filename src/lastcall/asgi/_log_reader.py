"""LogReader: one client that reads a log as a stream, from its cursor to the log's end.

Theory of operation. The call's own task does everything: it takes what the tail has (or reads the log itself, while it
is further behind), writes it, and waits for one future. One helper waits for the client to leave. Whoever has news,
the tail, the helper, the keep-alive timer, the shutdown, completes that future. So an idle reader is two tasks and no
timer, and what it holds is one chunk: a client that never reads stops its own task in the server's `send`, nobody else.

How it ends: with `end`, when the log is closed and read to its end. Without, when the process stops: the log goes on
elsewhere, so the client is told when to come back. Or in silence, because the client has left.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any

from .._core._scope import Shutdown, current_shutdown
from .._core._state import Kind, StopReason
from ..exceptions import EngineUnavailable, EntriesGone, LastcallError
from ..streams import Log, LogPage
from ..streams._log import check_cursor
from ._calls import current_call
from ._log_readers import Readers
from ._log_tail import AWAY_SECONDS, Tail, next_limit
from ._log_waiter import Waiter
from ._log_wire import Frame, LogEnd, LogWire
from ._types import Receive, Send

logger = logging.getLogger("lastcall.asgi")

_CHUNK_BYTES = 1 << 16
_FIRST_LIMIT = 16
# To a client that does not read, the last words cannot be said; it is cut off this long after the stop.
_LAST_WRITE_SECONDS = 1.0
_DEFAULT_GRACE_SECONDS = 5.0


class LogReader(Waiter):
    """One reading of one log. `durable`: others have the log as well, so that at the stop the reader is sent away at
    once; else it stays as long as streams may, and is told that this was all."""

    __slots__ = (
        "_after",
        "_ahead",
        "_durable",
        "_grace",
        "_is_quiet",
        "_limit",
        "_log",
        "_out_of_time",
        "_readers",
        "_send",
        "_shutdown",
        "_tail",
        "_wire",
    )

    def __init__(
        self, log: Log, wire: LogWire, after: int, send: Send, readers: Readers, *, durable: bool
    ) -> None:
        super().__init__()
        self._log = log
        self._wire = wire
        self._after = after
        self._send = send
        self._readers = readers
        self._durable = durable
        self._shutdown: Shutdown = current_shutdown()
        self._tail: Tail
        self._limit = _FIRST_LIMIT
        self._ahead: list[Frame] = []  # read, and not written yet
        self._is_quiet = False  # time for a keep-alive
        self._grace: asyncio.TimerHandle | None = None
        self._out_of_time = False

    async def run(self, page: LogPage, snapshot: Mapping[str, Any], receive: Receive) -> None:
        """Stream until the log ends, the client leaves or the process stops. The response has been started.

        `page`, `snapshot`: where the log stands, and what it is about, as the reader is told first.
        """
        self._hold_call()
        self._tail = self._readers.join(
            self, self._log, page.last, keep_alive=self._wire.keep_alive is not None
        )
        watcher = asyncio.get_running_loop().create_task(self.watch_client(receive))
        try:
            await self._write(self._wire.snapshot(self._after, page, snapshot, random.random()))
            last_words = await self._stream()
            if not self.gone:
                await self._send({"type": "http.response.body", "body": last_words, "more_body": False})
        except OSError:
            pass  # how servers of ASGI 2.4 say that the client left
        finally:
            watcher.cancel()
            if self._grace is not None:
                self._grace.cancel()
            self._readers.leave(self, self._log)

    def keep_alive(self) -> None:
        """It has been quiet for long."""
        self._is_quiet = True
        self.wake()

    # --- the stream -------------------------------------------------------------------------------------

    async def _stream(self) -> bytes:
        """Write what comes; returns the last words, when there is nothing more to wait for."""
        while not self.gone:
            if self._must_go():
                return await self._farewell()
            try:
                frames = await self._next()
                if not frames and self._tail.closed and (end := await self._end()) is not None:
                    return end
            except EntriesGone as error:
                return self._wire.gone(error.first, self._tail.end)
            except EngineUnavailable:
                await self.wait(AWAY_SECONDS)
                continue
            except LastcallError as error:
                # It was deleted, or is another one by now. Whoever comes back is told by the status.
                logger.info("a reader at %d of %r leaves: %s", self._after, self._log, error)
                return b""
            if frames:
                await self._write(b"".join(map(self._wire.entry, frames)))
                self._after = frames[-1].entry.seq
            elif self._is_quiet and self._wire.keep_alive is not None:
                await self._write(self._wire.keep_alive)
            else:
                await self.wait()
        return b""

    async def _next(self) -> Sequence[Frame]:
        if self._tail.error is not None:
            raise self._tail.error
        if not self._ahead:
            frames = self._tail.behind(self._after, _CHUNK_BYTES)
            if frames is not None:
                return frames
            await self._read()
        return self._take()

    async def _read(self) -> None:
        """Read the log itself, where the tail does not reach."""
        page = await self._log.read(self._after, self._limit)
        check_cursor(page, self._after)
        self._limit = next_limit(self._limit, page.entries)
        self._ahead.extend(map(Frame, page.entries))

    def _take(self) -> list[Frame]:
        count = size = 0
        while count < len(self._ahead) and size < _CHUNK_BYTES:
            size += self._ahead[count].size
            count += 1
        frames, self._ahead = self._ahead[:count], self._ahead[count:]
        return frames

    async def _end(self) -> bytes | None:
        """The end of the log, if this is it: asked once more, for an ended job may have been queued again."""
        page = await self._log.read(self._after, 0)
        if not page.closed or self._after < page.last:
            return None
        return self._wire.end(LogEnd.CLOSED, page, await self._log.snapshot())

    async def _write(self, chunk: bytes) -> None:
        self._is_quiet = False
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        self.wrote_at = asyncio.get_running_loop().time()

    # --- the stop ---------------------------------------------------------------------------------------

    def _hold_call(self) -> None:
        """Tell the call what it is, and when to cut us off should we not go by ourselves."""
        call = current_call.get()
        if call is None:
            return
        call.ends_itself = True
        call.hold.kind = Kind.STREAM
        grace = 0.0 if self._durable else call.options.stream_seconds
        call.hold.grace_seconds = grace + _LAST_WRITE_SECONDS

    def _must_go(self) -> bool:
        if not self._shutdown.requested:
            return False
        if self._shutdown.reason is StopReason.DISCONNECT:
            self.gone = True
        if self._durable or self.gone or self._out_of_time:
            return True
        if self._grace is None:
            call = current_call.get()
            seconds = _DEFAULT_GRACE_SECONDS if call is None else call.options.stream_seconds
            self._grace = asyncio.get_running_loop().call_later(seconds, self._on_grace_over)
        return False

    def _on_grace_over(self) -> None:
        self._out_of_time = True
        self.wake()

    async def _farewell(self) -> bytes:
        if self._durable:
            return self._wire.away(random.random())
        try:
            page = await self._log.read(self._after, 0)
            return self._wire.end(LogEnd.SHUTDOWN, page, await self._log.snapshot())
        except LastcallError:
            return b""  # deleted meanwhile
