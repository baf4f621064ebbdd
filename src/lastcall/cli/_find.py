"""Where lastcall is in an app: its manager, its face, its jobs.

Who calls it: `serve`, `doctor`. Takes the app as it was imported; nothing of it is started.
"""

from __future__ import annotations

from typing import NamedTuple

from lastcall import TaskManager
from lastcall.asgi import Lastcall
from lastcall.jobs import Jobs


class Found(NamedTuple):
    """`prefix`: of the face."""

    manager: TaskManager
    prefix: str
    jobs: Jobs | None


def find_lastcall(app: object) -> Found | None:
    """None, if lastcall is not installed in this app."""
    middleware = app if isinstance(app, Lastcall) else _built(app)
    if middleware is None:
        return None
    face = middleware.face
    return Found(
        middleware.manager,
        face.prefix,
        None if face.jobs is None else face.jobs._jobs,
    )


def _built(app: object) -> Lastcall | None:
    """Starlette's and FastAPI's apps build their stack late; lastcall is the outermost of it, whatever came after."""
    state = getattr(app, "state", None)
    if getattr(state, "lastcall", None) is None:
        return None
    stack = getattr(app, "middleware_stack", None) or app.build_middleware_stack()  # type: ignore[attr-defined]
    return stack if isinstance(stack, Lastcall) else None
