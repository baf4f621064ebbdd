"""The health pages and the JSON face: they answer while everything drains, and only whom they should."""

import asyncio
from typing import Any

import pytest

from lastcall import ShutdownPlan, TaskManager, TaskStatus
from lastcall.asgi import Lastcall
from tests.asgi.driver import Request, get, running, until


async def not_found(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"the app"})


def make(**options: Any) -> Lastcall:
    return Lastcall(not_found, TaskManager(plan=ShutdownPlan(drain=30)), **options)


@pytest.mark.parametrize("path", ["/livez", "/lastcall/livez"])
async def test_liveness_stays_green_in_the_drain(path: str) -> None:
    """A liveness probe must not kill a process that drains."""
    release = asyncio.Event()
    async with running(app := make()) as lifespan:
        app.manager.create_task(release.wait())
        app.manager.begin_shutdown()
        request = await get(app, path)
        assert (request.status, request.json()) == (200, {"status": "alive", "state": "draining"})
        release.set()
        await lifespan.stop()
    assert (await get(app, path)).status == 200


@pytest.mark.parametrize("path", ["/readyz", "/lastcall/readyz"])
async def test_readiness_turns_at_the_first_moment(path: str) -> None:
    """200 before, 503 with Retry-After from the moment the shutdown begins."""
    async with running(app := make()):
        assert (await get(app, path)).json() == {"status": "ready", "state": "open"}
        app.manager.begin_shutdown()
        request = await get(app, path)
        assert request.status == 503 and request.headers["retry-after"] == "5"


async def test_head_has_headers_and_no_body() -> None:
    """Probes often use HEAD; the length is that of GET."""
    async with running(app := make()):
        for path in ("/livez", "/readyz", "/lastcall/stats"):
            head, whole = await get(app, path, method="HEAD"), await get(app, path)
            assert (head.status, head.body) == (200, b"")
            assert head.headers["content-length"] == str(len(whole.body))


async def test_tasks_are_listed_filtered_and_bounded() -> None:
    """The list takes status, group and limit, newest first, and says how many there are in all."""
    async with running(app := make()):
        manager = app.manager
        for number in range(5):
            await manager.create_task(asyncio.sleep(0, number), name=f"task {number}")
        group = manager.group("mails")
        release = asyncio.Event()
        group.create_task(release.wait(), name="mail")
        listed = (await get(app, "/lastcall/tasks")).json()
        assert [task["name"] for task in listed["tasks"]] == ["mail", *(f"task {n}" for n in (4, 3, 2, 1, 0))]
        assert listed["tasks"][2]["result"] == "3" and listed["tasks"][2]["status"] == "completed"
        running_ones = (await get(app, "/lastcall/tasks", query="status=running")).json()
        assert [task["name"] for task in running_ones["tasks"]] == ["mail"]
        in_group = (await get(app, "/lastcall/tasks", query="group=mails")).json()
        assert [task["group"] for task in in_group["tasks"]] == ["mails"]
        short = (await get(app, "/lastcall/tasks", query="limit=2")).json()
        assert (short["shown"], short["total"]) == (2, 6)
        assert [task["name"] for task in short["tasks"]] == ["mail", "task 4"]
        release.set()


@pytest.mark.parametrize(
    "query",
    [
        "status=gone",
        "status=",
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=99999999999999999999",
        "limit=%C2%B2",
    ],
)
async def test_bad_queries_are_named(query: str) -> None:
    """A filter that cannot be understood is a 400 which names it, not an empty list and not a 500."""
    async with running(app := make()):
        request = await get(app, "/lastcall/tasks", query=query)
    assert request.status == 400
    assert query.partition("=")[0] in request.json()["detail"]


