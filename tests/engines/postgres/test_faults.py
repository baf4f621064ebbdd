"""The server restarts, its backends are terminated, it is away: work goes on, nothing is lost, nothing runs twice."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import asyncpg
import pytest

from lastcall.engines.postgres import PostgresEngine, TransactionConnection, _store, _workers
from lastcall.exceptions import EngineUnavailable
from lastcall.jobs._rows import (
    AttemptEnd,
    ClaimRequest,
    Completed,
    JobQuery,
    NewJob,
    Renewal,
    StepRecord,
    TaskLimits,
    WorkerRow,
)
from lastcall.jobs._state import JobStatus, StepStatus
from tests.support.postgres import Server, private_server

from .support import PATIENCE_SECONDS, opened, query, until

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.slow]

TASKS = {("work", ""): None}
STEP = StepRecord("s", StepStatus.COMPLETED, "1")
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lastcall'"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with private_server() as server:
        yield server


def worker(worker_id: str, lease_seconds: float = 60.0) -> WorkerRow:
    return WorkerRow(worker_id, "host", 1, None, None, None, lease_seconds, 10, None)


async def persist(call: Callable[[], Awaitable[object]]) -> object:
    """As a worker does: while the store is away, again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await call()
        except EngineUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


class Work:
    """Jobs that are submitted, claimed, given a step and completed by two engines, and who did what."""

    def __init__(self, url: str, schema: str) -> None:
        self.url, self.schema = url, schema
        self.submitted: set[str] = set()
        self.unknown: set[str] = set()
        self.ran: Counter[str] = Counter()
        self.stop = asyncio.Event()

    async def submit(self, engine: PostgresEngine) -> None:
        for number in range(100_000):
            if self.stop.is_set():
                return
            ids = [f"{id(engine)}-{number}-{side}" for side in "ab"]
            try:
                await engine.submit([NewJob(job_id, "work", "[]") for job_id in ids])
                self.submitted.update(ids)
            except EngineUnavailable:
                self.unknown.update(ids)
                await asyncio.sleep(0.02)

    async def run(self, engine: PostgresEngine, worker_id: str) -> None:
        """Claim and complete until told to stop and nothing is left."""
        while True:
            try:
                result = await engine.claim(ClaimRequest(worker_id, 5, TASKS))
            except EngineUnavailable:
                await asyncio.sleep(0.02)
                continue
            jobs = result.jobs
            if not jobs and self.stop.is_set():
                return
            for job in jobs:
                self.ran[job.id] += 1
                assert await persist(lambda job=job: engine.record_step(job.id, job.attempt, STEP)) is True
            ends = [AttemptEnd(job.id, job.attempt, Completed("1")) for job in jobs]
            if ends:
                statuses = await persist(lambda ends=ends: engine.finish(ends))
                assert statuses == [JobStatus.COMPLETED] * len(ends)
            else:
                await asyncio.sleep(0.005)

    async def during(self, trouble: Callable[[], Awaitable[None]]) -> None:
        """The work goes on while there is trouble; afterwards everything is done, once."""
        async with (
            opened(self.url, schema=self.schema) as first,
            opened(self.url, schema=self.schema) as second,
        ):
            await first.join(worker("v"))
            await second.join(worker("w"))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.submit(first))
                tasks.create_task(self.run(first, "v"))
                tasks.create_task(self.run(second, "w"))
                await until(lambda: len(self.ran) > 20, "the work to begin")
                await trouble()
                before = len(self.ran)
                await until(lambda: len(self.ran) > before + 20, "the work to go on")
                self.stop.set()
            rows = await first.find(JobQuery(limit=100_000))
        assert {row.status for row in rows} == {JobStatus.COMPLETED}
        assert {row.attempt for row in rows} == {1}
        there = {row.id for row in rows}
        assert self.submitted <= there <= self.submitted | self.unknown
        assert {job_id[:-1] + "a" for job_id in there if job_id.endswith("b")} == {
            job_id for job_id in there if job_id.endswith("a")
        }
        assert self.ran == Counter(there)


