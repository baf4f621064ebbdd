"""Jobs: the tasks declared on one store, and the verbs to submit, find and run them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Protocol, Self, TypeVar, cast, overload

from .._core._manager import TaskManager
from .._core._scope import current_scope
from ..exceptions import BadArguments, BadDeclaration, UnknownEngine, UnknownTaskName
from ..streams import Streams
from ._client import Client
from ._context import Context
from ._declaration import Call, ContextTask, PlainTask, Task
from ._engine import Engine
from ._function import check_function, default_name, is_coroutine_function, names_around
from ._ids import new_id
from ._info import JobInfo, info_of
from ._job import Job
from ._observer import JobObserver
from ._process import check_importable
from ._rows import (
    DEFAULT_LOG_MAX_BYTES,
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_LOST,
    DEFAULT_QUEUE,
    JobQuery,
    Overview,
)
from ._scheduler import Cron, crons_of
from ._settings import Backoff, Rate, Run, Settings, is_unicode, seconds, shown, text, whole
from ._shutdowns import PastShutdown, last_shutdowns
from ._state import JobStatus
from ._streams import EngineStreams
from ._timetable import Schedule, timetable
from ._worker import Declared, Worker

P = ParamSpec("P")
R = TypeVar("R")

# By name, not by import: engines stand below, and each brings a driver that others need not have.
_ENGINES: Final = {
    "sqlite": ("lastcall.engines.sqlite", "jobs"),
    "postgresql": ("lastcall.engines.postgres", "postgres"),
    "postgres": ("lastcall.engines.postgres", "postgres"),
}


class Decorator(Protocol):
    """What `jobs.task(...)` returns: it turns a function into a task with the same signature."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a Context first is told from other parameters in this order
        self, fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> ContextTask[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # likewise
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> PlainTask[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Context, P], R], /) -> ContextTask[P, R, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> PlainTask[P, R, R]: ...


class Jobs:
    """Durable jobs on one store.

    `url`: `sqlite:///relative.db`, `sqlite:////absolute/path.db`, or an engine. `lease_seconds` (default 15): how long
    a worker may be silent before others take its jobs; it renews at a third of that. `max_payload_bytes` (1 MiB): the
    most that one set of arguments, result, step value or event may take as JSON. `queues`: the names of all queues that
    there are, so that one misspelled is refused; without it any name will do, and a job in a queue that no worker
    serves waits.

    Making one does nothing yet: the store is opened at the first use, or by `async with jobs:`, which also closes it.

    Raises `UnknownEngine` for a URL that no engine knows, `BadDeclaration` for impossible numbers.

        jobs = Jobs("sqlite:///lastcall.db")

        @jobs.task(retries=3)
        async def analyse(ctx: Context, folder: str) -> int: ...

        job = await analyse.submit("docs/")
    """

    def __init__(
        self,
        url: str | Engine,
        *,
        lease_seconds: float = 15.0,
        max_payload_bytes: int = 1 << 20,
        queues: Iterable[str] | None = None,
    ) -> None:
        self._lease_seconds = seconds("Jobs(lease_seconds)", lease_seconds, zero=False)
        whole("Jobs(max_payload_bytes)", max_payload_bytes, 1)
        engine = open_engine(url) if isinstance(url, str) else url
        if not hasattr(engine, "claim"):
            raise UnknownEngine(f"Jobs(url) takes a URL or an engine, not {url!r}")
        self._client = Client(engine, max_payload_bytes, _queue_names("Jobs(queues)", queues))
        self._tasks: dict[tuple[str, str], Task[Any, Any]] = {}

    def __repr__(self) -> str:
        return f"<Jobs on {self.engine!r}, {len(self._tasks)} tasks>"

    @property
    def engine(self) -> Engine:
        """Where the jobs are kept."""
        return self._client.engine

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop on which the store is open now; None while it is closed."""
        return self._client.loop

    @property
    def streams(self) -> Streams:
        """Free-standing streams in the same store. Raises `UnknownEngine` if it keeps none.

        stream = await jobs.streams.create("chat/42")
        """
        return Streams(EngineStreams(self._client), max_append_bytes=self._client.max_payload_bytes)

    @property
    def tasks(self) -> Mapping[tuple[str, str], Task[Any, Any]]:
        """The declared tasks by name and version."""
        return dict(self._tasks)

    async def open(self) -> Self:
        """Open the store now rather than at the first use. Raises `EngineUnavailable`, `SchemaTooNew`."""
        self._read_ahead()
        await self._client.ready()
        return self

    async def close(self) -> None:
        """Close the store. Closing again, or before opening, is harmless; using it again opens it again.

        While a worker or an `async with jobs` block uses it, nothing happens: the last of them closes it.
        """
        await self._client.close()

    async def __aenter__(self) -> Self:
        self._read_ahead()
        await self._client.hold()
        return self

    async def __aexit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._client.release(_manager_around())

    def _read_ahead(self) -> None:
        """Read the annotations of what is declared. The first to be read loads parts of pydantic, 20 ms in which the
        whole loop stands still: rather here than in the first request that submits something."""
        for task in self._tasks.values():
            with contextlib.suppress(BadDeclaration):  # whoever uses it is told
                task.prepare()

    # --- declaring -------------------------------------------------------------------------------------

    @overload
    def task(  # type: ignore[overload-overlap]  # as above
        self, fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> ContextTask[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def task(  # type: ignore[overload-overlap]  # likewise
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> PlainTask[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def task(self, fn: Callable[Concatenate[Context, P], R], /) -> ContextTask[P, R, R]: ...
    @overload
    def task(self, fn: Callable[P, R], /) -> PlainTask[P, R, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        version: str = "",
        queue: str = DEFAULT_QUEUE,
        priority: int = 0,
        retries: int = 0,
        backoff: Backoff | None = None,
        give_up_on: type[Exception] | tuple[type[Exception], ...] = (),
        timeout: float | None = None,
        concurrency: int | None = None,
        concurrency_key: str | Callable[..., object] | None = None,
        concurrency_per_key: int = 1,
        rate: Rate | None = None,
        retention: float | None = None,
        log_max_bytes: int = DEFAULT_LOG_MAX_BYTES,
        log_retention: float | None = None,
        max_lost: int = DEFAULT_MAX_LOST,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        run: Run = "auto",
        cron: str | None = None,
        timezone: str = "UTC",
        catch_up: bool = False,
    ) -> Decorator: ...
    def task(self, fn: Any = None, /, **declared: Any) -> Any:
        """Declare a function as a task. The function stays callable as it was.

        If its first parameter is annotated `Context`, it is given one; the others are the job's arguments, stored as
        JSON by their annotations. A plain function runs in a thread of the worker.

        `name` (default: the function's qualified name without its module): under which jobs are stored; keep it when
        the function moves. `version`: jobs are run only by workers that declare the version they were submitted with.
        `queue` ("default"), `priority` (0; higher is first). `retries` (0): how many failed attempts are tried again,
        after `backoff`; not after errors in `give_up_on`. `timeout`: seconds for one attempt. `concurrency`: at most so
        many at once over all workers; `concurrency_key`: the name of a parameter, or a function of the arguments, of
        whose value at most `concurrency_per_key` (1) run at once. `rate`: how many begin per time. `retention`: seconds
        an ended job is kept (default: the engine's, 7 days). `log_max_bytes` (16 MiB), `log_retention` (seconds; none):
        how much of a job's log is kept; its oldest entries go first, when something is added.
        `max_lost` (3): that many attempts lost in a row, without a completed step between them, fail the job;
        `max_attempts` (100): that many failed or lost ones altogether.
        `run="process"`: in a process of its own, which can be killed; such a function takes no context.
        `cron`, `timezone` ("UTC"): submitted at each tick, once over all workers; ticks that nobody was there for are
        passed over, or with `catch_up` made up for (the last hundred).

        Raises `BadDeclaration` for what cannot work, for a name and version used twice too.
        """
        if fn is None:
            return lambda later: self._declare(later, declared)
        return self._declare(fn, declared)

    def _declare(self, fn: Callable[..., Any], declared: dict[str, Any]) -> Task[Any, Any]:
        settings = _settings(fn, declared)
        check_function(fn, settings.name)
        self._client.check_queue(settings.queue, f"task {settings.name!r}")
        key = (settings.name, settings.version)
        if key in self._tasks:
            raise BadDeclaration(
                f"the task name {settings.name!r} (version {settings.version!r}) is used twice, by "
                f"{self._tasks[key].fn.__module__} and {fn.__module__}; give one of them another name= or version="
            )
        localns = names_around(fn, __name__)
        takes_context = _takes_context(fn)
        _check_run(fn, settings, takes_context)
        kind = ContextTask if takes_context else PlainTask
        task: Task[Any, Any] = kind(self._client, fn, settings, localns)
        if settings.cron is not None:
            Cron(f"task {settings.name!r}: ", settings.cron, settings.timezone)
        self._tasks[key] = task
        return task

    def task_named(self, name: str, version: str | None = None) -> Task[Any, Any]:
        """The declared task of this name; of several versions the one declared last. Raises `UnknownTaskName`."""
        found = [
            task for (known, its), task in self._tasks.items() if known == name and version in (None, its)
        ]
        if not found:
            known = ", ".join(sorted({known for known, _ in self._tasks})) or "none"
            raise UnknownTaskName(f"no task {name!r} is declared here; declared are: {known}")
        return found[-1]

    # --- submitting and finding ------------------------------------------------------------------------

    async def submit_many(self, calls: Iterable[Call[R]], *, connection: Any = None) -> list[Job[R]]:
        """Submit all of these calls in one transaction: all or none. Their handles, in order.

        `connection`: in the transaction that this connection of yours is in, as `task.options(connection=...)` says.
        Raises as `task.submit`, and `BadArguments` for what is no call of a task declared here.

            await jobs.submit_many(analyse.call(folder) for folder in folders)
        """
        listed = list(calls)
        for call in listed:
            if not isinstance(call, Call) or call.task._client is not self._client:
                raise BadArguments(f"submit_many takes calls of tasks declared on these jobs, not {call!r}")
        # Each an id of its own: a call is a value, and may be submitted more than once.
        submitted = [call.job._replace(id=new_id()) for call in listed]
        answers = await self._client.submit(submitted, connection)
        return [
            Job(self._client, answer.id, call.task.result)
            for call, answer in zip(listed, answers, strict=True)
        ]

    def job(self, job_id: str) -> Job[Any]:
        """A handle by id; nothing is asked yet, so an id that does not exist shows at the first verb."""
        return Job(self._client, job_id)

    async def find(
        self,
        *,
        status: JobStatus | str | Iterable[JobStatus | str] | None = None,
        task: str | None = None,
        task_part: str | None = None,
        queue: str | None = None,
        key: str | None = None,
        parent: str | None = None,
        label: tuple[str, str] | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[JobInfo]:
        """The jobs for which all of this holds, newest first; the next page: `before=` the last one's id.

        `task` is a whole name, `task_part` what a name has in it, in capitals or not.

        Raises ValueError for a status that does not exist, `BadDeclaration` for an impossible filter or limit,
        `UnknownJob` for a `before` that does not exist (any more).
        """
        statuses = None
        if status is not None:
            given = [status] if isinstance(status, str) else list(status)
            statuses = frozenset(JobStatus(one) for one in given)
        whole("find(limit)", limit, 1)
        _check_filters(label, task=task, task_part=task_part, queue=queue, key=key, parent=parent)
        if before is not None:  # or the rest of the list would be empty, and nobody would know why
            await self._client.get(before)
        engine = await self._client.ready()
        query = JobQuery(statuses, task, queue, key, parent, label, before, limit, task_part)
        return [info_of(row) for row in await engine.find(query)]

    async def overview(self) -> Overview:
        """Counts by queue and status, the workers, the schedules."""
        engine = await self._client.ready()
        return await engine.overview()

    async def schedules(self) -> list[Schedule]:
        """The schedules of the store and of the tasks declared here, by their next tick."""
        return timetable(await self.overview(), self._tasks.values())

    async def shutdowns(self, *, limit: int = 20) -> list[PastShutdown]:
        """The reports of the last shutdowns of all processes on this store, the newest first, at most `limit` (20).

        Left there: that of every server and every worker that was told to stop, and of any other process that did not
        end well, if the store was opened within its manager (`install(app, manager, jobs=jobs)`, `lastcall worker`,
        `async with jobs.worker()`, `await manager.enter(jobs)`). For 30 days, and 4 MiB of them altogether. A process
        that was killed leaves none.

        Raises `EngineUnavailable`, `BadDeclaration` for a limit that is none.

            for past in await jobs.shutdowns():
                print(past.host, past.pid, past.report)
        """
        whole("shutdowns(limit)", limit, 1)
        return await last_shutdowns(await self._client.ready(), limit)

    # --- running ---------------------------------------------------------------------------------------

    def observe(self, observer: JobObserver) -> Callable[[], None]:
        """Tell `observer` of what is submitted and run in this process from now on. Returns what ends it."""
        client = self._client
        client.observers = (*client.observers, observer)

        def stop() -> None:
            client.observers = tuple(other for other in client.observers if other is not observer)

        return stop

    def worker(
        self,
        *,
        concurrency: int = 10,
        queues: Iterable[str] | None = None,
        manager: TaskManager | None = None,
    ) -> Worker:
        """A worker, to be used as a block: it runs at most `concurrency` (10) jobs at once, of these queues (all).

        `manager`: whose tasks the jobs are and by whose plan they drain; default: the one in whose block or app this is
        called, or else one of its own.

        Raises `BadDeclaration` for impossible numbers, and for declared tasks whose annotations cannot be stored.

            async with jobs.worker(concurrency=100):
                await current_shutdown().wait()
        """
        whole("worker(concurrency)", concurrency, 1)
        chosen = _queue_names("worker(queues)", queues)
        for name in chosen or ():
            self._client.check_queue(name, "worker(queues)")
        if manager is None:
            manager = _manager_around()
        return Worker(self._declared(), manager=manager, concurrency=concurrency, queues=chosen)

    def _declared(self) -> Declared:
        """For workers, here and those of a carrier. Raises `BadDeclaration` for a task that cannot be run."""
        for task in self._tasks.values():
            task.prepare()
        return Declared(self._client, self._tasks, crons_of(list(self._tasks.values())), self._lease_seconds)


def _queue_names(what: str, queues: Iterable[str] | None) -> frozenset[str] | None:
    if queues is None:
        return None
    if isinstance(queues, str):
        raise BadDeclaration(f"{what} is a list of names; give [{queues!r}]")
    names = frozenset(text("a queue", name) for name in queues)
    if not names:
        raise BadDeclaration(f"{what} names no queue; leave it out for all of them")
    return names


def open_engine(url: str) -> Engine:
    """The engine for a URL; nothing is connected yet. Raises `UnknownEngine`."""
    scheme, found, _ = url.partition("://")
    if not found or scheme not in _ENGINES:
        known = ", ".join(f"{known}://" for known in _ENGINES)
        raise UnknownEngine(f"no engine knows the URL {url!r}; it must begin with one of {known}")
    module, extra = _ENGINES[scheme]
    try:
        engine: Engine = importlib.import_module(module).from_url(url)
    except ModuleNotFoundError as error:
        raise UnknownEngine(
            f"the engine for {scheme}:// needs {error.name}; install it with: pip install 'lastcall[{extra}]'"
        ) from None
    return engine


def _settings(fn: Callable[..., Any], declared: dict[str, Any]) -> Settings:
    if not callable(fn):
        raise BadDeclaration(f"jobs.task decorates a function, not {fn!r}")
    given = dict(declared)
    unknown = set(given) - {_short(field) for field in Settings._fields}
    if unknown:
        raise BadDeclaration(f"jobs.task has no option {sorted(unknown)[0]!r}")
    if given.get("name") is None:
        given["name"] = default_name(fn)
    if given.get("backoff") is None:
        given["backoff"] = Backoff()
    give_up_on = given.get("give_up_on", ())
    given["give_up_on"] = give_up_on if isinstance(give_up_on, tuple) else (give_up_on,)
    return Settings(
        **{field: given[_short(field)] for field in Settings._fields if _short(field) in given}
    ).checked()


def _short(field: str) -> str:
    """How a field of `Settings` is named in `jobs.task(...)`."""
    return field.removesuffix("_seconds")


def _check_filters(label: Any, **words: Any) -> None:
    """Raises `BadDeclaration` for what no job can have, and no store could look for."""
    if label is not None and not (
        isinstance(label, tuple | list) and len(label) == 2 and all(map(is_unicode, label))
    ):
        raise BadDeclaration(f"find(label) is a pair of texts, name and value, not {shown(label)}")
    for name, word in words.items():
        if word is not None and not is_unicode(word):
            raise BadDeclaration(f"find({name}) is no text: {shown(word)}")


def _takes_context(fn: Callable[..., Any]) -> bool:
    """By the annotation as it is written, since names defined later in the module cannot be read yet."""
    parameters = list(inspect.signature(fn).parameters.values())
    if not parameters:
        return False
    written = parameters[0].annotation
    return written is Context or (isinstance(written, str) and written.rpartition(".")[2] == "Context")


def _check_run(fn: Callable[..., Any], settings: Settings, takes_context: bool) -> None:
    where = f"task {settings.name!r}: "
    if settings.run == "process":
        if not inspect.isfunction(fn):
            raise BadDeclaration(f"{where}run='process' needs a function at module level, not {fn!r}")
        check_importable(fn, where)
        if takes_context:
            raise BadDeclaration(
                f"{where}run='process' cannot have a Context, whose steps belong to the worker"
            )
    if settings.run == "thread" and is_coroutine_function(fn):
        raise BadDeclaration(f"{where}run='thread' is for plain functions; an async one runs on the loop")


def _manager_around() -> TaskManager | None:
    """The one in whose block, app or task this is called."""
    scope = current_scope.get()
    return None if scope is None else cast("TaskManager | None", scope.roster.owner)
