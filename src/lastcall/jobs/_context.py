"""Context: what a job's function is given first. Its verbs are checkpoints, where a drain may hand the job over."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast, overload

from .._core._scope import Shutdown
from .._core._state import StopReason
from ..exceptions import BadDeclaration, NotInJob
from ._attempt import Attempt, current_attempt, persist
from ._codec import dump_plain, load_plain
from ._ids import new_id
from ._job import Decision, Job, result_of
from ._outgoing import emit, outgoing_of
from ._rows import NewEvent, StepRecord, Wait
from ._settings import seconds as check_seconds
from ._settings import text as check_text
from ._state import StepPolicy, StepStatus, WaitKind
from ._stepping import (
    policy_of,
    record_failed,
    require_outside_steps,
    run_step,
    run_transaction,
    running_step,
)
from ._stream import OutStream, reopened

if TYPE_CHECKING:
    from ._declaration import Call

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


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
        policy = policy_of(policy)
        require_outside_steps(attempt, "a step")
        return await run_step(attempt, fn, args, name, policy, on_unknown)

    async def transaction(self, fn: Callable[[Any, *Ts], T], /, *args: *Ts, name: str | None = None) -> T:
        """A step that writes to the engine's own database: `fn(connection, *args)` and the memory of it are committed
        together, so it happens exactly once, whatever dies.

        On SQLite `fn` is a plain function of a `sqlite3.Connection` to the same file and runs between the writes of
        everybody else: keep it short. It must not commit; what it raises undoes it and is raised here.
        Raises `BadDeclaration` for an engine that cannot do this, and as `step`.

            await ctx.transaction(move_money, "ann", "bob", 5)
        """
        require_outside_steps(self._attempt, "a transaction")
        return await run_transaction(self._attempt, fn, args, name)

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
        require_outside_steps(self._attempt, "a wait")
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
        require_outside_steps(self._attempt, "a child")
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
                await record_failed(attempt, key, StepPolicy.REPLAY, began, error)
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
        step = running_step.get()
        text = self._attempt.crew.client.check_size(
            dump_plain(data, f"the event {type!r}"), f"the event {type!r}"
        )
        return await emit(self._attempt, NewEvent(type, text, None if step is None else step.key))

    def stream(self, name: str = "answer", *, policy: StepPolicy | str = StepPolicy.REPLAY) -> OutStream:
        """A stream of text and data that readers see as it is written: `async with ctx.stream("answer") as out`.

        Written again after a crash or a hand-over, it takes back what it has said (`step.reset` of the step it is
        written in, or `stream.reset`), so that readers can rewind. With the policy `continue`, of the step or, outside
        of steps, of the stream, it goes on where it stood, and `out.text_so_far` is what it has said by then.
        """
        check_text("the name of a stream", name)
        policy = policy_of(policy)
        if policy is StepPolicy.ONCE:
            raise BadDeclaration(
                "a stream's policy is replay or continue; make it a step `once` around the stream"
            )
        attempt, step = self._attempt, running_step.get()
        if step is not None and step.job_id == self.job_id:
            begin, key, policy = _at_once(step.text_so_far(name)), step.key, step.policy
        else:
            begin, key = partial(reopened, attempt, name, policy), None
        goes_on = policy is StepPolicy.CONTINUE
        return OutStream(attempt, outgoing_of(attempt), name, key, begin, goes_on=goes_on)


def _at_once(text: str) -> Callable[[], Awaitable[str]]:
    async def begin() -> str:
        return text

    return begin
