"""Context: what a job's function is given first. Its verbs are checkpoints, where a drain may hand the job over."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from traceback import format_exception
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, TypeVarTuple, cast, overload

from .._core._scope import Shutdown
from .._core._state import StopReason
from ..exceptions import BadDeclaration, NotInJob, StepUnknownOutcome
from ._attempt import Attempt, Crew, current_attempt, persist
from ._codec import ValueCodec, dump_error, dump_plain, load_plain
from ._engine import SupportsTransactions
from ._function import bare, name_of, return_hint_of
from ._ids import new_id
from ._job import Decision, Job, decision_name, result_of
from ._rows import EventRow, NewEvent, StepRecord, StepRow, Wait
from ._settings import seconds as check_seconds
from ._settings import text as check_text
from ._state import StepPolicy, StepStatus, WaitKind

if TYPE_CHECKING:
    from ._declaration import Call

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_EVENTS_READ = 1000
_CODECS_KEPT = 1000


class CurrentStep:
    """The step that runs now, for code inside it: `current_step()`.

    `idempotency_key` is the same whenever this step is tried again: pass it on to services that take one.
    `so_far`: for a step of policy `continue` that was cut off, the data of the events which it had emitted.
    """

    __slots__ = ("attempt", "idempotency_key", "job_id", "key", "so_far")

    def __init__(self, key: str, attempt: Attempt, so_far: Sequence[Any]) -> None:
        self.key = key
        self.job_id = attempt.claimed.id
        self.attempt = attempt.claimed.attempt
        self.idempotency_key = f"{attempt.claimed.id}/{key}"
        self.so_far = so_far


_current_step: ContextVar[CurrentStep | None] = ContextVar("lastcall_job_step", default=None)


def current_step() -> CurrentStep:
    """The step that runs now, in a coroutine or a thread. Raises `NotInJob` outside a step.

    await client.post("/charges", headers={"Idempotency-Key": current_step().idempotency_key})
    """
    step = _current_step.get()
    if step is None:
        raise NotInJob("current_step() was called outside a step; call it in a function run by ctx.step(...)")
    return step


def current_context() -> Context:
    """The context of the job that runs now, for code far below its function. Raises `NotInJob` outside a job."""
    attempt = current_attempt.get()
    if attempt is None:
        raise NotInJob("there is no job here: steps and contexts exist inside a job that a worker runs")
    return Context(attempt)


class Context:
    """What a job knows of itself and can ask for.

    @jobs.task
    async def analyse(ctx: Context, folder: str) -> int:
        files = await ctx.step(list_files, folder)
        for n, file in enumerate(files):
            await ctx.step(index_file, file)
            await ctx.progress(n + 1, len(files))
        return len(files)
    """

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    # --- what it knows ---------------------------------------------------------------------------------

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._attempt.claimed.id

    @property
    def attempt(self) -> int:
        """Which start of the job this is, from 1."""
        return self._attempt.claimed.attempt

    @property
    def failures(self) -> int:
        """How many attempts have failed before."""
        return self._attempt.claimed.failures

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt, and of no other job. For a single step: `current_step().idempotency_key`."""
        return self._attempt.claimed.id

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels it was submitted with."""
        labels: Mapping[str, str] = load_plain(self._attempt.claimed.labels) or {}
        return labels

    @property
    def key(self) -> str | None:
        """The key it was submitted with."""
        return self._attempt.claimed.key

    @property
    def parent_id(self) -> str | None:
        """The job that started it, if it is a child."""
        return self._attempt.claimed.parent_id

    @property
    def shutdown(self) -> Shutdown:
        """Whether the job was asked to stop, and how long it has left."""
        return Shutdown(self._attempt.crew.roster, self._attempt.record)

    @property
    def cancel_reason(self) -> StopReason | None:
        """Why this attempt was cancelled: read it where CancelledError is caught; None before that."""
        return self._attempt.reason

    def _require_outside_steps(self, what: str) -> None:
        """Inside a step nothing can be remembered, and nothing may leave: it would wait for itself.

        Raises `BadDeclaration`, and `NotInJob` after the attempt's end.
        """
        self._attempt.enter()
        step = _current_step.get()
        if step is not None and step.job_id == self.job_id:
            raise BadDeclaration(
                f"{self._attempt!r}: {what} inside the step {step.key!r}; a step is remembered as a whole, so call the "
                "function itself there, or make it a step beside this one"
            )

    # --- steps -----------------------------------------------------------------------------------------

    @overload
    async def step(
        self,
        fn: Callable[[*Ts], Awaitable[T]],
        /,
        *args: *Ts,
        name: str | None = None,
        policy: StepPolicy | str = StepPolicy.REPLAY,
        on_unknown: Callable[[], Awaitable[Decision]] | None = None,
    ) -> T: ...
    @overload
    async def step(
        self,
        fn: Callable[[*Ts], T],
        /,
        *args: *Ts,
        name: str | None = None,
        policy: StepPolicy | str = StepPolicy.REPLAY,
        on_unknown: Callable[[], Awaitable[Decision]] | None = None,
    ) -> T: ...
    async def step(  # type: ignore[misc]  # mypy 2.4 does not see that Any accepts what a TypeVarTuple does
        self,
        fn: Any,
        /,
        *args: Any,
        name: str | None = None,
        policy: StepPolicy | str = StepPolicy.REPLAY,
        on_unknown: Callable[[], Awaitable[Decision]] | None = None,
    ) -> Any:
        """Call `fn(*args)` once, and remember what it returned: in later attempts it is not called again.

        A plain function runs in a thread. Keyword arguments: `functools.partial`. The value is stored as JSON by the
        function's return annotation, and what is given back is what was stored, in the first attempt as in later ones.

        `name` (default: the function's, with its arguments): its identity, with the count of this name in the job.
        Name steps whose arguments differ from run to run (a time, a random number).
        `policy`: what becomes of it if the process dies in the middle. `replay` (default): it is called again; the log
        says so with the event `step.reset`. `once`: it is never called again by itself; `on_unknown()` is asked for a
        `Decision`, and without it the job waits until `job.resolve(...)` brings one. `continue`: called again, with
        `current_step().so_far`.

        What `fn` raises is raised here, and the next attempt calls it again, also if the job has caught it and gone
        on another way: let `fn` return what such a decision depends on, and it is remembered.
        Raises `StepMismatch` if the code was changed, `StepCollision`, `BadResult`, `PayloadTooLarge`, `NotInJob`, and
        `BadDeclaration` for a step inside another one.
        """
        attempt = self._attempt
        policy = _policy(policy)
        self._require_outside_steps("a step")
        if not callable(fn):
            _refuse(fn)
        steps = attempt.steps if attempt.steps is not None else await attempt.load_steps()
        key = steps.key_of(name, fn, args)
        row = steps.recorded(key, main=attempt.in_main_task)
        codec = _codec_of(fn, attempt.crew)
        if row is not None and row.status is StepStatus.COMPLETED:
            return codec.load(row.value or "null")
        await attempt.checkpoint()
        steps.begin(name)
        try:
            if row is not None and row.status is StepStatus.STARTED and row.policy is StepPolicy.ONCE:
                decision = await self._decision(key, row, on_unknown)
                if decision.happened:
                    return await self._record_decided(key, codec, decision)
            with attempt.holding():
                so_far = await self._prepare(key, policy, row)
                return await self._run_step(key, fn, args, policy, codec, so_far)
        finally:
            steps.end(name)

    async def _prepare(self, key: str, policy: StepPolicy, row: StepRow | None) -> Sequence[Any]:
        """What an earlier try has emitted: handed to the step if it continues, and otherwise taken back."""
        attempt = self._attempt
        so_far: Sequence[Any] = ()
        if policy is StepPolicy.CONTINUE:
            if row is not None and row.status is StepStatus.STARTED and row.policy is StepPolicy.CONTINUE:
                so_far = await self._emitted(key)
        elif attempt.claimed.attempt > 1 and key in await self._steps_with_events():
            await self._append(NewEvent("step.reset", dump_plain({"step": key}, "an event"), key))
        if policy is not StepPolicy.REPLAY:
            await attempt.record_step(
                StepRecord(key, StepStatus.STARTED, policy=policy, main=attempt.in_main_task)
            )
        return so_far

    async def _run_step(
        self,
        key: str,
        fn: Callable[..., Any],
        args: Sequence[Any],
        policy: StepPolicy,
        codec: ValueCodec,
        so_far: Sequence[Any],
    ) -> Any:
        attempt = self._attempt
        main = attempt.in_main_task
        began = time.monotonic()
        token = _current_step.set(CurrentStep(key, attempt, so_far))
        try:
            await self._probe("before", key)
            value, cancelled = await self._call(fn, args)
            await self._probe("after", key)
            text = attempt.crew.client.check_size(codec.dump(value), f"the value of step {key!r}")
        except (Exception, asyncio.CancelledError) as error:
            await self._record_failed(key, policy, began, error)
            raise
        finally:
            _current_step.reset(token)
        took = time.monotonic() - began
        await attempt.record_step(StepRecord(key, StepStatus.COMPLETED, text, None, policy, main, took))
        await self._probe("recorded", key)
        if cancelled is not None:
            raise cancelled
        return codec.load(text)

    async def _record_failed(
        self, key: str, policy: StepPolicy, began: float, error: Exception | asyncio.CancelledError
    ) -> None:
        """It is known how it ended: nobody has to decide anything, and the job may go on another way.

        Not of a step that was cut off, unless the job's own code did that (a timeout around it): what became of one
        declared `once` is unknown then. Nor of one that goes on where it stood.
        """
        attempt = self._attempt
        if policy is StepPolicy.CONTINUE:
            return
        if isinstance(error, asyncio.CancelledError):
            own = attempt.in_main_task and not (attempt.is_cancelled or attempt.ended)
            if not own or policy is StepPolicy.ONCE:
                return
        told = dump_error(error, "".join(format_exception(error)))
        took = time.monotonic() - began
        main = attempt.in_main_task
        await attempt.record_step(StepRecord(key, StepStatus.FAILED, None, told, policy, main, took))

    async def _probe(self, when: str, key: str) -> None:
        if self._attempt.crew.probe is not None:
            await self._attempt.crew.probe(when, self._attempt, key)

    async def _call(
        self, fn: Callable[..., Any], args: Sequence[Any]
    ) -> tuple[Any, asyncio.CancelledError | None]:
        """The value; and the cancellation that came while a thread was busy: it cannot be cut off, and what it has
        done by then is done, so it is remembered before the cancellation goes on."""
        if is_coroutine_function(fn):
            return await fn(*args), None
        returned: list[Any] = []
        try:
            await self._attempt.call_in_thread(lambda: returned.append(fn(*args)))
        except asyncio.CancelledError as error:
            if not returned:
                raise
            return await awaited(returned[0]), error
        return await awaited(returned[0]), None

    async def _decision(
        self, key: str, row: StepRow, on_unknown: Callable[[], Awaitable[Decision]] | None
    ) -> Decision:
        """A step `once` was in flight when its process died: only somebody who knows can say what became of it."""
        attempt = self._attempt
        if on_unknown is not None:
            with attempt.holding():
                return await on_unknown()
        steps = await attempt.load_steps()
        wait_key = steps.wait_key(f"decision {key} of attempt {row.attempt}")
        decided = steps.recorded(wait_key, main=False)
        if decided is None:
            await attempt.checkpoint()
            await attempt.wait_for(Wait(wait_key, WaitKind.DECISION, name=decision_name(key)))
        assert decided is not None
        data = load_plain(decided.value)["data"]
        if data.get("error") is not None:
            error = StepUnknownOutcome(f"step {key!r} was decided to have failed: {data['error']}")
            await self._record_failed(key, StepPolicy.ONCE, time.monotonic(), error)
            raise error
        return Decision(bool(data["happened"]), data.get("value"))

    async def _record_decided(self, key: str, codec: ValueCodec, decision: Decision) -> Any:
        attempt = self._attempt
        what = f"the value of step {key!r}"
        text = attempt.crew.client.check_size(dump_plain(decision.value, what), what)
        value = codec.load(text)  # before it is written: it may not be what the step returns
        await attempt.record_step(
            StepRecord(key, StepStatus.COMPLETED, text, None, StepPolicy.ONCE, attempt.in_main_task)
        )
        return value

    async def _emitted(self, key: str) -> list[Any]:
        """What this step has emitted since it was last begun anew."""
        found: list[Any] = []
        async for row in self._log():
            if row.step == key:
                found = [] if row.type == "step.reset" else [*found, load_plain(row.data)]
        return found

    async def _steps_with_events(self) -> set[str]:
        """Steps whose events a reader may have shown, read once per attempt: what they emit now is not in it."""
        attempt = self._attempt
        if attempt.told is None:
            told = set[str]()
            async for row in self._log():
                if row.step is not None and row.attempt < attempt.claimed.attempt:
                    (told.discard if row.type == "step.reset" else told.add)(row.step)
            attempt.told = told  # only now: steps side by side must not see half of it
        return attempt.told

    async def _log(self) -> AsyncIterator[EventRow]:
        attempt, after = self._attempt, 0
        while True:
            read = partial(attempt.crew.engine.read_events, self.job_id, after, _EVENTS_READ)
            page = await persist(read, repr(attempt), attempt)
            if page is None or not page.events:
                return
            for row in page.events:
                yield row
            after = page.events[-1].seq

    async def transaction(self, fn: Callable[[Any, *Ts], T], /, *args: *Ts, name: str | None = None) -> T:
        """A step that writes to the engine's own database: `fn(connection, *args)` and the memory of it are committed
        together, so it happens exactly once, whatever dies.

        On SQLite `fn` is a plain function of a `sqlite3.Connection` to the same file and runs between the writes of
        everybody else: keep it short. It must not commit; what it raises undoes it and is raised here.
        Raises `BadDeclaration` for an engine that cannot do this, and as `step`.

            await ctx.transaction(move_money, "ann", "bob", 5)
        """
        attempt = self._attempt
        self._require_outside_steps("a transaction")
        if not callable(fn) or is_coroutine_function(fn):
            _refuse(fn, plain=True)
        engine = attempt.crew.engine
        if not hasattr(engine, "transact"):
            raise BadDeclaration(f"{type(engine).__name__} cannot commit a step together with your own rows")
        steps = await attempt.load_steps()
        key = steps.key_of(name, fn, args)
        row = steps.recorded(key, main=attempt.in_main_task)
        codec = _codec_of(fn, attempt.crew)
        if row is not None and row.status is StepStatus.COMPLETED:
            return cast(T, codec.load(row.value or "null"))
        await attempt.checkpoint()
        began = time.monotonic()
        step = StepRecord(key, StepStatus.COMPLETED, main=attempt.in_main_task)
        check_size, claimed = attempt.crew.client.check_size, attempt.claimed

        def work(connection: Any) -> str:
            return check_size(codec.dump(fn(connection, *args)), f"the value of step {key!r}")

        steps.begin(name)
        try:
            text = await attempt.finish_write(
                lambda: cast(SupportsTransactions, engine).transact(claimed.id, claimed.attempt, step, work),
                f"step {key!r} of {attempt!r}",
            )
        except Exception as error:
            await self._record_failed(key, StepPolicy.REPLAY, began, error)
            raise
        finally:
            steps.end(name)
        if text is None:
            attempt.lose()
            await attempt.park()
        return cast(T, codec.load(text or "null"))

    # --- waiting ---------------------------------------------------------------------------------------

    async def sleep(self, seconds: float) -> None:
        """Sleep without a worker: the job holds no slot and no memory, survives restarts, and wakes on time.

        The sleeps of the job's own task are known by their count, so their length may be another one in each attempt (a
        random number, the time until a moment); those of tasks that it starts are known by their length.
        Raises `BadDeclaration` for a negative, NaN or endless number.
        """
        main = self._attempt.in_main_task
        if not main:
            seconds = check_seconds("ctx.sleep", seconds)

        def wait(key: str) -> Wait:
            return Wait(key, WaitKind.SLEEP, seconds=check_seconds("ctx.sleep", seconds))

        await self._wait("sleep" if main else f"sleep {seconds:g}", wait)

    async def wait_for(self, name: str, *, timeout: float | None = None) -> Any:
        """Wait for a message sent with `job.send(name, data)`, without a worker; the data as plain JSON values.

        Messages of one name are received in the order in which they were sent, also those sent before.
        Raises TimeoutError after `timeout` seconds (default: none).
        """
        check_text("the name of a message", name)
        timeout = None if timeout is None else check_seconds("ctx.wait_for(timeout)", timeout)
        value = await self._wait(f"signal {name}", lambda key: Wait(key, WaitKind.SIGNAL, name, timeout))
        if "timeout" in value:
            within = "its time" if timeout is None else f"{timeout:g} s"
            raise TimeoutError(f"no message {name!r} came within {within}")
        return value["data"]

    async def _wait(self, what: str, wait: Callable[[str], Wait]) -> Any:
        attempt = self._attempt
        self._require_outside_steps("a wait")
        steps = await attempt.load_steps()
        key = steps.wait_key(what)
        row = steps.recorded(key, main=False)
        if row is None:
            await attempt.wait_for(wait(key))
        assert row is not None
        return load_plain(row.value)

    # --- children --------------------------------------------------------------------------------------

    async def start(self, call: Call[T], *, name: str | None = None) -> Job[T]:
        """Submit a child job, once, however often this job is started again.

        child = await ctx.start(resize.call(image, 200))
        """
        attempt = self._attempt
        self._require_outside_steps("a child")
        steps = await attempt.load_steps()
        key = steps.start_key(name, call.job.task, call.job.args)
        row = steps.recorded(key, main=attempt.in_main_task)
        client = attempt.crew.client
        if row is not None and row.status is StepStatus.COMPLETED:
            return Job(client, load_plain(row.value), call.task.result)
        await attempt.checkpoint()
        # The key makes it the same child when this process dies between the two writes.
        job = call.job._replace(
            id=new_id(), parent_id=self.job_id, key=call.job.key or f"{self.job_id}/{key}"
        )
        began = time.monotonic()
        with attempt.holding():
            try:
                (answer,) = await attempt.finish_write(lambda: client.submit((job,)), f"child of {attempt!r}")
            except Exception as error:
                await self._record_failed(key, StepPolicy.REPLAY, began, error)
                raise
            step = StepRecord(key, StepStatus.COMPLETED, f'"{answer.id}"', main=attempt.in_main_task)
            await attempt.record_step(step)
        return Job(client, answer.id, call.task.result)

    async def result(self, job: Job[T]) -> T:
        """Wait for a child's result without a worker. Raises `JobFailed` or `JobCancelled`, as the child ended."""
        await self._wait(f"jobs {job.id}", lambda key: Wait(key, WaitKind.JOBS, jobs=(job.id,)))
        return await self._result_of(job)

    async def gather(self, *jobs: Job[T]) -> list[T]:
        """Wait for all of these, once, without a worker; their results in order, or the first failure in it."""
        if not jobs:
            return []
        ids = tuple(job.id for job in jobs)
        what = f"jobs {ids[0]} and {len(ids) - 1} more"
        await self._wait(what, lambda key: Wait(key, WaitKind.JOBS, jobs=ids))
        return [await self._result_of(job) for job in jobs]

    async def _result_of(self, job: Job[T]) -> T:
        attempt = self._attempt
        while True:
            with attempt.holding():
                row = await persist(partial(attempt.crew.client.get, job.id), repr(attempt), attempt)
            if row.status.final:
                return cast(T, result_of(row, job._codec))
            # It had ended when it was waited for, and was retried by hand since.
            await self._wait(f"jobs {job.id}", lambda key: Wait(key, WaitKind.JOBS, jobs=(job.id,)))

    async def run(self, call: Call[T], *, name: str | None = None) -> T:
        """Start a child and wait for its result."""
        return await self.result(await self.start(call, name=name))

    # --- telling ---------------------------------------------------------------------------------------

    async def progress(self, done: float, of: float | None = None, message: str | None = None) -> None:
        """Tell how far the job is; shown with it and written to its log."""
        told = {"done": done, "of": of, "message": message}
        await self.emit("progress", {name: value for name, value in told.items() if value is not None})

    async def log(self, message: str, level: str = "info") -> None:
        """Write a line to the job's log."""
        await self.emit("log", {"level": level, "message": message})

    async def emit(self, type: str, data: Any = None) -> int:
        """Append an event to the job's log, for `job.events()`; its `seq`.

        Raises `BadResult` for data that JSON cannot hold, `PayloadTooLarge`.
        """
        check_text("the type of an event", type)
        step = _current_step.get()
        text = self._attempt.crew.client.check_size(
            dump_plain(data, f"the event {type!r}"), f"the event {type!r}"
        )
        self._attempt.enter()
        return await self._append(NewEvent(type, text, None if step is None else step.key))

    async def _append(self, event: NewEvent) -> int:
        attempt = self._attempt
        claimed = attempt.claimed
        seq = await attempt.finish_write(
            lambda: attempt.crew.engine.append_events(claimed.id, claimed.attempt, (event,)),
            f"an event of {attempt!r}",
        )
        if seq is None:
            attempt.lose()
            await attempt.park()
        attempt.crew.client.changed((claimed.id,))
        return seq or 0


