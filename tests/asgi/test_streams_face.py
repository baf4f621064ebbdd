"""PREFIX/streams: the list of free-standing streams, who may see it, and where each of them is to be read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from lastcall.asgi import Access, DurableStreams
from lastcall.asgi._cursor import make_cursor
from lastcall.asgi._durable_words import path_of
from lastcall.exceptions import EngineUnavailable
from lastcall.jobs import Jobs
from lastcall.streams import MemoryStore, Streams
from lastcall.testing import VirtualClock
from tests.asgi.driver import Request, get, running, within
from tests.streams.stores import KINDS, opened
from tests.streams.test_durable_streams import HOST, JSON, Site, site

pytestmark = pytest.mark.loops("asyncio")

HOSTILE = [
    "<script>alert(1)</script>",
    "a b",
    "a%2Fb",
    "a?b#c",
    "é/\u4efb\u52a1",
    "a//b",
    "a/../b",
    "a;b",
    '"',
    "\\",
    "%",
    ".../x",
]

# Of the face, of ASGI, of caches.
OF_EVERY_ANSWER = {
    "content-type",
    "content-length",
    "cache-control",
    "x-content-type-options",
    "x-frame-options",
}
OF_EVERY_ANSWER |= {"referrer-policy", "cross-origin-resource-policy", "x-accel-buffering"}


async def ask(made: Site, query: str = "", **options: Any) -> Request:
    return await get(made.app, "/lastcall/streams", query=query, **options)


async def listed(made: Site, query: str = "", **options: Any) -> Any:
    answer = await ask(made, query, **options)
    assert answer.status == 200, answer.body
    return answer.json()


@asynccontextmanager
async def filled(*names: str, **options: Any) -> AsyncIterator[Site]:
    streams = Streams()
    for name in names:
        await streams.create(name)
    async with site(streams, **options) as made:
        yield made


# --- what is listed ---


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_stream_is_listed_as(kind: str, tmp_path: Path) -> None:
    """All that is known of its head: as `info()` tells it, and as the protocol's own headers do."""
    clock = VirtualClock()
    async with opened(kind, tmp_path, clock) as streams, site(streams) as made:
        now = clock.wall()
        stream = await streams.create("chat/42", ttl_seconds=60)
        clock.advance(5)
        await stream.append_json({"n": 1}, [2])
        await stream.close()
        await stream.fork("chat/42/again", after=1)
        page = await listed(made)
        assert page == {"items": page["items"], "shown": 2, "next": None}
        first, second = page["items"]
        head = await get(made.app, first["url"], method="HEAD", headers=[HOST])
        assert first == {
            "name": "chat/42",
            "url": "/lastcall/streams/chat/42",
            "content_type": head.headers["content-type"],
            "closed": True,
            "entries": 2,
            "first": 1,
            "last": 2,
            "bytes": 10,
            "next_offset": head.headers["stream-next-offset"],
            "created_at": now,
            "updated_at": now + 5,
            "ttl_seconds": 60,
            "expires_at": now + 65,
            "forked_from": None,
            "inherited": 0,
        }
        assert (second["forked_from"], second["inherited"], second["closed"]) == ("chat/42", 1, False)
        read = await get(made.app, first["url"], query="offset=-1", headers=[HOST])
        assert read.json() == [{"n": 1}, [2]]


async def test_pages_by_prefix(tmp_path: Path) -> None:
    """Page by page, by name, along `next` or the Link; also where the stream of the cursor is deleted meanwhile."""
    names = [f"chat/{number:02}" for number in range(7)] + ["other"]
    async with filled(*names) as made:
        first = await ask(made, "prefix=chat/&limit=3", root_path="/shop")
        page = first.json()
        assert [item["name"] for item in page["items"]] == names[:3]
        assert page["items"][0]["url"] == "/shop/lastcall/streams/chat/00"
        assert f"cursor={page['next']}" in first.headers["link"] and "prefix=chat" in first.headers["link"]
        assert (await made.send("DELETE", "chat/02")).status == 204
        seen = [item["name"] for item in page["items"]]
        while page["next"]:
            page = await listed(made, f"prefix=chat/&limit=3&cursor={page['next']}")
            assert page["shown"] == len(page["items"]) <= 3
            seen += [item["name"] for item in page["items"]]
        assert seen == names[:7]
        assert (await listed(made, "prefix=none"))["items"] == []
        head = await ask(made, method="HEAD")
        assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("name", [*HOSTILE, "x" * 1024, "\U0010ffff" * 256])
