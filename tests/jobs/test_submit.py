"""Submitting: what is written, under which key, when, where, in which order; and finding it again."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from lastcall.exceptions import BadArguments, BadDeclaration, KeyConflict, PayloadTooLarge, UnknownJob
from lastcall.jobs import Backoff, Context, Jobs, JobStatus, Rate
from lastcall.testing import VirtualClock
from tests.jobs.conftest import Store
from tests.jobs.running import eventually

AT_ONCE = Backoff(0)


@dataclass
class Order:
    customer: str
    lines: list[int]


async def test_submit_returns_after_the_commit(jobs: Jobs, store: Store) -> None:
    """A job that was submitted is seen by another process at once."""

    @jobs.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with jobs:
        job = await add.submit(1, 2)
        (row,) = await store.rows()
    assert (row.id, row.task, row.args) == (job.id, "add", '{"a":1,"b":2}')
    assert (row.version, row.queue, row.priority, row.key, row.labels) == ("", "default", 0, None, None)
    assert row.status is JobStatus.QUEUED


async def test_what_is_declared_is_submitted(store: Store) -> None:
    """Every option of a declaration that an engine must know arrives there."""
    jobs = store.jobs()

    @jobs.task(version="2", queue="mail", priority=7, retention=5, max_lost=1, max_attempts=2)
    async def work() -> None: ...

    async with jobs:
        await work.submit()
        (row,) = await store.rows()
        new = work.call().job
    assert (row.version, row.queue, row.priority) == ("2", "mail", 7)
    assert (new.retention_seconds, new.max_lost, new.max_attempts) == (5.0, 1, 2)


async def test_a_job_without_a_task_here_waits(store: Store) -> None:
    """One process submits what only another one can run; a worker without that task leaves it alone."""
    here, there = store.jobs(), store.jobs()

    async def work(a: int) -> int:
        return a

    @there.task
    async def other() -> None: ...

    submitted = here.task(work)
    async with here:
        job = await submitted.submit(1)
        async with there.worker():
            await (await other.submit()).wait(timeout=20)
        assert await job.status() is JobStatus.QUEUED
        able = store.jobs()
        able.task(work)
        async with able.worker():
            assert await job.result(timeout=20) == 1


# --- keys ----------------------------------------------------------------------------------------------


async def test_the_same_key_is_the_same_job(jobs: Jobs, store: Store) -> None:
    """Submitted again, while it waits, after it has run, and by another process: one job, run once."""
    runs: list[int] = []

    @jobs.task
    async def work(a: int, b: int = 0) -> int:
        runs.append(a)
        return a

    keyed = work.options(key="k")
    async with jobs:
        first = await keyed.submit(1, b=2)
        assert (await keyed.submit(b=2, a=1)).id == first.id
        async with jobs.worker():
            assert await first.result(timeout=20) == 1
        again = await keyed.submit(1, 2)
        assert again.id == first.id and await again.result(timeout=20) == 1
        assert (await work.options(key="k").options(priority=9).submit(1, 2)).id == first.id
        assert (await keyed.submit_json({"b": 2, "a": 1})).id == first.id
        other = store.jobs()
        async with other:
            assert (await other.task(work.fn).options(key="k").submit(1, b=2)).id == first.id
        (row,) = await store.rows()
        assert (row.key, row.priority) == ("k", 0)
    assert runs == [1]


async def test_the_same_key_with_other_arguments(jobs: Jobs, store: Store) -> None:
    """The error names the key, the task and the job that has it; nothing was written, and that job is unharmed."""

    @jobs.task
    async def work(a: int) -> None: ...

    async with jobs:
        first = await work.options(key="k").submit(1)
        with pytest.raises(
            KeyConflict, match=f"key 'k' of task 'work' belongs to job {first.id} .queued."
        ) as caught:
            await work.options(key="k").submit(2)
        assert "nothing was submitted" in str(caught.value)
        assert [row.id for row in await store.rows()] == [first.id]


async def test_a_key_belongs_to_its_task(jobs: Jobs, store: Store) -> None:
    """Another task with the same key is another job, also with the same arguments; another version of it is not."""

    async def work(a: int) -> None: ...

    one, two = jobs.task(name="one")(work), jobs.task(name="two")(work)
    newer = jobs.task(name="one", version="2")(work)
    async with jobs:
        ids = {(await task.options(key="k").submit(1)).id for task in (one, two, newer)}
        assert len(ids) == 2 and len(await store.rows()) == 2


async def test_a_key_is_free_after_its_job(jobs: Jobs, store: Store) -> None:
    """It holds as long as the job is kept: after a purge it is anybody's."""

    @jobs.task
    async def work(a: int) -> None: ...

    async with jobs:
        first = await work.options(key="k").submit(1)
        await first.cancel()
        with pytest.raises(KeyConflict, match="cancelled"):
            await work.options(key="k").submit(2)
        await first.purge()
        second = await work.options(key="k").submit(2)
        assert second.id != first.id
        assert [row.id for row in await store.rows()] == [second.id]


