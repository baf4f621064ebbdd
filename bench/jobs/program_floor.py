"""The floor for jobs: the smallest asyncio program with the same rows.

Each submit is awaited to its commit; a writer thread commits together whatever was asked for meanwhile; every job is a
task of its own; a claim rides with the results before it. No leases, no steps, no retries, no limits, no validation:
nothing that a library is for.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from .sqlite_floor import ARGS, CLAIM, DONE, FINISH, INSERT, TASK, connect, job_id


class Verb(Enum):
    SUBMIT = 1
    FINISH = 2
    CLAIM = 3
    STOP = 4


class Request(NamedTuple):
    verb: Verb
    argument: Any
    answer: "asyncio.Future[Any]"


def commit(database: sqlite3.Connection, requests: list[Request]) -> list[tuple["asyncio.Future[Any]", Any]]:
    """Carry out what was asked for in one transaction; the answers are good once it has returned."""
    now = time.time()
    submits = [request.argument for request in requests if request.verb is Verb.SUBMIT]
    numbers = [number for request in requests if request.verb is Verb.FINISH for number in request.argument]
    answers: list[tuple[asyncio.Future[Any], Any]] = []
    database.execute("begin immediate")
    database.executemany(INSERT, [(id, TASK, args, now) for id, args in submits])
    database.executemany(FINISH, [(now, "null", number, 1) for number in numbers])
    for request in requests:
        rows = None
        if request.verb is Verb.CLAIM:
            rows = database.execute(CLAIM, (now, TASK, request.argument)).fetchall()
        answers.append((request.answer, rows))
    database.execute("commit")
    return answers


def deliver(answers: list[tuple["asyncio.Future[Any]", Any]]) -> None:
    for future, value in answers:
        if not future.done():
            future.set_result(value)


class Writer(threading.Thread):
    """One thread, one connection."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="writer", daemon=True)
        self.path = path
        self.loop = asyncio.get_running_loop()
        self.requests: queue.SimpleQueue[Request] = queue.SimpleQueue()

    def ask(self, verb: Verb, argument: Any = None) -> "asyncio.Future[Any]":
        answer = self.loop.create_future()
        self.requests.put(Request(verb, argument, answer))
        return answer

    def run(self) -> None:
        database = connect(self.path)
        stop = False
        while not stop:
            batch = [self.requests.get()]
            batch += [self.requests.get_nowait() for _ in range(self.requests.qsize())]
            stop = any(request.verb is Verb.STOP for request in batch)
            self.loop.call_soon_threadsafe(deliver, commit(database, batch))
        database.close()


class Program:
    """Submits and runs; `concurrency` jobs at once."""

    def __init__(self, path: Path, concurrency: int) -> None:
        self.writer = Writer(path)
        self.writer.start()
        self.concurrency = concurrency
        self.running: set[asyncio.Task[None]] = set()
        self.ended: list[int] = []
        self.news = asyncio.Event()

    async def submit(self, number: int) -> None:
        await self.writer.ask(Verb.SUBMIT, (job_id(number), ARGS))
        self.news.set()

    async def job(self, number: int) -> None:
        await asyncio.sleep(0)
        self.ended.append(number)
        self.news.set()

    def start(self, number: int) -> None:
        task = asyncio.create_task(self.job(number))
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def work(self, count: int) -> None:
        """Run jobs until `count` results are committed."""
        finished = 0
        while finished < count:
            self.news.clear()
            ended, self.ended = self.ended, []
            asked = [self.writer.ask(Verb.FINISH, ended)] if ended else []
            asked.append(self.writer.ask(Verb.CLAIM, self.concurrency - len(self.running)))
            *_, claimed = await asyncio.gather(*asked)
            finished += len(ended)
            for number, _, _ in claimed:
                self.start(number)
            if finished < count and not claimed:
                await self.news.wait()

    async def close(self) -> None:
        await self.writer.ask(Verb.STOP)
        self.writer.join()


async def submit_all(submit: Callable[[int], Coroutine[Any, Any, Any]], count: int, submitters: int) -> None:
    """`submitters` tasks, each of which awaits one submit after another."""

    async def share(first: int) -> None:
        for number in range(first, count, submitters):
            await submit(number)

    await asyncio.gather(*(share(first) for first in range(submitters)))


async def submit_to_done(path: Path, count: int, submitters: int, concurrency: int) -> dict[str, float]:
    """Jobs per second from the first submit to the last committed result, all in this process."""
    program = Program(path, concurrency)
    began = time.perf_counter()
    working = asyncio.create_task(program.work(count))
    await submit_all(program.submit, count, submitters)
    submitted = time.perf_counter()
    await working
    seconds = time.perf_counter() - began
    await program.close()
    check = sqlite3.connect(path)
    ((done,),) = check.execute("select count(*) from jobs where status = ?", (DONE,)).fetchall()
    check.close()
    if done != count:
        raise RuntimeError(f"{done} of {count} jobs are done")
    return {"rate": count / seconds, "submit_rate": count / (submitted - began)}
