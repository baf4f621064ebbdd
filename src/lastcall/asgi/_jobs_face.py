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
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from .._core._state import StopReason
from ..exceptions import JobError, NotOpen, UnknownJob
from . import _examples as examples
from . import _models as models
from ._body import UnfitBody, read_object, take
from ._cursor import CursorGone, make_cursor, read_cursor
from ._jobs_json import list_job, show_attempt, show_job, show_step, undecided_steps
from ._log_request import LogFormat, takes_time
from ._log_response import LogResponse
from ._pages import Answer, BadQuery, Param, Request, Route, Says, whole_number
from ._places import Places
from ._problems import problem
from ._redact import Redactor
from ._tasks_face import LINK
from ._types import ASGIApp, Headers, Receive, Scope, Send, get_header

if TYPE_CHECKING:
    from .._core._manager import TaskManager
    from ..jobs import JobInfo, Jobs, Task
    from ..jobs._rows import Submitted
    from ..streams import Log

STATUSES = ("scheduled", "queued", "running", "waiting", "completed", "failed", "cancelled")

_OPTIONS = ("key", "delay", "priority", "queue", "labels")
_LIMIT, _MAX_LIMIT = 50, 1000
_MAX_CANCEL_AFTER_SECONDS = 24 * 3600
_MAX_WAIT_SECONDS = 60
_MAX_POLL_SECONDS = 60

# A body is longer than the payload in it: one character of two bytes may be written as six (\u00e4).
_BODY_FACTOR = 3
_BODY_EXTRA_BYTES = 1 << 16

_FILTERS = (
    Param("status", "only those with this status; may come several times", STATUSES, many=True),
    Param("task", "only those of this task", example="analyse"),
    Param("task_part", "only those whose task has this in its name, in capitals or not", example="analy"),
    Param("queue", "only those of this queue", example="default"),
    Param("key", "only the one with this key", example="docs-2026-11"),
    Param(
        "label",
        "only those with this label, as name:value",
        example="tenant:ada",
        other={"pattern": "^[^:]+:"},
    ),
    Param("parent", "only the children of this job", example=examples.ID),
    Param("args", "no: without the arguments, which may be long", ("yes", "no")),
    Param("limit", f"how many; {_LIMIT} if it is not given", least=1, most=_MAX_LIMIT, example=20),
    Param("cursor", "the `next` of the page before"),
)

_EVENTS = (
    Param("format", "in place of Accept", tuple(LogFormat)),
    Param("after", "the cursor: the number of the last entry that the reader has", least=0, example=0),
    Param("starting_after", "the same by another name", least=0, example=0),
    Param("limit", "how many entries of a page, 1000 at most; 100 if it is not given", least=1, example=50),
    Param(
        "wait", "seconds that a page waits for an entry, 60 at most", other={"type": "number", "minimum": 0}
    ),
    Param(
        "cancel_after",
        "cancel the job when nobody has read it for so many seconds",
        least=0,
        example=30,
    ),
)

_KEY = Param("idempotency-key", "the same as `key` in the body", example="docs-2026-11")
_LAST_EVENT_ID = Param(
    "last-event-id", "the cursor, as a browser's EventSource tells it", example="0", other={"minLength": 0}
)


WHERE = {
    "Location": "where the job is to be looked at",
    "Retry-After": "when looking may be worth it, in seconds",
}
_POLL = {
    "Retry-After": "when asking again may bring news, in seconds, while it has not ended",
    "ETag": "its state",
}


def _always(scope: Scope) -> bool:
    return True


def _waits(scope: Scope) -> bool:
    return b"wait" in scope.get("query_string", b"")


