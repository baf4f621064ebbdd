"""PREFIX/live and PREFIX/history: for pages that are left open.

Who calls it: `_face`. `live` is one stream of server-sent events with everything such a page shows; `_live` makes it.
"""

from __future__ import annotations

import asyncio
import logging

from .._core._manager import TaskManager
from .._core._state import ManagerState
from ..exceptions import NotOpen
from . import _examples as examples
from . import _models as models
from ._abort import abort_connection, flush_connection
from ._drain_face import EVENT_HEADERS, until_gone
from ._history import STEP_SECONDS, History
from ._live import LAST_SECONDS, Feed
from ._pages import Answer, Request, Route, Says
from ._places import Places
from ._types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger("lastcall.asgi")


class LiveFace:
    """The pages."""

    def __init__(self, manager: TaskManager, feed: Feed, history: History, places: Places) -> None:
        self._manager = manager
        self._feed = feed
        self._history = history
        self._places = places

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "live",
                self._live,
                "Everything that a page shows which is left open, as server-sent events: `meta`, `overview`, `tasks`, "
                "`shutdown`, `history`; each is a whole state, sent when it has changed, about once a second. After a "
                "shutdown `report` is the last one.",
                {200: Says("events until the process has shut down", media=("text/event-stream",))},
                refuses=(429, 503),
            ),
            Route(
                "GET",
                "history",
                self._show,
                "The last minutes in numbers. Counted from the first look on, until nobody has looked for ten minutes.",
                {200: Says("the points", models.History, examples.HISTORY)},
                refuses=(503,),
            ),
        ]

    async def _show(self, request: Request) -> Answer:
        self._check_open()
        self._history.look()
        return Answer(200, {"step_seconds": STEP_SECONDS, "points": self._history.points()})

    async def _live(self, request: Request) -> ASGIApp:
        self._check_open()
        return self._follow

    def _check_open(self) -> None:
        if self._manager.state is ManagerState.NEW:
            raise NotOpen("the app has not started")

    async def _follow(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._places.take(scope):
            await send({"type": "http.response.start", "status": 200, "headers": EVENT_HEADERS})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            leaving = asyncio.get_running_loop().create_task(until_gone(receive), name="lastcall: a reader")
            try:
                with self._feed.reading() as reader:
                    await reader.run(send, leaving)
                if not leaving.done():
                    await flush_connection(send, LAST_SECONDS)
            except TimeoutError:
                logger.info("a reader of the live feed does not read, and is let go")
                await abort_connection(send)
            except OSError:
                pass  # how servers of ASGI 2.4 say that the client left
            finally:
                leaving.cancel()
