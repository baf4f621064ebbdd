"""A service with something of everything, for a browser to look at.

`uvicorn tests.dashboard.bar:app`, in a folder of its own:

POST /order/{task}?args=JSON&key=...    submit a job; answers its id
POST /tasks/{count}?until=FILE          so many tasks that wait for the shutdown, and then for a file
POST /say?name=WORD                     lets the streams that wait for a word go on
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall.fastapi import Access, install
from lastcall.jobs import Context, Jobs

jobs = Jobs("sqlite:///bar.db")
manager = TaskManager(
    name="the bar", plan=ShutdownPlan(notice=0, drain=float(os.environ.get("DRAIN", "20")), cancel=3, close=2)
)
words: dict[str, asyncio.Event] = {}


def word(name: str) -> asyncio.Event:
    return words.setdefault(name, asyncio.Event())


async def read_file(name: str, seconds: float, wait: str) -> int:
    await asyncio.sleep(seconds)
    if wait:
        await word(wait).wait()
    return len(name) * 1000


@jobs.task(queue="reports", retries=1)
async def analyse(
    ctx: Context, folder: str, files: int = 6, seconds: float = 0.05, wait: str = ""
) -> dict[str, int]:
    """A job of several steps, of which one takes longer; they may wait until they are given the word."""
    found = {}
    for number in range(files):
        name = f"{folder}chapter-{number + 1}.md"
        pause = seconds * (3 if number == 2 else 1)
        found[name] = await ctx.step(read_file, name, pause, wait, name=f"read {name}")
        await ctx.progress(number + 1, files, "files read")
    return found


@jobs.task(queue="chats")
async def answer(ctx: Context, question: str, pause: float = 0.0) -> str:
    """A job that streams; between its two sentences it waits until it is given the word."""
    async with ctx.stream("answer") as out:
        for each in "When the bell rings the bar stops taking orders.".split():
            await out.write(each + " ")
            await asyncio.sleep(pause)
        while not word(question).is_set():
            if current_shutdown().requested:
                await ctx.step(asyncio.sleep, 0)  # a checkpoint: here a drain hands the job over
            await asyncio.sleep(0.02)
        await out.write("Everyone who was served may finish the glass.")
    return "told"


@jobs.task(queue="mail", retries=0)
async def invoice(ctx: Context, customer: str) -> str:
    """A job that fails, with a message somebody else has chosen."""
    await ctx.log(f"looking for {customer}")
    for kind in ("progress", "end", "snapshot", "stream.text", "step.reset", f"<b>{customer[:20]}"):
        await ctx.emit(kind, customer)  # of types that mean something to a reader, and not in their form
    raise LookupError(f"no customer {customer!r} in the ledger")


@jobs.task(queue="mail")
async def approve(ctx: Context, amount: float) -> object:
    """A job that waits for a person."""
    return await ctx.wait_for("approval")


@jobs.task(queue="mail")
async def ping(ctx: Context, number: int = 0) -> int:
    return number


@jobs.task(queue="reports", cron="0 3 * * *")
async def nightly(ctx: Context) -> None: ...


BY_NAME = {task.name: task for task in (analyse, answer, invoice, approve, ping)}


async def until_shutdown() -> None:
    await current_shutdown().wait()


async def finish_glass(seconds: float, until: str, spills: bool) -> None:
    """A guest who hears of the last call and takes some time, or stays until there is a file of this name."""
    await current_shutdown().wait()
    while until and not os.path.exists(until):
        await asyncio.sleep(0.02)
    await asyncio.sleep(seconds)
    if spills:
        raise RuntimeError("the glass is broken")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with jobs.worker(concurrency=8, manager=manager):
        manager.create_task(until_shutdown(), name="watch the till", daemon=True)
        yield


app = FastAPI(lifespan=lifespan)
install(app, manager, jobs=jobs, streams=jobs.streams, allow=Access(read_only="READ_ONLY" in os.environ))


@app.post("/order/{task}")
async def order(task: str, args: str = "{}", key: str | None = None, many: int = 1) -> dict[str, str]:
    chosen = BY_NAME[task].options(key=key, labels={"table": "4"})
    if many > 1:
        calls = [chosen.call(**json.loads(args)) for _ in range(many)]
        return {"id": (await jobs.submit_many(calls))[-1].id}
    return {"id": (await chosen.submit(**json.loads(args))).id}


@app.post("/tasks/{count}")
async def start(
    count: int, name: str = "guest", seconds: float = 0.0, until: str = "", spills: bool = False
) -> None:
    for number in range(count):
        manager.create_task(finish_glass(seconds, until, spills), name=f"{name} {number + 1}")


@app.post("/say")
async def say(name: str) -> None:
    word(name).set()
