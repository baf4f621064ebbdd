"""The page for Prometheus, read by the client's own parser, on the loop and from a thread."""

import asyncio
import threading
import urllib.request
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from lastcall import TaskManager
from lastcall._names import METRICS
from lastcall.asgi import Lastcall
from lastcall.exceptions import EngineUnavailable
from lastcall.jobs import Context, Jobs
from lastcall.prometheus import Metrics
from lastcall.testing import run_jobs

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """By name and label values, the labels in alphabetical order."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(metrics: Metrics, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(metrics), base_url="http://prometheus"
    ) as client:
        return await client.get("/", headers=headers)


def make_jobs() -> Jobs:
    jobs = Jobs("sqlite:///never-opened.db")

    @jobs.task(name="count")
    async def count(ctx: Context, number: int) -> int:
        await ctx.step(asyncio.sleep, 0, name="nap")
        await ctx.emit("counted", number)
        return number

    return jobs


@pytest.mark.loops("asyncio")
async def test_everything_has_its_sample() -> None:
    """Tasks run and end, a job is run: each metric of the table is on the page, with the value that was made."""
    manager, jobs = TaskManager(name="bar"), make_jobs()
    metrics = Metrics(manager, jobs=jobs)
    async with manager, run_jobs(jobs) as run:
        waiting = manager.create_task(asyncio.Event().wait())
        await manager.create_task(asyncio.sleep(0))
        await jobs.task_named("count").submit(3)
        await run.until_idle()
        answer = await scrape(metrics)
        waiting.cancel()
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = samples(answer.text)
    assert found["lastcall_ready", "bar"] == 1
    assert found["lastcall_tasks", "bar", "running"] == 1
    assert found["lastcall_tasks_ended_total", "bar", "completed"] == 1
    assert found["lastcall_jobs", "default", "completed"] == 1
    assert found["lastcall_workers",] == 1
    assert found["lastcall_attempts_total", "completed", "", "count"] == 1
    assert found["lastcall_attempts_running", "count"] == 0
    assert found["lastcall_step_duration_seconds_count", "completed", "count"] == 1
    assert found["lastcall_queue_latency_seconds_count", "default", "count"] == 1
    assert found["lastcall_stream_entries_total", "count"] == 1
    after = samples((await scrape(metrics)).text)
    assert after["lastcall_ready", "bar"] == 0
    assert after["lastcall_drain_duration_seconds_count", "true", "bar"] == 1
    families = {family.name for family in text_string_to_metric_families(answer.text)}
    families = {name for name in families if not name.endswith("_created")}  # the client adds them
    wanted = {metric.prometheus.removesuffix("_total") for metric in METRICS}
    assert families == wanted


@pytest.mark.loops("asyncio")
async def test_openmetrics_and_wrong_methods() -> None:
    """A scraper that asks for OpenMetrics gets what its strict parser reads; other methods are refused."""
    manager = TaskManager()
    metrics = Metrics(manager)
    async with manager:
        answer = await scrape(metrics, accept="application/openmetrics-text; version=1.0.0")
    assert list(openmetrics.text_string_to_metric_families(answer.text))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(metrics), base_url="http://p") as client:
        refused = await client.post("/")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert (await client.head("/")).content == b""


@pytest.mark.loops("asyncio")
async def test_scrapes_share_one_question_and_outlive_the_store(caplog: pytest.LogCaptureFixture) -> None:
    """Fifty scrapes come at once, then the store is away: it is asked once; later the page has tasks but no jobs."""
    manager, jobs = TaskManager(name="bar"), make_jobs()
    metrics = Metrics(manager, jobs=jobs)
    asked = 0
    async with manager, run_jobs(jobs):
        overview = jobs.engine.overview

        async def counted() -> Any:
            nonlocal asked
            asked += 1
            return await overview()

        jobs.engine.overview = counted  # type: ignore[method-assign]
        await asyncio.gather(*(scrape(metrics) for _ in range(50)))
        assert asked == 1

        async def away() -> Any:
            raise EngineUnavailable("the disk is full")

        jobs.engine.overview = away  # type: ignore[method-assign]
        metrics._readings._read_at = -10.0  # a second later
        found = samples((await scrape(metrics)).text)
        jobs.engine.overview = overview  # type: ignore[method-assign]
    assert found["lastcall_tasks", "bar", "running"] == 0
    assert ("lastcall_workers",) not in found
    assert "the disk is full" in caplog.text


@pytest.mark.loops("asyncio")
async def test_a_server_on_a_thread_reads_the_store_through_the_loop() -> None:
    """The registry is served by the client's own server, on its thread: jobs are counted there as well."""
    registry, jobs = CollectorRegistry(), make_jobs()
    metrics = Metrics(jobs=jobs, registry=registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        async with run_jobs(jobs) as run:
            await jobs.task_named("count").submit(3)
            await run.until_idle()
            url = f"http://127.0.0.1:{server.server_port}/metrics"

            def read() -> str:
                with urllib.request.urlopen(url, timeout=20) as answer:
                    return str(answer.read().decode())

            found = samples(await asyncio.to_thread(read))
        assert found["lastcall_jobs", "default", "completed"] == 1
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    metrics.close()
    assert list(registry.collect()) == []


def test_what_cannot_be_registered_leaves_nothing_behind() -> None:
    """A second set on the same registry is refused as a whole; without a manager and jobs there is nothing to show."""
    registry = CollectorRegistry()
    first = Metrics(TaskManager(), registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(TaskManager(), jobs=make_jobs(), registry=registry)
    first.close()
    first.close()
    Metrics(TaskManager(), registry=registry)
    with pytest.raises(ValueError, match="needs a manager"):
        Metrics()


async def test_many_tasks_are_counted_from_a_thread_while_they_come_and_go() -> None:
    """A thread counts tasks while the loop makes and ends them: it always gets an answer."""
    manager = TaskManager(name="bar")
    metrics = Metrics(manager)
    done = threading.Event()
    read: list[int] = []

    def scraper() -> None:
        while not done.is_set() and len(read) < 200:
            read.append(len(list(metrics.registry.collect())))

    async with manager:
        reading = asyncio.get_running_loop().run_in_executor(None, scraper)
        while len(read) < 200 and not reading.done():
            await asyncio.gather(*(manager.create_task(asyncio.sleep(0)) for _ in range(50)))
        done.set()
        await reading
    assert len(read) == 200 and min(read) > 3


@pytest.mark.loops("asyncio")
async def test_the_face_shows_the_page_in_the_drain_too() -> None:
    """The app refuses calls while it drains: its page of metrics below the prefix still answers, and tells of it."""
    manager = TaskManager(name="bar")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the app was called")

    served = Lastcall(app, manager, metrics=Metrics(manager), allow=lambda scope: True)
    release = asyncio.Event()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://bar") as client:
        async with manager:
            manager.create_task(release.wait())
            manager.begin_shutdown(skip_notice=True)
            answer = await client.get("/lastcall/metrics")
            release.set()
    found = samples(answer.text)
    assert (found["lastcall_ready", "bar"], found["lastcall_tasks", "bar", "running"]) == (0, 1)