async def test_backends_are_terminated(server: Server) -> None:
    """Somebody terminates all our connections, again and again, in the middle of everything."""

    async def trouble() -> None:
        for _ in range(15):
            await query(TERMINATE, url=server.url)
            await asyncio.sleep(0.05)

    await Work(server.url, "terminated").during(trouble)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_the_server_restarts(server: Server, mode: str) -> None:
    """It is stopped in order, or crashes, and comes back."""

    async def trouble() -> None:
        await asyncio.to_thread(server.stop, mode)
        await asyncio.to_thread(server.start)

    await Work(server.url, f"restarted_{mode}").during(trouble)


async def test_a_failover_to_a_promoted_replica() -> None:
    """The primary dies and its replica, which had followed every commit, is promoted: the engines, which know both
    addresses, go on there."""
    with private_server() as primary, private_server(standby_of=primary) as standby:
        await query("ALTER SYSTEM SET synchronous_standby_names = '*'", url=primary.url)
        await query("SELECT pg_reload_conf()", url=primary.url)
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"

        async def trouble() -> None:
            await asyncio.to_thread(primary.stop, "immediate")
            await asyncio.to_thread(standby.promote)

        await Work(url, "failover").during(trouble)


async def test_the_server_is_away(server: Server) -> None:
    """Callers are told so, with what to do; listeners hear of what came afterwards; nobody must do anything."""
    async with opened(server.url, schema="away") as engine, opened(server.url, schema="away") as other:
        await engine.submit([NewJob("before", "work", "[]")])
        news: list[float] = []
        end = engine.listen(lambda: news.append(time.monotonic()))
        await asyncio.to_thread(server.stop, "immediate")
        try:
            for call in (
                engine.submit([NewJob("x", "work", "[]")]),
                engine.get(["before"]),
                engine.overview(),
            ):
                with pytest.raises(EngineUnavailable, match=r"cannot be (used|reached)"):
                    await call
        finally:
            await asyncio.to_thread(server.start)
        assert [row.id for row in await engine.get(["before"])] == ["before"]
        await other.submit([NewJob("after", "work", "[]")])
        heard = len(news)
        await until(lambda: len(news) > heard, "news of it")
        end()


async def test_leases_that_ended_while_the_server_was_away(server: Server) -> None:
    """The server is away for longer than a lease. The first worker to come back takes the others' jobs not at once, so
    that they can renew; one that does not is dead."""
    async with opened(server.url, schema="leases") as engine, opened(server.url, schema="leases") as other:
        await engine.join(worker("v", 0.9))
        await other.join(worker("w", 0.9))
        await other.submit([NewJob("a", "work", "[]")])
        assert len((await other.claim(ClaimRequest("w", 1, TASKS))).jobs) == 1
        await asyncio.to_thread(server.stop, "fast")
        try:
            began = time.monotonic()
            while time.monotonic() < began + 1.2:
                with contextlib.suppress(EngineUnavailable):
                    await engine.renew("v")
                await asyncio.sleep(0.05)
        finally:
            await asyncio.to_thread(server.start)
        await persist(lambda: engine.renew("v"))
        assert await engine.rescue("v") == []
        assert (await other.renew("w")).alive
        rescued: list[str] = []

        async def look() -> None:
            await engine.renew("v")
            rescued.extend(job.id for job in await engine.rescue("v"))

        deadline = time.monotonic() + PATIENCE_SECONDS
        while not rescued:
            assert time.monotonic() < deadline
            await look()
            await asyncio.sleep(0.05)
        assert rescued == ["a"]


