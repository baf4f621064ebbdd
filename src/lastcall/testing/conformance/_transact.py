"""Steps in the user's own transaction, for engines that have `transact`.

What the connection is and how rows are written through it is the engine's business, and tested with the engine.
"""

from __future__ import annotations

from typing import Any, cast

from ...jobs._engine import SupportsTransactions
from ...jobs._rows import Completed, HandedOver, StepRecord
from ...jobs._state import StepPolicy, StepStatus
from ._harness import Harness
from ._support import LEASE_SECONDS, again, end, everything, start

PAY = StepRecord("pay", StepStatus.COMPLETED, policy=StepPolicy.ONCE, seconds=1.0)


async def _transact(h: Harness, attempt: int, work: Any, step: StepRecord = PAY) -> str | None:
    return await cast(SupportsTransactions, h.engine).transact("a", attempt, step, work)


async def the_step_is_completed_with_what_the_work_returned(h: Harness) -> None:
    """The work is called once, and its answer stands in the step."""
    attempt = await start(h.engine)
    calls: list[object] = []

    def work(connection: object) -> str:
        calls.append(connection)
        return '{"paid": true}'

    assert await _transact(h, attempt, work) == '{"paid": true}'
    assert len(calls) == 1
    (row,) = await h.other.steps("a")
    assert (row.key, row.status, row.value) == ("pay", StepStatus.COMPLETED, '{"paid": true}')
    assert (row.policy, row.attempt, row.ended_at) == (StepPolicy.ONCE, attempt, h.clock.wall())


async def what_the_work_raises_comes_out_and_nothing_is_written(h: Harness) -> None:
    """The user's code fails in the middle; the engine is as usable as before."""
    attempt = await start(h.engine)
    before = await everything(h.engine)

    def work(connection: object) -> str:
        raise ZeroDivisionError("in the user's code")

    try:
        await _transact(h, attempt, work)
    except ZeroDivisionError as error:
        assert str(error) == "in the user's code"
    else:
        raise AssertionError("the error of the user's code was swallowed")
    assert await everything(h.engine) == before
    assert await _transact(h, attempt, lambda connection: "1") == "1"


async def a_completed_step_is_not_worked_again(h: Harness) -> None:
    """The same step is asked for once more, by the attempt after the one that completed it."""
    attempt = await start(h.engine)
    await _transact(h, attempt, lambda connection: "1")
    await end(h.engine, "a", attempt, HandedOver())
    attempt = await again(h.engine)
    before = await h.engine.steps("a")

    def work(connection: object) -> str:
        raise AssertionError("a completed step ran again")

    assert await _transact(h, attempt, work) == "1"
    assert await h.engine.steps("a") == before


async def a_lost_attempt_commits_nothing(h: Harness) -> None:
    """Handed over, ended, taken over after a stall, or never there: None, and the work's writes do not stay."""
    attempt = await start(h.engine)
    assert await _transact(h, attempt + 1, lambda connection: "1") is None
    await end(h.engine, "a", attempt, HandedOver())
    assert await _transact(h, attempt, lambda connection: "1") is None
    attempt = await again(h.engine)
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.rescue("v")
    assert await _transact(h, attempt, lambda connection: "1") is None
    assert await h.engine.steps("a") == []


async def a_transaction_stands_beside_other_verbs(h: Harness) -> None:
    """A transaction, then a plain step, then the end, by one attempt."""
    attempt = await start(h.engine)
    await _transact(h, attempt, lambda connection: "1")
    await _transact(h, attempt, lambda connection: "2", StepRecord("more", StepStatus.COMPLETED))
    assert await h.engine.record_step("a", attempt, StepRecord("last", StepStatus.COMPLETED, "3")) is True
    assert await end(h.engine, "a", attempt, Completed("4")) == "completed"
    assert [(row.key, row.value) for row in await h.other.steps("a")] == [
        ("pay", "1"),
        ("more", "2"),
        ("last", "3"),
    ]
