"""The HTTP face of durable jobs: submit, list, look, cancel, retry, send, resolve, purge, as JSON.

Who calls it: `_face`, which has let the client in and turns errors into answers. What it owns: whether the store may
be used. Jobs open themselves at the first use, so a page asked for after the shutdown has closed them would open them
again, for nobody to close; that is why every page asks here first, and closing waits for the pages at work.

Pages that take a body (submit, send, resolve) are calls like any other, because a body may come slowly, and so are
events that are streamed or waited for: `_middleware` holds them, and refuses them in the drain. The others answer as
long as the store is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from ..exceptions import JobError, NotOpen, UnknownJob
from ._body import UnfitBody, read_object, take
from ._jobs_json import show_attempt, show_job, show_page, show_step, undecided_steps
from ._log_request import PARAMETERS, takes_time
from ._log_response import LogResponse
from ._pages import Answer, BadQuery, Pages, whole_number
from ._types import ASGIApp, Headers, Receive, Scope, Send, get_header

if TYPE_CHECKING:
    from ..jobs import Jobs, Task
    from ..jobs._rows import Submitted
    from ..streams import Log

STATUSES = ("scheduled", "queued", "running", "waiting", "completed", "failed", "cancelled")

_FILTERS = ("status", "task", "queue", "key", "label", "parent", "limit", "before")
_OPTIONS = ("key", "delay", "priority", "queue", "labels")
_LIMIT, _MAX_LIMIT = 50, 1000
_MAX_CANCEL_AFTER_SECONDS = 24 * 3600

# A body is longer than the payload in it: one character of two bytes may be written as six (\u00e4).
_BODY_FACTOR = 3
_BODY_EXTRA_BYTES = 1 << 16


class JobsFace:
    """The pages below PREFIX/jobs.

    GET    jobs?status=&task=&queue=&key=&label=k:v&parent=&limit=&before=
    POST   jobs                    {"task": name, "args": {...}, "key", "delay", "priority", "queue", "labels"}
    GET    jobs/{id}
    DELETE jobs/{id}
    GET    jobs/{id}/events        for readers that come back: see `LogResponse`; and &cancel_after=
    POST   jobs/{id}/cancel, jobs/{id}/retry
    POST   jobs/{id}/send          {"name", "data"}
    POST   jobs/{id}/resolve       {"step", "happened", "value", "error"}
    """

    def __init__(self, jobs: Jobs, path: str) -> None:
        self._jobs = jobs
        self._path = path
        self._is_open = False
        self._at_work = 0
        self._idle: asyncio.Event | None = None
        self._body_limit_bytes = jobs._client.max_payload_bytes * _BODY_FACTOR + _BODY_EXTRA_BYTES

    def pages(self, rest: list[str]) -> Pages:
        """The pages of a path below PREFIX/jobs, by method; none, if there is no such path."""
        match rest:
            case []:
                return {"GET": self._list, "POST": self._submit}
            case [id] if id:
                return {"GET": partial(self._show, id), "DELETE": partial(self._purge, id)}
            case [id, "events"] if id:
                return {"GET": partial(self._events, id)}
            case [id, "cancel"] if id:
                return {"POST": partial(self._cancel, id)}
            case [id, "retry"] if id:
                return {"POST": partial(self._retry, id)}
            case [id, "send"] if id:
                return {"POST": partial(self._send, id)}
            case [id, "resolve"] if id:
                return {"POST": partial(self._resolve, id)}
            case _:
                return {}

    @staticmethod
    def is_call(scope: Scope, rest: list[str]) -> bool:
        """Whether a request to this path may take its time: it has a body to be read, or reads on and on."""
        if scope["method"] == "POST":
            return not rest or (len(rest) == 2 and rest[1] in ("send", "resolve"))
        return len(rest) == 2 and rest[1] == "events" and takes_time(scope)

    def example_paths(self) -> list[tuple[str, str]]:
        """One method and path of each kind."""
        job = f"{self._path}/0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
        verbs = [("POST", f"{job}/{verb}") for verb in ("cancel", "retry", "send", "resolve")]
        whole = [("GET", self._path), ("POST", self._path), ("GET", job), ("DELETE", job)]
        return [*whole, ("GET", f"{job}/events"), *verbs]

    # --- the store --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The store, open for the app and for these pages."""
        async with self._jobs:
            self._is_open = True
            try:
                yield
            finally:
                self._is_open = False
                self._idle = asyncio.Event()
                if self._at_work:
                    await self._idle.wait()

    def log(self, id: str) -> Log:
        """The log of a job, for a call that is held: the store closes after those."""
        if not self._is_open:
            raise NotOpen("the jobs are not open: the app has not started, or has shut down")
        return self._jobs.job(id).log()

    @contextmanager
    def _store(self) -> Iterator[Jobs]:
        if not self._is_open:
            raise NotOpen("the jobs are not open: the app has not started, or has shut down")
        self._at_work += 1
        try:
            yield self._jobs
        finally:
            self._at_work -= 1
            if not self._at_work and self._idle is not None:
                self._idle.set()

    # --- all jobs ---------------------------------------------------------------------------------------

    async def _list(self, scope: Scope, receive: Receive) -> Answer:
        query = _query(scope, _FILTERS)
        limit = whole_number(query, "limit", _LIMIT, least=1, most=_MAX_LIMIT)
        given = {
            name: query[name][-1] for name in ("task", "queue", "key", "parent", "before") if name in query
        }
        with self._store() as jobs:
            try:
                infos = await jobs.find(
                    **given, status=_statuses(query), label=_label(query), limit=limit + 1
                )
            except UnknownJob as error:
                raise BadQuery(f"before: {error}; begin at the first page") from None
        return Answer(200, show_page(infos, limit))

    async def _submit(self, scope: Scope, receive: Receive) -> Answer:
        body = take(await read_object(scope, receive, self._body_limit_bytes), ["task"], ["args", *_OPTIONS])
        options = _options(body, get_header(list(scope.get("headers", ())), b"idempotency-key"))
        with self._store() as jobs:
            task = jobs.task_named(_text(body, "task"))
            answer = await _submit(jobs, task, body.get("args", {}), options)
            try:
                shown = show_job(await jobs.job(answer.id).info())
            except JobError:
                # It is written down: an error now would make the client submit it again.
                shown = {"id": answer.id, "task": task.name}
        root = scope.get("root_path", "")
        location: Headers = [(b"location", f"{root}{self._path}/{answer.id}".encode())]
        return Answer(202 if answer.created else 200, shown, location)

    # --- one job ----------------------------------------------------------------------------------------

    async def _show(self, id: str, scope: Scope, receive: Receive) -> Answer:
        with self._store() as jobs:
            job = jobs.job(id)
            shown = show_job(await job.info())
            shown["steps"] = [show_step(step) for step in await job.steps()]
            shown["attempts"] = [show_attempt(attempt) for attempt in await job.attempts()]
            shown["undecided_steps"] = await _undecided(jobs, id)
        return Answer(200, shown)

    async def _events(self, id: str, scope: Scope, receive: Receive) -> ASGIApp:
        query = _query(scope, (*PARAMETERS, "cancel_after"))
        cancel_after = whole_number(query, "cancel_after", -1, least=0, most=_MAX_CANCEL_AFTER_SECONDS)
        with self._store() as jobs:
            response = LogResponse(
                jobs.job(id), cancel_after_seconds=None if cancel_after < 0 else cancel_after
            )

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            with self._store():
                await response(scope, receive, send)

        return answer

    async def _cancel(self, id: str, scope: Scope, receive: Receive) -> Answer:
        with self._store() as jobs:
            outcome = await jobs.job(id).cancel()
        return Answer(200, {"id": id, "answer": outcome.value})

    async def _retry(self, id: str, scope: Scope, receive: Receive) -> Answer:
        with self._store() as jobs:
            status = await jobs.job(id).retry()
        if status != "queued":
            return _impossible(id, status, "only a failed or cancelled job can be queued again")
        return Answer(200, {"id": id, "answer": "queued"})

    async def _send(self, id: str, scope: Scope, receive: Receive) -> Answer:
        body = take(await read_object(scope, receive, self._body_limit_bytes), ["name"], ["data"])
        name = _text(body, "name")
        with self._store() as jobs:
            status = await jobs.job(id).send(name, body.get("data"))
        if status.final:
            return _impossible(id, status, "a job that has ended takes no messages")
        return Answer(200, {"id": id, "answer": "sent"})

    async def _resolve(self, id: str, scope: Scope, receive: Receive) -> Answer:
        body = await read_object(scope, receive, self._body_limit_bytes)
        body = take(body, ["step"], ["happened", "value", "error"])
        step, decision = _text(body, "step"), _decision(body)
        with self._store() as jobs:
            job = jobs.job(id)
            undecided = await _undecided(jobs, id)
            if step not in undecided:
                which = ", ".join(undecided) or "none"
                return _impossible(
                    id, await job.status(), f"it asks for no decision about {step!r}, but: {which}"
                )
            await job.resolve(step, **decision)
        return Answer(200, {"id": id, "answer": "resolved"})

    async def _purge(self, id: str, scope: Scope, receive: Receive) -> Answer:
        with self._store() as jobs:
            status = await jobs.job(id).purge()
        if not status.final:
            return _impossible(id, status, "only an ended job can be purged; cancel it first")
        return Answer(200, {"id": id, "answer": "purged"})


