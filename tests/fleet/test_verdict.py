"""The verdict sees what it is for: each fault is planted into a run without one, into what was seen or the database."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bench.fleet.plan import Options
from bench.fleet.stores import write_to_postgres
from bench.fleet.verdict import KINDS, Played, Verdict, judge
from bench.fleet.work import FleetWork
from lastcall.jobs import AttemptOutcome, Job, Jobs, JobStatus
from tests.jobs.crash import ledger
from tests.jobs.crash.checker import Facts, look_into
from tests.jobs.crash.ledger import Ledger, Line
from tests.support.postgres import shared_url

pytestmark = pytest.mark.slow

SCHEMA = "fleet_verdict"
TABLE = (
    "CREATE TABLE IF NOT EXISTS public.effects (job text, step text, attempt int); TRUNCATE public.effects"
)
TICKS = (1_800_000_000, 1_800_000_005, 1_800_000_010)
RELEASES = 2


# --- a run without a fault -----------------------------------------------------------------------------


class Undisturbed:
    """A few jobs of each kind on one worker in this process, which nobody attacks."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ledger"
        self._ledger = Ledger(self._path)
        self.jobs = Jobs(f"{shared_url()}?schema={SCHEMA}")
        self.work = FleetWork(self.jobs, self._ledger, str(self._path), write_to_postgres, RELEASES)
        self.work.ticking.settings = self.work.ticking.settings._replace(cron=None)
        self._elsewhere = Jobs(f"{shared_url()}?schema={SCHEMA}")
        self._unknown = self._elsewhere.task(name="unknown")(_unknown)
        self.seen: dict[str, list[list[int]]] = {}

    async def run(self) -> Played:
        await _execute(TABLE, f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        self._ledger.write("boot", f"r{RELEASES - 1} near direct")
        work = self.work
        async with self.jobs, self._elsewhere, self.jobs.worker(concurrency=20):
            calls = [
                work.rich.call(7), work.plain.call(3, 4, 0.0), work.bank.call(), work.talk.call(5),
                work.limited.call(0), work.limited.call(0), work.limited.call(1), work.failing.call(1),
                work.release[0].call(1), work.release[1].call(1), work.new_in[1].call(4),
            ]  # fmt: skip
            listed = [self._submitted(job) for job in await self.jobs.submit_many(calls)]
            readers = [asyncio.create_task(self._read(job)) for job in listed[:4]]
            for tick in TICKS:
                listed.append(await work.ticking.options(key=f"cron {tick}").submit())
            for _ in range(2):
                listed.append(await work.once_a_key.options(key="key 1").submit(9))
                self._ledger.write("keyed", "key 1", listed[-1].id)
            listed.append(await work.order.options(key="order 1").submit(2))
            self._ledger.write("ordered", "order 1", listed[-1].id)
            self._submitted(await self._unknown.submit())
            await listed[0].send("early", "first word")
            await listed[0].send("late", "second word")
            for cancelled in await self._cancelled():
                await cancelled.wait(30)
            for job in listed:
                await job.wait(30)
            await asyncio.gather(*readers)
        return await self.look()

    async def look(self) -> Played:
        """What the ledger and the store say now."""
        async with self.jobs:
            facts = await look_into(self.jobs.engine, await _rows())
        lines = ledger.read(self._path)
        options, orders = Options(seed=7, seconds=1.0, workers=1), ["order 1"]
        return Played(
            options,
            [],
            [],
            Counter(),
            1.0,
            0.0,
            lines,
            facts,
            orders,
            self.seen,
            0,
            Counter({"in order": 1}),
            [],
        )

    def _submitted(self, job: Job[Any]) -> Job[Any]:
        self._ledger.write("submitted", "", job.id)
        return job

    async def _cancelled(self) -> list[Job[Any]]:
        """One while it waits, one while it runs."""
        waiting = self._submitted(await self.work.waiting.submit(1))
        while await waiting.status() is not JobStatus.WAITING:
            await asyncio.sleep(0.01)
        running = self._submitted(await self.work.plain.submit(1, 500, 0.01))
        while not ledger.having(ledger.read(self._path), "start", job=running.id):
            await asyncio.sleep(0.01)
        for job in (waiting, running):
            self._ledger.write("cancel", str(await job.cancel()), job.id)
        return [waiting, running]

    async def _read(self, job: Job[Any]) -> None:
        self.seen[job.id] = [[event.seq async for event in job.events()]]


async def _unknown() -> None:
    raise AssertionError("no worker knows this task")


async def _execute(*statements: str) -> None:
    connection = await asyncpg.connect(shared_url())
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def _rows() -> dict[str, dict[str, int]]:
    connection = await asyncpg.connect(shared_url())
    found: dict[str, dict[str, int]] = {}
    for job, step, count in await connection.fetch(
        "SELECT job, step, count(*) FROM effects GROUP BY job, step"
    ):
        found.setdefault(job, {})[step] = count
    await connection.close()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Undisturbed, Played]]:
    run = Undisturbed(tmp_path_factory.mktemp("fleet"))
    yield run, asyncio.run(run.run())
    run._ledger.close()
    asyncio.run(_execute("DROP TABLE public.effects", f"DROP SCHEMA {SCHEMA} CASCADE"))


