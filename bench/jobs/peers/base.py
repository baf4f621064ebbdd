"""What the file of every library offers, and what it may ask for. Standard library only."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Protocol

from ..marks import folder, note

URL_VARIABLE = "BENCH_URL"
OPTIONS_VARIABLE = "BENCH_OPTIONS"
WORKER_VARIABLE = "BENCH_WORKER"


class Peer(Protocol):
    """Submits jobs from this process, or becomes the worker. The body of `submit`'s job is `marks.mark`."""

    async def open(self) -> None:
        """Connect. Not timed."""

    async def close(self) -> None:
        """Let go."""

    async def submit(self, number: int, sent: float) -> None:
        """A job that does nothing. Returns when the library says that it is accepted."""

    async def fill(self, first: int, count: int) -> None:
        """As many, numbered from `first`, in whatever way the library has for many. Only where it has one."""

    async def submit_long(self) -> None:
        """A job of many steps: `long_steps`."""

    def work(self) -> None:
        """Be the worker, until somebody ends this process."""


def option(name: str, default: Any = None) -> Any:
    """What the setting says; see the catalogue."""
    return json.loads(os.environ.get(OPTIONS_VARIABLE, "{}")).get(name, default)


def store_url() -> str:
    """Where the server is, or a file in the measurement's folder for those who need none."""
    return os.environ.get(URL_VARIABLE) or f"sqlite:///{database_path()}"


def database_path() -> Path:
    return folder() / "jobs.db"


def worker_name() -> str:
    """The same for a worker and the one that is started in its place; another for one that runs beside it."""
    return os.environ.get(WORKER_VARIABLE, "first")


def become(program: str, *arguments: str) -> NoReturn:
    """Replace this process by the library's own worker command, so that signals reach it and nothing else."""
    path = Path(sys.executable).with_name(program)
    os.execv(path, [str(path), *arguments])


def step_count() -> int:
    return int(os.environ.get("BENCH_STEPS", "30"))


def step_seconds() -> float:
    return float(os.environ.get("BENCH_STEP_SECONDS", "1"))


def start_step(number: int) -> int:
    """The side effect of a step, at its beginning; waiting `step_seconds` is the rest of it."""
    note("step", number)
    return number


def blocking_step(number: int) -> int:
    start_step(number)
    time.sleep(step_seconds())
    return number


def told(began_at: float, error: BaseException) -> None:
    """The job heard of its end: what was raised inside it."""
    note("told", f"{type(error).__name__} {time.monotonic() - began_at:.3f}")


def long_steps(step: Callable[[int], object] = blocking_step) -> int:
    """The body of the long job, for libraries that run plain functions."""
    began_at = time.monotonic()
    try:
        for number in range(step_count()):
            step(number)
    except BaseException as error:
        told(began_at, error)
        raise
    note("done", step_count())
    return step_count()