class JobsFace:
    """The pages below PREFIX/jobs."""

    def __init__(self, jobs: Jobs, prefix: str, redactor: Redactor, places: Places) -> None:
        self._jobs = jobs
        self._path = f"{prefix}/jobs"
        self._redactor = redactor
        self._places = places
        self._is_open = False
        self._at_work = 0
        self._idle: asyncio.Event | None = None
        self._body_limit_bytes = jobs._client.max_payload_bytes * _BODY_FACTOR + _BODY_EXTRA_BYTES

    def routes(self) -> list[Route]:
        return [*self._routes_of_all(), *self._routes_of_one()]

    def _routes_of_all(self) -> list[Route]:
        return [
            Route(
                "GET",
                "jobs",
                self._list,
                "The durable jobs for which all of this holds, newest first.",
                {200: Says("one page", models.JobPage, examples.JOB_PAGE, headers=LINK)},
                query=_FILTERS,
                refuses=(410, 422, 503),
            ),
            Route(
                "POST",
                "jobs",
                self._submit,
                "Submit a job. The answer comes after the commit: from then on it runs to its end, whatever dies.",
                {
                    202: Says("it is written down", models.SubmittedJob, examples.JOB, headers=WHERE),
                    200: Says(
                        "a job with this key was there", models.SubmittedJob, examples.JOB, headers=WHERE
                    ),
                },
                body=models.NewJob,
                body_example=examples.NEW_JOB,
                headers=(_KEY,),
                refuses=(404, 408, 409, 413, 415, 422, 503),
                takes_time=_always,
            ),
        ]

    def _routes_of_one(self) -> list[Route]:
        done = {200: Says("it is done", models.JobAnswer, examples.JOB_ANSWER)}
        with_body = (404, 408, 409, 413, 415, 422, 503)
        return [
            Route(
                "GET",
                "jobs/{id}",
                self._show,
                "One job with its steps and attempts. `Retry-After` says when asking again may be worth it.",
                {200: Says("the job", models.JobDetail, examples.JOB_DETAIL, headers=_POLL)},
                refuses=(404, 503),
            ),
            Route(
                "DELETE",
                "jobs/{id}",
                self._purge,
                "Delete an ended job with all that belongs to it.",
                done,
                refuses=(404, 409, 503),
            ),
            Route(
                "GET",
                "jobs/{id}/events",
                self._events,
                "The log of a job: a page, lines, or server-sent events that go on until the job has ended.",
                {
                    200: Says(
                        "the entries behind the cursor",
                        models.LogPage,
                        examples.LOG_PAGE,
                        ("application/json", "text/event-stream", "application/x-ndjson"),
                    ),
                    204: Says("the job has ended, and the reader has all of it"),
                },
                query=_EVENTS,
                headers=(_LAST_EVENT_ID,),
                refuses=(404, 410, 429, 503),
                takes_time=takes_time,
            ),
            Route(
                "POST",
                "jobs/{id}/cancel",
                self._cancel,
                "Cancel a job for good, wherever it is. Asking again is harmless.",
                {
                    200: Says("it has ended", models.JobAnswer, examples.JOB_ANSWER),
                    202: Says(
                        "it runs, and its worker is told", models.JobAnswer, examples.JOB_CANCEL_REQUESTED
                    ),
                },
                query=(Param("wait", "seconds to wait for its end", least=0, most=_MAX_WAIT_SECONDS),),
                refuses=(404, 503),
                takes_time=_waits,
            ),
            Route(
                "POST",
                "jobs/{id}/retry",
                self._retry,
                "Queue a failed or cancelled job again, with its completed steps.",
                done,
                refuses=(404, 409, 503),
            ),
            Route(
                "POST",
                "jobs/{id}/send",
                self._send,
                "Send a job a message; it may come before the job waits for it.",
                done,
                body=models.Message,
                body_example=examples.MESSAGE,
                refuses=with_body,
                takes_time=_always,
            ),
            Route(
                "POST",
                "jobs/{id}/resolve",
                self._resolve,
                "Decide about a step whose outcome nobody knows.",
                done,
                body=models.Decision,
                body_example=examples.DECISION,
                refuses=with_body,
                takes_time=_always,
            ),
        ]

    # --- the store --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self, manager: TaskManager) -> AsyncIterator[None]:
        """The store, open for the app and for these pages. The report of the manager's shutdown is left in it."""
        client = self._jobs._client
        await client.hold()
        self._is_open = True
        try:
            yield
        finally:
            self._is_open = False
            self._idle = asyncio.Event()
            try:
                if self._at_work:
                    await self._idle.wait()
            finally:
                await client.release(manager)

    def on_serving(self, manager: TaskManager) -> None:
        """The app has started: from now on its end is worth a report. One that fails to start, again and again, is not
        what people look for there."""
        self._jobs._client.reports.expect(manager)

    def log(self, id: str) -> Log:
        """The log of a job, for a call that is held: the store closes after those."""
        if not self._is_open:
            raise NotOpen("the jobs are not open: the app has not started, or has shut down")
        return self._redactor.log(self._jobs.job(id).log())

    @contextmanager
    def store(self) -> Iterator[Jobs]:
        """The jobs, which are not closed while the block lasts. Raises `NotOpen`."""
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

    async def _list(self, request: Request) -> Answer:
        query = request.query
        limit = request.number("limit", _LIMIT)
        given = {
            name: query[name][-1] for name in ("task", "task_part", "queue", "key", "parent") if name in query
        }
        cursor = request.one("cursor")
        before = None if cursor is None else read_cursor("jobs", cursor)
        with self.store() as jobs:
            try:
                infos = await jobs.find(
                    **given,
                    before=before,
                    status=query.get("status"),
                    label=_label(query),
                    limit=limit + 1,
                )
            except UnknownJob:
                raise CursorGone(
                    f"the job {before} of the cursor is not kept any more; begin at the first page"
                ) from None
        page = self._page(infos, limit, with_args=request.one("args") != "no")
        return Answer(200, page, request.next_link(page["next"]))

    def _page(self, infos: list[JobInfo], limit: int, *, with_args: bool) -> dict[str, Any]:
        """One page, of jobs that were asked for with one more than `limit`: so `next` is certain."""
        page = infos[:limit]
        return {
            "jobs": [self._redactor.job(list_job(info, with_args=with_args)) for info in page],
            "shown": len(page),
            "next": make_cursor("jobs", page[-1].id) if len(infos) > limit else None,
        }

    async def _submit(self, request: Request) -> Answer:
        scope = request.scope
        body = await read_object(scope, request.receive, self._body_limit_bytes)
        body = take(body, ["task"], ["args", *_OPTIONS])
        options = _options(body, get_header(list(scope.get("headers", ())), b"idempotency-key"))
        with self.store() as jobs:
            task = jobs.task_named(_text(body, "task"))
            answer = await _submit(jobs, task, body.get("args", {}), options)
            return await self.submitted(request, jobs, task.name, answer.id, created=answer.created)

    async def submitted(self, request: Request, jobs: Jobs, task: str, id: str, *, created: bool) -> Answer:
        """What is said of a job that was just submitted: it, and where it is to be looked at."""
        shown: dict[str, Any]
        try:
            shown = self._redactor.job(show_job(await jobs.job(id).info()))
        except JobError:
            # It is written down: an error now would make the client submit it again.
            shown = {"id": id, "task": task}
        root = request.scope.get("root_path", "")
        headers: Headers = [(b"location", f"{root}{self._path}/{id}".encode()), (b"retry-after", b"1")]
        return Answer(202 if created else 200, shown, headers)

    # --- one job ----------------------------------------------------------------------------------------

    async def _show(self, request: Request) -> Answer:
        id = request.words["id"]
        with self.store() as jobs:
            job = jobs.job(id)
            info = await job.info()
            steps, attempts = await job.steps(), await job.attempts()
            undecided = await _undecided(jobs, id)
            place = await job.log().read(0, 0)
            running = job.running_steps()
        redactor, task = self._redactor, info.task
        shown = redactor.job(show_job(info))
        shown["steps"] = [redactor.step(task, show_step(step)) for step in steps]
        shown["running_steps"] = (
            None
            if running is None
            else [{"key": redactor.key(task, key), "started_at": started_at} for key, started_at in running]
        )
        shown["attempts"] = [redactor.attempt(task, show_attempt(attempt)) for attempt in attempts]
        shown["undecided_steps"] = [redactor.key(task, step) for step in undecided]
        shown["log"] = {"first": place.first, "last": place.last}
        return Answer(200, shown, _poll_hint(info), tagged=True)

    async def _events(self, request: Request) -> ASGIApp:
        # The query as a whole: the log looks at `after` only where no `Last-Event-ID` comes before it.
        cancel_after = whole_number(
            request.query, "cancel_after", -1, least=0, most=_MAX_CANCEL_AFTER_SECONDS
        )
        # Whoever takes a page has read it and is gone: that is no reader whose leaving could mean anything.
        stays = takes_time(request.scope)
        with self.store() as jobs:
            job = jobs.job(request.words["id"])
            response = LogResponse(
                self._redactor.log(job.log()),
                cancel_after_seconds=cancel_after if stays and cancel_after >= 0 else None,
                cancel=lambda: job.cancel(StopReason.DISCONNECT),
            )

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if not stays:
                with self.store():
                    await response(scope, receive, send)
                return
            with self._places.take(scope), self.store():
                await response(scope, receive, send)

        return answer

    async def _cancel(self, request: Request) -> Answer:
        id, wait = request.words["id"], request.number("wait", 0)
        with self.store() as jobs:
            job = jobs.job(id)
            outcome = (await job.cancel()).value
            if outcome == "requested" and wait:
                try:
                    ended = await job.wait(wait)
                    outcome = "cancelled" if ended.status.value == "cancelled" else "already_ended"
                except TimeoutError:
                    pass
        return Answer(202 if outcome == "requested" else 200, {"id": id, "answer": outcome})

    async def _retry(self, request: Request) -> Answer:
        id = request.words["id"]
        with self.store() as jobs:
            status = await jobs.job(id).retry()
        if status != "queued":
            return _impossible(id, status, "only a failed or cancelled job can be queued again")
        return Answer(200, {"id": id, "answer": "queued"})

    async def _send(self, request: Request) -> Answer:
        id = request.words["id"]
        body = await read_object(request.scope, request.receive, self._body_limit_bytes)
        name = _text(take(body, ["name"], ["data"]), "name")
        with self.store() as jobs:
            status = await jobs.job(id).send(name, body.get("data"))
        if status.final:
            return _impossible(id, status, "a job that has ended takes no messages")
        return Answer(200, {"id": id, "answer": "sent"})

    async def _resolve(self, request: Request) -> Answer:
        id = request.words["id"]
        body = await read_object(request.scope, request.receive, self._body_limit_bytes)
        body = take(body, ["step"], ["happened", "value", "error"])
        step, decision = _text(body, "step"), _decision(body)
        with self.store() as jobs:
            job = jobs.job(id)
            info, key = await job.info(), self._redactor.key
            # A step may be named as it was shown.
            undecided = {key(info.task, one): one for one in await _undecided(jobs, id)}
            if step not in undecided and step not in undecided.values():
                which = ", ".join(undecided) or "none"
                return _impossible(
                    id, info.status, f"it asks for no decision about {step[:200]!r}, but: {which}"
                )
            await job.resolve(undecided.get(step, step), **decision)
        return Answer(200, {"id": id, "answer": "resolved"})

    async def _purge(self, request: Request) -> Answer:
        id = request.words["id"]
        with self.store() as jobs:
            status = await jobs.job(id).purge()
        if not status.final:
            return _impossible(id, status, "only an ended job can be purged; cancel it first")
        return Answer(200, {"id": id, "answer": "purged"})


def _poll_hint(info: JobInfo) -> Headers:
    """When asking again may bring news, while the job has not ended: a scheduled one is not looked at every second."""
    if info.status.final:
        return []
    seconds = 1
    if info.status == "scheduled" and info.due_at is not None:
        # Of two clocks, the store's and ours: a hint, and bounded.
        seconds = math.ceil(min(max(info.due_at - time.time(), 1), _MAX_POLL_SECONDS))
    return [(b"retry-after", str(seconds).encode())]


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
    return problem(409, f"job {id} is {status}: {why}", id=id, job_status=status)


# --- what clients give ----------------------------------------------------------------------------------


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
