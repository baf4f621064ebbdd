"""What an attempt tells, on its way to the job's log: in the order in which it was told, in few writes.

Who calls it: `Context.emit` (waits for the commit), streams (`put`, which returns at once unless much is waiting).
What it owns: the events that are not written yet, and the one write that is under way. The first event after a pause is
written at once, those that follow are collected for `_INTERVAL_SECONDS`: a token is seen about one commit after it was
written, and a thousand tokens a second cost forty commits. What can go wrong: the store is away (events wait, and `put`
holds back whoever writes more), the fence (the attempt is lost, and what it told last is refused).
"""

from __future__ import annotations

import asyncio

from .._core._observer import tell
from ._attempt import Attempt, persist
from ._codec import dump_plain
from ._rows import NewEvent

_INTERVAL_SECONDS = 0.025

# Whoever has more than this on its way waits, so that a store that is away costs no more memory than that.
_MAX_WAITING_BYTES = 256 * 1024

# Text that comes together becomes one event, up to this: a reader must not wait for a book.
_MAX_TEXT_BYTES = 32 * 1024

# Events of one write, so that no transaction keeps the store for long.
_MAX_AT_ONCE = 1000


class _Text:
    """Text of a stream that may still grow."""

    __slots__ = ("bytes", "pieces", "step", "stream")

    def __init__(self, stream: str, step: str | None) -> None:
        self.stream = stream
        self.step = step
        self.pieces: list[str] = []
        self.bytes = 0

    def event(self) -> NewEvent:
        data = {"stream": self.stream, "text": "".join(self.pieces)}
        return NewEvent("stream.text", dump_plain(data, f"text of the stream {self.stream!r}"), self.step)


class _Batch:
    """Events of one write. `done`: the number of the last one, 0 if the fence refused them."""

    __slots__ = ("bytes", "done", "events", "is_urgent")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.events: list[NewEvent | _Text] = []
        self.bytes = 0
        self.is_urgent = False
        self.done: asyncio.Future[int] = loop.create_future()
        # There may be nobody to hear of a failure now; whoever tells more hears of it then.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())


