"""Functions that jobs call in processes of their own; each process imports this file, and nothing of the tests."""

import asyncio
import os
import signal
import time
from pathlib import Path

from lastcall import current_shutdown
from lastcall.jobs import Backoff, Jobs
from tests.engines.model import ModelEngine

process_jobs = Jobs(ModelEngine())


@process_jobs.task(run="process")
def whoami(n: int) -> tuple[int, int]:
    return os.getpid(), n + 1


@process_jobs.task(run="process")
async def whoami_async(n: int) -> tuple[int, int]:
    await asyncio.sleep(0)
    return os.getpid(), n + 1


@process_jobs.task(run="process")
def much() -> str:
    return "x" * 900_000


class Demanding(Exception):
    """Can be pickled, and not be made again: its arguments are not those of its constructor."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


@process_jobs.task(run="process")
def ends_badly(how: str) -> object:
    match how:
        case "error":
            raise LookupError("not found")
        case "demanding":
            raise Demanding("disk", "on fire")
        case "exit":
            raise SystemExit(3)
        case "no pickle":
            return lambda: None
    os._exit(7)


@process_jobs.task(run="process", retries=1, backoff=Backoff(first_seconds=0, jitter=0))
def stands(path: str, stubborn: bool) -> str:
    """The first process writes who it is and waits for a stop, or ignores that; the second one just returns."""
    file = Path(path)
    if file.exists():
        return "second"
    file.write_text(str(os.getpid()))
    while stubborn or not current_shutdown().requested:
        time.sleep(0.01)
    file.with_suffix(".asked").touch()
    raise OSError("asked to stop")


@process_jobs.task(run="process")
def heeds(path: str) -> str:
    """Ends when it hears of a stop."""
    Path(path).write_text(str(os.getpid()))
    current_shutdown().wait_sync(60)
    return f"told: {current_shutdown().reason}"


@process_jobs.task(run="process")
async def deaf(path: str) -> str:
    """Like a process that has only just begun: it does not know yet what to do with a signal."""
    file = Path(path)
    if file.exists():
        return "second"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    file.write_text(str(os.getpid()))
    await asyncio.sleep(60)
    return "first"
