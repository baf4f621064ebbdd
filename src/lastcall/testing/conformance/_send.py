"""Messages: to a wait that is there, kept for one that is not there yet, in order, never to two."""

from __future__ import annotations

import asyncio
import json

from ..._core._state import StopReason
from ...jobs._rows import Completed, Failed, Suspended, Wait
from ...jobs._state import JobStatus, StepStatus, WaitKind
from ._harness import Harness
from ._support import ERROR, a_job, a_worker, again, ask, end, look, start, status_of, take_ids


def signal(step: str, name: str = "go", seconds: float | None = None) -> Wait:
    return Wait(step, WaitKind.SIGNAL, name, seconds)


async def _suspend(h: Harness, attempt: int, *waits: Wait) -> JobStatus | None:
    return await end(h.engine, "a", attempt, Suspended(waits))


async def _values(h: Harness) -> dict[str, object]:
    return {step.key: json.loads(step.value or "") for step in await h.other.steps("a")}


async def a_message_wakes_the_job_that_waits_for_it(h: Harness) -> None:
    """Sent from another process: the step is completed with the data, the wait is gone."""
    attempt = await start(h.engine)
    assert await _suspend(h, attempt, signal("s")) is JobStatus.WAITING
    h.advance(5.0)
    assert await h.other.send("a", "go", '{"ok": true}') is JobStatus.QUEUED
    (step,) = await h.engine.steps("a")
    assert (step.key, step.status, step.error, step.ended_at) == (
        "s",
        StepStatus.COMPLETED,
        None,
        h.clock.wall(),
    )
    assert await _values(h) == {"s": {"data": {"ok": True}}}
    assert (await look(h.engine)).waits == ()
    assert await again(h.engine) == attempt + 1


async def every_kind_of_data_arrives(h: Harness) -> None:
    """Null, numbers, text with quotes, lists: what was sent is what stands in the step."""
    attempt = await start(h.engine)
    sent = [None, 0, 1.5, 'it\'s "so" \U0001f377', [1, [2]], {"a": None}, True]
    for n, data in enumerate(sent):
        await _suspend(h, attempt, signal(f"{n}"))
        await h.engine.send("a", "go", json.dumps(data))
        attempt = await again(h.engine)
    assert await _values(h) == {f"{n}": {"data": data} for n, data in enumerate(sent)}


async def a_signal_times_out(h: Harness) -> None:
    """Nobody sends anything; the job is told so."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, signal("s", seconds=10.0))
    h.advance(9.0)
    assert await take_ids(h.engine) == []
    h.advance(1.0)
    assert await again(h.engine) == attempt + 1
    assert await _values(h) == {"s": {"timeout": True}}


async def a_message_in_time_beats_the_timeout(h: Harness) -> None:
    """The message comes before the timeout, which then has nothing to say."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, signal("s", seconds=10.0))
    h.advance(9.0)
    await h.engine.send("a", "go", "1")
    h.advance(2.0)
    assert await again(h.engine) == attempt + 1
    assert await _values(h) == {"s": {"data": 1}}
    assert (await ask(h.engine)).next_due_seconds is None


async def a_message_after_the_timeout_is_kept_for_the_next_wait(h: Harness) -> None:
    """It came too late for the first wait, and is there at once for the second."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, signal("first", seconds=10.0))
    h.advance(10.0)
    attempt = await again(h.engine)
    assert await h.engine.send("a", "go", "1") is JobStatus.RUNNING
    assert await _suspend(h, attempt, signal("second")) is JobStatus.QUEUED
    assert await _values(h) == {"first": {"timeout": True}, "second": {"data": 1}}


async def a_message_is_kept_until_there_is_a_wait(h: Harness) -> None:
    """Sent while the job is scheduled, queued, running and waiting for something else; each one is received."""
    await h.engine.submit([a_job(delay_seconds=1.0)])
    await h.engine.join(a_worker())
    assert await h.engine.send("a", "m0", "0") is JobStatus.SCHEDULED
    h.advance(1.0)
    await take_ids(h.engine, limit=0)
    assert await h.engine.send("a", "m1", "1") is JobStatus.QUEUED
    attempt = await again(h.engine)
    assert await h.engine.send("a", "m2", "2") is JobStatus.RUNNING
    await _suspend(h, attempt, signal("s", "other"))
    assert await h.engine.send("a", "m3", "3") is JobStatus.WAITING
    assert await h.engine.send("a", "other", "4") is JobStatus.QUEUED
    await h.reopen()
    for n in range(4):
        attempt = await again(h.engine)
        assert await _suspend(h, attempt, signal(f"s{n}", f"m{n}")) is JobStatus.QUEUED
    assert await _values(h) == {"s": {"data": 4}} | {f"s{n}": {"data": n} for n in range(4)}


async def first_sent_first_received(h: Harness) -> None:
    """Three messages of one name wait for three waits; one of another name between them is not touched."""
    attempt = await start(h.engine)
    for n in range(3):
        await h.other.send("a", "go", f"{n}")
        await h.other.send("a", "else", '"untouched"')
    for n in range(3):
        assert await _suspend(h, attempt, signal(f"{n}")) is JobStatus.QUEUED
        attempt = await again(h.engine)
    assert await _values(h) == {f"{n}": {"data": n} for n in range(3)}
    assert await _suspend(h, attempt, signal("3")) is JobStatus.WAITING
    assert await h.engine.send("a", "go", "3") is JobStatus.QUEUED


async def one_message_satisfies_one_wait(h: Harness) -> None:
    """Two parts of a job wait for the same name: the first message is for the first one, the next for the next."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, signal("s1"), signal("s2"))
    await h.engine.send("a", "go", "1")
    assert await _values(h) == {"s1": {"data": 1}}
    assert (await look(h.engine)).waits == (signal("s2"),)
    await h.engine.send("a", "go", "2")
    assert await _values(h) == {"s1": {"data": 1}, "s2": {"data": 2}}


