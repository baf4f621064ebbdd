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
