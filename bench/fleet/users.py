"""The users of the fleet: they submit jobs, cancel some, answer those that ask, and read logs; all day long.

They sit in one process of their own, which is never killed, and write into the ledger what they were answered. What
they do is drawn from the seed; where a call gets no answer, nobody knows whether it was carried out, and it counts for
nothing, except where a key lets it be made again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg

from lastcall.exceptions import EngineUnavailable
from lastcall.jobs import CancelOutcome, Job, Jobs, JobStatus
from tests.jobs.crash.ledger import Ledger

from .plan import Options
from .work import FleetWork

T = TypeVar("T")

# How long somebody insists on an answer. No store is away for longer in a play.
INSIST_SECONDS = 120.0
_PAUSE_SECONDS = 0.1
_ANSWER_SECONDS = 0.3
_CANCELS_PER_SECOND = 1.5
_RECENT = 12
_UNCANCELLED = ("unknown", "poison")
_READERS = 60

# What is submitted, by weight.
_MIX = {
    "plain": 30,
    "long": 7,
    "rich": 14,
    "bank": 8,
    "talk": 8,
    "child": 6,
    "limited": 8,
    "failing": 6,
    "once a key": 6,
    "waiting": 5,
    "order": 6,
    "many": 1,
    "release": 8,
}


class Users:
    """`doors`: the jobs, as they are reached by each way; `works`: the tasks declared on each."""

    def __init__(
        self,
        options: Options,
        ledger: Ledger,
        works: Sequence[FleetWork],
        doors: Sequence[Jobs],
        connect: Callable[[int], Awaitable[Any]],
    ) -> None:
        self._connect = connect
        self._options = options
        self._random = random.Random(f"{options.seed} users")
        self._ledger = ledger
        self._works = works
        self._doors = doors
        self._unknown = [jobs.task(name="unknown")(_unknown) for jobs in doors]
        self._recent: list[tuple[str, Job[Any]]] = []
        self._unanswered: dict[str, Job[Any]] = {}
        self._readers: set[asyncio.Task[None]] = set()
        self.seen: dict[str, list[list[int]]] = {}
        self.submitted = 0
        self.release = 0

    # --- parts that go on till the end -----------------------------------------------------------------

    async def submit(self) -> float:
        """One job, or a few; then a pause."""
        door = self._random.randrange(len(self._works))
        work, number = self._works[door], self._random.randrange(1000)
        if self.submitted == 0:
            await self._submit(door, [("poison", work.poison.call())])
        elif self.submitted == 1:
            await self._submit(door, [("unknown", self._unknown[door].call())])
        else:
            what = self._random.choices(list(_MIX), list(_MIX.values()))[0]
            await self._submit_one(what, door, work, number)
        return self._random.expovariate(self._options.jobs_per_second)

    async def _submit_one(self, what: str, door: int, work: FleetWork, number: int) -> None:
        chance = self._random
        match what:
            case "once a key":
                await self._submit_twice(number)
            case "order":
                await self._order(door, work, number, undone=chance.random() < 0.25)
            case "many":
                await self._submit(door, [("plain", work.plain.call(number + n, 3, 0.0)) for n in range(20)])
            case "plain":
                steps, seconds = chance.randrange(2, 10), round(chance.uniform(0.0, 0.1), 4)
                await self._submit(door, [("plain", work.plain.call(number, steps, seconds))])
            case "long":
                await self._submit(door, [("long", work.plain.call(number, 50, 0.2))])
            case "limited":
                await self._submit(door, [("limited", work.limited.call(number % 3))])
            case "release":
                await self._submit_release(door, number)
            case "bank":
                await self._submit(door, [("bank", work.bank.call())])
            case _:
                await self._submit(door, [(what, getattr(work, what).call(number))])

    async def submit_release(self) -> None:
        """A deploy has begun: what only its workers know is wanted at once."""
        for _ in range(3):
            await self._submit_release(0, self._random.randrange(1000))

    async def _submit_release(self, door: int, number: int) -> None:
        work, release = self._works[door], self.release
        calls = [("release", work.release[release].call(number)), ("new", work.new_in[release].call(number))]
        await self._submit(door, calls)

    async def _submit(self, door: int, calls: list[tuple[str, Any]]) -> None:
        jobs = await tried(lambda: self._doors[door].submit_many([call for _, call in calls]))
        for (what, _), job in zip(calls, jobs or (), strict=False):
            self._take_down(what, job)
            if what == "rich":
                self._unanswered[job.id] = job

    def _take_down(self, what: str, job: Job[Any]) -> None:
        self._ledger.write("submitted", what, job.id)
        self.submitted += 1
        self._recent = [*self._recent[1 - _RECENT :], (what, job)]
        wanted = what == "talk" or (self.submitted % 5 == 0 and what != "unknown")
        if wanted and len(self._readers) < _READERS:
            self._read(job)

    async def _submit_twice(self, number: int) -> None:
        """With one key, by two ways at once, again and again until there is an answer: one job."""
        key = f"key {self.submitted} {number}"
        calls = [work.once_a_key.options(key=key) for work in (self._works[0], self._works[-1])]
        answers = await asyncio.gather(*(insisted(lambda task=task: task.submit(number)) for task in calls))
        for job in answers:
            self._ledger.write("keyed", key, job.id)
        self._take_down("once a key", answers[0])

    async def _order(self, door: int, work: FleetWork, number: int, *, undone: bool) -> None:
        """A row of the user's own and the job that belongs to it, in one transaction: both, or none."""
        name = f"order {self.submitted} {number}"
        try:
            connection = await self._connect(door)
            if connection is None:
                return
            try:
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute("INSERT INTO public.orders VALUES ($1)", name)
                job = await work.order.options(key=name, connection=connection).submit(number)
                await (transaction.rollback() if undone else transaction.commit())
            finally:
                connection.terminate()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, EngineUnavailable, OSError, TimeoutError):
            return  # nobody knows; the verdict asks whether it is both or none
        self._ledger.write("undone" if undone else "ordered", name, job.id)
        if not undone:
            self._take_down("order", job)

    async def cancel(self) -> float:
        """One of those that came last: it waits in line, runs, or waits for something. Often one that runs for long."""
        candidates = [job for what, job in self._recent if what not in _UNCANCELLED]
        if self._random.random() < 0.4:
            candidates = [job for what, job in self._recent if what == "long"] or candidates
        if candidates:
            job = self._random.choice(candidates)
            answer = await tried(job.cancel)
            if answer is not CancelOutcome.ALREADY_ENDED:
                self._ledger.write("cancel", str(answer or "unanswered"), job.id)
        return self._random.expovariate(_CANCELS_PER_SECOND)

    async def answer(self) -> float:
        """Send waiting jobs the messages that they wait for, and decide what they ask."""
        jobs, work = self._doors[0], self._works[0]
        for job in list(self._unanswered.values()):
            # Again after a call without an answer: the second message is never received.
            if await tried(lambda job=job: job.send("early", "first word")) is not None:
                del self._unanswered[job.id]
        for task in ("rich", "waiting"):
            waiting = await tried(lambda task=task: jobs.find(status=JobStatus.WAITING, task=task, limit=200))
            for info in waiting or ():
                job, number = jobs.job(info.id), info.args["number"]
                if "signal late" in info.waits_for:
                    await tried(lambda job=job: job.send("late", "second word"))
                if "signal go" in info.waits_for and self._random.random() < 0.3:
                    await tried(lambda job=job, number=number: job.send("go", number))
                if "step_outcome_unknown" in info.waits_for:
                    await tried(lambda job=job, number=number: work.decide(job, number))
        return _ANSWER_SECONDS

    # --- readers ---------------------------------------------------------------------------------------

    def _read(self, job: Job[Any]) -> None:
        """Two of them: one from the beginning, one that comes later by another way and begins anew."""
        for reader in range(2):
            door = self._doors[(reader + self.submitted) % len(self._doors)]
            task = asyncio.create_task(self._follow(door.job(job.id), 0.2 * reader))
            self._readers.add(task)
            task.add_done_callback(self._readers.discard)

    async def _follow(self, job: Job[Any], later_seconds: float) -> None:
        """Read a log to its end, whatever happens meanwhile."""
        seen: list[int] = []
        self.seen.setdefault(job.id, []).append(seen)
        await asyncio.sleep(later_seconds)
        while True:
            try:
                async for event in job.events(after=seen[-1] if seen else 0):
                    seen.append(event.seq)
                return
            except EngineUnavailable:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def finish(self, seconds: float) -> int:
        """Wait for the readers; how many had to be sent away before the end of what they read."""
        if not self._readers:
            return 0
        _, left = await asyncio.wait(set(self._readers), timeout=seconds)
        for reader in left:
            reader.cancel()
        if left:
            await asyncio.wait(left)
        return len(left)


async def tried(call: Callable[[], Awaitable[T]]) -> T | None:
    """The answer, or None: the store could not be used now, and nobody knows what was done."""
    try:
        return await call()
    except EngineUnavailable:
        return None


async def insisted(call: Callable[[], Awaitable[T]]) -> T:
    """The answer, however long the store is away."""
    deadline = time.monotonic() + INSIST_SECONDS
    while True:
        try:
            return await call()
        except EngineUnavailable:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


async def _unknown() -> None:
    raise AssertionError("no worker knows this task")
