"""The executor: runs claimed jobs as tasks of the manager, and turns each end into an outcome.

Who calls it: the worker's fetcher (`start`), its lease (`cancel`, `lose_all`), the worker at its end. What it owns: the
attempts that run now. Every attempt leaves exactly one end in the outbox, unless it was lost: then nothing it could say
would count.

An end is decided in one place, `_outcome_of`, from what was asked of the attempt first and from what it raised second:
whoever is being cancelled for a shutdown may raise anything while it cleans up, and that is no failure of the job.
"""

from __future__ import annotations

import asyncio
import json
import random
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from traceback import format_exception
from typing import Any

from .._core._diagnose import error_text, task_stack
from .._core._group import TaskGroup
from .._core._observer import About, about, tell
from .._core._record import Record
from .._core._roster import Intake, logger
from .._core._scope import Scope, current_scope
from .._core._state import StopReason
from ..exceptions import BadArguments, BadDeclaration, BadResult, PayloadTooLarge, StepCollision, StepMismatch
from ._attempt import Attempt, Crew, current_attempt
from ._codec import dump_error
from ._context import Context
from ._declaration import Task
from ._function import awaited
from ._observer import attempt_started, result_of
from ._process import run_in_process
from ._rows import (
    AttemptEnd,
    Cancelled,
    CancelRequest,
    Claimed,
    Completed,
    Failed,
    HandedOver,
    Outcome,
    Suspended,
    Wait,
)
from ._state import WaitKind
from ._steps import WAIT_MARK

# Errors that the next attempt would meet again: the code must change first, and retrying only hides that.
_HOPELESS = (BadArguments, BadDeclaration, BadResult, PayloadTooLarge, StepCollision, StepMismatch)

_PAUSE_SECONDS = 1.0

AnyTask = Task[Any, Any]


