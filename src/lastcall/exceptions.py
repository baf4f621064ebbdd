"""Every error this library raises on purpose. Each says what happened, to which task, and what to do.

All of them are `LastcallError`; each also is the builtin error a reader would have expected,
so code that knows nothing of lastcall (`except RuntimeError`, `except LookupError`) still works.
"""

from __future__ import annotations


class LastcallError(Exception):
    """The base of all errors of this library. Catch it to catch them all."""


class InvalidPlan(LastcallError, ValueError):
    """A shutdown plan (or another budget) that cannot be kept: negative, NaN, endless. Correct the named number."""


class NotACoroutine(LastcallError, TypeError):
    """Something that cannot run as a task was given: not a coroutine, or one that already runs.

    Call the `async def` function and hand over what it returns: `create_task(poll())`, not `create_task(poll)`.
    """


class NotOpen(LastcallError, RuntimeError):
    """The manager is not open. Use it inside `async with manager:` (or let `install(app, manager)` open it)."""


class ManagerClosed(NotOpen):
    """The manager has shut down. Open it again, or make the work part of the shutdown with `on_close`."""


class ShuttingDown(LastcallError, RuntimeError):
    """New work was refused because the manager or group is stopping; its coroutine was closed, nothing ran.

    Answer `503` and `Retry-After` to whoever asked. Work that must be done while stopping belongs to a task
    that is still draining (its children are let in) or to `on_close`.
    """


class WrongLoop(LastcallError, RuntimeError):
    """The call came from another event loop, or from a thread without one.

    A manager belongs to the loop that opened it; from a thread use `loop.call_soon_threadsafe`.
    """


class UnknownTask(LastcallError, LookupError):
    """No such task: the id is wrong, or its record was dropped (see `keep_ended` and `keep_ended_seconds`)."""


class DuplicateTask(LastcallError, ValueError):
    """An id or a name that must be unique is taken. Choose another, or look the first one up with `info`."""


class GroupFull(LastcallError, RuntimeError):
    """The group's `max_pending` is reached; the coroutine was closed. Try later, or `await group.spawn(...)`."""


class ServiceGaveUp(LastcallError, RuntimeError):
    """A supervised service failed more often than its `RestartPolicy` allows. Its last error is the `__cause__`."""


class InstallError(LastcallError, RuntimeError):
    """`install` could not be done: done twice, too late, or its prefix collides with a route. Nothing was changed."""


class JobError(LastcallError):
    """The base of all errors of durable jobs."""


class UnknownJob(JobError, LookupError):
    """No such job: the id is wrong, or the job was pruned after its retention or purged."""


class UnknownTaskName(JobError, LookupError):
    """No task of this name is declared on this `Jobs`. Import the module that declares it, or correct the name."""


class BadDeclaration(JobError, ValueError):
    """A task, an option or a schedule was declared in a way that cannot work. The message names it."""


class BadArguments(JobError, TypeError):
    """Arguments that do not fit the task, or cannot be written down as JSON. Nothing was written."""


class BadResult(JobError, TypeError):
    """A result that does not fit the function's annotation, or cannot be written down as JSON."""


class PayloadTooLarge(JobError, ValueError):
    """Arguments, a result, a step's value or an event above `max_payload_bytes`. Store it elsewhere, pass its name."""


class BadConnection(JobError, ValueError):
    """A connection in whose transaction a job cannot be written: of an unknown kind, closed, in no transaction or in
    a failed one, to another database. The message says what to do; no job was written."""


class KeyConflict(JobError, ValueError):
    """A job with this key exists with other arguments. Nothing was written; choose another key, or look the job up."""


class StepMismatch(JobError, RuntimeError):
    """The code asked for another step than the one that is recorded at this place; the message names both.

    The function was changed while the job was under way. Put the step back, or declare the changed function with
    another `version=` and let workers with the old code finish the old jobs.
    """


class StepCollision(JobError, ValueError):
    """Two steps of one job had the same name at the same time. Give each its own `name=`."""


class StepUnknownOutcome(JobError, RuntimeError):
    """A step declared `once` was decided to have failed, by `job.resolve(step, error=...)`."""


class NotInJob(JobError, RuntimeError):
    """A step or its context was used outside the attempt it belongs to: in no job, or after the attempt had ended."""


class JobFailed(JobError, RuntimeError):
    """The job whose result was asked for has failed. `error` has the type, the message and the traceback."""

    def __init__(self, message: str, error: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.error = error or {}


class JobCancelled(JobError, RuntimeError):
    """The job whose result was asked for was cancelled."""


class LeaseLost(JobError, RuntimeError):
    """This attempt is over: its worker was taken for dead, and another one has the job. Nothing it does counts."""


class UnknownEngine(JobError, ValueError):
    """No engine has this URL's scheme, or its extra is not installed; the message says what to install."""


class EngineUnavailable(JobError, RuntimeError):
    """The store cannot be used now: full, locked, read-only, away, corrupt or vanished. The message says which, and
    what to do. Nothing was written. Workers pause and come back by themselves."""


class BrokerUnavailable(JobError, ConnectionError):
    """The broker or the result store of a carrier (Celery, RQ) cannot be reached. Durable jobs are not affected: they
    are in the engine, and sent for again. A task of the carrier's own was not sent, or is not known of now."""


class SchemaTooNew(JobError, RuntimeError):
    """The store was written by a newer lastcall. Upgrade this one; nothing was changed."""


class StreamError(LastcallError):
    """The base of all errors of streams and of jobs' logs."""


class UnknownStream(StreamError, LookupError):
    """No such stream: the id is wrong, or the stream was deleted or has expired."""


class BadCursor(StreamError, ValueError):
    """A cursor that is none: negative, no number, ahead of the end, or of another stream. Begin at 0."""


class EntriesGone(StreamError, LookupError):
    """The reader asks for entries that are not kept any more. `first` is the oldest one that is.

    Read on after `first - 1`, and take what was before from the snapshot.
    """

    def __init__(self, message: str, *, first: int) -> None:
        super().__init__(message)
        self.first = first


class StreamClosed(StreamError, RuntimeError):
    """Something was written to a stream that is closed. Nothing was written; open another one."""


class StreamConflict(StreamError, ValueError):
    """The stream exists with another configuration, or a write does not fit what was written before it."""


class AgentError(LastcallError):
    """The base of all errors of queues of agents, their runs and conversations."""


class UnknownAgent(AgentError, TypeError):
    """The agent has none of the interfaces that are known; the message lists them. Wrap it in an async function."""


class UnknownRun(AgentError, LookupError):
    """No such run: the id is wrong, or the run has ended and is not remembered any more."""


class UnknownConversation(AgentError, LookupError):
    """No such conversation, or no such turn in it. Nothing was written."""


class RunFailed(AgentError, RuntimeError):
    """The run whose result was asked for has failed. `error` has the type, the message and the traceback; what the
    agent had streamed by then stays readable, with `run.text()`."""

    def __init__(self, message: str, error: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.error = error or {}


class RunCancelled(AgentError, RuntimeError):
    """The run whose result was asked for was cancelled. `reason` tells a user's cancel from a shutdown."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class BudgetExceeded(AgentError, RuntimeError):
    """A run has used up its time, its tokens or its tool calls. Give it a larger `Budget`, or a smaller task."""


class QueueFull(AgentError, RuntimeError):
    """As many prompts wait as may, of all users or of this one. Nothing was queued; try again later."""


class ConversationBusy(AgentError, RuntimeError):
    """A turn of this conversation has not ended. `run_id` is its run; wait for it, or say what to do: `on_busy=`."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id