async def test_one_key_twice_in_submit_many(jobs: Jobs, store: Store) -> None:
    """The same call twice is one job with two handles; with other arguments all of it is refused."""

    @jobs.task
    async def work(a: int) -> None: ...

    keyed = work.options(key="k")
    async with jobs:
        first, second, third = await jobs.submit_many([keyed.call(1), keyed.call(1), work.call(1)])
        assert first.id == second.id != third.id
        with pytest.raises(KeyConflict, match="'k'"):
            await jobs.submit_many([work.call(5), keyed.call(2)])
        fresh = work.options(key="fresh")
        with pytest.raises(KeyConflict, match="'fresh'"):
            await jobs.submit_many([work.call(6), fresh.call(1), fresh.call(2)])
        assert {row.id for row in await store.rows()} == {first.id, third.id}


async def test_a_key_holds_among_many_submitters(store: Store) -> None:
    """Two processes submit the same thing at the same time, many times: one job."""
    here, there = store.jobs(), store.jobs()

    async def work(a: int) -> None: ...

    tasks = [jobs.task(work).options(key="k") for jobs in (here, there)]
    async with here, there:
        found = await asyncio.gather(*(task.submit(1) for _ in range(20) for task in tasks))
    assert len({job.id for job in found}) == 1 and len(await store.rows()) == 1


# --- many ----------------------------------------------------------------------------------------------


async def test_submit_many_is_in_order(jobs: Jobs, store: Store) -> None:
    """Calls of several tasks, from a generator, in one transaction: the handles stand in the order of the calls."""

    @jobs.task
    async def double(a: int) -> int:
        return a * 2

    @jobs.task
    def shout(a: str) -> str:
        return a.upper()

    async with jobs.worker(concurrency=3):
        numbers = await jobs.submit_many(double.call(n) for n in range(50))
        assert [await job.result(timeout=20) for job in numbers] == [n * 2 for n in range(50)]
        mixed = await jobs.submit_many([double.call(1), shout.call("a")])
        assert [await job.result(timeout=20) for job in mixed] == [2, "A"]
        assert await jobs.submit_many([]) == []


async def test_a_call_is_a_value(jobs: Jobs, store: Store) -> None:
    """Submitted twice, in one go and in two, it is two jobs."""

    @jobs.task
    async def work(a: int) -> int:
        return a

    call = work.call(1)
    async with jobs:
        submitted = await jobs.submit_many([call, call])
        submitted += await jobs.submit_many([call])
        assert len({job.id for job in submitted}) == 3 == len(await store.rows())


