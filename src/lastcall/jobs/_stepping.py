"""One step of an attempt: whether it runs, what is told and written before and after, and what becomes of it.

Who calls it: `Context.step` and `Context.transaction`. What it owns: which step runs in this context. What can go wrong
is said in each policy: see `Context.step`.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from traceback import format_exception
from typing import Any, NoReturn, TypeVar, cast

from .._core._observer import about, tell, tell_end
from ..exceptions import BadDeclaration, NotInJob, StepUnknownOutcome
from ._attempt import Attempt, Crew
from ._codec import ValueCodec, dump_error, dump_plain, load_plain
from ._engine import SupportsTransactions
from ._function import awaited, bare, is_coroutine_function, name_of, return_hint_of
from ._job import Decision, decision_name
from ._outgoing import emit, flush
from ._rows import EventRow, NewEvent, StepRecord, StepRow, Wait
from ._state import StepPolicy, StepStatus, WaitKind
from ._told import told_before, word, written_by_step

T = TypeVar("T")

_CODECS_KEPT = 1000


class CurrentStep:
    """The step that runs now, for code inside it: `current_step()`.

    `idempotency_key` is the same whenever this step is tried again: pass it on to services that take one.
    For a step of policy `continue` that was cut off, `so_far` and `text_so_far` tell how far it had come.
    """

    __slots__ = ("_told", "attempt", "idempotency_key", "job_id", "key", "policy")

    def __init__(self, key: str, policy: StepPolicy, attempt: Attempt, told: Sequence[EventRow]) -> None:
        self.key = key
        self.policy = policy
        self.job_id = attempt.claimed.id
        self.attempt = attempt.claimed.attempt
        self.idempotency_key = f"{attempt.claimed.id}/{key}"
        self._told = told

    @property
    def so_far(self) -> list[Any]:
        """The data of what it had emitted when it was cut off, in order; empty for other policies."""
        return [load_plain(row.data) for row in self._told]

    def text_so_far(self, stream: str) -> str:
        """The text it had written to this stream when it was cut off. `ctx.stream(...).text_so_far` begins with it."""
        return text_of(self._told, stream)


def text_of(rows: Sequence[EventRow], stream: str) -> str:
    """The text that these events add to a stream."""
    return "".join(
        word(row, "text") for row in rows if row.type == "stream.text" and word(row, "stream") == stream
    )


running_step: ContextVar[CurrentStep | None] = ContextVar("lastcall_job_step", default=None)


def current_step() -> CurrentStep:
    """The step that runs now, in a coroutine or a thread. Raises `NotInJob` outside a step.

    await client.post("/charges", headers={"Idempotency-Key": current_step().idempotency_key})
    """
    step = running_step.get()
    if step is None:
        raise NotInJob("current_step() was called outside a step; call it in a function run by ctx.step(...)")
    return step


def require_outside_steps(attempt: Attempt, what: str) -> None:
    """Inside a step nothing can be remembered, and nothing may leave: it would wait for itself.

    Raises `BadDeclaration`, and `NotInJob` after the attempt's end.
    """
    attempt.enter()
    step = running_step.get()
    if step is not None and step.job_id == attempt.claimed.id:
        raise BadDeclaration(
            f"{attempt!r}: {what} inside the step {step.key!r}; a step is remembered as a whole, so call the "
            "function itself there, or make it a step beside this one"
        )


async def run_step(
    attempt: Attempt,
    fn: Callable[..., Any],
    args: Sequence[Any],
    name: str | None,
    policy: StepPolicy,
    on_unknown: Callable[[], Awaitable[Decision]] | None,
) -> Any:
    """See `Context.step`."""
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
            decision = await _decision(attempt, key, row, on_unknown)
            if decision.happened:
                return await _record_decided(attempt, key, codec, decision)
        with attempt.holding():
            so_far = await _prepare(attempt, key, policy, row)
            steps.running[key] = time.time()
            return await _run_step(attempt, key, fn, args, policy, codec, so_far)
    finally:
        steps.running.pop(key, None)
        steps.end(name)


async def run_transaction(attempt: Attempt, fn: Callable[..., T], args: Sequence[Any], name: str | None) -> T:
    """See `Context.transaction`."""
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
    steps.running[key] = time.time()
    try:
        with _observed(attempt, key, StepPolicy.REPLAY):
            text = await attempt.finish_write(
                lambda: cast(SupportsTransactions, engine).transact(claimed.id, claimed.attempt, step, work),
                f"step {key!r} of {attempt!r}",
            )
    except Exception as error:
        await record_failed(attempt, key, StepPolicy.REPLAY, began, error)
        raise
    finally:
        del steps.running[key]
        steps.end(name)
    if text is None:
        attempt.lose()
        await attempt.park()
    return cast(T, codec.load(text or "null"))


async def _prepare(attempt: Attempt, key: str, policy: StepPolicy, row: StepRow | None) -> Sequence[EventRow]:
    """What an earlier try has told: handed to the step if it continues, and otherwise taken back."""
    so_far: Sequence[EventRow] | None = None
    if policy is StepPolicy.CONTINUE and row is not None and row.policy is StepPolicy.CONTINUE:
        so_far = await written_by_step(attempt, key)
    if so_far is None and attempt.claimed.attempt > 1 and (await told_before(attempt)).takes_back_step(key):
        await emit(attempt, NewEvent("step.reset", dump_plain({"step": key}, "an event"), key))
    if policy is not StepPolicy.REPLAY:
        started = StepRecord(key, StepStatus.STARTED, policy=policy, main=attempt.in_main_task)
        await attempt.record_step(started)
    return so_far or ()


async def _run_step(
    attempt: Attempt,
    key: str,
    fn: Callable[..., Any],
    args: Sequence[Any],
    policy: StepPolicy,
    codec: ValueCodec,
    so_far: Sequence[EventRow],
) -> Any:
    main = attempt.in_main_task
    began = time.monotonic()
    token = running_step.set(CurrentStep(key, policy, attempt, so_far))
    job = about.get()
    about_token = about.set(None if job is None else job._replace(step=key))
    try:
        await _probe(attempt, "before", key)
        with _observed(attempt, key, policy):
            value, cancelled = await _call(attempt, fn, args)
        await _probe(attempt, "after", key)
        text = attempt.crew.client.check_size(codec.dump(value), f"the value of step {key!r}")
    except (Exception, asyncio.CancelledError) as error:
        await record_failed(attempt, key, policy, began, error)
        raise
    finally:
        running_step.reset(token)
        about.reset(about_token)
    took = time.monotonic() - began
    # A stream that is open around the step may have its text still on its way. The step is not run again once it is
    # recorded, so what it has told must be stored by then.
    await flush(attempt)
    await attempt.record_step(StepRecord(key, StepStatus.COMPLETED, text, None, policy, main, took))
    await _probe(attempt, "recorded", key)
    if cancelled is not None:
        raise cancelled
    return codec.load(text)


@contextmanager
def _observed(attempt: Attempt, key: str, policy: StepPolicy) -> Iterator[None]:
    observers = attempt.crew.client.observers
    if not observers:
        yield
        return
    ends = tell(observers, "step_started", attempt.claimed, key, policy)
    try:
        yield
    except BaseException as error:
        tell_end(ends, error)
        raise
    tell_end(ends, None)


async def record_failed(
    attempt: Attempt, key: str, policy: StepPolicy, began: float, error: Exception | asyncio.CancelledError
) -> None:
    """It is known how it ended: nobody has to decide anything, and the job may go on another way.

    Not of a step that was cut off, unless the job's own code did that (a timeout around it): what became of one
    declared `once` is unknown then. Nor of one that goes on where it stood.
    """
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


async def _probe(attempt: Attempt, when: str, key: str) -> None:
    if attempt.crew.probe is not None:
        await attempt.crew.probe(when, attempt, key)


async def _call(
    attempt: Attempt, fn: Callable[..., Any], args: Sequence[Any]
) -> tuple[Any, asyncio.CancelledError | None]:
    """The value; and the cancellation that came while a thread was busy: it cannot be cut off, and what it has
    done by then is done, so it is remembered before the cancellation goes on."""
    if is_coroutine_function(fn):
        return await fn(*args), None
    returned: list[Any] = []
    try:
        await attempt.call_in_thread(lambda: returned.append(fn(*args)))
    except asyncio.CancelledError as error:
        if not returned:
            raise
        return await awaited(returned[0]), error
    return await awaited(returned[0]), None


async def _decision(
    attempt: Attempt, key: str, row: StepRow, on_unknown: Callable[[], Awaitable[Decision]] | None
) -> Decision:
    """A step `once` was in flight when its process died: only somebody who knows can say what became of it."""
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
        await record_failed(attempt, key, StepPolicy.ONCE, time.monotonic(), error)
        raise error
    return Decision(bool(data["happened"]), data.get("value"))


async def _record_decided(attempt: Attempt, key: str, codec: ValueCodec, decision: Decision) -> Any:
    what = f"the value of step {key!r}"
    text = attempt.crew.client.check_size(dump_plain(decision.value, what), what)
    value = codec.load(text)  # before it is written: it may not be what the step returns
    await attempt.record_step(
        StepRecord(key, StepStatus.COMPLETED, text, None, StepPolicy.ONCE, attempt.in_main_task)
    )
    return value


def policy_of(policy: StepPolicy | str) -> StepPolicy:
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
