"""One play: a store, workers, users, and an adversary who carries a plan out; then calm, and a verdict.

Who calls it: the command, and the tests. What it owns: a folder, in which the ledger, the workers' log and the result
are. When the time is over, or somebody presses Ctrl-C, everybody is let live, and all that was submitted must end.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from lastcall.jobs import Jobs, JobStatus
from tests.jobs.crash import ledger
from tests.jobs.crash.checker import look_into
from tests.jobs.crash.forks import Nursery
from tests.jobs.crash.ledger import Ledger

from .plan import Action, Options
from .stores import PostgresStore, Store, opened, writer_of
from .users import Users, insisted
from .verdict import Played, Verdict, judge
from .work import FleetWork
from .workers import MOST_BAD_EXITS, Workers

CALM_SECONDS = 120.0
_READ_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_COMMIT = b"COMMIT\0"


class Done(NamedTuple):
    """An action that was carried out: when, and what came of it."""

    at: float
    what: str
    told: str


class Play:
    """`say`: where a line about its state goes, now and then. `stop`: set it, and the rest of the plan is left out."""

    def __init__(
        self, options: Options, plan: Sequence[Action], folder: Path, say: Callable[[str], None]
    ) -> None:
        self._options = options
        self._plan = plan
        self._folder = folder
        self._say = say
        self._ledger = Ledger(folder / "ledger")
        self._attacks: Counter[str] = Counter()
        self._done: list[Done] = []
        self._running: set[asyncio.Task[None]] = set()
        self._database = asyncio.Lock()
        self._began = 0.0
        self.stop = asyncio.Event()
        self._store: Store
        self._workers: Workers
        self._users: Users

    async def run(self) -> Verdict:
        """The whole of it."""
        async with AsyncExitStack() as stack:
            nursery = stack.enter_context(Nursery("bench.fleet.process"))
            self._store = await stack.enter_async_context(opened(self._options.store, self._folder))
            doors = [await stack.enter_async_context(Jobs(url)) for url in self._store.doors.values()]
            releases = 1 + sum(action.what == "deploy" for action in self._plan)
            works = [
                FleetWork(jobs, self._ledger, str(self._folder / "ledger"), writer_of(url), releases)
                for jobs, url in zip(doors, self._store.doors.values(), strict=True)
            ]
            self._users = Users(self._options, self._ledger, works, doors, self._store.connect)
            self._workers = Workers(
                nursery, self._options, self._folder, self._ledger, dict(self._store.doors)
            )
            for _ in range(self._options.workers):
                self._workers.start()
            await self._attack()
            attacked_seconds = time.monotonic() - self._began
            calm_seconds = await self._calm_down(doors[0])
            unread = await self._users.finish(_READ_SECONDS)
            await self._workers.end()
            self._say("reading what is left")
            facts = await look_into(doors[0].engine, await self._store.rows())
            orders = await self._store.orders()
        self._ledger.close()
        log = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
        return judge(
            Played(
                self._options,
                list(self._plan),
                [list(done) for done in self._done],
                self._attacks,
                attacked_seconds,
                calm_seconds,
                ledger.read(self._folder / "ledger"),
                facts,
                orders,
                self._users.seen,
                unread,
                self._workers.exits,
                self._workers.bad_exits,
                log,
            )
        )

    # --- while it is attacked --------------------------------------------------------------------------

    async def _attack(self) -> None:
        self._began = time.monotonic()
        parts = (self._users.submit, self._users.cancel, self._users.answer, self._tell)
        users = [asyncio.create_task(self._again_and_again(part)) for part in parts]
        ending, reaping = asyncio.create_task(self.stop.wait()), asyncio.create_task(self._reap())
        try:
            for action in self._plan:
                await asyncio.wait(
                    {ending, *users}, timeout=self._left(action.at), return_when="FIRST_COMPLETED"
                )
                if self._is_over():
                    break
                task = asyncio.create_task(self._carry_out(action))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            await asyncio.wait(
                {ending, *users}, timeout=self._left(self._options.seconds), return_when="FIRST_COMPLETED"
            )
            self.stop.set()
            await asyncio.gather(*users)
            await asyncio.gather(*self._running)  # with those that wait for somebody whom they may attack
        finally:
            for task in (ending, reaping, *users, *self._running):
                task.cancel()

    def _left(self, at: float) -> float:
        return max(0.0, at - (time.monotonic() - self._began))

    def _is_over(self) -> bool:
        return self.stop.is_set() or self._is_given_up()

    def _is_given_up(self) -> bool:
        return len(self._workers.bad_exits) >= MOST_BAD_EXITS

    async def _again_and_again(self, part: Callable[[], Awaitable[float]]) -> None:
        """Do a part until the end; it answers how long to pause."""
        while not self._is_over() and self._left(self._options.seconds):
            pause = await part()
            try:
                await asyncio.wait_for(self.stop.wait(), min(pause, self._left(self._options.seconds)))
            except TimeoutError:
                pass

    async def _reap(self) -> None:
        while not self._is_given_up():
            self._workers.reap()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _tell(self) -> float:
        seconds = time.monotonic() - self._began
        attacks = sum(self._attacks.values())
        self._say(
            f"{seconds:6.0f} s: {self._users.submitted} jobs submitted, {attacks} attacks"
            f" ({self._attacks['kill'] + self._attacks['stop and kill']} kills), release {self._workers.release}"
        )
        return 10.0

    async def _carry_out(self, action: Action) -> None:
        told = await ATTACKS[action.what](self, action)
        if told is not None:
            self._attacks[action.what] += 1
            self._done.append(Done(round(time.monotonic() - self._began, 3), action.what, told))

    # --- the adversary: each answers what it has hit; None: nothing -------------------------------------

    async def _kill(self, action: Action) -> str | None:
        if (worker := await self._workers.at_peace(action.who)) is None:
            return None
        self._workers.kill(worker)
        return f"worker {worker.number}"

    async def _stop(self, action: Action) -> str | None:
        if (worker := await self._workers.at_peace(action.who)) is None:
            return None
        self._workers.stop(worker)
        return f"worker {worker.number}"

    async def _stop_and_kill(self, action: Action) -> str | None:
        """The grace of an orchestrator that has none."""
        if (worker := await self._workers.at_peace(action.who)) is None:
            return None
        self._workers.stop(worker)
        await asyncio.sleep(0.05 * action.who)
        self._workers.kill(worker)
        return f"worker {worker.number}"

    async def _stall(self, action: Action) -> str | None:
        if (worker := await self._workers.at_peace(action.who)) is None:
            return None
        self._workers.stall(worker)
        await asyncio.sleep(action.seconds)
        self._workers.go_on(worker)
        return f"worker {worker.number} for {action.seconds:g} s"

    async def _deploy(self, action: Action) -> str | None:
        # Asked for at once, before any of the new workers is there.
        self._users.release = self._workers.release + 1
        _, count = await asyncio.gather(self._users.submit_release(), self._workers.roll(self.stop))
        return f"release {self._workers.release}, {count} workers"

    async def _hurt(self, hurt: Callable[[PostgresStore], Awaitable[str]]) -> str | None:
        """One thing at a time is done to the database."""
        assert isinstance(self._store, PostgresStore)
        async with self._database:
            if self.stop.is_set():
                return None
            self._workers.trouble()
            self._ledger.write("trouble")
            told = await hurt(self._store)
            self._workers.trouble()
            self._ledger.write("trouble over")
            return told

    async def _restart(self, action: Action) -> str | None:
        async def hurt(store: PostgresStore) -> str:
            began = time.monotonic()
            await store.restart("immediate" if action.what == "crash" else "fast", action.seconds)
            return f"away for {time.monotonic() - began:.1f} s"

        return await self._hurt(hurt)

    async def _terminate(self, action: Action) -> str | None:
        async def hurt(store: PostgresStore) -> str:
            return f"{await store.terminate(action.who)} connections"

        return await self._hurt(hurt)

    async def _cut(self, action: Action) -> str | None:
        """Cut the next connection through the proxy that commits, or asks for anything, before or after the server."""
        late = action.what.endswith("answer")
        holding = _COMMIT if "commit" in action.what else b""

        async def hurt(store: PostgresStore) -> str:
            cuts = store.cutter.cuts
            store.cutter.arm(1 + int(action.who * 3), late=late, holding=holding)
            deadline = time.monotonic() + 2.0
            while store.cutter.cuts == cuts and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            store.cutter.disarm()
            return "cut" if store.cutter.cuts > cuts else ""

        return (await self._hurt(hurt)) or None

    async def _idle_in_transaction(self, action: Action) -> str | None:
        async def hurt(store: PostgresStore) -> str:
            return f"{await store.hold_rows(action.who, action.seconds)} jobs for {action.seconds:g} s"

        return await self._hurt(hurt)

    async def _take_connections(self, action: Action) -> str | None:
        async def hurt(store: PostgresStore) -> str:
            return f"{await store.take_all_connections(action.seconds)} taken for {action.seconds:g} s"

        return await self._hurt(hurt)

    # --- the end ---------------------------------------------------------------------------------------

    async def _calm_down(self, jobs: Jobs) -> float:
        """Until every job has ended that can; how long that took."""
        self._say("the attack is over; whatever is left comes to its end")
        self._users.release = self._workers.release
        began = time.monotonic()
        while time.monotonic() < began + CALM_SECONDS and len(self._workers.bad_exits) < MOST_BAD_EXITS:
            self._workers.reap()
            await self._users.answer()
            overview = await insisted(jobs.overview)
            alive = Counter(dict.fromkeys(JobStatus, 0))
            for (_, status), count in overview.counts.items():
                alive[status] += 0 if status.final else count
            if alive.total() == alive[JobStatus.QUEUED] <= 1:  # the one that no worker knows
                break
            await asyncio.sleep(_LOOK_SECONDS)
        return time.monotonic() - began


ATTACKS: dict[str, Callable[[Play, Action], Awaitable[str | None]]] = {
    "kill": Play._kill,
    "stop": Play._stop,
    "stop and kill": Play._stop_and_kill,
    "stall": Play._stall,
    "deploy": Play._deploy,
    "restart": Play._restart,
    "crash": Play._restart,
    "away": Play._restart,
    "terminate": Play._terminate,
    "cut a commit": Play._cut,
    "cut a commit's answer": Play._cut,
    "cut a request": Play._cut,
    "cut an answer": Play._cut,
    "idle in transaction": Play._idle_in_transaction,
    "no connection left": Play._take_connections,
}
