"""A declared task: a function that can be submitted. Made by `jobs.task`, called by users, read by workers.

Why options are not keywords of `submit`: a type checker cannot know a call that takes the function's own parameters
and some of ours besides (PEP 612 forbids it), and a parameter named `key` or `queue` would be ambiguous. So
`task.options(key=...)` gives a task that differs in these, and `submit` has exactly the function's signature.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from .._core._diagnose import error_text
from ..exceptions import BadArguments, BadDeclaration
from ._client import Client
from ._codec import ArgumentsCodec, ValueCodec
from ._context import Context
from ._function import bare, hints_of, is_coroutine_function, name_of
from ._ids import new_id
from ._job import Job, to_epoch
from ._rows import NewJob
from ._settings import LOWEST_PRIORITY, Settings, seconds, text, whole

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
C_co = TypeVar("C_co", covariant=True)


class Options(NamedTuple):
    """What one submission may say about itself; None: as declared."""

    key: str | None = None
    delay_seconds: float | None = None
    due_at: float | None = None
    priority: int | None = None
    queue: str | None = None
    labels: str | None = None
    retries: int | None = None
    timeout_seconds: float | None = None
    retention_seconds: float | None = None
    parent_id: str | None = None
    connection: Any = None


_NO_OPTIONS = Options()

_LABEL_CHARACTERS = 1000


class Call(NamedTuple, Generic[R_co]):
    """A call of a task, checked and ready to be submitted: by `jobs.submit_many`, or by `ctx.start` as a child."""

    job: NewJob
    task: Task[..., R_co]


class Shape:
    """How a task's function is called and what it returns; one for the task and everything made of it by `options`.

    Read from the annotations at the first use and not at import, so that types defined later in the module are known.
    """

    __slots__ = ("_fn", "_is_read", "_localns", "_settings", "arguments", "result", "takes_context")

    def __init__(self, fn: Callable[..., Any], settings: Settings, localns: Mapping[str, Any] | None) -> None:
        self._fn = fn
        self._settings = settings
        self._localns = localns
        self._is_read = False
        self.takes_context: bool
        self.arguments: ArgumentsCodec
        self.result: ValueCodec

    def read(self) -> Shape:
        """Raises `BadDeclaration` for annotations that mean nothing, and for types that cannot be stored."""
        if self._is_read:
            return self
        settings, where = self._settings, f"task {self._settings.name!r}: "
        hints = hints_of(self._fn, self._localns)
        parameters = list(inspect.signature(self._fn).parameters.values())
        takes_context = bool(parameters) and hints.get(parameters[0].name) is Context
        if takes_context and settings.run == "process":
            raise BadDeclaration(
                f"{where}run='process' cannot have a Context, whose steps belong to the worker"
            )
        result = ValueCodec(hints.get("return", Any), f"the result of {settings.name!r}")
        arguments = ArgumentsCodec(self._fn, int(takes_context), hints)
        wanted = settings.concurrency_key
        if isinstance(wanted, str) and wanted not in arguments.signature.parameters:
            raise BadDeclaration(
                f"{where}concurrency_key {wanted!r} is none of its parameters {arguments.signature}"
            )
        self.takes_context, self.arguments, self.result = takes_context, arguments, result
        self._localns = None  # they may keep half a program alive
        self._is_read = True
        return self


class Task(Generic[P, R_co]):
    """A task that can be submitted, with the signature of its function, its context left out.

    job = await analyse.submit("docs/")
    job = await analyse.options(key="docs-2026-11", delay=60, priority=5).submit("docs/")
    jobs = await jobs.submit_many([analyse.call(folder) for folder in folders])
    """

    def __init__(
        self, client: Client, fn: Callable[..., Any], settings: Settings, localns: Mapping[str, Any] | None
    ) -> None:
        self._client = client
        self._shape = Shape(fn, settings, localns)
        self._options = _NO_OPTIONS
        self.fn = fn
        self.settings = settings
        self.is_async = is_coroutine_function(fn)
        self.__doc__ = bare(fn).__doc__
        self.__name__ = getattr(fn, "__name__", settings.name)
        self.__qualname__ = name_of(fn)
        self.__module__ = fn.__module__
        self.__wrapped__ = fn

    def __repr__(self) -> str:
        version = f" version {self.settings.version!r}" if self.settings.version else ""
        return f"<Task {self.settings.name!r}{version}>"

    @property
    def name(self) -> str:
        """The name under which its jobs are stored."""
        return self.settings.name

    # --- submitting ------------------------------------------------------------------------------------

    def options(
        self,
        *,
        key: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        labels: Mapping[str, str] | None = None,
        retries: int | None = None,
        timeout: float | None = None,
        retention: float | None = None,
        connection: Any = None,
    ) -> Task[P, R_co]:
        """The same task, whose submissions differ in these.

        `key`: submitted again with the same key, the same job is returned; with other arguments it is refused. It holds
        as long as the job is kept. `delay` (seconds) or `at` (a naive time is UTC): not before. `priority`: higher is
        first (default 0). `labels`: for finding it. `retries`, `timeout` (seconds per attempt), `retention` (seconds
        that the ended job is kept): in place of what was declared. `connection`: submitted in the transaction that this
        connection of yours is in, to the database of the jobs (PostgreSQL; asyncpg, psycopg's `AsyncConnection`,
        SQLAlchemy's `AsyncSession` or `AsyncConnection`). The job is there when that transaction commits, and not
        otherwise; before that nobody sees it, and its handle's verbs raise `UnknownJob`.

        Raises `BadDeclaration` for values that make no sense.
        """
        where = f"options of {self.name!r}: "
        if delay is not None and at is not None:
            raise BadDeclaration(f"{where}delay and at exclude each other; give one")
        if at is not None and not isinstance(at, datetime):
            raise BadDeclaration(f"{where}at must be a datetime, not {at!r}")
        new = Options(
            key=None if key is None else text(where + "key", key),
            delay_seconds=None if delay is None else seconds(where + "delay", delay),
            due_at=None if at is None else to_epoch(at),
            priority=None if priority is None else whole(where + "priority", priority, LOWEST_PRIORITY),
            queue=None
            if queue is None
            else self._client.check_queue(text(where + "queue", queue), where + "queue"),
            labels=None if labels is None else _labels(where, labels),
            retries=None if retries is None else whole(where + "retries", retries, 0),
            timeout_seconds=None if timeout is None else seconds(where + "timeout", timeout, zero=False),
            retention_seconds=None if retention is None else seconds(where + "retention", retention),
            connection=connection,
        )
        given = {name: value for name, value in new._asdict().items() if value is not None}
        if delay is not None or at is not None:  # each takes the place of the other
            given = {"delay_seconds": None, "due_at": None, **given}
        return self._with(self._options._replace(**given))

    def _with(self, options: Options) -> Task[P, R_co]:
        other: Task[P, R_co] = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._options = options
        return other

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """Check a call without submitting it. Raises `BadArguments`, `PayloadTooLarge`."""
        if self._options.connection is not None:
            raise BadDeclaration(
                f"a call of task {self.name!r} carries no connection; give it where it is submitted:"
                " jobs.submit_many(calls, connection=...)"
            )
        return Call(self._new_job(args, kwargs), self)

    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> Job[R_co]:
        """Write the job down and return its handle; after this it runs to its end, whatever dies.

        Raises `BadArguments`, `PayloadTooLarge`, `KeyConflict` (nothing was written), `EngineUnavailable`; and
        `BadConnection` for a `connection` among the options that cannot carry it.
        """
        client = self._client
        (answer,) = await client.submit((self._new_job(args, kwargs),), self._options.connection)
        return Job(client, answer.id, self.result)

    async def submit_json(self, values: Any) -> Job[R_co]:
        """The same with the arguments as plain JSON values by parameter name, as an HTTP request has them."""
        args = self.arguments.check_json(values)
        (answer,) = await self._client.submit((self._job_of(args),), self._options.connection)
        return Job(self._client, answer.id, self.result)

    def _new_job(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewJob:
        return self._job_of(self._shape.read().arguments.dump(args, kwargs))

    def _job_of(self, args: str) -> NewJob:
        settings, options = self.settings, self._options
        self._client.check_size(args, "the arguments of %r", settings.name)
        limit_key = None if settings.concurrency_key is None else self._limit_key(args)
        if options is _NO_OPTIONS and limit_key is None:
            return NewJob(
                new_id(),
                settings.name,
                args,
                settings.version,
                settings.queue,
                settings.priority,
                max_lost=settings.max_lost,
                max_attempts=settings.max_attempts,
                retention_seconds=settings.retention_seconds,
                log_max_bytes=settings.log_max_bytes,
                log_max_age_seconds=settings.log_retention_seconds,
            )
        return NewJob(
            id=new_id(),
            task=settings.name,
            args=args,
            version=settings.version,
            queue=settings.queue if options.queue is None else options.queue,
            priority=settings.priority if options.priority is None else options.priority,
            delay_seconds=options.delay_seconds,
            due_at=options.due_at,
            key=options.key,
            limit_key=limit_key,
            limit=None if limit_key is None else settings.concurrency_per_key,
            labels=options.labels,
            options=_run_options(options),
            parent_id=options.parent_id,
            max_lost=settings.max_lost,
            max_attempts=settings.max_attempts,
            retention_seconds=(
                settings.retention_seconds if options.retention_seconds is None else options.retention_seconds
            ),
            log_max_bytes=settings.log_max_bytes,
            log_max_age_seconds=settings.log_retention_seconds,
        )

    def _limit_key(self, args: str) -> str:
        """From the arguments as they are stored: the same from wherever the job is submitted."""
        wanted = self.settings.concurrency_key
        positional, named = self.arguments.load(args)
        bound = self.arguments.signature.bind(*positional, **named)
        bound.apply_defaults()
        try:
            value = wanted(*bound.args, **bound.kwargs) if callable(wanted) else bound.arguments[wanted]
            written = str(value)
            written.encode()
        except Exception as error:
            raise BadArguments(
                f"the concurrency_key of task {self.name!r} has failed for these arguments: {error_text(error)}"
            ) from error
        return f"{self.name}:{written}"

    # --- what workers need -----------------------------------------------------------------------------

    def prepare(self) -> None:
        """Read the annotations now. Raises `BadDeclaration` for what cannot be stored."""
        self._shape.read()

    @property
    def takes_context(self) -> bool:
        """Whether the function is given a `Context` first."""
        return self._shape.read().takes_context

    @property
    def arguments(self) -> ArgumentsCodec:
        """How its arguments are stored."""
        return self._shape.read().arguments

    @property
    def result(self) -> ValueCodec:
        """How its result is stored."""
        return self._shape.read().result


class ContextTask(Task[P, R_co], Generic[P, R_co, C_co]):
    """A task whose function takes a `Context` first."""

    def __call__(self, ctx: Context, /, *args: P.args, **kwargs: P.kwargs) -> C_co:
        """Call the function itself; nothing is submitted."""
        result: C_co = self.fn(ctx, *args, **kwargs)
        return result


class PlainTask(Task[P, R_co], Generic[P, R_co, C_co]):
    """A task whose function takes its own arguments only."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C_co:
        """Call the function itself; nothing is submitted."""
        result: C_co = self.fn(*args, **kwargs)
        return result


def _labels(where: str, labels: Mapping[str, str]) -> str:
    if not isinstance(labels, Mapping):
        raise BadDeclaration(f"{where}labels must be a mapping of texts, not {labels!r}")
    for name, value in labels.items():
        text(where + "the name of a label", name)
        if not isinstance(value, str) or not value.isprintable() or len(value) > _LABEL_CHARACTERS:
            raise BadDeclaration(
                f"{where}the label {name!r} must be a printable text of at most {_LABEL_CHARACTERS} characters, "
                f"not {value!r}"
            )
    return json.dumps(dict(labels))


def _run_options(options: Options) -> str | None:
    given = {
        "retries": options.retries,
        "timeout": options.timeout_seconds,
        # An engine forgets when a job was due once it is; metrics of its first attempt count from then.
        "delay": options.delay_seconds,
        "due_at": options.due_at,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return json.dumps(given) if given else None
