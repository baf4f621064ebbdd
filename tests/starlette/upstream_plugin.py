"""A pytest plugin for running Starlette's own tests with lastcall around every app.

UPSTREAM_MODE=classes puts our BackgroundTask and BackgroundTasks in the place of Starlette's;
UPSTREAM_MODE=tracked leaves Starlette's in place and tracks them, as `install` does.
"""

import contextlib
import os
import sys
from typing import Any

import httpx
import starlette.background
import starlette.testclient
from starlette.applications import Starlette

from lastcall import TaskManager
from lastcall.asgi import Lastcall
from lastcall.starlette import BackgroundTask, BackgroundTasks, track_background

# Starlette's client takes either; its tests name the newer one only.
sys.modules.setdefault("httpx2", httpx)

options: dict[str, Any] = {}
if os.environ["UPSTREAM_MODE"] == "classes":
    vars(starlette.background).update(BackgroundTask=BackgroundTask, BackgroundTasks=BackgroundTasks)
else:
    options["around"] = track_background


def without_lifespan(app: Any) -> Any:
    """Most of the test apps are plain functions which take every scope for a request."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("this test app has no lifespan")
        await app(scope, receive, send)

    return wrapped


class TestClient(starlette.testclient.TestClient):
    """Starlette's client, with lastcall around the app and its lifespan around every request."""

    __test__ = False

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        inner = app if isinstance(app, Starlette) else without_lifespan(app)
        super().__init__(Lastcall(inner, TaskManager(), **options), *args, **kwargs)
        self.app_under_test = app

    def request(self, *args: Any, **kwargs: Any) -> Any:
        if self.portal is not None:
            return super().request(*args, **kwargs)
        with self:
            return super().request(*args, **kwargs)

    @contextlib.contextmanager
    def websocket_connect(self, *args: Any, **kwargs: Any) -> Any:
        with self, super().websocket_connect(*args, **kwargs) as session:
            yield session


vars(starlette.testclient).update(TestClient=TestClient)