def is_coroutine_function(fn: Callable[..., Any]) -> bool:
    """Also of a partial, and of an object with an async `__call__`."""
    fn = bare(fn)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004


async def awaited(value: Any) -> Any:
    """A plain function may return an awaitable (a decorated coroutine function does)."""
    return await value if inspect.isawaitable(value) else value


def _policy(policy: StepPolicy | str) -> StepPolicy:
    try:
        return StepPolicy(policy)
    except ValueError:
        raise BadDeclaration(f"a step's policy is one of {', '.join(StepPolicy)}, not {policy!r}") from None


def _refuse(given: Any, *, plain: bool = False) -> NoReturn:
    """What is no function, most often a coroutine; it must not warn later that nobody awaited it."""
    if inspect.iscoroutine(given):
        given.close()
    if plain:
        raise BadDeclaration(f"a transaction is a plain function of a connection, not {given!r}")
    raise BadDeclaration(f"a step is a function and its arguments, ctx.step(f, ...), not {given!r}")


def _codec_of(fn: Callable[..., Any], crew: Crew) -> ValueCodec:
    """Kept by the annotation and not by the function, which may be a closure over something large."""
    fn = bare(fn)
    fn = getattr(fn, "__func__", fn)
    annotated = fn if inspect.isroutine(fn) or inspect.isclass(fn) else type(fn).__call__
    written = getattr(annotated, "__annotations__", {}).get("return", Any)
    key = (written, getattr(annotated, "__module__", None), name_of(fn))
    try:
        codec = crew.codecs.get(key)
    except TypeError:  # an annotation without a hash
        return _new_codec(fn)
    if codec is None:
        if len(crew.codecs) >= _CODECS_KEPT:
            crew.codecs.clear()
        codec = crew.codecs[key] = _new_codec(fn)
    return codec


def _new_codec(fn: Callable[..., Any]) -> ValueCodec:
    return ValueCodec(return_hint_of(fn), f"the value of step {name_of(fn)}")
