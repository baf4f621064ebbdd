"""The Durable Streams face, called as a server calls it: what the protocol's own suite does not ask.

Who may, the drain, jobs' logs, clients that misbehave. The suite itself is in `durable/`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import lastcall.asgi._body as body_module
from lastcall import ShutdownPlan, TaskManager
from lastcall.asgi import DurableStreams, Lastcall, LogResponse
from lastcall.exceptions import BadDeclaration, EngineUnavailable, InvalidPlan
from lastcall.jobs import Context, Jobs
from lastcall.streams import Log, MemoryStore, Streams
from lastcall.streams._policy import BYTES
from tests.asgi.driver import Request, get, running, within
from tests.asgi.test_face import not_found
from tests.asgi.test_jobs_face import Post
from tests.streams.stores import KINDS, opened

Headers = Iterable[tuple[bytes, bytes]]

HOST = (b"host", b"localhost")
JSON = (b"content-type", b"application/json")
TEXT = (b"content-type", b"text/plain")
CLOSED = (b"stream-closed", b"true")

END = "stream-next-offset"


class Site:
    """An app with streams, between startup and shutdown."""

    def __init__(self, streams: Any, jobs: Jobs | None = None, **options: Any) -> None:
        self.manager = TaskManager(plan=ShutdownPlan(drain=30))
        self.app = Lastcall(not_found, self.manager, streams=streams, jobs=jobs, **options)

    async def send(self, method: str, path: str, *headers: tuple[bytes, bytes], body: bytes = b"") -> Request:
        options = {"method": method, "headers": [HOST, *headers]}
        return await Post(self.app, f"/lastcall/streams/{path}", [body], **options).done()

    async def look(self, path: str, query: str = "", *headers: tuple[bytes, bytes]) -> Request:
        return await get(self.app, f"/lastcall/streams/{path}", query=query, headers=[HOST, *headers])

    def live(self, path: str, query: str, **options: Any) -> Request:
        return Request(self.app, f"/lastcall/streams/{path}", query=query, **options)


@asynccontextmanager
async def site(streams: Any = None, **options: Any) -> AsyncIterator[Site]:
    made = Site(Streams() if streams is None else streams, **options)
    async with running(made.app):
        yield made


def controls(request: Request) -> list[dict[str, Any]]:
    return [json.loads(event["data"]) for event in request.events() if event["event"] == "control"]


def data(request: Request) -> list[Any]:
    """The values of all data events of a stream of JSON."""
    return [
        value for event in request.events() if event["event"] == "data" for value in json.loads(event["data"])
    ]


# --- who may ---


async def test_strangers_neither_read_nor_write() -> None:
    """A client from elsewhere is refused by `allow`, whatever it wants, and nothing has happened."""
    async with site() as here:
        await here.send("PUT", "s", JSON)
        for method in ("PUT", "POST", "GET", "HEAD", "DELETE"):
            stranger = Post(
                here.app,
                "/lastcall/streams/s",
                [b"1"],
                method=method,
                headers=[HOST, JSON],
                client=("10.0.0.9", 1),
            )
            assert (await stranger.done()).status == 403
        assert (await here.look("s")).body == b"[]"


async def test_pages_of_other_origins_only_where_they_are_named() -> None:
    """By default no other origin's page gets to read; with `origins`, those named there do, and no others."""
    asked = [(b"access-control-request-method", b"PUT"), (b"origin", b"https://a.example")]
    allowed = "access-control-allow-origin"
    async with site(allow=lambda scope: True) as closed:
        assert allowed not in (await closed.send("OPTIONS", "s", *asked)).headers
        assert (await closed.look("s", "", asked[1])).headers["cross-origin-resource-policy"] == "same-origin"
    origins = ["https://a.example"]
    async with site(DurableStreams(Streams(), origins=origins), allow=lambda scope: True) as some:
        preflight = await some.send("OPTIONS", "s", *asked)
        assert (preflight.status, preflight.headers[allowed]) == (204, "https://a.example")
        assert "if-none-match" in preflight.headers["access-control-allow-headers"]
        other = await some.look("s", "", (b"origin", b"https://b.example"))
        assert (allowed in other.headers, other.headers["vary"]) == (False, "origin")
    with pytest.raises(BadDeclaration, match="list of origins"):
        DurableStreams(Streams(), origins="*")
    with pytest.raises(InvalidPlan, match="sse_seconds"):
        DurableStreams(Streams(), sse_seconds=0)


