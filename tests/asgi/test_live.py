"""PREFIX/live and PREFIX/history: what a page that is left open is told, whoever else has one open."""

import asyncio
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lastcall.asgi._live as live_module
from lastcall import ShutdownPlan, TaskManager
from lastcall.asgi import Access, Lastcall
from lastcall.asgi._history import STEP_SECONDS, History, Sample
from lastcall.asgi._live import pause_seconds
from lastcall.exceptions import EngineUnavailable
from lastcall.jobs import Jobs
from tests.asgi.driver import Request, get, running, until
from tests.asgi.test_face import not_found
from tests.cli.program import Program

LIVE = "/lastcall/live"


def make(**options: Any) -> Lastcall:
    return Lastcall(not_found, TaskManager(name="bar", plan=ShutdownPlan(drain=30)), **options)


def told(request: Request, name: str) -> list[Any]:
    return [json.loads(event["data"]) for event in request.events() if event.get("event") == name]


async def heard(request: Request, name: str, wanted: Callable[[Any], object] = lambda _: True) -> Any:
    """The first event of this name that is as wanted."""
    await request.until(lambda _: any(wanted(one) for one in told(request, name)))
    return next(one for one in told(request, name) if wanted(one))


def with_jobs(folder: Path) -> tuple[Jobs, Lastcall, Any]:
    jobs = Jobs(f"sqlite:///{folder}/jobs.db")

    @jobs.task(name="add", queue="sums")
    async def add(a: int) -> int:
        return a + 1

    return jobs, make(jobs=jobs), add


@pytest.mark.loops("asyncio")
async def test_a_page_is_told_where_things_stand_and_what_changes(tmp_path: Path) -> None:
    """On connecting everything; then a task that begins, a job that is submitted and run, in plots as well."""
    jobs, app, add = with_jobs(tmp_path)
    async with running(app):
        request = Request(app, LIVE)
        meta = await heard(request, "meta")
        assert (meta["name"], meta["state"], meta["read_only"], meta["has_jobs"]) == (
            "bar",
            "open",
            False,
            True,
        )
        assert (await heard(request, "shutdown"))["state"] == "open"
        assert (await heard(request, "overview"))["jobs"] == {}
        assert (await heard(request, "tasks"))["tasks"] == []
        release = asyncio.Event()
        app.manager.create_task(release.wait(), name="guest")
        assert (await heard(request, "tasks", lambda one: one["tasks"]))["tasks"][0]["name"] == "guest"
        async with jobs.worker(manager=app.manager):
            job = await add.submit(1)
            await job.wait(10)
        seen = await heard(request, "overview", lambda one: one["jobs"] == {"completed": 1})
        assert seen["available"] and seen["queues"] == {"sums": {"completed": 1}}
        points = await heard(
            request, "history", lambda one: sum(p["jobs"]["completed"] for p in one["points"])
        )
        assert sum(p["jobs"]["submitted"] for p in points["points"]) == 1
        release.set()
        ended = await heard(request, "tasks", lambda one: "guest" in [task["name"] for task in one["ended"]])
        assert ended["stats"]["running"] == len(ended["tasks"])
        assert request.headers["cache-control"] == "no-store, no-transform"
        request.leave()
        await request.done()


async def test_the_drain_is_seen_as_it_happens_and_the_report_comes_last() -> None:
    """Begun by a signal or by a button: phase by phase, who is still there, then the report; then it ends by itself."""
    async with running(app := make()) as lifespan:
        release = asyncio.Event()
        app.manager.create_task(release.wait(), name="the last guest")
        request = Request(app, LIVE)
        await heard(request, "shutdown")
        await get(app, "/lastcall/drain", method="POST")
        stand = await heard(request, "shutdown", lambda one: one["state"] == "draining")
        assert [work["name"] for work in stand["work"]] == ["the last guest"]
        less = stand["remaining_seconds"]
        await heard(request, "shutdown", lambda one: (one["remaining_seconds"] or less) < less)
        release.set()
        await request.done()
        await lifespan.stop()
    assert request.complete and request.events()[-1]["event"] == "report"
    assert told(request, "report")[0]["report"]["clean"]
    late = await get(app, LIVE)
    assert told(late, "report") and late.complete