async def test_any_name_is_data_and_has_a_url(name: str) -> None:
    """Whatever stands in a name: it is told as it is, its URL leads to it, and a page can begin behind it."""
    async with filled(name, "z") as made:
        answer = await ask(made)
        assert answer.headers["content-type"] == "application/json"
        [item] = [one for one in answer.json()["items"] if one["name"] == name]
        # What a server makes of the URL: it is decoded once.
        assert (await get(made.app, unquote(item["url"]), query="offset=-1")).status == 200
        assert not {"", ".", ".."} & set(item["url"].removeprefix("/").split("/"))
        following = await listed(made, "limit=1&cursor=" + make_cursor("streams", name))
        assert name not in [one["name"] for one in following["items"]]


def test_names_that_are_places_have_no_url() -> None:
    """A client would take them for the folder and the one above, and ask for something else."""
    assert path_of("/a b/", "..") is None and path_of("/", ".") is None
    assert path_of("/a b/", "...") == "/a%20b/..."


async def test_a_stream_in_the_place_of_a_log_has_no_url(tmp_path: Path) -> None:
    """Below `jobs/` are the logs of jobs; a stream of such a name is listed, and no URL leads to a job in its place."""
    jobs = Jobs(f"sqlite:///{tmp_path}/jobs.db")
    made = Site(jobs.streams, jobs)
    async with running(made.app):
        await jobs.streams.create("jobs/1")
        await jobs.streams.create("jobs")
        urls = {item["name"]: item["url"] for item in (await listed(made))["items"]}
    assert urls == {"jobs": "/lastcall/streams/jobs", "jobs/1": None}


# --- what is refused ---


@pytest.mark.parametrize(
    ("query", "status", "detail"),
    [
        ("cursor=abc", 400, "was not given out by this list"),
        ("cursor=" + make_cursor("jobs", "0199d4b0-6f0a-7c35-9d3e-5b1f6f1c2a77"), 400, "was not given out"),
        ("cursor=" + make_cursor("streams", "a")[:-2], 400, "was not given out"),
        ("cursor=" + "A" * 5000, 400, "was not given out"),
        ("cursor=" + make_cursor("streams", "\x01"), 422, "control characters"),
        ("cursor=", 400, "cursor is empty"),
        ("limit=0", 400, "from 1 to 1000"),
        ("limit=1001", 400, "from 1 to 1000"),
        ("after=a", 400, "use prefix, limit, cursor"),
        ("prefix=%00", 422, "control characters"),
        ("prefix=%ff", 400, "not UTF-8"),
        ("prefix=" + "x" * 1025, 422, "at most 1024 bytes"),
    ],
)
async def test_what_cannot_be_asked_for(query: str, status: int, detail: str) -> None:
    """Forged cursors, limits and prefixes that are none: a problem document that says why."""
    async with filled("a") as made:
        answer = await ask(made, query)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
        assert detail in answer.json()["detail"]


async def test_only_who_may() -> None:
    """Strangers see no name; who may only look sees the list and changes nothing; nobody writes to the list."""
    async with filled("a") as made:
        stranger = await ask(made, client=("203.0.113.9", 1))
        assert stranger.status == 403 and b'"a"' not in stranger.body
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            refused = await ask(made, method=method)
            assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    async with filled("a", allow=Access(read_only=True)) as made:
        assert (await listed(made))["shown"] == 1
        assert (await made.send("DELETE", "a")).status == 403


class _Away(MemoryStore):
    async def heads(self, prefix: str, after: str, limit: int) -> Any:
        raise EngineUnavailable("the database is away")


async def test_a_store_that_is_away_says_so() -> None:
    """503 and when to come back, as every page of a store."""
    async with site(Streams(_Away())) as made:
        answer = await ask(made)
        assert (answer.status, answer.json()["detail"]) == (503, "the database is away")
        assert "retry-after" in answer.headers


async def test_streams_of_jobs_are_not_opened_again_by_a_late_look(tmp_path: Path) -> None:
    """Before the app has started and after it has shut down the list is 503, and nobody opens the store for it."""
    jobs = Jobs(f"sqlite:///{tmp_path}/jobs.db")
    made = Site(jobs.streams, jobs)
    assert (await ask(made)).status == 503
    async with running(made.app):
        await jobs.streams.create("a")
        assert (await listed(made))["shown"] == 1
    assert (await ask(made)).status == 503
    async with asyncio.timeout(10):
        async with jobs:  # closed, so that it can be opened
            assert len(await jobs.streams.find()) == 1