# --- what is planted into what was seen ----------------------------------------------------------------


class Run:
    """A run that can be tampered with."""

    def __init__(self, played: Played) -> None:
        seen = {job: [list(one) for one in readers] for job, readers in played.seen.items()}
        lines, facts = list(played.lines), list(played.facts)
        orders = list(played.orders)
        self.played = played._replace(lines=lines, facts=facts, orders=orders, seen=seen, bad_exits=[])

    @property
    def verdict(self) -> Verdict:
        return judge(self.played)

    def of(self, task: str, status: JobStatus | None = None) -> Facts:
        """The first job of a task."""
        facts = [fact for fact in self.played.facts if fact.job.task == task]
        return next(fact for fact in facts if status in (None, fact.job.status))

    def replace(self, old: Facts, **fields: Any) -> None:
        self.played.facts[self.played.facts.index(old)] = old._replace(**fields)

    def tell(self, what: str, job: str, key: str = "", attempt: int = 0, at: float | None = None) -> None:
        last = self.played.lines[-1]
        self.played.lines.append(Line(last.at if at is None else at, last.pid, job, attempt, key, what))


def lose_a_job(run: Run) -> None:
    run.tell("submitted", "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")


def leave_one_waiting(run: Run) -> None:
    fact = run.of("rich")
    run.replace(fact, job=fact.job._replace(status=JobStatus.WAITING))


def change_a_result(run: Run) -> None:
    fact = run.of("bank")
    run.replace(fact, job=fact.job._replace(result="3"))


def answer_with_the_old_code(run: Run) -> None:
    fact = next(fact for fact in run.played.facts if fact.job.version == "r1")
    run.replace(fact, job=fact.job._replace(result="0"))


def repeat_a_completed_step(run: Run) -> None:
    run.tell("start", run.of("rich").job.id, "side 1", run.of("rich").job.attempt)


def write_a_row_twice(run: Run) -> None:
    run.replace(run.of("bank"), rows={**run.of("bank").rows, "row 2": 2})


def write_a_row_and_forget_it(run: Run) -> None:
    fact = run.of("bank")
    run.replace(fact, steps=[step for step in fact.steps if step.key != "row 1"])


def lose_an_attempt_for_nothing(run: Run) -> None:
    fact = run.of("rich")
    run.replace(
        fact,
        attempts=[fact.attempts[0]._replace(outcome=AttemptOutcome.LOST, reason=None), *fact.attempts[1:]],
    )


def charge_a_stop(run: Run) -> None:
    fact = run.of("plain")
    run.replace(fact, job=fact.job._replace(failures=1))


def accept_a_stale_step(run: Run) -> None:
    fact = run.of("rich")
    stale = fact.steps[0]._replace(ended_at=(fact.attempts[0].ended_at or 0.0) + 600.0)
    run.replace(fact, steps=[stale, *fact.steps[1:]])


