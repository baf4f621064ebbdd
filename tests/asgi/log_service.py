"""What the real servers run: the face, over jobs whose store the test has given. No worker: the test itself writes."""

import os
from typing import Any

from lastcall import ShutdownPlan, TaskManager
from lastcall.asgi import Lastcall
from lastcall.jobs import Jobs


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


app = Lastcall(nothing, TaskManager(plan=ShutdownPlan(drain=10)), jobs=Jobs(os.environ["LOG_STORE"]))
