"""What earlier attempts have told: read back from the job's log when the job runs again.

Who calls it: a step before it begins, and a stream. A reader may have shown what they wrote; it is either taken back
(`step.reset`, `stream.reset`) or gone on with. What can go wrong: the log is not kept in full. Then everything may have
been shown, so everything is taken back; and text whose beginning is gone is not gone on with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import NamedTuple

from ._attempt import Attempt, persist
from ._codec import load_plain
from ._rows import EventPage, EventRow, ReadFrom

_AT_ONCE = 1000

# The engine's own events, which nobody takes back.
_OWN = frozenset(("status", "step", "progress"))


class Told(NamedTuple):
    """Which steps, and which streams outside of steps, an earlier attempt has written to and not taken back.

    `is_whole`: from the first entry on. What is taken back now is taken out of the sets.
    """

    steps: set[str]
    streams: set[str]
    is_whole: bool

    def takes_back_step(self, key: str) -> bool:
        """Whether a step that begins now must say so."""
        there = key in self.steps or not self.is_whole
        self.steps.discard(key)
        return there

    def takes_back_stream(self, name: str) -> bool:
        """Whether a stream that is opened now must say so."""
        there = name in self.streams
        self.streams.discard(name)
        return there


async def told_before(attempt: Attempt) -> Told:
    """Read once per attempt: what it tells itself is not in it."""
    if attempt.told is not None:
        return attempt.told
    told = Told(set(), set(), True)
    if attempt.claimed.attempt > 1:
        async for page in _pages(attempt):
            told = told._replace(is_whole=told.is_whole and page.first == 1)
            for row in page.events:
                if row.attempt < attempt.claimed.attempt:
                    _note(told, row)
    if attempt.told is None:  # steps side by side ask together, and must not see half of it
        attempt.told = told
    return attempt.told


def _note(told: Told, row: EventRow) -> None:
    if row.type == "step.reset":
        told.steps.discard(word(row, "step"))
    elif row.type == "stream.reset":
        told.streams.discard(word(row, "stream"))
    elif row.step is not None and row.type not in _OWN:
        told.steps.add(row.step)
    elif row.step is None and row.type in ("stream.text", "stream.data"):
        told.streams.add(word(row, "stream"))


def word(row: EventRow, name: str) -> str:
    """A text in the event's data; empty, which no stream and no step is called, for what has not that form: a job may
    emit events of any type."""
    told = load_plain(row.data)
    found = told.get(name) if isinstance(told, dict) else None
    return found if isinstance(found, str) else ""


async def written_by_step(attempt: Attempt, key: str) -> list[EventRow] | None:
    """What this step has told since it was last begun anew; None: its beginning is not kept."""
    return await _written(attempt, lambda row: row.step == key, "step.reset", {"step": key})


async def written_to_stream(attempt: Attempt, name: str) -> list[EventRow] | None:
    """What was written to this stream outside of steps; None: its beginning is not kept."""

    def belongs(row: EventRow) -> bool:
        return row.step is None and row.type in ("stream.text", "stream.data") and word(row, "stream") == name

    return await _written(attempt, belongs, "stream.reset", {"stream": name})


async def _written(
    attempt: Attempt, belongs: Callable[[EventRow], bool], reset: str, whose: dict[str, str]
) -> list[EventRow] | None:
    found: list[EventRow] = []
    begins = True  # whether what is found begins where it began
    oldest: int | None = None
    async for page in _pages(attempt):
        for row in page.events:
            oldest = row.seq if oldest is None else oldest
            if row.type == reset and load_plain(row.data) == whose:
                found, begins = [], True
            elif row.type not in _OWN and belongs(row):
                if not found and row.seq == oldest and row.seq > 1:
                    begins = False
                found.append(row)
    return found if begins else None


async def _pages(attempt: Attempt) -> AsyncIterator[EventPage]:
    after = 0
    while True:
        read = partial(attempt.crew.engine.read_events, (ReadFrom(attempt.claimed.id, after),), _AT_ONCE)
        (page,) = await persist(read, repr(attempt), attempt)
        if page is None or not page.events:
            return
        yield page
        after = page.events[-1].seq