def accept_a_stale_event(run: Run) -> None:
    """Its time is as it should be, and its place in the log is not."""
    fact = run.of("rich")
    last = fact.events[-1]
    stale = last._replace(seq=last.seq + 1, attempt=1, type="step", at=fact.events[0].at)
    run.replace(fact, events=[*fact.events, stale])


def begin_after_the_lease(run: Run) -> None:
    fact = run.of("rich")
    run.tell("start", fact.job.id, "late", 1, (fact.attempts[0].ended_at or 0.0) + 60.0)


def skip_an_event(run: Run) -> None:
    fact = run.of("rich")
    run.replace(fact, events=[*fact.events[:3], *fact.events[4:]])


def tell_a_reader_twice(run: Run) -> None:
    seen = run.played.seen[run.of("talk").job.id][0]
    seen.insert(3, seen[2])


def leave_a_reader_behind(run: Run) -> None:
    run.played.seen[run.of("talk").job.id][0].pop()


def say_a_word_twice(run: Run) -> None:
    fact = run.of("talk")
    place = next(n for n, event in enumerate(fact.events) if event.type == "stream.text")
    said = json.loads(fact.events[place].data)
    again = fact.events[place]._replace(data=json.dumps({**said, "text": 2 * said["text"]}))
    run.replace(fact, events=[*fact.events[:place], again, *fact.events[place + 1 :]])


def ignore_a_cancel(run: Run) -> None:
    run.tell("cancel", run.of("bank").job.id, "cancelled")


def cancel_unasked(run: Run) -> None:
    fact = run.of("bank")
    run.replace(fact, job=fact.job._replace(status=JobStatus.CANCELLED))


def go_on_after_a_cancel(run: Run) -> None:
    """It had been told, and began steps for a minute more; in the end it is cancelled all the same."""
    fact = run.of("plain", JobStatus.CANCELLED)
    until = run.played.lines[-1].at + 60.0
    run.tell("start", fact.job.id, "step 499", 1, until)
    ended = [attempt._replace(ended_at=until + 1.0) for attempt in fact.attempts]
    run.replace(fact, job=fact.job._replace(ended_at=until + 1.0), attempts=ended)


def run_an_unknown_task(run: Run) -> None:
    fact = run.of("unknown")
    run.replace(fact, job=fact.job._replace(attempt=1), attempts=[run.of("bank").attempts[0]])


def run_new_code_on_an_old_worker(run: Run) -> None:
    run.played.lines[:] = [
        line._replace(key="r0 near direct") if line.what == "boot" else line for line in run.played.lines
    ]


def give_a_key_to_two(run: Run) -> None:
    run.tell("keyed", run.of("bank").job.id, "key 1")


def lose_a_row_of_the_user(run: Run) -> None:
    run.played.orders.clear()


def submit_what_was_undone(run: Run) -> None:
    run.tell("undone", run.of("order").job.id, "order 1")


def miss_a_tick(run: Run) -> None:
    run.played.facts[:] = [fact for fact in run.played.facts if fact.job.key != f"cron {TICKS[1]}"]


def fire_a_tick_twice(run: Run) -> None:
    run.played.facts.append(run.of("ticking"))


def exceed_a_limit(run: Run) -> None:
    """Two of one key at once."""
    first, second = [fact.job.id for fact in run.played.facts if fact.job.limit_key == "limited:0"][:2]
    run.tell("start", first, "before", 1)
    run.tell("start", second, "before", 1)


FAULTS: dict[Callable[[Run], None], str] = {
    lose_a_job: "lost",
    leave_one_waiting: "ended",
    change_a_result: "ended",
    answer_with_the_old_code: "ended",
    repeat_a_completed_step: "repeated",
    write_a_row_twice: "rows",
    write_a_row_and_forget_it: "rows",
    lose_an_attempt_for_nothing: "stops",
    charge_a_stop: "stops",
    accept_a_stale_step: "stale",
    accept_a_stale_event: "stale",
    begin_after_the_lease: "stale",
    skip_an_event: "log",
    tell_a_reader_twice: "readers",
    leave_a_reader_behind: "readers",
    say_a_word_twice: "text",
    ignore_a_cancel: "cancels",
    cancel_unasked: "cancels",
    go_on_after_a_cancel: "late",
    run_an_unknown_task: "unknown",
    run_new_code_on_an_old_worker: "unknown",
    give_a_key_to_two: "keys",
    lose_a_row_of_the_user: "orders",
    submit_what_was_undone: "orders",
    miss_a_tick: "ticks",
    fire_a_tick_twice: "ticks",
    exceed_a_limit: "limits",
}