@pytest.mark.parametrize("count", [1, 2])
async def test_one_bad_call_among_many(store: Store, count: int) -> None:
    """What is no call of a task declared here: refused, and the others are not submitted either."""
    jobs, others = store.jobs(), store.jobs()

    async def work(a: int) -> None: ...

    task, foreign = jobs.task(work), others.task(work)
    for bad in (foreign.call(1), task, 5, None, ("work", 1), task.call(1).job):
        calls: list[Any] = [task.call(1)] * (count - 1)
        with pytest.raises(BadArguments, match="calls of tasks declared on these jobs"):
            await jobs.submit_many([*calls, bad])
    coroutine = task.submit(1)
    with pytest.raises(BadArguments, match="calls of tasks"):
        await jobs.submit_many([coroutine])  # type: ignore[list-item]
    coroutine.close()
    await jobs.close()
    assert await store.is_empty()


# --- when ----------------------------------------------------------------------------------------------

NOW = VirtualClock().wall()
NOW_UTC = datetime.fromtimestamp(NOW, UTC)


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize(
    ("options", "due_at"),
    [
        ({"delay": 60}, NOW + 60),
        ({"delay": 0.5}, NOW + 0.5),
        ({"delay": 0}, None),
        ({"at": NOW_UTC + timedelta(hours=1)}, NOW + 3600),
        ({"at": (NOW_UTC + timedelta(hours=1)).replace(tzinfo=None)}, NOW + 3600),
        ({"at": (NOW_UTC + timedelta(hours=1)).astimezone(timezone(timedelta(hours=-9)))}, NOW + 3600),
        ({"at": NOW_UTC}, None),
        ({"at": NOW_UTC - timedelta(days=1)}, None),
        ({"at": datetime.min}, None),
        ({"at": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))}, None),
        ({"at": datetime.max}, 253402300800 - 1e-6),
        (
            {"at": datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))},
            253402300800 + 12 * 3600 - 1e-6,
        ),
    ],
    ids=str,
)
async def test_delay_and_at(store: Store, options: dict[str, Any], due_at: float | None) -> None:
    """Seconds from now by the engine's clock, or a moment: naive is UTC. What is past is due at once."""
    jobs = store.jobs(VirtualClock())

    @jobs.task
    async def work() -> None: ...

    async with jobs:
        info = await (await work.options(**options).submit()).info()
    assert info.status is (JobStatus.QUEUED if due_at is None else JobStatus.SCHEDULED)
    assert info.due_at == (None if due_at is None else pytest.approx(due_at, abs=1e-3))


async def test_a_delayed_job_runs_when_its_time_has_come(store: Store) -> None:
    """Not a second before it is due, and then as soon as anybody looks."""
    clock = VirtualClock()
    jobs = store.jobs(clock)

    @jobs.task
    async def work() -> str:
        return "ran"

    async with jobs.worker():
        later = await work.options(delay=60).submit()
        clock.advance(59.9)
        assert await (await work.submit()).result(timeout=20) == "ran"
        assert await later.status() is JobStatus.SCHEDULED
        clock.advance(0.2)
        await work.submit()
        assert await later.result(timeout=20) == "ran"
        assert (await later.info()).due_at is None


async def test_a_short_delay_in_real_time(jobs: Jobs) -> None:
    """Nobody pokes the worker: it wakes by itself."""

    @jobs.task
    async def work() -> float:
        return time.time()

    async with jobs.worker():
        before = time.time()
        ran = await (await work.options(delay=0.3).submit()).result(timeout=20)
    assert 0.3 <= ran - before < 4  # the worker asks by itself every 5 s


async def test_delay_and_at_exclude_each_other(jobs: Jobs) -> None:
    """In one call that is an error; in a chain the later one takes the place of the earlier."""

    @jobs.task
    async def work() -> None: ...

    with pytest.raises(BadDeclaration, match="options of 'work': delay and at exclude each other"):
        work.options(delay=5, at=NOW_UTC)
    job = work.options(delay=5).options(at=NOW_UTC).call().job
    assert (job.delay_seconds, job.due_at) == (None, NOW)
    job = work.options(at=NOW_UTC).options(delay=5).call().job
    assert (job.delay_seconds, job.due_at) == (5.0, None)