async def test_many_readers_have_one_producer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty open pages ask the store as often as one, and when the last one leaves nothing is left running."""
    jobs, app, _ = with_jobs(tmp_path)
    asked = 0
    overview = jobs.overview

    async def counted() -> Any:
        nonlocal asked
        asked += 1
        return await overview()

    monkeypatch.setattr(jobs, "overview", counted)
    async with running(app):
        tasks_before = asyncio.all_tasks()
        readers = [Request(app, LIVE) for _ in range(50)]
        for reader in readers:
            await heard(reader, "overview")
        assert asked == 1
        for reader in readers:
            reader.leave()
            await reader.done()
        await until(lambda: asyncio.all_tasks() == tasks_before)


@pytest.mark.loops("asyncio")
async def test_a_reader_who_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stuck browser: it is dropped with nothing more than its own frame in memory, and others hear all the same."""
    monkeypatch.setattr(live_module, "STUCK_SECONDS", 0.05)
    async with running(app := make()):
        stuck, other = Request(app, LIVE, reading=False), Request(app, LIVE)
        await stuck.done()
        assert not stuck.complete
        app.manager.create_task(asyncio.sleep(0), name="guest")
        await heard(other, "tasks", lambda one: "guest" in [task["name"] for task in one["ended"]])
        other.leave()
        await other.done()


@pytest.mark.loops("asyncio")
async def test_a_reader_who_is_stuck_at_the_end_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took nothing when the shutdown came: the shutdown is over without it, and it has one second more."""
    monkeypatch.setattr(live_module, "LAST_SECONDS", 0.05)
    async with running(app := make()) as lifespan:
        stuck, other = Request(app, LIVE, reading=False), Request(app, LIVE)
        await heard(other, "shutdown")
        assert (await lifespan.stop())["type"] == "lifespan.shutdown.complete"
        await stuck.done()
        await other.done()
        assert other.complete and not stuck.complete


@pytest.mark.server
@pytest.mark.slow
def test_a_stuck_browser_does_not_hold_a_real_server(tmp_path: Path) -> None:
    """
    1. Two pages are open on uvicorn; one takes nothing, and its connection is full. SIGTERM comes.
    Result: the other one sees the report, and the process ends as it should, not by its exit guard.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listener.set_inheritable(True)
        command = ["-m", "uvicorn", "tests.asgi.crowded_app:app", "--fd", str(listener.fileno())]
        with Program(command, cwd=tmp_path, keep=[listener.fileno()]) as program:
            program.wait_for("Application startup complete")
            with _open_page(listener) as stuck, _open_page(listener) as page:
                text = _read(page, b"", b"event: shutdown")
                assert stuck.recv(100)
                program.signal(signal.SIGTERM)
                _read(page, text, b"event: report")
                assert program.wait() == -signal.SIGTERM
            assert "has still not" not in program.err and "ERROR" not in program.err


