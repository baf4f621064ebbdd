"""A process that uses the SQLite engine: `program.py <what> <path> ...`, told what to do next by lines."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
import time

from lastcall.engines.sqlite import SqliteEngine
from lastcall.exceptions import EngineUnavailable
from lastcall.jobs._processes import this_process
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, Completed, NewJob, WorkerRow

TASKS = {("work", ""): None}


async def next_line() -> str:
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


def worker(worker_id: str, lease_seconds: float = 3600.0) -> WorkerRow:
    return WorkerRow(worker_id, "host", *this_process(), lease_seconds, 10, None)


async def open_at_once(path: str) -> None:
    """Open when told, and use it."""
    engine = SqliteEngine(path)
    print("ready")
    await next_line()
    await engine.open()
    await engine.submit([NewJob(f"job-{os.getpid()}", "work", "[]")])
    print("open")
    await next_line()
    await engine.close()


async def submit_pairs(path: str, count: str) -> None:
    """Submit pairs of jobs from several tasks, and say each pair that was answered."""
    engine = SqliteEngine(path, synchronous="full")
    await engine.open()

    async def submit(task: int) -> None:
        for number in range(int(count)):
            pair = f"{os.getpid()}-{task}-{number}"
            await engine.submit([NewJob(f"{pair}{side}", "work", json.dumps("x" * 500)) for side in "ab"])
            print(pair)

    print("open")
    await asyncio.gather(*map(submit, range(8)))
    print("done")
    await next_line()
    await engine.close()


async def hold(path: str, worker_id: str, lease_seconds: str) -> None:
    """Take one job and keep it; finish it when told, and say what came of it."""
    engine = SqliteEngine(path)
    await engine.open()
    await engine.join(worker(worker_id, float(lease_seconds)))
    (job,) = (await engine.claim(ClaimRequest(worker_id, 1, TASKS))).jobs
    print(f"{job.id} {job.attempt}")
    await next_line()
    print(json.dumps(await engine.finish([AttemptEnd(job.id, job.attempt, Completed("1"))])))
    print((await engine.renew(worker_id)).alive)
    await next_line()
    await engine.close()


async def work(path: str, worker_id: str, total: str) -> None:
    """Claim and complete jobs until so many in the file are completed; say the ids."""
    engine = SqliteEngine(path, synchronous="off")
    await engine.open()
    await engine.join(worker(worker_id))
    news = asyncio.Event()
    end = engine.listen(news.set)
    print("open")
    await next_line()
    mine = []
    while True:
        news.clear()
        jobs = (await engine.claim(ClaimRequest(worker_id, 7, TASKS))).jobs
        if jobs:
            mine += [job.id for job in jobs]
            await engine.finish([AttemptEnd(job.id, job.attempt, Completed("1")) for job in jobs])
        elif sum((await engine.overview()).counts.values()) >= int(total):
            break
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), 1.0)
    print(json.dumps(mine))
    end()
    await next_line()
    await engine.close()


async def change(path: str) -> None:
    """Submit a job whenever told."""
    engine = SqliteEngine(path)
    await engine.open()
    print("open")
    while line := await next_line():
        await engine.submit([NewJob(line, "work", "[]")])
        print(line)
    await engine.close()


async def fill(path: str, how: str) -> None:
    """Submit until the disk is full, make room, and go on; say what happened to each batch."""
    folder = os.path.dirname(path)
    ballast = os.path.join(folder, "ballast")
    if how == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], check=True)
        with open(ballast, "wb") as file:
            file.write(bytes(1_000_000))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (800_000, resource.RLIM_INFINITY))
    engine = SqliteEngine(path)
    await engine.open()
    hints = []
    engine.listen(lambda: hints.append(len(hints)))
    print("open")
    written, refused = await submit_until_refused(engine)
    print(json.dumps([await is_quiet(), len(hints)]))
    rows = await engine.get(written + refused)
    print(json.dumps([[row.id for row in rows] == written, len(refused) > 0]))
    if how == "tmpfs":
        os.unlink(ballast)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await engine.submit([NewJob(job_id, "work", "[]") for job_id in refused])
    print(len(await engine.get(written + refused)) == len(written + refused))
    await engine.close()
    await engine.open()
    print(len(await engine.get(written + refused)) == len(written + refused))
    await engine.close()


async def is_quiet() -> bool:
    """Whether this process does next to nothing."""
    began, used = time.monotonic(), time.process_time()
    await asyncio.sleep(0.3)
    return time.process_time() - used < 0.2 * (time.monotonic() - began)


async def submit_until_refused(engine: SqliteEngine) -> tuple[list[str], list[str]]:
    written: list[str] = []
    for batch in range(10_000):
        ids = [f"{batch}-{number}" for number in range(10)]
        calls = [engine.submit([NewJob(job_id, "work", json.dumps("x" * 4000))]) for job_id in ids]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [
            job_id for job_id, answer in zip(ids, answers, strict=True) if isinstance(answer, Exception)
        ]
        written += [job_id for job_id in ids if job_id not in refused]
        if refused:
            error = next(answer for answer in answers if isinstance(answer, Exception))
            assert isinstance(error, EngineUnavailable), repr(error)
            print(str(error))
            return written, refused
    raise AssertionError("the disk is not full")


async def use_unwritable(path: str) -> None:
    """Open and use a file that this user may read only."""
    if os.geteuid() == 0:
        drop_the_right_to_write_anything()
    engine = SqliteEngine(path)
    try:
        await engine.open()
        print("open")
        print(len(await engine.get(["a"])))
        await engine.submit([NewJob("b", "work", "[]")])
    except EngineUnavailable as error:
        print(str(error))
    await engine.close()


def drop_the_right_to_write_anything() -> None:
    """Without CAP_DAC_OVERRIDE and its like, file modes hold for root too."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno())


PROGRAMS = {
    function.__name__: function
    for function in (open_at_once, submit_pairs, hold, work, change, fill, use_unwritable)
}

if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    # Not asyncio's debug mode: on a busy machine it complains of slow callbacks, and stderr must be empty.
    asyncio.run(PROGRAMS[what](*arguments), debug=False)
