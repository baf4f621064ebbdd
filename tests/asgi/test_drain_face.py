"""PREFIX/drain: a process that is asked to drain begins as at a signal, and is followed to its report."""

import asyncio
import json
import threading
from typing import Any

import pytest

from lastcall import ManagerState, ShutdownPlan, TaskManager
from lastcall.asgi import Lastcall
from tests.asgi.driver import Request, get, running, until

EVENTS = ((b"host", b"localhost"), (b"accept", b"text/event-stream"))


async def app_without_pages(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


def make(**options: Any) -> Lastcall:
    manager = TaskManager(name="bar", plan=ShutdownPlan(drain=30, cancel=3, close=2))
    return Lastcall(app_without_pages, manager, **options)


def told(request: Request, name: str) -> list[Any]:
    return [json.loads(event["data"]) for event in request.events() if event["event"] == name]


async def test_a_drain_is_begun_and_followed_to_its_report() -> None:
    """One request begins it and hears who is waited for, how long, and at last the report, while the server waits."""
    release = asyncio.Event()
    async with running(app := make()) as lifespan:
        app.manager.create_task(release.wait(), name="the last guest")
        request = Request(app, "/lastcall/drain", method="POST", headers=EVENTS)
        await request.until(lambda _: told(request, "drain"))
        first = told(request, "drain")[0]
        assert request.status == 202
        assert (first["state"], first["name"], first["report"]) == ("draining", "bar", None)
        assert [work["name"] for work in first["work"]] == ["the last guest"] and first["busy"] == 1
        assert 0 < first["phase_remaining_seconds"] <= 30 < first["remaining_seconds"] <= 35
        assert first["plan"]["total"] == 35 and first["ends_process"]
        release.set()
        await request.done()
        await lifespan.stop()
    [last] = told(request, "report")
    assert (last["state"], last["busy"], last["report"]["clean"]) == ("closed", 0, True)
    assert request.events()[-1]["event"] == "report"


async def test_a_follower_who_came_before_the_drain_sees_it() -> None:
    """A page that was left open: it is told at once where things stand, then of the stop; a second POST is the same."""
    release = asyncio.Event()
    async with running(app := make()) as lifespan:
        app.manager.create_task(release.wait(), name="guest")
        request = Request(app, "/lastcall/drain", headers=EVENTS)
        await request.until(lambda _: told(request, "drain"))
        assert told(request, "drain")[0]["state"] == "open"
        answers = [await get(app, "/lastcall/drain", method="POST") for _ in range(2)]
        assert [(answer.status, answer.json()["state"]) for answer in answers] == [(202, "draining")] * 2
        await request.until(lambda _: told(request, "drain")[-1]["state"] == "draining")
        release.set()
        await request.done()
        await lifespan.stop()
    assert told(request, "report")[0]["report"]["counts"]["finished"] == 1
    assert (await get(app, "/lastcall/drain")).json()["report"]["clean"]


async def test_a_follower_who_leaves_is_forgotten_and_there_are_not_too_many() -> None:
    """Sixteen follow, the next is told so; one leaves, and there is room again."""
    async with running(app := make()):
        followers = [Request(app, "/lastcall/drain", headers=EVENTS) for _ in range(16)]
        for follower in followers:
            await follower.until(lambda one: one.chunks)
        assert (await get(app, "/lastcall/drain", headers=EVENTS)).status == 429
        followers[0].leave()
        await followers[0].done()
        late = await Request(app, "/lastcall/drain", headers=EVENTS).until(lambda one: one.chunks)
        assert late.status == 200
        for follower in (*followers, late):
            follower.leave()
            await follower.done()


async def test_a_follower_who_does_not_read_holds_nobody_up() -> None:
    """A stuck browser: the shutdown goes on to its end without it, and the lifespan is over."""
    async with running(app := make()) as lifespan:
        stuck = Request(app, "/lastcall/drain", headers=EVENTS, reading=False)
        await stuck.until(lambda one: one.status == 200)
        answer = await get(app, "/lastcall/drain", method="POST")
        assert answer.status == 202
        await lifespan.stop()
        assert app.manager.state is ManagerState.CLOSED and not stuck.task.done()
        stuck.read_on()
        await stuck.done()


async def test_looking_begins_nothing() -> None:
    """GET and HEAD leave the process open, and PUT is no verb of it."""
    async with running(app := make()):
        shown = (await get(app, "/lastcall/drain")).json()
        assert (shown["state"], shown["report"], shown["remaining_seconds"]) == ("open", None, None)
        assert (await get(app, "/lastcall/drain", method="HEAD")).status == 200
        assert (await get(app, "/lastcall/drain", method="PUT")).status == 405
        assert app.manager.state is ManagerState.OPEN


@pytest.mark.parametrize(
    "headers",
    [
        [(b"host", b"shop.example")],
        [(b"host", b"localhost"), (b"origin", b"http://elsewhere.example")],
        [(b"host", b"localhost"), (b"x-forwarded-for", b"203.0.113.9")],
    ],
)
async def test_nobody_else_drains_it(headers: list[tuple[bytes, bytes]]) -> None:
    """Who may not look may not drain: not through a proxy, not from another site's page."""
    async with running(app := make()):
        assert (await get(app, "/lastcall/drain", method="POST", headers=headers)).status == 403
        assert app.manager.state is ManagerState.OPEN


async def test_before_its_lifespan_it_is_503() -> None:
    """An app that has not started has nothing to drain."""
    assert (await get(make(), "/lastcall/drain", method="POST")).status == 503


@pytest.mark.loops("asyncio")
def test_where_no_signal_is_heard_the_plan_alone_is_carried_out() -> None:
    """A server in a thread: its process is not ours to end, so it is not sent a signal, and the answer says so."""

    async def main() -> None:
        async with running(app := make()) as lifespan:
            answer = await get(app, "/lastcall/drain", method="POST")
            assert (answer.status, answer.json()["ends_process"]) == (202, False)
            await until(lambda: app.manager.state is ManagerState.CLOSED)
            await lifespan.stop()

    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not thread.is_alive() and errors == []
