"""``lastcall jobs``: the verbs on a store. Each prints tables or JSON and answers the exit code.

0: done. 1: not possible in the state the job is in. 2: an unknown id, or what could not be used.
Lines about what went wrong go to standard error, so that standard output is the answer alone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lastcall.asgi._body import BadBody, parse
from lastcall.asgi._jobs_json import (
    show_attempt,
    show_event,
    show_job,
    show_overview,
    show_page,
    show_step,
    undecided_steps,
)
from lastcall.cli._ids import Ids
from lastcall.cli._load import jobs_at
from lastcall.cli._say import Unusable, complain, complain_of, write, write_json
from lastcall.cli._tables import draw_job, draw_jobs, draw_overview
from lastcall.exceptions import JobError, UnknownJob
from lastcall.jobs import Job, Jobs, JobStatus
from lastcall.streams import Entry

DONE, IMPOSSIBLE, UNUSABLE = 0, 1, 2

Verb = Callable[..., Awaitable[int]]


def run(url: str | None, target: str | None, verb: Verb, *args: Any, **options: Any) -> int:
    """Open the store, carry out one verb, close it, and answer the exit code."""

    async def with_jobs(jobs: Jobs) -> int:
        async with jobs:
            return await verb(jobs, *args, **options)

    try:
        return asyncio.run(with_jobs(jobs_at(url, target)))
    except (Unusable, JobError, ValueError) as error:
        complain_of(error)
        return UNUSABLE


# --- looking --------------------------------------------------------------------------------------------


async def list_jobs(
    jobs: Jobs, statuses: Sequence[str], label: str | None, *, as_json: bool, limit: int, **filters: Any
) -> int:
    """A page of jobs; the other `filters` as of `Jobs.find`."""
    filters |= {"status": _statuses(statuses), "label": _label(label)}
    if filters.get("before") is not None:
        filters["before"] = await Ids(jobs).whole(filters["before"])
    infos = await jobs.find(limit=limit + 1, **filters)
    if as_json:
        write_json(show_page(infos, limit))
        return DONE
    write(draw_jobs(infos[:limit], time.time()))
    if len(infos) > limit:
        complain(f"there are more; the next page: --before {infos[limit - 1].id}")
    return DONE


def _statuses(given: Sequence[str]) -> list[JobStatus] | None:
    for word in given:
        if word not in list(JobStatus):
            raise Unusable(f"there is no status {word!r}; use {', '.join(JobStatus)}")
    return [JobStatus(word) for word in given] or None


def _label(given: str | None) -> tuple[str, str] | None:
    if given is None:
        return None
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise Unusable(f"a label must look like name=value, not {given!r}")
    return name, value


async def show(jobs: Jobs, given: str, *, as_json: bool, events: int) -> int:
    """One job with its steps, its attempts and its last events."""
    job = jobs.job(await Ids(jobs).whole(given))
    info, steps, attempts = await job.info(), await job.steps(), await job.attempts()
    undecided = await _undecided(jobs, job.id)
    last = await _last_events(job, events)
    if as_json:
        shown = show_job(info)
        shown["steps"] = [show_step(step) for step in steps]
        shown["attempts"] = [show_attempt(attempt) for attempt in attempts]
        shown["undecided_steps"] = undecided
        shown["events"] = [show_event(event) for event in last]
        write_json(shown)
    else:
        write(draw_job(info, steps, attempts, undecided, [show_event(event) for event in last], time.time()))
    return DONE


async def stats(jobs: Jobs, *, as_json: bool) -> int:
    """Counts, workers, schedules."""
    overview = await jobs.overview()
    if as_json:
        write_json(show_overview(overview))
    else:
        write(draw_overview(overview))
    return DONE


async def _last_events(job: Job[Any], count: int) -> list[Entry]:
    """The end of a log."""
    log = job.log()
    stands = await log.read(0, 0)
    return (await log.read(max(0, stands.last - count), count)).entries


async def _undecided(jobs: Jobs, job_id: str) -> list[str]:
    return [step for row in await jobs.engine.get([job_id]) for step in undecided_steps(row)]


# --- doing ----------------------------------------------------------------------------------------------


async def cancel(jobs: Jobs, given: Sequence[str], *, as_json: bool) -> int:
    """Cancel each for good."""

    async def one(job: Job[Any]) -> tuple[str, str]:
        outcome = await job.cancel()
        return outcome, "it has ended already" if outcome == "already_ended" else ""

    return await _each(jobs, given, one, as_json)


async def retry(jobs: Jobs, given: Sequence[str], *, as_json: bool) -> int:
    """Queue each again."""

    async def one(job: Job[Any]) -> tuple[str, str]:
        status = await job.retry()
        return status, "" if status == "queued" else "only a failed or cancelled job can be queued again"

    return await _each(jobs, given, one, as_json)


async def purge(jobs: Jobs, given: Sequence[str], *, as_json: bool) -> int:
    """Delete each, if it has ended."""

    async def one(job: Job[Any]) -> tuple[str, str]:
        status = await job.purge()
        return (
            ("purged", "") if status.final else (status, "only an ended job can be purged; cancel it first")
        )

    return await _each(jobs, given, one, as_json)


async def send(jobs: Jobs, given: str, name: str, text: str, *, as_json: bool) -> int:
    """Send one a message; `text` is its data as JSON."""
    if not name:
        raise Unusable("the name of a message is a text that is not empty")
    data = _json(text)

    async def one(job: Job[Any]) -> tuple[str, str]:
        status = await job.send(name, data)
        return (status, "a job that has ended takes no messages") if status.final else ("sent", "")

    return await _each(jobs, [given], one, as_json)


async def resolve(
    jobs: Jobs,
    given: str,
    step: str,
    *,
    happened: str | None,
    not_happened: bool,
    error: str | None,
    as_json: bool,
) -> int:
    """Decide about a step of one, if that is what it waits for: a decision kept for later would answer a question
    that nobody has asked yet. `happened`: the step's value as JSON."""
    if (happened is not None) + not_happened + (error is not None) != 1:
        raise Unusable("say one of --happened VALUE, --not-happened, --error TEXT")
    value = None if happened is None else _json(happened)

    async def one(job: Job[Any]) -> tuple[str, str]:
        status = await job.status()
        undecided = await _undecided(jobs, job.id)
        if step not in undecided:
            which = ", ".join(undecided) or "none"
            return status, f"it asks for no decision about {step!r}; the steps it asks about: {which}"
        await job.resolve(step, happened=not not_happened, value=value, error=error)
        return "resolved", ""

    return await _each(jobs, [given], one, as_json)


