"""PREFIX/tasks and PREFIX/stats: the manager's tasks, to be looked at and cancelled.

Who calls it: `_face`; the live feed shows tasks in the same form. Results and errors are shown, not sent: as their
repr, cut to a bounded length.
"""

from __future__ import annotations

import reprlib
from typing import Any

from .._core._manager import TaskManager
from .._core._record import TaskInfo
from .._core._state import CancelAnswer, Kind, TaskStatus
from ..exceptions import UnknownTask
from . import _examples as examples
from . import _models as models
from ._cursor import CursorGone, make_cursor, read_cursor
from ._pages import Answer, Param, Request, Route, Says
from ._redact import Redactor

_LIMIT, _MAX_LIMIT = 100, 1000
_MAX_REPR = 1000

LINK = {"Link": 'the next page, rel="next"; absent on the last one'}

_FILTERS = (
    Param("status", "only those with this status; may come several times", tuple(TaskStatus), many=True),
    Param("kind", "only this kind of work", tuple(Kind)),
    Param("group", "only those of this group", example="fetch"),
    Param("limit", f"how many; {_LIMIT} if it is not given", least=1, most=_MAX_LIMIT, example=20),
    Param("cursor", "the `next` of the page before"),
)


class TasksFace:
    """The pages."""

    def __init__(self, manager: TaskManager, redactor: Redactor) -> None:
        self._manager = manager
        self._redactor = redactor

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "tasks",
                self._list,
                "The tasks that live or are still remembered, newest first.",
                {200: Says("one page", models.TaskPage, examples.TASK_PAGE, headers=LINK)},
                query=_FILTERS,
                refuses=(410,),
            ),
            Route(
                "GET",
                "tasks/{id}",
                self._show,
                "One task.",
                {200: Says("the task", models.Task, examples.TASK)},
                refuses=(404,),
            ),
            Route(
                "POST",
                "tasks/{id}/cancel",
                self._cancel,
                "Cancel a task, once, and wait for its end. Asking again is harmless.",
                {200: Says("what came of it", models.TaskCancelled, examples.TASK_CANCELLED)},
                refuses=(404,),
            ),
            Route(
                "GET",
                "stats",
                self._stats,
                "Tasks by status.",
                {200: Says("the counts", models.Stats, examples.STATS)},
            ),
        ]

    async def _list(self, request: Request) -> Answer:
        query = request.query
        kind = request.one("kind")
        infos = self._manager.tasks(kind=kind, group=request.one("group"))
        if "status" in query:
            infos = [info for info in infos if info.status in query["status"]]
        infos.reverse()
        first = self._first(infos, request.one("cursor"))
        page = infos[first : first + request.number("limit", _LIMIT)]
        more = first + len(page) < len(infos)
        content: dict[str, Any] = {
            "tasks": [self.show(info) for info in page],
            "shown": len(page),
            "total": len(infos),
            "next": make_cursor("tasks", page[-1].id) if more else None,
        }
        return Answer(200, content, request.next_link(content["next"]))

    def _first(self, infos: list[TaskInfo], cursor: str | None) -> int:
        """Where the page begins. The task of the cursor need not be listed any more: its status may have changed."""
        if cursor is None:
            return 0
        id = read_cursor("tasks", cursor)
        ids = [info.id for info in infos]
        if id in ids:
            return ids.index(id) + 1
        everybody = [info.id for info in self._manager.tasks()]
        if id not in everybody:
            raise CursorGone(
                f"the task {id!r} of the cursor is not remembered any more; begin at the first page"
            )
        older = set(everybody[: everybody.index(id)])
        return next((place for place, other in enumerate(ids) if other in older), len(ids))

    async def _stats(self, request: Request) -> Answer:
        return Answer(200, self.stats())

    def stats(self) -> dict[str, Any]:
        """The counts. Raises `NotOpen`."""
        manager = self._manager
        return {"name": manager.name, "state": manager.state.value, **manager.stats()._asdict()}

    async def _show(self, request: Request) -> Answer:
        return Answer(200, self.show(self._manager.info(request.words["id"])))

    async def _cancel(self, request: Request) -> Answer:
        id = request.words["id"]
        answer = await self._manager.cancel_task(id)
        if answer is CancelAnswer.UNKNOWN:
            raise UnknownTask(f"there is no task {id[:200]!r}")
        return Answer(200, {"id": id, "answer": answer.value})

    def show(self, info: TaskInfo) -> dict[str, Any]:
        """A task as JSON."""
        redact = self._redactor.value
        return {
            "id": info.id,
            "name": info.name[:_MAX_REPR],
            "kind": info.kind.value,
            "group": info.group,
            "status": info.status.value,
            "labels": dict(info.labels),
            "daemon": info.daemon,
            "started_at": info.started_at,
            "ended_at": info.ended_at,
            "seconds": info.seconds,
            "result": None if info.result is None else _short(redact(info.name, "result", info.result)),
            "error": None if info.error is None else _short(redact(info.name, "error", info.error)),
            "reason": None if info.reason is None else info.reason.value,
            "swallowed_cancel": info.swallowed_cancel,
        }


def _short(value: object) -> str:
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = _MAX_REPR
    try:
        text = shortener.repr(value)
    except Exception as error:  # somebody's __repr__
        return f"<{type(value).__name__} whose repr failed: {type(error).__name__}>"
    return text if len(text) <= _MAX_REPR else text[: _MAX_REPR - 3] + "..."