async def test_the_list_goes_on_in_the_drain() -> None:
    """Who watches a deploy sees the streams to its end, while the streams themselves are read elsewhere by then."""
    made = Site(Streams())
    async with running(made.app) as lifespan:
        assert (await made.send("PUT", "a")).status == 201
        hold = asyncio.Event()
        made.manager.create_task(hold.wait(), name="work")
        made.manager.begin_shutdown()
        assert (await listed(made))["shown"] == 1
        assert (await made.look("a")).status == 503
        hold.set()
        await within(lifespan.stop())


@pytest.mark.parametrize("durable", [False, True])
async def test_where_there_are_only_logs_there_is_no_list(durable: bool, tmp_path: Path) -> None:
    """Jobs without `streams=`: `meta` says so beforehand, the list is 404, and the document has no such page."""
    jobs = Jobs(f"sqlite:///{tmp_path}/jobs.db")
    made = Site(DurableStreams(None) if durable else None, jobs)
    async with running(made.app):
        assert not (await get(made.app, "/lastcall/meta")).json()["has_streams"]
        assert (await ask(made)).status == 404
        paths = (await get(made.app, "/lastcall/openapi.json")).json()["paths"]
        assert "/streams" not in paths and set(paths["/streams/{name}"]) == {"get", "head"}
    async with site() as alone:
        assert (await get(alone.app, "/lastcall/meta")).json()["has_streams"]
        paths = (await get(alone.app, "/lastcall/openapi.json")).json()["paths"]
        assert set(paths["/streams/{name}"]) == {"get", "head", "put", "post", "delete"}


# --- the document of the protocol ---


async def test_the_document_knows_every_header_of_the_protocol() -> None:
    """Whatever the protocol answers, good or bad: its status and each of its headers stand in the document."""
    async with site() as made:
        told = (await get(made.app, "/lastcall/openapi.json")).json()["paths"]["/streams/{name}"]

        def producer(epoch: int, seq: int) -> list[tuple[bytes, bytes]]:
            return [
                (b"producer-id", b"p"),
                (b"producer-epoch", b"%d" % epoch),
                (b"producer-seq", b"%d" % seq),
            ]

        answers = [
            await made.send("PUT", "s", JSON, (b"stream-ttl", b"60"), body=b"[1]"),
            await made.send("PUT", "s", JSON, (b"stream-ttl", b"60")),
            await made.send("PUT", "s", JSON),
            await made.send("PUT", "t", (b"stream-expires-at", b"2990-01-01T00:00:00Z"), body=b"x"),
            await made.send("POST", "s", JSON, body=b"2"),
            await made.send("POST", "s", JSON, *producer(1, 0), body=b"3"),
            await made.send("POST", "s", JSON, *producer(1, 5), body=b"3"),
            await made.send("POST", "s", JSON, *producer(0, 0), body=b"3"),
            await made.send("POST", "s", JSON, body=b"{"),
            await made.look("s", "offset=-1"),
            await made.look("none"),
            await made.send("HEAD", "s"),
            await made.send("POST", "s", (b"stream-closed", b"true")),
            await made.send("POST", "s", JSON, body=b"4"),
            await made.look("s", "offset=-1&live=sse"),
            await made.look("s", "offset=now&live=long-poll"),
            await made.send("POST", "t", (b"stream-closed", b"true")),
            await made.look("t", "offset=-1&live=sse"),
            await made.send("DELETE", "s"),
            await made.send("DELETE", "s"),
        ]
        again = await made.look("t", "offset=-1")
        answers.append(await made.look("t", "offset=-1", (b"if-none-match", again.headers["etag"].encode())))
    assert {answer.status for answer in answers} == {200, 201, 204, 304, 400, 403, 404, 409}
    for answer in answers:
        described = told[answer.scope["method"].lower()]["responses"][str(answer.status)]
        known = {name.lower() for name in described.get("headers", {})} | OF_EVERY_ANSWER
        assert answer.headers.keys() <= known, (answer.scope["method"], answer.status)


async def test_the_document_knows_every_parameter_of_the_protocol() -> None:
    """Each request header that a page of another site may send is a parameter of some verb, and so is the query."""
    streams = DurableStreams(Streams(), origins=["*"])
    async with site(streams) as made:
        told = (await get(made.app, "/lastcall/openapi.json")).json()["paths"]["/streams/{name}"]
        options = await made.send("OPTIONS", "s")
    parameters = {one["name"] for verb in told.values() for one in verb["parameters"]}
    allowed = set(options.headers["access-control-allow-headers"].split(", "))
    assert parameters == allowed - {"content-type", "authorization"} | {"name", "offset", "live", "cursor"}
    assert {verb.upper() for verb in told} == set(options.headers["allow"].split(", ")) - {"OPTIONS"}