# --- reading ---


@pytest.mark.parametrize("kind", KINDS)
async def test_a_live_reader_is_told_of_each_write_and_of_the_end(kind: str, tmp_path: Path) -> None:
    """Events come as they are written, each with the offset behind it, and the answer ends with the stream."""
    async with opened(kind, tmp_path) as streams, site(streams) as here:
        await here.send("PUT", "s", JSON, body=b"[1]")
        reader = here.live("s", "offset=-1&live=sse")
        await reader.until(lambda request: data(request) == [1])
        assert controls(reader)[-1]["upToDate"]
        await here.send("POST", "s", JSON, body=b"[2,3]")
        await reader.until(lambda request: data(request) == [1, 2, 3])
        second = await here.look("s", f"offset={controls(reader)[0]['streamNextOffset']}")
        assert second.json() == [2, 3]
        await here.send("POST", "s", CLOSED, JSON, body=b"4")
        await reader.done()
    assert data(reader) == [1, 2, 3, 4]
    assert controls(reader)[-1] == {
        "streamNextOffset": controls(reader)[-1]["streamNextOffset"],
        "streamClosed": True,
    }
    assert reader.complete


@pytest.mark.parametrize("kind", KINDS)
async def test_a_long_poll_is_answered_by_the_next_write(kind: str, tmp_path: Path) -> None:
    """A reader at the end waits, is answered with what comes, and a delete answers it too."""
    async with opened(kind, tmp_path) as streams, site(streams) as here:
        end = (await here.send("PUT", "s", TEXT, body=b"old")).headers[END]
        poll = here.live("s", f"offset={end}&live=long-poll")
        now = here.live("s", "offset=now&live=long-poll")
        other = here.live("s", f"offset={end}&live=long-poll&cursor=5")
        await _settled(streams)
        await here.send("POST", "s", TEXT, body=b"new")
        for request in (poll, now, other):
            await request.done()
            assert (request.status, request.body) == (200, b"new")
        poll = here.live("s", f"offset={poll.headers[END]}&live=long-poll")
        await _settled(streams)
        await here.send("DELETE", "s")
        assert (await poll.done()).status == 404


async def _settled(streams: Streams | None = None) -> None:
    """Whoever is about to wait does so."""
    for _ in range(20):
        await asyncio.sleep(0)
    if streams is not None:
        # Readings are answered in the order in which they were asked for.
        await streams.store.find("s")
        await _settled()


async def test_live_answers_end_by_themselves() -> None:
    """A long-poll without news is answered after its time, an answer of events ends; both say where to go on."""
    face = DurableStreams(Streams(), long_poll_seconds=0.05, sse_seconds=0.05)
    async with site(face) as here:
        end = (await here.send("PUT", "s", TEXT, body=b"x")).headers[END]
        poll = await here.look("s", f"offset={end}&live=long-poll")
        assert (poll.status, poll.headers[END], poll.headers["stream-up-to-date"]) == (204, end, "true")
        events = await here.look("s", f"offset={end}&live=sse")
        assert events.complete and controls(events)[-1]["streamNextOffset"] == end


