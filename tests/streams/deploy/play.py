"""The play: so many streams and readers, two servers behind a proxy, replaced in turn until every job has ended.

Who calls it: the suite with a short one, `scripts/stream_deploy.py` with the long one. The verdict compares what each
reader was told with the store, read afterwards, and the text with the tokens that the job has said.
"""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from lastcall.jobs import Job, Jobs
from lastcall.streams import Entry, TextView
from tests.servers.balancer import Balancer
from tests.servers.processes import ServerProcess, free_port

from .app import speak, token
from .eventsource import EventSource

_START_SECONDS = 40


class Plan(NamedTuple):
    """`kills`: of so many replacements in a hundred the server is killed, where otherwise it is told to stop."""

    seed: int
    streams: int = 50
    readers_per_stream: int = 10
    tokens: int = 1500
    replacements: int = 6
    kills: int = 0
    pace_seconds: float = 0.02


class Verdict(NamedTuple):
    plan: Plan
    broken: list[str]
    readers: int
    told: int
    written: int
    connections: int
    resets: int
    replaced: Counter[str]
    gaps_seconds: list[float]
    seconds: float

    @property
    def holds(self) -> bool:
        return not self.broken

    def text(self) -> str:
        """For people."""
        gaps = sorted(self.gaps_seconds)
        worst = f"{gaps[-1]:.2f}" if gaps else "-"
        median = f"{statistics.median(gaps):.2f}" if gaps else "-"
        lines = [
            f"seed {self.plan.seed}: {self.readers} readers of {self.plan.streams} streams, {self.seconds:.0f} s",
            f"servers replaced: {dict(self.replaced)}",
            f"entries written {self.written}, told {self.told} (to {self.plan.readers_per_stream} readers each)",
            f"connections per reader: {self.connections / max(1, self.readers):.1f}; step.reset: {self.resets}",
            f"silence at a replacement, as a reader sees it: median {median} s, worst {worst} s",
            f"lost, doubled, out of order, left behind: {len(self.broken)}",
            *self.broken[:20],
        ]
        return "\n".join(lines)


class Play:
    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self._plan = plan
        self._folder = folder
        self._say = say
        self._random = random.Random(plan.seed)
        self._servers = ExitStack()
        self._starts = 0
        self._replaced: Counter[str] = Counter()

    async def run(self) -> Verdict:
        """Play it to the end."""
        began = time.monotonic()
        ports = [free_port(), free_port()]
        with self._servers:
            running = {port: self._start(port) for port in ports}
            async with Balancer(ports, "/lastcall/readyz") as balancer:
                for port in ports:
                    await balancer.wait_healthy(port)
                async with Jobs(f"sqlite:///{self._folder / 'jobs.db'}") as jobs:
                    ids = await self._submit(jobs)
                    readers = [
                        EventSource(balancer.port, f"/lastcall/jobs/{id}/events")
                        for id in ids
                        for _ in range(self._plan.readers_per_stream)
                    ]
                    reading = asyncio.gather(*(reader.run() for reader in readers))
                    await self._replace(running, balancer)
                    async with asyncio.timeout(120):
                        await reading
                    return await self._judge(jobs, ids, readers, time.monotonic() - began)

    def _start(self, port: int) -> ServerProcess:
        self._starts += 1
        folder = self._folder / f"server-{self._starts}"
        folder.mkdir()
        command = [sys.executable, "-m", "uvicorn", "tests.streams.deploy.app:app"]
        command += ["--port", str(port), "--log-level", "warning", "--no-access-log", "--app-dir", "."]
        environment = {"PACE_SECONDS": str(self._plan.pace_seconds)}
        (folder / "jobs.db").symlink_to(self._folder / "jobs.db")
        return self._servers.enter_context(ServerProcess(command, folder, environment))

    async def _submit(self, jobs: Jobs) -> list[str]:
        plan, ids = self._plan, []
        task = jobs.task(speak.fn, name=speak.name, max_lost=1000)
        for n in range(plan.streams):
            policy = "replay" if plan.kills and n % 5 == 0 else "continue"
            args = (f"s{n}", plan.tokens if policy == "continue" else plan.tokens // 20, policy)
            ids.append((await task.submit(*args)).id)
        return ids

    async def _replace(self, running: dict[int, ServerProcess], balancer: Balancer) -> None:
        ports = [*running]
        for n in range(self._plan.replacements):
            await asyncio.sleep(self._random.uniform(0.5, 2.0))
            port = ports[n % 2]
            kills = self._random.randrange(100) < self._plan.kills
            number = signal.SIGKILL if kills else signal.SIGTERM
            began = time.monotonic()
            running[port].signal_main(number)
            if await asyncio.to_thread(running[port].wait, 30) is None:
                raise AssertionError(f"the server did not end:\n{running[port].log}")
            self._replaced[number.name] += 1
            self._say(
                f"{n + 1}/{self._plan.replacements}: {number.name}, gone after {time.monotonic() - began:.2f} s"
            )
            running[port] = self._start(port)
            await balancer.wait_healthy(port)

    async def _judge(self, jobs: Jobs, ids: list[str], readers: list[EventSource], seconds: float) -> Verdict:
        broken: list[str] = []
        written = resets = 0
        per_stream = self._plan.readers_per_stream
        for n, id in enumerate(ids):
            log = await _whole_log(jobs.job(id))
            written += len(log)
            resets += sum(entry.type == "step.reset" for entry in log)
            result = await jobs.job(id).result(60)
            view = TextView()
            view.apply(log)
            count = len(result.split())
            expected = "".join(token(f"s{n}", number) for number in range(count))
            if not result == expected == view.text("answer"):
                broken.append(f"job {id}: its text is not what it said")
            for reader in readers[n * per_stream : (n + 1) * per_stream]:
                seen = [(entry["seq"], entry["type"], entry["attempt"]) for entry in reader.entries]
                if reader.refused_with is not None:
                    broken.append(f"a reader of {id} was sent away with {reader.refused_with}")
                elif seen != [(entry.seq, entry.type, entry.attempt) for entry in log]:
                    broken.append(f"a reader of {id} was told {len(seen)} of {len(log)} entries")
                elif _text(reader) != expected:
                    broken.append(f"a reader of {id} shows another text")
        return Verdict(
            self._plan,
            broken,
            len(readers),
            sum(len(reader.entries) for reader in readers),
            written,
            sum(reader.connections for reader in readers),
            resets,
            self._replaced,
            [gap for reader in readers for gap in reader.gaps_seconds],
            seconds,
        )


async def _whole_log(job: Job[Any]) -> list[Entry]:
    found: list[Entry] = []
    log = job.log()
    while page := (await log.read(found[-1].seq if found else 0, 1000)).entries:
        found += page
    return found


def _text(reader: EventSource) -> str:
    """As a page would put it together from what it is told."""
    text = ""
    for entry in reader.entries:
        if entry["type"] == "stream.text":
            text += entry["data"]["text"]
        elif entry["type"] == "step.reset":
            text = ""
    return text