async def _submit(jobs: Jobs, task: Task[..., Any], args: Any, options: Mapping[str, Any]) -> Submitted:
    """Write it down. Not by the task's own verbs, whose handles do not tell whether the job was there already."""
    chosen = task.options(**options)
    args, kwargs = task.arguments.load(task.arguments.check_json(args))
    [answer] = await jobs._client.submit([chosen.call(*args, **kwargs).job])
    return answer


async def _undecided(jobs: Jobs, id: str) -> list[str]:
    await jobs.job(id).status()  # raises for what is no id
    return [step for row in await jobs.engine.get([id]) for step in undecided_steps(row)]


def _impossible(id: str, status: str, why: str) -> Answer:
    return Answer(409, {"detail": f"job {id} is {status}: {why}", "id": id, "status": status})


# --- what clients give ----------------------------------------------------------------------------------


def _query(scope: Scope, known: tuple[str, ...]) -> dict[str, list[str]]:
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    for name, values in query.items():
        if name not in known:
            raise BadQuery(f"unknown parameter {name[:100]!r}; use {', '.join(known)}")
        if not all(values):
            raise BadQuery(f"{name} is empty")
    return query


def _statuses(query: Mapping[str, list[str]]) -> list[str] | None:
    for value in query.get("status", ()):
        if value not in STATUSES:
            raise BadQuery(f"unknown status {value!r}; use {', '.join(STATUSES)}")
    return query.get("status")


