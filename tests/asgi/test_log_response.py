"""LogResponse: readers that leave, come back, stall, or are sent away get every entry once, in order, or are told."""

import asyncio
import json
from typing import Any

import pytest

from lastcall import ShutdownPlan, StopReason, TaskManager
from lastcall.asgi import Lastcall, LogResponse
from lastcall.exceptions import EngineUnavailable, InvalidPlan, UnknownStream
from tests.asgi.driver import Request, get, parse_events, running, until, within
from tests.asgi.memory_log import MemoryLog

SSE = (b"accept", b"text/event-stream")
HOST = (b"host", b"localhost")


def log_app(log: MemoryLog, manager: TaskManager | None = None, **options: Any) -> Lastcall:
    """An app whose every call serves this log."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await LogResponse(log, **options)(scope, receive, send)

    return Lastcall(app, TaskManager() if manager is None else manager)


def sse(app: Any, query: str = "", *headers: tuple[bytes, bytes], **options: Any) -> Request:
    return Request(app, "/log", query=query, headers=[HOST, SSE, *headers], **options)


def entries(request: Request) -> list[dict[str, Any]]:
    """The entries that this reader has got, in order."""
    told = [json.loads(event["data"]) for event in request.events() if "data" in event]
    return [entry for entry in told if "seq" in entry]


def seqs(request: Request) -> list[int]:
    return [entry["seq"] for entry in entries(request)]


def names(request: Request) -> list[str]:
    return [event.get("event", "") for event in request.events()]


# --- a stream -------------------------------------------------------------------------------------------


async def test_a_reader_gets_what_was_what_comes_and_the_end() -> None:
    """The snapshot first, then the history, then live entries, then the end; all with the cursor as id."""
    log = MemoryLog()
    log.write("a")
    async with running(app := log_app(log)):
        request = await sse(app).until(lambda request: seqs(request) == [1])
        log.write("b", step="answer")
        await request.until(lambda request: seqs(request) == [1, 2])
        log.write("c")
        log.close(status="completed")
        await request.done()
    assert names(request) == ["snapshot", "word", "word", "word", "end"]
    first, *middle, last = request.events()
    assert first["id"] == "0" and json.loads(first["data"])["snapshot"]["status"] == "running"
    assert [event["id"] for event in middle] == ["1", "2", "3"]
    assert entries(request)[1] == {
        "seq": 2,
        "type": "word",
        "attempt": 1,
        "step": "answer",
        "at": 1764000002.25,
        "data": "b",
    }
    assert json.loads(last["data"]) == {
        "reason": "closed",
        "first": 1,
        "last": 3,
        "closed": True,
        "snapshot": {"status": "completed", "entries": 3},
    }
    assert request.headers["content-type"].startswith("text/event-stream")
    assert request.headers["cache-control"] == "no-store, no-transform"
    assert request.headers["x-accel-buffering"] == "no"


async def test_lines_are_the_same_without_frames() -> None:
    """NDJSON: snapshot, entries, end, one object a line."""
    log = MemoryLog()
    log.write("a")
    log.close()
    async with running(app := log_app(log)):
        request = await get(app, "/log", headers=[HOST, (b"accept", b"application/x-ndjson")])
    lines = [json.loads(line) for line in request.body.splitlines()]
    assert [line["type"] for line in lines] == ["snapshot", "word", "end"]
    assert request.headers["content-type"] == "application/x-ndjson"


async def test_a_reader_that_comes_back_goes_on_where_it_was() -> None:
    """With the header of a browser, or with the parameter of a script; a snapshot is first again."""
    log = MemoryLog()
    for word in "abcde":
        log.write(word)
    async with running(app := log_app(log)):
        by_header = sse(app, "after=1", (b"last-event-id", b"3"))
        by_url = sse(app, "starting_after=4")
        await by_header.until(lambda request: seqs(request) == [4, 5])
        await by_url.until(lambda request: seqs(request) == [5])
        assert by_header.events()[0]["event"] == "snapshot" and by_header.events()[0]["id"] == "3"
        for request in (by_header, by_url):
            request.leave()
            await request.done()


async def test_a_long_history_comes_whole() -> None:
    """More entries than one read gives, of sizes far apart, while more are written."""
    log = MemoryLog()
    for number in range(3000):
        log.write("x" * (number * 37 % 4000))
    async with running(app := log_app(log)):
        request = sse(app)
        await request.until(lambda request: len(request.chunks) > 3)
        for _ in range(500):
            log.write("y")
        log.close()
        await request.done()
    assert seqs(request) == list(range(1, 3501))


async def test_a_closed_log_that_was_read_says_no_content() -> None:
    """204: an EventSource stops then, in place of asking for ever."""
    log = MemoryLog()
    log.write("a")
    log.close()
    async with running(app := log_app(log)):
        over = await sse(app, "", (b"last-event-id", b"1")).done()
        assert (over.status, over.body) == (204, b"")
        assert (await get(app, "/log", query="after=1&format=ndjson")).status == 204
        page = await get(app, "/log", query="after=1")
        assert page.status == 200 and page.json()["closed"] and page.json()["events"] == []
        before = await sse(app, "after=0").done()
        assert names(before) == ["snapshot", "word", "end"]
        empty = MemoryLog()
        empty.close()
        first = await get(log_app_inside(app, empty), "/log", query="format=sse")
        assert names(first) == ["snapshot", "end"]  # it comes for the first time, and has not seen the end
        again = await get(log_app_inside(app, empty), "/log", query="format=sse&after=0")
        assert again.status == 204


async def test_a_log_that_goes_on_after_its_end_was_seen() -> None:
    """A failed job that is queued again between the look and the farewell: the reader stays."""

    class Reopened(MemoryLog):
        looks = 0

        async def read(self, after: int, limit: int) -> Any:
            page = await super().read(after, limit)
            if limit == 0 and page.closed:
                self.looks += 1
                if self.looks == 1:
                    self.closed = False
                    return page._replace(closed=False)
            return page

    log = Reopened()
    async with running(app := log_app(log)):
        request = await sse(app).until(lambda request: request.chunks)
        log.write("a")
        log.close()
        await request.until(lambda request: seqs(request) == [1])
        await until(lambda: log.looks == 1)
        log.write("b")
        await request.until(lambda request: seqs(request) == [1, 2])
        log.close()
        await request.done()
    assert names(request) == ["snapshot", "word", "word", "end"]


async def test_head_is_answered_without_a_body() -> None:
    """A probe of a proxy reads no log."""
    log = MemoryLog()
    async with running(app := log_app(log)):
        request = await sse(app, method="HEAD").done()
        assert request.status == 200 and request.body == b""
        assert log.watchers == 0


async def test_without_lastcall_around_it() -> None:
    """A bare ASGI app: the reader is alone, and is served all the same."""
    log = MemoryLog()
    log.write("a")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await LogResponse(log)(scope, receive, send)

    request = await sse(app).until(lambda request: seqs(request) == [1])
    request.leave()
    await request.done()
    assert log.watchers == 0
    log.close()
    assert names(await sse(app).done()) == ["snapshot", "word", "end"]


# --- what cannot be read --------------------------------------------------------------------------------


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("accept", [b"text/event-stream", b"application/x-ndjson", b"application/json"])
async def test_what_cannot_be_read_is_told_by_its_status(accept: bytes) -> None:
    """Cursors that are none, a log that does not exist, a store that is away: in every format."""
    log = MemoryLog()
    log.write("a")
    async with running(app := log_app(log)):

        async def ask(query: str) -> Request:
            return await get(app, "/log", query=query, headers=[HOST, (b"accept", accept)])

        for query in ("after=-1", "after=x", "after=2", "starting_after=1e9", "after=", "format=x", "wait=x"):
            answer = await ask(query)
            assert answer.status == 400, query
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == 400 and answer.json()["detail"]
        log.error = UnknownStream("there is no stream here")
        assert (await ask("")).status == 404
        log.error = EngineUnavailable("the disk is full")
        answer = await ask("")
        assert answer.status == 503 and answer.headers["retry-after"] == "5"
        assert log.watchers == 0


async def test_older_than_what_is_kept_is_gone() -> None:
    """410 tells the oldest entry that is kept, and a URL from which everything that is left can be had."""
    log = MemoryLog()
    for word in "abcdef":
        log.write(word)
    log.keep(2)
    async with running(app := log_app(log)):
        for query in ("after=3&token=a%20b", "token=a%20b"):
            answer = await sse(app, query, root_path="/mounted").done()
            assert answer.status == 410
            problem = answer.json()
            assert problem["first"] == 5
            path, _, rest = problem["snapshot_url"].partition("?")
            assert path == "/mounted/log"
        page = await get(app, "/log", query=rest)
        assert [event["seq"] for event in page.json()["events"]] == [5, 6]
        assert page.json()["snapshot"]["entries"] == 6
        assert "token=a+b" in rest
        kept = await sse(app, "after=4").until(lambda request: seqs(request) == [5, 6])
        kept.leave()
        await kept.done()


async def test_a_reader_slower_than_the_retention_is_told() -> None:
    """It stalls, what it would have read next is dropped, it reads on: no silent gap, and no end."""
    log = MemoryLog()
    async with running(app := log_app(log)):
        fast = await sse(app).until(lambda request: request.chunks)
        slow = sse(app, reading=False)
        await until(lambda: log.reads)
        for number in range(2000):
            log.write("x" * 2000)
            if number % 100 == 0:
                await fast.until(lambda request: f"id: {log.last}\n".encode() in request.chunks[-1])
        await fast.until(lambda request: b"id: 2000\n" in request.chunks[-1])
        log.keep(10)
        slow.read_on()
        await slow.done()
        told = seqs(slow)
        assert told == list(range(1, len(told) + 1)) and len(told) < 1990
        assert names(slow)[-1] == "gone" and "end" not in names(slow)
        assert json.loads(slow.events()[-1]["data"]) == {"first": 1991, "last": 2000}
        assert seqs(fast) == list(range(1, 2001))
        fast.leave()
        await fast.done()


async def test_a_log_that_is_deleted_under_its_readers() -> None:
    """They leave without an end; whoever comes back gets 404."""
    log = MemoryLog()
    async with running(app := log_app(log)):
        request = await sse(app).until(lambda request: request.chunks)
        log.error = UnknownStream("it was deleted")
        log.tell()
        await request.done()
        assert names(request) == ["snapshot"] and request.complete
        assert (await sse(app).done()).status == 404


@pytest.mark.loops("virtual")
async def test_a_store_that_is_away_for_a_while() -> None:
    """Readers wait, and miss nothing of what was written when it is back."""
    log = MemoryLog()
    async with running(app := log_app(log)):
        request = await sse(app).until(lambda request: request.chunks)
        log.error = EngineUnavailable("locked")
        log.tell()
        await asyncio.sleep(5)
        assert not request.complete
        log.error = None
        log.write("a")
        await request.until(lambda request: seqs(request) == [1])
        request.leave()
        await request.done()


# --- clients --------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_is_noticed_at_once() -> None:
    """Nothing more is written, and nothing of it is left: no task, no watch on the log."""
    log = MemoryLog()
    async with running(app := log_app(log)):
        before = len(asyncio.all_tasks())
        request = await sse(app).until(lambda request: request.chunks)
        await until(lambda: log.watchers)
        request.leave()
        await within(request.done())
        await until(lambda: log.watchers == 0 and len(asyncio.all_tasks()) == before)


async def test_an_idle_reader_is_one_task_beside_the_call() -> None:
    """A hundred readers of one log: a hundred calls, a hundred that watch the clients, and two for all of them."""
    log = MemoryLog()
    async with running(app := log_app(log)):
        before = len(asyncio.all_tasks())
        requests = [sse(app) for _ in range(100)]
        for request in requests:
            await request.until(lambda request: request.chunks)
        assert len(asyncio.all_tasks()) - before == 202
        await until(lambda: log.watchers)
        reads = log.reads
        log.write("a")
        for request in requests:
            await request.until(lambda request: seqs(request) == [1])
        assert log.reads - reads <= 2  # once for all of them
        for request in requests:
            request.leave()
            await request.done()
        await until(lambda: log.watchers == 0)


async def test_a_client_that_never_reads_slows_nobody_and_holds_little() -> None:
    """The others are given everything meanwhile; the stalled one is behind by what it has not taken, in the log."""
    log = MemoryLog()
    async with running(app := log_app(log)):
        stalled = sse(app, reading=False)
        others = [sse(app) for _ in range(3)]
        for number in range(400):
            log.write("x" * 5000)
            if number % 20 == 0:
                await asyncio.sleep(0)
        for other in others:
            await other.until(lambda request: b"id: 400\n" in b"".join(request.chunks[-2:]))
            assert seqs(other) == list(range(1, 401))
        assert stalled.chunks == []
        stalled.read_on()
        await stalled.until(lambda request: b"id: 400\n" in b"".join(request.chunks[-2:]))
        assert seqs(stalled) == list(range(1, 401))
        assert max(map(len, stalled.chunks)) < 75_000
        for request in (stalled, *others):
            request.leave()
            await request.done()


@pytest.mark.loops("virtual")
async def test_a_quiet_reader_is_kept_alive() -> None:
    """A comment after fifteen quiet seconds, not sooner for one that is written to; lines have none."""
    log = MemoryLog()
    async with running(app := log_app(log)):
        quiet, lines = sse(app), Request(app, "/log", query="format=ndjson")
        for request in (quiet, lines):
            await request.until(lambda request: request.chunks)
        await asyncio.sleep(10)
        log.write("a")
        await asyncio.sleep(10)
        assert b": keep-alive" not in quiet.body
        await asyncio.sleep(6)
        assert quiet.body.count(b": keep-alive\n\n") == 1
        await asyncio.sleep(31)
        assert quiet.body.count(b": keep-alive\n\n") == 3
        assert all(line.startswith(b"{") for line in lines.body.splitlines())
        for request in (quiet, lines):
            request.leave()
            await request.done()


# --- pages ----------------------------------------------------------------------------------------------


async def test_a_page_has_what_is_there() -> None:
    """At most so many entries; the next page goes on behind them."""
    log = MemoryLog()
    for word in "abcde":
        log.write(word)
    async with running(app := log_app(log)):
        page = (await get(app, "/log", query="limit=3")).json()
        assert [event["data"] for event in page["events"]] == ["a", "b", "c"]
        assert (page["next"], page["first"], page["last"], page["closed"]) == (3, 1, 5, False)
        page = (await get(app, "/log", query=f"after={page['next']}")).json()
        assert [event["data"] for event in page["events"]] == ["d", "e"]
        assert page["snapshot"] == {"status": "running", "entries": 5}


async def test_a_page_is_bounded_in_bytes() -> None:
    """A thousand large entries are not one answer."""
    log = MemoryLog()
    for _ in range(8):
        log.write("x" * 400_000)
    async with running(app := log_app(log)):
        page = await get(app, "/log", query="limit=1000")
        assert page.json()["shown"] == 2 and page.json()["next"] == 2


async def test_a_page_waits_for_an_entry() -> None:
    """Long-poll: answered when there is something, not before."""
    log = MemoryLog()
    log.write("a")
    async with running(app := log_app(log)):
        request = Request(app, "/log", query="after=1&wait=30")
        await until(lambda: log.watchers)
        assert request.status is None
        log.write("b")
        page = (await request.done()).json()
        assert [event["data"] for event in page["events"]] == ["b"]
        log.close()
        assert (await get(app, "/log", query="after=2&wait=30")).json()["closed"] is True
        assert log.watchers == 0


@pytest.mark.loops("virtual")
async def test_a_page_does_not_wait_for_ever() -> None:
    """When its time is over it is empty, and tells the cursor to ask with."""
    log = MemoryLog()
    async with running(app := log_app(log)):
        began = asyncio.get_running_loop().time()
        page = (await get(app, "/log", query="wait=5")).json()
        assert page["events"] == [] and page["next"] == 0 and not page["closed"]
        assert asyncio.get_running_loop().time() - began == pytest.approx(5, abs=0.1)


async def test_a_client_that_leaves_its_long_poll() -> None:
    """Its waiting ends with it."""
    log = MemoryLog()
    async with running(app := log_app(log)):
        request = Request(app, "/log", query="wait=30")
        await until(lambda: log.watchers)
        request.leave()
        await request.done()
        await until(lambda: log.watchers == 0)


# --- the drain ------------------------------------------------------------------------------------------


async def test_the_drain_sends_readers_away_without_an_end() -> None:
    """They are told when to come back, at different times, and not that it is over; a long-poll is answered."""
    log = MemoryLog()
    manager = TaskManager()
    async with running(app := log_app(log, manager)) as lifespan:
        requests = [sse(app) for _ in range(20)]
        for request in requests:
            await request.until(lambda request: request.chunks)
        lines = await Request(app, "/log", query="format=ndjson").until(lambda request: request.chunks)
        poll = Request(app, "/log", query="wait=30")
        await until(lambda: log.watchers)
        await asyncio.sleep(0)
        await lifespan.stop()
        for request in (*requests, lines, poll):
            await request.done()
    assert all(request.complete and "end" not in names(request) for request in requests)
    retries = {parse_events(request.body.decode())[-1]["retry"] for request in requests}
    assert len(retries) > 5 and all(500 <= int(retry) <= 3000 for retry in retries)
    assert json.loads(lines.body.splitlines()[-1])["type"] == "retry"
    assert poll.json()["events"] == []
    assert manager.report is not None and manager.report.clean


async def test_the_drain_gives_no_time_to_a_client_that_does_not_read() -> None:
    """It is cut off, long before the plan ends; the report stays clean, for nothing of it is lost."""
    log = MemoryLog()
    manager = TaskManager(plan=ShutdownPlan(drain=30))
    async with running(app := log_app(log, manager)) as lifespan:
        stalled = sse(app, reading=False)
        await until(lambda: stalled.status == 200)
        await within(lifespan.stop(), 6)
        await stalled.done()
    assert not stalled.complete
    assert manager.report is not None and manager.report.clean


@pytest.mark.loops("virtual")
async def test_readers_of_a_log_that_ends_with_the_process_may_stay() -> None:
    """In memory only: what is written in the drain still arrives, and the end says that it was the shutdown."""
    log = MemoryLog()
    manager = TaskManager(plan=ShutdownPlan(drain=30))
    async with running(app := log_app(log, manager, durable=False)) as lifespan:
        cut, whole_log = await sse(app).until(lambda request: request.chunks), MemoryLog()
        whole = sse(log_app_inside(app, whole_log))
        await whole.until(lambda request: request.chunks)
        stopping = asyncio.ensure_future(lifespan.stop())
        await asyncio.sleep(2)
        for each in (log, whole_log):
            each.write("late")
        whole_log.close()
        await whole.done()
        await cut.until(lambda request: seqs(request) == [1])
        await cut.done()
        await stopping
    assert names(whole) == ["snapshot", "word", "end"]
    assert json.loads(whole.events()[-1]["data"])["reason"] == "closed"
    assert names(cut) == ["snapshot", "word", "end"]
    assert json.loads(cut.events()[-1]["data"])["reason"] == "shutdown"
    assert manager.report is not None and manager.report.clean


def log_app_inside(app: Lastcall, log: MemoryLog) -> Any:
    """The same app, with another log behind one call of it."""

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await LogResponse(log, durable=False)(scope, receive, send)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await app._serve_http(inner, scope, receive, send)

    return outer


async def test_a_browser_that_comes_in_the_drain_is_sent_on() -> None:
    """503 would end an EventSource for good; the others get it."""
    log = MemoryLog()
    manager = TaskManager()
    async with running(app := log_app(log, manager)) as lifespan:
        with manager.hold("work"):
            stopping = asyncio.ensure_future(lifespan.stop())
            await until(lambda: not manager.ready)
            browser = await sse(app).done()
            script = await get(app, "/log", query="format=sse")
            posted = await sse(app, method="POST").done()
        await stopping
    assert browser.status == 200 and browser.headers["content-type"].startswith("text/event-stream")
    [event] = browser.events()
    assert set(event) == {"retry"} and browser.headers["connection"] == "close"
    assert script.status == 503 and posted.status == 503


# --- who reads no more ----------------------------------------------------------------------------------


class Cancels:
    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1


@pytest.mark.loops("virtual")
async def test_what_nobody_reads_any_more_is_cancelled() -> None:
    """So long after the last of its readers has left, and not while one is there or comes back in time."""
    log, cancels = MemoryLog(), Cancels()
    async with running(app := log_app(log, cancel_after_seconds=10, cancel=cancels)):
        await asyncio.sleep(100)
        assert cancels.count == 0  # nobody was there yet
        one, two = sse(app), sse(app)
        for request in (one, two):
            await request.until(lambda request: request.chunks)
        one.leave()
        await asyncio.sleep(60)
        two.leave()
        await asyncio.sleep(9)
        back = await sse(app).until(lambda request: request.chunks)
        await asyncio.sleep(60)
        assert cancels.count == 0
        back.leave()
        await back.done()
        await asyncio.sleep(9)
        assert cancels.count == 0
        await asyncio.sleep(2)
        assert cancels.count == 1
        await asyncio.sleep(100)
        assert cancels.count == 1


@pytest.mark.loops("virtual")
async def test_a_drain_never_cancels_what_its_readers_had_to_leave() -> None:
    """Neither for readers that it sends away, nor for one that had left just before."""
    log, left_log, cancels = MemoryLog(), MemoryLog(), Cancels()
    manager = TaskManager(plan=ShutdownPlan(drain=60))
    async with running(app := log_app(log, manager, cancel_after_seconds=10, cancel=cancels)) as lifespan:

        async def other(scope: Any, receive: Any, send: Any) -> None:
            async def inner(scope: Any, receive: Any, send: Any) -> None:
                await LogResponse(left_log, cancel_after_seconds=10, cancel=cancels)(scope, receive, send)

            await app._serve_http(inner, scope, receive, send)

        left = await sse(other).until(lambda request: request.chunks)
        stays = await sse(app).until(lambda request: request.chunks)
        left.leave()
        await left.done()
        await asyncio.sleep(5)
        with manager.hold("work"):
            stopping = asyncio.ensure_future(lifespan.stop())
            await stays.done()
            await asyncio.sleep(8)
        await stopping
    await asyncio.sleep(40)
    assert cancels.count == 0


async def test_a_job_is_cancelled_with_its_reason() -> None:
    """A disconnect is not a user's cancel."""

    class Work:
        reason: StopReason | None = None

        def __init__(self) -> None:
            self.id = "7"
            self._log = MemoryLog()

        def log(self) -> MemoryLog:
            return self._log

        async def cancel(self, reason: StopReason) -> None:
            self.reason = reason

    work = Work()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await LogResponse(work, cancel_after_seconds=0)(scope, receive, send)

    async with running(whole := Lastcall(app, TaskManager())):
        request = await sse(whole).until(lambda request: request.chunks)
        request.leave()
        await request.done()
        await until(lambda: work.reason is StopReason.DISCONNECT)


@pytest.mark.loops("asyncio")
async def test_what_cannot_work_is_refused_where_it_is_written() -> None:
    """Not when the first reader leaves."""
    with pytest.raises(TypeError, match="serves a Log"):
        LogResponse(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cancel="):
        LogResponse(MemoryLog(), cancel_after_seconds=1)
    with pytest.raises(InvalidPlan):
        LogResponse(MemoryLog(), cancel_after_seconds=-1, cancel=Cancels())
