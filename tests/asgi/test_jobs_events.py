"""A job's events over HTTP: on a real SQLite file, with a worker, through the face and through a user's own route."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException

from lastcall import StopReason
from lastcall.fastapi import LogResponse, install
from lastcall.jobs import Context, Job, Jobs, JobStatus
from tests.asgi.driver import Request, get, running, until, within
from tests.asgi.test_jobs_face import NOBODY, Service, run_all, serving, url_of
from tests.asgi.test_log_response import HOST, SSE, entries, names, seqs


def events(
    service: Service, id: str, query: str = "", *headers: tuple[bytes, bytes], **options: Any
) -> Request:
    path = f"/lastcall/jobs/{id}/events"
    return Request(service.app, path, query=query, headers=[HOST, SSE, *headers], **options)


def talker(service: Service) -> Any:
    @service.jobs.task(name="talk")
    async def talk(ctx: Context, words: int) -> str:
        async with ctx.stream("answer") as out:
            for n in range(words):
                await out.write(f"word {n} ")
                await ctx.emit("count", {"n": n})
        return "said"

    return talk


def asker(service: Service) -> Any:
    @service.jobs.task(name="ask")
    async def ask(ctx: Context) -> Any:
        await ctx.emit("question", {"text": "may I?"})
        return await ctx.wait_for("go")

    return ask


async def test_a_job_is_read_from_its_submit_to_its_end(tmp_path: Path) -> None:
    """Somebody reads before it runs: every entry comes, in order, then the end with the result."""
    async with serving(tmp_path) as service:
        job = await talker(service).submit(5)
        reader = await events(service, job.id).until(lambda request: request.chunks)
        assert json.loads(reader.events()[0]["data"])["snapshot"]["status"] == "queued"
        await run_all(service)
        await reader.done()
        assert seqs(reader) == list(range(1, len(seqs(reader)) + 1))
        text = "".join(entry["data"]["text"] for entry in entries(reader) if entry["type"] == "stream.text")
        assert text == "".join(f"word {n} " for n in range(5))
        end = json.loads(reader.events()[-1]["data"])
        assert names(reader)[-1] == "end" and end["reason"] == "closed"
        assert end["snapshot"]["status"] == "completed" and end["snapshot"]["result"] == "said"
        last = str(seqs(reader)[-1]).encode()
        assert (await events(service, job.id, "", (b"last-event-id", last)).done()).status == 204


@pytest.mark.loops("asyncio")
async def test_every_format_tells_the_same(tmp_path: Path) -> None:
    """SSE, lines and pages have the same entries, to the letter."""
    async with serving(tmp_path) as service:
        job = await talker(service).submit(3)
        await run_all(service)
        by_sse = entries(await events(service, job.id).done())
        path = f"/lastcall/jobs/{job.id}/events"
        lines = (await get(service.app, path, query="format=ndjson")).body.splitlines()
        by_line = [json.loads(line) for line in lines if b'"seq"' in line]
        by_page, after = [], 0
        while page := (await get(service.app, path, query=f"after={after}&limit=2")).json():
            by_page += page["events"]
            if page["next"] == after:
                break
            after = page["next"]
        assert by_sse == by_line == by_page


async def test_bad_questions_about_events(tmp_path: Path) -> None:
    """Unknown jobs, what is no id, cursors that are none, unknown parameters; in every format, and nothing is held."""
    async with serving(tmp_path) as service:
        job = await service.wait.submit()
        for id in (NOBODY, "nobody"):
            assert (await events(service, id).done()).status == 404
            assert (await get(service.app, f"/lastcall/jobs/{id}/events", query="wait=5")).status == 404
        for query in ("after=x", "after=9", "cancel_after=-1", "cancel_after=x", "befor=3", "format=xml"):
            assert (await events(service, job.id, query).done()).status == 400, query
        await until(lambda: not service.manager.calls())


async def test_a_reader_that_leaves_may_cancel_its_job(tmp_path: Path) -> None:
    """`?cancel_after=0`: the job is cancelled by the disconnect; another reader keeps it."""
    async with serving(tmp_path) as service:
        job = await service.wait.submit()
        reader = await events(service, job.id, "cancel_after=0").until(lambda request: request.chunks)
        other = await events(service, job.id).until(lambda request: request.chunks)
        reader.leave()
        await reader.done()
        assert (await job.status()) is JobStatus.QUEUED
        other.leave()
        await other.done()
        info = await within(job.wait())
        assert info.status is JobStatus.CANCELLED and info.cancel_reason is StopReason.DISCONNECT


async def test_the_drain_sends_readers_of_jobs_away(tmp_path: Path) -> None:
    """Without an end; the next server goes on where they were. Pages are answered until the store closes."""
    async with serving(tmp_path) as service:
        job: Job[Any] = await asker(service).submit()
        reader = await events(service, job.id).until(lambda request: request.chunks)
        with service.manager.hold("work"):
            service.manager.begin_shutdown()
            await reader.done()
            assert reader.complete and "end" not in names(reader)
            page = await get(service.app, f"/lastcall/jobs/{job.id}/events")
            assert page.status == 200 and page.json()["snapshot"]["status"] == "queued"
            sent_on = await events(service, job.id).done()
            assert sent_on.status == 200 and set(sent_on.events()[0]) == {"retry"}
            assert (await get(service.app, f"/lastcall/jobs/{job.id}/events", query="wait=5")).status == 503
    async with serving(tmp_path) as service:
        asker(service)
        await finish(service, job.id)
        again = events(service, job.id, "", (b"last-event-id", reader.events()[-2]["id"].encode()))
        assert names(await again.done())[-1] == "end"


async def finish(service: Service, id: str) -> None:
    async with service.jobs.worker(manager=service.manager):
        job = service.jobs.job(id)
        await job.send("go", "on")
        await within(job.wait())


async def test_an_app_that_does_not_run_reads_nothing(tmp_path: Path) -> None:
    """Before its startup and after its end: 503, or the word to come back; the jobs are not opened for it."""
    service = Service(Jobs(url_of(tmp_path)))
    assert (await events(service, NOBODY).done()).status == 503
    async with running(service.app):
        job = await service.wait.submit()
    assert set((await events(service, job.id).done()).events()[0]) == {"retry"}
    assert (await get(service.app, f"/lastcall/jobs/{job.id}/events")).status == 503
    assert not service.jobs._client.is_open


async def test_a_route_of_ones_own(tmp_path: Path) -> None:
    """Behind the route's own checks, with headers of its own; the same readers, the same end."""
    jobs = Jobs(url_of(tmp_path))

    @jobs.task(name="wait")
    async def wait(ctx: Context) -> Any:
        return await ctx.wait_for("go")

    app = FastAPI()
    install(app, jobs=jobs)

    @app.get("/chats/{id}/events")
    async def chat_events(id: str, user: str) -> LogResponse:
        if user != "ada":
            raise HTTPException(403)
        response = LogResponse(jobs.job(id), cancel_after_seconds=0)
        response.set_cookie("seen", "yes")
        return response

    async with running(app):
        job = await wait.submit()
        path = f"/chats/{job.id}/events"
        assert (await get(app, path, query="user=eve")).status == 403
        page = await get(app, path, query="user=ada&token=1")
        assert page.status == 200 and page.json()["snapshot"]["id"] == job.id
        reader = Request(app, path, query="user=ada", headers=[HOST, SSE])
        await reader.until(lambda request: request.chunks)
        assert reader.headers["content-type"].startswith("text/event-stream")
        assert reader.headers["set-cookie"].startswith("seen=yes")
        reader.leave()
        await reader.done()
        await within(job.wait())
        assert (await get(app, f"/chats/{NOBODY}/events", query="user=ada")).status == 404
        await asyncio.sleep(0)