@pytest.mark.parametrize("look_seconds", [0.003, 60.0])
async def test_a_quiet_reader_is_kept_alive(monkeypatch: pytest.MonkeyPatch, look_seconds: float) -> None:
    """Proxies close what is silent; a comment comes instead, however often the stream is looked at meanwhile, and
    readers do not see it as an event."""
    monkeypatch.setattr("lastcall.asgi._durable_reads.KEEP_ALIVE_SECONDS", 0.01)
    monkeypatch.setattr("lastcall.streams._memory._WATCH_SECONDS", look_seconds)
    async with site() as here:
        await here.send("PUT", "s", JSON)
        reader = here.live("s", "offset=-1&live=sse")
        await reader.until(lambda request: request.body.count(b": keep-alive\n\n") == 3)
        assert [event["event"] for event in reader.events()] == ["control"]
        reader.leave()
        await reader.done()


class _Away(MemoryStore):
    """A store that goes away after so many readings."""

    left = 2

    async def read(self, *arguments: Any) -> Any:
        if self.left <= 0:
            raise EngineUnavailable("the disk is gone")
        self.left -= 1
        return await super().read(*arguments)


async def test_a_store_that_goes_away_ends_its_readers_properly() -> None:
    """In the middle of an answer of events no other status can be told; it ends, and the next request is 503."""
    streams = Streams(_Away())
    async with site(streams) as here:
        await here.send("PUT", "s", JSON, body=b"[1]")
        reader = here.live("s", "offset=-1&live=sse")
        await reader.until(controls)
        await here.send("POST", "s", JSON, body=b"[2]")
        await reader.done()
        assert reader.complete and data(reader) == [1]
        for query in ("", "offset=-1&live=sse", "offset=-1&live=long-poll"):
            answer = await here.look("s", query)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")


async def test_a_cut_reader_goes_on_without_a_gap() -> None:
    """Cut at any place and read again from the last offset it was told, a stream is whole."""
    streams = Streams()
    async with site(streams) as here:
        stream = await streams.create("s")
        await stream.append_json(*range(2500))
        seen: list[int] = []
        offset = "-1"
        while len(seen) < 2500:
            reader = here.live("s", f"offset={offset}&live=sse")
            await reader.until(controls)
            reader.leave()
            await reader.done()
            told = controls(reader)[0]["streamNextOffset"]
            seen += json.loads(reader.events()[0]["data"])
            offset = told
    assert seen == list(range(2500))


async def test_a_stream_made_anew_ends_its_old_readers() -> None:
    """Deleted and created again under its name, it is another stream; a reader of the first does not read on in it."""
    async with site() as here:
        await here.send("PUT", "s", TEXT, body=b"old")
        reader = here.live("s", "offset=-1&live=sse")
        await reader.until(controls)
        await here.send("DELETE", "s")
        await here.send("PUT", "s", TEXT, body=b"new, and longer")
        await reader.done()
        assert [event["data"] for event in reader.events() if event["event"] == "data"] == ["old"]
        end = controls(reader)[0]["streamNextOffset"]
        assert (await here.look("s", f"offset={end}")).status == 400


async def test_a_reader_that_is_behind_what_is_kept_is_told_so() -> None:
    """410, and where the end is; nothing is skipped in silence."""
    streams = Streams(keep_bytes=10)
    async with site(streams) as here:
        offset = (await here.send("PUT", "s", TEXT, body=b"12345")).headers[END]
        for _ in range(4):
            end = (await here.send("POST", "s", TEXT, body=b"12345")).headers[END]
        for query in (
            f"offset={offset}",
            "offset=-1",
            f"offset={offset}&live=long-poll",
            f"offset={offset}&live=sse",
        ):
            gone = await here.look("s", query)
            assert (gone.status, gone.headers[END]) == (410, end), query
        assert (await here.look("s", f"offset={end}")).status == 200


# --- bad input ---


