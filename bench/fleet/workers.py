"""The worker processes: how they begin, who of them may be attacked, and whether they ended as they should."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

from tests.jobs.crash.forks import Child, Nursery
from tests.jobs.crash.ledger import Ledger

from .place import Place
from .plan import Options

# Workers that end by themselves are no chaos but a fault in all of them.
MOST_BAD_EXITS = 20
_AGAIN_SECONDS = 0.3
_LOOK_SECONDS = 0.05
_VICTIM_SECONDS = 15.0
# After trouble with the database a worker may not have been able to begin, or to end in order; so long it is forgiven.
_TROUBLE_SECONDS = 20.0
# Before its command listens a signal ends a process as it ends any.
_BEGINNING_SECONDS = 15.0
_PLAN = ("--drain", "10", "--cancel", "2", "--close", "5")
STOP_SECONDS = 17.0


class Worker:
    """One process. `number`: who it is in the ledger; the system's own numbers come round again within an hour."""

    def __init__(self, number: int, child: Child, release: int) -> None:
        self.number = number
        self.child = child
        self.release = release
        self.began = time.monotonic()
        self.attacked = False
        self.killed = False
        self.told = False


class Workers:
    """As many as wanted, at every moment. `doors`: by which ways they reach the store."""

    def __init__(
        self, nursery: Nursery, options: Options, folder: Path, ledger: Ledger, doors: dict[str, str]
    ) -> None:
        self._nursery = nursery
        self._options = options
        self._random = random.Random(f"{options.seed} workers")
        self._folder = folder
        self._ledger = ledger
        self._doors = doors
        self._alive: dict[int, Worker] = {}
        self._up: set[int] = set()
        self._read = 0  # so many bytes of the ledger
        self._starting: set[asyncio.TimerHandle] = set()
        self._last_trouble = -1e9
        self.started = 0
        self.release = 0
        self.bad_exits: list[str] = []
        self.exits: Counter[str] = Counter()

    # --- their life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """One more, of the current release."""
        self.started += 1
        door = self._random.choice(list(self._doors))
        place = Place(
            self._doors[door],
            str(self._folder / "ledger"),
            self.started,
            self.release,
            self._random.random() < 0.5,
            door,
            self._options.lease_seconds,
        )
        concurrency = ("--concurrency", str(self._options.concurrency))
        arguments = ["worker", "bench.fleet.app:jobs", *concurrency, *_PLAN]
        given = {"environment": place.environment(), "arguments": arguments}
        child = self._nursery.fork("bench.fleet.process:run", given, str(self._folder / "log"))
        self._alive[self.started] = Worker(self.started, child, self.release)

    def reap(self) -> None:
        """Judge those that have ended, and put others in their place."""
        loop = asyncio.get_running_loop()
        for worker in [worker for worker in self._alive.values() if worker.child.ended.is_set()]:
            del self._alive[worker.number]
            self._judge(worker)
            self._starting = {handle for handle in self._starting if handle.when() > loop.time()}
            self._starting.add(loop.call_later(self._random.uniform(0.0, _AGAIN_SECONDS), self.start))

    def trouble(self) -> None:
        """Something was done to the store just now."""
        self._last_trouble = time.monotonic()

    def _judge(self, worker: Worker) -> None:
        code, now = worker.child.code, time.monotonic()
        young = now - worker.began < _BEGINNING_SECONDS
        if code == 0:
            how = "in order"
        elif code == -signal.SIGKILL and worker.killed:
            how = "killed"
        elif code == -signal.SIGKILL:
            how = "poisoned"  # the verdict asks the ledger whether that is so
            self._ledger.write("died", pid=worker.number)
        elif worker.told and young and code in (-signal.SIGTERM, 128 + signal.SIGTERM):
            how = "stopped before it had begun"
        elif code in (1, 2) and now - self._last_trouble < _TROUBLE_SECONDS:
            how = "without its store"
            self._ledger.write("unable", pid=worker.number)
        else:
            how = f"with {code}"
            unasked = "" if worker.told else ", and nobody had told it to"
            self.bad_exits.append(f"worker {worker.number} exited with {code}{unasked}")
        self.exits[how] += 1

    # --- what is done to them --------------------------------------------------------------------------

    async def at_peace(self, who: float) -> Worker | None:
        """One that has begun and that nobody has attacked, of at least two; None: there are none for a while."""
        deadline = time.monotonic() + _VICTIM_SECONDS
        while time.monotonic() < deadline:
            self._look_who_is_up()
            free = [
                worker for worker in self._alive.values() if worker.number in self._up and not worker.attacked
            ]
            if len(free) >= 2:
                return free[int(who * len(free))]
            await asyncio.sleep(_LOOK_SECONDS)
        return None

    def _look_who_is_up(self) -> None:
        with open(self._folder / "ledger", "rb") as file:
            file.seek(self._read)
            *lines, _ = file.read().split(b"\n")
        self._read += sum(len(line) + 1 for line in lines)
        self._up |= {json.loads(line)[1] for line in lines if line.endswith(b'"boot"]')}

    def kill(self, worker: Worker) -> None:
        worker.attacked = worker.killed = True
        self._ledger.write("killed", pid=worker.number)
        worker.child.send(signal.SIGKILL)

    def stop(self, worker: Worker) -> None:
        worker.attacked = worker.told = True
        self._ledger.write("stopped", pid=worker.number)
        worker.child.send(signal.SIGTERM)

    def stall(self, worker: Worker) -> None:
        worker.attacked = True
        self._ledger.write("stalled", pid=worker.number)
        worker.child.send(signal.SIGSTOP)

    def go_on(self, worker: Worker) -> None:
        self._ledger.write("continued", pid=worker.number)
        worker.child.send(signal.SIGCONT)
        worker.attacked = False

    async def roll(self, stop: asyncio.Event) -> int:
        """A deploy: from now on those that start are of the next release, and the others are stopped one by one."""
        self.release += 1
        self._ledger.write("deploy", f"r{self.release}")
        old = [worker for worker in self._alive.values() if worker.release < self.release]
        for worker in old:
            while not worker.child.ended.is_set() and not stop.is_set():
                if not worker.attacked:  # one that is stalled hears of it later
                    self.stop(worker)
                await asyncio.sleep(_LOOK_SECONDS)
        return len(old)

    async def end(self) -> None:
        """Stop them all, and judge how they end."""
        for handle in self._starting:
            handle.cancel()
        for worker in self._alive.values():
            self.stop(worker)
        for worker in self._alive.values():
            await asyncio.to_thread(worker.child.wait)
            self._judge(worker)
        self._alive.clear()
