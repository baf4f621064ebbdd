"""The HTTP face: liveness, readiness, and the manager's tasks as JSON. It works while everything else drains."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from .._core._manager import TaskManager
from .._core._record import TaskInfo
from .._core._state import CancelAnswer, TaskStatus
from ..exceptions import NotOpen, UnknownTask
from ._access import allow_local
from ._answers import answer_json, refusal_headers
from ._types import Scope, Send, app_path

Allow = Callable[[Scope], "bool | Awaitable[bool]"]

LIVEZ = "/livez"
READYZ = "/readyz"
_DEFAULT_LIMIT = 100
_MAX_LIMIT = 1000
_MAX_REPR = 1000


class BadQuery(ValueError):
    """A query parameter of the face that cannot be understood."""


class Face:
    """Answers the paths it owns, and only those.

    GET  /livez, /readyz                the same below the prefix
    GET  PREFIX/tasks?status=&group=&limit=
    GET  PREFIX/tasks/{id}
    POST PREFIX/tasks/{id}/cancel
    GET  PREFIX/stats
    """

    def __init__(
        self, manager: TaskManager, prefix: str, retry_after_seconds: int, allow: Allow | None
    ) -> None:
        check_prefix(prefix)
        self._manager = manager
        self._prefix = prefix
        self._retry_after_seconds = retry_after_seconds
        self._allow = allow or allow_local
        self._live = frozenset({LIVEZ, prefix + LIVEZ})
        self._ready = frozenset({READYZ, prefix + READYZ})

    def example_paths(self) -> list[tuple[str, str]]:
        """One method and path of each kind that it owns, to look for collisions with routes of the app."""
        paths = [("GET", path) for path in sorted(self._live | self._ready)]
        prefix = self._prefix
        task = f"{prefix}/tasks/t-1"
        return [
            *paths,
            ("GET", f"{prefix}/tasks"),
            ("GET", task),
            ("POST", f"{task}/cancel"),
            ("GET", f"{prefix}/stats"),
        ]

    async def answer(self, scope: Scope, send: Send) -> bool:
        """Answer the request if its path is one of ours; whether it was."""
        path = app_path(scope)
        if path in self._live:
            await self._answer_health(scope, send, 200, "alive")
            return True
        if path in self._ready:
            ready = self._manager.ready
            await self._answer_health(scope, send, 200 if ready else 503, "ready" if ready else "not ready")
            return True
        if not path.startswith(self._prefix + "/"):
            return False
        match path[len(self._prefix) + 1 :].split("/"):
            case ["tasks"]:
                await self._guarded(scope, send, "GET", self._tasks)
            case ["stats"]:
                await self._guarded(scope, send, "GET", self._stats)
            case ["tasks", id] if id:
                await self._guarded(scope, send, "GET", self._task, unquote(id))
            case ["tasks", id, "cancel"] if id:
                await self._guarded(scope, send, "POST", self._cancel, unquote(id))
            case _:
                return False
        return True

    async def _answer_health(self, scope: Scope, send: Send, status: int, word: str) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _answer_wrong_method(scope, send, "GET, HEAD")
            return
        headers = [] if self._manager.ready else refusal_headers(scope, self._retry_after_seconds)
        await answer_json(scope, send, status, {"status": word, "state": self._manager.state.value}, headers)

    async def _guarded(
        self,
        scope: Scope,
        send: Send,
        method: str,
        answer: Callable[..., Awaitable[tuple[int, Any]]],
        *args: str,
    ) -> None:
        allowed = self._allow(scope)
        if inspect.isawaitable(allowed):
            allowed = await allowed
        if not allowed:
            detail = "lastcall's task pages answer local clients only; pass allow= to let others in"
            await answer_json(scope, send, 403, {"detail": detail})
            return
        methods = {"GET": ("GET", "HEAD"), "POST": ("POST",)}[method]
        if scope["method"] not in methods:
            await _answer_wrong_method(scope, send, ", ".join(methods))
            return
        try:
            status, content = await answer(scope, *args)
        except UnknownTask as error:
            status, content = 404, {"detail": str(error)}
        except NotOpen as error:
            status, content = 503, {"detail": str(error)}
        except BadQuery as error:
            status, content = 400, {"detail": str(error)}
        await answer_json(scope, send, status, content)

    # --- the pages --------------------------------------------------------------------------------------

    async def _tasks(self, scope: Scope) -> tuple[int, Any]:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        status, limit = _status(query), _limit(query)
        infos = self._manager.tasks(status=status, group=query["group"][-1] if "group" in query else None)
        shown = [show(info) for info in infos[-limit:]]
        return 200, {"tasks": shown, "shown": len(shown), "total": len(infos)}

    async def _stats(self, scope: Scope) -> tuple[int, Any]:
        return 200, {
            "name": self._manager.name,
            "state": self._manager.state.value,
            **self._manager.stats()._asdict(),
        }

    async def _task(self, scope: Scope, id: str) -> tuple[int, Any]:
        return 200, show(self._manager.info(id))

    async def _cancel(self, scope: Scope, id: str) -> tuple[int, Any]:
        answer = await self._manager.cancel_task(id)
        if answer is CancelAnswer.UNKNOWN:
            return 404, {"detail": f"there is no task {id!r}", "answer": answer.value}
        return 200, {"id": id, "answer": answer.value}


def check_prefix(prefix: str) -> None:
    """Raises `ValueError` for a prefix that is no absolute path, or that would cover the whole app."""
    if not prefix.startswith("/") or prefix.endswith("/") or any(mark in prefix for mark in "{}?# "):
        raise ValueError(
            f"the prefix must look like '/lastcall': a leading slash, no trailing one, got {prefix!r}"
        )


def show(info: TaskInfo) -> dict[str, Any]:
    """A task as JSON. Results and errors are shown, not sent: as their repr, cut to a bounded length."""
    return {
        "id": info.id,
        "name": info.name,
        "kind": info.kind.value,
        "group": info.group,
        "status": info.status.value,
        "labels": dict(info.labels),
        "daemon": info.daemon,
        "started_at": info.started_at,
        "ended_at": info.ended_at,
        "seconds": info.seconds,
        "result": None if info.result is None else _short(info.result),
        "error": None if info.error is None else _short(info.error),
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


def _status(query: Mapping[str, list[str]]) -> TaskStatus | None:
    if "status" not in query:
        return None
    value = query["status"][-1]
    try:
        return TaskStatus(value)
    except ValueError:
        raise BadQuery(f"unknown status {value!r}; use one of {', '.join(TaskStatus)}") from None


def _limit(query: Mapping[str, list[str]]) -> int:
    if "limit" not in query:
        return _DEFAULT_LIMIT
    value = query["limit"][-1]
    if not (value.isascii() and value.isdigit() and len(value) <= 9 and int(value) >= 1):
        raise BadQuery(f"limit must be a whole number from 1 to {_MAX_LIMIT}, got {value!r}")
    return min(int(value), _MAX_LIMIT)


async def _answer_wrong_method(scope: Scope, send: Send, allowed: str) -> None:
    detail = f"{scope['method']} is not possible here; use {allowed}"
    await answer_json(scope, send, 405, {"detail": detail}, [(b"allow", allowed.encode())])