@pytest.mark.parametrize("kind", KINDS)
async def test_bad_requests_change_nothing(kind: str, tmp_path: Path) -> None:
    """What cannot be understood, is too large, or does not fit gets the protocol's own code, with its reason."""
    async with opened(kind, tmp_path, max_append_bytes=100) as streams, site(streams) as here:
        await here.send("PUT", "s", JSON, body=b"[1]")
        large = b'"' + b"x" * 150 + b'"'
        for method, headers, body, status in [
            ("POST", [JSON], b"{", 400),
            ("POST", [JSON], b"[NaN]", 400),
            ("POST", [JSON], b"[" * 200 + b"]" * 200, 413),
            ("POST", [JSON], b"[]", 400),
            ("POST", [], b"1", 400),
            ("POST", [TEXT], b"1", 409),
            ("POST", [JSON], large, 413),
            ("POST", [JSON], b" " * 300, 413),
            ("POST", [JSON, (b"producer-id", b"p")], b"1", 400),
            ("PUT", [(b"content-type", b"text")], b"", 400),
            ("PUT", [JSON, (b"stream-ttl", b"9" * 20)], b"", 400),
            ("PATCH", [JSON], b"1", 405),
        ]:
            answer = await here.send(method, "s", *headers, body=body)
            assert answer.status == status, (method, headers, body[:20], answer.body)
            assert answer.json()["detail"] and answer.headers["x-content-type-options"] == "nosniff"
        for query in (
            "offset=",
            "offset=x",
            "offset=-1&offset=now",
            "live=sse",
            "offset=-1&live=x",
            "offset=%00",
        ):
            assert (await here.look("s", query)).status == 400, query
        ahead = f"offset={5:016d}_{5:016d}"
        for query in (ahead, f"{ahead}&live=sse", f"{ahead}&live=long-poll"):
            assert (await here.look("s", query)).status == 400, query
        for name in ("x" * 1025, "a\x00b", "a\nb"):
            assert (await here.send("PUT", name, JSON)).status == 400
        assert (await here.look("s")).json() == [1]
        assert (await here.look("")).status in (400, 404)


async def test_a_body_of_which_only_half_comes_is_never_used() -> None:
    """A client that leaves in the middle of its write has written nothing, and other readers are not harmed."""
    async with site() as here:
        await here.send("PUT", "s", TEXT)
        half = Post(here.app, "/lastcall/streams/s", [b"half"], ends=False, headers=[HOST, TEXT])
        await _settled()
        half.leave()
        await half.done()
        assert (await here.look("s")).body == b""