# --- order and place -----------------------------------------------------------------------------------


async def test_higher_priority_first_then_the_older(jobs: Jobs) -> None:
    """Declared or given with one submission; negative ones come last."""
    ran: list[str] = []

    @jobs.task(priority=1)
    async def work(name: str) -> None:
        ran.append(name)

    async with jobs:
        submitted = [
            await work.options(priority=priority).submit(name)
            if priority is not None
            else await work.submit(name)
            for name, priority in [("e", -5), ("c", None), ("a", 10), ("d", 0), ("b", 10), ("c2", 1)]
        ]
        async with jobs.worker(concurrency=1):
            for job in submitted:
                await job.wait(timeout=20)
    assert ran == ["a", "b", "c", "c2", "d", "e"]


async def test_a_worker_takes_its_queues_only(jobs: Jobs, store: Store) -> None:
    """A job may be put into another queue than its task's; a queue that nobody serves keeps its jobs."""

    @jobs.task(queue="mail")
    async def work() -> None: ...

    async with jobs:
        mail = await work.submit()
        slow = await work.options(queue="slow").submit()
        lost = await work.options(queue="nobody's").submit()
        async with jobs.worker(queues=["slow", "empty"]):
            await slow.wait(timeout=20)
            assert await mail.status() is JobStatus.QUEUED
            async with store.jobs().worker(queues=["mail"]):
                pass  # another process, which does not know the task
            assert await mail.status() is JobStatus.QUEUED
        async with jobs.worker(queues={"mail"}):
            await mail.wait(timeout=20)
        assert await lost.status() is JobStatus.QUEUED
        counts = (await jobs.overview()).counts
    assert counts["nobody's", JobStatus.QUEUED] == 1
    assert counts["mail", JobStatus.COMPLETED] == counts["slow", JobStatus.COMPLETED] == 1


# --- limits --------------------------------------------------------------------------------------------


async def check_one_at_a_time(jobs: Jobs, first: Any, same: Any, other: Any, gate: asyncio.Event) -> None:
    """`first` runs until the gate opens; `same` must wait for it, `other`, which came later, need not."""
    async with jobs.worker(concurrency=10):
        held = await first()
        waiting = await same()
        free = await other()
        await free.wait(timeout=20)
        assert await held.status() is JobStatus.RUNNING
        assert await waiting.status() is JobStatus.QUEUED
        gate.set()
        await held.wait(timeout=20)
        await waiting.wait(timeout=20)


@pytest.mark.parametrize("by", ["name", "function", "function of all"])
async def test_concurrency_by_key(jobs: Jobs, by: str) -> None:
    """At most one job at once for the value of a parameter, or for what a function makes of the arguments."""
    gate = asyncio.Event()
    key: Any = {
        "name": "customer",
        "function": lambda customer, lines: customer,
        "function of all": lambda customer, *, lines=0: f"{customer} {0 * lines}",
    }[by]

    async def work(ctx: Context, customer: str, *, lines: int = 0) -> None:
        if lines == 1:
            await gate.wait()

    async def positional(ctx: Context, customer: str, lines: int = 0) -> None:
        if lines == 1:
            await gate.wait()

    task = jobs.task(concurrency_key=key)(positional if by == "function" else work)
    await check_one_at_a_time(
        jobs,
        lambda: task.submit("ann", lines=1),
        lambda: task.submit("ann"),
        lambda: task.submit(customer="bob", lines=2),
        gate,
    )


async def test_a_key_of_concurrency_from_validated_arguments(jobs: Jobs) -> None:
    """The function sees what the task would see, whatever the caller gave: here a dict in place of an Order."""

    @jobs.task(concurrency_key=lambda order: order.customer, concurrency_per_key=3)
    async def work(order: Order) -> None: ...

    given: Any = {"customer": "ann", "lines": ["5"]}
    job = work.call(given).job
    assert (job.limit_key, job.limit) == ("work:ann", 3)
    assert work.call(Order("ann", [])).job.limit_key == "work:ann"