def test_every_kind_of_fault_is_planted() -> None:
    """No line of the verdict that could not turn red."""
    assert set(FAULTS.values()) == set(KINDS)


def test_a_run_without_a_fault_has_none(undisturbed: tuple[Undisturbed, Played]) -> None:
    """Nothing was attacked, and nothing is found."""
    verdict = Run(undisturbed[1]).verdict
    assert verdict.broken == [] and verdict.holds


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(
    plant: Callable[[Run], None], undisturbed: tuple[Undisturbed, Played]
) -> None:
    """One thing is wrong in what the ledger, the store or a reader has seen, and what it breaks is named."""
    run = Run(undisturbed[1])
    plant(run)
    verdict = run.verdict
    assert verdict.counts()[FAULTS[plant]] and not verdict.holds
    assert "PROMISES WERE BROKEN" in verdict.text()


def test_a_worker_that_ends_badly_is_a_fault(undisturbed: tuple[Undisturbed, Played]) -> None:
    """It was killed, and neither by the adversary nor by the poisoned job."""
    run = Run(undisturbed[1])
    run.tell("died", "")
    assert not run.verdict.holds and run.verdict.broken == []


def test_a_stop_without_a_store_may_lose_attempts(undisturbed: tuple[Undisturbed, Played]) -> None:
    """The database was away for as long as the worker could wait: then, and only then, a loss is no fault."""
    run = Run(undisturbed[1])
    lose_an_attempt_for_nothing(run)
    assert run.verdict.counts()["stops"] == 1
    run.tell("unable", "")
    assert run.verdict.holds


# --- what is planted into the database -----------------------------------------------------------------

# Each of another job, so that one hides no other.
PLANTED = {
    "lost": "DELETE FROM {schema}.job WHERE n = (SELECT n FROM {schema}.job WHERE limit_key = 'limited:1')",
    "ended": "UPDATE {schema}.job SET status = 'waiting' WHERE id = {rich}",
    "rows": "INSERT INTO public.effects SELECT * FROM public.effects WHERE job = {bank} AND step = 'row 1'",
    "log": "DELETE FROM {schema}.event WHERE seq = 2 AND job = (SELECT n FROM {schema}.job WHERE id = {failing})",
    "readers": "DELETE FROM {schema}.event WHERE seq = 2 AND job = (SELECT n FROM {schema}.job WHERE id = {talk})",
    "repeated": "UPDATE {schema}.step SET attempt = 0 WHERE key = 'step 0' AND job = (SELECT n FROM {schema}.job"
    " WHERE id = {plain})",
    "keys": "DELETE FROM {schema}.job WHERE key = 'key 1'",
    "stops": "INSERT INTO {schema}.attempt SELECT n, 7, 'w', 1, 2, 'lost', NULL, NULL FROM {schema}.job"
    " WHERE key = 'cron 1800000000'",
}


def test_faults_in_the_database_are_found(undisturbed: tuple[Undisturbed, Played]) -> None:
    """Somebody has tampered with the rows of jobs, steps, events and the user's own table: each is found when the
    database is looked at anew, and was not there before."""
    run, played = undisturbed
    ids = {task: f"'{Run(played).of(task).job.id}'" for task in ("rich", "bank", "failing", "talk", "plain")}
    for kind, statement in PLANTED.items():
        before = judge(asyncio.run(run.look())).counts()[kind]
        asyncio.run(_execute(statement.format(schema=SCHEMA, **ids)))
        assert judge(asyncio.run(run.look())).counts()[kind] > before, kind