async def test_a_body_that_is_too_large_is_taken_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is told 413 only after it has sent all hears it: cut off in the middle, it would see a reset
    connection instead. One that sends without end is cut off."""
    async with site(Streams(max_append_bytes=10)) as here:
        await here.send("PUT", "s", TEXT)
        headers = [HOST, TEXT, (b"content-length", b"1000")]
        large = Post(here.app, "/lastcall/streams/s", [b"x" * 100] * 10, headers=headers)
        assert ((await large.done()).status, large.read) == (413, 10)
        assert "connection" not in large.headers
        monkeypatch.setattr(body_module, "_DISCARD_BYTES", 300)
        endless = Post(here.app, "/lastcall/streams/s", [b"x" * 100] * 10, ends=False, headers=headers)
        assert ((await endless.done()).status, endless.read) == (413, 3)
        assert endless.headers["connection"] == "close"
        assert (await here.look("s")).body == b""


async def test_a_client_that_never_reads_harms_nobody() -> None:
    """Its writer goes on, other readers read on, and the drain ends it in time."""
    streams = Streams()
    made = Site(streams, stream_grace_seconds=0.05)
    async with running(made.app) as lifespan:
        stream = await streams.create("s", content_type="text/plain")
        stuck = made.live("s", "offset=-1&live=sse", reading=False)
        reader = made.live("s", "offset=-1&live=sse")
        for _ in range(200):
            await stream.append("y" * 1000)
        await reader.until(lambda request: request.body.count(b"y") == 200_000)
        await within(lifespan.stop())
        await reader.done()
        stuck.read_on()
        await asyncio.wait({stuck.task})
    assert reader.complete


async def test_a_full_memory_says_so() -> None:
    """507 to the writer, and what is there can be read."""
    async with site(Streams(MemoryStore(max_bytes=1000))) as here:
        await here.send("PUT", "s", TEXT, body=b"x" * 500)
        assert (await here.send("POST", "s", TEXT, body=b"x" * 500)).status == 507
        assert (await here.send("PUT", "t", TEXT, body=b"x" * 500)).status == 507
        assert len((await here.look("s")).body) == 500


async def test_names_are_paths_of_any_kind() -> None:
    """A name may have slashes, blanks and letters of any language; its location leads back to it."""
    async with site() as here:
        made = await here.send("PUT", "chat/a b/é", TEXT, body=b"x")
        assert made.headers["location"] == "http://localhost/lastcall/streams/chat/a%20b/%C3%A9"
        assert (await here.look("chat/a b/é")).body == b"x"
        fork = await here.send("PUT", "fork", (b"stream-forked-from", b"/lastcall/streams/chat/a%20b/%C3%A9"))
        assert fork.status == 201 and fork.headers["content-type"] == "text/plain"
        bare = await here.send("PUT", "bare", body=b"x")
        assert bare.headers["content-type"] == BYTES


# --- the drain ---


@pytest.mark.parametrize("kind", KINDS)
async def test_a_drain_sends_the_readers_on(kind: str, tmp_path: Path) -> None:
    """At the stop a long-poll is answered and an answer of events ends, at once and complete, with the offset to go on
    from; what comes then is refused, to be tried elsewhere; and the report is clean."""
    async with opened(kind, tmp_path) as streams:
        made = Site(streams)
        async with running(made.app) as lifespan:
            end = (await made.send("PUT", "s", JSON, body=b"[1]")).headers[END]
            events = made.live("s", "offset=-1&live=sse")
            poll = made.live("s", f"offset={end}&live=long-poll")
            await events.until(controls)
            await _settled(streams)
            hold = asyncio.Event()
            made.manager.create_task(hold.wait(), name="work")
            made.manager.begin_shutdown()
            await events.done()
            await poll.done()
            refused = [
                await made.send("POST", "s", JSON, body=b"2"),
                await made.look("s"),
                await made.send("PUT", "t"),
            ]
            hold.set()
            await within(lifespan.stop())
    assert events.complete and controls(events)[-1]["streamNextOffset"] == end
    assert "streamClosed" not in controls(events)[-1]
    assert (poll.status, poll.headers[END], poll.headers["connection"]) == (204, end, "close")
    for answer in refused:
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert made.manager.report is not None and made.manager.report.clean


async def test_a_reader_that_leaves_leaves_nothing() -> None:
    """A client that closes its connection ends its reader at once; no task and no waiter stays."""
    streams = Streams()
    async with site(streams) as here:
        await here.send("PUT", "s", JSON)
        readers = [here.live("s", f"offset=-1&live={live}") for live in ("sse", "long-poll") * 5]
        await _settled()
        for reader in readers:
            reader.leave()
        for reader in readers:
            await reader.done()
        await _settled()
        store: Any = streams.store
        assert len(store._wakeups) == 0


# --- jobs ---


async def _work(ctx: Context) -> str:
    await ctx.emit("greeting", {"text": "é"})
    return "done"


@asynccontextmanager
async def with_jobs(folder: Path) -> AsyncIterator[tuple[Site, Jobs, Any]]:
    jobs = Jobs(f"sqlite:///{folder}/jobs.db")
    task = jobs.task(name="work")(_work)
    made = Site(jobs.streams, jobs)
    async with running(made.app):
        yield made, jobs, task


async def test_a_jobs_log_is_a_stream_of_json(tmp_path: Path) -> None:
    """The events of a job are read as any stream, from the beginning, on from an offset, and live to the job's end."""
    async with with_jobs(tmp_path) as (here, jobs, task):
        job = await task.submit()
        path = f"jobs/{job.id}"
        live = here.live(path, "offset=-1&live=sse")
        await live.until(controls)
        async with jobs.worker(manager=here.manager):
            await within(job.result())
            await live.done()
        assert controls(live)[-1]["streamClosed"]
        whole = await here.look(path)
        [greeting] = [event for event in whole.json() if event["type"] == "greeting"]
        assert greeting["data"] == {"text": "é"} and greeting["attempt"] == 1
        assert data(live) == whole.json()
        assert [event["seq"] for event in whole.json()] == list(range(1, len(whole.json()) + 1))
        assert whole.headers["stream-closed"] == "true"
        head = await get(here.app, f"/lastcall/streams/{path}", method="HEAD")
        assert head.headers[END] == whole.headers[END]
        again = await here.look(path, f"offset={whole.headers[END]}&live=long-poll")
        assert (again.status, again.headers["stream-closed"]) == (204, "true")
        assert (await here.look(path, "", (b"if-none-match", whole.headers["etag"].encode()))).status == 304