async def test_one_task_and_its_error() -> None:
    """A failed task shows its error; an unknown id is 404, with the id in the message."""

    async def fail() -> None:
        raise ValueError("x" * 5000)

    async with running(app := make()):
        task = app.manager.create_task(fail(), id="job-1")
        await asyncio.wait({task})
        shown = (await get(app, "/lastcall/tasks/job-1")).json()
        assert (
            shown["status"] == "failed"
            and shown["error"].startswith("ValueError(")
            and len(shown["error"]) <= 1000
        )
        missing = await get(app, "/lastcall/tasks/nobody")
        assert missing.status == 404 and "nobody" in missing.json()["detail"]


async def test_repr_that_fails_or_is_endless_does_not_break_the_list() -> None:
    """Results of any kind are shown, cut to a bounded length."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    async def give(value: Any) -> Any:
        return value

    nested: list[Any] = []
    nested.append(nested)
    async with running(app := make()):
        for value in (Broken(), "y" * 100_000, nested, {"k": ["z" * 9000] * 500}, float("nan")):
            await app.manager.create_task(give(value))
        request = await get(app, "/lastcall/tasks")
    assert request.status == 200 and all(len(task["result"]) <= 1000 for task in request.json()["tasks"])


async def test_cancel_answers_honestly() -> None:
    """A running task ends, an ended one is told so, an unknown one is 404; GET cancels nothing."""
    async with running(app := make()):
        task = app.manager.create_task(asyncio.sleep(3600), id="sleepy")
        assert (await get(app, "/lastcall/tasks/sleepy/cancel")).status == 405
        assert not task.done()
        answer = await get(app, "/lastcall/tasks/sleepy/cancel", method="POST")
        assert answer.json() == {"id": "sleepy", "answer": "ended"} and task.cancelled()
        assert app.manager.info("sleepy").status is TaskStatus.CANCELLED
        again = await get(app, "/lastcall/tasks/sleepy/cancel", method="POST")
        assert again.json()["answer"] == "already_ended"
        assert (await get(app, "/lastcall/tasks/nobody/cancel", method="POST")).status == 404


async def test_before_the_start_there_is_nothing_to_show() -> None:
    """The face of an app whose lifespan has not run: 503 that says so, and not a 500."""
    for page in ("stats", "tasks", "tasks/t-1"):
        request = await get(make(), f"/lastcall/{page}")
        assert request.status == 503 and "not open" in request.json()["detail"]


async def test_a_call_in_flight_can_be_cancelled() -> None:
    """A request is work like any other: cancelled by its id, it ends with a proper 503."""
    app = Lastcall(_sleeping, TaskManager())
    async with running(app):
        request = Request(app, "/")
        await until(app.manager.calls)
        [call] = app.manager.calls()
        answer = await get(app, f"/lastcall/tasks/{call.id}/cancel", method="POST")
        assert answer.json()["answer"] == "ended"
        assert (await request.done()).status == 503


async def _sleeping(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await asyncio.sleep(3600)


async def test_stats_count_calls_and_tasks() -> None:
    """The counters, the manager's name and its state."""
    async with running(app := make()):
        await app.manager.create_task(asyncio.sleep(0))
        stats = (await get(app, "/lastcall/stats")).json()
    assert (stats["name"], stats["state"], stats["completed"], stats["calls"]) == ("lastcall", "open", 1, 0)


LOCAL = {"client": ("127.0.0.1", 1), "headers": [(b"host", b"localhost:8000")]}