def _open_page(listener: socket.socket) -> socket.socket:
    page = socket.socket()
    page.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    page.settimeout(30)
    page.connect(listener.getsockname())
    page.sendall(b"GET /lastcall/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return page


def _read(page: socket.socket, text: bytes, wanted: bytes) -> bytes:
    while wanted not in text:
        more = page.recv(1 << 16)
        assert more, text[-500:]
        text += more
    return text


@pytest.mark.loops("asyncio")
async def test_there_are_not_too_many_readers() -> None:
    """So many for one address, so many in all: 429 with Retry-After, and a place is free when somebody leaves."""
    access = Access(allow=lambda scope: True, live_readers=3, live_readers_per_client=2)
    async with running(app := make(allow=access)):
        mine = [await Request(app, LIVE).until(lambda one: one.chunks) for _ in range(2)]
        refused = await get(app, LIVE)
        assert (refused.status, refused.json()["status"]) == (429, 429)
        assert refused.headers["retry-after"] == "5" and "2 streams" in refused.json()["detail"]
        theirs = await Request(app, LIVE, client=("10.0.0.7", 1)).until(lambda one: one.chunks)
        assert "3 streams" in (await get(app, LIVE, client=("10.0.0.8", 1))).json()["detail"]
        mine[0].leave()
        await mine[0].done()
        again = await Request(app, LIVE).until(lambda one: one.chunks)
        for request in (mine[1], theirs, again):
            request.leave()
            await request.done()


@pytest.mark.loops("asyncio")
async def test_a_store_that_is_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page stays, and says why it shows no jobs."""
    jobs, app, _ = with_jobs(tmp_path)

    async def away() -> Any:
        raise EngineUnavailable("the disk is full")

    async with running(app):
        monkeypatch.setattr(jobs.engine, "overview", away)
        request = Request(app, LIVE)
        assert await heard(request, "overview") == {"available": False, "detail": "the disk is full"}
        await heard(request, "shutdown")
        request.leave()
        await request.done()


@pytest.mark.loops("asyncio")
async def test_before_the_start_and_with_head() -> None:
    """503 before the lifespan; HEAD has headers and ends."""
    assert (await get(make(), LIVE)).status == 503
    async with running(app := make()):
        head = await get(app, LIVE, method="HEAD")
        assert (
            head.headers["content-type"].startswith("text/event-stream") and head.complete and not head.body
        )


# --- history ---


@pytest.mark.loops("asyncio")
async def test_history_is_counted_from_the_first_look_until_nobody_looks() -> None:
    """Nothing is observed before the first look; then steps without gaps; ten minutes after the last look, nothing."""
    now = 1000.0
    async with TaskManager() as manager:
        history = History(manager, None, lambda: now)
        await manager.create_task(asyncio.sleep(0))
        assert history.points() == [] and manager._observers == ()
        history.look()
        await manager.create_task(asyncio.sleep(0))
        now += 3 * STEP_SECONDS
        failing = manager.create_task(_fail())
        await asyncio.wait({failing})
        assert [point["at"] for point in history.points()] == [1000.0, 1005.0, 1010.0, 1015.0]
        first, *_, last = history.points()
        assert (first["tasks"]["started"], first["tasks"]["completed"], last["tasks"]["failed"]) == (1, 1, 1)
        assert first["tasks"]["p50_seconds"] is not None and first["jobs"] is None
        now += 599
        history.look()
        assert len(history.points()) == 120
        now += 601
        await manager.create_task(asyncio.sleep(0))
        assert manager._observers == () and history.points() == []


async def _fail() -> None:
    raise ValueError("on purpose")


@pytest.mark.loops("asyncio")
async def test_the_page_of_the_history() -> None:
    """A look makes it count; the next one shows it."""
    async with running(app := make()):
        assert (await get(app, "/lastcall/history")).json()["step_seconds"] == STEP_SECONDS
        await app.manager.create_task(asyncio.sleep(0))
        points = (await get(app, "/lastcall/history")).json()["points"]
        assert sum(point["tasks"]["completed"] for point in points) == 1


def test_a_sample_is_bounded_and_fair() -> None:
    """Of ten thousand durations some hundreds are kept, and their median is near that of all."""
    sample = Sample()
    assert sample.quantile(0.5) is None
    for number in range(10_000):
        sample.add(number / 10_000)
    assert len(sample._kept) == 200
    assert 0.25 < (sample.quantile(0.5) or 0) < 0.75


@pytest.mark.parametrize(("took", "pause"), [(0.0, 2.0), (0.04, 2.0), (0.1, 5.0), (1.0, 50.0)])
def test_a_store_that_answers_slowly_is_asked_less_often(took: float, pause: float) -> None:
    """A page that is left open beside millions of queued jobs takes a fiftieth of the store's time, and no more."""
    assert pause_seconds(took) == pause