async def test_a_jobs_log_is_written_by_its_job_alone(tmp_path: Path) -> None:
    """Nobody writes, deletes or creates a job's log over HTTP, and what is no job is not found."""
    async with with_jobs(tmp_path) as (here, _, task):
        job = await task.submit()
        for method in ("PUT", "POST", "DELETE"):
            refused = await here.send(method, f"jobs/{job.id}", JSON, body=b"1")
            assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert (await here.look(f"jobs/{job.id}", "offset=garbage")).status == 400
        for seq, end in ((99, 0), (1, 5)):
            assert (await here.look(f"jobs/{job.id}", f"offset={seq:016d}_{end:016d}")).status == 400
        for nobody in ("x", "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"):
            assert (await here.look(f"jobs/{nobody}")).status == 404
        assert (await here.send("PUT", "free", JSON, body=b"[1]")).status == 201


async def test_jobs_without_streams_show_their_logs_only(tmp_path: Path) -> None:
    """Where no streams are given, jobs' logs can be read, and nothing can be created."""
    jobs = Jobs(f"sqlite:///{tmp_path}/jobs.db")
    task = jobs.task(name="work")(_work)
    made = Site(None, jobs)
    async with running(made.app):
        job = await task.submit()
        assert (await made.look(f"jobs/{job.id}")).status == 200
        assert (await made.send("PUT", "s", JSON)).status == 405
        assert (await made.look("s")).status == 404


async def test_without_streams_and_jobs_there_is_no_such_page(tmp_path: Path) -> None:
    """An app that asked for none of it: 404, as for any page that is none."""
    made = Site(None)
    async with running(made.app):
        assert (await made.send("PUT", "s", JSON)).status == 404


# --- beside the protocol ---


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_is_served_as_any_log(kind: str, tmp_path: Path) -> None:
    """An app's own route gives a stream to `LogResponse`, and its readers get ids, a snapshot and an end."""
    async with opened(kind, tmp_path) as streams:
        log: Log = streams.open("s")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await LogResponse(log)(scope, receive, send)

        stream = await streams.create("s")
        await stream.append_json({"n": 1}, {"n": 2})
        async with running(Lastcall(app, TaskManager(plan=ShutdownPlan(drain=30)))) as lifespan:
            reader = Request(lifespan.app, "/events", query="format=sse&after=1")
            await reader.until(lambda request: b"id: 2" in request.body)
            await stream.append_json({"n": 3})
            await stream.close()
            await reader.done()
        messages = [event for event in reader.events() if event.get("event") == "message"]
        assert [(event["id"], json.loads(event["data"])["data"]) for event in messages] == [
            ("2", {"n": 2}),
            ("3", {"n": 3}),
        ]
        assert [event["event"] for event in reader.events()][0] == "snapshot"
        assert [event["event"] for event in reader.events()][-1] == "end"