async def test_a_worker_that_is_stopped_in_the_middle_of_a_transaction(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim of a limited task holds the lock that all such claims need, and its process is stopped: the server takes
    the lock back after a while, and the others claim. The stopped one, when it goes on, does its work all the same."""
    monkeypatch.setattr(_store, "_IDLE_SECONDS", 0.3)
    limited = {("work", ""): TaskLimits(concurrency=5)}
    async with opened(server.url, schema="stopped") as engine, opened(server.url, schema="stopped") as other:
        await engine.submit([NewJob("a", "work", "[]")])
        await other.join(worker("w"))
        has_lock, goes_on = asyncio.Event(), asyncio.Event()

        async def stop(store: _store.Store) -> str:
            await store.lock_tasks(["work"])
            has_lock.set()
            await goes_on.wait()
            return str(await store.value("SELECT 'done'"))

        stopped = asyncio.create_task(engine._database.transact(stop))
        await has_lock.wait()
        async with asyncio.timeout(
            PATIENCE_SECONDS
        ):  # and not by a lock timeout, which is half of it and an error
            assert [job.id for job in (await other.claim(ClaimRequest("w", 1, limited))).jobs] == ["a"]
        goes_on.set()
        assert await stopped == "done"


async def test_a_users_code_may_take_its_time_in_a_transaction(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of a `ctx.transaction` thinks for longer than the engine itself would ever be idle in one."""
    monkeypatch.setattr(_store, "_IDLE_SECONDS", 0.2)
    async with opened(server.url, schema="thinking") as engine:
        await engine.submit([NewJob("a", "work", "[]")])
        await engine.join(worker("w"))
        await engine.claim(ClaimRequest("w", 1, TASKS))
        calls: list[int] = []

        def think(connection: TransactionConnection) -> str:
            calls.append(1)
            connection.execute("SELECT 1")
            time.sleep(0.6)
            return str(connection.fetchval("SELECT 2"))

        assert await engine.transact("a", 1, STEP, think) == "2"
        assert calls == [1]


async def test_a_worker_that_starts_after_the_server_finds_nobody_dead(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is away for longer than a lease, and a new worker is the first to come after that. It knows nothing of
    it, and leaves the others the time to renew; one that does not use it is dead."""
    monkeypatch.setattr(_workers, "_JUST_UP_SECONDS", PATIENCE_SECONDS)
    async with opened(server.url, schema="just_up") as other:
        await other.join(worker("w", 0.5))
        await other.submit([NewJob("a", "work", "[]")])
        assert len((await other.claim(ClaimRequest("w", 1, TASKS))).jobs) == 1
        await asyncio.to_thread(server.stop, "fast")
        await asyncio.sleep(0.5)  # the lease is over
        await asyncio.to_thread(server.start)
        async with opened(server.url, schema="just_up") as late:
            await late.join(worker("late"))
            assert await late.rescue("late") == []
            renewal = await persist(lambda: other.renew("w"))
            assert isinstance(renewal, Renewal) and renewal.alive
            await asyncio.sleep(0.5)
            monkeypatch.setattr(_workers, "_JUST_UP_SECONDS", 0.0)
            assert [job.id for job in await late.rescue("late")] == ["a"]


async def test_no_connection_is_left(server: Server) -> None:
    """The server gives this user two connections, and the engine wants four: it makes do with what it has. With none
    at all it says so."""
    await query("CREATE ROLE few LOGIN CONNECTION LIMIT 2", url=server.url)
    await query("GRANT CREATE ON DATABASE postgres TO few", url=server.url)
    url = server.url.replace("postgres@", "few@")
    async with opened(url, schema="few") as engine:
        await asyncio.gather(*(engine.submit([NewJob(f"{n}", "work", "[]", key=f"{n}")]) for n in range(20)))
        rows = await asyncio.gather(*(engine.get([f"{n}"]) for n in range(20)))
        assert all(rows)
        with pytest.raises(EngineUnavailable, match="no connection left"):
            await PostgresEngine(url, schema="few").open()


async def test_a_neighbour_that_is_idle_in_a_transaction(server: Server) -> None:
    """Somebody has changed a job by hand and gone for coffee: claims take the others, and ask again for that one."""
    async with opened(server.url, schema="neighbour") as engine:
        await engine.submit([NewJob(job_id, "work", "[]") for job_id in "abc"])
        await engine.join(worker("w"))
        neighbour = await asyncpg.connect(server.url)
        try:
            transaction = neighbour.transaction()
            await transaction.start()
            await neighbour.execute("UPDATE neighbour.job SET priority = 7 WHERE id = 'b'")
            result = await engine.claim(ClaimRequest("w", 10, TASKS))
            assert [job.id for job in result.jobs] == ["a", "c"]
            assert result.next_due_seconds is not None and result.next_due_seconds < 1.0
            await transaction.commit()
            assert [job.id for job in (await engine.claim(ClaimRequest("w", 10, TASKS))).jobs] == ["b"]
        finally:
            await neighbour.close()
