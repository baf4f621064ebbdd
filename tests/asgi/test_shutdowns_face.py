"""PREFIX/shutdowns: what earlier processes on the store have left behind, and who gets to see how much of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lastcall import ShutdownPlan, TaskManager
from lastcall.asgi import Access, Lastcall
from lastcall.jobs import Jobs, _shutdowns
from tests.asgi.driver import Lifespan, get, running
from tests.asgi.test_face import not_found

pytestmark = pytest.mark.loops("asyncio")

SHUTDOWNS = "/lastcall/shutdowns"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other things takes nothing from a report."""
    monkeypatch.setattr(_shutdowns, "_PATIENCE_SECONDS", 30.0)


def an_app(folder: Path, name: str, app: Any = not_found, **options: Any) -> Lastcall:
    """As a process of its own would make it, on the same store."""
    jobs = Jobs(f"sqlite:///{folder}/jobs.db?synchronous=off")
    manager = TaskManager(
        name=name, plan=ShutdownPlan(drain=20, cancel=20, close=200), on_error=lambda info, error: None
    )
    if options.pop("with_streams", False):
        options["streams"] = jobs.streams
    return Lastcall(app, manager, jobs=jobs, **options)


async def pays() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ValueError("card 4711 of ann") from None


async def served_once(app: Lastcall) -> None:
    """A process that serves, and in whose shutdown a task fails."""
    async with running(app):
        app.manager.create_task(pays(), name="pay")
        await asyncio.sleep(0)
        app.manager.begin_shutdown()
        app.manager.force()


async def test_the_next_process_shows_how_the_last_one_ended(tmp_path: Path) -> None:
    """A deploy: the first process ends with a task that fails. The second one shows it, as REPORT and as text, the
    newest first; while it is its own turn it does not; without jobs there is no such page."""
    await served_once(an_app(tmp_path, "blue"))
    async with running(app := an_app(tmp_path, "green")):
        told = (await get(app, SHUTDOWNS)).json()
        [past] = told["shutdowns"]
        report = past["report"]
        assert (report["name"], report["clean"], report["forced"]) == ("blue", False, True)
        assert [(task["name"], task["error"]) for task in report["tasks"]] == [
            ("pay", "ValueError: card 4711 of ann")
        ]
        assert past["text"].startswith("shutdown of blue") and "card 4711" in past["text"]
        assert (past["id"], past["is_complete"], past["worker_ids"]) == (1, False, [])
        assert report["started_at"] <= past["at"] <= told["now"]
        schemas = (await get(app, "/lastcall/openapi.json")).json()["components"]["schemas"]
        assert past.keys() == schemas["PastShutdown"]["properties"].keys()
        assert report.keys() == schemas["Report"]["properties"].keys()
    assert (await get(app, SHUTDOWNS)).status == 503
    assert (await get(app, "/lastcall/shutdown")).json()["report"]["name"] == "green"
    async with running(app := an_app(tmp_path, "blue again")):
        shutdowns = (await get(app, SHUTDOWNS)).json()["shutdowns"]
        assert [past["report"]["name"] for past in shutdowns] == ["green", "blue"]
        [newest] = (await get(app, SHUTDOWNS, query="limit=1")).json()["shutdowns"]
        assert newest["report"]["name"] == "green"
        for query in ("limit=0", "limit=51", "limit=x", "before=3"):
            assert (await get(app, SHUTDOWNS, query=query)).status == 400, query
        assert (await get(app, SHUTDOWNS, method="DELETE")).status == 405
        assert (await get(app, SHUTDOWNS, headers=[(b"host", b"shop.example")])).status == 403
    async with running(bare := Lastcall(not_found, TaskManager())):
        assert (await get(bare, SHUTDOWNS)).status == 404


async def test_what_is_hidden_elsewhere_is_hidden_here(tmp_path: Path) -> None:
    """Errors hold card numbers. The hook that hides them in the report of this process hides them in those of others,
    and no page of streams tells the same without it."""
    await served_once(an_app(tmp_path, "blue"))
    access = Access(redact=lambda shown: f"({shown.what} of {shown.task})")
    async with running(app := an_app(tmp_path, "green", allow=access, with_streams=True)):
        answer = await get(app, SHUTDOWNS)
        [past] = answer.json()["shutdowns"]
        assert past["report"]["tasks"][0]["error"] == "(error of pay)" and "(error of pay)" in past["text"]
        assert b"4711" not in answer.body
        for path in (
            "%1Flastcall%2Fshutdowns",
            "%1Flastcall/shutdowns",
            "%251Flastcall%252Fshutdowns",
            "\x1flastcall/shutdowns",
        ):
            answer = await get(app, f"/lastcall/streams/{path}")
            assert answer.status in (400, 404) and b"4711" not in answer.body, path


async def test_a_process_that_cannot_start_leaves_nothing(tmp_path: Path) -> None:
    """A pod that crashes at its start, again and again, must not push out the reports that people look for."""

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no configuration")

    lifespan = Lifespan(an_app(tmp_path, "blue", fails))
    assert (await lifespan.start())["type"] == "lifespan.startup.failed"
    await asyncio.wait({lifespan.task}, timeout=20)
    assert isinstance(lifespan.task.exception(), RuntimeError)
    async with running(app := an_app(tmp_path, "green")):
        assert (await get(app, SHUTDOWNS)).json()["shutdowns"] == []


async def test_a_worker_in_the_app_is_named(tmp_path: Path) -> None:
    """A web process that also runs jobs: one report, with the name under which its worker had its lease."""
    app: Lastcall
    ids: list[str] = []

    async def with_worker(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan" and app.face.jobs is not None
        await receive()
        async with app.face.jobs._jobs.worker() as worker:
            ids.append(worker.id)
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    app = an_app(tmp_path, "blue", with_worker)
    async with running(app):
        pass
    async with running(green := an_app(tmp_path, "green")):
        [past] = (await get(green, SHUTDOWNS)).json()["shutdowns"]
    assert past["worker_ids"] == ids and past["report"]["clean"]
