"""Jobs that run alone because they may be what kills their workers: when a worker pauses for them, and for how long."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.jobs import AttemptOutcome, Job, Jobs, JobStatus, _suspects
from lastcall.jobs._policy import Loss, after_loss
from lastcall.jobs._rows import ClaimRequest
from lastcall.jobs._suspects import PAUSE_SECONDS, SPREAD_SECONDS, WORK_FACTOR, Pausing
from lastcall.testing.conformance._support import a_worker
from tests.jobs.running import ended, eventually, set_within

# --- who is one ----------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.lists(st.booleans(), min_size=1, max_size=20))
def test_the_loss_that_fails_a_job_is_one_of_a_suspect(max_lost: int, progress: list[bool]) -> None:
    """Losses with and without steps between: who fails by `max_lost` was a suspect before, if there was a before."""
    loss = Loss(False, 0, 0, 0, 0, 0, max_lost, 1000)
    suspect = False
    for has_progress in progress:
        loss = loss._replace(completed_steps=loss.steps_at_last_loss + has_progress)
        suspect = suspect and not has_progress
        after = after_loss(loss)
        if after.status is JobStatus.FAILED:
            assert suspect or max_lost == 1
            assert not after.suspect
            return
        suspect = after.suspect
        assert suspect == (after.lost_in_a_row >= max_lost - 1)
        loss = loss._replace(
            lost_in_a_row=after.lost_in_a_row, lost=loss.lost + 1, steps_at_last_loss=loss.completed_steps
        )


def test_a_cancelled_job_is_no_suspect() -> None:
    """A job is lost that somebody wants cancelled."""
    assert not after_loss(Loss(True, 0, 0, 1, 1, 0, 3, 100)).suspect


# --- when to pause -------------------------------------------------------------------------------------

LUCK = st.floats(0.0, 1.0)


def test_a_pause_begins_soon_after_a_suspect_was_heard_of() -> None:
    """Not at once, because all workers hear of it at once; within two minutes, because it must not starve."""
    for luck in (0.0, 0.5, 1.0):
        begins_at = 100.0 + luck * SPREAD_SECONDS
        heard = Pausing().heard(100.0, True, luck)
        assert heard.look_again_in(100.0) == begins_at - 100.0
        assert heard.at(begins_at).is_paused
        if luck:
            assert not heard.at(begins_at - 0.1).is_paused


def test_a_pause_ends_the_moment_the_suspect_is_gone() -> None:
    """Another worker has taken it after two seconds: work goes on, and twenty seconds later there may be a pause."""
    paused = Pausing().heard(0.0, True, 0.0).at(0.0)
    assert paused.heard(2.0, True, 0.0).at(2.0).is_paused
    gone = paused.heard(2.0, False, 0.0)
    assert not gone.at(2.0).is_paused
    assert gone.look_again_in(2.0) is None
    again = gone.heard(3.0, True, 0.0)
    assert again.look_again_in(3.0) == 2.0 + 2.0 * WORK_FACTOR - 3.0


def test_nothing_is_owed_for_a_pause_that_never_began() -> None:
    """A suspect is heard of, and gone before the pause was due; another one comes."""
    gone = Pausing().heard(0.0, True, 1.0).heard(1.0, False, 0.0)
    assert gone.heard(2.0, True, 0.0).at(2.0).is_paused


@given(st.lists(st.tuples(st.floats(0.01, 20.0), st.booleans() | st.just(True), LUCK), max_size=200))
def test_a_worker_works_ten_times_as_long_as_it_pauses(rounds: list[tuple[float, bool, float]]) -> None:
    """However suspects come and go: no pause is much longer than half a minute, and ten times as much work follows."""
    now, state = 0.0, Pausing()
    pauses: list[tuple[float, float]] = []
    since: float | None = None
    for seconds, waits, luck in rounds:
        # As the fetcher does it: it looks again when the state says so, and sooner whenever something happens.
        now += min(seconds, state.look_again_in(now) or seconds)
        state = state.at(now)
        if since is not None and not state.is_paused:
            pauses.append((since, now))
            since = None
        if state.is_paused and since is None:
            since = now
        state = state.heard(now, waits, luck)
        if since is not None and not state.is_paused:
            pauses.append((since, now))
            since = None
    assert all(end - begin <= PAUSE_SECONDS + 1e-6 for begin, end in pauses)
    for (begin, end), (following, _) in pairwise(pauses):
        assert following - end >= WORK_FACTOR * (end - begin) - 1e-6


# --- workers -------------------------------------------------------------------------------------------


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Pauses begin when a suspect is heard of."""
    monkeypatch.setattr(_suspects, "SPREAD_SECONDS", 0.0)
    return monkeypatch


