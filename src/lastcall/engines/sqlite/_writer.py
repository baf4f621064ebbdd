"""The writer thread: everything that waits becomes one commit.

Who calls it: the engine, from its loop (`start`, `call`, `nudge`, `stop`). What it owns: the writing connection.

One turn: take all waiting calls; begin; verbs by rank (submits first, claims last, so that a claim sees what was
submitted, and the ends of attempts ride along); commit; tell all callers with one `call_soon_threadsafe`. If a verb
raises, the whole batch is rolled back and every call runs in a transaction of its own, so that only the guilty one
fails. If the commit fails, all of them fail. Between batches it looks now and then whether somebody else has committed.

sqlite3 gives the GIL away at every step of a statement and waits for it afterwards, up to 5 ms each time while the
loop is busy. So what comes by the hundred is one statement of one step, which also runs beside the loop on another
core: JSON in, JSON out. With a step for each row the two threads took turns, and their times added up.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from itertools import groupby
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ...exceptions import EngineUnavailable
from .._outage import Outage
from ._database import Database
from ._errors import translated
from ._log import write_told
from ._lookout import Lookout
from ._store import Answer, Call, CallersError, Store, Verb

_T = TypeVar("_T")

Outcome = tuple["asyncio.Future[Any]", Any, bool]


# So many calls at most share a commit, so that none takes longer than a blink and urgent ones can come between.
_MOST = 2000


class _VerbRaised(Exception):
    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Operation:
    """One call of a verb on its way."""

    __slots__ = ("call", "future", "rank", "verb")

    def __init__(self, verb: Verb[Any, Any], call: Any, future: asyncio.Future[Any]) -> None:
        self.verb = verb
        self.call = call
        self.future = future
        self.rank = verb.rank


_by_rank = attrgetter("rank")
_by_verb = attrgetter("verb")


def settle(outcomes: list[Outcome]) -> None:
    """On the loop: wake the callers. One that was cancelled does not hear; what it asked for has happened."""
    for future, value, failed in outcomes:
        if future.done():
            continue
        if failed:
            future.set_exception(value)
        else:
            future.set_result(value)


class Writer:
    """`make_store` is called for each connection that is opened."""

    def __init__(
        self,
        database: Database,
        make_store: Callable[[sqlite3.Connection], Store],
        loop: asyncio.AbstractEventLoop,
        outage: Outage,
        on_foreign_commit: Callable[[], None],
        on_reopened: Callable[[], None],
    ) -> None:
        self._database = database
        self._make_store = make_store
        self._loop = loop
        self._outage = outage
        self._on_foreign_commit = on_foreign_commit
        self._on_reopened = on_reopened
        self._store: Store | None = None
        self._waiting: deque[Operation] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._asleep = False
        self._stopping = False
        self._reopened = False
        self.lookout = Lookout()
        self._thread = threading.Thread(target=self._run, name="lastcall-sqlite-writer", daemon=True)
        self._opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    # --- on the loop -----------------------------------------------------------------------------------

    def start(self) -> asyncio.Future[None]:
        """Start the thread; the future is done when the file is open, or says why it cannot be."""
        self._thread.start()
        return self._opened

    def call(self, verb: Verb[Call, Answer], call: Call) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = self._loop.create_future()
        if verb.urgent:
            self._waiting.appendleft(Operation(verb, call, future))
        else:
            self._waiting.append(Operation(verb, call, future))
        if self._asleep:
            self._ring()
        return future

    def nudge(self) -> None:
        """Somebody has written to the log, we or another: look who it was."""
        self.lookout.nudge()
        if self._asleep:
            self._ring()

    def watch(self, poll_seconds: float | None) -> None:
        """Look out for other processes' commits at least so often; None: nobody wants to know."""
        self.lookout.poll_seconds = poll_seconds
        if self._asleep:
            self._ring()

    def stop(self) -> asyncio.Future[None]:
        """Write what waits, close the file, end; the future is done then."""
        self._stopping = True
        self._ring()
        return self.ended

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _ring(self) -> None:
        self._asleep = False
        self._bell.put(None)

    # --- in the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        if self._try_open():
            while (batch := self._next_batch()) is not None:
                if batch:
                    self._carry_out(batch)
                self._look_out()
        self._store = None
        try:
            self._database.close()
        finally:
            self._tell(settle, [(self.ended, None, False)])

    def _try_open(self) -> bool:
        try:
            self._ready()
        except Exception as error:
            self._tell(settle, [(self._opened, error, True)])
            return False
        self._tell(settle, [(self._opened, None, False)])
        return True

    def _next_batch(self) -> list[Operation] | None:
        """What waits, all of it within reason; empty: time to look out; None: the end."""
        while not self._waiting:
            if self._stopping:
                return None
            self._asleep = True
            # Between the first look and the line above somebody may have come without ringing.
            if self._waiting or self._stopping:
                self._asleep = False
                continue
            try:
                self._bell.get(timeout=self.lookout.wait_seconds())
            except Empty:
                self._asleep = False
                return []
            if self.lookout.is_nudged:
                break
        waiting = self._waiting
        return [waiting.popleft() for _ in range(min(len(waiting), _MOST))]

    def _carry_out(self, batch: list[Operation]) -> None:
        together = [operation for operation in batch if not operation.verb.alone]
        alone = [operation for operation in batch if operation.verb.alone]
        outcomes: list[Outcome] = []
        try:
            try:
                outcomes += self._commit(together) if together else []
            except _VerbRaised:
                alone = together + alone
            for operation in alone:
                outcomes += self._commit_one(operation)
        except Exception as error:
            # Nobody gets through now: do not try the rest one by one, each might wait for a lock.
            answered = {outcome[0] for outcome in outcomes}
            outcomes += [(each.future, _again(error), True) for each in batch if each.future not in answered]
        self._tell(settle, outcomes)

    def _commit_one(self, operation: Operation) -> list[Outcome]:
        try:
            return self._commit([operation])
        except _VerbRaised as raised:
            return [(operation.future, self._told(raised.error), True)]

    def _commit(self, batch: list[Operation]) -> list[Outcome]:
        """One transaction. `_VerbRaised`: a call is at fault; any other error: the store is. Nothing was written."""
        self._outage.begin()
        try:
            store = self._ready()
            self._checked(store.begin)
        except Exception:
            self._undo()
            raise
        try:
            outcomes = _answers(store, batch)
        except BaseException as error:
            self._undo()
            if not isinstance(self._told(error), EngineUnavailable):
                self._outage.end()
            raise _VerbRaised(error) from error
        try:
            self._checked(store.commit)
        except Exception:
            self._undo()
            self._let_go()
            raise
        self._database.verify()
        self._outage.end()
        if self._reopened:
            # Not before it works: who is woken by it tries again, and a full disk would keep us all awake.
            self._reopened = False
            self._tell(self._on_reopened)
        return outcomes

    def _ready(self) -> Store:
        """The store of the file that stands at the path. Opens it when needed."""
        database = self._database
        before = database.opened
        connection = self._checked(database.connection)
        if self._store is None or database.opened != before:
            self._store = self._make_store(connection)
            self.lookout.begin(connection)
            self._reopened = before > 0
        return self._store

    def _undo(self) -> None:
        if self._store is not None:
            try:
                self._store.rollback()
            except sqlite3.Error:
                self._let_go()

    def _let_go(self) -> None:
        """In doubt the connection is opened anew."""
        self._store = None
        self._database.close()

    def _look_out(self) -> None:
        try:
            news = self.lookout.look(None if self._store is None else self._store.connection)
        except sqlite3.Error:
            return  # the next call will meet the same trouble, and somebody is there to be told
        if news:
            self._tell(self._on_foreign_commit)

    def _checked(self, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except sqlite3.Error as error:
            raise translated(error, self._database.path) from error

    def _told(self, error: BaseException) -> BaseException:
        if isinstance(error, CallersError):
            error = error.error
            # A future refuses to carry a StopIteration.
            return RuntimeError(f"the call raised {error!r}") if isinstance(error, StopIteration) else error
        if isinstance(error, sqlite3.Error):
            return translated(error, self._database.path)
        return error

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return  # the loop is closed: there is nobody left to be told


def _again(error: Exception) -> Exception:
    """An error of its own for each caller: raised in many tasks, one would gather all their tracebacks."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy


def _answers(store: Store, batch: list[Operation]) -> list[Outcome]:
    """Carry out a batch, by rank; within a rank in the order of arrival."""
    outcomes: list[Outcome] = []
    if len(batch) > 1:
        batch = sorted(batch, key=_by_rank)
    for verb, group in groupby(batch, _by_verb):
        operations = list(group)
        values = verb.answer(store, [operation.call for operation in operations])
        outcomes += [
            (operation.future, value, False) for operation, value in zip(operations, values, strict=True)
        ]
    write_told(store)
    return outcomes
