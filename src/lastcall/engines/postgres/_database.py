"""One database, as one engine has it: every call becomes as many tries as it needs, and one answer.

Who calls it: the engine, for every verb. What it owns: the pool, and what is known of the way to the server.

A try that the server took back (a deadlock, a serialization failure) is made again: nothing was written. A try whose
connection was lost before its commit is made again, too. One that was lost in its commit is *in doubt*: a transaction
is looked up by what it has left (`_doubt`) on another connection, and a single statement is asked again by a verb that
can tell (`Store.again`). When the server stays away the caller hears `EngineUnavailable`; only then, after a commit in
doubt, it may have been written all the same.

A connection can go silent: a firewall has forgotten it, the machine behind it is gone, and nobody says so. What keeps a
lease cannot wait as long for an answer as everything else does (`hurry`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from ...exceptions import EngineUnavailable
from .._outage import Outage
from ._doubt import Slots, Witness, leave, was_committed
from ._driver import Address, Connection, Kind, connect, is_elsewhere, kind_of, refuses_settings, translated
from ._log import write_told
from ._pool import Pool
from ._schema import migrate
from ._store import Store, Terms, TryAgain

_T = TypeVar("_T")

Work = Callable[[Store], Awaitable[_T]]

# How often a call is tried again that others were in the way of.
_TRIES = 20
# How long a call goes on after its connection was lost. A server that restarts is away for about a second.
_PATIENCE_SECONDS = 3.0
_PAUSE_SECONDS = 0.05
# What keeps a lease, begun at a third of it: a sixth for the first try, and half for another one on a new connection,
# so that a server which is only slow is heard, too. Not less than that, also for the shortest lease.
_FIRST_SHARE, _FIRST_LEAST_SECONDS = 1 / 6, 0.5
_LATER_SHARE, _LATER_LEAST_SECONDS = 1 / 2, 5.0


class _Doubt(Exception):
    """The commit of this transaction was asked for, and its answer lost."""

    def __init__(self, witness: Witness, answer: Any) -> None:
        super().__init__(witness.xid)
        self.witness = witness
        self.answer = answer


class _Try(NamedTuple):
    """How one try went: its answer, or the error and what it means."""

    answer: Any
    error: BaseException | None = None
    kind: Kind | None = None


class Database:
    """`pooled`: None finds out whether a pooler stands in between, which keeps no session."""

    def __init__(
        self, address: Address, terms: Terms, outage: Outage, *, size: int, pooled: bool | None
    ) -> None:
        self.address = address
        self._terms = terms
        self._outage = outage
        self._pooled = pooled
        self._pool = Pool(self.connect, size)
        self._slots = Slots()
        self._lease_seconds: float | None = None

    @property
    def pooled(self) -> bool:
        return bool(self._pooled)

    async def open(self) -> None:
        """Connect, and bring the schema to this version."""
        connection = await self._pool.take()
        try:
            if self._pooled is None:
                # A pooler makes up the number that a server tells at the beginning.
                mine = await connection.fetchval("SELECT pg_backend_pid()")
                self._pooled = mine != connection.get_server_pid()
                if self._pooled:
                    self._pool.drop(connection)
                    connection = await self._pool.take()
            await migrate(connection, self._terms.texts)
        except EngineUnavailable:
            raise
        except Exception as error:
            raise translated(error, self.address) from error
        finally:
            self._pool.give_back(connection)

    def beside(self, size: int) -> Database:
        """The same database, once it is open, by connections of its own: for what must not wait behind other calls."""
        return Database(self.address, self._terms, self._outage, size=size, pooled=self._pooled)

    def hurry(self, lease_seconds: float) -> None:
        """The calls from now on keep a lease, of which so long is the shortest: no try takes longer than it allows."""
        before = self._lease_seconds
        self._lease_seconds = lease_seconds if before is None else min(before, lease_seconds)

    async def connect(self) -> Connection:
        """A new connection. Raises `EngineUnavailable`."""
        try:
            return await connect(self.address, pooled=self.pooled)
        except EngineUnavailable as error:
            if self._pooled is not None or not refuses_settings(error):
                raise
        self._pooled = True
        return await connect(self.address, pooled=True)

    async def close(self) -> None:
        await self._pool.close()

    def abandon(self) -> None:
        self._pool.abandon()

    # --- calls -----------------------------------------------------------------------------------------

    async def read(self, work: Work[_T]) -> _T:
        """A call that writes nothing."""
        return await self._run(work, self._one_statement)

    async def write(self, work: Work[_T]) -> _T:
        """A call that writes with one statement. After a lost answer it is made again with `Store.again`."""
        return await self._writing(work, self._one_statement)

    async def transact(self, work: Work[_T]) -> _T:
        """A call in a transaction of its own."""
        return await self._writing(work, self._transaction)

    async def _writing(self, work: Work[_T], attempt: Callable[[Work[_T], bool], Awaitable[_Try]]) -> _T:
        self._outage.begin()
        try:
            answer = await self._run(work, attempt)
        except EngineUnavailable:
            raise
        except BaseException:
            self._outage.end()
            raise
        self._outage.end()
        return answer

    async def _run(self, work: Work[_T], attempt: Callable[[Work[_T], bool], Awaitable[_Try]]) -> _T:
        deadline = time.monotonic() + _PATIENCE_SECONDS + (self._may_take(False) or 0.0)
        again = lost = False
        tries = 0
        task = asyncio.current_task()
        assert task is not None
        cancels = task.cancelling()
        while True:
            tries += 1
            try:
                outcome = await attempt(work, again)
            except EngineUnavailable:
                _check_cancelled(task, cancels)
                # Nobody gets through. A call that was never on its way is told so at once.
                if not lost or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            _check_cancelled(task, cancels)
            if outcome.error is None:
                answer: _T = outcome.answer
                return answer
            if outcome.kind is Kind.AGAIN and tries < _TRIES:
                await asyncio.sleep(random.uniform(0, 0.002 * tries))
                continue
            if outcome.kind is Kind.LOST and time.monotonic() < deadline:
                again = lost = True
                continue
            raise translated(outcome.error, self.address) from outcome.error.__cause__

    def _may_take(self, again: bool) -> float | None:
        if self._lease_seconds is None:
            return None
        if again:
            return max(_LATER_LEAST_SECONDS, self._lease_seconds * _LATER_SHARE)
        return max(_FIRST_LEAST_SECONDS, self._lease_seconds * _FIRST_SHARE)

    async def _one_statement(self, work: Work[Any], again: bool) -> _Try:
        seconds = self._may_take(again)
        if seconds is None:
            return await self._single(work, again)
        try:
            async with asyncio.timeout(seconds):
                return await self._single(work, again)
        except TimeoutError:  # ours; that of a driver is a try's outcome
            self._pool.drop_idle()
            return _Try(None, TimeoutError(f"no answer within {seconds:g} s"), Kind.LOST)

    async def _single(self, work: Work[Any], again: bool) -> _Try:
        connection = await self._pool.take()
        try:
            return _Try(await work(Store(connection, self._terms, wrap=self.pooled, again=again)))
        except Exception as error:
            outcome = self._failed(connection, error)
            if not connection.is_closed() and connection.is_in_transaction():  # a snapshot
                await self._roll_back(connection)
            return outcome
        except BaseException:
            self._pool.drop(connection)
            raise
        finally:
            self._pool.give_back(connection)

    async def _transaction(self, work: Work[Any], again: bool) -> _Try:
        connection = await self._pool.take()
        slot = self._slots.take()
        try:
            store = Store(connection, self._terms, again=again)
            await store.begin()
            answer = await work(store)
            await write_told(store)
            await self._commit(store, slot, answer)
            # After anything else its transaction may still be under way, and would be waited for.
            self._slots.give_back(slot)
            return _Try(answer)
        except _Doubt as doubt:
            self._pool.drop(connection)
            return await self._settle(doubt)
        except Exception as error:
            outcome = self._failed(connection, error)
            await self._roll_back(connection)
            return outcome
        except BaseException:
            self._pool.drop(connection)
            raise
        finally:
            self._pool.give_back(connection)

    async def _commit(self, store: Store, slot: int, answer: Any) -> None:
        witness = await leave(store, slot)
        try:
            await store.connection.execute("COMMIT")
        except Exception as error:
            if witness is None or kind_of(error) is not Kind.LOST:
                raise
            raise _Doubt(witness, answer) from error

    async def _roll_back(self, connection: Connection) -> None:
        if connection.is_closed():
            return
        try:
            await connection.execute("ROLLBACK")
        except Exception:
            self._pool.drop(connection)

    async def _settle(self, doubt: _Doubt) -> _Try:
        """Look up whether the transaction was committed, by what it has left."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        self._pool.drop_idle()
        while True:
            committed = await self._fate(doubt.witness)
            if committed is not None:
                return _Try(doubt.answer) if committed else _Try(None, doubt.__cause__, Kind.LOST)
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
        unknown = EngineUnavailable(
            f"the connection to the database {self.address.shown} was lost in a commit, and the server does not come"
            " back to tell; what was asked for may have been written all the same"
        )
        return _Try(None, unknown, Kind.REFUSED)

    async def _fate(self, witness: Witness) -> bool | None:
        """None: nobody can tell yet."""
        try:
            outcome = await self._single(lambda store: was_committed(store, witness), False)
        except EngineUnavailable:
            return None
        return None if outcome.error is not None else outcome.answer

    def _failed(self, connection: Connection, error: Exception) -> _Try:
        if isinstance(error, TryAgain):
            return _Try(
                None, EngineUnavailable("too many others wrote the same at the same time"), Kind.AGAIN
            )
        kind = kind_of(error)
        if kind is Kind.LOST or is_elsewhere(error):
            self._pool.drop(connection)
            self._pool.drop_idle()
        return _Try(None, error, kind)


def _check_cancelled(task: asyncio.Task[Any], cancels: int) -> None:
    """An error of the driver that meets a cancellation may take its place, and so may an answer (`asyncio.wait_for` of
    Python 3.11 returns it); whoever cancelled would wait for ever. So it was with a closing engine and its task that
    polls."""
    if task.cancelling() > cancels:
        raise asyncio.CancelledError
