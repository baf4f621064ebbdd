"""Hearing of changes: what another engine object wrote is heard within a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..._core._state import StopReason
from ...jobs._rows import Completed, NewEvent
from ._harness import Harness
from ._support import a_job, a_worker, again, end, start

# In real time: how an engine hears of others is its own business, and no virtual clock's.
HEARD_WITHIN_SECONDS = 5.0


async def _heard(h: Harness, change: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """The other engine makes a change, and the listener of this one is called."""
    news = asyncio.Event()
    end_listening = h.engine.listen(news.set)
    try:
        await change()
        async with asyncio.timeout(HEARD_WITHIN_SECONDS):
            await news.wait()
    finally:
        end_listening()


async def a_foreign_job_is_heard_of(h: Harness) -> None:
    """Another process submits."""
    await _heard(h, lambda: h.other.submit([a_job()]))


async def a_foreign_end_is_heard_of(h: Harness) -> None:
    """Another process ends a job somebody waits for here."""
    attempt = await start(h.engine)
    await _heard(h, lambda: end(h.other, "a", attempt, Completed("1")))


async def a_foreign_cancel_is_heard_of(h: Harness) -> None:
    """Another process cancels the job that runs here."""
    await start(h.engine)
    await _heard(h, lambda: h.other.cancel("a", StopReason.USER))


async def a_foreign_event_is_heard_of(h: Harness) -> None:
    """Another process writes the events that are read here."""
    attempt = await start(h.engine)
    await _heard(h, lambda: h.other.append_events("a", attempt, [NewEvent("token", '"x"')]))


async def a_foreign_message_is_heard_of(h: Harness) -> None:
    """Another process sends a message to a job."""
    await start(h.engine)
    await _heard(h, lambda: h.other.send("a", "go", "1"))


async def every_listener_hears(h: Harness) -> None:
    """A worker and a reader of events listen on one engine."""
    first, second = asyncio.Event(), asyncio.Event()
    end_first, end_second = h.engine.listen(first.set), h.engine.listen(second.set)
    await h.other.submit([a_job()])
    async with asyncio.timeout(HEARD_WITHIN_SECONDS):
        await first.wait()
        await second.wait()
    end_first()
    end_second()


async def who_ended_listening_hears_nothing(h: Harness) -> None:
    """One of two listeners goes, twice; the other one still hears of what comes."""
    calls: list[int] = []
    news = asyncio.Event()
    end_first = h.engine.listen(lambda: calls.append(1))
    end_second = h.engine.listen(news.set)
    end_first()
    end_first()
    await h.other.submit([a_job()])
    async with asyncio.timeout(HEARD_WITHIN_SECONDS):
        await news.wait()
    end_second()
    assert calls == []


async def listening_is_called_on_the_loop(h: Harness) -> None:
    """A listener may touch what belongs to the loop, and is told again of later changes."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[asyncio.AbstractEventLoop] = asyncio.Queue()
    end_listening = h.engine.listen(lambda: heard.put_nowait(asyncio.get_running_loop()))
    try:
        for n in range(3):
            while not heard.empty():
                heard.get_nowait()
            await h.other.submit([a_job(f"{n}")])
            async with asyncio.timeout(HEARD_WITHIN_SECONDS):
                assert await heard.get() is loop
    finally:
        end_listening()


async def what_was_heard_of_is_there(h: Harness) -> None:
    """Whoever asks after the news finds the job: the news comes after the commit."""
    await h.engine.join(a_worker())
    await _heard(h, lambda: h.other.submit([a_job()]))
    assert await again(h.engine) == 1