async def two_kept_messages_satisfy_two_waits(h: Harness) -> None:
    """Both messages were there before the job waited for both."""
    attempt = await start(h.engine)
    await h.engine.send("a", "go", "1")
    await h.engine.send("a", "go", "2")
    assert await _suspend(h, attempt, signal("s1"), signal("s2")) is JobStatus.QUEUED
    assert await _values(h) == {"s1": {"data": 1}, "s2": {"data": 2}}
    assert (await look(h.engine)).waits == ()


async def a_kept_message_beats_a_timeout_of_nothing(h: Harness) -> None:
    """A job looks whether there is a message, without waiting for one: there is, and then there is none."""
    attempt = await start(h.engine)
    await h.engine.send("a", "go", "1")
    assert await _suspend(h, attempt, signal("s1", seconds=0.0)) is JobStatus.QUEUED
    attempt = await again(h.engine)
    assert await _suspend(h, attempt, signal("s2", seconds=0.0)) is JobStatus.QUEUED
    assert await _values(h) == {"s1": {"data": 1}, "s2": {"timeout": True}}


async def a_message_of_another_name_wakes_nobody(h: Harness) -> None:
    """The job waits for `go`, and `stop` is sent."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, signal("s"))
    assert await h.engine.send("a", "stop", "1") is JobStatus.WAITING
    assert await h.engine.steps("a") == []


async def a_message_goes_to_its_job_only(h: Harness) -> None:
    """Two jobs wait for the same name."""
    for job_id in "ab":
        attempt = await start(h.engine, job_id)
        await end(h.engine, job_id, attempt, Suspended((signal("s"),)))
    assert await h.engine.send("b", "go", "1") is JobStatus.QUEUED
    assert await status_of(h.engine, "a") is JobStatus.WAITING


async def a_decision_comes_as_a_message(h: Harness) -> None:
    """A person decides what became of a step whose outcome nobody knows."""
    attempt = await start(h.engine)
    wait = Wait("pay", WaitKind.DECISION, "decision pay")
    assert await _suspend(h, attempt, wait) is JobStatus.WAITING
    assert (await look(h.other)).waits == (wait,)
    h.advance(10 * 24 * 3600.0)
    await h.engine.join(a_worker())
    assert (await ask(h.engine)).next_due_seconds is None
    assert await h.other.send("a", "decision pay", '{"value": 1}') is JobStatus.QUEUED
    assert await _values(h) == {"pay": {"data": {"value": 1}}}


async def an_ended_job_receives_nothing(h: Harness) -> None:
    """A message to a completed job, and to a failed one, which is not there after a retry by hand either."""
    attempt = await start(h.engine, "b")
    await end(h.engine, "b", attempt, Completed("1"))
    assert await h.engine.send("b", "go", "1") is JobStatus.COMPLETED
    attempt = await start(h.engine)
    await end(h.engine, "a", attempt, Failed(ERROR))
    assert await h.engine.send("a", "go", "1") is JobStatus.FAILED
    await h.engine.retry("a")
    attempt = await again(h.engine)
    assert await _suspend(h, attempt, signal("s")) is JobStatus.WAITING
    await h.engine.cancel("a", StopReason.USER)
    assert await h.engine.send("a", "go", "1") is JobStatus.CANCELLED


async def a_message_that_nobody_received_outlives_a_failure(h: Harness) -> None:
    """Sent while the job ran, which then failed; retried by hand, it waits for the message, which is there."""
    attempt = await start(h.engine)
    await h.engine.send("a", "go", "1")
    await end(h.engine, "a", attempt, Failed(ERROR))
    await h.engine.retry("a")
    attempt = await again(h.engine)
    assert await _suspend(h, attempt, signal("s")) is JobStatus.QUEUED
    assert await _values(h) == {"s": {"data": 1}}


async def an_unknown_job_receives_nothing(h: Harness) -> None:
    """The id is wrong."""
    assert await h.engine.send("nothing", "go", "1") is None


async def messages_from_many_senders_all_arrive(h: Harness) -> None:
    """Ten senders on two engines at the same time; each message is received, none twice."""
    attempt = await start(h.bare)
    await asyncio.gather(*([h.bare, h.bare_other][n % 2].send("a", "go", f"{n}") for n in range(10)))
    for n in range(10):
        assert await _suspend(h, attempt, signal(f"{n}")) is JobStatus.QUEUED
        attempt = await again(h.bare)
    assert await _suspend(h, attempt, signal("none")) is JobStatus.WAITING
    received = [json.loads(step.value or "")["data"] for step in await h.bare.steps("a")]
    assert sorted(received) == list(range(10))