async def test_concurrency_by_key_of_jobs_submitted_as_json(jobs: Jobs) -> None:
    """A job that came by HTTP counts like any other."""
    gate = asyncio.Event()

    @jobs.task(concurrency_key="customer")
    async def work(customer: str, wait: bool = False) -> None:
        if wait:
            await gate.wait()

    await check_one_at_a_time(
        jobs,
        lambda: work.submit("ann", wait=True),
        lambda: work.submit_json({"customer": "ann"}),
        lambda: work.submit_json({"customer": "bob"}),
        gate,
    )


async def test_a_key_of_concurrency_that_fails(jobs: Jobs, store: Store) -> None:
    """The function raises, or makes something of no use: the error names the task, and nothing is written."""

    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    keys: list[Any] = [lambda a: {}[a], lambda: 1, lambda a: Unprintable(), lambda a: "\udce9"]
    async with jobs:
        for n, key in enumerate(keys):

            @jobs.task(name=f"work {n}", concurrency_key=key)
            async def work(a: int) -> None: ...

            with pytest.raises(BadArguments, match=f"concurrency_key of task 'work {n}' has failed"):
                await work.submit(1)
            with pytest.raises(BadArguments, match=f"concurrency_key of task 'work {n}' has failed"):
                await work.submit_json({"a": 1})
    assert await store.is_empty()


async def test_wrong_arguments_are_told_before_the_key_is_asked_for(jobs: Jobs) -> None:
    """The function that makes the key is never called with what does not fit."""

    @jobs.task(concurrency_key=lambda a: 1 / a)
    async def work(a: int) -> None: ...

    with pytest.raises(BadArguments, match="wrong arguments for .*work"):
        work.call("x")  # type: ignore[arg-type]


# --- one submission's own options ----------------------------------------------------------------------


async def test_retries_of_one_submission(jobs: Jobs) -> None:
    """More or fewer than declared, for this job alone."""

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> None:
        raise ValueError(f"attempt {ctx.attempt}")

    async with jobs.worker():
        for given, attempts in ((None, 2), (0, 1), (3, 4)):
            job = await work.options(retries=given).submit()
            info = await job.wait(timeout=20)
            assert (info.status, info.attempt, info.failures) == (JobStatus.FAILED, attempts, attempts)


async def test_a_timeout_of_one_submission(jobs: Jobs) -> None:
    """Shorter than declared, for this job alone."""

    @jobs.task(timeout=60)
    async def work() -> None:
        await asyncio.Event().wait()

    async with jobs.worker():
        info = await (await work.options(timeout=0.05).submit()).wait(timeout=20)
    assert info.status is JobStatus.FAILED and info.error is not None
    assert info.error["type"] == "TimeoutError"


async def test_retention_of_one_submission(store: Store) -> None:
    """A job is deleted when its own retention is over, which differs from the declared one."""
    clock = VirtualClock()
    jobs = store.jobs(clock)

    @jobs.task(retention=1000)
    async def work() -> None: ...

    async with jobs:
        async with jobs.worker():
            kept = await work.submit()
            brief = await work.options(retention=10).submit()
            for job in (kept, brief):
                await job.wait(timeout=20)
        clock.advance(11)
        assert await jobs.engine.prune(100) == 1
        with pytest.raises(UnknownJob, match=brief.id):
            await brief.status()
        assert await kept.status() is JobStatus.COMPLETED
        clock.advance(1000)
        assert await jobs.engine.prune(100) == 1


