"""An error of a BackgroundTask is not handled for you: the rest of the list is dropped, the server gets the error."""

import asyncio
import logging

from fastapi import BackgroundTasks, FastAPI

from lastcall import TaskManager
from lastcall.fastapi import install

done: list[str] = []


async def mail() -> None:
    raise OSError("no route to the mail server")


async def index() -> None:
    done.append("indexed")


def shop() -> FastAPI:
    app = FastAPI()

    @app.post("/")
    async def order(background_tasks: BackgroundTasks) -> dict[str, bool]:
        background_tasks.add_task(mail)
        background_tasks.add_task(index)
        return {"ok": True}

    return app


async def call(app: FastAPI) -> int:
    """One request, as a server makes it."""
    status = 0
    body_was_read = False

    async def receive() -> dict[str, object]:
        nonlocal body_was_read
        if body_was_read:
            await asyncio.Event().wait()
        body_was_read = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = int(str(message["status"]))

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    try:
        await app({**scope, "asgi": {"version": "3.0"}, "http_version": "1.1"}, receive, send)
    except OSError:
        done.append("the server got the error")
    return status


async def proof() -> None:
    done.clear()
    assert await call(shop()) == 200, "the client was told that all is well"
    assert done == ["the server got the error"], "and `index` was never run"


async def with_lastcall() -> None:
    done.clear()
    errors: list[str] = []
    app = shop()
    manager = install(app, TaskManager(on_error=lambda info, error: errors.append(f"{info.name}: {error}")))
    async with Lifespan(app):
        assert await call(app) == 200
        async with asyncio.timeout(5):
            while manager.stats().running:
                await asyncio.sleep(0.01)
    assert done == ["indexed"]
    assert errors == ["mail: no route to the mail server"]


class Lifespan:
    """The app's lifespan, as a server runs it."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._answers: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    async def __aenter__(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._task = asyncio.create_task(self._app(scope, self._messages.get, self._answers.put))
        await self._messages.put({"type": "lifespan.startup"})
        assert (await self._answers.get())["type"] == "lifespan.startup.complete"

    async def __aexit__(self, *_: object) -> None:
        await self._messages.put({"type": "lifespan.shutdown"})
        await asyncio.wait({self._task}, timeout=5)


async def main() -> None:
    logging.getLogger("lastcall").disabled = True
    await proof()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