def _json(text: str) -> Any:
    try:
        return parse(os.fsencode(text))
    except BadBody as error:
        raise Unusable(
            f"{text!r}: {str(error).replace('the body', 'it')}; a text needs quotes: '\"yes\"'"
        ) from None


async def _each(
    jobs: Jobs,
    given: Sequence[str],
    one: Callable[[Job[Any]], Awaitable[tuple[str, str]]],
    as_json: bool,
) -> int:
    """Do it to each of them, whatever becomes of the others; the worst of it is the exit code.

    `one` answers in a word, and why it was not possible.
    """
    ids, code = Ids(jobs), DONE
    answers = []
    for text in given:
        try:
            job = jobs.job(await ids.whole(text))
            answer, why = await one(job)
        except UnknownJob as error:
            complain(str(error))
            answers.append({"id": text, "answer": "unknown"})
            code = UNUSABLE
            continue
        answers.append({"id": job.id, "answer": answer})
        if why:
            complain(f"job {job.id} is {answer.replace('_', ' ')}: {why}")
            code = max(code, IMPOSSIBLE)
        elif not as_json:
            write(f"{job.id} {answer}\n")
    if as_json:
        write_json({"jobs": answers})
    return code


VERBS: dict[str, Verb] = {
    "list": list_jobs,
    "show": show,
    "stats": stats,
    "cancel": cancel,
    "retry": retry,
    "purge": purge,
    "send": send,
    "resolve": resolve,
}