async def test_options_change_no_task(jobs: Jobs) -> None:
    """`options` makes another task; the one that was declared stays what it is."""

    @jobs.task(priority=1)
    async def work() -> None: ...

    work.options(key="k", priority=5, queue="q", delay=5, labels={"a": "b"})
    job = work.call().job
    assert (job.key, job.priority, job.queue, job.delay_seconds, job.labels) == (
        None,
        1,
        "default",
        None,
        None,
    )
    chained = work.options(key="k", priority=5).options(priority=0, queue="q").call().job
    assert (chained.key, chained.priority, chained.queue) == ("k", 0, "q")
    assert set(jobs.tasks) == {("work", "")} and jobs.task_named("work") is work


# --- size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["a", "ä", "𝒳", "\x00", '"'])
async def test_arguments_exactly_at_the_limit(store: Store, letter: str) -> None:
    """So many bytes of JSON as are allowed, and one more: counted as they are stored, whatever the letters."""
    jobs = store.jobs(max_payload_bytes=1000)

    @jobs.task
    async def work(a: str, b: str) -> None: ...

    one = len(work.call(letter, "").job.args.encode()) - len(work.call("", "").job.args.encode())
    room = 1000 - len(work.call("", "").job.args.encode())
    letters, rest = letter * (room // one), "b" * (room % one)
    async with jobs:
        job = await work.submit(letters, rest)
        assert len((await store.rows())[0].args.encode()) == 1000
        assert (await job.info()).args == {"a": letters, "b": rest}
        for refused in (
            lambda: work.submit(letters, rest + "b"),
            lambda: work.submit(letters + letter, rest),
        ):
            with pytest.raises(PayloadTooLarge, match=r"the arguments of 'work': \d+ bytes .* at most 1000 "):
                await refused()
        with pytest.raises(PayloadTooLarge, match="1001 bytes"):
            await work.submit_json({"a": letters, "b": rest + "b"})
        with pytest.raises(PayloadTooLarge):
            await jobs.submit_many([work.call("", ""), work.call(letters, rest + "b")])
        assert len(await store.rows()) == 1


async def test_the_default_limit_is_a_mebibyte(jobs: Jobs, store: Store) -> None:
    """A large argument just fits, comes back as it was, and one letter more does not."""

    @jobs.task
    async def work(a: str) -> int:
        return len(a)

    text = "x" * (2**20 - len('{"a":""}'))
    async with jobs.worker():
        assert await (await work.submit(text)).result(timeout=20) == len(text)
        with pytest.raises(PayloadTooLarge, match=str(2**20 + 1)):
            await work.submit(text + "x")


async def test_odd_characters_survive(jobs: Jobs, store: Store) -> None:
    """Zero bytes, quotes, newlines, the end of a line in JavaScript, and what is beyond 16 bits."""
    text = "\x00\x01\n\r\t\"'\\\u2028\ufeff\uffff\U0010ffff %s {} ; DROP TABLE lastcall_job --"

    @jobs.task(name="häß 𝒳")
    async def work(a: str, b: bytes) -> tuple[str, bytes]:
        return (a, b)

    async with jobs.worker():
        job = await work.options(key="ключ 𝒳", queue="очередь", labels={"имя 𝒳": "'\" ; 𝒳"}).submit(
            text, bytes(range(256))
        )
        assert await job.result(timeout=20) == (text, bytes(range(256)))
        info = await job.info()
        assert (info.task, info.key, info.queue) == ("häß 𝒳", "ключ 𝒳", "очередь")
        assert info.labels == {"имя 𝒳": "'\" ; 𝒳"}
        (found,) = await jobs.find(label=("имя 𝒳", "'\" ; 𝒳"), task="häß 𝒳", key="ключ 𝒳", queue="очередь")
        assert found == info


# --- finding -------------------------------------------------------------------------------------------


async def test_find_by_everything(jobs: Jobs) -> None:
    """Each filter alone, and all together; newest first."""

    async def work(a: int) -> None: ...

    one, two = jobs.task(name="one")(work), jobs.task(name="two", queue="q")(work)
    async with jobs:
        a = await one.options(key="k", labels={"tenant": "x", "kind": "a"}).submit(1)
        b = await two.options(key="k", labels={"tenant": "x"}).submit(1)
        c = await one.options(labels={"tenant": "y", "x": "tenant"}).submit(2)
        d = await two.options(delay=100).submit(2)
        await c.cancel()

        async def ids(**filters: Any) -> str:
            names = {a.id: "a", b.id: "b", c.id: "c", d.id: "d"}
            return "".join(names[info.id] for info in await jobs.find(**filters))

        assert await ids() == "dcba"
        assert await ids(task="one") == "ca" and await ids(task="none") == ""
        assert await ids(task_part="W") == await ids(task_part="two") == "db"
        assert (
            await ids(task_part="o") == "dcba" and await ids(task_part="%") == await ids(task_part="_") == ""
        )
        assert (
            await ids(task_part="wo", task="one") == ""
            and await ids(task_part="o", status="cancelled") == "c"
        )
        assert await ids(queue="q") == "db"
        assert await ids(key="k") == "ba" and await ids(key="K") == ""
        assert await ids(label=("tenant", "x")) == "ba"
        assert await ids(label=("x", "tenant")) == "c"
        assert await ids(label=("tenant", "")) == await ids(label=("$.tenant", "x")) == ""
        assert await ids(status="scheduled") == "d" and await ids(status=JobStatus.CANCELLED) == "c"
        assert await ids(status=["queued", JobStatus.SCHEDULED]) == "dba"
        assert await ids(status=[]) == ""
        assert await ids(parent=a.id) == ""
        assert await ids(task="two", queue="q", key="k", status="queued", label=("tenant", "x")) == "b"
        assert await ids(limit=2) == "dc"
        assert await ids(before=c.id) == "ba" and await ids(before=a.id) == ""
        assert await ids(before=d.id, task="one", limit=1) == "c"


async def test_paging_shows_each_job_once(jobs: Jobs) -> None:
    """Pages of three over ten jobs of one transaction, whose times of submission are the same."""

    @jobs.task
    async def work(n: int) -> None: ...

    async with jobs:
        submitted = await jobs.submit_many(work.call(n) for n in range(10))
        found: list[str] = []
        while page := await jobs.find(limit=3, before=found[-1] if found else None):
            assert len(page) <= 3
            found += [info.id for info in page]
            await work.submit(-1)  # what is submitted meanwhile disturbs no page
    assert found == [job.id for job in reversed(submitted)]


@pytest.mark.parametrize(
    ("filters", "error", "told"),
    [
        ({"status": "done"}, ValueError, "done"),
        ({"status": ["queued", "done"]}, ValueError, "done"),
        ({"limit": 0}, BadDeclaration, "limit"),
        ({"limit": -1}, BadDeclaration, "limit"),
        ({"limit": 10**30}, BadDeclaration, "limit"),
        ({"limit": 1.5}, BadDeclaration, "limit"),
        ({"label": "ab"}, BadDeclaration, "label"),
        ({"label": ("a",)}, BadDeclaration, "label"),
        ({"label": ("\ud800", "a")}, BadDeclaration, "label"),
        ({"label": ("a", None)}, BadDeclaration, "label"),
        ({"task": "\ud800"}, BadDeclaration, "task"),
        ({"task_part": "\ud800"}, BadDeclaration, "task_part"),
        ({"queue": b"q"}, BadDeclaration, "queue"),
        ({"key": ["k"]}, BadDeclaration, "key"),
        ({"parent": 10**30}, BadDeclaration, "parent"),
        ({"label": ("a", 1)}, BadDeclaration, "label"),
        ({"label": ("a", "b", "c")}, BadDeclaration, "label"),
        ({"before": "x"}, UnknownJob, "'x' is no job id"),
        ({"before": 5}, UnknownJob, "5 is no job id"),
        ({"before": "01900000-0000-7000-8000-000000000000"}, UnknownJob, "there is no job"),
    ],
    ids=str,
)
@pytest.mark.loops("asyncio")
async def test_impossible_questions(
    jobs: Jobs, filters: dict[str, Any], error: type[Exception], told: str
) -> None:
    """The error names what is wrong; an empty answer would look like the end of the list."""
    async with jobs:
        with pytest.raises(error, match=told):
            await jobs.find(**filters)


async def test_labels_that_are_none(jobs: Jobs, store: Store) -> None:
    """Labels are texts by texts; the error names the one that is not."""

    @jobs.task
    async def work() -> None: ...

    bad: list[Any] = [
        "a", [("a", "b")], 5, {"": "a"}, {5: "a"}, {"a": 5}, {"a": None}, {"a\x00": "b"}, {"a": "\ud800"},
        {"a": "x" * 1001}, {"x" * 201: "a"},
    ]  # fmt: skip
    for labels in bad:
        with pytest.raises(BadDeclaration, match="options of 'work': .*label"):
            work.options(labels=labels)
    async with jobs:
        job = await work.options(labels={"a": "", "b": "x" * 1000}).submit()
        assert (await job.info()).labels == {"a": "", "b": "x" * 1000}
        assert [info.id for info in await jobs.find(label=("a", ""))] == [job.id]
        assert (await (await work.options(labels={}).submit()).info()).labels == {}


# --- limits over all workers ---------------------------------------------------------------------------


async def test_concurrency_of_a_task_over_all_workers(store: Store) -> None:
    """Two processes with many free slots: of a task with `concurrency=2` two jobs run, and the rest waits."""
    gate = asyncio.Event()
    here, there = store.jobs(), store.jobs()

    async def work(n: int) -> None:
        await gate.wait()

    async def free() -> None: ...

    tasks = [jobs.task(concurrency=2)(work) for jobs in (here, there)]
    others = [jobs.task(free) for jobs in (here, there)]
    async with here.worker(), there.worker():
        submitted = await here.submit_many(tasks[0].call(n) for n in range(5))
        for other in (*others, *others):
            await (await other.submit()).wait(timeout=20)
        await eventually(lambda: here_and_there_run(here, 2))
        counts = (await here.overview()).counts
        assert counts["default", JobStatus.RUNNING] == 2 and counts["default", JobStatus.QUEUED] == 3
        gate.set()
        for job in submitted:
            assert (await job.wait(timeout=20)).status is JobStatus.COMPLETED


async def here_and_there_run(jobs: Jobs, count: int) -> bool:
    return (await jobs.overview()).counts.get(("default", JobStatus.RUNNING), 0) >= count


async def test_a_rate_over_all_workers(store: Store) -> None:
    """Three begin per hour, over both processes; the fourth waits until the bucket has filled up again."""
    clock = VirtualClock()
    here, there = store.jobs(clock), store.jobs(clock)

    async def work(n: int) -> None: ...

    async def free() -> None: ...

    tasks = [jobs.task(rate=Rate(3, seconds=3600))(work) for jobs in (here, there)]
    others = [jobs.task(free) for jobs in (here, there)]

    async def completed() -> int:
        return len(await here.find(task="work", status="completed"))

    async def at_least(count: int) -> bool:
        return await completed() >= count

    async def comes_to(count: int) -> None:
        """So many complete, and then no more, although both workers look for work again and again."""
        for other in (*others, *others):
            await (await other.submit()).wait(timeout=20)
        await eventually(lambda: at_least(count))
        for other in (*others, *others):
            await (await other.submit()).wait(timeout=20)
        assert await completed() == count

    async with here.worker(), there.worker():
        for n in range(6):
            await tasks[n % 2].submit(n)
        await comes_to(3)
        clock.advance(1201)
        await comes_to(4)
        clock.advance(100 * 3600)
        await comes_to(6)