@pytest.mark.parametrize(
    "options",
    [
        {"client": ("10.0.0.7", 1)},
        {"client": ("not an address", 1)},
        {"client": None},
        {"headers": [(b"host", b"localhost"), (b"x-forwarded-for", b"10.0.0.7")]},
        {"headers": [(b"host", b"localhost"), (b"Forwarded", b"for=10.0.0.7")]},
        {"headers": [(b"host", b"evil.example")]},
        {"headers": [(b"host", b"localhost.evil.example")]},
        {"headers": [(b"host", b"localhost:8000"), (b"origin", b"http://evil.example")]},
        {"headers": []},
    ],
)
async def test_strangers_see_nothing(options: dict[str, Any]) -> None:
    """Another machine, a proxy, a web page elsewhere, a rebound name: 403, and nothing is cancelled."""
    async with running(app := make()):
        task = app.manager.create_task(asyncio.sleep(3600), id="sleepy")
        for path, method in (
            ("/tasks", "GET"),
            ("/tasks/sleepy", "GET"),
            ("/stats", "GET"),
            ("/tasks/sleepy/cancel", "POST"),
        ):
            request = await get(app, "/lastcall" + path, method=method, **{**LOCAL, **options})
            assert request.status == 403 and b"sleepy" not in request.body
        assert not task.done()
        assert (await get(app, "/livez", **{**LOCAL, **options})).status == 200
        await app.manager.cancel_task(task)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"client": ("::1", 1), "headers": [(b"host", b"[::1]:8000")]},
        {"client": ("::ffff:127.0.0.1", 1)},
        {"headers": [(b"host", b"127.0.0.1")]},
        {"headers": [(b"host", b"localhost:8000"), (b"origin", b"http://localhost:8000")]},
    ],
)
async def test_local_clients_are_let_in(options: dict[str, Any]) -> None:
    """Every way to say "this machine" works."""
    async with running(app := make()):
        assert (await get(app, "/lastcall/stats", **{**LOCAL, **options})).status == 200


async def test_allow_decides_instead() -> None:
    """A hook, sync or async, takes the whole decision: it can let strangers in and locals out."""

    async def by_token(scope: Any) -> bool:
        return (b"authorization", b"Bearer secret") in scope["headers"]

    async with running(app := make(allow=by_token)):
        stranger = {"client": ("10.0.0.7", 1), "headers": [(b"authorization", b"Bearer secret")]}
        assert (await get(app, "/lastcall/stats", **stranger)).status == 200
        assert (await get(app, "/lastcall/stats", **LOCAL)).status == 403
    async with running(app := make(allow=lambda scope: True)):
        assert (await get(app, "/lastcall/stats", client=None)).status == 200


@pytest.mark.loops("asyncio")
async def test_the_prefix_is_ours_and_the_rest_is_the_apps() -> None:
    """What is beside the prefix goes to the app; what is below it and no page is a problem document."""
    async with running(app := make()):
        for path in ("/", "/livez/x", "/lastcalltasks"):
            assert (await get(app, path)).body == b"the app"
        for path in (
            "/lastcall",
            "/lastcall/",
            "/lastcall/other",
            "/lastcall/tasks/a/b/c",
            "/lastcall/assets/x.js",
        ):
            answer = await get(app, path)
            assert (answer.status, answer.json()["title"]) == (404, "Not Found")
            assert answer.headers["content-type"] == "application/problem+json"


async def test_a_prefix_of_ones_own_and_a_mounted_app() -> None:
    """The prefix is settable, and counts from where a server or proxy mounted the app."""
    async with running(app := make(prefix="/internal/work")):
        assert (await get(app, "/internal/work/stats")).status == 200
        assert (await get(app, "/lastcall/stats")).body == b"the app"
        assert (await get(app, "/shop/livez", root_path="/shop")).status == 200
        assert (await get(app, "/livez", root_path="/shop")).status == 200


@pytest.mark.parametrize("prefix", ["", "/", "lastcall", "/lastcall/", "/{id}", "/a b"])
def test_bad_prefixes_are_refused(prefix: str) -> None:
    """A prefix that is no absolute path is a clear error at once."""
    with pytest.raises(ValueError, match="prefix"):
        make(prefix=prefix)


async def test_face_answers_while_a_call_is_in_flight() -> None:
    """A busy app and a draining one can be looked into."""
    release = asyncio.Event()

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await release.wait()
        await not_found(scope, receive, send)

    app = Lastcall(busy, TaskManager(plan=ShutdownPlan(drain=30)))
    async with running(app) as lifespan:
        request = Request(app, "/")
        await until(app.manager.calls)
        app.manager.begin_shutdown()
        assert (await get(app, "/lastcall/stats")).json()["calls"] == 1
        release.set()
        await request.done()
        await lifespan.stop()