class Outgoing:
    """The events of one attempt, from the first one it tells."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._loop = attempt.crew.loop
        self._collecting: _Batch | None = None
        self._full: list[_Batch] = []
        self._under_way: _Batch | None = None
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self._waiting_bytes = 0
        self._failure: Exception | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""
        return self._writing is None and self._collecting is None and not self._full

    async def emit(self, event: NewEvent) -> int:
        """Append it behind everything told before. Its number, once it is stored; 0 if the fence refused it."""
        batch = self._add(event, len(event.data))
        place = len(batch.events)
        batch.is_urgent = True
        self._schedule()
        last = await _outcome(batch.done)
        return last and last - len(batch.events) + place

    async def put(self, event: NewEvent) -> None:
        """Append it soon. Waits while too much is on its way. Raises what an earlier write raised."""
        self._add(event, len(event.data))
        await self._soon()

    async def put_text(self, stream: str, step: str | None, text: str, size: int) -> None:
        """As `put`, for text that may be joined with what comes before and after it."""
        batch = self._batch()
        last = batch.events[-1] if batch.events else None
        if (
            not isinstance(last, _Text)
            or (last.stream, last.step) != (stream, step)
            or last.bytes + size > _MAX_TEXT_BYTES
        ):
            last = _Text(stream, step)
            batch = self._add(last, 0)
        last.pieces.append(text)
        last.bytes += size
        batch.bytes += size
        self._waiting_bytes += size
        await self._soon()

    async def flush(self) -> bool:
        """Return when everything told so far is stored. False: the fence refused it."""
        batches = (self._under_way, *self._full, self._collecting)
        waiting = [batch for batch in batches if batch is not None]
        for batch in waiting:
            batch.is_urgent = True
        self._schedule()
        refused = 0
        for batch in waiting:
            refused += not await _outcome(batch.done)
        if self._failure is not None:
            raise self._failure
        return not refused

    def close(self) -> None:
        """The attempt has ended: what is not stored by now would be refused."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            self._writing.cancel()

    # --- collecting ------------------------------------------------------------------------------------

    def _batch(self) -> _Batch:
        if self._failure is not None:
            raise self._failure
        if self._collecting is not None and len(self._collecting.events) >= _MAX_AT_ONCE:
            self._full.append(self._collecting)
            self._collecting = None
        if self._collecting is None:
            self._collecting = _Batch(self._loop)
        return self._collecting

    def _add(self, event: NewEvent | _Text, size: int) -> _Batch:
        batch = self._batch()
        batch.events.append(event)
        batch.bytes += size
        self._waiting_bytes += size
        return batch

    async def _soon(self) -> None:
        self._schedule()
        while self._waiting_bytes > _MAX_WAITING_BYTES and self._writing is not None:
            await asyncio.wait((self._writing,))

    # --- writing ---------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Begin the next write, now or when its time has come; a write that is under way calls this at its end."""
        if self._writing is not None or (self._collecting is None and not self._full):
            return
        now = self._loop.time()
        is_urgent = bool(self._full) or (self._collecting is not None and self._collecting.is_urgent)
        if is_urgent or self._next_at <= now or self._waiting_bytes > _MAX_WAITING_BYTES:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._next_at = now + _INTERVAL_SECONDS
            # Not by the loop's factory, which tools may have changed.
            self._under_way = self._take()
            self._writing = asyncio.Task(self._write(self._under_way), loop=self._loop)
        elif self._timer is None:
            context = self._attempt.crew.roster.context
            self._timer = self._loop.call_at(self._next_at, self._due, context=context)

    def _due(self) -> None:
        self._timer = None
        self._next_at = 0.0  # timers may be early by the clock's resolution
        self._schedule()

    def _take(self) -> _Batch:
        if self._full:
            return self._full.pop(0)
        batch, self._collecting = self._collecting, None
        assert batch is not None
        return batch

    async def _write(self, batch: _Batch) -> None:
        attempt = self._attempt
        claimed, client = attempt.claimed, attempt.crew.client
        try:
            events = [event.event() if isinstance(event, _Text) else event for event in batch.events]
            with attempt.holding():
                last = await persist(
                    lambda: client.engine.append_events(claimed.id, claimed.attempt, events),
                    f"{len(events)} events of {attempt!r}",
                    attempt,
                )
        except Exception as error:
            self._failure = error
            batch.done.set_exception(error)
        else:
            if last is None:
                attempt.lose()
            else:
                client.changed((claimed.id,))
                if client.observers:
                    tell(client.observers, "events_written", claimed, len(events))
            batch.done.set_result(last or 0)
        finally:
            batch.done.cancel()  # the attempt has ended, if nothing else is known by now
            self._waiting_bytes -= batch.bytes
            self._writing = self._under_way = None
        self._schedule()


def outgoing_of(attempt: Attempt) -> Outgoing:
    """The attempt's, made when it first has something to tell. Raises `NotInJob` after its end."""
    attempt.enter()
    if attempt.outgoing is None:
        attempt.outgoing = Outgoing(attempt)
    return attempt.outgoing


async def emit(attempt: Attempt, event: NewEvent) -> int:
    """Append an event and return its number once it is stored; where the lease is lost, never."""
    outgoing = outgoing_of(attempt)
    seq = await attempt.finish_write(lambda: outgoing.emit(event), f"an event of {attempt!r}")
    if not seq:
        await attempt.park()
    return seq


async def flush(attempt: Attempt) -> None:
    """Return when everything the attempt has told is stored; where the lease is lost, never."""
    outgoing = attempt.outgoing
    if outgoing is None or outgoing.is_idle:
        return
    if not await attempt.finish_write(outgoing.flush, f"the events of {attempt!r}"):
        await attempt.park()


async def _outcome(done: asyncio.Future[int]) -> int:
    """What becomes of a batch; whoever is cancelled while it waits does not cancel it for the others."""
    await asyncio.wait((done,))
    return done.result()
