"""A disk that is full in the middle of a run: a program of its own, so that nobody else runs out of space.

    python -m tests.jobs.crash.full_disk tmpfs|limit FOLDER WORKERS

`tmpfs`: a small file system, mounted below FOLDER; to be run in a mount namespace (`unshare --mount`), with which it
vanishes. `limit`: no process here may write past a file size, which needs no privileges. It prints `held` at the end.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lastcall.exceptions import EngineUnavailable
from lastcall.jobs import AttemptOutcome, Job

from .forks import Child, Nursery
from .scene import Scene, until

LEASE_SECONDS = 1.0
_DISK_KILOBYTES = 2048


class Disk(Protocol):
    folder: Path

    def fill(self, workers: list[Child]) -> None: ...

    def free(self, workers: list[Child]) -> None: ...


class SmallDisk:
    """A file system of its own, and a file that takes what is left of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk"
        self.folder.mkdir()
        size = f"size={_DISK_KILOBYTES}k"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(self.folder)], check=True)
        self._ballast = self.folder / "ballast"

    def fill(self, workers: list[Child]) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def free(self, workers: list[Child]) -> None:
        self._ballast.unlink()


class SizeLimit:
    """No process may let a file grow any more: the log of the database is at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, workers: list[Child]) -> None:
        self._limit(workers, os.stat(self.folder / "jobs.db-wal").st_size)

    def free(self, workers: list[Child]) -> None:
        self._limit(workers, resource.RLIM_INFINITY)

    def _limit(self, workers: list[Child], size: int) -> None:
        for pid in (os.getpid(), *(worker.pid for worker in workers)):
            _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, most))


DISKS: dict[str, Callable[[Path], Disk]] = {"tmpfs": SmallDisk, "limit": SizeLimit}


async def play(disk: Disk, folder: Path, nursery: Nursery, count: int) -> None:
    """Fill the disk while steps are in flight, let them end, wait until all leases are over, and make room again."""
    async with Scene(nursery, folder, elsewhere=disk.folder, lease_seconds=LEASE_SECONDS) as scene:
        workers = [await scene.worker(concurrency=2) for _ in range(count)]
        gated = [scene.submitted(await scene.work.long.submit(scene.gate)) for _ in range(count)]
        plain = [scene.submitted(await scene.work.plain.submit(n, 30, 0.02)) for n in range(count)]
        for job in gated:
            await scene.told("start", job=job.id, key="gate")
        for job in plain:
            await scene.told("start", job=job.id, key="step 3")

        disk.fill(workers)
        told = await until_full(scene)
        assert "full" in told or "I/O error" in told, told
        scene.open_gate(1)
        for job in gated:
            await scene.told("end", job=job.id, key="gate")
        await until(lambda: scene.log().count("waits for the store to come back") >= 2 * count)
        await asyncio.sleep(2 * LEASE_SECONDS)  # the outage itself: nobody can renew, and all leases end
        assert "full" in await until_full(scene) or "I/O error" in told
        assert [worker.code for worker in workers] == [None] * count

        disk.free(workers)
        late = scene.submitted(await insist(scene))
        assert await late.result(30) == 4
        pids = {worker.pid for worker in workers}
        assert {await job.result(30) for job in gated} <= pids
        for job in plain:
            await job.result(30)
        assert await scene.broken() == []
        outcomes = [attempt.outcome for fact in (await scene.facts()).values() for attempt in fact.attempts]
        assert set(outcomes) == {AttemptOutcome.COMPLETED}, outcomes
        for worker in workers:
            scene.stop(worker)
            assert await scene.ended(worker) == 0


async def until_full(scene: Scene) -> str:
    """Submit until that is refused; what it says. There may be room for some more."""
    for _ in range(500):
        try:
            scene.submitted(await scene.work.child.submit(1))
        except EngineUnavailable as error:
            return str(error)
    raise AssertionError("the disk is never full")


async def insist(scene: Scene) -> Job[int]:
    """Submit as soon as it can be done."""
    for _ in range(500):
        try:
            return await scene.work.child.submit(2)
        except EngineUnavailable:
            await asyncio.sleep(0.02)
    raise AssertionError("the store does not come back")


def main(kind: str, folder: Path, count: int) -> None:
    disk = DISKS[kind](folder)
    with Nursery() as nursery:
        asyncio.run(play(disk, folder, nursery, count))
    print("held")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
