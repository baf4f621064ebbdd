"""Ids in every line of the log: in tasks, threads and jobs; outside of them the line is whole as well."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from pythonjsonlogger.json import JsonFormatter

from lastcall import TaskManager
from lastcall._names import LOG_FIELDS
from lastcall.jobs import Context, Jobs
from lastcall.logs import ContextFilter, context_fields
from lastcall.testing import run_jobs

log = logging.getLogger("a program")


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, object]] = []
        self.setFormatter(JsonFormatter("{levelname}{message}", style="{"))
        self.addFilter(ContextFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))

    def line(self, message: str) -> dict[str, object]:
        (line,) = [line for line in self.lines if line["message"] == message]
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)


async def test_tasks_threads_and_nobody(lines: Lines) -> None:
    """A task, a thread, a hold and code of nobody's log a line each: the first three know whose they are."""
    manager = TaskManager(name="bar")

    async def work() -> None:
        log.info("in a task")

    log.info("outside")
    async with manager:
        await manager.create_task(work(), id="w1", name="work")
        await manager.run_in_thread(log.info, "in a thread", name="crunch")
        with manager.hold("GET /"):
            log.info("in a request")
    told = [lines.line(f"in a {where}") for where in ("task", "thread", "request")]
    assert [line["task_name"] for line in told] == ["work", "crunch", "GET /"]
    assert {line["manager"] for line in told} == {"bar"}
    assert told[0]["task_id"] == "w1"
    outside = lines.line("outside")
    assert {name: outside[name] for name in (field.name for field in LOG_FIELDS)} == dict.fromkeys(
        (field.name for field in LOG_FIELDS), None
    )


@pytest.mark.loops("asyncio")
async def test_jobs_and_their_steps(lines: Lines) -> None:
    """A job logs before its step, in it (a thread), and in a task that it starts: each line has job and attempt."""
    jobs = Jobs("sqlite:///never-opened.db")

    def inside() -> None:
        log.info("in the step")

    async def beside() -> None:
        log.info("beside")

    @jobs.task(name="work")
    async def work(ctx: Context) -> None:
        log.info("before")
        await ctx.step(inside, name="inside")
        await asyncio.create_task(beside())
        log.info("after")

    async with run_jobs(jobs) as run:
        job = await work.submit()
        run.crash_at("inside")
        await run.until_idle()
    assert [line["attempt"] for line in lines.lines if line["message"] == "before"] == [1, 2]
    assert {line["job_id"] for line in lines.lines} == {job.id}
    assert {line["job_task"] for line in lines.lines} == {"work"}
    assert [line["step"] for line in lines.lines if line["message"] == "in the step"] == ["inside"] * 2
    assert lines.line("after")["step"] is None and lines.line("beside")["step"] is None


def test_a_record_keeps_what_it_brings(lines: Lines) -> None:
    """A program puts a field of this name into its record itself: it stays."""
    log.info("mine", extra={"job_id": "j-1"})
    assert lines.line("mine")["job_id"] == "j-1"


@pytest.mark.loops("asyncio")
async def test_lines_about_work_have_its_ids_although_it_does_not_run(lines: Lines) -> None:
    """A task and a job fail; lastcall tells so after their end: with the name of the event, and whose it is."""
    jobs = Jobs("sqlite:///never-opened.db")

    async def fail() -> None:
        raise ValueError("no beer")

    @jobs.task(name="work")
    async def work() -> None:
        await fail()

    own = logging.getLogger("lastcall")
    before = own.level
    own.addHandler(lines)
    own.setLevel(logging.INFO)
    try:
        async with TaskManager() as manager, run_jobs(jobs) as run:
            await asyncio.wait({manager.create_task(fail(), id="f1", name="fail")})
            job = await work.submit()
            await run.until_idle()
    finally:
        own.removeHandler(lines)
        own.setLevel(before)
    told = {line["event"]: line for line in lines.lines if line["event"] is not None}
    assert (told["task.failed"]["task_id"], told["task.failed"]["task_name"]) == ("f1", "fail")
    assert (told["attempt.failed"]["job_id"], told["attempt.failed"]["attempt"]) == (job.id, 1)
    assert told["shutdown.ended"]["levelname"] == "INFO"


def test_outside_of_everything_there_is_nothing() -> None:
    """Code of nobody's has no fields."""
    assert context_fields() == {}
