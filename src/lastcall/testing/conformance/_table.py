"""The whole table of `jobs/_state.py`: every change of a status that it allows can be made."""

from __future__ import annotations

from ..._core._state import StopReason
from ...jobs._rows import Cancelled, Completed, Failed, HandedOver, Outcome, Suspended, Wait
from ...jobs._state import WaitKind
from ._harness import Harness
from ._support import ERROR, LEASE_SECONDS, a_job, a_worker, again, end, start, take_ids
from ._watch import TABLE

USER = StopReason.USER
GO = Suspended((Wait("s", WaitKind.SIGNAL, "go"),))


async def every_change_of_the_table_can_be_made(h: Harness) -> None:
    """Jobs are led along every line of the table."""
    await _before_running(h)
    await _out_of_running(h)
    await _out_of_running_cancelled(h)
    await _by_loss(h)
    missing = TABLE - h.watch.seen
    assert not missing, f"never seen: {sorted(missing)}"


async def _before_running(h: Harness) -> None:
    await h.engine.submit([a_job("due", task="never", delay_seconds=5.0)])
    await h.engine.submit([a_job("not due", delay_seconds=5.0), a_job("queued")])
    await h.engine.cancel("not due", USER)
    await h.engine.cancel("queued", USER)
    h.advance(5.0)
    await h.engine.join(a_worker())
    assert await take_ids(h.engine) == []


async def _out_of_running(h: Harness) -> None:
    await end(h.engine, "1", await start(h.engine, "1"), Completed("1"))
    await end(h.engine, "2", await start(h.engine, "2"), Failed(ERROR))
    await h.engine.retry("2")
    attempt = await again(h.engine, "2")
    await end(h.engine, "2", attempt, Cancelled(USER))
    await h.engine.retry("2")
    attempt = await again(h.engine, "2")
    await end(h.engine, "2", attempt, HandedOver())
    attempt = await again(h.engine, "2")
    await end(h.engine, "2", attempt, Failed(ERROR, retry_in_seconds=60.0))
    await h.engine.cancel("2", USER)
    attempt = await start(h.engine, "3")
    await end(h.engine, "3", attempt, GO)
    await h.engine.send("3", "go", "1")
    attempt = await again(h.engine, "3")
    await end(h.engine, "3", attempt, Suspended((Wait("nap", WaitKind.SLEEP, seconds=0.0),)))
    attempt = await again(h.engine, "3")
    await end(h.engine, "3", attempt, Suspended((Wait("t", WaitKind.SIGNAL, "go"),)))
    await h.engine.cancel("3", USER)


async def _out_of_running_cancelled(h: Harness) -> None:
    outcomes: list[Outcome] = [HandedOver(), GO, Failed(ERROR, retry_in_seconds=1.0)]
    for n, outcome in enumerate(outcomes):
        job_id = f"cancelled {n}"
        attempt = await start(h.engine, job_id)
        await h.engine.cancel(job_id, USER)
        await end(h.engine, job_id, attempt, outcome)


async def _by_loss(h: Harness) -> None:
    await start(h.engine, "7", max_lost=1)
    await start(h.engine, "8")
    await start(h.engine, "9")
    await h.engine.cancel("9", USER)
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.rescue("v")