async def give_to_the_doomed(jobs: Jobs, job: Job[None]) -> None:
    """A worker that is going to die takes the job, the only one of its task."""
    await jobs.engine.join(a_worker("doomed", lease_seconds=3600.0))
    tasks = {((await job.info()).task, ""): None}
    claimed = (await jobs.engine.claim(ClaimRequest("doomed", 1, tasks))).jobs
    assert [each.id for each in claimed] == [job.id]


async def doom(jobs: Jobs, job: Job[None]) -> None:
    """That worker dies, and its job is suspected of it."""
    await jobs.engine.join(a_worker("doomed", lease_seconds=0.001))

    async def is_rescued() -> bool:
        await jobs.engine.rescue("rescuer")
        return [attempt.outcome for attempt in await job.attempts()][:1] == [AttemptOutcome.LOST]

    await eventually(is_rescued)


async def test_a_busy_worker_runs_empty_for_a_suspect(jobs: Jobs, at_once: pytest.MonkeyPatch) -> None:
    """Jobs follow each other without a gap; the suspect gets its turn, runs alone, and the others go on."""
    active: set[str] = set()
    beside: list[set[str]] = []
    turns, is_over = 0, False

    @jobs.task(max_lost=2)
    async def suspect() -> None:
        beside.append(set(active))
        await asyncio.sleep(0.05)
        beside.append(set(active))

    @jobs.task
    async def busy(name: str, seconds: float) -> None:
        nonlocal turns
        active.add(name)
        await asyncio.sleep(seconds)
        active.remove(name)
        turns += 1
        if not is_over:
            await busy.submit(name, seconds)

    async with jobs:
        job = await suspect.submit()
        await give_to_the_doomed(jobs, job)
        for name, seconds in (("a", 0.02), ("b", 0.03)):
            await busy.submit(name, seconds)
        async with jobs.worker(concurrency=2) as worker:
            await eventually(lambda: turns > 2)
            await doom(jobs, job)
            assert await ended(job) is JobStatus.COMPLETED
            seen = turns
            await eventually(lambda: turns > seen + 2)
            is_over = True
            await eventually(lambda: worker.running == 0)
    assert beside == [set(), set()]


async def test_a_pause_is_over_after_a_while(jobs: Jobs, at_once: pytest.MonkeyPatch) -> None:
    """A worker holds a job that does not end: the suspect must wait, and everybody else need not."""
    at_once.setattr(_suspects, "PAUSE_SECONDS", 0.1)
    let_go, began = asyncio.Event(), asyncio.Event()

    @jobs.task(max_lost=2)
    async def suspect() -> None: ...

    @jobs.task
    async def endless() -> None:
        began.set()
        await let_go.wait()

    @jobs.task
    async def quick() -> None: ...

    async with jobs:
        job = await suspect.submit()
        await give_to_the_doomed(jobs, job)
        async with jobs.worker(concurrency=2):
            first = await endless.submit()
            await set_within(began)
            await doom(jobs, job)
            for _ in range(5):
                assert await ended(await quick.submit()) is JobStatus.COMPLETED
            assert await job.status() is JobStatus.QUEUED
            let_go.set()
            assert await ended(job) is JobStatus.COMPLETED
            assert await ended(first) is JobStatus.COMPLETED


async def test_a_pause_ends_with_its_suspect(jobs: Jobs, at_once: pytest.MonkeyPatch) -> None:
    """A worker pauses for a suspect that is then cancelled: the next job begins long before the pause would end."""
    at_once.setattr(_suspects, "PAUSE_SECONDS", 3600.0)
    let_go, began = asyncio.Event(), asyncio.Event()

    @jobs.task(max_lost=2)
    async def suspect() -> None: ...

    @jobs.task
    async def endless() -> None:
        began.set()
        await let_go.wait()

    @jobs.task
    async def quick() -> None: ...

    async with jobs:
        job = await suspect.submit()
        await give_to_the_doomed(jobs, job)
        async with jobs.worker(concurrency=2) as worker:
            await endless.submit()
            await set_within(began)
            await doom(jobs, job)
            jobs._client.work_arrived()
            await eventually(lambda: worker._fetcher._pausing.begins_at is not None)
            held_up = await quick.submit()
            await eventually(lambda: worker._fetcher._pausing.is_paused)
            assert await held_up.status() is JobStatus.QUEUED
            await job.cancel()
            await quick.submit()
            assert await ended(held_up) is JobStatus.COMPLETED
            let_go.set()