class Executor:
    def __init__(
        self,
        crew: Crew,
        group: TaskGroup,
        tasks: dict[tuple[str, str], AnyTask],
        on_end: Callable[[AttemptEnd | None], None],
    ) -> None:
        self._crew = crew
        self._group = group
        self._tasks = tasks
        self._on_end = on_end
        self.running: dict[str, Attempt] = {}
        # A task that is cancelled before its first step runs no line of `_run`; its record tells.
        self._unbegun: dict[Record, Attempt] = {}
        crew.give_up = self._give_up

    # --- verbs -----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to look for ends. `abandon_all` is the other end of it."""
        self._crew.client.at_work.append(self.running)
        self._crew.roster.watch(self._on_ended)

    def start(self, jobs: Sequence[Claimed]) -> None:
        """Begin each of them at once; a claim is a promise. What comes when the manager takes no more is given back."""
        if jobs and (self._crew.roster.intake is not Intake.OPEN or self._group._stopping):
            self.hand_back(jobs)
            return
        for claimed in jobs:
            attempt = Attempt(self._crew, claimed)
            self.running[claimed.id] = attempt
            task = self._group.create_task(self._run(attempt), name=f"{claimed.task} {claimed.id}")
            record = self._crew.roster.live.get(task)
            if record is not None and attempt.record is None:  # an eager first step has set it
                attempt.task, attempt.record = task, record
                self._unbegun[record] = attempt

    def hand_back(self, jobs: Sequence[Claimed]) -> None:
        """Claimed too late, the worker stops: given back before anything of them ran."""
        for claimed in jobs:
            self._on_end(AttemptEnd(claimed.id, claimed.attempt, HandedOver()))

    def cancel(self, request: CancelRequest) -> bool:
        """Somebody wants this job cancelled. False: it does not run here, not yet or no more."""
        attempt = self.running.get(request.id)
        if attempt is None or attempt.claimed.attempt != request.attempt:
            return False
        attempt.cancel(request.reason)
        return True

    def lose_all(self) -> None:
        """The lease was lost, and with it every attempt that runs under it."""
        for attempt in list(self.running.values()):
            attempt.lose()
            self._forget(attempt)

    def abandon_all(self) -> None:
        """The worker ends, and with it its lease: what still runs is handed over by that, and counts no more."""
        for attempt in list(self.running.values()):
            attempt.lose()
            self._end(attempt, None)
        self._crew.roster.unwatch(self._on_ended)
        at_work = self._crew.client.at_work
        at_work[:] = [running for running in at_work if running is not self.running]

    # --- one attempt -----------------------------------------------------------------------------------

    async def _run(self, attempt: Attempt) -> None:
        cancelled: asyncio.CancelledError | None = None
        outcome: Outcome | None = None
        try:
            self._begin(attempt)
            outcome = Completed(await self._call(attempt))
            if attempt.unwinding:  # it was cut off where it waited, whatever it has made of that
                outcome = self._outcome_of(attempt, asyncio.CancelledError())
                logger.warning(
                    "%r swallowed the cancellation by which it leaves its worker, and returned; what it returned does "
                    "not count. Let CancelledError pass",
                    attempt,
                    extra=attempt.log_fields("attempt.cancel_swallowed"),
                )
        except asyncio.CancelledError as error:
            cancelled = error
            outcome = self._outcome_of(attempt, error)
        except KeyboardInterrupt:
            outcome = HandedOver()
            raise
        except GeneratorExit as error:
            if asyncio._get_running_loop() is None or asyncio.current_task() is not attempt.task:
                attempt.ended = True  # collected, its loop is gone: nothing can be written any more
                raise
            outcome = self._outcome_of(attempt, error)
        except BaseException as error:
            outcome = self._outcome_of(attempt, error)
        finally:
            self._end(attempt, outcome)
        # Our own unwinding ends here; a cancel of the manager's or of somebody else's goes on, also where the job has
        # raised something else while it cleaned up.
        if attempt.reason is not None and not isinstance(outcome, Completed):
            raise cancelled or asyncio.CancelledError
        if cancelled is not None and not attempt.unwinding:
            raise cancelled
        if cancelled is not None and attempt.task is not None:
            attempt.task.uncancel()  # it was ours and has done its work; whoever looks must not think it swallowed

    def _on_ended(self, record: Record) -> None:
        if record.group is self._group and (task := record.live_task) is not None:
            # The manager remembers ended tasks, and a task its context: with it all that the job has put there, this
            # attempt, and every value of its steps.
            record.task = weakref.ref(task)
        attempt = self._unbegun.pop(record, None)
        if attempt is not None and not attempt.ended:
            self._end(attempt, self._outcome_of(attempt, asyncio.CancelledError()))

    def _begin(self, attempt: Attempt) -> None:
        record = attempt.record
        if record is None:
            scope = current_scope.get()
            record = None if scope is None else scope.current_record()
            assert record is not None
            attempt.task = asyncio.current_task()
            attempt.record = record
        else:
            del self._unbegun[record]
        attempt.node = self._crew.roster.node_of(record)
        # So that tasks which the job starts speak for the job, too.
        current_scope.set(Scope(self._crew.roster, record))
        current_attempt.set(attempt)
        claimed = attempt.claimed
        about.set(About(claimed.id, claimed.task, claimed.attempt))
        if observers := self._crew.client.observers:
            attempt_started(observers, claimed)

    async def _call(self, attempt: Attempt) -> str:
        claimed = attempt.claimed
        task = self._tasks[claimed.task, claimed.version]
        timeout = task.settings.timeout_seconds
        if claimed.options is not None:
            timeout = json.loads(claimed.options).get("timeout", timeout)
        if timeout is not None:
            attempt.later(timeout, attempt.cancel, StopReason.TIMEOUT)
        codec = task.result
        args, kwargs = task.arguments.load(claimed.args)
        if task.takes_context:
            args = (Context(attempt), *args)
        if task.settings.run == "process":
            value = await run_in_process(task.fn, args, kwargs, attempt)
        elif task.is_async and task.settings.run == "auto":
            value = await task.fn(*args, **kwargs)
        else:
            value = await awaited(await attempt.call_in_thread(partial(task.fn, *args, **kwargs)))
        if attempt.steps is not None and (forgotten := attempt.steps.forgotten()):
            logger.warning(
                "%r has completed without asking for step %r, which is recorded",
                attempt,
                forgotten[0],
                extra=attempt.log_fields("attempt.step_forgotten"),
            )
        return self._crew.client.check_size(codec.dump(value), "the result of %r", attempt)

    def _end(self, attempt: Attempt, outcome: Outcome | None) -> None:
        if attempt.ended:
            return  # given up before, and written then
        attempt.close()
        self._forget(attempt)
        record = attempt.record
        if isinstance(outcome, HandedOver | Suspended) and attempt.told_to_stop and record is not None:
            record.ensure_extra().handed_over = True
        claimed = attempt.claimed
        if observers := self._crew.client.observers:
            tell(observers, "attempt_ended", claimed, result_of(None if attempt.lost else outcome))
        if attempt.lost or outcome is None:
            self._on_end(None)
        else:
            self._on_end(AttemptEnd(claimed.id, claimed.attempt, outcome))

    def _forget(self, attempt: Attempt) -> None:
        if self.running.get(attempt.claimed.id) is attempt:
            del self.running[attempt.claimed.id]

    # --- outcomes --------------------------------------------------------------------------------------

    def _outcome_of(self, attempt: Attempt, error: BaseException) -> Outcome | None:
        """What became of an attempt that raised. None: there is nothing to say, it was lost or given up before."""
        if attempt.lost or attempt.ended:
            return None
        reason = attempt.reason
        if reason is StopReason.USER or reason is StopReason.DISCONNECT:
            return Cancelled(reason, None if isinstance(error, asyncio.CancelledError) else _written(error))
        if attempt.unwinding:  # it was leaving already: a wait keeps the end that it was given
            return attempt.leave()
        if reason is StopReason.TIMEOUT:
            return self._failure(attempt, TimeoutError("the attempt took longer than its timeout"))
        if reason is not None:  # the shutdown's deadline, or that of the worker's group
            return HandedOver()
        if isinstance(error, asyncio.CancelledError):
            task = attempt.task
            if task is None or task.cancelling():
                return self._cancelled_by_others(attempt)
            error = RuntimeError("the job let a CancelledError escape although nobody had cancelled it")
        return self._failure(attempt, error)

    def _cancelled_by_others(self, attempt: Attempt) -> Outcome:
        """The loop is being torn down, or a program cancels all of its tasks: no failure of the job. But it may as well
        cancel itself, every time, so it pauses."""
        logger.warning(
            "%r was cancelled, but not by lastcall; it is handed over",
            attempt,
            extra=attempt.log_fields("attempt.cancelled_by_others"),
        )
        if attempt.told_to_stop:
            return HandedOver()
        mark = f"{WAIT_MARK}cancelled by others in attempt {attempt.claimed.attempt}"
        return Suspended((Wait(mark, WaitKind.SLEEP, seconds=_PAUSE_SECONDS),))

    def _failure(self, attempt: Attempt, error: BaseException) -> Failed:
        claimed = attempt.claimed
        settings = self._tasks[claimed.task, claimed.version].settings
        retries = settings.retries
        if claimed.options is not None:
            retries = json.loads(claimed.options).get("retries", retries)
        failures = claimed.failures + 1
        hopeless = isinstance(error, _HOPELESS) or isinstance(error, settings.give_up_on)
        retry_in = None
        if failures <= retries and not hopeless:
            retry_in = settings.backoff.delay_seconds(failures, random.uniform(-1, 1))
        after = "it has failed" if retry_in is None else f"it is tried again in {retry_in:.1f} s"
        logger.warning(
            "%r failed: %s; %s",
            attempt,
            error_text(error),
            after,
            exc_info=error,
            extra=attempt.log_fields("attempt.failed"),
        )
        return Failed(_written(error), retry_in)

    # --- cancelling ------------------------------------------------------------------------------------

    def _give_up(self, attempt: Attempt) -> None:
        """It swallows its cancellation: its end is written without it, and whatever it does now counts no more."""
        task = attempt.task
        if attempt.ended or task is None:
            return
        logger.error(
            "%r was cancelled (%s) and still runs after %g s; it is given up. It stands at\n    %s",
            attempt,
            attempt.reason or "it leaves its worker",
            self._crew.cancel_grace_seconds,
            "\n    ".join(task_stack(task)),
            extra=attempt.log_fields("attempt.given_up"),
        )
        self._end(attempt, self._outcome_of(attempt, asyncio.CancelledError()))


def _written(error: BaseException) -> str:
    return dump_error(error, "".join(format_exception(error)))