def _label(query: Mapping[str, list[str]]) -> tuple[str, str] | None:
    if "label" not in query:
        return None
    name, colon, value = query["label"][-1].partition(":")
    if not colon or not name:
        raise BadQuery(f"label must look like name:value, got {query['label'][-1]!r}")
    return name, value


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body[name]
    if not isinstance(value, str) or not value:
        raise UnfitBody(f"{name!r} must be a text that is not empty")
    return value


def _options(body: Mapping[str, Any], header: bytes | None) -> dict[str, Any]:
    """What was given of the options; their values are checked by the task itself."""
    options = {name: body[name] for name in _OPTIONS if body.get(name) is not None}
    labels = options.get("labels", {})
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise UnfitBody("'labels' must be an object of texts")
    if header is not None:
        key = header.decode("latin-1")
        if options.get("key", key) != key:
            raise UnfitBody("the header Idempotency-Key and the 'key' of the body differ; give one of them")
        options["key"] = key
    return options


def _decision(body: Mapping[str, Any]) -> dict[str, Any]:
    happened, error = body.get("happened"), body.get("error")
    if (happened is None) == (error is None):
        raise UnfitBody("give either 'happened' (true, perhaps with a 'value', or false) or 'error' (a text)")
    if error is not None:
        return {"error": _text(body, "error")}
    if not isinstance(happened, bool):
        raise UnfitBody("'happened' must be true or false")
    if not happened and body.get("value") is not None:
        raise UnfitBody("a step that did not happen has no 'value'")
    return {"happened": happened, "value": body.get("value")}
